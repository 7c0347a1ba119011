//! Draws the model: reads it, changes nothing. Every text from outside is escaped before it gets here
//! or on its way.

mod graphs;
mod pages;
mod tables;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::model::{Link, Model, Motion, Page};
use crate::control::stats::{App, Stats};
use crate::ctl::show::{self, Paint, escape, seconds};

/// What colours mean.
#[derive(Debug, Clone, Copy)]
pub struct Palette(pub Paint);

impl Palette {
    fn color(self, color: Color) -> Style {
        match self.0 {
            Paint::Ansi => Style::new().fg(color),
            Paint::None => Style::new(),
        }
    }

    fn bad(self) -> Style {
        self.color(Color::Red)
    }

    fn state(self, state: &str) -> Style {
        match state {
            "idle" => self.color(Color::Green),
            "reading" | "running" | "writing" => self.color(Color::Yellow),
            "starting" => self.color(Color::Blue),
            "draining" => self.color(Color::Magenta),
            _ => Style::new(),
        }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Where the next line goes.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    palette: Palette,
}

impl Canvas<'_> {
    fn is_full(&self) -> bool {
        self.area.height == 0
    }

    fn line<'l>(&mut self, line: impl Into<Line<'l>>) {
        if !self.is_full() {
            let Rect { x, y, width, .. } = self.area;
            self.buffer.set_line(x, y, &line.into(), width);
            self.skip(1);
        }
    }

    /// Takes the next lines away for something else.
    fn take(&mut self, height: u16) -> Rect {
        let height = height.min(self.area.height);
        let taken = Rect {
            height,
            ..self.area
        };
        self.skip(height);
        taken
    }

    fn skip(&mut self, height: u16) {
        let height = height.min(self.area.height);
        self.area.y += height;
        self.area.height -= height;
    }

    fn width(&self) -> usize {
        usize::from(self.area.width)
    }
}

/// Draws everything; the number of lines of what scrolls.
pub fn draw(model: &Model, palette: Palette, area: Rect, buffer: &mut Buffer) -> usize {
    let mut canvas = Canvas {
        buffer,
        area,
        palette,
    };
    match &model.page {
        Page::Overview => overview(model, &mut canvas),
        Page::Stack(page) => pages::stack(model, page, &mut canvas),
        Page::Help => pages::help(&mut canvas),
    }
}

fn overview(model: &Model, canvas: &mut Canvas<'_>) -> usize {
    let plan = Plan::new(canvas.area);
    let footer = Rect {
        y: canvas.area.bottom() - plan.footer.min(canvas.area.height),
        height: plan.footer,
        ..canvas.area
    };
    canvas.area.height -= plan.footer;
    header(model, plan, canvas);
    if let (Some(stats), Some((app, series))) = (&model.stats, model.current()) {
        graphs::draw(app, series, plan, canvas);
        pool(app, canvas);
        if plan.requests > 0 {
            tables::requests(stats, app, series, plan.requests, canvas);
        }
        tables::workers(model, canvas);
    } else {
        canvas.line(match (&model.stats, &model.link) {
            (Some(_), _) => "the server has no app",
            (None, _) => "waiting for the first answer",
        });
    }
    let visible = usize::from(canvas.area.height);
    let keys = [
        "q quit",
        "? help",
        "enter stack",
        "s sort",
        "p pause",
        "a next app",
    ];
    let text = fit(&keys.map(str::to_owned), canvas.width());
    canvas.area = footer;
    canvas.line(text);
    visible
}

/// How many lines each part gets.
#[derive(Debug, Clone, Copy)]
struct Plan {
    header: u16,
    /// The graphs stand below each other, not side by side.
    stacked: bool,
    graph: u16,
    requests: u16,
    footer: u16,
}

impl Plan {
    fn new(area: Rect) -> Plan {
        let height = area.height;
        let stacked = area.width < 72;
        let graph = match height {
            0..14 => 0,
            14..20 if stacked => 0,
            14..24 => 2,
            24..40 => 3,
            _ => 5,
        };
        let requests = match height {
            0..16 => 0,
            height => 1 + (height / 6).clamp(3, 10),
        };
        Plan {
            header: if height >= 10 { 2 } else { 1 },
            stacked,
            graph,
            requests,
            footer: u16::from(height >= 8),
        }
    }
}

fn header(model: &Model, plan: Plan, canvas: &mut Canvas<'_>) {
    let (first, second) = match &model.stats {
        Some(stats) => (facts(model, stats), more_facts(model, stats)),
        None => (vec![escape(&model.control)], Vec::new()),
    };
    let state = match (model.motion, &model.stats) {
        (Motion::Paused, _) => "PAUSED".to_owned(),
        (_, Some(stats)) => clock(stats.time_seconds),
        _ => String::new(),
    };
    let alert = alert(model);
    let width = canvas.width();
    if let (1, Some(alert)) = (plan.header, &alert) {
        canvas.line(Line::styled(cut(alert, width), canvas.palette.bad()));
        return;
    }
    let room = width.saturating_sub(state.width() + 2);
    let mut line = fit(&first, room);
    if room >= 20 {
        let gap = width.saturating_sub(line.width() + state.width());
        line += &" ".repeat(gap);
        line += &state;
    }
    canvas.line(Line::styled(line, BOLD));
    if plan.header > 1 {
        match alert {
            Some(alert) => canvas.line(Line::styled(cut(&alert, width), canvas.palette.bad())),
            None => canvas.line(fit(&second, width)),
        }
    }
}

