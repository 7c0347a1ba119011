//! Time limits of requests: told first, killed later, never too early; and what a crash leaves behind.

use crate::support::{Client, PATIENCE, Pid, Running, Server, only_rswsgi, wait_until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

fn ours() -> bool {
    only_rswsgi("RequestTimeout, and stacks before a kill")
}

/// Nobody is killed, however long the application takes to react.
fn told_only(request_timeout: &str) -> Server {
    Server::new()
        .app("limits")
        .arg("--request-timeout", request_timeout)
        .arg("--kill-timeout", "1h")
}

fn killing(request_timeout: &str, kill_timeout: &str) -> Server {
    Server::new()
        .app("limits")
        .arg("--request-timeout", request_timeout)
        .arg("--kill-timeout", kill_timeout)
}

fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// The number before `ms` behind `start`, for each line that has it.
fn millis_after(log: &str, start: &str) -> Vec<u64> {
    let behind = log.lines().filter_map(|line| line.split_once(start));
    behind
        .map(|(_, rest)| {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let unit = words.iter().position(|word| word.starts_with("ms"));
            let unit = unit.unwrap_or_else(|| panic!("no milliseconds in {rest:?}"));
            words[unit - 1].parse().expect("a number of milliseconds")
        })
        .collect()
}

/// Time itself is the event: for what must not happen while it passes.
fn let_pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}

/// The application is left by `RequestTimeout` while it does `path`; the worker and the connection live.
#[track_caller]
fn is_interrupted(path: &str, way: &str) {
    if !ours() {
        return;
    }
    let mut server = told_only("300ms").start();
    server.expect_error("is up");
    let workers = server.workers();
    let mut client = server.connect();
    for _ in 0..2 {
        let response = client.get(path);
        response.assert_status(504);
        assert!(response.text().contains("504"), "{response:?}");
        let note = format!("finally in {way}, after the deadline");
        server.notes.expect(&note);
    }
    client
        .get("/pid")
        .assert_text(&workers[0].number.to_string());
    assert_eq!(server.workers(), workers);
    assert!(
        server.notes.so_far().is_empty(),
        "`except Exception` must not catch it"
    );
    let log = server.finish();
    log.assert_says(&format!("the time of \"GET {path} HTTP/1.1\" is up"));
    log.assert_says(&format!("in {way}"));
    log.assert_says("RequestTimeout");
    log.assert_says("soft_timeouts 2");
    log.assert_says("status_5xx 2");
    let times = millis_after(&log.stderr, "has run \"GET");
    assert_eq!(times.len(), 2, "each is told once: {times:?}");
    assert!(times.iter().all(|ms| *ms >= 300), "too early: {times:?}");
}

#[test]
fn an_application_that_computes_for_too_long_is_interrupted() {
    is_interrupted("/compute", "computing");
}

#[test]
fn an_application_that_sleeps_for_too_long_is_interrupted() {
    is_interrupted("/sleep", "sleeping");
}

#[test]
fn an_application_that_waits_for_a_socket_for_too_long_is_interrupted() {
    is_interrupted("/receive", "receiving");
}

#[test]
fn an_application_that_waits_for_a_lock_for_too_long_is_interrupted() {
    is_interrupted("/lock", "locking");
}

#[test]
fn a_response_that_has_begun_is_cut_when_its_time_is_up() {
    if !ours() {
        return;
    }
    let mut server = told_only("300ms").start();
    server.expect_error("is up");
    let workers = server.workers();
    let mut client = server.connect();
    ask(&mut client, "/stream-and-sleep");
    let got = String::from_utf8_lossy(&client.read_until_over()).into_owned();
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got:?}");
    assert!(
        got.ends_with("\r\n\r\n4\r\nsome\r\n"),
        "no last chunk: {got:?}"
    );
    server
        .notes
        .expect("finally in sleeping, after the deadline");
    assert_eq!(server.workers(), workers);
    server.get("/pid").assert_status(200);
    server.finish().assert_says("soft_timeouts 1");
}

