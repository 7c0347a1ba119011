//! Flask behind nginx over a Unix socket.

use super::{MIB, Site, accepted, assert_file, assert_rows, assert_same, noise, rows, venv, write};
use crate::support::client::Asked;
use crate::support::{Client, Server};

const UNBUFFERED: &str = "location = /raw {
    proxy_pass http://app;
    proxy_request_buffering off;
}";

fn flask(target: &str) -> Option<Site> {
    let venv = venv()?;
    let server = Server::new()
        .unix()
        .app(target)
        .workers(2)
        .python(venv.join("bin/python3"));
    // The traceback of the view that raises, and what Flask says about it.
    let server = server
        .expect_error("LookupError")
        .expect_error("ERROR in app");
    Site::new(server.start(), UNBUFFERED)
}

#[test]
fn flask_answers_through_nginx() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let curl = &site.curl;
    curl.get("/").assert_text("a page of Flask\n");
    site.assert_passed("GET", "/", 200);
    curl.get("/greet/J%C3%BCrgen%20%E2%98%83")
        .assert_text("hello, Jürgen ☃\n");
    let missing = curl.get("/not/here");
    assert_eq!(
        (missing.status, &*missing.text()),
        (404, "no /not/here here\n")
    );
    site.assert_passed("GET", "/not/here", 404);
    curl.get("/teapot").assert_status(418);
    let nothing = curl.get("/nothing");
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));

    let about = curl.run("/about?a=1&a=2&b=%C3%A9", ["-H", "Cookie: x=y; z=1"]);
    let about = about.last.json();
    assert_eq!(
        about["args"],
        serde_json::json!({"a": ["1", "2"], "b": ["é"]})
    );
    assert_eq!(
        about["cookies"],
        serde_json::json!({"x": ["y"], "z": ["1"]})
    );
    assert_eq!(about["client"], "127.0.0.1", "by X-Forwarded-For");
    assert_eq!(
        format!("http://{}", about["host"].as_str().unwrap_or("")),
        curl.url("")
    );
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    write(&site.path("sent"), &noise(3 * MIB));
    for path in ["/", "/file", "/stream", "/tagged", "/not/here"] {
        let get = site.curl.get(path);
        let head = site.curl.run(path, ["--head"]).last;
        assert_eq!(head.status, get.status, "{path}");
        for name in ["Content-Length", "Content-Type", "ETag", "Last-Modified"] {
            assert_eq!(head.field(name), get.field(name), "{name} of {path}");
        }
        site.assert_passed("HEAD", path, get.status);
    }
}

#[test]
fn a_view_that_raises_is_a_500_with_its_traceback_in_the_log() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    site.curl.get("/broken").assert_status(500);
    site.assert_passed("GET", "/broken", 500);
    site.server.log.wait_for("LookupError: a view that raises");
    site.curl.get("/").assert_text("a page of Flask\n");
}

#[test]
fn a_session_lives_in_the_cookies_of_curl() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    for visit in 1..=8 {
        site.curl.get("/visit").assert_text(&format!("{visit}\n"));
    }
    let left = site.curl.run("/leave", ["-L"]);
    assert_eq!(left.statuses, [302, 200]);
    left.last.assert_text("1\n");
    site.assert_passed("GET", "/leave", 302);
}

#[test]
fn nginx_keeps_its_connections_to_the_server() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    assert_eq!(accepted(site.server.address()), [""; 0]);
    site.curl.get("/").assert_status(200);
    let first = accepted(site.server.address());
    assert_eq!(first.len(), 1, "it stays open");
    let (statuses, _) = site.curl.many("/about?[1-100]", &[]);
    assert_eq!(statuses, [200; 100]);
    assert_eq!(
        accepted(site.server.address()),
        first,
        "one for all of them"
    );
}

#[test]
fn clients_at_the_same_time_are_all_answered() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let (statuses, mut bodies) =
        (site.curl).many("/where?[1-400]", &["--parallel", "--parallel-max", "24"]);
    assert_eq!(statuses, [200; 400]);
    bodies.sort();
    bodies.dedup();
    let mut workers: Vec<_> = (site.server.workers().iter())
        .map(|worker| format!("{}\n", worker.number))
        .collect();
    workers.sort();
    assert_eq!(bodies, workers, "both workers answered, and nobody else");
}

#[test]
fn a_large_json_body_is_read() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let body = rows(150_000).to_string();
    write(&site.path("body"), body.as_bytes());
    let data = format!("@{}", site.path("body").display());
    let json = ["--json", &*data];
    let reply = site.curl.run("/json", json);
    assert!(reply.uploaded > 4 * MIB as u64);
    assert_rows(&reply.last.assert_status(200).json(), 150_000);
    site.assert_passed("POST", "/json", 200);
}

