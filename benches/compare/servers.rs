//! How each server is started: N processes of one thread, keep-alive on, no log per request unless the
//! workload is about it. All else is left as it comes; a server that needs more to work at all has the
//! reason beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::Environment;

pub struct Server {
    pub name: &'static str,
    /// The package it comes from, in `benches/requirements.txt`.
    pub package: Option<&'static str>,
    pub command: fn(&Start) -> Command,
    /// Where it logs requests, if it can.
    pub logs: Logs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    No,
    ToFile,
    ToOutput,
}

pub struct Start<'a> {
    pub port: u16,
    pub workers: u32,
    /// The module in `benches/apps` whose `application` is served.
    pub module: &'a str,
    pub environment: &'a Environment,
    /// Where the access log goes, if there is to be one.
    pub access_log: Option<&'a Path>,
}

impl Start<'_> {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn target(&self) -> String {
        format!("{}:application", self.module)
    }

    /// A command of the virtual environment, in the directory of the applications.
    fn tool(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.environment.tool(name));
        command.args(arguments).current_dir(apps());
        command
    }

    /// A server that is a library.
    fn library(&self, name: &str) -> Command {
        let (port, workers) = (self.port.to_string(), self.workers.to_string());
        self.tool("python", &["serve.py", name, &port, &workers, self.module])
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps")
}

pub const RSWSGI: &str = "rswsgi";
pub const FLOOR: &str = "floor";

pub static SERVERS: [Server; 10] = [
    Server {
        name: FLOOR,
        logs: Logs::No,
        package: None,
        command: floor,
    },
    Server {
        name: RSWSGI,
        logs: Logs::ToFile,
        package: None,
        command: rswsgi,
    },
    Server {
        name: "fastwsgi",
        logs: Logs::No,
        package: Some("fastwsgi"),
        command: |start| start.library("fastwsgi"),
    },
    Server {
        name: "bjoern",
        logs: Logs::No,
        package: Some("bjoern"),
        command: |start| start.library("bjoern"),
    },
    Server {
        name: "granian",
        logs: Logs::ToOutput,
        package: Some("granian"),
        command: granian,
    },
    Server {
        name: "uwsgi",
        logs: Logs::ToFile,
        package: Some("uWSGI"),
        command: |start| uwsgi(start, &["--http11-socket"]),
    },
    // What uWSGI itself proposes where it faces clients: a process that speaks HTTP, in front.
    Server {
        name: "uwsgi-router",
        logs: Logs::No,
        package: Some("uWSGI"),
        command: |start| {
            uwsgi(
                start,
                &["--http-keepalive=75", "--http-auto-chunked", "--http"],
            )
        },
    },
    Server {
        name: "gunicorn",
        logs: Logs::ToFile,
        package: Some("gunicorn"),
        command: gunicorn,
    },
    Server {
        name: "waitress",
        logs: Logs::No,
        package: Some("waitress"),
        command: |start| start.library("waitress"),
    },
    Server {
        name: "wsgo",
        logs: Logs::No,
        package: Some("wsgo"),
        command: wsgo,
    },
];

fn rswsgi(start: &Start) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rswsgi"));
    command
        .args(["--bind", &start.address()])
        .args(["--workers", &start.workers.to_string()])
        .arg("--python")
        .arg(start.environment.python())
        .arg("--chdir")
        .arg(apps())
        .arg(start.target());
    if let Some(path) = start.access_log {
        command.arg("--access-log").arg(path);
    }
    command
}

/// This very program, as the server that does nothing but answer.
fn floor(start: &Start) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut command = Command::new(program);
    command
        .args(["floor", "--port", &start.port.to_string()])
        .args(["--workers", &start.workers.to_string()]);
    command
}

fn granian(start: &Start) -> Command {
    let (port, workers) = (start.port.to_string(), start.workers.to_string());
    let mut command = start.tool(
        "granian",
        &["--interface", "wsgi", "--http", "1", "--no-ws"],
    );
    command
        .args(["--host", "127.0.0.1", "--port", &port])
        .args(["--workers", &workers, "--blocking-threads", "1"])
        .arg(start.target());
    match start.access_log {
        Some(_) => command.arg("--access-log"),
        None => command.args(["--log-level", "error"]),
    };
    command
}

fn uwsgi(start: &Start, socket: &[&str]) -> Command {
    let mut command = start.tool("uwsgi", socket);
    command
        .arg(start.address())
        .args(["--master", "--processes", &start.workers.to_string()])
        .args(["--module", &start.target(), "--need-app"])
        // TERM means reload otherwise, and the benchmark ends servers with it.
        .arg("--die-on-term")
        .arg("--pythonpath")
        .arg(start.environment.site_packages());
    match start.access_log {
        Some(path) => command.arg("--logto").arg(path),
        None => command.arg("--disable-logging"),
    };
    command
}

fn gunicorn(start: &Start) -> Command {
    // The default worker class closes every connection.
    let mut command = start.tool("gunicorn", &["--worker-class", "gthread", "--threads", "1"]);
    command
        .args(["--bind", &start.address()])
        .args(["--workers", &start.workers.to_string()])
        .args(["--log-level", "warning", "--no-control-socket"])
        .arg(start.target());
    if let Some(path) = start.access_log {
        command.arg("--access-logfile").arg(path);
    }
    command
}

fn wsgo(start: &Start) -> Command {
    let mut command = start.tool("wsgo", &["--workers", "1", "--module", start.module]);
    command
        .args(["--processes", &start.workers.to_string()])
        .args(["--http-socket", &start.address()])
        // A binary that links libpython3.X.so and knows nothing of virtual environments.
        .env("LD_LIBRARY_PATH", &start.environment.library_directory)
        .env("PYTHONPATH", start.environment.site_packages());
    command
}
