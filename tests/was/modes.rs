//! How a server is started: single, Multi, Remote, or not by a WAS client at all.

use super::{multi, ours};
use crate::support::server::{Server, Standard};
use crate::support::was_client::*;
use crate::support::{MultiClient, WasClient, wait_until};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use std::os::fd::AsRawFd;

fn single(server: Server) -> (crate::support::Running, WasClient) {
    let (client, ends) = WasClient::pair();
    let standard = Standard {
        stdin: ends.input,
        output_and_control: Some((ends.output, ends.control)),
    };
    (server.standard(standard).start(), client)
}

#[test]
fn a_single_connection_is_served_until_its_end() {
    if !ours() {
        return;
    }
    let (mut server, mut client) = single(Server::new().app("was_app"));
    for _ in 0..3 {
        client.get("/hello").assert_text("hello\n");
        client
            .ask(Asking::post("/sums", &[b'x'; 100_000]))
            .assert_status(200);
    }
    client.get("/printing").assert_text("clean");
    server.log.wait_for("printed by a child");
    drop(client);
    assert!(server.wait_exit().success());
}

#[test]
fn a_single_connection_has_one_worker_and_the_standard_descriptors_are_free() {
    if !ours() {
        return;
    }
    let (server, mut client) = single(Server::new().app("was_app").default_workers());
    let targets = client.get("/descriptors").text();
    let targets: Vec<&str> = targets.lines().collect();
    assert_eq!(targets[0], "/dev/null");
    assert_eq!(targets[1], targets[2]);
    assert_eq!(server.crew().len(), 1);
    // Neither the supervisor nor the master has the pipes.
    let pipes = |pid: crate::support::Pid| {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.number)).expect("a process of ours");
        let targets = fds
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets
            .map(|path| path.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let upload = client.upload.as_ref().expect("the pipe is open");
    let name =
        std::fs::read_link(format!("/proc/self/fd/{}", upload.as_raw_fd())).expect("it is open");
    let name = name.to_string_lossy().into_owned();
    assert!(!pipes(server.supervisor()).contains(&name));
    assert!(!pipes(server.master()).contains(&name));
    assert!(pipes(server.crew()[0]).contains(&name));
}

#[test]
fn a_single_connection_that_breaks_the_rules_ends_the_server() {
    if !ours() {
        return;
    }
    let (mut server, mut client) = single(Server::new().app("was_app"));
    client.send(packet(DATA, b""));
    client.expect_closed();
    assert!(server.wait_exit().success());
}

#[test]
fn a_single_connection_is_not_served_twice() {
    if !ours() {
        return;
    }
    let (mut server, mut client) = single(Server::new().app("was_app"));
    server.expect_error("worker");
    server.expect_error("the WAS connection was lost");
    server.expect_status(1);
    client.send(Asking::get("/crash").bytes());
    client.expect_closed();
    assert_eq!(server.wait_exit().code(), Some(1));
}

#[test]
fn a_single_connection_finishes_its_request_on_term() {
    if !ours() {
        return;
    }
    let (mut server, mut client) = single(Server::new().app("was_app"));
    let gate = server.gate("gate");
    client.send(Asking::get("/slow-blocks").bytes());
    client.read_some(5);
    server.signal(Signal::SIGTERM);
    server.log.wait_for("finishing what runs");
    gate.open();
    let rest = client.answer_after(5);
    assert_eq!(rest.text(), "secondthird");
    client.expect_closed();
    assert!(server.wait_exit().success());
}

#[test]
fn a_reload_of_a_single_connection_is_refused() {
    if !ours() {
        return;
    }
    let (server, mut client) = single(Server::new().app("was_app"));
    client.get("/hello").assert_status(200);
    server.signal(Signal::SIGHUP);
    server
        .log
        .wait_for("not reloading: there is one WAS connection only");
    client.get("/hello").assert_status(200);
}

