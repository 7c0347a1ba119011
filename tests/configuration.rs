//! Configuration with the real program: where values come from, what is said of mistakes. How values are
//! read is tested beside the code.

use crate::support::{Server, ctl, only_rswsgi};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn ours() -> bool {
    only_rswsgi("its configuration")
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("inside")).expect("a directory");
    fs::write(path, text).expect("a file");
}

fn rswsgi(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rswsgi"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("it was built")
}

#[test]
fn secrets_are_not_shown_and_unknown_variables_are_named() {
    if !ours() {
        return;
    }
    let factory = "def create(key):\n    assert key == 'hunter2'\n    return application\n\n\
        def application(environ, start_response):\n    \
            start_response('200 OK', [('Content-Length', '2')])\n    return [b'ok']\n";
    let server = Server::new()
        .file("made.py", factory)
        .app("made:create('hunter2')")
        .arg("--env", "PASSWORD=hunter2")
        .env("RSWSGI_WROKERS", "hunter2")
        .start();
    server.get("/").assert_status(200);
    let told = "environment variable RSWSGI_WROKERS is ignored: no setting has it; did you mean RSWSGI_WORKERS?";
    server.log.wait_for(told);
    assert!(!server.log.text().contains("hunter2"));
    let socket = server.dir().join("run/made.control");
    let socket = socket.to_str().expect("a plain path");
    for words in [
        &["--control", socket, "config"][..],
        &["--control", socket, "--json", "config"],
        &["--control", socket, "--json", "stats"],
        &["--control", socket, "--json", "ping"],
    ] {
        let shown = ctl(server.dir(), words).done().out;
        assert!(!shown.contains("hunter2"), "{words:?}: {shown}");
    }
    let shown = ctl(server.dir(), &["--control", socket, "config"])
        .done()
        .out;
    assert!(shown.contains("made:create(...)"), "{shown}");
    assert!(shown.contains("PASSWORD=..."), "{shown}");
    server.finish();
}

#[test]
fn every_value_knows_where_it_comes_from() {
    if !ours() {
        return;
    }
    let server = Server::new();
    let dir = server.dir().to_owned();
    write(
        &dir,
        "server.toml",
        "target = \"procs\"\nkeep-alive = \"20s\"\nbacklog = 100\n\
         include = \"conf.d\"\nmax-body = \"1m\"\n[env]\nSECRET = \"x\"\n",
    );
    write(
        &dir,
        "conf.d/10.yaml",
        "# YAML\nbacklog: 200\nmax-requests: 7\n",
    );
    write(&dir, "conf.d/20.toml", "\nmax-requests = 9\n");
    let server = server
        .arg("--config", "server.toml")
        .env("RSWSGI_KEEP_ALIVE", "30s")
        .env("RSWSGI_SEND_TIMEOUT", "40s")
        .arg("--send-timeout", "50s")
        .start();
    let socket = dir.join("run/procs.control");
    let socket = socket.to_str().expect("a plain path");
    let shown = ctl(&dir, &["--control", socket, "config"]).done().out;
    let file = |name: &str, line: u32| format!("{}:{line}", dir.join(name).display());
    for (setting, value, origin) in [
        ("target", "procs", file("server.toml", 1)),
        ("keep-alive", "30s", "RSWSGI_KEEP_ALIVE".into()),
        ("send-timeout", "50s", "--send-timeout".into()),
        ("max-body", "1m", file("server.toml", 5)),
        ("backlog", "200", file("conf.d/10.yaml", 2)),
        ("max-requests", "9", file("conf.d/20.toml", 2)),
        ("body-timeout", "30s", "default".into()),
        ("env", "SECRET=...", file("server.toml", 6)),
    ] {
        let line = shown.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(setting)
        });
        let line = line.unwrap_or_else(|| panic!("{setting} is not shown:\n{shown}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(
            words.contains(&value) && words.contains(&origin.as_str()),
            "{line}"
        );
    }
    server.finish();
}

