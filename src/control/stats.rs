//! What `stats` answers. Every field says its unit; `rswsgi-control(7)` lists them all (a test
//! compares). A server of an earlier version may lack fields: they are read as nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Version of this structure.
    pub schema: u32,
    /// When it was taken: seconds since 1970-01-01 00:00 UTC.
    pub time_seconds: f64,
    /// The process that was asked.
    pub server: Process,
    /// One entry per app.
    pub apps: Vec<App>,
}

/// The supervisor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Of the program.
    pub version: String,
    /// Process number of the supervisor.
    pub pid: i32,
    /// `serving`, `draining` (what runs is finished) or `stopping`.
    pub state: String,
    /// When the server was started: seconds since 1970-01-01 00:00 UTC. An upgrade keeps it.
    pub started_seconds: f64,
    /// Time since then.
    pub uptime_seconds: f64,
}

/// One app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// Its name (`--name`).
    pub name: String,
    /// `MODULE:EXPRESSION` of the generation that serves or served last.
    pub target: String,
    /// `serving`, `reloading`, `starting`, `leaving`, `failing` (it did not come up and is tried again), `at rest` (no
    /// process: the first connection starts it), `waiting` (for its turn) or `stopped`.
    pub state: String,
    /// One line for people: what it is doing.
    pub status: String,
    /// The generation that serves; `null` while none does.
    pub generation: Option<Generation>,
    /// All generations, also those that start or leave, the oldest first.
    pub generations: Vec<Generation>,
    /// The last reload, or the one under way; `null` when there was none.
    pub reload: Option<Reload>,
    /// How many workers.
    pub pool: Pool,
    /// How many requests.
    pub requests: Requests,
    /// Completed requests per second.
    pub rates: Rates,
    /// Time from the complete request to the handed-over response.
    pub latency: Distribution,
    /// Time a request had waited in the kernel when its connection was accepted: for TCP, since its
    /// last bytes arrived; a sample of all connections (at most one per worker and millisecond), in the
    /// kernel's resolution of some milliseconds. Unix sockets are not counted: the kernel does not
    /// say; see their backlog.
    pub queue: Distribution,
    /// Where it listens, and who waits there.
    pub listeners: Vec<Listener>,
    /// Client connections.
    pub connections: Connections,
    /// Connections that went from one worker to another.
    pub relay: Relay,
    /// On client connections.
    pub bytes: Bytes,
    /// What went wrong.
    pub errors: Errors,
    /// Workers started and replaced.
    pub processes: Processes,
    /// `null` before the first sample.
    pub memory: Option<Memory>,
    /// The workers of all generations, by generation and slot.
    pub workers: Vec<Worker>,
}

/// One master and its workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generation {
    /// Counted from 1.
    pub number: u64,
    /// `starting`, `serving`, `leaving` (finishes what runs) or `ending` (never served).
    pub stage: String,
    /// Process number of the master.
    pub pid: i32,
    /// Time since the master was started.
    pub age_seconds: f64,
    /// Version of its Python; empty before it has told.
    pub python: String,
    /// Workers it has now.
    pub workers: u32,
}

/// How a reload ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// `ok`, `failed`, or `under way`.
    pub result: String,
    /// Time since it ended; 0 while it is under way.
    pub age_seconds: f64,
    /// How long it took, or has taken so far.
    pub took_seconds: f64,
    /// The generation that came of it.
    pub generation: Option<u64>,
    /// Why it failed, in one line.
    pub error: Option<String>,
    /// The Python traceback, when there is one.
    pub traceback: Option<String>,
}

/// How many workers, of the generation that serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Fewest workers.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// How many there are to be now.
    pub target: u32,
    /// Workers that cannot serve yet.
    pub starting: u32,
    /// Workers that wait for something to do.
    pub idle: u32,
    /// Workers that read, run or write.
    pub busy: u32,
    /// Workers that finish what they run.
    pub draining: u32,
}

/// Requests since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// Reached the application.
    pub total: u64,
    /// Responses 200 to 299, also those the server itself gave; so are the next three.
    pub status_2xx: u64,
    /// Responses 300 to 399.
    pub status_3xx: u64,
    /// Responses 400 to 499.
    pub status_4xx: u64,
    /// Responses 500 to 599.
    pub status_5xx: u64,
    /// In the application right now.
    pub in_flight: u32,
}

/// Completed requests per second; taken from what the workers note for each second, so they are
/// right at the first question. A server that is younger than the time in question counts from its
/// start. After an upgrade, generations that were gone before it are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// In the last full second.
    pub per_second_1s: f64,
    /// Mean of the last minute.
    pub per_second_1m: f64,
    /// Mean of the last five minutes.
    pub per_second_5m: f64,
    /// Requests completed in each of the last 60 full seconds, the oldest first.
    pub last_minute: Vec<u64>,
}

/// A distribution of durations, since the start. Percentiles come from a histogram with four buckets
/// per power of two: they are upper bounds, at most 25 % too large.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum_seconds: f64,
    /// Half of them took at most this; `null` when there were none.
    pub p50_seconds: Option<f64>,
    /// Nine of ten.
    pub p90_seconds: Option<f64>,
    /// 99 of 100.
    pub p99_seconds: Option<f64>,
    /// The largest, exactly.
    pub max_seconds: Option<f64>,
    /// The buckets that are not empty, the smallest durations first. The difference of two replies
    /// gives the distribution between them.
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Durations below this, and not below the end of the bucket before it; `null` for the last
    /// bucket there is.
    pub below_seconds: Option<f64>,
    /// How many.
    pub count: u64,
}

