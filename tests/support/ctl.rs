//! Runs `rswsgictl`, which finds only the servers of one directory: what others have in `/run/rswsgi` is
//! out of its sight, as far as this user can see to it.

use super::PATIENCE;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

/// The program with these words, for the servers whose control sockets are in `dir`.
pub fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = apart(env!("CARGO_BIN_EXE_rswsgictl"));
    command.args(words);
    settle(&mut command, dir);
    command
}

/// This program, where `/run/rswsgi` is empty.
pub fn apart(program: impl AsRef<OsStr>) -> Command {
    if !is_root() || others().is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs tmpfs /run/rswsgi && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(program);
    command
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The surroundings of the program, where it is started by way of another one.
pub fn settle(command: &mut Command, dir: &Path) {
    command
        .env_remove("RSWSGI_CONTROL")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .env("RUNTIME_DIRECTORY", dir)
        .env("XDG_RUNTIME_DIR", dir)
        .stdin(Stdio::null());
}

/// What it said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
    line: String,
}

impl Said {
    #[track_caller]
    pub fn of(command: &mut Command) -> Said {
        let line = format!("{command:?}");
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        Said::at_the_end_of(child, line)
    }

    /// Of a program that was started with pipes for its output.
    #[track_caller]
    pub fn at_the_end_of(child: Child, line: String) -> Said {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(PATIENCE) else {
            // Not waited for yet, so the number is still its own.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            panic!("{line} does not end");
        };
        let Output {
            status,
            stdout,
            stderr,
        } = output.expect("read the output of a child");
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Said {
            status: status.code(),
            out: text(stdout),
            err: text(stderr),
            line,
        }
    }

    /// The exit status.
    #[track_caller]
    pub fn ended(self, status: i32) -> Said {
        assert_eq!(self.status, Some(status), "exit status of {self:#?}");
        self
    }

    /// Done, with nothing to complain about.
    #[track_caller]
    pub fn done(self) -> Said {
        let said = self.ended(0);
        assert_eq!(said.err, "", "stderr of {}", said.line);
        said
    }

    /// Every piece occurs in the output.
    #[track_caller]
    pub fn shows(self, pieces: &[&str]) -> Said {
        for piece in pieces {
            assert!(self.out.contains(piece), "no {piece:?} in {self:#?}");
        }
        self
    }

    /// Every piece occurs in what it complains about.
    #[track_caller]
    pub fn complains(self, pieces: &[&str]) -> Said {
        for piece in pieces {
            assert!(self.err.contains(piece), "no {piece:?} in {self:#?}");
        }
        self
    }

    /// The only line of output.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.out.matches('\n').count(), 1, "one line: {self:#?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs the program to its end.
#[track_caller]
pub fn ctl(dir: &Path, words: &[&str]) -> Said {
    Said::of(&mut command(dir, words))
}

/// Whether servers of others would be found, too.
pub fn stranger() -> Option<PathBuf> {
    others().filter(|_| !is_root())
}

/// A control socket of somebody else, whether anybody listens there or not.
fn others() -> Option<PathBuf> {
    let entries = std::fs::read_dir("/run/rswsgi").ok()?.flatten();
    let mut sockets = entries.map(|entry| entry.path());
    sockets.find(|path| path.extension() == Some(OsStr::new("control")))
}