/// Each setting is named one place higher than the one before it.
#[test]
fn yaml_toml_environment_and_command_line_win_over_one_another_in_this_order() {
    if !ours() {
        return;
    }
    let scratch = crate::support::Scratch::new();
    let dir = scratch.path();
    let names = [
        "backlog",
        "max-requests",
        "limit-fields",
        "max-connections",
        "max-requests-jitter",
    ];
    let lines = |form: &str, from: usize, value: usize| {
        let lines = names[from..]
            .iter()
            .map(|name| format!("{name}{form}{value}\n"));
        lines.collect::<String>()
    };
    let main = lines(": ", 1, 101);
    write(
        dir,
        "server.yaml",
        &format!("target: procs\ninclude: conf.d\n{main}"),
    );
    write(dir, "conf.d/10.toml", &lines(" = ", 2, 102));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rswsgi"));
    command.args(["--config", "server.yaml", "--print-config"]);
    for name in &names[3..] {
        let variable = name.replace('-', "_").to_uppercase();
        command.env(format!("RSWSGI_{variable}"), "103");
    }
    command.args([format!("--{}", names[4]), "104".into()]);
    let output = command.current_dir(dir).output().expect("it was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| {
        let mut lines = printed.lines();
        let start = format!("{name} = ");
        let found = lines.find_map(|line| line.strip_prefix(&start));
        found.map(|value| value.trim_matches('"').to_owned())
    };
    assert_eq!(value(names[0]), None, "it is a comment: {printed}");
    for (index, name) in names.iter().enumerate().skip(1) {
        let expected = format!("{}", 100 + index);
        assert_eq!(value(name), Some(expected), "{name}: {printed}");
    }
}

#[test]
fn mistakes_are_named_with_their_place_and_a_suggestion() {
    if !ours() {
        return;
    }
    let scratch = crate::support::Scratch::new();
    let dir = scratch.path();
    write(dir, "toml.toml", "target = \"a\"\nwrokers = 2\n");
    write(dir, "yaml.yaml", "target: a\n\nworkers: many\n");
    write(dir, "key.yml", "target: a\nbakclog: 2\n");
    write(
        dir,
        "include.toml",
        "target = \"a\"\ninclude = \"conf.d\"\n",
    );
    write(dir, "conf.d/a.toml", "include = \"more\"\n");
    for (file, message) in [
        (
            "toml.toml",
            "toml.toml:2: unknown setting \"wrokers\"; did you mean \"workers\"?",
        ),
        ("yaml.yaml", "yaml.yaml:3: workers: \"many\""),
        (
            "key.yml",
            "key.yml:2: unknown setting \"bakclog\"; did you mean \"backlog\"?",
        ),
        (
            "include.toml",
            "conf.d/a.toml:1: a file that is included cannot include others",
        ),
        ("missing.toml", "cannot read the configuration"),
    ] {
        for action in ["--check", "--print-config"] {
            let output = rswsgi(dir, &["--config", file, action]);
            let said = String::from_utf8_lossy(&output.stderr);
            // What does not concern the form of a file may also be printed.
            let is_value = file == "yaml.yaml" && action == "--print-config";
            assert_eq!(
                output.status.code(),
                Some(if is_value { 0 } else { 78 }),
                "{said}"
            );
            assert!(is_value || said.contains(message), "{said}");
        }
    }
}

#[test]
fn what_is_printed_as_a_configuration_is_one() {
    if !ours() {
        return;
    }
    let scratch = crate::support::Scratch::new();
    let dir = scratch.path();
    let python = crate::support::python::default().path;
    let python = python.to_str().expect("a plain path");
    write(
        dir,
        "shop.py",
        "def application(environ, start_response): ...\n",
    );
    let output = rswsgi(
        dir,
        &[
            "--python",
            python,
            "--workers",
            "2..3",
            "--print-config",
            "shop",
        ],
    );
    assert!(output.status.success());
    fs::write(dir.join("made.toml"), &output.stdout).expect("a file");
    let output = rswsgi(dir, &["--config", "made.toml", "--check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with("shop: ok (Python 3."), "{said}");
}
