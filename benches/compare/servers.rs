//! How each server is started: N processes of one thread, keep-alive on, no log per request unless the
//! workload is about it. All else is left as it comes; a server that needs more to work at all has the
//! reason beside it. Some workloads have more rows: the same servers with other options.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::Environment;
use crate::load::{AccessLog, Workload};

pub struct Server {
    pub name: &'static str,
    /// The package it comes from, in `benches/requirements.txt`.
    pub package: Option<&'static str>,
    pub command: fn(&Start) -> Command,
    /// Where it logs requests, if it can.
    pub logs: Logs,
    pub part: Part,
}

/// Workloads in which a row has something to say.
#[derive(Clone, Copy)]
pub enum Part {
    All,
    /// It never runs an application.
    AllButSlow,
    Only(&'static [&'static str]),
}

impl Server {
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(RSWSGI)
    }

    pub fn takes_part(&self, workload: &Workload) -> bool {
        let can_log = workload.log == AccessLog::Off || self.logs != Logs::No;
        can_log
            && match self.part {
                Part::All => true,
                Part::AllButSlow => workload.slow.is_none(),
                Part::Only(names) => names.contains(&workload.name),
            }
    }
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
    fn library(&self, name: &str, threads: u32) -> Command {
        let (port, workers) = (self.port.to_string(), self.workers.to_string());
        let threads = threads.to_string();
        self.tool(
            "python",
            &["serve.py", name, &port, &workers, self.module, &threads],
        )
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps")
}

pub const RSWSGI: &str = "rswsgi";
pub const FLOOR: &str = "floor";

/// Threads per process where a row is about threads: with four processes as many requests at a time
/// as an elastic pool of 32 workers.
const THREADS: u32 = 8;

pub static SERVERS: [Server; 16] = [
    Server {
        name: FLOOR,
        part: Part::AllButSlow,
        ..quiet(None, floor)
    },
    Server {
        name: RSWSGI,
        logs: Logs::ToFile,
        ..quiet(None, |start| rswsgi(start, &[]))
    },
    Server {
        name: "rswsgi-relay-off",
        part: Part::Only(&["hello", "mixed"]),
        ..quiet(None, |start| rswsgi(start, &["--relay", "off"]))
    },
    Server {
        name: "rswsgi-elastic",
        part: MIXED,
        ..quiet(None, |start| rswsgi(start, &["--workers", "4..32"]))
    },
    Server {
        name: "fastwsgi",
        ..quiet(Some("fastwsgi"), |start| start.library("fastwsgi", 1))
    },
    Server {
        name: "bjoern",
        ..quiet(Some("bjoern"), |start| start.library("bjoern", 1))
    },
    Server {
        name: "granian",
        logs: Logs::ToOutput,
        ..quiet(Some("granian"), |start| granian(start, 1))
    },
    Server {
        name: "granian-threads",
        part: MIXED,
        ..quiet(Some("granian"), |start| granian(start, THREADS))
    },
    Server {
        name: "uwsgi",
        logs: Logs::ToFile,
        ..quiet(Some("uWSGI"), |start| uwsgi(start, &["--http11-socket"]))
    },
    // What uWSGI itself proposes where it faces clients: a process that speaks HTTP, in front.
    Server {
        name: "uwsgi-router",
        ..quiet(Some("uWSGI"), |start| {
            uwsgi(
                start,
                &["--http-keepalive=75", "--http-auto-chunked", "--http"],
            )
        })
    },
    Server {
        name: "gunicorn",
        logs: Logs::ToFile,
        ..quiet(Some("gunicorn"), |start| gunicorn(start, 1))
    },
    Server {
        name: "gunicorn-threads",
        part: MIXED,
        ..quiet(Some("gunicorn"), |start| gunicorn(start, THREADS))
    },
    Server {
        name: "waitress",
        ..quiet(Some("waitress"), |start| start.library("waitress", 1))
    },
    Server {
        name: "waitress-threads",
        part: MIXED,
        ..quiet(Some("waitress"), |start| start.library("waitress", THREADS))
    },
    Server {
        name: "wsgo",
        ..quiet(Some("wsgo"), |start| wsgo(start, 1))
    },
    Server {
        name: "wsgo-threads",
        part: MIXED,
        ..quiet(Some("wsgo"), |start| wsgo(start, THREADS))
    },
];

const MIXED: Part = Part::Only(&["mixed"]);

/// A server without a log, in every workload, and still without a name.
const fn quiet(package: Option<&'static str>, command: fn(&Start) -> Command) -> Server {
    Server {
        name: "",
        package,
        command,
        logs: Logs::No,
        part: Part::All,
    }
}

/// `options` may say another number of workers.
fn rswsgi(start: &Start, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rswsgi"));
    if !options.contains(&"--workers") {
        command.args(["--workers", &start.workers.to_string()]);
    }
    command
        .args(options)
        .args(["--bind", &start.address()])
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

fn granian(start: &Start, threads: u32) -> Command {
    let (port, workers) = (start.port.to_string(), start.workers.to_string());
    let threads = threads.to_string();
    let mut command = start.tool(
        "granian",
        &["--interface", "wsgi", "--http", "1", "--no-ws"],
    );
    command
        .args(["--host", "127.0.0.1", "--port", &port])
        .args(["--workers", &workers, "--blocking-threads", &threads])
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

fn gunicorn(start: &Start, threads: u32) -> Command {
    // The default worker class closes every connection.
    let mut command = start.tool("gunicorn", &["--worker-class", "gthread"]);
    command
        .args(["--threads", &threads.to_string()])
        .args(["--bind", &start.address()])
        .args(["--workers", &start.workers.to_string()])
        .args(["--log-level", "warning", "--no-control-socket"])
        .arg(start.target());
    if let Some(path) = start.access_log {
        command.arg("--access-logfile").arg(path);
    }
    command
}

fn wsgo(start: &Start, threads: u32) -> Command {
    let mut command = start.tool("wsgo", &["--module", start.module]);
    command
        .args(["--workers", &threads.to_string()])
        .args(["--processes", &start.workers.to_string()])
        .args(["--http-socket", &start.address()])
        // A binary that links libpython3.X.so and knows nothing of virtual environments.
        .env("LD_LIBRARY_PATH", &start.environment.library_directory)
        .env("PYTHONPATH", start.environment.site_packages());
    command
}
