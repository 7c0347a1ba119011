//! Never down: workers are killed at random under steady load while the pool breathes and recycles and
//! reloads good and bad alternate, and the requests that fail are exactly those that a killed worker had in its hands.
//!
//! The application notes the begin and the end of each request with its process (`apps/torture.py`);
//! every response names its process, so a client knows the owner of the connection it keeps. That
//! makes each failure one of these, and anything else fails the test:
//!
//! | the request            | the worker                          | verdict                           |
//! |------------------------|-------------------------------------|-----------------------------------|
//! | begun, not ended       | was killed                          | [`Loss::Inside`]                  |
//! | begun and ended        | was killed                          | [`Loss::Unsent`]: still to be sent |
//! | not begun              | one was killed since the last answer | [`Loss::OnKept`]                 |
//! | not begun, new         | one was killed meanwhile            | [`Loss::OnNew`]: accepted, unread |
//!
//! A killed worker runs one request, so it has at most one of the first kind. Whoever leaves as planned
//! hands its connections over: no connection ends, announced or not, but with a killed worker. Between two
//! requests it may have gone from one worker to another, so the one that was killed need not be the one
//! that has answered last.

use crate::support::{Client, Pid, Random, Running, Server, only_rswsgi};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CLIENTS: usize = 6;
const LENGTH: Duration = Duration::from_secs(12);
/// In the middle of it: longer than `--idle-timeout`.
const LULL: Duration = Duration::from_millis(2500);
/// Requests every client sends at least, however slow the machine is.
const LEAST: usize = 100;
/// A worker that ends sooner counts as one of a crash loop and is replaced with a delay: that is
/// another test (`pools`).
const GROWN_UP: Duration = Duration::from_millis(1200);
const KINDS: [&str; 6] = ["hello", "nap", "post", "chunked", "generator", "file"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    Inside,
    Unsent,
    OnKept,
    OnNew,
}

/// A request that got no whole answer.
#[derive(Debug)]
struct Failure {
    request: String,
    /// Who answered the last request on this connection.
    owner: Option<i32>,
    /// When the connection was made, or had its last answer.
    since: Instant,
    ended: Instant,
    error: String,
}

#[derive(Debug)]
struct Kill {
    pid: i32,
    before: Instant,
    after: Instant,
}

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    /// The process behind each answered request.
    answered: BTreeMap<String, i32>,
    failures: Vec<Failure>,
    /// Connections that were closed while nothing was asked on them.
    closed: Vec<Failure>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.answered.extend(other.answered);
        self.failures.extend(other.failures);
        self.closed.extend(other.closed);
    }
}

/// What the application noted of one request.
#[derive(Debug, Default)]
struct Noted {
    begun: Vec<i32>,
    ended: Vec<i32>,
}

struct Connection {
    client: Client,
    owner: Option<i32>,
    since: Instant,
}

impl Connection {
    fn new(server: &Running) -> Connection {
        let since = Instant::now();
        Connection {
            client: server.connect(),
            owner: None,
            since,
        }
    }

    fn failure(&self, request: &str, error: impl ToString) -> Failure {
        Failure {
            request: request.into(),
            owner: self.owner,
            since: self.since,
            ended: Instant::now(),
            error: error.to_string(),
        }
    }
}

/// Adler-32 (RFC 1950 §8.2), as the application computes it.
fn checksum(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1u32, 0u32);
    for &byte in bytes {
        low = (low + u32::from(byte)) % 65521;
        high = (high + low) % 65521;
    }
    high << 16 | low
}

