//! `Containerfile`: no container engine is needed. What it copies is enough to build, and what it makes of
//! it runs as it would there: process 1 of its own namespaces, without root, asked by its health check.

use super::{root, run, scratch};
use crate::privileges::{NOBODY, common_python};
use crate::support::{BUILT, Running, Server, module, only_rswsgi, skip};
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
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

/// What the library is made of, as the compiler has noted it when it made that of the tests.
fn sources() -> Vec<PathBuf> {
    let library = module();
    let deps = Path::new(BUILT).with_file_name("deps");
    let rules = fs::read_dir(&deps).expect("a build").flatten();
    let rules = rules.map(|entry| entry.path());
    let rules = rules.filter(|path| path.extension().is_some_and(|end| end == "d"));
    let name = library.file_name().expect("a file").to_string_lossy();
    let made = format!("/{name}: ");
    let ours = rules.filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let rule = text.lines().find_map(|line| line.split_once(&made));
        let files = rule.map(|(_, files)| files.to_owned())?;
        Some((
            path.metadata().and_then(|meta| meta.modified()).ok()?,
            files,
        ))
    });
    // Earlier builds have left theirs, of sources that may be gone.
    let (_, files) = ours.max().expect("cargo has built it");
    let own = |file: &str| {
        let file = root().join(file);
        let below = file.strip_prefix(root());
        below.ok().map(Path::to_owned)
    };
    files.split(' ').filter_map(own).collect()
}

/// Lays out what is copied, and looks for all that a build would.
fn try_context(copied: &[(PathBuf, PathBuf)]) -> Result<(), String> {
    let context = scratch().join("image");
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(&context).expect("a directory");
    for (from, to) in copied {
        let to = context.join(to);
        fs::create_dir_all(to.parent().expect("below the context")).expect("a directory");
        run(Command::new("cp").arg("-a").arg(root().join(from)).arg(&to))?;
    }
    // As a build does, it reads the manifest and demands a lock file that fits, and without the sources of
    // this program it says nothing. `--no-deps` would not look at the lock file.
    let platform = run(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version=1"]);
    cargo.args(["--filter-platform", platform.trim()]);
    // By name: cargo would take that of a directory above.
    cargo.arg("--manifest-path").arg(context.join("Cargo.toml"));
    let said = run(cargo.current_dir(&context))?;
    let metadata: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let own = packages.iter().find(|package| package["name"] == "rswsgi");
    let targets = own.expect("this package")["targets"].as_array();
    // No target is built without the files of the others.
    let targets = targets.expect("targets").iter().map(|target| {
        let path = target["src_path"].as_str().expect("a path");
        PathBuf::from(path)
    });
    let sources = sources();
    assert!(sources.len() > 100, "{sources:?}");
    assert!(sources.contains(&PathBuf::from("src/supervisor/boot.py")));
    let sources = sources.iter().map(|file| context.join(file));
    let missing = targets.chain(sources).find(|file| !file.exists());
    match missing {
        None => Ok(()),
        Some(file) => Err(format!("{} is missing", file.display())),
    }
}

#[test]
fn what_is_copied_is_enough_for_cargo_and_nothing_less_would_be() {
    if !only_rswsgi("its image") {
        return;
    }
    for (name, _) in instructions() {
        assert!(KNOWN.contains(&name.as_str()), "{name} is no instruction");
    }
    let all = copied();
    try_context(&all).expect("the context is complete");
    for index in 0..all.len() {
        let mut less = all.clone();
        let (left_out, _) = less.remove(index);
        let verdict = try_context(&less);
        assert!(verdict.is_err(), "{} is not needed", left_out.display());
    }
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
