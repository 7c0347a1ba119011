//! Applications that fail: the client gets an answer, and the connection stays in step.

use super::{one, ours, with};
use crate::support::Server;
use crate::support::was_client::*;

#[test]
fn an_exception_before_anything_is_500() {
    if !ours() {
        return;
    }
    let (mut server, _multi, mut client) = one();
    server.expect_error("the application failed");
    server.expect_error("RuntimeError");
    for path in ["/fail", "/fail-after-start"] {
        let answer = client.get(path);
        answer.assert_status(500);
        assert_eq!(answer.end, End::Complete);
        client.ask(Asking::head(path)).assert_status(500);
    }
    server.log.wait_for("RuntimeError: after start_response");
    client.get("/hello").assert_status(200);
}

#[test]
fn an_exception_after_a_block_is_premature_and_the_connection_goes_on() {
    if !ours() {
        return;
    }
    let (mut server, _multi, mut client) = one();
    server.expect_error("the application failed");
    server.expect_error("RuntimeError");
    let answer = client.get("/fail-after-block");
    assert_eq!(
        (answer.end, answer.text()),
        (End::Premature(5), "first".into())
    );
    server.notes.expect("closed");
    client.get("/hello").assert_status(200);
}

#[test]
fn a_wrong_length_is_found() {
    if !ours() {
        return;
    }
    let (mut server, _multi, mut client) = one();
    server.expect_error("the application gave");
    let answer = client.get("/too-few");
    assert_eq!(
        (answer.end, answer.text()),
        (End::Premature(5), "12345".into())
    );
    let answer = client.get("/too-many");
    assert_eq!((answer.end, answer.text()), (End::Complete, "12345".into()));
    client.get("/hello").assert_status(200);
}

#[test]
fn a_file_that_shrinks_is_premature() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    let served = server.dir().join("served");
    std::fs::write(&served, vec![b'x'; 2_000_000]).expect("write a file");
    client.send(Asking::get("/file").bytes());
    client.read_some(10);
    let file = std::fs::File::options()
        .write(true)
        .open(&served)
        .expect("open a file");
    file.set_len(1_000_000).expect("shorten a file");
    // The pipe has to be emptied for the rest to be missed.
    let mut read = 10;
    loop {
        match client.next_packet().expect("a packet") {
            (PREMATURE, payload) => {
                let sent = u64::from_ne_bytes(payload.try_into().expect("eight bytes"));
                assert!((read..=1_000_000).contains(&sent), "{sent}");
                client.read_some(sent - read);
                break;
            }
            (LENGTH, _) => read += client.read_some(999_000).len() as u64,
            _ => {}
        }
    }
    client.assert_idle();
    client.get("/hello").assert_status(200);
}

#[test]
fn a_request_that_takes_too_long_is_504() {
    if !ours() {
        return;
    }
    let server = Server::new().arg("--request-timeout", "1s");
    let (mut server, _multi, mut client) = with(server);
    server.expect_error("the time of");
    server.expect_error("RequestTimeout");
    client.get("/sleep").assert_status(504);
    server.notes.expect("sleeping");
    server.notes.expect("woken");
    client.get("/hello").assert_status(200);
}

#[test]
fn a_crash_ends_its_connection_and_no_other() {
    if !ours() {
        return;
    }
    let (mut server, multi, mut client) = one();
    server.expect_error("worker");
    client.send(Asking::get("/crash").bytes());
    assert!(
        client.try_answer().is_none(),
        "nobody is left who could answer"
    );
    // All three channels, at once: a client must not wait for a request that nobody works on.
    client.expect_channels_closed();
    let mut other = multi.connect();
    other.get("/hello").assert_status(200);
}
