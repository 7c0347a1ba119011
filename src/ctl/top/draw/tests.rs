//! Frames as they are drawn on ratatui's `TestBackend`, compared with the files in `frames/`.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::control::stats::{
    Bucket, Generation, Listener, Memory, Pool, Relay, Reload, Request, Worker,
};
use crate::control::{Kind, Refused, Stack, Trace};
use crate::ctl::top::model::{Key, Model};

const UPDATE: &str = "RSWSGI_UPDATE_FRAMES";

fn frame(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        draw(model, Palette(Paint::Ansi), area, frame.buffer_mut());
    });
    drawn.unwrap();
    text(terminal.backend().buffer())
}

/// Compares with a committed file, or writes it.
#[track_caller]
fn assert_frame(name: &str, model: &Model, width: u16, height: u16) {
    let shown = frame(model, width, height);
    let inside = "src/ctl/top/frames";
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(inside)
        .join(format!("{name}.txt"));
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shown == expected,
        "{inside}/{name}.txt:\n{expected}\nis now drawn as:\n{shown}\n\
         if that is right: {UPDATE}=1 cargo test --lib frames"
    );
}

fn request(method: &str, path: &str, age: f64, peer: Option<&str>) -> Option<Request> {
    Some(Request {
        method: method.into(),
        path: path.into(),
        age_seconds: age,
        peer: peer.map(str::to_owned),
    })
}

fn worker(slot: u32, state: &str, request: Option<Request>) -> Worker {
    Worker {
        slot,
        pid: 4720 + slot as i32,
        generation: 3,
        state: state.into(),
        age_seconds: 3700.0 + f64::from(slot),
        requests: 1000 * u64::from(slot) * u64::from(slot),
        connections: slot,
        request,
        pss_bytes: Some((20 + u64::from(slot)) << 20),
        uss_bytes: Some(9 << 20),
        ..Worker::default()
    }
}

fn app() -> App {
    let generation = Generation {
        number: 3,
        stage: "serving".into(),
        pid: 4710,
        age_seconds: 3700.0,
        python: "3.12.3".into(),
        workers: 6,
    };
    let mut app = App {
        name: "shop".into(),
        target: "shop.wsgi:application".into(),
        status: "serving".into(),
        generation: Some(generation.clone()),
        generations: vec![generation],
        reload: Some(Reload {
            result: "ok".into(),
            age_seconds: 3700.0,
            took_seconds: 1.3,
            generation: Some(3),
            ..Reload::default()
        }),
        pool: Pool {
            min: 4,
            max: 16,
            target: 6,
            starting: 1,
            idle: 2,
            busy: 3,
            draining: 0,
        },
        listeners: vec![Listener {
            name: "http://127.0.0.1:8000".into(),
            backlog: Some(3),
            backlog_limit: Some(2048),
        }],
        memory: Some(Memory {
            pss_bytes: 123 << 20,
            ..Memory::default()
        }),
        relay: Relay {
            taken: 4321,
            ..Relay::default()
        },
        workers: vec![
            worker(0, "idle", None),
            worker(
                1,
                "running",
                request("GET", "/cart?item=7", 0.034, Some("192.0.2.1:5000")),
            ),
            worker(
                2,
                "running",
                request("POST", "/report/yearly", 62.0, Some("192.0.2.77:41000")),
            ),
            worker(3, "idle", None),
            worker(4, "writing", request("GET", "/feed", 2.5, None)),
            worker(5, "starting", None),
        ],
        ..App::default()
    };
    app.requests.total = 123_456;
    app.requests.status_5xx = 3;
    app.requests.status_4xx = 1234;
    app.requests.in_flight = 3;
    app.errors.exceptions = 3;
    app.rates.per_second_1s = 61.0;
    app.rates.per_second_1m = 35.2;
    app.rates.per_second_5m = 8.4;
    app.rates.last_minute = (0..60)
        .map(|second| second % 20 * 3 + second / 10)
        .collect();
    app.latency.max_seconds = Some(3.1);
    app.latency.buckets = buckets(900, 100);
    app
}

fn buckets(fast: u64, slow: u64) -> Vec<Bucket> {
    let bucket = |below, count| Bucket {
        below_seconds: Some(below),
        count,
    };
    vec![bucket(0.001, fast), bucket(0.02, slow)]
}

fn stats(time: f64, apps: Vec<App>) -> Stats {
    let mut stats = Stats {
        time_seconds: 1_700_000_000.0 + time,
        apps,
        ..Stats::default()
    };
    stats.server.version = "0.1.0".into();
    stats.server.pid = 4700;
    stats.server.state = "serving".into();
    stats.server.uptime_seconds = 12_000.0;
    stats
}

/// After some looks, a second apart.
fn seen() -> Model {
    let mut model = Model::new("/run/rswsgi/shop.control".into());
    model.look(stats(0.0, vec![app()]));
    for second in 1..30 {
        let mut app = app();
        let slow = 100 + second * second;
        app.latency.buckets = buckets(900 + 100 * second, slow);
        for worker in &mut app.workers {
            worker.requests += second * u64::from(worker.slot);
        }
        model.look(stats(second as f64, vec![app]));
    }
    model
}

#[test]
fn frames_of_every_size() {
    let model = seen();
    for (width, height) in [(20, 5), (40, 12), (80, 24), (120, 40)] {
        assert_frame(&format!("overview-{width}x{height}"), &model, width, height);
    }
}