/// Another one would find that the connection has been taken.
#[test]
fn a_single_connection_keeps_its_worker() {
    if !ours() {
        return;
    }
    let (server, mut client) = single(Server::new().app("was_app"));
    client.get("/hello").assert_status(200);
    let crew = server.crew();
    let mut control = crate::support::control::Control::of(&server, "was_app");
    for request in [
        serde_json::json!({"do": "scale", "by": 1}),
        serde_json::json!({"do": "recycle"}),
    ] {
        let refused = control.refused(request, "unavailable");
        let text = refused["error"].as_str().expect("a reason");
        assert!(text.contains("one WAS connection only"), "{refused}");
    }
    server.signal(Signal::SIGTTIN);
    server
        .log
        .wait_for("not scaling: there is one WAS connection only");
    client.get("/hello").assert_status(200);
    assert_eq!(server.crew(), crew);
}

#[test]
fn python_was_flags_are_taken() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(
        Server::new()
            .arg("--sys-path", "first")
            .arg("--sys-path", "second")
            .arg("--module", "was_app")
            .arg("--app", "application")
            .arg("--host", "0.0.0.0")
            .arg("--port", "8000"),
    );
    multi.connect().get("/hello").assert_text("hello\n");
    drop(server);
}

#[test]
fn modules_and_objects_have_defaults() {
    if !ours() {
        return;
    }
    let app = |name: &str| {
        format!(
            "def {name}(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{name} of ' + __name__.encode()]\n"
        )
    };
    for (module, name) in [
        ("app", "app"),
        ("app", "application"),
        ("wsgi", "application"),
        ("wsgi", "app"),
    ] {
        let file = format!("{module}.py");
        let (_server, multi) = multi(Server::new().file(&file, &app(name)));
        let answer = multi.connect().get("/");
        answer.assert_text(&format!("{name} of {module}"));
    }
    // Both are there: python-was takes the first of these, we do where it is our own way of naming.
    let both = app("application") + &app("app");
    for (arguments, name) in [
        (None, "app"),
        (Some("--module"), "app"),
        (Some("target"), "application"),
    ] {
        let server = Server::new().file("app.py", &both);
        let server = match arguments {
            None => server,
            Some("target") => server.app("app"),
            Some(flag) => server.arg(flag, "app"),
        };
        let (_server, multi) = multi(server);
        let answer = multi.connect().get("/");
        answer.assert_text(&format!("{name} of app"));
    }
    let (_server, multi) = multi(
        Server::new()
            .file("app.py", &app("special"))
            .arg("--app", "special"),
    );
    multi.connect().get("/").assert_text("special of app");
}

#[test]
fn a_default_that_is_not_there_is_a_clear_error() {
    if !ours() {
        return;
    }
    let (_client, stdin) = MultiClient::pair();
    let standard = Standard {
        stdin,
        output_and_control: None,
    };
    let finished = Server::new().standard(standard).run();
    finished
        .assert_status(78)
        .assert_says("No module named 'app'");
}

#[test]
fn standard_input_that_is_no_client_is_a_clear_error() {
    if !ours() {
        return;
    }
    let finished = Server::new().app("was_app").bind("was:").run();
    finished
        .assert_status(64)
        .assert_says("standard input is no WAS connection");
}

#[test]
fn under_the_name_of_python_was_it_wants_a_client() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app").bind("127.0.0.1:0");
    let link = server.dir().join("python-was");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rswsgi"), &link).expect("make a link");
    let finished = server.program(&link).run();
    finished
        .assert_status(64)
        .assert_says("a WAS client has to start this program");
}

