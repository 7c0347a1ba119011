//! The pid file of root among users who mean harm.

use super::{ours, pid_file};
use crate::privileges::{NOBODY, common_python};
use crate::support::server::pid_in;
use crate::support::{Server, skip};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Locks what it can open, says what that was, and holds it until its standard input ends.
const HOLDS: &str = "import fcntl, sys\n\
    held = []\n\
    for name in sys.argv[1:]:\n    \
        try:\n        \
            file = open(name)\n        \
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        \
            held.append(file)\n    \
        except OSError as error:\n        \
            held.append(type(error).__name__)\n\
    print(*(getattr(entry, 'name', entry) for entry in held), flush=True)\n\
    sys.stdin.read()\n";

/// Another user, who can read the pid file.
fn holder(python: &Path, file: &Path) -> (Child, String) {
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let mut command = Command::new("setpriv");
    command.args(ids).arg("--clear-groups").arg(python);
    command.args(["-c", HOLDS]).arg(file);
    command.arg(file.with_extension("pid.lock"));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("setpriv");
    let mut said = String::new();
    let output = child.stdout.as_mut().expect("a pipe");
    let read = BufReader::new(output).read_line(&mut said);
    read.expect("what it holds");
    (child, said.trim_end().to_owned())
}

#[test]
fn another_user_who_reads_the_pid_file_keeps_no_server_from_starting() {
    if !ours() {
        return;
    }
    if !Uid::effective().is_root() {
        return skip("only root can play another user");
    }
    let Some(python) = common_python() else {
        return skip("no Python 3.10 or later that another user could execute");
    };
    let server = Server::new().app("procs");
    let file = pid_file(&server);
    let mut server = server.arg("--pid-file", &file).start();
    let first = pid_in(&file).expect("a pid file");
    let mode = |name: &Path| {
        fs::metadata(name)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    let lock = file.with_extension("pid.lock");
    assert_eq!((mode(&file), mode(&lock)), (0o644, 0o600));
    let (mut holder, holds) = holder(&python, &file);
    // The number is for everybody, and so is a lock on that file, which means nothing.
    assert_eq!(holds, format!("{} PermissionError", file.display()));
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    server.read_notifications();
    server.signal(Signal::SIGUSR2);
    server.wait_notified("READY=1");
    server.log.wait_for("upgraded from ");
    let second = Server::new().app("procs").arg("--pid-file", &file);
    second.expect_error("cannot lock").run().assert_status(69);
    let master = server.master();
    server.expect_status(137);
    for piece in ["killed by SIGKILL", "the supervisor is gone"] {
        server.expect_error(piece);
    }
    server.signal(Signal::SIGKILL);
    first.wait_gone();
    master.wait_gone();
    let again = Server::new().app("procs").arg("--pid-file", &file).start();
    assert_eq!(pid_in(&file), Some(again.supervisor()));
    again.get("/pid").assert_status(200);
    again.finish();
    assert!(!file.exists() && !lock.exists(), "they are left");
    drop(holder.stdin.take());
    holder.wait().expect("a child");
    server.finish();
}