/// Sends one request and checks that its answer is whole and its own. The process that answered, and
/// whether it closes the connection.
fn exchange(
    connection: &mut Connection,
    kind: &str,
    number: &str,
    random: &mut Random,
) -> std::io::Result<(i32, bool)> {
    let client = &mut connection.client;
    let mut body = Vec::new();
    let mut message = format!("GET /{kind}/{number} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes();
    if kind == "post" {
        body = random.bytes(16 * 1024);
        let length = body.len();
        message = format!(
            "POST /{kind}/{number} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        message.extend_from_slice(&body);
    }
    client.try_send(&message)?;
    let response = client.try_response()?;
    response.assert_status(200);
    assert_eq!(
        response.field("X-Request"),
        Some(number),
        "the answer to another request: {response:?}"
    );
    let sum = response.field("X-Sum").expect("a checksum");
    assert_eq!(sum, checksum(&response.body).to_string(), "{kind} {number}");
    let pid = response.field("X-Pid").expect("the process");
    match kind {
        "post" => assert_eq!(response.body, body, "the echo of another body"),
        _ => {
            let start = format!("{number} of {pid};");
            assert!(response.text().starts_with(&start), "{kind} {number}");
        }
    }
    let pid = pid.parse().expect("a process number");
    Ok((pid, response.says_close()))
}

/// What the clients and their tormentor know of each other.
#[derive(Debug, Default)]
struct Course {
    /// Requests so far.
    sent: AtomicUsize,
    /// All clients but one pause: the pool is to shrink.
    quiet: AtomicBool,
    over: AtomicBool,
}

impl Course {
    fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }

    fn goes_on(&self) -> bool {
        !Course::is(&self.over)
    }
}

/// Ends the course, also by a panic.
struct Guard<'a>(&'a Course);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// The steady load of one client.
fn load(server: &Running, client: usize, seed: u64, course: &Course) -> Seen {
    let mut random = Random::new(seed.wrapping_add(client as u64 * 7919));
    let mut seen = Seen::default();
    let mut kept: Option<Connection> = None;
    let mut number = 0;
    while number < LEAST || course.goes_on() {
        if client > 0 && Course::is(&course.quiet) && course.goes_on() {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        number += 1;
        course.sent.fetch_add(1, Ordering::Relaxed);
        let request = format!("{client}-{number}");
        let kind = KINDS[random.below(KINDS.len())];
        let mut connection = match kept.take() {
            Some(connection) if connection.client.has_answer() => {
                seen.closed.push(connection.failure(&request, "closed"));
                Connection::new(server)
            }
            // A new connection now and then is the client's right.
            Some(connection) if random.below(20) > 0 => connection,
            _ => Connection::new(server),
        };
        match exchange(&mut connection, kind, &request, &mut random) {
            Ok((pid, closes)) => {
                connection.owner = Some(pid);
                connection.since = Instant::now();
                assert!(!closes, "{request}: {pid} ends its connection");
                seen.answered.insert(request, pid);
                kept = Some(connection);
            }
            Err(error) => seen.failures.push(connection.failure(&request, error)),
        }
    }
    seen
}

/// Workers that have served for a while, with their age.
fn grown_up(server: &Running, ages: &mut BTreeMap<Pid, Instant>) -> Vec<Pid> {
    let now = Instant::now();
    let crew = server.crew();
    ages.retain(|pid, _| crew.contains(pid));
    let known = crew.into_iter().filter(|pid| {
        let first = *ages.entry(*pid).or_insert(now);
        now - first > GROWN_UP
    });
    known.collect()
}

/// Kills and reloads at random moments.
fn torment(server: &Running, seed: u64, course: &Course) -> Vec<Kill> {
    let _guard = Guard(course);
    let mut kills = Vec::new();
    let mut random = Random::new(seed);
    let mut ages = BTreeMap::new();
    let start = Instant::now();
    let mut next = 0;
    let mut reloads = 0;
    while start.elapsed() < LENGTH {
        let is_quiet = start.elapsed() > LENGTH / 2 && start.elapsed() < LENGTH / 2 + LULL;
        course.quiet.store(is_quiet, Ordering::Relaxed);
        // The pace is that of the requests, so that it is the same on every machine.
        let sent = course.sent.load(Ordering::Relaxed);
        if sent < next {
            grown_up(server, &mut ages);
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        next = sent + 20 + random.below(200);
        if random.below(10) == 0 && outcomes(server) == reloads {
            reload(server, reloads);
            reloads += 1;
        }
        let candidates = grown_up(server, &mut ages);
        if candidates.is_empty() {
            continue;
        }
        let victim = candidates[random.below(candidates.len())];
        let before = Instant::now();
        victim.signal(Signal::SIGKILL);
        kills.push(Kill {
            pid: victim.number,
            before,
            after: Instant::now(),
        });
    }
    kills
}

/// Every second time the application cannot be imported.
fn reload(server: &Running, number: usize) {
    let broken = server.dir().join("broken");
    match number % 2 {
        0 => drop(std::fs::remove_file(broken)), // there is none the first time
        _ => std::fs::write(broken, "").expect("write a file"),
    }
    server.read_notifications(); // what nobody reads fills the socket
    server.signal(Signal::SIGHUP);
}

/// How many reloads have come to an end, good or bad.
fn outcomes(server: &Running) -> usize {
    count(server, "reloaded: ") + count(server, "reload failed: ")
}

fn count(server: &Running, piece: &str) -> usize {
    server.log.text().matches(piece).count()
}

fn notes(server: &Running) -> BTreeMap<String, Noted> {
    let mut notes: BTreeMap<String, Noted> = BTreeMap::new();
    for line in server.file("notes-of-requests").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, request, pid] = words[..] else {
            panic!("a torn note: {line:?}");
        };
        let noted = notes.entry(request.into()).or_default();
        let pid = pid.parse().expect("a process number");
        match what {
            "begin" => noted.begun.push(pid),
            _ => noted.ended.push(pid),
        }
    }
    notes
}

