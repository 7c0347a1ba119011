//! The running requests, what keeps the workers, and the workers.

use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{BOLD, Canvas, REVERSED, cut, rule};
use crate::control::stats::{App, Stats, Worker};
use crate::ctl::show::{self, Running, escape, rate, short_bytes, short_count, short_seconds};
use crate::ctl::top::model::{Model, Order};
use crate::ctl::top::series::Series;

/// From this width on, what keeps the workers stands beside the running requests.
const WIDE: u16 = 76;

pub fn requests(stats: &Stats, app: &App, series: &Series, height: u16, canvas: &mut Canvas<'_>) {
    let area = canvas.take(height);
    let right = match area.width {
        width if width >= WIDE => width * 2 / 5,
        _ => 0,
    };
    let left = Rect {
        width: area.width - right,
        ..area
    };
    let running = show::running(stats, 0.0);
    let mine: Vec<_> = running.iter().filter(|it| it.app == app.name).collect();
    let width = usize::from(left.width) - usize::from(right > 0);
    let title = format!("running requests: {}, the oldest first", mine.len());
    let rows = mine.iter().map(|it| running_row(it, width));
    column(left.x, area, rule(&title, width), rows, canvas);
    if right > 0 {
        let width = usize::from(right);
        let busiest = series.busiest();
        let rows = busiest.iter().map(|(name, workers)| {
            let line = cut(&format!("{workers:>6.1}  {}", escape(name)), width);
            Line::raw(line)
        });
        let title = rule("workers kept busy by", width);
        column(area.right() - right, area, title, rows, canvas);
    }
}

fn column<'l>(
    x: u16,
    area: Rect,
    title: Line<'l>,
    rows: impl Iterator<Item = Line<'l>>,
    canvas: &mut Canvas<'_>,
) {
    let lines = std::iter::once(title).chain(rows);
    for (y, line) in (area.top()..area.bottom()).zip(lines) {
        canvas.buffer.set_line(x, y, &line, area.right() - x);
    }
}

/// Age, worker, request, and who asks where there is room.
fn running_row(running: &Running<'_>, width: usize) -> Line<'static> {
    let request = running.request;
    let peer = request.peer.as_deref().map(escape).unwrap_or_default();
    let start = format!(
        "{:>6}  worker {:<3} {}",
        short_seconds(request.age_seconds),
        running.slot,
        show::line(request)
    );
    let room = width.saturating_sub(peer.width() + 2);
    Line::raw(match room >= 50 && !peer.is_empty() {
        true => {
            let start = cut(&start, room);
            let gap = " ".repeat(width - start.width() - peer.width());
            start + &gap + &peer
        }
        false => cut(&start, width),
    })
}

/// One column of the table of workers.
struct Column {
    name: &'static str,
    width: usize,
    /// Those with a low number stay where there is little room.
    rank: u8,
    cell: fn(&Worker, &Series) -> String,
}

const COLUMNS: [Column; 10] = [
    Column {
        name: "SLOT",
        width: 4,
        rank: 0,
        cell: |worker, _| worker.slot.to_string(),
    },
    Column {
        name: "GEN",
        width: 3,
        rank: 5,
        cell: |worker, _| worker.generation.to_string(),
    },
    Column {
        name: "PROCESS",
        width: 7,
        rank: 3,
        cell: |worker, _| worker.pid.to_string(),
    },
    Column {
        name: "STATE",
        width: 8,
        rank: 1,
        cell: |worker, _| escape(&worker.state),
    },
    Column {
        name: "AGE",
        width: 6,
        rank: 4,
        cell: |worker, _| short_seconds(worker.age_seconds),
    },
    Column {
        name: "REQ/S",
        width: 6,
        rank: 2,
        cell: |worker, series| {
            let per_second = series.rate(worker.generation, worker.slot);
            per_second.map_or("-".to_owned(), rate)
        },
    },
    Column {
        name: "REQS",
        width: 5,
        rank: 7,
        cell: |worker, _| short_count(worker.requests),
    },
    Column {
        name: "CONN",
        width: 5,
        rank: 8,
        cell: |worker, _| worker.connections.to_string(),
    },
    Column {
        name: "PSS",
        width: 5,
        rank: 6,
        cell: |worker, _| worker.pss_bytes.map_or("-".to_owned(), short_bytes),
    },
    Column {
        name: "UNIQ",
        width: 5,
        rank: 9,
        cell: |worker, _| worker.uss_bytes.map_or("-".to_owned(), short_bytes),
    },
];

/// The columns that leave room for the request.
fn columns(width: usize) -> Vec<&'static Column> {
    let mut by_rank: Vec<&Column> = COLUMNS.iter().collect();
    by_rank.sort_by_key(|column| column.rank);
    let mut room = width.saturating_sub((width / 3).min(32));
    let fits = by_rank.into_iter().take_while(|column| {
        let fits = column.width < room;
        room = room.saturating_sub(column.width + 1);
        fits
    });
    let ranks: Vec<u8> = fits.map(|column| column.rank).collect();
    let shown = COLUMNS.iter().filter(|column| ranks.contains(&column.rank));
    shown.collect()
}

pub fn workers(model: &Model, canvas: &mut Canvas<'_>) {
    let Some((_, series)) = model.current() else {
        return;
    };
    let width = canvas.width();
    let columns = columns(width);
    let workers = model.workers();
    if canvas.area.height >= 3 {
        let order = match model.order {
            Order::Usual => "",
            Order::Reversed => ", reversed",
        };
        let title = format!(
            "workers: {}, by {}{order}",
            workers.len(),
            model.sort.name()
        );
        canvas.line(rule(&title, width));
    }
    if canvas.area.height >= 2 {
        let heads = columns.iter().map(|column| aligned(column, column.name));
        let line = heads.collect::<String>() + "REQUEST";
        canvas.line(Line::styled(cut(&line, width), BOLD));
    }
    let rows = usize::from(canvas.area.height);
    let selected = model.row(&workers);
    let start = selected.map_or(0, |row| (row + 1).saturating_sub(rows));
    for (at, worker) in workers.iter().enumerate().skip(start).take(rows) {
        let style = match selected == Some(at) {
            true => REVERSED,
            false => Style::new(),
        };
        canvas.line(row(worker, series, &columns, width, style, canvas.palette));
    }
}

fn row(
    worker: &Worker,
    series: &Series,
    columns: &[&Column],
    width: usize,
    style: Style,
    palette: super::Palette,
) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for column in columns {
        let cell = aligned(column, &cut(&(column.cell)(worker, series), column.width));
        used += cell.width();
        spans.push(match column.name {
            "STATE" => Span::styled(cell, palette.state(&worker.state)),
            _ => Span::raw(cell),
        });
    }
    let request = worker.request.as_ref().map(|request| {
        let age = short_seconds(request.age_seconds);
        format!("{age} {}", show::line(request))
    });
    let room = width.saturating_sub(used);
    let request = cut(&request.unwrap_or_default(), room);
    let gap = " ".repeat(room.saturating_sub(request.width()));
    spans.push(Span::raw(request + &gap));
    Line::from(spans).style(style)
}

/// Texts to the left, numbers to the right, one cell apart.
fn aligned(column: &Column, cell: &str) -> String {
    let gap = " ".repeat(column.width.saturating_sub(cell.width()));
    match column.name {
        "STATE" => format!("{cell}{gap} "),
        _ => format!("{gap}{cell} "),
    }
}
