//! Starting: targets, what cannot start and says why, addresses, interpreters.

use crate::support::server::Address;
use crate::support::{Client, Finished, Running, Server, only_rswsgi, pythons, skip, wait_until};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

const APP: &str = "def application(environ, start_response):\n    \
                   start_response('200 OK', [])\n    \
                   return [NAME]\n";

fn ours() -> bool {
    only_rswsgi("its command line")
}

fn app_file(name: &str, answer: &str, text: &str) -> Server {
    Server::new().file(name, &format!("NAME = b'{answer}'\n{APP}{text}"))
}

/// Serves what `target` names, and that is `answer`.
#[track_caller]
fn assert_serves(server: Server, target: &str, answer: &str) {
    server.app(target).start().get("/").assert_text(answer);
}

#[track_caller]
fn assert_fails(server: Server, target: &str, status: i32) -> Finished {
    let finished = server.app(target).run();
    finished.assert_status(status);
    finished
}

#[test]
fn the_default_names_are_application_then_app() {
    if !ours() {
        return;
    }
    assert_serves(
        app_file(
            "both.py",
            "application",
            "def app(e, s): raise RuntimeError\n",
        ),
        "both",
        "application",
    );
    assert_serves(
        app_file("short.py", "app", "app = application\ndel application\n"),
        "short",
        "app",
    );
}

#[test]
fn a_target_names_an_attribute_of_an_object_in_a_package() {
    if !ours() {
        return;
    }
    let server = app_file(
        "inner.py",
        "attribute",
        "class obj:\n    attr = staticmethod(application)\n",
    );
    let package = server.dir().join("pkg");
    std::fs::create_dir(&package).expect("make a package");
    std::fs::write(package.join("__init__.py"), "").expect("make a package");
    std::fs::write(package.join("mod.py"), "from inner import obj\n").expect("make a package");
    assert_serves(server, "pkg.mod:obj.attr", "attribute");
}

#[test]
fn a_target_may_call_a_factory() {
    if !ours() {
        return;
    }
    let factory = "\ndef create_app(name, *, suffix='!'):\n    global NAME\n    NAME = (name + suffix).encode()\n    return application\n\
                   def make_app():\n    return create_app('made')\n\
                   class factories:\n    make = staticmethod(make_app)\n";
    for (target, answer) in [
        ("made:create_app(\"x\")", "x!"),
        ("made:create_app('x', suffix='?')", "x?"),
        ("made:make_app()", "made!"),
        ("made:factories.make()", "made!"),
    ] {
        assert_serves(app_file("made.py", "", factory), target, answer);
    }
}

#[test]
fn module_and_app_are_the_target_spelled_otherwise() {
    if !ours() {
        return;
    }
    let server = app_file("spelled.py", "spelled", "other = application\n");
    let server = server
        .arg("--module", "spelled")
        .arg("--app", "other")
        .start();
    server.get("/").assert_text("spelled");
}

#[test]
fn a_module_that_is_not_there_is_named() {
    if !ours() {
        return;
    }
    let finished = assert_fails(Server::new(), "no_such_module_anywhere:application", 78);
    finished
        .assert_says("no module named")
        .assert_says("no_such_module_anywhere");
    assert!(finished.count("Traceback") <= 1, "{}", finished.stderr);
}

#[test]
fn an_attribute_that_is_not_there_is_named() {
    if !ours() {
        return;
    }
    for (target, name) in [
        ("present:missing", "missing"),
        ("present:application.missing", "missing"),
        ("present:missing()", "missing"),
    ] {
        let finished = assert_fails(app_file("present.py", "", ""), target, 78);
        finished.assert_says(name).assert_says("present");
        assert!(finished.count("Traceback") <= 1, "{}", finished.stderr);
    }
    let finished = assert_fails(Server::new().file("nothing.py", ""), "nothing", 78);
    finished.assert_says("application").assert_says("nothing");
}

#[test]
fn something_that_cannot_be_called_is_no_application() {
    if !ours() {
        return;
    }
    let text = "application = 42\ndef make_app(): return None\n";
    for target in ["number", "number:application", "number:make_app()"] {
        let finished = assert_fails(Server::new().file("number.py", text), target, 78);
        finished.assert_says("callable");
        assert!(finished.count("Traceback") <= 1, "{}", finished.stderr);
    }
}