/// Why the request was lost; an error if no killed worker can have had it.
fn judge(failure: &Failure, noted: Option<&Noted>, kills: &[Kill]) -> Result<(Loss, i32), String> {
    let killed = |pid: i32| kills.iter().any(|kill| kill.pid == pid);
    let wrong = |what: &str| {
        let error = &failure.error;
        Err(format!("{what} ({error}): {failure:?}, noted {noted:?}"))
    };
    if let Some(noted) = noted {
        return match (noted.begun[..].as_ref(), noted.ended[..].as_ref()) {
            ([pid], []) if killed(*pid) => Ok((Loss::Inside, *pid)),
            ([pid], [_]) if killed(*pid) => Ok((Loss::Unsent, *pid)),
            ([_], _) => wrong("lost by a worker that nobody has killed"),
            _ => wrong("run more than once"),
        };
    }
    let meanwhile = killed_meanwhile(failure, kills);
    match (failure.owner, meanwhile) {
        (Some(_), Some(kill)) => Ok((Loss::OnKept, kill.pid)),
        (None, Some(kill)) => Ok((Loss::OnNew, kill.pid)),
        (_, None) => wrong("its connection was closed and nobody was killed meanwhile"),
    }
}

/// The worker whose kill explains the end of a connection; the one that has answered last on it, if it
/// was killed, too.
fn killed_meanwhile<'a>(failure: &Failure, kills: &'a [Kill]) -> Option<&'a Kill> {
    // The signal is delivered a little after it was sent.
    let slack = Duration::from_millis(200);
    let explains = |kill: &&Kill| kill.before < failure.ended && failure.since < kill.after + slack;
    let all = || kills.iter().filter(explains);
    let owner = all().find(|kill| Some(kill.pid) == failure.owner);
    owner.or_else(|| all().next())
}

/// The workers whose end by SIGKILL is in the log.
fn killed_on_record(log: &str) -> BTreeSet<i32> {
    let pid = |line: &str| {
        let (before, _) = line.split_once(") killed by SIGKILL")?;
        before.rsplit_once("(pid ")?.1.parse().ok()
    };
    log.lines().filter_map(pid).collect()
}

fn losses_by_worker(losses: &BTreeMap<Loss, Vec<i32>>) -> BTreeMap<i32, usize> {
    let mut by_worker = BTreeMap::new();
    for pid in losses.values().flatten() {
        *by_worker.entry(*pid).or_default() += 1;
    }
    by_worker
}

fn seed() -> u64 {
    let given = std::env::var("RSWSGI_TORTURE_SEED").ok();
    let given = given.map(|text| text.parse().expect("RSWSGI_TORTURE_SEED is a number"));
    given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("it is later than 1970").as_nanos() as u64
    })
}

