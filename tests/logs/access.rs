//! What stands in a line.

use super::{logged, ours, wait_lines};
use crate::support::{Server, wait_until};

#[test]
fn a_line_tells_who_asked_what_and_what_came_of_it() {
    if !ours() {
        return;
    }
    let server = logged().start();
    let mut client = server.connect();
    client.send(
        "GET /hello?a=b HTTP/1.1\r\nHost: test\r\nReferer: http://x/\r\nUser-Agent: me\r\n\
         X-Request-ID: mine-1\r\n\r\n",
    );
    client.response().assert_status(200);
    let pid = server.workers()[0].number;
    let line = &wait_lines(&server, 1)[0];
    for (key, value) in [
        ("method", "GET"),
        ("path", "/hello"),
        ("query", "a=b"),
        ("protocol", "HTTP/1.1"),
        ("peer", "127.0.0.1"),
        ("referer", "http://x/"),
        ("user_agent", "me"),
        ("id", "mine-1"),
        ("outcome", "complete"),
        ("app", "logged"),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    for (key, value) in [
        ("status", 200),
        ("bytes", 6),
        ("generation", 1),
        ("worker", 0),
        ("pid", pid),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    let time = |key: &str| line[key].as_f64().expect("a number");
    assert!(time("total_ms") >= time("app_ms") && time("app_ms") > 0.0);
}

#[test]
fn the_application_knows_the_id_of_the_line() {
    if !ours() {
        return;
    }
    let server = logged().start();
    let made = server.get("/id").text();
    assert_eq!(made.len(), 32, "{made:?}");
    let mut client = server.connect();
    client.send("GET /id HTTP/1.1\r\nHost: test\r\nX-Request-ID: a\"b\r\n\r\n");
    let replaced = client.response().text();
    assert_ne!(replaced, "a\"b");
    let lines = wait_lines(&server, 2);
    assert_eq!(lines[0]["id"], made.as_str());
    assert_eq!(lines[1]["id"], replaced.as_str());
    assert_ne!(made, replaced);
}

#[test]
fn hostile_values_stay_values() {
    if !ours() {
        return;
    }
    let server = logged().start();
    let mut client = server.connect();
    let mut request =
        b"GET /hello?\"x HTTP/1.1\r\nHost: test\r\nUser-Agent: \"\\x\", \xe4\xff\r\n".to_vec();
    request.extend_from_slice(b"Referer: {\"status\":999}\r\n\r\n");
    client.send(request);
    client.response().assert_status(200);
    let lines = wait_lines(&server, 1);
    assert_eq!(lines[0]["user_agent"], "\"\\x\", \u{fffd}\u{fffd}");
    assert_eq!(lines[0]["referer"], "{\"status\":999}");
    assert_eq!(lines[0]["status"], 200);
}

#[test]
fn a_format_of_ones_own_names_headers_of_both_sides() {
    if !ours() {
        return;
    }
    let format =
        r#"%(m)s %(s)s %(b)s "%({x-asked}i)s" "%({x-answer}o)s" %(generation)s/%(worker)s"#;
    let server = Server::new()
        .app("logged")
        .arg("--access-log", "access.log");
    let server = server.arg("--access-log-format", format).start();
    let mut client = server.connect();
    client.send("GET /hello HTTP/1.1\r\nHost: test\r\nX-Asked: yes\r\n\r\n");
    client.response().assert_status(200);
    client.get("/pid").assert_status(200);
    let text = wait_until("both lines", || {
        let text = server.file("access.log");
        (text.lines().count() == 2).then_some(text)
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], r#"GET 200 6 "yes" "a \x22quoted\x22 one" 1/0"#);
    assert!(lines[1].starts_with("GET 200 ") && lines[1].ends_with(r#""-" "-" 1/0"#));
}

#[test]
fn requests_in_one_piece_have_a_line_each() {
    if !ours() {
        return;
    }
    let server = logged().start();
    let mut client = server.connect();
    let requests: String = (0..20)
        .map(|n| format!("GET /hello?{n} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    client.send(requests);
    (0..20).for_each(|_| drop(client.response()));
    let lines = wait_lines(&server, 20);
    let queries: Vec<_> = lines.iter().map(|line| line["query"].as_str()).collect();
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(
        queries,
        expected
            .iter()
            .map(|n| Some(n.as_str()))
            .collect::<Vec<_>>()
    );
}

#[test]
fn without_an_access_log_there_is_no_id_and_no_line() {
    if !ours() {
        return;
    }
    let server = Server::new().app("logged").start();
    server.get("/id").assert_text("none");
    let finished = server.finish();
    assert_eq!(finished.count("GET /id"), 0);
    assert_eq!(finished.stdout, "");
}

#[test]
fn a_dash_is_standard_output() {
    if !ours() {
        return;
    }
    let server = Server::new().app("logged").arg("--access-log", "-").start();
    server.get("/hello").assert_status(200);
    server.stdout.wait_for("\"GET /hello HTTP/1.1\" 200 6");
}