/// What to know before believing the rest.
fn alert(model: &Model) -> Option<String> {
    if let Link::Lost(reason) = &model.link {
        return Some(format!("no answer, trying again: {}", escape(reason)));
    }
    let (app, _) = model.current()?;
    let failed = app
        .reload
        .as_ref()
        .filter(|reload| reload.result == "failed")?;
    Some(format!("reload {}", show::reload(failed, Paint::None)))
}

fn facts(model: &Model, stats: &Stats) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some((app, _)) = model.current() {
        facts.push(match stats.apps.len() {
            1 => escape(&app.name),
            apps => format!("{} ({}/{apps})", escape(&app.name), model.position() + 1),
        });
        facts.push(match &app.generation {
            Some(it) if it.python.is_empty() => format!("gen {}", it.number),
            Some(it) => format!("gen {}, Python {}", it.number, escape(&it.python)),
            None if app.generations.is_empty() => "no process".to_owned(),
            None => "not serving".to_owned(),
        });
    }
    facts.push(format!("up {}", seconds(stats.server.uptime_seconds)));
    facts.push(format!("process {}", stats.server.pid));
    facts.push(format!("rswsgi {}", escape(&stats.server.version)));
    facts
}

fn more_facts(model: &Model, stats: &Stats) -> Vec<String> {
    let app = model.current().map(|(app, _)| app);
    // That of the server is that of all apps, once it leaves.
    let state = app.map(|app| app.state.as_str());
    let state = state.filter(|state| stats.server.state == "serving" && !state.is_empty());
    let mut facts = vec![escape(state.unwrap_or(&stats.server.state))];
    if let Some(app) = app {
        if let Some(reload) = &app.reload {
            facts.push(format!("reload {}", show::reload(reload, Paint::None)));
        } else {
            facts.push("never reloaded".to_owned());
        }
        facts.push(escape(&app.target));
    }
    facts.push(escape(&model.control));
    facts
}

fn clock(time: f64) -> String {
    let time = time.max(0.0) as u64 % 86_400;
    let (hours, minutes) = (time / 3600, time / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02} UTC", time % 60)
}

/// One cell per worker where there is room, in the order of what they do.
fn pool(app: &App, canvas: &mut Canvas<'_>) {
    let pool = &app.pool;
    let kinds = [
        (pool.busy, "█", "running", "busy"),
        (pool.idle, "▒", "idle", "idle"),
        (pool.starting, "+", "starting", "starting"),
        (pool.draining, "-", "draining", "draining"),
    ];
    let there: u32 = kinds.iter().map(|kind| kind.0).sum();
    let most = pool.max.max(there).max(1);
    let width = canvas.width();
    let room = (width / 3).min(most as usize).max(1);
    let cells = |number: u32| match number {
        0 => 0,
        number => (number as usize * room / most as usize).max(1),
    };
    let mut spans = vec![Span::styled("pool ", BOLD)];
    let mut left = room;
    for (number, symbol, state, _) in kinds {
        let cells = cells(number).min(left);
        left -= cells;
        spans.push(Span::styled(
            symbol.repeat(cells),
            canvas.palette.state(state),
        ));
    }
    spans.push(Span::raw("·".repeat(left)));
    let mut facts = vec![match pool.min == pool.max {
        true => format!("{there} of {}", pool.max),
        false => format!("{there} of {}..{}", pool.min, pool.max),
    }];
    let some = kinds.iter().filter(|kind| kind.0 > 0);
    facts.extend(some.map(|(number, _, _, name)| format!("{number} {name}")));
    if let Some(memory) = &app.memory {
        facts.push(format!("PSS {}", show::bytes(memory.pss_bytes)));
    }
    if app.relay.taken > 0 {
        facts.push(format!("{} handed over", app.relay.taken));
    }
    for listener in &app.listeners {
        let waiting = listener
            .backlog
            .map_or("?".to_owned(), |number| number.to_string());
        facts.push(format!("{waiting} waiting at {}", escape(&listener.name)));
    }
    spans.push(Span::raw("  "));
    spans.push(Span::raw(fit(&facts, width.saturating_sub(room + 7))));
    canvas.line(spans);
}

/// As many of the texts as there is room for, two cells apart; the first one is cut if need be.
fn fit(texts: &[String], width: usize) -> String {
    let mut line = String::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        if line.is_empty() {
            line = cut(text, width);
        } else if line.width() + 2 + text.width() <= width {
            line += "  ";
            line += text;
        }
    }
    line
}

/// At most so many cells; `…` stands for the rest.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut short, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        short.push(c);
    }
    if width > 0 {
        short.push('…');
    }
    short
}

/// `── title ─────`
fn rule(title: &str, width: usize) -> Line<'static> {
    let text = cut(&format!("── {title} "), width);
    let rest = "─".repeat(width.saturating_sub(text.width()));
    Line::styled(text + &rest, BOLD)
}

/// What stands in the buffer, without attributes.
pub fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let (mut line, mut x) = (String::new(), buffer.area.left());
        while x < buffer.area.right() {
            let symbol = buffer[(x, y)].symbol();
            line += symbol;
            // The cells behind a wide character hold nothing of their own.
            x += u16::try_from(symbol.width().max(1)).unwrap_or(1);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