#[test]
fn only_requests_inside_killed_workers_fail() {
    if !only_rswsgi("the pool that is tortured") {
        return;
    }
    let seed = seed();
    println!("RSWSGI_TORTURE_SEED={seed}");
    let mut server = Server::new()
        .app("torture")
        .pool("2..5")
        .arg("--max-requests", "250")
        .arg("--max-requests-jitter", "250")
        .arg("--idle-timeout", "1s")
        .start();
    server.expect_error("killed by SIGKILL");
    server.expect_error("reload failed: ");
    server.expect_error("a bad deploy");
    let course = Course::default();
    let mut seen = Seen::default();
    let kills = std::thread::scope(|scope| {
        let (server, course) = (&server, &course);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || load(server, client, seed, course)))
            .collect();
        let kills = torment(server, seed, course);
        for client in clients {
            seen.add(client.join().expect("the client has not panicked"));
        }
        kills
    });
    let notes = notes(&server);
    let log = server.finish();
    // A kill may come too late for a worker that is leaving; then it costs nothing.
    let asked: BTreeSet<i32> = kills.iter().map(|kill| kill.pid).collect();
    let on_record = killed_on_record(&log.stderr);
    assert!(on_record.is_subset(&asked), "{on_record:?}, {asked:?}");
    let kills: Vec<Kill> = kills
        .into_iter()
        .filter(|kill| on_record.contains(&kill.pid))
        .collect();
    let killed: BTreeSet<i32> = kills.iter().map(|kill| kill.pid).collect();
    // Whatever was answered was run once, by the process that the answer names. A generator notes its
    // end when its last block is sent already: its worker may be killed in between.
    for (request, pid) in &seen.answered {
        let noted = notes.get(request).expect("an answered request was begun");
        assert_eq!(noted.begun, [*pid], "{request}");
        let is_over = noted.ended == [*pid] || (noted.ended.is_empty() && killed.contains(pid));
        assert!(is_over, "{request}: {noted:?}");
    }
    let mut losses: BTreeMap<Loss, Vec<i32>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for failure in &seen.failures {
        match judge(failure, notes.get(&failure.request), &kills) {
            Ok((loss, pid)) => losses.entry(loss).or_default().push(pid),
            Err(text) => wrong.push(text),
        }
    }
    let unexplained = seen.closed.iter();
    let unexplained = unexplained.filter(|closed| killed_meanwhile(closed, &kills).is_none());
    wrong.extend(unexplained.map(|closed| format!("nobody was killed: {closed:?}")));
    let count = |piece: &str| log.stderr.matches(piece).count();
    println!(
        "{} answered, {} lost {losses:?}, {} closed; {} killed, {} recycled, {} grown, {} shrunk, \
         {} reloaded, {} not reloaded",
        seen.answered.len(),
        seen.failures.len(),
        seen.closed.len(),
        kills.len(),
        count("its number of requests"),
        count("starting another"),
        count("has nothing to do"),
        count("reloaded: "),
        count("reload failed: "),
    );
    assert!(wrong.is_empty(), "{}\n{}", log.stderr, wrong.join("\n"));
    assert!(!kills.is_empty(), "nobody was killed");
    assert!(count("its number of requests") > 0, "nobody was recycled");
    assert!(count("reloaded: ") > 0, "nothing was reloaded");
    // What was begun and has no end was inside a killed worker, which runs one request at a time.
    let unended = notes.values().filter(|noted| noted.ended.is_empty());
    let mut inside: Vec<i32> = unended.flat_map(|noted| noted.begun.clone()).collect();
    let count = inside.len();
    inside.sort_unstable();
    inside.dedup();
    assert_eq!(count, inside.len(), "a worker runs one request: {inside:?}");
    assert!(inside.iter().all(|pid| killed.contains(pid)), "{inside:?}");
    for (pid, lost) in losses_by_worker(&losses) {
        assert!(lost <= CLIENTS, "worker {pid} took {lost} requests with it");
    }
    // The scoreboard survives its workers; a request may be counted and killed before it is noted.
    let counted = log.stderr.split("stopped torture: ").nth(1);
    let counted = counted.and_then(|rest| rest.split(' ').next()?.parse().ok());
    let counted: usize = counted.expect("the number of requests");
    assert!(
        (notes.len()..=notes.len() + kills.len()).contains(&counted),
        "{} requests noted, {counted} counted",
        notes.len()
    );
}
