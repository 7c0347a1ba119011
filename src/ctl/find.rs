//! Which server is meant when nobody says so: looks into the usual places and asks what is found.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{Client, Deadline};
use super::command::Invocation;
use super::{Error, Exit, Result, show};
use crate::control::{DIRECTORIES, Ping, SUFFIX, directories};

/// How long one of several servers may take to answer before it is passed over.
const PATIENCE: Duration = Duration::from_secs(2);

/// A control socket, and who answered there.
#[derive(Debug)]
pub struct Place<C> {
    pub path: PathBuf,
    pub state: State<C>,
}

#[derive(Debug)]
pub enum State<C> {
    Live(Ping, C),
    /// Why it is passed over: [`Exit::NoServer`] for a file that a server has left behind.
    Not(Error),
}

/// Every `*.control` in the usual directories, in their order, then by name; and the directories that
/// may not be looked into.
fn sockets() -> (Vec<PathBuf>, Vec<Place<Client>>) {
    let (mut found, mut closed) = (Vec::<PathBuf>::new(), Vec::new());
    for directory in directories(|name| std::env::var_os(name)) {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries.flatten(),
            Err(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    closed.push(closed_directory(directory));
                }
                continue;
            }
        };
        let mut here: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == SUFFIX))
            .filter(|path| is_socket(path))
            .collect();
        here.sort();
        // One directory may have several names: a link, or two variables.
        here.retain(|path| !found.iter().any(|other| same(path, other)));
        found.extend(here);
    }
    (found, closed)
}

fn closed_directory(path: PathBuf) -> Place<Client> {
    let message = format!("cannot look into {}: no permission", path.display());
    let state = State::Not(Error::new(Exit::NoPermission, message));
    Place { path, state }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Asks each of them who it is.
pub fn survey(deadline: Deadline) -> Vec<Place<Client>> {
    let (sockets, closed) = sockets();
    let places = sockets.into_iter().map(|path| {
        let patience = Instant::now() + PATIENCE;
        let until = Some(deadline.map_or(patience, |deadline| deadline.min(patience)));
        let answer =
            Client::connect(&path, until).and_then(|mut client| Ok((client.ping(until)?, client)));
        let state = match answer {
            Ok((ping, client)) => State::Live(ping, client),
            Err(error) => State::Not(error),
        };
        Place { path, state }
    });
    places.chain(closed).collect()
}

/// The server that is meant, and what to tell about the places that were passed over.
pub fn server(invocation: &Invocation, deadline: Deadline) -> Result<(Client, Vec<String>)> {
    match &invocation.control {
        Some(path) => Ok((Client::connect(path, deadline)?, Vec::new())),
        None => choose(survey(deadline), invocation.app.as_deref()),
    }
}

/// The only one that answers; of several the only one that has this app.
fn choose<C>(places: Vec<Place<C>>, app: Option<&str>) -> Result<(C, Vec<String>)> {
    let (mut live, mut skipped) = (Vec::new(), Vec::new());
    for Place { path, state } in places {
        match state {
            State::Live(ping, client) => live.push((path, ping, client)),
            State::Not(error) => skipped.push(error),
        }
    }
    if live.is_empty() {
        return Err(nobody(skipped));
    }
    if live.len() > 1
        && let Some(app) = app
        && live.iter().any(|(_, ping, _)| has(ping, app))
    {
        live.retain(|(_, ping, _)| has(ping, app));
    }
    if live.len() > 1 {
        return Err(several(&live));
    }
    let (_, _, client) = live.remove(0);
    let skipped = skipped.into_iter().map(|error| skip(&error)).collect();
    Ok((client, skipped))
}

fn has(ping: &Ping, app: &str) -> bool {
    ping.apps.iter().any(|name| name == app)
}

fn skip(error: &Error) -> String {
    format!("skipped: {error}")
}

/// What keeps us from a server that may be there counts more than a file one has left behind.
pub fn nobody(skipped: Vec<Error>) -> Error {
    let rank = |error: &&Error| match error.exit {
        Exit::NoPermission => 3,
        Exit::TimedOut => 2,
        Exit::NoServer => 0,
        _ => 1,
    };
    let exit = skipped.iter().max_by_key(rank).map(|error| error.exit);
    let mut message = match exit {
        Some(Exit::NoPermission) => {
            "there may be a server, but not for this user: root and the user of the \
            server may ask it"
                .to_owned()
        }
        _ => format!("no server found in {DIRECTORIES}; --control names its socket"),
    };
    for error in &skipped {
        message += &format!("\n{}", skip(error));
    }
    Error::new(exit.unwrap_or(Exit::NoServer), message)
}

fn several<C>(live: &[(PathBuf, Ping, C)]) -> Error {
    let mut message = "several servers answer; say which by --control (or --app):".to_owned();
    for (path, ping, _) in live {
        let apps = show::escape(&ping.apps.join(", "));
        message += &format!(
            "\n  --control {}  process {}, {apps}",
            show::escape(&path.to_string_lossy()),
            ping.server.pid
        );
    }
    Error::new(Exit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::Process;

    fn live(number: i32, apps: &[&str]) -> Place<i32> {
        let ping = Ping {
            schema: 1,
            server: Process {
                pid: number,
                ..Process::default()
            },
            apps: apps.iter().map(|name| (*name).to_owned()).collect(),
        };
        Place {
            path: format!("/run/{number}.control").into(),
            state: State::Live(ping, number),
        }
    }

    fn not(exit: Exit) -> Place<i32> {
        Place {
            path: "/run/x.control".into(),
            state: State::Not(Error::new(exit, "cannot connect to x: because")),
        }
    }

    #[test]
    fn the_only_one_that_answers_is_meant_and_dead_ones_are_mentioned() {
        let places = vec![not(Exit::NoServer), live(1, &["shop"]), not(Exit::TimedOut)];
        let (client, skipped) = choose(places, None).unwrap();
        assert_eq!(client, 1);
        assert_eq!(skipped.len(), 2);
        assert_eq!(skipped[0], "skipped: cannot connect to x: because");
    }

    #[test]
    fn an_app_chooses_among_several() {
        let places = || vec![live(1, &["shop"]), live(2, &["blog", "wiki"])];
        assert_eq!(choose(places(), Some("wiki")).unwrap().0, 2);
        for app in [None, Some("mail")] {
            let error = choose(places(), app).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            let listed = "--control /run/2.control  process 2, blog, wiki";
            assert!(error.message.contains(listed), "{error}");
        }
        let twice = vec![live(1, &["shop"]), live(2, &["shop"])];
        assert_eq!(choose(twice, Some("shop")).unwrap_err().exit, Exit::Usage);
        // That there is no such app the server says itself.
        assert_eq!(choose(vec![live(1, &["shop"])], Some("x")).unwrap().0, 1);
    }

    #[test]
    fn the_reason_that_could_hide_a_server_decides_the_exit_status() {
        for (places, exit) in [
            (vec![], Exit::NoServer),
            (vec![not(Exit::NoServer)], Exit::NoServer),
            (
                vec![not(Exit::NoPermission), not(Exit::NoServer)],
                Exit::NoPermission,
            ),
            (
                vec![not(Exit::NoServer), not(Exit::TimedOut)],
                Exit::TimedOut,
            ),
        ] {
            assert_eq!(choose(places, None).unwrap_err().exit, exit);
        }
    }
}
