use super::*;
use crate::control::stats::{App, Bucket, Errors, Generation, Listener, Reload};
use crate::control::{Kind, Refused, Stack};

#[test]
fn durations_have_two_or_three_digits_and_a_unit() {
    for (value, long, short) in [
        (0.0, "0 s", "0s"),
        (0.000_034, "34 µs", "34µs"),
        (0.000_999_6, "1.0 ms", "1.0ms"),
        (0.0012, "1.2 ms", "1.2ms"),
        (0.0342, "34 ms", "34ms"),
        (0.9996, "1.0 s", "1.0s"),
        (9.94, "9.9 s", "9.9s"),
        (59.4, "59 s", "59s"),
        (59.6, "1 min", "1m"),
        (302.0, "5 min 2 s", "5m2s"),
        (3599.7, "1 h", "1h"),
        (12_000.0, "3 h 20 min", "3h20m"),
        (400_000.0, "4 d 15 h", "4d15h"),
        (90_000_000.0, "1041 d 16 h", "1041d"),
        (-1.0, "?", "?"),
        (f64::NAN, "?", "?"),
    ] {
        assert_eq!(seconds(value), long);
        assert_eq!(short_seconds(value), short);
    }
}

#[test]
fn sizes_and_counts_fit_narrow_columns() {
    for (value, long, short) in [
        (0, "0 B", "0"),
        (1023, "1023 B", "1023"),
        (1024, "1.0 KiB", "1.0K"),
        (34 << 20, "34 MiB", "34M"),
        (1_288_490_189, "1.2 GiB", "1.2G"),
        (u64::MAX, "16 EiB", "16E"),
    ] {
        assert_eq!(bytes(value), long);
        assert_eq!(short_bytes(value), short);
    }
    for (value, short) in [
        (999, "999"),
        (1000, "1.0k"),
        (999_900, "1.0M"),
        (12_345, "12k"),
    ] {
        assert_eq!(short_count(value), short);
    }
    assert_eq!(rate(0.0), "0");
    assert_eq!(rate(1.25), "1.2");
    assert_eq!(rate(99.6), "100");
}

#[test]
fn nothing_from_outside_moves_the_cursor() {
    let hostile = "a\x1b[2Jb\r\n\t\u{202e}c\u{85}\x7f 漢";
    let shown = "a\\x1b[2Jb\\r\\n\\t\\u{202e}c\\u{85}\\x7f 漢";
    assert_eq!(escape(hostile), shown);
    assert_eq!(escape_lines("a\n\tb\x07\r\n"), "a\n    b\\x07");
}

fn request(path: &str, age: f64) -> Option<Request> {
    Some(Request {
        method: "GET".into(),
        path: path.into(),
        age_seconds: age,
        peer: None,
    })
}

fn worker(slot: u32, request: Option<Request>) -> Worker {
    Worker {
        slot,
        pid: 4711 + slot as i32,
        generation: 3,
        state: if request.is_some() { "running" } else { "idle" }.into(),
        age_seconds: 61.0,
        requests: 1_234_567,
        connections: 2,
        request,
        pss_bytes: (slot == 0).then_some(34 << 20),
        ..Worker::default()
    }
}

fn example() -> Stats {
    let mut stats = Stats::default();
    stats.server.version = "0.1.0".into();
    stats.server.pid = 4700;
    stats.server.state = "serving".into();
    stats.server.uptime_seconds = 12_000.0;
    let mut app = App {
        name: "shop".into(),
        target: "shop.wsgi:application".into(),
        status: "serving".into(),
        generations: vec![Generation {
            number: 3,
            stage: "serving".into(),
            pid: 4710,
            age_seconds: 61.0,
            python: "3.12.3".into(),
            workers: 3,
        }],
        reload: Some(Reload {
            result: "failed".into(),
            age_seconds: 5.0,
            took_seconds: 0.34,
            error: Some("cannot import shop".into()),
            ..Reload::default()
        }),
        listeners: vec![Listener {
            name: "http://127.0.0.1:8000".into(),
            backlog: Some(1),
            backlog_limit: Some(2048),
        }],
        errors: Errors {
            exceptions: 2,
            refused: [("bad-host".to_owned(), 1)].into(),
            ..Errors::default()
        },
        workers: vec![
            worker(0, None),
            worker(1, request("/fast\x1b[2J", 0.002)),
            worker(2, request("/slow", 2.5)),
        ],
        ..App::default()
    };
    app.pool.min = 2;
    app.pool.max = 16;
    app.pool.target = 3;
    (app.pool.busy, app.pool.idle) = (2, 1);
    app.requests.total = 1000;
    app.requests.status_2xx = 999;
    app.requests.in_flight = 2;
    app.rates.per_second_1s = 12.0;
    app.latency.p50_seconds = Some(0.0012);
    app.latency.max_seconds = Some(2.0);
    app.latency.buckets = vec![Bucket {
        below_seconds: None,
        count: 1000,
    }];
    app.bytes.sent_bytes = 34 << 20;
    stats.apps = vec![app];
    stats
}

