//! Clients that do not play by the rules: they get an error, or nothing, and nobody else notices.

use super::ours;
use crate::support::control::path;
use crate::support::{Control, Random, Running, Server, wait_until};
use serde_json::json;
use std::time::{Duration, Instant};

fn basic() -> Running {
    Server::new().app("basic").start()
}

/// The server answers others, on the control socket and on its own, without delay.
#[track_caller]
fn assert_unimpressed(server: &Running) {
    let begun = Instant::now();
    Control::of(server, "basic").done(json!({"do": "ping"}));
    server.get("/hello").assert_status(200);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "took {took:?}");
}

#[test]
fn a_line_over_64_kib_is_refused() {
    if !ours() {
        return;
    }
    let server = basic();
    for length in [65 * 1024, 1 << 20] {
        let mut control = Control::of(&server, "basic");
        // The end may come before all of it is sent.
        let _ = control.try_send([b"{", vec![b' '; length].as_slice(), b"\n"].concat());
        assert_eq!(control.reply()["kind"], "too-long");
        assert_unimpressed(&server);
    }
    let mut control = Control::of(&server, "basic");
    let longest = format!("{{\"v\":1,\"do\":\"ping\"{}}}\n", " ".repeat(65_000));
    control.send(longest);
    assert_eq!(control.reply()["ok"], true);
}

#[test]
fn half_a_line_is_waited_for_but_not_for_ever() {
    if !ours() {
        return;
    }
    let server = basic();
    let mut control = Control::of(&server, "basic");
    control.send("{\"v\":1,");
    assert_unimpressed(&server);
    let begun = Instant::now();
    assert_eq!(control.reply()["kind"], "timed-out");
    assert!(begun.elapsed() > Duration::from_secs(8));
    assert_eq!(control.line(), "");
    let mut control = Control::of(&server, "basic");
    control.send("{\"v\":1,");
    control.send("\"do\":\"ping\"}\n");
    assert_eq!(control.reply()["ok"], true);
}

#[test]
fn one_that_never_reads_is_cut() {
    if !ours() {
        return;
    }
    let server = basic();
    let mut control = Control::of(&server, "basic");
    control.set_patience(Duration::from_millis(200));
    let flood = "{\"v\":1,\"do\":\"config\"}\n".repeat(1000);
    // More than all buffers hold: at some point nothing more is taken.
    let begun = Instant::now();
    while control.try_send(&flood).is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it takes everything"
        );
        assert_unimpressed(&server);
    }
    let resident = |pid: crate::support::Pid| {
        let text = pid.status("VmRSS").expect("it lives");
        let kib = text
            .split(' ')
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        kib.expect("a number")
    };
    assert!(
        resident(server.supervisor()) < 64 << 10,
        "it keeps everything"
    );
    wait_until("the client to be cut", || {
        control.set_patience(Duration::from_millis(100));
        let error = control.try_send("x").err()?;
        (error.kind() == std::io::ErrorKind::BrokenPipe).then_some(())
    });
    assert_unimpressed(&server);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    if !ours() {
        return;
    }
    let server = basic();
    let mut control = Control::of(&server, "basic");
    let line = "{\"v\":1,\"do\":\"ping\"}\n{\"v\":1,\"do\":\"x\"}\n";
    control.send(line.repeat(200));
    for _ in 0..200 {
        assert_eq!(control.reply()["ok"], true);
        assert_eq!(control.reply()["kind"], "unknown-verb");
    }
    // `printf '{...}' | nc`: the end of what is sent ends the request, too.
    control.send("{\"v\":1,\"do\":\"ping\"}");
    control.end();
    assert_eq!(control.reply()["ok"], true);
    assert_eq!(control.line(), "");
}

#[test]
fn two_hundred_connections_are_not_too_many() {
    if !ours() {
        return;
    }
    let server = basic();
    let mut all: Vec<_> = (0..200).map(|_| Control::of(&server, "basic")).collect();
    assert_unimpressed(&server);
    // Those that do nothing make room for others; the last ones are still there.
    let last = all.last_mut().expect("there are two hundred");
    last.done(json!({"do": "ping"}));
    assert_eq!(all[0].line(), "", "the first one had to go");
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.supervisor().number));
    assert!(open.expect("list descriptors").count() < 150);
    drop(all);
    assert_unimpressed(&server);
}

#[test]
fn random_and_truncated_requests_only_ever_give_an_error() {
    if !ours() {
        return;
    }
    let server = basic();
    let seeds = [
        "{\"v\":1,\"do\":\"stats\"}\n",
        "{\"v\":1,\"do\":\"trace\",\"worker\":0}\n",
        "{\"v\":1,\"do\":\"scale\",\"by\":0}\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}"); // shown when the test fails
    let mut random = Random::new(seed);
    for _ in 0..300 {
        let mut bytes = seeds[random.below(seeds.len())].as_bytes().to_vec();
        match random.below(4) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => {
                let length = 1 + random.below(300);
                bytes = random.bytes(length);
            }
            2 => {
                let at = random.below(bytes.len());
                bytes[at] = random.bytes(1)[0];
            }
            _ => {
                let at = random.below(bytes.len());
                bytes.insert(at, random.bytes(1)[0]);
            }
        }
        // One that happens to be another verb than these is left out.
        let text = String::from_utf8_lossy(&bytes);
        if ["stop", "reload"].iter().any(|verb| text.contains(verb)) {
            continue;
        }
        let mut control = Control::connect(&path(&server, "basic"));
        let _ = control.try_send(&bytes);
        control.end();
        let answer = String::from_utf8_lossy(&control.rest()).into_owned();
        let form = answer.is_empty() || answer.starts_with('{') || answer.starts_with("HTTP/1.1 ");
        assert!(form, "{text:?} gave {answer:?}");
    }
    assert_unimpressed(&server);
}

#[test]
fn statistics_in_a_tight_loop_disturb_nobody() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").workers(2).start();
    let workers = server.workers();
    let mut control = Control::of(&server, "basic");
    control.app();
    let before: Vec<_> = workers.iter().map(|worker| worker.run_time()).collect();
    for _ in 0..300 {
        control.app();
    }
    for (worker, before) in workers.iter().zip(before) {
        assert_eq!(worker.run_time(), before, "a worker was asked something");
    }
}
