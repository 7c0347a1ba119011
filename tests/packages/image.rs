//! `Containerfile`: no container engine is needed. What it copies is enough to build, and what it makes of
//! it runs as it would there: process 1 of its own namespaces, without root, asked by its health check.

use super::{root, scratch};
use crate::privileges::{NOBODY, common_python};
use crate::support::{BUILT, Running, Server, module, only_rswsgi, skip};
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

const KNOWN: [&str; 12] = [
    "FROM",
    "WORKDIR",
    "COPY",
    "RUN",
    "USER",
    "EXPOSE",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ENTRYPOINT",
    "CMD",
    "ENV",
    "ARG",
];

/// The instructions, each with its arguments.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("Containerfile")).expect("a Containerfile");
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, rest) = line.split_once(' ').expect("an instruction has arguments");
        (name.to_owned(), rest.trim().to_owned())
    };
    lines.map(split).collect()
}

fn all(name: &str) -> Vec<String> {
    let instructions = instructions().into_iter();
    let named = instructions.filter(|(instruction, _)| instruction == name);
    named.map(|(_, rest)| rest).collect()
}

/// The words of an instruction in its JSON form.
fn words(rest: &str) -> Vec<String> {
    let json = &rest[rest.find('[').expect("the JSON form")..];
    serde_json::from_str(json).expect("a list of words")
}

/// What is copied from here, not from another stage.
fn copied() -> Vec<(PathBuf, PathBuf)> {
    let mut copied = Vec::new();
    for rest in all("COPY")
        .iter()
        .filter(|rest| !rest.starts_with("--from"))
    {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (to, from) = words.split_last().expect("a destination");
        for from in from {
            let to = match to.ends_with('/') {
                true => PathBuf::from(to).join(PathBuf::from(from).file_name().expect("a name")),
                false => PathBuf::from(to),
            };
            copied.push((PathBuf::from(from), to));
        }
    }
    copied
}

#[test]
fn what_is_copied_is_enough_for_cargo() {
    if !only_rswsgi("its image") {
        return;
    }
    for (name, _) in instructions() {
        assert!(KNOWN.contains(&name.as_str()), "{name} is no instruction");
    }
    let context = scratch().join("image");
    let _ = fs::remove_dir_all(&context);
    for (from, to) in copied() {
        let to = context.join(to);
        fs::create_dir_all(to.parent().expect("below the context")).expect("a directory");
        let status = Command::new("cp")
            .arg("-a")
            .arg(root().join(&from))
            .arg(&to)
            .status();
        assert!(status.expect("cp").success(), "{}", from.display());
    }
    // Reads the manifest as a build would, and misses the targets that are not there.
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--no-deps", "--format-version=1"])
        .current_dir(&context)
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The layout of the image, run as an engine would.
fn start() -> Option<Running> {
    if !only_rswsgi("its image") {
        return None;
    }
    if !Uid::effective().is_root() {
        skip("only root can make namespaces");
        return None;
    }
    let Some(python) = common_python() else {
        skip("no Python 3.10 or later that another user could execute");
        return None;
    };
    let hello = fs::read_to_string(root().join("examples/hello.py")).expect("an example");
    let server = Server::new().file("hello.py", &hello).app("hello");
    let prefix = server.dir().to_owned();
    let directories = ["bin", "lib", "lib/rswsgi"];
    for directory in directories {
        fs::create_dir(prefix.join(directory)).expect("a new directory");
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(prefix.join(directory), everybody).expect("it is ours");
    }
    for (from, to) in [
        (PathBuf::from(BUILT), "bin/rswsgi"),
        (env!("CARGO_BIN_EXE_rswsgictl").into(), "bin/rswsgictl"),
        (module(), "lib/rswsgi/librswsgi.so"),
    ] {
        fs::copy(from, prefix.join(to)).expect("a copy");
    }
    symlink(python, prefix.join("bin/python")).expect("a link");
    let script = format!(
        "mount -t tmpfs tmpfs /run && chmod 666 $NOTIFY_SOCKET && install -d -o {NOBODY} -g {NOBODY} /run/rswsgi && \
         exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \"$@\""
    );
    let within = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    let server = server
        .within(&within)
        .program(prefix.join("bin").join(&words(&all("ENTRYPOINT")[0])[0]))
        .any_python()
        .unset("RUNTIME_DIRECTORY")
        .unset("XDG_RUNTIME_DIR")
        .arg("--chdir", &prefix);
    Some(server.start())
}

#[test]
fn it_runs_as_process_one_without_root_and_is_healthy() {
    let Some(server) = start() else {
        return;
    };
    server.get("/").assert_status(200);
    let supervisor = server.supervisor();
    let inside = supervisor.status("NSpid").unwrap_or_default();
    assert!(inside.ends_with("\t1"), "{inside}");
    let uid = supervisor.status("Uid").unwrap_or_default();
    assert!(uid.starts_with(&NOBODY.to_string()), "{uid}");
    let check = words(&all("HEALTHCHECK")[0]);
    let healthy = || {
        Command::new("nsenter")
            .args([
                "--mount",
                "--pid",
                "--target",
                &supervisor.number.to_string(),
            ])
            .args([
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ])
            .arg(server.dir().join("bin").join(&check[0]))
            .args(&check[1..])
            .env_remove("RUNTIME_DIRECTORY")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("RSWSGI_CONTROL")
            .output()
            .expect("nsenter")
    };
    let output = healthy();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // A server that does not answer is not.
    supervisor.signal(nix::sys::signal::Signal::SIGSTOP);
    let output = healthy();
    supervisor.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(all("STOPSIGNAL"), ["SIGTERM"]);
    server.finish();
}
