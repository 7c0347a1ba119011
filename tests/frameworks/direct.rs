//! curl and Flask with nothing between them: what a proxy would smooth over.

use super::{MIB, assert_file, assert_rows, assert_same, noise, rows, venv, write};
use crate::support::{Curl, Running, Server};

fn flask() -> Option<(Running, Curl, Curl)> {
    flask_with(|server| server)
}

/// Flask on TCP and on a Unix socket, and a curl for each.
fn flask_with(set: impl FnOnce(Server) -> Server) -> Option<(Running, Curl, Curl)> {
    let venv = venv()?;
    let server = Server::new().tcp().unix().app("flask_site:app");
    let server = set(server.python(venv.join("bin/python3"))).start();
    let tcp = Curl::new(&server.addresses()[0], server.dir())?;
    let unix = Curl::new(&server.addresses()[1], server.dir())?;
    Some((server, tcp, unix))
}

#[test]
fn curl_keeps_its_connection() {
    let Some((_server, tcp, unix)) = flask() else {
        return;
    };
    for curl in [tcp, unix] {
        let (next, nothing) = (curl.url("/"), curl.url("/nothing"));
        let reply = curl.run(
            "/",
            [&*next, "-o", "/dev/null", &*nothing, "-o", "/dev/null"],
        );
        assert_eq!(reply.statuses, [200, 204, 200]);
        assert_eq!(reply.connects, 1, "one for all of them");
    }
}

#[test]
fn curl_sends_a_chunked_body() {
    let Some((server, tcp, unix)) = flask() else {
        return;
    };
    let bytes = noise(20 * MIB);
    let upload = server.dir().join("upload");
    write(&upload, &bytes);
    let received = server.dir().join("received");
    for curl in [tcp, unix] {
        let chunked = ["-H", "Transfer-Encoding: chunked", "--upload-file"];
        let chunked = chunked.map(std::ffi::OsStr::new);
        let told = curl.run("/raw", chunked.into_iter().chain([upload.as_os_str()]));
        assert_eq!(
            told.last.json(),
            serde_json::json!({"size": bytes.len(), "length": bytes.len(), "terminated": true})
        );
        assert_file(&received, &bytes);
        std::fs::remove_file(&received).expect("what was received");
    }
}

#[test]
fn curl_sends_a_chunked_form_and_chunked_json() {
    let Some((server, curl, _)) = flask() else {
        return;
    };
    let bytes = noise(3 * MIB);
    let upload = server.dir().join("upload");
    write(&upload, &bytes);
    let file = format!("file=@{}", upload.display());
    let form = [
        "-H",
        "Transfer-Encoding: chunked",
        "-F",
        "note=x",
        "-F",
        &*file,
    ];
    assert_eq!(curl.run("/form", form).last.json()["note"], "x");
    assert_file(&server.dir().join("received"), &bytes);

    write(&upload, rows(20_000).to_string().as_bytes());
    let data = format!("@{}", upload.display());
    let json = ["-H", "Transfer-Encoding: chunked", "--json", &*data];
    assert_rows(&curl.run("/json", json).last.json(), 20_000);
}

#[test]
fn curl_waits_for_100_continue() {
    let Some((server, tcp, unix)) = flask() else {
        return;
    };
    let upload = server.dir().join("upload");
    write(&upload, &noise(2 * MIB));
    let data = format!("@{}", upload.display());
    // Longer than curl may take at all: without the interim response this would fail.
    let wait = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"];
    for curl in [tcp, unix] {
        let reply = curl.run("/raw", wait.into_iter().chain(["--data-binary", &*data]));
        assert_eq!(reply.statuses, [100, 200]);
        assert_eq!(reply.last.json()["size"], 2 * MIB);
    }
    assert_file(&server.dir().join("received"), &noise(2 * MIB));
}

#[test]
fn a_body_that_is_refused_is_never_sent() {
    let limited = |server: Server| server.arg("--max-body", "1m");
    let Some((server, tcp, unix)) = flask_with(limited) else {
        return;
    };
    let upload = server.dir().join("upload");
    write(&upload, &noise(2 * MIB));
    let data = format!("@{}", upload.display());
    let wait = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"];
    for curl in [tcp, unix] {
        let reply = curl.run("/raw", wait.into_iter().chain(["--data-binary", &*data]));
        assert_eq!((reply.statuses, reply.uploaded), (vec![413], 0));
    }
    assert!(
        !server.dir().join("received").exists(),
        "no view was called"
    );
}

#[test]
fn curl_downloads_in_every_way() {
    let Some((server, tcp, unix)) = flask() else {
        return;
    };
    let bytes = noise(20 * MIB);
    write(&server.dir().join("sent"), &bytes);
    for curl in [tcp, unix] {
        let streamed = curl.get("/stream");
        assert_eq!(streamed.field("Transfer-Encoding"), Some("chunked"));
        assert_same(&streamed.body, &bytes, "streamed");
        let old = curl.run("/stream", ["--http1.0"]).last;
        assert_eq!(old.field("Transfer-Encoding"), None);
        assert_same(&old.body, &bytes, "streamed to HTTP/1.0");
        let file = curl.get("/file");
        assert_eq!(file.field("Content-Length"), Some("20971520"));
        assert_same(&file.body, &bytes, "a file");
        let slow = curl.run("/file", ["--limit-rate", "20m"]).last;
        assert_same(&slow.body, &bytes, "a file for a slow client");
        let range = curl.run("/file", ["--range", "5000000-15000000"]).last;
        assert_same(
            &range.assert_status(206).body,
            &bytes[5_000_000..=15_000_000],
            "a range",
        );
        // A body behind the head of the first would be taken for the head of the second.
        let first = curl.url("/file");
        let heads = curl.run("/file", ["--head", &*first, "-o", "/dev/null"]);
        assert_eq!((heads.statuses, heads.connects), (vec![200, 200], 1));
        assert_eq!(heads.last.field("Content-Length"), Some("20971520"));
    }
}
