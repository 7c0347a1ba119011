//! `wait`: until a server answers, or serves; across restarts, in which there is none for a while.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Deadline;
use super::command::{Invocation, Output, Until};
use super::{Error, Exit, Result, find, print, show};
use crate::control::Ping;
use crate::control::stats::Stats;

/// Between two looks: nothing says when a socket appears in one of several directories.
const PAUSE: Duration = Duration::from_millis(50);
/// For one answer; a server that is stopped in the middle is asked anew.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn wait(invocation: &Invocation, until: Until, deadline: Deadline) -> Result<()> {
    let since = Instant::now();
    let mut before: Option<Error> = None;
    loop {
        let error = match look(invocation, until, deadline) {
            Ok(ping) => return report(invocation, until, &ping, since.elapsed()),
            Err(error) => error,
        };
        if matches!(error.exit, Exit::Usage | Exit::NoPermission) {
            return Err(error); // Time does not change it.
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now + PAUSE >= deadline) {
            // A look that was cut short by the end tells less than the one before.
            let reason = match error.exit {
                Exit::TimedOut => before.unwrap_or(error),
                _ => error,
            };
            let message = format!("gave up waiting: {reason}");
            return Err(Error::new(Exit::TimedOut, message));
        }
        before = Some(error);
        std::thread::sleep(PAUSE);
    }
}

fn look(invocation: &Invocation, until: Until, deadline: Deadline) -> Result<Ping> {
    let patience = Instant::now() + PATIENCE;
    let soon = Some(deadline.map_or(patience, |deadline| deadline.min(patience)));
    let (mut client, _) = find::server(invocation, soon)?;
    let ping = client.ping(soon)?;
    if until == Until::Ready {
        let stats = client.stats(invocation.app.as_deref(), soon)?;
        if let Some(reason) = unready(&stats) {
            return Err(Error::new(Exit::Failed, reason));
        }
    }
    Ok(ping)
}

/// Why the server is not ready; `None` when it is.
fn unready(stats: &Stats) -> Option<String> {
    if stats.server.state != "serving" {
        return Some(format!(
            "the server is {}",
            show::escape(&stats.server.state)
        ));
    }
    let serves = |app: &&crate::control::stats::App| {
        let generation = app.generation.as_ref();
        generation.is_some_and(|generation| generation.stage == "serving")
    };
    let waiting = stats.apps.iter().find(|app| !serves(app))?;
    let (name, status) = (show::escape(&waiting.name), show::escape(&waiting.status));
    Some(format!("{name} does not serve: {status}"))
}

fn report(invocation: &Invocation, until: Until, ping: &Ping, took: Duration) -> Result<()> {
    match invocation.output {
        Output::Human => {
            let word = match until {
                Until::Answers => "answers",
                Until::Ready => "is ready",
            };
            print(&show::waited(ping, word, took))
        }
        Output::Json => {
            let mut reply = serde_json::to_value(ping).expect("all keys are texts");
            reply["ok"] = json!(true);
            print(&format!("{reply}\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::{App, Generation};

    #[test]
    fn a_server_is_ready_while_all_its_apps_serve() {
        let serving = Generation {
            stage: "serving".into(),
            ..Generation::default()
        };
        let app = |generation| App {
            name: "shop".into(),
            status: "importing".into(),
            generation,
            ..App::default()
        };
        let mut stats = Stats::default();
        stats.server.state = "serving".into();
        stats.apps = vec![app(Some(serving.clone())), app(Some(serving))];
        assert_eq!(unready(&stats), None);
        stats.apps.push(app(None));
        let reason = "shop does not serve: importing";
        assert_eq!(unready(&stats).as_deref(), Some(reason));
        stats.server.state = "draining".into();
        assert_eq!(unready(&stats).as_deref(), Some("the server is draining"));
    }
}