/// A terminal as a person has it: standard input and the rest, the controlling one of a new session.
fn type_at_terminal(name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let dir = crate::support::Scratch::new();
    let app = "def app(environ, start_response):\n    start_response('200 OK', [('X-Made', 'here')])\n    \
               return [environ['REQUEST_METHOD'].encode() + b' of the demo']\n";
    std::fs::write(dir.file("app.py"), app).expect("write into the test's directory");
    let program = dir.file(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rswsgi"), &program).expect("make a link");
    let terminal = nix::pty::openpty(None, None).expect("make a terminal");
    let side = || terminal.slave.try_clone().expect("copy a descriptor");
    let mut child = std::process::Command::new("setsid")
        .args(["--ctty", "--wait"])
        .arg(&program)
        .arg("--python")
        .arg(crate::support::python::default().path)
        .args(arguments)
        .current_dir(dir.path())
        .env("RSWSGI_MODULE", crate::support::module())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn()
        .expect("start rswsgi");
    drop(terminal.slave);
    let status = child.wait().expect("wait for rswsgi");
    let mut shown = Vec::new();
    // Its end is an error (EIO): nobody has it open any more.
    let _ = std::io::Read::read_to_end(&mut std::fs::File::from(terminal.master), &mut shown);
    (status.code(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_person_at_a_terminal_gets_a_demo() {
    if !ours() {
        return;
    }
    let python_was = ["--sys-path", ".", "--module", "app", "--app", "app"];
    for (name, arguments) in [
        ("rswsgi", &python_was[..]),
        ("python-was", &python_was),
        ("python-was", &[]),
        ("rswsgi", &["--bind", "was:"]),
    ] {
        let (status, shown) = type_at_terminal(name, arguments);
        assert_eq!(status, Some(0), "{shown}");
        for piece in [
            "no WAS client has started this",
            "give --bind HOST:PORT",
            "HTTP/1.1 200 OK\r\n",
            "X-Made: here\r\n",
            "GET of the demo\r\n",
        ] {
            assert!(shown.contains(piece), "{name} {arguments:?}: {shown}");
        }
    }
    let (status, shown) = type_at_terminal("rswsgi", &["--sys-path", ".", "--module", "absent"]);
    assert_eq!(status, Some(78), "{shown}");
    assert!(shown.contains("No module named 'absent'"), "{shown}");
}

#[test]
fn a_multi_client_that_leaves_ends_the_server() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(Server::new().app("was_app").workers(2));
    let mut client = multi.connect();
    let gate = server.gate("gate");
    client.send(Asking::get("/slow-blocks").bytes());
    client.read_some(5);
    drop(multi);
    server.log.wait_for("stopping: the WAS client is done");
    gate.open();
    assert_eq!(client.answer_after(5).text(), "secondthird");
    assert!(server.wait_exit().success());
}

#[test]
fn connections_go_to_whoever_is_free() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(Server::new().app("was_app").workers(3));
    let gates: Vec<_> = (0..3)
        .map(|number| server.gate(&format!("gate{number}")))
        .collect();
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = multi.connect();
        client.send(Asking::get(&format!("/meet?gate{number}")).bytes());
        server.notes.expect("arrived");
        clients.push(client);
    }
    let mut pids = Vec::new();
    for (gate, client) in gates.iter().zip(&mut clients) {
        gate.open();
        pids.push(client.answer().text());
    }
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 3, "all at the same time");
}

#[test]
fn the_pool_grows_with_the_connections_that_are_busy() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(Server::new().app("was_app").pool("1..4"));
    let gates: Vec<_> = (0..4)
        .map(|number| server.gate(&format!("gate{number}")))
        .collect();
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = multi.connect();
        client.send(Asking::get(&format!("/meet?gate{number}")).bytes());
        server.notes.expect("arrived");
        clients.push(client);
    }
    for (gate, client) in gates.iter().zip(&mut clients) {
        gate.open();
        client.answer().assert_status(200);
    }
}

#[test]
fn what_is_no_connection_closes_the_socket() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(Server::new().app("was_app"));
    server.expect_error("taking no more connections");
    let mut client = multi.connect();
    client.get("/hello").assert_status(200);
    multi.send(&packet(1, b""), &[0, 1]).expect("send");
    multi.wait_retired();
    drop(client);
    assert!(server.wait_exit().success());
}

