//! What applications do to the process they run in.

use super::{assert_serves_on, hostile, ours, worker};

#[test]
fn what_is_printed_to_closed_descriptors_reaches_no_client() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    server.get("/close-standard").assert_text("closed");
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/pid").assert_status(200);
    }
    server.get("/print-everywhere").assert_text("printed");
    server.get("/raise").assert_status(500); // the server's own words go to descriptor 2
    for mut client in clients {
        client.half_close();
        client.expect_end();
    }
}

#[test]
fn write_to_a_client_that_has_gone_is_no_failure_of_the_application() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let worker = worker(&server);
    let mut client = server.connect();
    client.send("GET /write-for-ever HTTP/1.1\r\nHost: test\r\n\r\n");
    client.raw(100_000);
    drop(client);
    server.notes.expect("ConnectionAbortedError");
    assert_serves_on(&server, worker);
    let finished = server.finish();
    finished.assert_says("client_aborts 1");
    assert_eq!(finished.count("exceptions"), 0);
}

#[test]
fn a_stuck_worker_that_takes_no_signals_is_said_to_take_none() {
    if !ours() {
        return;
    }
    let server = hostile()
        .arg("--request-timeout", "1s")
        .arg("--kill-timeout", "1s")
        .expect_error("is stuck in")
        .expect_error("killed by SIGKILL");
    let server = server.start();
    let mut client = server.connect();
    client.send("GET /block-signals HTTP/1.1\r\nHost: test\r\n\r\n");
    server.log.wait_for("(it has printed none before its end)");
    client.read_until_over();
    server.get("/pid").assert_status(200);
}
