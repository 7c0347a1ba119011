//! The workloads, and the load generators that play them: `wrk` with one thread, and one of our own
//! where requests differ (`clients`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;

/// Clients that wait for an answer before they ask again.
pub const CONNECTIONS: u32 = 16;

pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    /// Module in `benches/apps` that serves it.
    pub module: &'static str,
    pub path: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
    /// Bytes posted; nothing means GET.
    pub upload: usize,
    pub answer: Answer,
    pub log: AccessLog,
    pub slow: Option<Slow>,
    /// Processes that serve, whatever the command line says.
    pub workers: Option<u32>,
}

/// Requests in between that take long; they have the same answer.
pub struct Slow {
    pub path: &'static str,
    /// One request in so many, counted over all clients in the order in which they ask.
    pub one_in: u64,
    /// How long the application sleeps.
    pub takes: Duration,
}

/// Whether the server writes a line for each request, to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    On,
}

/// The body of a right response.
pub enum Answer {
    Text(&'static str),
    /// That many times `x`.
    Filler(usize),
}

impl Answer {
    pub fn bytes(&self) -> Vec<u8> {
        match *self {
            Answer::Text(text) => text.into(),
            Answer::Filler(size) => vec![b'x'; size],
        }
    }
}

impl Workload {
    pub fn method(&self) -> &'static str {
        if self.upload == 0 { "GET" } else { "POST" }
    }

    /// Whether the client itself ends the connection after each response.
    pub fn closes(&self) -> bool {
        self.headers.contains(&("Connection", "close"))
    }
}

const HELLO: Workload = Workload {
    name: "hello",
    title: "hello, keep-alive",
    module: "app",
    path: "/hello",
    headers: &[],
    upload: 0,
    answer: Answer::Text("Hello, world!\n"),
    log: AccessLog::Off,
    slow: None,
    workers: None,
};

pub static WORKLOADS: [Workload; 9] = [
    HELLO,
    Workload {
        name: "browser",
        title: "hello with a browser's headers",
        headers: BROWSER,
        ..HELLO
    },
    Workload {
        name: "access-log",
        title: "hello, with an access log in a file",
        log: AccessLog::On,
        ..HELLO
    },
    Workload {
        name: "close",
        title: "hello, a connection per request",
        headers: &[("Connection", "close")],
        ..HELLO
    },
    Workload {
        name: "post",
        title: "16 KB POST, read by the application",
        path: "/upload",
        upload: 16_384,
        answer: Answer::Text("16384\n"),
        ..HELLO
    },
    Workload {
        name: "big",
        title: "1 MiB response",
        path: "/big",
        answer: Answer::Filler(1 << 20),
        ..HELLO
    },
    Workload {
        name: "stream",
        title: "generator of 64 × 1 KiB, no Content-Length",
        path: "/stream",
        answer: Answer::Filler(64 << 10),
        ..HELLO
    },
    Workload {
        name: "flask",
        title: "Flask",
        module: "flask_app",
        ..HELLO
    },
    Workload {
        name: "mixed",
        title: "hello, and one request in 20 sleeps for 50 ms",
        slow: Some(Slow {
            path: "/nap",
            one_in: 20,
            takes: Duration::from_millis(50),
        }),
        workers: Some(4),
        ..HELLO
    },
];

/// What a browser sends for a page of a site it has been to before.
const BROWSER: &[(&str, &str)] = &[
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    ),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"),
    ("Cache-Control", "max-age=0"),
    (
        "Cookie",
        "session=eyJfZnJlc2giOmZhbHNlfQ.aR8x2w.7mXHq0aQ1n1bWmU6bq1Vv0lF0c8; theme=dark; consent=1",
    ),
    ("Referer", "http://127.0.0.1/start?from=menu"),
    (
        "Sec-Ch-Ua",
        "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"",
    ),
    ("Sec-Ch-Ua-Mobile", "?0"),
    ("Sec-Ch-Ua-Platform", "\"Linux\""),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-User", "?1"),
    ("Upgrade-Insecure-Requests", "1"),
];

/// What the clients saw in one run.
#[derive(Clone, Copy)]
pub struct Load {
    pub requests: u64,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// Requests that ended without a response: reset, refused, timed out.
    pub lost: u64,
}

/// Keeps all connections busy for `seconds`. An answer that is no success is an error.
pub fn run(workload: &Workload, port: u16, seconds: u32, cpu: &str) -> Result<Load, String> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", cpu]);
    match workload.slow {
        None => wrk(&mut command, workload, port, seconds),
        Some(_) => own(&mut command, workload, port, seconds),
    }
    let (status, output) =
        process::run(&mut command, Duration::from_secs(u64::from(seconds) + 10))?;
    if !status.success() {
        return Err(format!(
            "the load generator ended with {status}: {}",
            output.trim()
        ));
    }
    let load = parse(&output);
    load.ok_or_else(|| format!("cannot understand the load generator: {}", output.trim()))?
}

fn wrk(command: &mut Command, workload: &Workload, port: u16, seconds: u32) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare/load.lua");
    command
        .args(["wrk", "--threads=1", "--timeout=5s"])
        .arg(format!("--connections={CONNECTIONS}"))
        .arg(format!("--duration={seconds}s"))
        .arg("--script")
        .arg(script);
    for (name, value) in workload.headers {
        command.arg("--header").arg(format!("{name}: {value}"));
    }
    command
        .arg(format!("http://127.0.0.1:{port}{}", workload.path))
        .args(["--", workload.method(), &workload.upload.to_string()]);
}

/// This very program.
fn own(command: &mut Command, workload: &Workload, port: u16, seconds: u32) {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    command
        .arg(program)
        .args(["clients", "--workload", workload.name])
        .args(["--port", &port.to_string()])
        .args(["--seconds", &seconds.to_string()]);
}

/// The line that `load.lua` and `clients` print at the end.
fn parse(output: &str) -> Option<Result<Load, String>> {
    let line = output.lines().find_map(|l| l.strip_prefix("measured "))?;
    let value = |name: &str| -> Option<u64> {
        let (_, value) = line
            .split_whitespace()
            .filter_map(|field| field.split_once('='))
            .find(|field| field.0 == name)?;
        value.parse().ok()
    };
    let (requests, refused) = (value("requests")?, value("status")?);
    if refused > 0 {
        return Some(Err(format!(
            "{refused} of {requests} answers were no success"
        )));
    }
    if requests == 0 {
        return Some(Err("no response ended while it was measured".into()));
    }
    Some(Ok(Load {
        requests,
        per_second: requests as f64 * 1e6 / value("us")? as f64,
        p50: Duration::from_micros(value("p50")?),
        p99: Duration::from_micros(value("p99")?),
        lost: value("socket")? + value("timeout")?,
    }))
}