#[test]
fn an_exception_while_importing_is_shown_once() {
    if !ours() {
        return;
    }
    let text = "def deep():\n    raise LookupError('told only ' + 'once')\ndeep()\n";
    let finished = assert_fails(
        Server::new().workers(3).file("raises.py", text),
        "raises:application",
        78,
    );
    finished
        .assert_says_once("Traceback (most recent call last)")
        .assert_says("raises.py")
        .assert_says("in deep");
    let last = finished
        .stderr
        .matches("LookupError: told only once")
        .count();
    assert!(
        (1..=2).contains(&last),
        "the reason, and the end of the traceback:\n{}",
        finished.stderr
    );
}

#[test]
fn a_syntax_error_is_shown_once() {
    if !ours() {
        return;
    }
    let finished = assert_fails(
        Server::new().file("wrong.py", "x = 1\ndef (:\n"),
        "wrong",
        78,
    );
    finished
        .assert_says("wrong.py")
        .assert_says("SyntaxError")
        .assert_says_once("def (:");
    assert!(finished.stderr.contains("line 2"), "{}", finished.stderr);
}

#[test]
fn a_factory_that_fails_is_shown_once() {
    if !ours() {
        return;
    }
    let text = "def make_app():\n    return {}['missing key']\n";
    let finished = assert_fails(Server::new().file("fails.py", text), "fails:make_app()", 78);
    finished
        .assert_says_once("Traceback (most recent call last)")
        .assert_says("missing key");
}

#[test]
fn an_application_that_exits_while_importing_cannot_be_loaded() {
    if !ours() {
        return;
    }
    for text in [
        "raise SystemExit(0)\n",
        "import sys; sys.exit('no licence')\n",
        "raise KeyboardInterrupt\n",
    ] {
        assert_fails(Server::new().file("leaves.py", text), "leaves", 78);
    }
    // Not even by force can it look like a start.
    let finished = Server::new()
        .file("forced.py", "import os; os._exit(0)\n")
        .app("forced")
        .run();
    assert!(!finished.status.success(), "{finished:?}");
}

#[test]
fn an_import_that_hangs_is_given_up() {
    if !ours() {
        return;
    }
    let text = "import threading\nthreading.Event().wait()\n";
    let finished = Server::new()
        .file("hangs.py", text)
        .app("hangs")
        .arg("--start-timeout", "1s")
        .run();
    assert!(!finished.status.success(), "{finished:?}");
    finished.assert_says("hangs");
}

#[test]
fn a_wrong_command_line_is_64() {
    if !ours() {
        return;
    }
    Server::new()
        .flag("--no-such-flag")
        .app("basic")
        .run()
        .assert_status(64)
        .assert_says("--no-such-flag");
    Server::new().run().assert_status(64);
    Server::new()
        .default_workers()
        .arg("--workers", "many")
        .app("basic")
        .run()
        .assert_status(64)
        .assert_says("workers");
    Server::new()
        .arg("--keep-alive", "soon")
        .app("basic")
        .run()
        .assert_status(64)
        .assert_says("keep-alive");
    Server::new().app("not a module!").run().assert_status(64);
}

#[test]
fn a_workers_print_at_import_appears_once() {
    if !ours() {
        return;
    }
    let server = app_file("prints.py", "x", "print('printed at import')\n")
        .app("prints")
        .workers(3)
        .start();
    server.get("/").assert_text("x");
    let finished = server.finish();
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(
        all.matches("printed at import").count(),
        1,
        "a buffer was flushed by several processes: {all}"
    );
}

#[test]
fn check_imports_and_leaves() {
    if !ours() {
        return;
    }
    let finished = Server::new().app("procs").flag("--check").run();
    finished.assert_status(0);
    assert_eq!(finished.count("Traceback"), 0);
    let finished = Server::new()
        .file("bad.py", "1/0\n")
        .app("bad")
        .flag("--check")
        .run();
    finished
        .assert_status(78)
        .assert_says_once("Traceback")
        .assert_says("ZeroDivisionError");
}

