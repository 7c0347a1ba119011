//! The apps of a server, and the story of their starts, for people.

use super::table::Table;
use super::{Paint, escape, escape_lines, seconds};
use crate::control::{AppList, AppStory, LogTail, Start, Why};

pub fn apps(list: &AppList, paint: Paint) -> String {
    if list.apps.is_empty() {
        return "no apps\n".to_owned();
    }
    let mut table = Table::new(&[
        "APP",
        "STATE",
        "USER",
        "GEN",
        "PROCESSES",
        "IDLE",
        "LISTENERS",
    ]);
    table.right(&[3, 4, 5]);
    for app in &list.apps {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        table.row([
            escape(&app.app),
            escape(&app.state),
            escape(app.user.as_deref().unwrap_or("-")),
            number(app.generation),
            app.processes.to_string(),
            app.idle_seconds.map_or("-".to_owned(), seconds),
            escape(&app.listeners.join(" ")),
        ]);
    }
    let mut text = table.text(paint);
    for app in &list.apps {
        if let Some(reason) = &app.reason {
            text += &format!("{}: {}\n", escape(&app.app), paint.red(&escape(reason)));
        }
        if !app.lacks.is_empty() {
            let lacks = escape(&app.lacks.join(", "));
            text += &format!("{}: isolation goes without {lacks}\n", escape(&app.app));
        }
        match app.turned_away {
            0 => {}
            1 => text += &format!("{}: 1 client was answered 503\n", escape(&app.app)),
            n => text += &format!("{}: {n} clients were answered 503\n", escape(&app.app)),
        }
    }
    text
}

pub fn logs(tail: &LogTail, paint: Paint) -> String {
    let mut text = String::new();
    if tail.apps.iter().all(|app| app.lines.is_empty()) {
        return "no lines; those of a server with one app are in its log alone (--log)\n".into();
    }
    for app in &tail.apps {
        if tail.apps.len() > 1 {
            text += &format!("{}\n", paint.bold(&escape(&app.app)));
        }
        for line in &app.lines {
            text += &format!("{}\n", escape(line));
        }
    }
    text
}

pub fn why(why: &Why, paint: Paint) -> String {
    let stories = why.apps.iter().map(|app| story(app, paint));
    stories.collect::<Vec<_>>().join("\n")
}

fn story(app: &AppStory, paint: Paint) -> String {
    let head = format!("{}: {}", escape(&app.app), escape(&app.state));
    let mut text = format!("{}\n", paint.bold(&head));
    if let Some(reason) = &app.reason {
        text += &format!("  {}\n", paint.red(&escape(reason)));
    }
    if app.starts.is_empty() {
        text += "  it has not been started\n";
    }
    for start in &app.starts {
        text += &format!("  generation {}: {}\n", start.generation, steps(start));
        if let Some(error) = &start.error {
            text += &format!("    {}\n", paint.red(&escape(error)));
        }
        for line in start.traceback.iter().flat_map(|text| text.lines()) {
            text += &format!("      {}\n", escape_lines(line));
        }
    }
    text
}

/// `asked for 2.0 s ago by a connection, waited 1 ms, import 80 ms, served after 0.1 s`
fn steps(start: &Start) -> String {
    let by = match start.cause.as_str() {
        "start" => "at the start",
        "connection" => "by a connection",
        "reload" => "by a reload",
        "restart" => "in the place of one before",
        other => other,
    };
    let mut steps = vec![
        format!(
            "asked for {} ago {}",
            seconds(start.age_seconds),
            escape(by)
        ),
        format!("waited {}", seconds(start.waited_seconds)),
    ];
    if let Some(imported) = start.imported_seconds {
        steps.push(format!("import {}", seconds(imported)));
    }
    let result = escape(&start.result);
    steps.push(match start.took_seconds {
        Some(took) => match start.result.as_str() {
            "lost" => format!("served after {}, lost later", seconds(took)),
            _ => format!("{result} after {}", seconds(took)),
        },
        None => result,
    });
    if let Some(delay) = start.back_off_seconds {
        steps.push(format!("next try put off by {}", seconds(delay)));
    }
    steps.join(", ")
}
