//! The answers that the server itself gives.

use super::ours;
use crate::support::{Response, Running, Server, wait_until};

fn server() -> Server {
    Server::new()
        .app("logged")
        .expect_error("provoked")
        .expect_error("error: ")
}

#[track_caller]
fn ask(server: &Running, path: &str, fields: &str) -> Response {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.response()
}

#[test]
fn the_form_is_the_one_the_client_asks_for() {
    if !ours() {
        return;
    }
    let server = server().start();
    for (accept, kind, start) in [
        (
            "",
            "text/plain; charset=utf-8",
            "500 Internal Server Error\n",
        ),
        ("Accept: */*\r\n", "text/plain; charset=utf-8", "500 "),
        (
            "Accept: text/html,*/*;q=0.8\r\n",
            "text/html; charset=utf-8",
            "<!doctype html>",
        ),
        (
            "Accept: application/json\r\n",
            "application/problem+json",
            "{\"type\":",
        ),
    ] {
        let page = ask(&server, "/boom", accept);
        page.assert_status(500);
        assert_eq!(page.field("Content-Type"), Some(kind));
        assert!(page.text().starts_with(start), "{page:?}");
        assert!(!page.text().contains("provoked"), "{page:?}");
    }
    // One that never reached the application.
    let page = ask(&server, "/", "Bad : x\r\nAccept: application/json\r\n");
    page.assert_status(400);
    assert_eq!(page.json()["status"], 400);
}

#[test]
fn files_take_the_place_of_pages_and_are_read_again_on_reload() {
    if !ours() {
        return;
    }
    let server = server().arg("--error-pages", "pages");
    let directory = server.dir().join("pages");
    std::fs::create_dir(&directory).expect("make a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).expect("write a page");
    };
    write("500.html", "<p>sorry");
    write("4xx.json", "{\"mine\": true}");
    write("README", "not a page");
    let server = server.start();
    assert_eq!(
        ask(&server, "/boom", "Accept: text/html\r\n").text(),
        "<p>sorry"
    );
    assert_eq!(ask(&server, "/boom", "").text(), "<p>sorry");
    let page = ask(&server, "/", "Bad : x\r\nAccept: application/json\r\n");
    assert_eq!(page.json()["mine"], true);
    assert_eq!(
        ask(&server, "/boom", "Accept: text/plain\r\n").text(),
        "500 Internal Server Error\n"
    );
    write("500.html", "<p>very sorry");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    // The generation before may still take a connection.
    wait_until("the new page", || {
        (ask(&server, "/boom", "").text() == "<p>very sorry").then_some(())
    });
}

#[test]
fn pages_that_cannot_be_read_stop_the_start() {
    if !ours() {
        return;
    }
    let finished = server().arg("--error-pages", "none").run();
    finished
        .assert_status(78)
        .assert_says("cannot read --error-pages");
    let server = server().arg("--error-pages", ".");
    std::fs::write(server.dir().join("500.html"), vec![b'x'; 70_000]).expect("write a page");
    server
        .run()
        .assert_status(78)
        .assert_says("larger than 64k");
}
