//! The fork-safety audit: what the application has left behind in the master that forked workers
//! could not use, or would share to their harm. It looks at facts (threads, descriptors), not at
//! the names of libraries, and only at what is there when workers are about to be forked.

#![forbid(unsafe_code)]

use pyo3::prelude::*;

use crate::config::ForkSafety;
use crate::log;
use crate::python::{Failure, Startup};
use crate::sys::inventory::{Address, Inventory, Open, What};

/// Looks for what is there now and was not when `before` was taken.
pub fn run(
    py: Python<'_>,
    startup: &Startup,
    before: &Inventory,
    policy: ForkSafety,
) -> Result<(), Failure> {
    if policy == ForkSafety::Off {
        return Ok(());
    }
    let threads = startup.threads(py).unwrap_or_default();
    let findings = findings(&threads, &before.opened_since());
    match policy {
        ForkSafety::Refuse if !findings.is_empty() => Err(Failure {
            reason: format!("it is not safe to fork: {}", findings.join("; ")),
            traceback: String::new(),
        }),
        _ => {
            for finding in findings {
                log::warning!("{finding}");
            }
            Ok(())
        }
    }
}

/// One text per kind, with the reason and what to do.
fn findings(threads: &[String], open: &[Open]) -> Vec<String> {
    let mut connections = Vec::new();
    let mut listeners = Vec::new();
    let mut pairs = Vec::new();
    let mut files = Vec::new();
    for Open { fd, what } in open {
        match what {
            What::Connection {
                peer: Address::Unnamed,
                ..
            } => pairs.push(fd.to_string()),
            What::Connection { local, peer } => connections.push(match service(peer) {
                Some(name) => format!("to {peer}, probably {name}, from {local}, descriptor {fd}"),
                None => format!("to {peer} from {local}, descriptor {fd}"),
            }),
            What::Listener { local } => listeners.push(format!("{local}, descriptor {fd}")),
            What::SqliteFile { path } => {
                files.push(format!("{}, descriptor {fd}", path.display()));
            }
        }
    }
    let found = [
        (
            threads.join(", "),
            "importing the application started threads",
            "which do not exist in the workers; start them there, for example with \
             os.register_at_fork(after_in_child=...)",
        ),
        (
            connections.join("; "),
            "the application holds open connections",
            "which all workers would share, so that answers reach the wrong one; close them before the \
             import (or the warm-up) ends and open them in the workers, on first use or with \
             os.register_at_fork(after_in_child=...)",
        ),
        (
            files.join("; "),
            "the application holds SQLite databases open",
            "which must not be carried across a fork (locks would be lost, the file damaged); close \
             them before the import (or the warm-up) ends and open them in the workers",
        ),
        (
            listeners.join("; "),
            "the application listens for connections itself",
            "which any worker may then accept, or none; listen in one process of its own",
        ),
        (
            pairs.join(", "),
            "the application holds socket pairs or anonymous connections, descriptors",
            "as an asyncio event loop does; workers would share them: create event loops in the \
             workers, on first use or with os.register_at_fork(after_in_child=...)",
        ),
    ];
    found
        .into_iter()
        .filter(|(what, ..)| !what.is_empty())
        .map(|(what, fact, advice)| format!("{fact} ({what}), {advice}"))
        .collect()
}

/// Who is usually behind an address.
fn service(peer: &Address) -> Option<&'static str> {
    match peer {
        Address::Inet(address) => PORTS
            .iter()
            .find(|(ports, _)| ports.contains(&address.port()))
            .map(|(_, name)| *name),
        Address::Unix(path) => {
            let name = path.file_name()?.to_str()?;
            FILES
                .iter()
                .find(|(piece, _)| name.contains(piece))
                .map(|(_, name)| *name)
        }
        Address::Unnamed => None,
    }
}

const PORTS: &[(&[u16], &str)] = &[
    (&[5432, 5433, 6432], "PostgreSQL"),
    (&[3306, 33060], "MySQL or MariaDB"),
    (&[1433], "SQL Server"),
    (&[1521, 1522], "Oracle Database"),
    (&[6379, 6380], "Redis"),
    (&[11211], "memcached"),
    (&[27017, 27018], "MongoDB"),
    (&[5671, 5672], "RabbitMQ"),
    (&[9042], "Cassandra"),
    (&[9092], "Kafka"),
    (&[9200], "Elasticsearch"),
    (&[2181], "ZooKeeper"),
    (&[389, 636], "an LDAP directory"),
];

const FILES: &[(&str, &str)] = &[
    (".s.PGSQL.", "PostgreSQL"),
    ("mysql", "MySQL or MariaDB"),
    ("mariadb", "MySQL or MariaDB"),
    ("redis", "Redis"),
    ("memcached", "memcached"),
    ("mongodb", "MongoDB"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(text: &str) -> Address {
        Address::Inet(text.parse().unwrap())
    }

    #[test]
    fn services_are_known_by_port_or_by_file() {
        for (address, name) in [
            (inet("10.0.0.1:5432"), Some("PostgreSQL")),
            (inet("[::1]:3306"), Some("MySQL or MariaDB")),
            (inet("10.0.0.1:8080"), None),
            (
                Address::Unix("/run/.s.PGSQL.5432".into()),
                Some("PostgreSQL"),
            ),
            (Address::Unix("/run/redis.sock".into()), Some("Redis")),
            (Address::Unix("/run/other.sock".into()), None),
            (Address::Unnamed, None),
        ] {
            assert_eq!(service(&address), name, "{address}");
        }
    }

    #[test]
    fn each_kind_of_finding_is_told_once_and_all_of_it() {
        assert_eq!(findings(&[], &[]), Vec::<String>::new());
        let connection = |fd, peer: &str| Open {
            fd,
            what: What::Connection {
                local: inet("127.0.0.1:40000"),
                peer: inet(peer),
            },
        };
        let open = [
            connection(7, "10.0.0.1:5432"),
            connection(8, "10.0.0.2:6379"),
        ];
        let found = findings(&["one".into(), "two".into()], &open);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].contains("threads (one, two), which"),
            "{}",
            found[0]
        );
        for piece in [
            "10.0.0.1:5432, probably PostgreSQL",
            "descriptor 8",
            "Redis",
        ] {
            assert!(found[1].contains(piece), "{}", found[1]);
        }
    }
}
