//! `rswsgi request`: one request without a server.

use crate::support::{BUILT, Scratch, Server, process, python, wait_until};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const APP: &str = "
import json, os, sys

def application(environ, start_response):
    path = environ['PATH_INFO']
    print('printed')
    if path == '/raises':
        raise ValueError('on purpose')
    if path == '/breaks':
        start_response('200 OK', [('Content-Length', '10')])
        return [b'short']
    if path == '/missing':
        start_response('404 Not Found', [('Content-Type', 'text/plain')])
        return [b'nothing here\\n']
    if path == '/stream':
        start_response('200 OK', [])
        return stream()
    if path == '/file':
        start_response('200 OK', [])
        return environ['wsgi.file_wrapper'](open(__file__, 'rb'))
    if path == '/environ':
        start_response('200 OK', [('Content-Type', 'application/json')])
        names = {k: v for k, v in environ.items() if isinstance(v, (str, bool, tuple))}
        return [json.dumps(names, sort_keys=True).encode()]
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Made', 'here')])
    body = environ['wsgi.input'].read()
    said = [environ['REQUEST_METHOD'], environ.get('CONTENT_TYPE', '-'), str(len(body))]
    return [' '.join(said).encode(), b' ', body[:40]]

def stream():
    yield b'first\\n'
    open('next').read()
    while True:
        yield b'more\\n' * 10000
";

fn scratch() -> Scratch {
    let dir = Scratch::new();
    std::fs::write(dir.file("asked.py"), APP).expect("write into the test's directory");
    dir
}

fn command(dir: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(BUILT);
    command.arg("request").arg("--python");
    command.arg(python::default().path).args(arguments);
    command.current_dir(dir.path()).stdin(Stdio::null());
    for name in ["VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "RSWSGI_WORKERS"] {
        command.env_remove(name);
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn ask(dir: &Scratch, arguments: &[&str]) -> Output {
    command(dir, arguments).output().expect("run rswsgi")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_said(output: &Output, status: i32, stdout: &str) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), stdout, "{stderr}");
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    stderr
}

fn nothing_left(dir: &Path) {
    wait_until("the end of all processes", || {
        process::marked("no such mark", dir)
            .is_empty()
            .then_some(())
    });
}

#[test]
fn the_body_goes_to_stdout_and_the_head_where_it_is_asked_for() {
    let dir = scratch();
    let head = "HTTP/1.1 200 OK\nContent-Type: text/plain\nX-Made: here\nContent-Length: 8\n\n";
    let stderr = assert_said(&ask(&dir, &["asked"]), 0, "GET - 0 ");
    assert_eq!(stderr.replace("printed\n", ""), head);
    let output = ask(&dir, &["-i", "asked:application", "/"]);
    let whole = format!("{}GET - 0 ", head.replace('\n', "\r\n"));
    assert_eq!(assert_said(&output, 0, &whole), "printed\n");
    let output = ask(&dir, &["-s", "asked"]);
    assert_eq!(assert_said(&output, 0, "GET - 0 "), "printed\n");
    let output = ask(&dir, &["-si", "asked"]);
    assert_eq!(output.status.code(), Some(64));
    nothing_left(dir.path());
}