#[test]
fn check_binds_nothing() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").flag("--check");
    let path = server.dir().join("checked.sock");
    server
        .bind(&format!("unix:{}", path.display()))
        .run()
        .assert_status(0);
}

#[test]
fn one_line_says_what_is_served() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("basic:application")
        .workers(2)
        .tcp()
        .unix()
        .start();
    let Address::Tcp(tcp) = server.address().clone() else {
        unreachable!("TCP was asked for first")
    };
    let told = |text: &str| {
        text.lines().any(|line| {
            [
                "basic:application",
                &tcp.to_string(),
                "passed.sock",
                "2 workers",
                "ms",
            ]
            .iter()
            .all(|part| line.contains(part))
        })
    };
    server
        .log
        .wait("target, addresses, workers and time on one line", |text| {
            told(text).then_some(())
        });
}

// --- addresses

/// The TCP address that the server chose, from its start line.
#[track_caller]
fn bound_tcp(server: &Running) -> Address {
    server.log.wait("the address", |text| {
        let at = text.find("127.0.0.1:")?;
        let digits: String = text[at + 10..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let port: u16 = digits.parse().ok().filter(|port| *port > 0)?;
        Some(Address::Tcp(([127, 0, 0, 1], port).into()))
    })
}

#[track_caller]
fn assert_answers(address: &Address) {
    let mut client = Client::try_connect(address).expect("connect to what the server has bound");
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn binds_tcp_and_unix_sockets_itself() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic");
    let path = server.dir().join("own.sock");
    let server = server
        .bind("127.0.0.1:0")
        .bind(&format!("unix:{}", path.display()))
        .start();
    assert_answers(&bound_tcp(&server));
    assert_answers(&Address::Unix(path));
}

#[test]
fn an_address_in_use_is_69() {
    if !ours() {
        return;
    }
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    let address = holder
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let finished = Server::new().app("basic").bind(&address).run();
    finished
        .assert_status(69)
        .assert_says(&address)
        .assert_says("in use");
    assert_eq!(finished.count("Traceback"), 0);
}

#[test]
fn a_stale_socket_is_replaced() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic");
    let path = server.dir().join("stale.sock");
    drop(UnixListener::bind(&path).expect("bind a socket"));
    assert!(path.exists(), "closing a listener leaves its file");
    let _server = server.bind(&format!("unix:{}", path.display())).start();
    assert_answers(&Address::Unix(path));
}

#[test]
fn a_socket_somebody_listens_on_is_refused() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic");
    let own = server.dir().join("own");
    std::fs::create_dir(&own).expect("make a directory");
    let path = own.join("live.sock");
    let listener = UnixListener::bind(&path).expect("bind a socket");
    let inode = std::fs::metadata(&path).expect("it was just bound").ino();
    let finished = server.bind(&format!("unix:{}", path.display())).run();
    finished.assert_status(69).assert_says("live.sock");
    let now = std::fs::metadata(&path).expect("it is still there");
    assert_eq!(now.ino(), inode, "the socket was replaced");
    drop(listener);
}

#[test]
fn a_file_in_the_place_of_a_socket_is_not_replaced() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").file("precious", "do not delete");
    let path = server.dir().join("precious");
    let running = server.bind(&format!("unix:{}", path.display())).spawn();
    let mut running = running;
    let status = running.wait_exit();
    assert_eq!(running.file("precious"), "do not delete");
    assert!(matches!(status.code(), Some(69 | 71 | 78)), "{status}");
    running.expect_status(status.code().unwrap_or(-1));
    running.log.wait_for("precious");
    running.expect_error("");
}

#[test]
fn mode_and_group_of_a_socket_can_be_set() {
    if !ours() {
        return;
    }
    let group = nix::unistd::getgid();
    for (options, mode) in [
        ("", 0o660),
        ("?mode=666", 0o666),
        (&*format!("?mode=600&group={group}"), 0o600),
    ] {
        let server = Server::new().app("basic");
        let path = server.dir().join("moded.sock");
        let _server = server
            .bind(&format!("unix:{}{options}", path.display()))
            .start();
        let metadata =
            std::fs::metadata(&path).expect("the socket is there when the server is ready");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{options:?}");
        assert_eq!(metadata.gid(), group.as_raw());
        assert_answers(&Address::Unix(path));
    }
}