#[test]
fn frames_of_any_other_size_are_no_panic() {
    let (mut model, empty) = (seen(), Model::new("/x".into()));
    for page in 0..3 {
        for width in (0..24).chain([60, 71, 72, 73, 75, 76, 77, 300]) {
            for height in (0..20).chain([23, 24, 39, 40, 100]) {
                frame(&model, width, height);
                frame(&empty, width, height);
            }
        }
        match page {
            0 => drop(model.key(Key::Char('?'))),
            _ => {
                model.key(Key::Escape);
                model.key(Key::Enter);
            }
        }
    }
}

#[test]
fn frames_of_the_first_look() {
    let mut model = Model::new("/run/rswsgi/shop.control".into());
    assert_frame("nothing-yet", &model, 60, 10);
    model.look(stats(0.0, vec![]));
    assert_frame("no-app", &model, 60, 10);
    let mut starting = app();
    starting.generation = None;
    starting.workers.clear();
    starting.pool = Pool::default();
    starting.reload = None;
    starting.memory = None;
    starting.latency.buckets.clear();
    model.look(stats(1.0, vec![starting.clone()]));
    assert_frame("not-serving", &model, 80, 16);
    starting.generations.clear();
    starting.state = "at rest".into();
    model.look(stats(2.0, vec![starting]));
    assert_frame("at-rest", &model, 80, 16);
}

#[test]
fn frames_tell_what_is_not_as_it_should_be() {
    let mut model = seen();
    model.lost("cannot connect to /run/x.control: nobody listens there".into());
    assert_frame("lost", &model, 80, 12);
    assert_frame("lost-20x5", &model, 20, 5);
    let mut broken = app();
    broken.reload = Some(Reload {
        result: "failed".into(),
        age_seconds: 5.0,
        took_seconds: 0.4,
        error: Some("cannot import shop.wsgi: SyntaxError: invalid syntax".into()),
        ..Reload::default()
    });
    let mut other = app();
    other.name = "blog".into();
    model.look(stats(40.0, vec![broken, other]));
    model.key(Key::Char('p'));
    assert_frame("failed-reload-paused-two-apps", &model, 80, 16);
}

#[test]
fn frames_of_a_selection_that_is_scrolled_to() {
    let mut model = seen();
    for key in [Key::Char('s'), Key::Char('r'), Key::Down, Key::End, Key::Up] {
        model.key(key);
    }
    assert_frame("selected", &model, 80, 10);
}

/// What a client or an app can put into names must not leave its place, nor be obeyed.
#[test]
fn frames_with_hostile_texts() {
    let mut app = app();
    let hostile =
        "/\x1b[2J\x1b]0;owned\x07\r\n\u{202e}txt\u{0}\u{85}漢字漢字漢字漢字漢字漢字漢字漢字";
    for worker in &mut app.workers {
        if let Some(request) = &mut worker.request {
            request.path = hostile.repeat(3);
            request.peer = Some("\x1b[31mpeer\n".into());
        }
    }
    app.workers[0].state = "id\x1b[31mle".into();
    app.name = "sh\nop漢".into();
    app.target = "\x1b[2J".into();
    app.listeners[0].name = "unix:/run/\x1b[H漢字.sock".into();
    let mut model = Model::new("/run/\x1b[H.control".into());
    model.look(stats(0.0, vec![app]));
    for (width, height) in [(20, 5), (80, 20), (100, 24)] {
        let shown = frame(&model, width, height);
        let allowed = |c: char| c == '\n' || !c.is_control();
        assert!(shown.chars().all(allowed), "{shown:?}");
        assert!(
            shown.lines().all(|line| line.width() <= usize::from(width)),
            "{shown}"
        );
        assert_frame(&format!("hostile-{width}x{height}"), &model, width, height);
    }
}

fn traced() -> Trace {
    let call = |at| format!("  File \"/srv/shop/views.py\", line {at} in f\x1b{at}\n");
    let calls: String = (1..40).map(call).collect();
    let stack = Stack {
        app: "shop".into(),
        generation: 3,
        slot: 2,
        pid: 4722,
        state: "running".into(),
        request: Some("POST /report/yearly".into()),
        request_age_seconds: Some(62.0),
        stack: format!("Current thread 0x00007f (most recent call first):\n{calls}"),
        error: None,
    };
    Trace {
        stacks: vec![stack],
    }
}

#[test]
fn frames_of_a_stack() {
    let mut model = seen();
    model.key(Key::Enter);
    assert_frame("stack-waiting", &model, 60, 6);
    model.traced(2, Ok(traced()));
    assert_frame("stack", &model, 70, 16);
    model.visible = 14;
    model.key(Key::End);
    assert_frame("stack-end", &model, 70, 16);
    model.key(Key::Char('r'));
    model.traced(
        2,
        Err(Refused::new(Kind::NoSuchWorker, "there is no worker 2")),
    );
    model.lost("gone".into());
    assert_frame("stack-failed", &model, 70, 6);
}

#[test]
fn frames_of_the_help() {
    let mut model = seen();
    model.key(Key::Char('?'));
    assert_frame("help", &model, 80, 14);
    assert_frame("help-20x5", &model, 20, 5);
}

#[test]
fn texts_are_cut_by_cells() {
    assert_eq!(cut("漢字漢字", 8), "漢字漢字");
    assert_eq!(cut("漢字漢字", 7), "漢字漢…");
    assert_eq!(cut("漢字漢字", 6), "漢字…");
    assert_eq!(cut("abc", 1), "…");
    assert_eq!(cut("abc", 0), "");
    let texts = ["name", "much too long", "", "ok"].map(str::to_owned);
    assert_eq!(fit(&texts, 12), "name  ok");
    assert_eq!(fit(&texts, 3), "na…");
}
