//! Asks the server again and again, on a thread of its own: a server that hangs holds up no key.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::control::stats::Stats;
use crate::control::{Kind, Refused, Request, Trace, Verb, Workers, read_reply};
use crate::ctl::client::{self, Client};
use crate::ctl::{Error, Result};

use super::live::Event;

/// For one answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// For stacks: the server gives up on a worker that does not answer before.
const LONG: Duration = Duration::from_secs(30);

/// Until nobody listens any more.
pub fn watch(client: Client, app: Option<String>, interval: Duration, events: Sender<Event>) {
    let path = client.path().to_owned();
    let mut client = Some(client);
    loop {
        let started = Instant::now();
        let answer = look(&mut client, &path, app.as_deref());
        let event = match answer {
            Ok(stats) => Event::Looked(Box::new(stats)),
            Err(error) => {
                client = None;
                Event::Lost(error.message)
            }
        };
        if events.send(event).is_err() {
            return;
        }
        std::thread::sleep(interval.saturating_sub(started.elapsed()));
    }
}

/// Over the connection there is, or else over a new one.
fn look(client: &mut Option<Client>, path: &Path, app: Option<&str>) -> Result<Stats> {
    let deadline = client::deadline(Some(PATIENCE));
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(path, deadline)?),
    };
    client.stats(app, deadline)
}

/// Asks for one stack, over a connection of its own: a worker in C code may take its time.
pub fn trace(path: PathBuf, app: String, slot: u32, events: Sender<Event>) {
    let answer = ask_trace(&path, app, slot);
    let answer = answer.unwrap_or_else(|error| Err(Refused::new(Kind::Failed, error.message)));
    // Nobody listens any more: nobody wants to know.
    let _ = events.send(Event::Traced(slot, answer));
}

fn ask_trace(path: &Path, app: String, slot: u32) -> Result<Result<Trace, Refused>, Error> {
    let deadline = client::deadline(Some(LONG));
    let request = Request {
        app: Some(app),
        verb: Verb::Trace(Workers::One(slot)),
    };
    let line = Client::connect(path, deadline)?.ask(&request, deadline)?;
    Ok(read_reply(&line))
}
