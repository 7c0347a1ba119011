use super::*;
use crate::control::stats::Request;
use crate::control::{Kind, Stack};

fn worker(slot: u32, age: Option<f64>, requests: u64) -> Worker {
    Worker {
        slot,
        generation: 1,
        state: "idle".into(),
        requests,
        request: age.map(|age_seconds| Request {
            age_seconds,
            ..Request::default()
        }),
        ..Worker::default()
    }
}

fn stats(time: f64) -> Stats {
    let app = |name: &str, workers| App {
        name: name.into(),
        workers,
        ..App::default()
    };
    let shop = vec![
        worker(0, None, 9),
        worker(1, Some(1.0), 1),
        worker(2, Some(2.0), 5),
    ];
    Stats {
        time_seconds: time,
        apps: vec![app("shop", shop), app("blog", vec![worker(0, None, 0)])],
        ..Stats::default()
    }
}

fn model() -> Model {
    let mut model = Model::new("/run/x.control".into());
    model.look(stats(1.0));
    model
}

fn slots(model: &Model) -> Vec<u32> {
    model.workers().iter().map(|worker| worker.slot).collect()
}

#[test]
fn nothing_seen_yet_is_no_reason_to_fail() {
    let mut model = Model::new(String::new());
    for key in "sSrpaAhjkgG?x".chars() {
        assert_eq!(model.key(Key::Char(key)), None, "{key}");
    }
    for key in [
        Key::Enter,
        Key::Tab,
        Key::BackTab,
        Key::Up,
        Key::PageDown,
        Key::Escape,
    ] {
        assert_eq!(model.key(key), None, "{key:?}");
    }
    assert_eq!(model.key(Key::Char('q')), Some(Effect::Quit));
    assert_eq!(model.key(Key::Interrupt), Some(Effect::Quit));
}

#[test]
fn workers_are_sorted_as_asked() {
    let mut model = model();
    assert_eq!(slots(&model), [2, 1, 0]);
    model.key(Key::Char('s'));
    assert_eq!((model.sort, slots(&model)), (Sort::Slot, vec![0, 1, 2]));
    model.key(Key::Char('r'));
    assert_eq!(slots(&model), [2, 1, 0]);
    model.key(Key::Char('r'));
    for expected in [Sort::State, Sort::Rate, Sort::Requests] {
        model.key(Key::Char('s'));
        assert_eq!(model.sort, expected);
    }
    assert_eq!(slots(&model), [0, 2, 1]);
    model.key(Key::Char('S'));
    assert_eq!(model.sort, Sort::Rate);
}

#[test]
fn the_selection_stays_on_its_worker() {
    let mut model = model();
    let row = |model: &Model| model.row(&model.workers());
    assert_eq!(row(&model), None);
    model.key(Key::Down);
    assert_eq!(row(&model), Some(0));
    model.key(Key::Down);
    assert_eq!(row(&model), Some(1));
    model.key(Key::Char('r'));
    assert_eq!((row(&model), slots(&model)[1]), (Some(1), 1));
    model.key(Key::End);
    assert_eq!(row(&model), Some(2));
    model.key(Key::PageUp);
    assert_eq!(row(&model), Some(0));
    let mut less = stats(2.0);
    less.apps[0].workers.remove(0);
    model.look(less);
    assert_eq!(row(&model), None);
    model.key(Key::Escape);
    assert!(model.key(Key::Enter).is_some());
}

#[test]
fn a_pause_keeps_what_is_shown() {
    let mut model = model();
    model.key(Key::Char('p'));
    model.lost("gone".into());
    model.look(stats(9.0));
    assert_eq!(model.stats.as_ref().unwrap().time_seconds, 1.0);
    assert_eq!(model.link, Link::Up);
    model.key(Key::Char(' '));
    model.look(stats(10.0));
    assert_eq!(model.stats.as_ref().unwrap().time_seconds, 10.0);
}

#[test]
fn apps_are_switched_in_a_circle_and_forgotten_when_they_go() {
    let mut model = model();
    let name = |model: &Model| model.current().unwrap().0.name.clone();
    assert_eq!(name(&model), "shop");
    model.key(Key::Tab);
    assert_eq!(name(&model), "blog");
    model.key(Key::Tab);
    assert_eq!(name(&model), "shop");
    model.key(Key::BackTab);
    assert_eq!(name(&model), "blog");
    let mut one = stats(2.0);
    one.apps.pop();
    model.look(one);
    assert_eq!(name(&model), "shop");
    assert_eq!(model.series.len(), 1);
}

fn traced(lines: usize) -> Trace {
    let stack = Stack {
        app: "shop".into(),
        generation: 1,
        slot: 2,
        pid: 1,
        state: "running".into(),
        request: None,
        request_age_seconds: None,
        stack: "x\n".repeat(lines),
        error: None,
    };
    Trace {
        stacks: vec![stack],
    }
}

#[test]
fn a_stack_is_asked_for_shown_scrolled_and_asked_for_again() {
    let mut model = model();
    let ask = Some(Effect::Trace {
        app: "shop".into(),
        slot: 2,
    });
    assert_eq!(model.key(Key::Enter), ask);
    assert_eq!(model.key(Key::Char('r')), None, "one question at a time");
    model.traced(1, Ok(traced(1)));
    let content = |model: &Model| match &model.page {
        Page::Stack(page) => match &page.content {
            Content::Lines(lines) => (lines.len(), page.scroll),
            _ => (0, page.scroll),
        },
        _ => panic!("another page"),
    };
    assert_eq!(content(&model), (0, 0), "of another worker");
    model.traced(2, Ok(traced(99)));
    model.visible = 10;
    for (key, line) in [
        (Key::Down, 1),
        (Key::PageDown, 10),
        (Key::End, 90),
        (Key::Down, 90),
        (Key::PageUp, 81),
        (Key::Home, 0),
    ] {
        assert_eq!(model.key(key), None);
        assert_eq!(content(&model), (100, line), "{key:?}");
    }
    assert_eq!(model.key(Key::Char('r')), ask);
    model.traced(2, Err(Refused::new(Kind::NoSuchWorker, "it is\ngone")));
    let Page::Stack(page) = &model.page else {
        panic!("another page");
    };
    assert_eq!(page.content, Content::Failed("it is\\ngone".into()));
    model.key(Key::Escape);
    assert_eq!(model.page, Page::Overview);
    model.traced(2, Ok(traced(1)));
    assert_eq!(model.page, Page::Overview);
}