#[test]
fn request_timeout_is_no_exception_but_a_base_exception() {
    if !ours() {
        return;
    }
    let server = told_only("300ms").start();
    let kind = server.get("/kind").json();
    assert_eq!(kind["name"], "rswsgi.RequestTimeout");
    assert_eq!(
        kind["bases"],
        serde_json::json!(["BaseException", "object"])
    );
    assert_eq!(kind["same"], true);
}

#[test]
fn an_application_that_catches_request_timeout_and_answers_is_heard() {
    if !ours() {
        return;
    }
    let server = told_only("300ms").start();
    let workers = server.workers();
    let mut client = server.connect();
    client.get("/kind").assert_status(200);
    client.get("/kind").assert_status(200);
    assert_eq!(server.workers(), workers);
    let log = server.finish();
    log.assert_says("status_2xx 2");
    assert_eq!(log.count("soft_timeouts"), 0);
}

#[test]
fn the_deadline_is_told_in_the_time_of_the_monotonic_clock() {
    if !ours() {
        return;
    }
    let server = told_only("1h").start();
    let told = server.get("/deadline").json();
    let left = told["left"].as_f64().expect("a number");
    assert!((3000.0..=3600.0).contains(&left), "{told}");
    assert_eq!(told["type"], "float");
}

#[test]
fn without_a_limit_the_deadline_is_infinite() {
    if !ours() {
        return;
    }
    let server = told_only("0").start();
    assert!(server.get("/deadline").text().contains("Infinity"));
    server.get("/extend-by-nothing").assert_text("true");
}

#[test]
fn a_request_that_ends_before_its_deadline_is_left_alone() {
    if !ours() {
        return;
    }
    let server = killing("2s", "1s").start();
    let workers = server.workers();
    let mut client = server.connect();
    let answers: Vec<String> = (0..6).map(|_| client.get("/just-in-time").text()).collect();
    assert!(
        answers.iter().all(|text| text != "too early"),
        "{answers:?}"
    );
    let in_time = answers.iter().filter(|text| *text == "in time").count();
    assert!(in_time > 0, "the machine is too slow for this test");
    assert_eq!(server.workers(), workers);
    let log = server.finish();
    assert!(log.count("its time is up") <= 6 - in_time, "{}", log.stderr);
    assert_eq!(log.count("is stuck"), 0);
}

#[test]
fn an_application_can_move_its_deadline() {
    if !ours() {
        return;
    }
    let server = killing("300ms", "200ms").start();
    let workers = server.workers();
    let extended = server.get("/extend").json();
    assert_eq!(extended["over"], true, "longer than the limit: {extended}");
    let more = extended["more"].as_f64().expect("a number");
    assert!((3599.0..=3600.5).contains(&more), "{extended}");
    assert_eq!(server.workers(), workers);
    assert_eq!(server.finish().count("time is up"), 0);
}

#[test]
fn a_moved_deadline_is_a_deadline() {
    if !ours() {
        return;
    }
    let server = killing("300ms", "1h").start();
    server
        .get("/extend-a-little")
        .assert_text("after the moved deadline");
    server.get("/extend-again").assert_text("went on");
}

#[test]
fn more_time_is_never_less_and_nonsense_is_refused() {
    if !ours() {
        return;
    }
    let server = killing("1h", "1h").start();
    server.get("/extend-by-nothing").assert_text("true");
    server
        .get("/extend-wrongly")
        .assert_text("ValueError ValueError ValueError TypeError TypeError");
}

