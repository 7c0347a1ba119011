//! Which server is asked when nobody says so, and waiting for one that is not there yet.

use super::ours;
use crate::support::ctl::{command, stranger};
use crate::support::{Answer, FakeServer, Said, Scratch, Server, ctl, skip};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

fn silent(_: &rswsgi::control::Request) -> Answer {
    Answer::Silence
}

#[test]
fn several_servers_are_listed_and_one_is_to_be_chosen() {
    if stranger().is_some() {
        return skip("a server of somebody else would be found, too");
    }
    let dir = Scratch::new();
    let shop = FakeServer::with_app(&dir.file("shop.control"), "shop", silent);
    let blog = FakeServer::with_app(&dir.file("blog.control"), "blog", silent);
    drop(UnixListener::bind(dir.file("old.control")).expect("bind a socket"));
    std::fs::write(dir.file("text.control"), "no socket").expect("write a file");

    let said = ctl(dir.path(), &["list"]).ended(0);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{said:?}");
    assert!(
        lines[1].contains("blog.control") && lines[1].ends_with("blog"),
        "{said:?}"
    );
    assert!(
        lines[2].contains("shop.control") && lines[2].contains("4711"),
        "{said:?}"
    );
    let said = said.complains(&["skipped", "old.control: nobody listens there"]);
    assert!(!said.err.contains("text.control"), "{said:?}");

    let json = ctl(dir.path(), &["list", "--json"]).done().json();
    assert_eq!(json["servers"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["servers"][0]["apps"][0], "blog");
    assert_eq!(json["skipped"].as_array().map(Vec::len), Some(1));

    let said = ctl(dir.path(), &["ping"]).ended(2);
    let place = shop.path.display().to_string();
    said.complains(&["several servers", "--control", &place, "shop", "blog"]);
    ctl(dir.path(), &["ping", "--control", &place])
        .done()
        .shows(&["app shop"]);
    ctl(dir.path(), &["ping", "--app", "blog"])
        .ended(0)
        .shows(&["app blog"]);
    let by_variable = Said::of(command(dir.path(), &["ping"]).env("RSWSGI_CONTROL", &place));
    by_variable.done().shows(&["app shop"]);

    drop(blog);
    let said = ctl(dir.path(), &["ping"]).ended(0).shows(&["app shop"]);
    said.complains(&["skipped", "old.control"]);
}

#[test]
fn waiting_ends_when_the_server_answers_or_the_time_is_over() {
    let dir = Scratch::new();
    let path = dir.file("shop.control");
    let place = path.to_str().expect("a plain path");
    let words = ["--control", place, "wait", "--timeout"];
    let said = ctl(dir.path(), &[&words[..], &["150ms"]].concat()).ended(4);
    said.complains(&["gave up waiting", "it does not exist"]);
    let mut waiting = command(dir.path(), &[&words[..], &["30s"]].concat());
    let waiting = waiting
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let _server = FakeServer::with_app(&path, "shop", silent);
    let waiting = waiting.expect("start the program");
    let said = Said::at_the_end_of(waiting, "wait".into()).done();
    said.shows(&["process 4711 answers, after"]);
    // It answers, but it is not ready.
    let words = [&words[..], &["150ms", "--ready"]].concat();
    ctl(dir.path(), &words)
        .ended(4)
        .complains(&["gave up waiting"]);
}

/// A restart as a deployment does it: the old server ends, the new one takes its time to import.
#[test]
fn waiting_for_readiness_survives_a_restart() {
    if !ours() {
        return;
    }
    let text = "from talk import note, wait_at\nfrom basic import application\n\
                note('importing')\nwait_at('import')\n";
    let place = Scratch::new();
    let control = place.file("shop.control");
    let start = || {
        let server = Server::new().app("slow").arg("--control", &control);
        server.file("slow.py", text).spawn()
    };
    let control = control.to_str().expect("a plain path");
    let wait = |more: &[&str]| {
        let words = [
            &["--control", control, "--timeout", "30s", "wait"][..],
            more,
        ]
        .concat();
        let mut command = command(place.path(), &words);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.expect("start the program")
    };
    let mut first = start();
    let gate = first.gate("import");
    first.notes.expect("importing");
    // The socket is there before the application is.
    let said = Said::at_the_end_of(wait(&[]), "wait".into()).done();
    said.shows(&["answers"]);
    ctl(
        place.path(),
        &["--control", control, "--timeout", "1s", "wait", "--ready"],
    )
    .ended(4)
    .complains(&["does not serve"]);
    gate.open();
    Said::at_the_end_of(wait(&["--ready"]), "wait".into()).done();

    let old = first.supervisor().number;
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.wait_exit();
    let mut waiting = wait(&["--ready", "--json"]);
    let second = start();
    let gate = second.gate("import");
    second.notes.expect("importing");
    assert!(
        waiting.try_wait().expect("our own child").is_none(),
        "not ready yet"
    );
    gate.open();
    let said = Said::at_the_end_of(waiting, "wait".into()).done();
    assert_eq!(said.json()["ok"], true);
    let pid = said.json()["server"]["pid"].as_i64();
    assert_eq!(pid, Some(second.supervisor().number.into()));
    assert_ne!(pid, Some(old.into()));
}