#[test]
fn a_form_with_a_file_of_20_mb_arrives() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let bytes = noise(20 * MIB);
    write(&site.path("upload"), &bytes);
    let file = format!(
        "file=@{};filename=größe.bin;type=application/x-noise",
        site.path("upload").display()
    );
    let form = ["-F", "note=naïve ☃", "-F", &*file];
    let told = site.curl.run("/form", form).last.json();
    assert_eq!(
        told,
        serde_json::json!({"note": "naïve ☃", "name": "größe.bin", "type": "application/x-noise"})
    );
    assert_file(&site.path("received"), &bytes);
    site.assert_passed("POST", "/form", 200);
}

#[test]
fn a_chunked_body_passes_nginx_as_it_comes() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let bytes = noise(5 * MIB);
    write(&site.path("upload"), &bytes);
    let data = format!("@{}", site.path("upload").display());
    let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &*data];
    let told = site.curl.run("/raw", chunked).last.json();
    assert_eq!(
        told,
        serde_json::json!({"size": bytes.len(), "length": bytes.len(), "terminated": true})
    );
    assert_file(&site.path("received"), &bytes);
    site.assert_passed("POST", "/raw", 200);
}

#[test]
fn a_download_of_20_mb_is_streamed() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let bytes = noise(20 * MIB);
    write(&site.path("sent"), &bytes);
    let streamed = site.curl.get("/stream");
    assert_eq!(streamed.field("Content-Length"), None);
    assert_same(&streamed.body, &bytes, "streamed");
    site.assert_passed("GET", "/stream", 200);
    // A slow reader is nginx's business, and then the next one.
    let slow = site.curl.run("/stream", ["--limit-rate", "20m"]);
    assert_same(&slow.last.body, &bytes, "streamed to a slow client");
}

#[test]
fn blocks_pass_nginx_as_they_are_yielded() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let gate = site.server.gate("gate");
    let mut client = Client::try_connect(site.nginx.address()).expect("connect to nginx");
    client.send("GET /events HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.head(Asked::Plain);
    assert_eq!(
        head.field("Content-Type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert_eq!(client.chunk().as_deref(), Some(&b"data: first\n\n"[..]));
    gate.open();
    assert_eq!(client.chunk().as_deref(), Some(&b"data: second\n\n"[..]));
    assert_eq!(client.chunk(), None);
    site.assert_passed("GET", "/events", 200);
}

#[test]
fn a_file_is_sent_whole_in_ranges_and_resumed() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    let bytes = noise(8 * MIB + 1);
    write(&site.path("sent"), &bytes);
    let whole = site.curl.get("/file");
    assert_same(&whole.assert_status(200).body, &bytes, "whole");
    assert_eq!(whole.field("Content-Length"), Some("8388609"));

    let range = site.curl.run("/file", ["--range", "1000000-4999999"]).last;
    assert_same(
        &range.assert_status(206).body,
        &bytes[1_000_000..5_000_000],
        "a range",
    );
    assert_eq!(
        range.field("Content-Range"),
        Some("bytes 1000000-4999999/8388609")
    );
    let rest = site.curl.run("/file", ["--continue-at", "8388600"]).last;
    assert_same(
        &rest.assert_status(206).body,
        &bytes[8_388_600..],
        "the rest",
    );
    site.assert_passed("GET", "/file", 206);
    let beyond = site.curl.run("/file", ["--range", "9000000-9000001"]).last;
    beyond.assert_status(416);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let Some(site) = flask("flask_site:app") else {
        return;
    };
    write(&site.path("sent"), &noise(MIB));
    for path in ["/tagged", "/file"] {
        let first = site.curl.get(path);
        let tag = first.assert_status(200).field("ETag").expect("a tag");
        let again = [String::from("-H"), format!("If-None-Match: {tag}")];
        let again = site.curl.run(path, again).last;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.field("ETag"), Some(tag));
        site.assert_passed("GET", path, 304);
        let other = site.curl.run(path, ["-H", "If-None-Match: \"other\""]).last;
        assert_same(&other.assert_status(200).body, &first.body, path);
    }
}

#[test]
fn flask_is_valid_wsgi() {
    let Some(site) = flask("flask_site:validated") else {
        return;
    };
    let curl = &site.curl;
    write(&site.path("sent"), &noise(MIB));
    for path in ["/", "/about?a=1", "/nothing", "/visit", "/stream", "/file"] {
        assert!(curl.get(path).status < 300, "{path}");
        assert!(curl.run(path, ["--head"]).last.status < 300, "{path}");
    }
    let data = format!("@{}", site.path("sent").display());
    let file = format!("file={data}");
    let not_changed = curl.run("/tagged", ["-H", "If-None-Match: \"v1\""]);
    not_changed.last.assert_status(304);
    let form = curl.run("/form", ["-F", "note=x", "-F", &*file]);
    form.last.assert_status(200);
    let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &*data];
    let chunked = curl.run("/raw", chunked);
    chunked.last.assert_status(200);
    site.assert_passed("POST", "/raw", 200);
    site.assert_silent();
}
