//! How each server is started: N processes of one thread, no log per request. All else is left as it
//! comes.

use std::process::Command;

use crate::environment::Environment;
use crate::project::Project;

pub struct Server {
    pub name: &'static str,
    /// The package it comes from, in `benches/requirements.txt`.
    pub package: Option<&'static str>,
    pub command: fn(&Start) -> Command,
    /// Whether it makes sense under this version of Python.
    pub suits: fn(&str) -> Result<(), String>,
}

pub struct Start<'a> {
    pub port: u16,
    pub workers: u32,
    pub environment: &'a Environment,
    pub project: &'static Project,
}

impl Start<'_> {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn any(_version: &str) -> Result<(), String> {
    Ok(())
}

pub static SERVERS: [Server; 10] = [
    Server {
        name: "rswsgi",
        package: None,
        command: rswsgi,
        suits: any,
    },
    Server {
        name: "rswsgi --warm-up",
        package: None,
        command: warm,
        suits: any,
    },
    Server {
        name: "rswsgi --warm-up --share-again",
        package: None,
        command: |start| with(warm(start), SHARE_AGAIN),
        suits: any,
    },
    Server {
        name: "rswsgi --immortal",
        package: None,
        command: |start| with(rswsgi(start), &["--immortal"]),
        suits: known_objects,
    },
    Server {
        name: "rswsgi --warm-up --immortal",
        package: None,
        command: |start| with(warm(start), &["--immortal"]),
        suits: known_objects,
    },
    Server {
        name: "rswsgi --warm-up --immortal --share-again",
        package: None,
        command: |start| with(with(warm(start), &["--immortal"]), SHARE_AGAIN),
        suits: known_objects,
    },
    Server {
        name: "uWSGI",
        package: Some("uWSGI"),
        command: uwsgi,
        suits: any,
    },
    Server {
        name: "gunicorn --preload",
        package: Some("gunicorn"),
        command: |start| with(gunicorn(start), &["--preload"]),
        suits: any,
    },
    Server {
        name: "gunicorn",
        package: Some("gunicorn"),
        command: gunicorn,
        suits: any,
    },
    Server {
        name: "granian",
        package: Some("granian"),
        command: granian,
        suits: any,
    },
];

/// Less than the pause before memory is measured.
const SHARE_AGAIN: &[&str] = &["--share-again", "500ms"];

fn known_objects(version: &str) -> Result<(), String> {
    match version.starts_with("3.12.") || version.starts_with("3.13.") {
        true => Ok(()),
        false => Err("for CPython 3.12 and 3.13 only".into()),
    }
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

fn rswsgi(start: &Start) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rswsgi"));
    command
        .args(["--bind", &start.address()])
        .args(["--workers", &start.workers.to_string()])
        .arg("--python")
        .arg(start.environment.python())
        .arg(start.project.target);
    command
}

fn warm(start: &Start) -> Command {
    let mut command = rswsgi(start);
    for path in start.project.paths {
        command.args(["--warm-up", path]);
    }
    command
}

fn uwsgi(start: &Start) -> Command {
    let mut command = Command::new(start.environment.tool("uwsgi"));
    command
        .args(["--http11-socket", &start.address()])
        .args(["--master", "--processes", &start.workers.to_string()])
        .args(["--module", start.project.target, "--need-app"])
        // TERM means reload otherwise, and the benchmark ends servers with it.
        .args(["--disable-logging", "--die-on-term"])
        .arg("--pythonpath")
        .arg(start.environment.site_packages());
    command
}

fn gunicorn(start: &Start) -> Command {
    let mut command = Command::new(start.environment.tool("gunicorn"));
    command
        .args(["--bind", &start.address()])
        .args(["--workers", &start.workers.to_string()])
        .args(["--log-level", "warning", "--no-control-socket"])
        .arg(start.project.target);
    command
}

fn granian(start: &Start) -> Command {
    let (port, workers) = (start.port.to_string(), start.workers.to_string());
    let mut command = Command::new(start.environment.tool("granian"));
    command
        .args(["--interface", "wsgi", "--http", "1", "--no-ws"])
        .args(["--host", "127.0.0.1", "--port", &port])
        .args(["--workers", &workers, "--blocking-threads", "1"])
        // It ends with its first dead worker otherwise.
        .args([
            "--respawn-failed-workers",
            "--log-level",
            "error",
            start.project.target,
        ]);
    command
}