#[test]
fn a_nop_on_the_multi_socket_is_nothing() {
    if !ours() {
        return;
    }
    let (_server, multi) = multi(Server::new().app("was_app"));
    multi.send(&packet(0, b""), &[]).expect("send");
    multi.send(&packet(0, b"xyz"), &[2]).expect("send");
    multi.connect().get("/hello").assert_status(200);
}

#[test]
fn a_planned_end_retires_the_socket_and_loses_no_request() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(Server::new().app("was_app"));
    let mut client = multi.connect();
    let gate = server.gate("gate");
    client.send(Asking::get("/slow-blocks").bytes());
    client.read_some(5);
    server.signal(Signal::SIGTERM);
    multi.wait_retired();
    gate.open();
    assert_eq!(client.answer_after(5).text(), "secondthird");
    assert!(server.wait_exit().success());
}

#[test]
fn a_socket_that_is_bound_takes_clients() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app").workers(2);
    let path = server.dir().join("was.sock");
    let mut server = server.bind(&format!("was:{}", path.display())).start();
    let clients = [MultiClient::remote(&path), MultiClient::remote(&path)];
    let mut connections: Vec<_> = clients
        .iter()
        .flat_map(|multi| (0..3).map(|_| multi.connect()))
        .collect();
    for client in &mut connections {
        client.get("/hello").assert_text("hello\n");
    }
    let [first, second] = clients;
    drop(first);
    second.connect().get("/hello").assert_status(200);
    drop(second);
    // It goes on without clients, and for connections that are left.
    connections[5].get("/hello").assert_status(200);
    let again = MultiClient::remote(&path);
    again.connect().get("/hello").assert_status(200);
    server.signal(Signal::SIGTERM);
    again.wait_retired();
    assert!(server.wait_exit().success());
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_passed_is_told_by_its_type() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app");
    let path = server.dir().join("own-was.sock");
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("make a socket");
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).expect("a short path")).expect("bind it");
    listen(&fd, Backlog::new(16).expect("a small number")).expect("listen");
    let server = server.pass_socket(path.clone(), fd).start();
    let multi = MultiClient::remote(&path);
    multi.connect().get("/hello").assert_status(200);
    server.log.wait_for("was:");
}

#[test]
fn a_strange_message_closes_one_client_of_many() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("was_app")
        .expect_error("closed a WAS client");
    let path = server.dir().join("was.sock");
    let _server = server.bind(&format!("was:{}", path.display())).start();
    let (bad, good) = (MultiClient::remote(&path), MultiClient::remote(&path));
    bad.send(b"what?", &[]).expect("send");
    bad.wait_retired();
    good.connect().get("/hello").assert_status(200);
}

#[test]
fn http_and_was_are_served_side_by_side() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app");
    let (path, http) = (
        server.dir().join("was.sock"),
        server.dir().join("http.sock"),
    );
    let server = server.bind(&format!("was:{}", path.display()));
    let _server = server.bind(&format!("unix:{}", http.display())).start();
    let multi = MultiClient::remote(&path);
    let mut was = multi.connect();
    let address = crate::support::server::Address::Unix(http);
    let mut client = crate::support::Client::try_connect(&address).expect("connect");
    for _ in 0..3 {
        was.get("/hello").assert_text("hello\n");
        client.get("/hello").assert_text("hello\n");
    }
}

#[test]
fn a_reload_moves_to_the_next_generation() {
    if !ours() {
        return;
    }
    let app = |text: &str| {
        format!(
            "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{text}']\n"
        )
    };
    let (server, multi) = multi(
        Server::new()
            .file("site.py", "")
            .file("shown.py", &app("one"))
            .app("shown"),
    );
    multi.connect().get("/").assert_text("one");
    server.write("shown.py", &app("two"));
    server.signal(Signal::SIGHUP);
    server.log.wait_for("reloaded");
    wait_until("the new generation to answer", || {
        let answer = multi.connect().get("/");
        (answer.text() == "two").then_some(())
    });
}