#[test]
fn a_socket_of_a_killed_server_can_be_bound_again() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic");
    let own = server.dir().join("own");
    std::fs::create_dir(&own).expect("make a directory");
    let path = own.join("again.sock");
    let address = format!("unix:{}", path.display());
    let mut first = server.bind(&address).start();
    first.expect_error("the supervisor is gone");
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    assert!(path.exists(), "nobody was left to remove it");
    wait_until("everybody to be gone", || {
        Client::try_connect(&Address::Unix(path.clone()))
            .is_err()
            .then_some(())
    });
    let _second = Server::new().app("basic").bind(&address).start();
    assert_answers(&Address::Unix(path));
}

// --- interpreters

#[test]
fn the_same_module_serves_under_every_python() {
    if !ours() {
        return;
    }
    let mut modules = std::collections::BTreeSet::new();
    for python in pythons() {
        let server = Server::new()
            .app("procs")
            .python(&python.path)
            .workers(2)
            .start();
        let told = server.get("/python").json();
        assert_eq!(
            told["version"],
            serde_json::json!([python.version.0, python.version.1]),
            "{python:?}"
        );
        modules.insert(told["files"].to_string());
    }
    assert_eq!(modules.len(), 1, "one file for all: {modules:?}");
    assert!(
        modules
            .iter()
            .all(|files| files.matches(".so").count() == 1),
        "{modules:?}"
    );
}

#[test]
fn an_interpreter_is_found_without_being_named() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").any_python().start();
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn an_interpreter_that_is_not_there_is_named() {
    if !ours() {
        return;
    }
    let finished = Server::new().app("basic").python("/no/such/python3").run();
    assert!(
        matches!(finished.status.code(), Some(64 | 78)),
        "{finished:?}"
    );
    finished.assert_says("/no/such/python3");
    let finished = Server::new().app("basic").python("/bin/false").run();
    assert!(!finished.status.success(), "{finished:?}");
}

#[test]
fn a_virtual_environment_is_used() {
    if !ours() {
        return;
    }
    let server = Server::new().any_python();
    let venv = server.dir().join("venv");
    let python = &crate::support::python::default().path;
    let made = std::process::Command::new(python)
        .args(["-m", "venv", "--without-pip"])
        .arg(&venv)
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        return skip("python3 -m venv does not work");
    }
    let site = glob_site(&venv);
    std::fs::write(
        site.join("only_here.py"),
        format!("NAME = b'from the venv'\n{APP}"),
    )
    .expect("install a module");
    server
        .arg("--venv", &venv)
        .app("only_here")
        .start()
        .get("/")
        .assert_text("from the venv");
}

fn glob_site(venv: &std::path::Path) -> std::path::PathBuf {
    let lib = std::fs::read_dir(venv.join("lib")).expect("a venv has lib");
    let python = lib.flatten().next().expect("lib has pythonX.Y");
    python.path().join("site-packages")
}

#[test]
fn chdir_sys_path_and_env_reach_the_application() {
    if !ours() {
        return;
    }
    let server = Server::new().unset("PYTHONPATH");
    let (work, extra) = (server.dir().join("work"), server.dir().join("extra"));
    for dir in [&work, &extra] {
        std::fs::create_dir(dir).expect("make a directory");
    }
    let text = format!(
        "import os, beside\nNAME = f'{{os.getcwd()}} {{beside.X}} {{os.environ[\"SET\"]}}'.encode()\n{APP}"
    );
    std::fs::write(work.join("here.py"), text).expect("write a module");
    std::fs::write(extra.join("beside.py"), "X = 'beside'\n").expect("write a module");
    let answer = format!("{} beside a=b", work.display());
    let server = server
        .arg("--chdir", &work)
        .arg("--sys-path", &extra)
        .arg("--env", "SET=a=b");
    assert_serves(server, "here", &answer);
}
