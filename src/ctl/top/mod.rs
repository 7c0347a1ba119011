//! `rswsgictl top`: the server, watched in a terminal.
//!
//! `model` decides (keys and answers in, state out), `series` remembers, `draw` shows; all of them are
//! pure. `live` has the terminal and the threads that wait for keys, signals and the server.

mod draw;
mod live;
mod model;
mod series;
mod watch;

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::ask;
use super::client::{Client, Deadline};
use super::command::{Invocation, Output, Top};
use super::show::Paint;
use super::{Error, Exit, Result, print};
use draw::Palette;
use model::Model;

const INTERVAL: Duration = Duration::from_secs(1);

pub fn run(invocation: &Invocation, options: Top, deadline: Deadline) -> Result<()> {
    if invocation.output == Output::Json {
        let message = "top draws and prints no JSON: stats does";
        return Err(Error::new(Exit::Usage, message));
    }
    if options.once {
        let client = ask::connect(invocation, deadline)?;
        return once(invocation, options, client, deadline);
    }
    if !std::io::stdout().is_terminal() {
        let message = "top needs a terminal; --once prints one frame";
        return Err(Error::new(Exit::Usage, message));
    }
    let client = ask::connect(invocation, deadline)?;
    live::run(invocation, options.interval.unwrap_or(INTERVAL), client)
}

/// One frame. With an interval its latencies are those of the interval, else those since the start.
fn once(
    invocation: &Invocation,
    options: Top,
    mut client: Client,
    deadline: Deadline,
) -> Result<()> {
    let app = invocation.app.as_deref();
    let mut model = Model::new(client.path().to_string_lossy().into_owned());
    model.look(client.stats(app, deadline)?);
    if let Some(interval) = options.interval {
        std::thread::sleep(interval);
        let deadline = super::client::deadline(invocation.timeout.or(Some(watch::PATIENCE)));
        model.look(client.stats(app, deadline)?);
    }
    let terminal = crossterm::terminal::size().ok();
    let (wide, high) = terminal
        .filter(|_| std::io::stdout().is_terminal())
        .unwrap_or((80, 24));
    let area = Rect::new(
        0,
        0,
        options.width.unwrap_or(wide),
        options.height.unwrap_or(high),
    );
    let mut buffer = Buffer::empty(area);
    draw::draw(&model, Palette(Paint::None), area, &mut buffer);
    print(&draw::text(&buffer))
}