#[test]
fn a_body_is_text_a_file_or_standard_input() {
    let dir = scratch();
    let form = "application/x-www-form-urlencoded";
    for (arguments, expected) in [
        (
            &["-d", "a=1", "-d", "b=2", "asked"][..],
            format!("POST {form} 7 a=1&b=2"),
        ),
        (
            &["-X", "PUT", "-d", "-x", "-H", "content-type: a/b", "asked"],
            "PUT a/b 2 -x".into(),
        ),
        (&["-X", "DELETE", "asked"], "DELETE - 0 ".into()),
        (&["--data=", "asked"], format!("POST {form} 0 ")),
    ] {
        assert_said(&ask(&dir, arguments), 0, &expected);
    }
    // More than is kept in memory.
    std::fs::write(dir.file("large"), "0123456789".repeat(300_000)).expect("write a file");
    let expected = format!("POST {form} 3000000 {}", "0123456789".repeat(4));
    assert_said(&ask(&dir, &["-d", "@large", "asked"]), 0, &expected);
    let mut child = command(&dir, &["-d", "@-", "asked"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start rswsgi");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(b"from a pipe").expect("somebody reads");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for rswsgi");
    assert_said(&output, 0, &format!("POST {form} 11 from a pipe"));
    let stderr = assert_said(&ask(&dir, &["-d", "@nothing", "asked"]), 71, "");
    assert!(
        stderr.contains("cannot read nothing: no such file"),
        "{stderr}"
    );
}

#[test]
fn a_body_has_the_limit_that_it_would_have_in_a_worker() {
    let dir = scratch();
    std::fs::write(dir.file("large"), "x".repeat(1025)).expect("write a file");
    std::fs::write(dir.file("fits"), "x".repeat(1024)).expect("write a file");
    for data in ["@large", "@/dev/zero"] {
        let arguments = ["--max-body", "1k", "-d", data, "asked"];
        let stderr = assert_said(&ask(&dir, &arguments), 22, "");
        let reason = "POST /: 413, the body is longer than --max-body allows (1k)";
        assert!(stderr.contains(reason), "{stderr}");
    }
    let output = ask(&dir, &["--max-body", "1k", "-d", "@fits", "asked"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_exit_status_says_how_it_went() {
    let dir = scratch();
    let stderr = assert_said(&ask(&dir, &["asked", "/missing"]), 22, "nothing here\n");
    assert!(
        stderr.contains("GET /missing: the application answered 404"),
        "{stderr}"
    );
    let output = ask(&dir, &["-s", "asked", "/raises"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the application failed\nTraceback"),
        "{stderr}"
    );
    assert!(stderr.contains("ValueError: on purpose"), "{stderr}");
    assert!(!stderr.contains("<rswsgi>"), "{stderr}");
    let stderr = assert_said(&ask(&dir, &["-s", "asked", "/breaks"]), 1, "short");
    assert!(
        stderr.contains("5 bytes instead of its Content-Length of 10"),
        "{stderr}"
    );
    let stderr = assert_said(&ask(&dir, &["no_such"]), 78, "");
    assert!(stderr.contains("there is no module 'no_such'"), "{stderr}");
    for wrong in [
        &["-H", "x", "asked"][..],
        &["-X", "G T", "asked"],
        &["asked", "path"],
        &["asked", "/", "/"],
        &["-d", "@a", "-d", "@b", "asked"],
        &["--no-such", "asked"],
        &[],
    ] {
        let output = ask(&dir, wrong);
        assert_said(&output, 64, "");
    }
}

#[test]
fn an_import_that_ends_the_process_is_told() {
    let dir = scratch();
    std::fs::write(dir.file("ends.py"), "import os; os._exit(3)").expect("write a module");
    let stderr = assert_said(&ask(&dir, &["ends"]), 1, "");
    assert!(stderr.contains("exited with status 3"), "{stderr}");
}

#[test]
fn the_application_sees_what_it_sees_in_a_worker() {
    let dir = scratch();
    let server = Server::new()
        .file("asked.py", APP)
        .arg("--script-name", "/shop")
        .app("asked");
    let running = server.start();
    let fields = [
        "X-A: b",
        "Cookie: c=d",
        "Host: example.org",
        "User-Agent: me",
        "Accept: */*",
    ];
    let fields = fields.iter().flat_map(|field| ["-H", field]);
    let fields: Vec<&str> = fields.collect();
    let mut arguments = vec![
        "-s",
        "--script-name",
        "/shop",
        "asked",
        "/shop/environ?a=%20b",
    ];
    arguments.extend(&fields);
    let said = ask(&dir, &arguments);
    let here = text(&said.stdout);
    let mut client = running.connect();
    let head: String = fields
        .iter()
        .skip(1)
        .step_by(2)
        .map(|field| format!("{field}\r\n"))
        .collect();
    client.send(format!("GET /shop/environ?a=%20b HTTP/1.1\r\n{head}\r\n"));
    let there = text(&client.response().body);
    let read = |json: &str| -> serde_json::Value {
        let mut environ: serde_json::Value = serde_json::from_str(json)
            .unwrap_or_else(|error| panic!("{error}: {json}\n{}", text(&said.stderr)));
        // What depends on the connection.
        for name in ["REMOTE_PORT", "SERVER_NAME", "SERVER_PORT"] {
            environ[name] = serde_json::Value::Null;
        }
        environ
    };
    assert_eq!(read(&here), read(&there));
    assert!(here.contains("\"SERVER_NAME\": \"example.org\""), "{here}");
}

fn streaming(dir: &Scratch) -> Child {
    let fifo = dir.file("next");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("make a named pipe");
    command(dir, &["-s", "asked", "/stream"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start rswsgi")
}

#[test]
fn a_response_is_printed_as_it_comes_and_a_closed_output_is_no_failure() {
    let dir = scratch();
    let mut child = streaming(&dir);
    let mut output = child.stdout.take().expect("it is a pipe");
    let mut first = [0; 6];
    output.read_exact(&mut first).expect("the first block");
    assert_eq!(&first, b"first\n");
    drop(output);
    // Now it may go on, and nobody reads.
    std::fs::write(dir.file("next"), "").expect("write into the named pipe");
    let output = child.wait_with_output().expect("wait for rswsgi");
    assert_eq!(assert_said(&output, 0, ""), "printed\n");
    nothing_left(dir.path());
}

#[test]
fn nothing_is_left_of_a_request_that_is_killed() {
    let dir = scratch();
    let mut child = streaming(&dir);
    let mut first = [0; 6];
    let output = child.stdout.as_mut().expect("it is a pipe");
    output.read_exact(&mut first).expect("the first block");
    child.kill().expect("kill our own child");
    child.wait().expect("wait for it");
    nothing_left(dir.path());
}

/// With a terminal the prompt stands at the start of a line.
#[test]
fn a_terminal_gets_the_page_at_the_root_and_a_line_end() {
    let dir = scratch();
    let terminal = nix::pty::openpty(None, None).expect("make a terminal");
    let mut child = command(&dir, &["asked"])
        .stdout(terminal.slave)
        .stderr(Stdio::null())
        .spawn()
        .expect("start rswsgi");
    assert!(child.wait().expect("wait for rswsgi").success());
    let mut shown = Vec::new();
    // Its end is an error (EIO): nobody has it open any more.
    let _ = std::fs::File::from(terminal.master).read_to_end(&mut shown);
    assert_eq!(text(&shown), "GET - 0 \r\n");
}

#[test]
fn files_are_printed_whole() {
    let dir = scratch();
    assert_said(&ask(&dir, &["-s", "asked", "/file"]), 0, APP);
}

#[test]
fn the_configuration_of_the_server_will_do() {
    let dir = scratch();
    let config = "target = 'asked'\nchdir = '.'\nworkers = 4\nbind = ['unix:x']\nlog = 'log'\naccess-log = 'access'\n";
    std::fs::write(dir.file("shop.toml"), config).expect("write a configuration");
    let output = ask(&dir, &["-s", "--config", "shop.toml", "/missing"]);
    assert_said(&output, 22, "nothing here\n");
    let output = ask(
        &dir,
        &["-s", "-b", ":1", "-c", "shop.toml", "http://x/missing"],
    );
    assert_said(&output, 22, "nothing here\n");
    assert!(!dir.file("log").exists() && !dir.file("access").exists());
}

#[test]
fn a_command_is_one_as_the_first_argument_only() {
    let dir = scratch();
    for name in ["request.py", "convert.py"] {
        std::fs::write(dir.file(name), APP).expect("write a module");
    }
    assert_said(&ask(&dir, &["-s", "request"]), 0, "GET - 0 ");
    let python = python::default().path;
    for (arguments, target) in [
        (
            &["request:application", "--check"][..],
            "request:application",
        ),
        (&["--check", "request"], "request"),
        (&["--check", "--", "convert"], "convert"),
        (&["--module", "convert", "--check"], "convert"),
    ] {
        let mut command = Command::new(BUILT);
        command.args(arguments).current_dir(dir.path());
        command.env("RSWSGI_PYTHON", &python);
        let output = command.output().expect("run rswsgi");
        let said = text(&output.stdout);
        assert!(said.starts_with(&format!("{target}: ok")), "{output:?}");
    }
}

#[test]
fn the_help_has_examples() {
    let output = ask(&scratch(), &["--help"]);
    assert!(
        text(&output.stdout).contains("rswsgi request -i -H"),
        "{output:?}"
    );
}
