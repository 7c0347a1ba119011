//! The other pages: the stack of a worker, and the keys.

use ratatui::text::Line;

use super::{BOLD, Canvas, cut, fit, rule};
use crate::ctl::show::escape;
use crate::ctl::top::model::{Content, Link, Model, StackPage};

/// Scrolls; gives the number of lines that are seen.
pub fn stack(model: &Model, page: &StackPage, canvas: &mut Canvas<'_>) -> usize {
    let width = canvas.width();
    let title = format!("stack of worker {} of {}", page.slot, escape(&page.app));
    canvas.line(rule(&title, width));
    let visible = usize::from(canvas.area.height.saturating_sub(1));
    let body = canvas.take(visible as u16);
    let mut keys = vec!["esc back".to_owned(), "r again".to_owned()];
    let lines = match &page.content {
        Content::Waiting => vec!["asking the worker".to_owned()],
        Content::Failed(reason) => vec![reason.clone()],
        Content::Lines(lines) => lines.clone(),
    };
    let scroll = page.scroll.min(lines.len().saturating_sub(visible));
    if lines.len() > visible {
        let last = (scroll + visible).min(lines.len());
        keys.push(format!("lines {} to {last} of {}", scroll + 1, lines.len()));
    }
    if let Link::Lost(reason) = &model.link {
        keys.push(format!("no answer: {}", escape(reason)));
    }
    for (y, line) in (body.top()..body.bottom()).zip(lines.iter().skip(scroll)) {
        let line = Line::raw(cut(line, width));
        canvas.buffer.set_line(body.x, y, &line, body.width);
    }
    canvas.line(fit(&keys, width));
    visible
}

const KEYS: [(&str, &str); 11] = [
    ("q, Ctrl-C", "leave"),
    (
        "up, down, j, k",
        "select a worker (also PgUp, PgDn, Home, End)",
    ),
    (
        "enter",
        "its Python stack; there: r asks again, esc goes back",
    ),
    ("s, S", "sort the workers by something else"),
    ("r", "turn the order round"),
    ("p, space", "hold the picture, go on"),
    ("a, A, tab", "the next app, the one before"),
    ("", ""),
    ("requests", "completed, one bar per second"),
    ("latency", "of one interval, the bar is its 99th percentile"),
    ("workers kept busy by", "mean of the last 60 looks"),
];

pub fn help(canvas: &mut Canvas<'_>) -> usize {
    let width = canvas.width();
    canvas.line(rule("help: esc goes back", width));
    for (key, meaning) in KEYS {
        canvas.line(cut(&format!("{key:<21}{meaning}"), width));
    }
    canvas.line(Line::styled("", BOLD));
    0
}