/// A request that ends only with its worker: stacks in the log, then the kill, then a new worker.
#[track_caller]
fn is_killed(path: &str, function: &str, note: &str) {
    if !ours() {
        return;
    }
    let mut server = killing("300ms", "400ms").start();
    server.expect_error("is stuck in");
    server.expect_error("killed by SIGKILL");
    server.expect_error("is up");
    let old = server.workers()[0];
    let mut client = server.connect();
    ask(&mut client, path);
    server.notes.expect(note);
    assert_late(&mut client);
    let pid = server.get("/pid").text(); // waits in the listener until somebody serves again
    assert_ne!(pid, old.number.to_string());
    assert!(!old.is_alive());
    let log = server.finish();
    let place = |piece: &str| {
        let found = log.stderr.find(piece);
        found.unwrap_or_else(|| panic!("no {piece:?} in the log"))
    };
    let stuck = place(&format!("is stuck in \"GET {path} HTTP/1.1\""));
    let stack = place(&format!("in {function}\n"));
    let other = place("in stand_beside\n");
    let killed = place("killed by SIGKILL");
    assert!(stuck < stack && stack < killed, "{}", log.stderr);
    assert!(stuck < other && other < killed, "{}", log.stderr);
    let end = log.stderr[killed..].lines().next().unwrap_or_default();
    assert!(end.contains(&format!("GET {path} HTTP/1.1")), "{end}");
    let told = millis_after(&log.stderr, "has run \"GET");
    assert!(matches!(told[..], [ms] if ms >= 300), "{told:?}");
    let stuck = millis_after(&log.stderr, "is stuck in \"GET");
    assert!(matches!(stuck[..], [ms] if ms >= 700), "{stuck:?}");
}

/// The watcher has answered in the place of a worker that is killed.
#[track_caller]
fn assert_late(client: &mut Client) {
    let response = client.response();
    response.assert_status(504);
    assert!(response.says_close(), "{response:?}");
    client.read_until_over();
}

#[test]
fn an_application_that_swallows_request_timeout_is_killed() {
    is_killed("/swallow", "swallow_every_exception", "swallowed");
}

#[test]
fn c_code_that_holds_the_interpreter_is_killed_and_shows_where_it_is() {
    is_killed("/hold", "hold_the_interpreter", "holding");
}

#[test]
fn a_worker_that_is_stopped_in_a_request_is_killed() {
    if !ours() {
        return;
    }
    let mut server = killing("300ms", "300ms").start();
    server.expect_error("is stuck in");
    server.expect_error("killed by SIGKILL");
    let _gate = server.gate("gate");
    let old = server.workers()[0];
    let mut client = server.connect();
    ask(&mut client, "/wait");
    server.notes.next();
    old.signal(Signal::SIGSTOP);
    assert_eq!(client.read_until_over(), b"");
    server.get("/pid").assert_status(200);
}

#[test]
fn one_stuck_worker_does_not_disturb_the_others() {
    if !ours() {
        return;
    }
    let mut server = killing("400ms", "300ms").workers(2).start();
    server.expect_error("is stuck in");
    server.expect_error("killed by SIGKILL");
    let mut client = server.connect();
    ask(&mut client, "/hold");
    server.notes.expect("holding");
    let mut other = server.connect();
    let pid = other.get("/pid").text();
    let mut served = 0;
    while !server.log.text().contains("killed by SIGKILL") {
        other.get("/pid").assert_text(&pid);
        served += 1;
    }
    assert!(served > 0);
    assert_late(&mut client);
    other.get("/pid").assert_text(&pid);
}

#[test]
fn signals_of_the_application_work_in_a_busy_worker() {
    if !ours() {
        return;
    }
    let server = killing("1h", "1h").env("TAKE_SIGNALS", "1").start();
    let worker = server.workers()[0];
    server.get("/signals").assert_text("done");
    let mut notes = server.notes.so_far();
    notes.retain(|note| note.ends_with(&format!(" {}", worker.number)));
    notes.sort();
    notes.dedup(); // ITIMER_PROF and the children of a slow machine may come more than once
    let expected = ["ALRM", "CHLD", "HUP", "PROF", "USR1", "USR2"];
    let expected = expected.map(|name| format!("{name} {}", worker.number));
    assert_eq!(notes, expected);
    assert_eq!(server.workers(), [worker]);
}

