//! What the server is started with and by whom.

use super::{assert_serves_on, hostile, ours, worker};
use crate::support::Server;
use crate::support::python;

/// A program that changes something about itself and becomes the server.
fn become_by_python(server: Server, script: &str) -> Server {
    let path = python::default().path;
    let path = path.to_str().expect("a path in UTF-8");
    let script = format!("import os, signal, sys\n{script}");
    server.under([path, "-c", &script])
}

#[test]
fn a_variable_whose_name_begins_with_an_equals_sign_does_no_harm() {
    if !ours() {
        return;
    }
    let script = "os.execve(sys.argv[1], sys.argv[1:], {**os.environ, '=A': 'b'})";
    let server = become_by_python(hostile(), script).start();
    let worker = worker(&server);
    assert_serves_on(&server, worker);
}

#[test]
fn a_server_started_with_term_blocked_still_stops() {
    if !ours() {
        return;
    }
    let script = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
                  os.execv(sys.argv[1], sys.argv[1:])";
    let server = become_by_python(hostile(), script).start();
    let worker = worker(&server);
    assert_serves_on(&server, worker);
    server.finish().assert_status(0);
}

#[test]
fn a_master_killed_before_it_is_ready_is_no_error_in_the_configuration() {
    if !ours() {
        return;
    }
    for signal in ["SIGKILL", "SIGSEGV"] {
        let text = format!("import os, signal\nos.kill(os.getpid(), signal.{signal})\n");
        let finished = Server::new().file("dies.py", &text).app("dies").run();
        assert!(
            matches!(finished.status.code(), Some(1 | 71)),
            "{signal}: {}\n{}",
            finished.status,
            finished.stderr
        );
        finished.assert_says(signal);
    }
}

#[test]
fn many_large_variables_reach_the_application() {
    if !ours() {
        return;
    }
    let text = "import os\ndef application(environ, start_response):\n    \
                start_response('200 OK', [])\n    \
                return [b'%d' % sum(len(v) for k, v in os.environ.items() if k.startswith('LARGE_'))]\n";
    let mut server = Server::new().file("large.py", text).app("large");
    for number in 0..40 {
        server = server.arg("--env", format!("LARGE_{number}={}", "x".repeat(4096)));
    }
    let server = server.start();
    server.get("/").assert_text(&(40 * 4096).to_string());
}

#[test]
fn an_empty_host_leaves_no_empty_server_name() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").tcp().unix().start();
    for listener in [0, 1] {
        let mut client = server.connect_to(listener);
        client.send("GET /environ HTTP/1.1\r\nHost:\r\n\r\n");
        let environ = client.response().json();
        for name in ["SERVER_NAME", "SERVER_PORT"] {
            // PEP 3333: they "can never be empty strings".
            let value = environ[name].as_str().unwrap_or_default();
            assert!(
                !value.is_empty(),
                "{name} on listener {listener}: {environ}"
            );
        }
    }
}

#[test]
fn a_directory_for_bodies_that_is_not_there_is_found_out_at_the_start() {
    if !ours() {
        return;
    }
    let finished = hostile().arg("--temp-dir", "missing").run();
    finished.assert_status(78);
    finished.assert_says("missing: no such file or directory");
    finished.assert_says("--temp-dir");
}

#[test]
fn without_a_directory_for_bodies_small_ones_are_served() {
    if !ours() {
        return;
    }
    let notice = "cannot keep request bodies in /nonexistent";
    let server = hostile().env("TMPDIR", "/nonexistent").expect_error(notice);
    let server = server.start();
    server.log.wait_for(notice);
    let mut client = server.connect();
    client.post("/pid", b"small").assert_status(200);
}
