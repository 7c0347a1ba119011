//! Rates and latencies: a line of numbers and a graph below it.

use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Sparkline, SparklineBar, Widget};

use super::{BOLD, Canvas, Plan, fit};
use crate::control::stats::App;
use crate::ctl::show::{rate, seconds, short_count};
use crate::ctl::top::series::Series;

pub fn draw(app: &App, series: &Series, plan: Plan, canvas: &mut Canvas<'_>) {
    let height = 1 + plan.graph;
    if plan.stacked {
        let (first, second) = (canvas.take(height), canvas.take(height));
        requests(app, series, first, canvas);
        latencies(app, series, second, canvas);
        return;
    }
    let both = canvas.take(height);
    let width = both.width.saturating_sub(2) / 2;
    let left = Rect { width, ..both };
    let right = Rect {
        x: both.x + width + 2,
        ..left
    };
    requests(app, series, left, canvas);
    latencies(app, series, right, canvas);
}

fn requests(app: &App, series: &Series, area: Rect, canvas: &mut Canvas<'_>) {
    let rates = &app.rates;
    let errors = &app.errors;
    let bars = series.completed(usize::from(area.width));
    let peak = bars.iter().copied().max().unwrap_or(0);
    let mut facts = vec![
        format!("{}/s", rate(rates.per_second_1s)),
        format!("{} running", app.requests.in_flight),
    ];
    for (number, name) in [
        (errors.crashes, "crashes"),
        (errors.soft_timeouts, "time-outs"),
        (errors.exceptions, "exceptions"),
        (app.requests.status_5xx, "5xx"),
        (app.requests.status_4xx, "4xx"),
    ] {
        if number > 0 {
            facts.push(format!("{} {name}", short_count(number)));
        }
    }
    facts.push(format!("1 min {}/s", rate(rates.per_second_1m)));
    facts.push(format!("5 min {}/s", rate(rates.per_second_5m)));
    facts.push(format!("peak {peak}/s"));
    numbers("requests ", &facts, area, canvas);
    let bars: Vec<_> = bars
        .into_iter()
        .map(|bar| SparklineBar::from(Some(bar)))
        .collect();
    let style = canvas.palette.color(Color::Cyan);
    graph(bars, style, area, canvas);
}

/// The graph shows the 99th percentile of each interval.
fn latencies(app: &App, series: &Series, area: Rect, canvas: &mut Canvas<'_>) {
    let latest = series.latest();
    let mut facts: Vec<String> = [
        ("p50", latest.p50),
        ("p99", latest.p99),
        ("p90", latest.p90),
    ]
    .iter()
    .filter_map(|(name, value)| Some(format!("{name} {}", seconds((*value)?))))
    .collect();
    if facts.is_empty() {
        facts.push("no request".to_owned());
    }
    if series.is_since_start() {
        facts.push("since the start".to_owned());
    }
    facts.extend(
        app.latency
            .max_seconds
            .map(|max| format!("max {}", seconds(max))),
    );
    numbers("latency ", &facts, area, canvas);
    let width = usize::from(area.width);
    let micros = |seconds: f64| (seconds * 1e6) as u64;
    let known = series
        .latencies(width)
        .map(|it| SparklineBar::from(it.p99.map(micros)));
    let known: Vec<_> = known.collect();
    let missing = width.saturating_sub(known.len());
    let mut bars = vec![SparklineBar::from(None); missing];
    bars.extend(known);
    let style = canvas.palette.color(Color::Magenta);
    graph(bars, style, area, canvas);
}

fn numbers(title: &'static str, facts: &[String], area: Rect, canvas: &mut Canvas<'_>) {
    if area.height > 0 {
        let room = usize::from(area.width).saturating_sub(title.len());
        let line = Line::from(vec![Span::styled(title, BOLD), Span::raw(fit(facts, room))]);
        canvas.buffer.set_line(area.x, area.y, &line, area.width);
    }
}

fn graph(bars: Vec<SparklineBar>, style: Style, area: Rect, canvas: &mut Canvas<'_>) {
    if area.height > 1 {
        let area = Rect {
            y: area.y + 1,
            height: area.height - 1,
            ..area
        };
        let graph = Sparkline::default().data(bars).style(style);
        graph.absent_value_symbol(" ").render(area, canvas.buffer);
    }
}