#[test]
fn signals_of_the_application_work_in_an_idle_worker() {
    if !ours() {
        return;
    }
    let server = killing("300ms", "300ms").env("TAKE_SIGNALS", "1").start();
    let worker = server.workers()[0];
    let mut client = server.connect();
    client.get("/pid").assert_status(200);
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGALRM, "ALRM"),
        (Signal::SIGPROF, "PROF"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGCHLD, "CHLD"),
    ] {
        worker.signal(signal);
        server.notes.expect(&format!("{name} {}", worker.number));
    }
    client.get("/pid").assert_text(&worker.number.to_string());
}

/// The whole tree sleeps as a suspended machine does, and wakes; `meanwhile` is done in between.
fn suspend(server: &Running, time: Duration, meanwhile: impl FnOnce()) {
    let mut tree: Vec<Pid> = server.supervisor().descendants();
    tree.push(server.supervisor());
    tree.iter().for_each(|pid| pid.signal(Signal::SIGSTOP));
    wait_until("all processes to stop", || {
        let stopped = |pid: &Pid| {
            pid.status("State")
                .is_some_and(|state| state.starts_with('T'))
        };
        tree.iter().all(stopped).then_some(())
    });
    meanwhile();
    let_pass(time);
    tree.iter().for_each(|pid| pid.signal(Signal::SIGCONT));
}

#[test]
fn a_suspension_kills_nobody() {
    if !ours() {
        return;
    }
    let server = killing("2s", "500ms").workers(2).start();
    let gate = server.gate("gate");
    let workers = server.workers();
    let mut busy = server.connect();
    ask(&mut busy, "/wait-and-work");
    server.notes.next();
    suspend(&server, Duration::from_millis(5500), || gate.open());
    busy.response().assert_status(200);
    assert_eq!(server.workers(), workers);
    server.get("/pid").assert_status(200);
    let log = server.finish();
    assert_eq!(log.count("time is up"), 0);
    assert_eq!(log.count("is stuck"), 0);
}

#[test]
fn a_suspension_longer_than_the_time_limits_kills_no_idle_worker() {
    if !ours() {
        return;
    }
    let server = killing("500ms", "200ms").workers(2).start();
    let workers = server.workers();
    let mut client = server.connect();
    client.get("/pid").assert_status(200);
    suspend(&server, Duration::from_millis(1500), || {});
    client.get("/pid").assert_status(200);
    assert_eq!(server.workers(), workers);
    assert_eq!(server.finish().count("time is up"), 0);
}

#[test]
fn an_idle_connection_is_not_a_late_request() {
    if !ours() {
        return;
    }
    let server = killing("200ms", "100ms").start();
    let workers = server.workers();
    let mut client = server.connect();
    for _ in 0..3 {
        client.get("/pid").assert_status(200);
        let_pass(Duration::from_millis(400));
    }
    assert_eq!(server.workers(), workers);
    assert_eq!(server.finish().count("time is up"), 0);
}

const BLOCKS: usize = 64;

#[test]
fn a_slow_reader_is_not_cut_by_the_time_limit_of_the_application() {
    if !ours() {
        return;
    }
    let server = killing("600ms", "300ms")
        .arg("--output-buffer", "64k")
        .unix()
        .start();
    let workers = server.workers();
    let mut client = server.connect();
    ask(&mut client, &format!("/stream?{BLOCKS}"));
    client.head(crate::support::client::Asked::Plain);
    let began = Instant::now();
    let mut length = 0;
    while let Some(chunk) = client.chunk() {
        length += chunk.len();
        let_pass(Duration::from_millis(40)); // that is how slow it is
    }
    assert_eq!(length, BLOCKS * 65536);
    assert!(began.elapsed() > Duration::from_secs(2), "not slow enough");
    client.get("/pid").assert_status(200);
    assert_eq!(server.workers(), workers);
    assert_eq!(server.finish().count("is stuck"), 0);
}