#[test]
fn the_oldest_request_comes_first_and_young_ones_can_be_left_out() {
    let stats = example();
    let shown = requests(&running(&stats, 0.0), Paint::None);
    let expected = "   AGE  APP   WORKER  PROCESS  PEER  REQUEST\n\
                    \u{20}2.5 s  shop       2     4713  -     GET /slow\n\
                    2.0 ms  shop       1     4712  -     GET /fast\\x1b[2J\n";
    assert_eq!(shown, expected);
    assert_eq!(running(&stats, 2.0).len(), 1);
    let none = requests(&running(&stats, 3.0), Paint::None);
    assert_eq!(none, "no request is running for so long\n");
}

#[test]
fn workers_are_a_table() {
    let stats = example();
    let shown = workers(&crew(&stats), Paint::None);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 4);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[1]),
        "shop 0 3 4711 idle 1 min 1 s 1234567 2 34 MiB -"
    );
    for title in ["PROCESS  ", "REQUESTS  "] {
        let end = lines[0].find(title).unwrap() + title.len() - 2;
        assert!(
            lines[1..]
                .iter()
                .all(|line| !line[..end].ends_with(' ') && &line[end..end + 2] == "  ")
        );
    }
    assert!(lines[3].ends_with("GET /slow for 2.5 s"), "{shown}");
}

#[test]
fn statistics_are_sentences() {
    let shown = stats(
        &example(),
        std::path::Path::new("/run/rswsgi/shop.control"),
        Paint::None,
    );
    let expected = "\
rswsgi 0.1.0, process 4700, serving, up 3 h 20 min, /run/rswsgi/shop.control

shop (shop.wsgi:application): serving
  generation  3 serving, 3 workers, for 1 min 1 s, process 4710, Python 3.12.3
  reload      failed 5.0 s ago, took 340 ms: cannot import shop
  pool        3 wanted of 2 to 16, 2 busy, 1 idle
  requests    1000, 2 running
  responses   999 2xx, 0 3xx, 0 4xx, 0 5xx
  rate        12/s in the last second, 0/s in 1 min, 0/s in 5 min
  latency     p50 1.2 ms, max 2.0 s
  queue       -
  connections 0 open, 0 accepted
  listener    http://127.0.0.1:8000, 1 of 2048 waiting
  traffic     0 B received, 34 MiB sent
  errors      2 exceptions, 1 refused (bad-host)
  processes   none
";
    assert_eq!(shown, expected);
    let painted = stats(&example(), std::path::Path::new("/x"), Paint::Ansi);
    assert!(painted.contains("\x1b[31m2 exceptions"), "{painted}");
}

#[test]
fn stacks_stand_below_their_worker() {
    let stack = Stack {
        app: "shop".into(),
        generation: 3,
        slot: 2,
        pid: 4713,
        state: "running".into(),
        request: Some("GET /slow".into()),
        request_age_seconds: Some(2.5),
        stack: "Thread 0x1 (most recent call first):\n  File \"a\x1b.py\", line 1 in f\n".into(),
        error: Some("cut".into()),
    };
    let reply = Trace {
        stacks: vec![stack],
    };
    assert_eq!(
        trace(&reply, Paint::None),
        "worker 2 [shop gen 3] process 4713, running, GET /slow for 2.5 s\n\
         \u{20} Thread 0x1 (most recent call first):\n\
         \u{20}   File \"a\\x1b.py\", line 1 in f\n\
         \u{20} cut\n"
    );
}

#[test]
fn a_refusal_becomes_an_exit_status() {
    use crate::ctl::{Error, Exit};
    for (kind, exit) in [
        (Kind::NoPermission, Exit::NoPermission),
        (Kind::TimedOut, Exit::TimedOut),
        (Kind::NoSuchApp, Exit::Failed),
        (Kind::Failed, Exit::Failed),
    ] {
        assert_eq!(Error::from(Refused::new(kind, "x")).exit, exit);
    }
}