/// One listening socket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// `http://127.0.0.1:8000`, `unix:/run/a.sock`.
    pub name: String,
    /// Connections that wait to be accepted; `null` when the kernel does not say.
    pub backlog: Option<u32>,
    /// How many may wait.
    pub backlog_limit: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Accepted since the start.
    pub accepted: u64,
}

/// Connections that went from one worker to another (`--relay`), since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relay {
    /// Sent on by a worker whose application ran, because their client had sent something.
    pub busy: u64,
    /// Sent on by a worker that left.
    pub drain: u64,
    /// Sent on by a worker that was about to be killed.
    pub stuck: u64,
    /// Sent on by a worker that had several requests at once, while others had none.
    pub balance: u64,
    /// Taken over by a worker.
    pub taken: u64,
    /// Attempts to send one on while too many were under way: it stayed where it was.
    pub full: u64,
    /// Taken and closed, because they could not be served; the log says why.
    pub refused: u64,
    /// How long they waited for the worker that took them over.
    pub wait: Distribution,
}

/// On client connections, since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bytes {
    /// From clients.
    pub received_bytes: u64,
    /// To clients.
    pub sent_bytes: u64,
}

/// What went wrong, since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// Exceptions that left the application.
    pub exceptions: u64,
    /// Requests that ended by `RequestTimeout`.
    pub soft_timeouts: u64,
    /// Workers killed because they did not react to it.
    pub hard_timeouts: u64,
    /// Workers that ended although nobody had told them to; those killed as stuck included.
    pub crashes: u64,
    /// Workers that ended before they could serve, or could not be forked.
    pub start_failures: u64,
    /// Masters that ended although they were to serve.
    pub master_crashes: u64,
    /// Reloads that failed.
    pub failed_reloads: u64,
    /// Requests and responses cut short because the client had gone.
    pub client_aborts: u64,
    /// Responses that did not keep to their Content-Length or failed midway.
    pub broken_responses: u64,
    /// Requests without a line in the access log, because it was not written in time.
    #[serde(default)]
    pub unlogged_requests: u64,
    /// Requests that were refused, by reason; only reasons that occurred.
    pub refused: BTreeMap<String, u64>,
}

/// Workers started and replaced, since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processes {
    /// Workers forked.
    pub spawns: u64,
    /// Workers replaced after `--max-requests`.
    pub recycled_requests: u64,
    /// Workers replaced at `--max-age`.
    pub recycled_age: u64,
    /// Workers replaced over `--max-memory`.
    pub recycled_memory: u64,
    /// Workers replaced by `recycle` or after a signal to the worker.
    pub recycled_asked: u64,
    /// Workers that left because there was nothing to do for them.
    pub retired: u64,
    /// Reloads that ended well.
    pub reloads: u64,
}

/// Memory of the generation that serves (`smaps_rollup`, proc_pid_smaps(5)); sampled at most every ten
/// seconds, and only when somebody asks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Time since the sample.
    pub age_seconds: f64,
    /// Workers that were looked at.
    pub workers: u32,
    /// Proportional set sizes of master and workers together: what the generation costs.
    pub pss_bytes: u64,
    /// Of the master alone.
    pub master_pss_bytes: u64,
    /// Unique set sizes of the workers together: what would be free without them.
    pub uss_bytes: u64,
    /// Memory that workers share with others, together.
    pub shared_bytes: u64,
    /// Memory that workers have written since their fork and share with nobody, together:
    /// copy-on-write broken, and what was allocated anew.
    pub private_dirty_bytes: u64,
}

/// One worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its place, which a worker that replaces it may take over.
    pub slot: u32,
    /// Process number; 0 in the first moment.
    pub pid: i32,
    /// Number of its generation.
    pub generation: u64,
    /// `starting`, `idle`, `reading`, `running`, `writing` or `draining`.
    pub state: String,
    /// Time since it was forked.
    pub age_seconds: f64,
    /// Requests of this slot; a worker that takes the place of another counts on.
    pub requests: u64,
    /// Open connections.
    pub connections: u32,
    /// Connections that this slot has sent to other workers.
    pub relayed_out: u64,
    /// Connections that it has taken over from other workers.
    pub relayed_in: u64,
    /// The running request.
    pub request: Option<Request>,
    /// Proportional set size at its last sample; `null` without one.
    pub pss_bytes: Option<u64>,
    /// Shared with nobody.
    pub uss_bytes: Option<u64>,
    /// Shared with others.
    pub shared_bytes: Option<u64>,
    /// Written since the fork, shared with nobody.
    pub private_dirty_bytes: Option<u64>,
}

/// What a worker runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// The start of the target, as far as it was noted; printable ASCII.
    pub path: String,
    /// Time since it entered the application.
    pub age_seconds: f64,
    /// The client as the application sees it: `192.0.2.1:5000`, or `192.0.2.1` where a proxy has not told
    /// the port; `null` where there is no address (on a Unix socket).
    pub peer: Option<String>,
}