#[test]
fn a_reader_that_pauses_is_not_cut_by_the_time_limit_of_the_application() {
    if !ours() {
        return;
    }
    let server = killing("400ms", "300ms")
        .arg("--output-buffer", "64k")
        .unix()
        .start();
    let workers = server.workers();
    let mut client = server.connect();
    ask(&mut client, &format!("/stream?{BLOCKS}"));
    client.head(crate::support::client::Asked::Plain);
    let mut length = 0;
    for number in 0.. {
        if number == 5 {
            let_pass(Duration::from_millis(2500));
        }
        match client.chunk() {
            Some(chunk) => length += chunk.len(),
            None => break,
        }
    }
    assert_eq!(length, BLOCKS * 65536);
    client.get("/pid").assert_status(200);
    assert_eq!(server.workers(), workers);
    assert_eq!(server.finish().count("time is up"), 0);
}

#[test]
fn a_crash_in_c_code_shows_the_python_stack() {
    if !ours() {
        return;
    }
    let mut server = killing("1h", "1h").start();
    server.expect_error("Fatal Python error: Segmentation fault");
    server.expect_error("SIGSEGV");
    let old = server.workers()[0];
    let mut client = server.connect();
    ask(&mut client, "/crash?please");
    assert_eq!(client.read_until_over(), b"");
    let pid = server.get("/pid").text();
    assert_ne!(pid, old.number.to_string());
    let end = server.log.wait("the end of the worker", |text| {
        let line = text.lines().find(|line| line.contains("SIGSEGV"))?;
        Some(line.to_owned())
    });
    assert!(end.contains("\"GET /crash?please HTTP/1.1\""), "{end}");
    assert!(end.contains(&format!("(pid {})", old.number)), "{end}");
    let age = end.split_once(" after ").and_then(|(_, rest)| {
        let seconds = rest.split_once(" s")?.0;
        seconds.parse::<f64>().ok()
    });
    let age = age.unwrap_or_else(|| panic!("no age in {end}"));
    assert!((0.001..PATIENCE.as_secs_f64()).contains(&age), "{end}");
    let log = server.finish();
    log.assert_says_once("Fatal Python error: Segmentation fault");
    log.assert_says("in crash_in_c_code");
}

#[test]
fn a_request_of_a_generation_that_leaves_has_its_time_limit() {
    if !ours() {
        return;
    }
    let mut server = told_only("4s").arg("--graceful-timeout", "1h").start();
    server.expect_error("is up");
    let _gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait-at-gate HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting at the gate");
    server.signal(Signal::SIGTERM);
    let response = client.response();
    response.assert_status(504);
    let log = server.finish();
    log.assert_says("the time of \"GET /wait-at-gate HTTP/1.1\" is up");
    let place = |piece: &str| log.stderr.find(piece).expect("it is there");
    assert!(
        place("finishing what runs") < place("is up"),
        "{}",
        log.stderr
    );
}

#[test]
fn a_request_that_is_stuck_in_a_generation_that_leaves_is_killed() {
    if !ours() {
        return;
    }
    let mut server = killing("2s", "400ms")
        .arg("--graceful-timeout", "1h")
        .start();
    server.expect_error("is stuck in");
    server.expect_error("SIGKILL");
    server.expect_error("is up");
    let mut client = server.connect();
    ask(&mut client, "/swallow");
    server.signal(Signal::SIGHUP);
    server.log.wait_for("reloaded: serving");
    assert_late(&mut client);
    wait_until("the end of the old generation", || {
        (server.masters().len() == 1).then_some(())
    });
    server.get("/pid").assert_status(200);
    let log = server.finish();
    log.assert_says("is stuck in \"GET /swallow HTTP/1.1\"");
    log.assert_says("in swallow_every_exception\n");
}
