//! `top` in a real terminal: a pseudo-terminal whose other end is the test.

use crate::support::ctl::settle;
use crate::support::{Answer, FakeServer, PATIENCE, Pid, Scratch, wait_until};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use rswsgi::control::{Kind, Refused, Reply, Request, SCHEMA, Verb, stats};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// `top`, and the terminal in which it runs.
struct Terminal {
    child: Child,
    /// The end of the person.
    keys: File,
    /// The end of the program; keeps the terminal alive after the program.
    line: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    before: String,
}

impl Terminal {
    fn start(dir: &Path, control: &Path) -> Terminal {
        let size = Winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("open a pseudo-terminal");
        let keys = File::from(pty.master);
        let line = pty.slave;
        let before = state(&line);
        // A session of its own, so that this is its controlling terminal.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_rswsgictl")]);
        command.arg("--control").arg(control);
        command.args(["top", "--interval", "100ms"]);
        settle(&mut command, dir);
        let end = || Stdio::from(line.try_clone().expect("duplicate a descriptor"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let child = child.expect("start the program");
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reader, of_thread) = (
            keys.try_clone().expect("duplicate a descriptor"),
            Arc::clone(&shown),
        );
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                let mut shown = of_thread.lock().expect("no panic with the lock");
                shown.extend_from_slice(&chunk[..length]);
            }
        });
        Terminal {
            child,
            keys,
            line,
            shown,
            before,
        }
    }

    fn shown(&self) -> String {
        let shown = self.shown.lock().expect("no panic with the lock");
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// The lines on the screen.
    fn screen(&self) -> String {
        screen(&self.shown())
    }

    #[track_caller]
    fn wait_for(&self, piece: &str) {
        wait_until(&format!("{piece:?} on the screen"), || {
            self.screen().contains(piece).then_some(())
        });
    }

    fn press(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .expect("write into the terminal");
    }

    fn program(&self) -> Pid {
        let setsid = Pid::of_child(self.child.id().cast_signed());
        wait_until("the program", || {
            // setsid(1) forks only where it has to.
            let children = setsid.children();
            let command = |pid: &Pid| std::fs::read_to_string(format!("/proc/{}/comm", pid.number));
            let all = children.into_iter().chain([setsid]);
            let mut named = all.filter(|pid| command(pid).is_ok_and(|name| name == "rswsgictl\n"));
            named.next()
        })
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = ["rows", &rows.to_string(), "cols", &columns.to_string()];
        stty(&self.line, &size);
    }

    /// Waits for the end; the terminal is to be as it was before.
    #[track_caller]
    fn end(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {}",
                self.shown()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert_eq!(state(&self.line), self.before, "the state of the terminal");
        wait_until("the screen of before", || {
            let shown = self.shown();
            let last = |piece: &str| shown.rfind(piece);
            let left =
                last("\x1b[?1049l") > last("\x1b[?1049h") && last("\x1b[?25h") > last("\x1b[?25l");
            left.then_some(())
        });
        status
    }
}

/// `stty -a`, without the size, which is not the program's.
fn state(line: &OwnedFd) -> String {
    let text = stty(line, &["-a"]);
    let lines = text.lines().map(|line| match line.starts_with("speed") {
        true => line.split(';').next().unwrap_or_default(),
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn stty(line: &OwnedFd, words: &[&str]) -> String {
    let end = line.try_clone().expect("duplicate a descriptor");
    let output = Command::new("stty")
        .args(words)
        .stdin(Stdio::from(end))
        .output();
    let output = output.expect("start stty");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What such a stream leaves on a terminal: of the control sequences (ECMA-48) those that place the
/// cursor and clear; attributes change no character.
fn screen(stream: &str) -> String {
    let mut cells: BTreeMap<(usize, usize), char> = BTreeMap::new();
    let (mut row, mut column) = (1, 1);
    let mut rest = stream;
    while let Some(c) = rest.chars().next() {
        if let Some(sequence) = rest.strip_prefix("\x1b[") {
            let Some(end) = sequence.find(|c: char| ('@'..='~').contains(&c)) else {
                break;
            };
            let (arguments, tail) = sequence.split_at(end);
            match tail.chars().next() {
                Some('H') => {
                    let (r, c) = arguments.split_once(';').unwrap_or((arguments, ""));
                    (row, column) = (r.parse().unwrap_or(1), c.parse().unwrap_or(1));
                }
                Some('J') => cells.clear(),
                _ => {}
            }
            rest = &tail[1..];
            continue;
        }
        cells.insert((row, column), c);
        column += 1;
        rest = &rest[c.len_utf8()..];
    }
    let mut text = String::new();
    let (mut row, mut column) = (1, 1);
    for ((r, c), symbol) in cells {
        while row < r {
            text.push('\n');
            (row, column) = (row + 1, 1);
        }
        text += &" ".repeat(c.saturating_sub(column));
        text.push(symbol);
        column = c + 1;
    }
    text
}

fn reply(request: &Request) -> Answer {
    match &request.verb {
        Verb::Stats => {
            let mut stats = stats::Stats {
                schema: SCHEMA,
                server: crate::support::fake::process(),
                ..stats::Stats::default()
            };
            let worker = |slot| stats::Worker {
                slot,
                pid: 100 + slot as i32,
                state: "idle".into(),
                ..stats::Worker::default()
            };
            stats.apps.push(stats::App {
                name: "shop".into(),
                workers: (0..3).map(worker).collect(),
                ..stats::App::default()
            });
            Answer::Reply(Reply::Stats(Box::new(stats)))
        }
        _ => Refused::new(Kind::NoSuchWorker, "this worker has gone home").into(),
    }
}

fn server(dir: &Scratch) -> FakeServer {
    FakeServer::with_app(&dir.file("a.control"), "shop", reply)
}

#[test]
fn it_shows_pages_and_leaves_the_terminal_as_it_was() {
    let dir = Scratch::new();
    let server = server(&dir);
    for leave in ["q", "\x03"] {
        let mut top = Terminal::start(dir.path(), &server.path);
        top.wait_for("workers: 3, by running");
        assert!(top.shown().contains("\x1b[?1049h"), "a screen of its own");
        assert_ne!(state(&top.line), top.before, "it reads single keys");
        top.press("s");
        top.wait_for("by slot");
        top.press("?");
        top.wait_for("esc goes back");
        top.press("\x1b");
        top.wait_for("workers: 3");
        top.press("\r");
        top.wait_for("stack of worker 0 of shop");
        top.wait_for("this worker has gone home");
        top.press("\x1b");
        top.wait_for("workers: 3");
        top.press(leave);
        assert_eq!(top.end().code(), Some(0));
    }
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let dir = Scratch::new();
    let server = server(&dir);
    let mut top = Terminal::start(dir.path(), &server.path);
    top.wait_for("workers: 3, by running");
    for (columns, rows) in [(60, 14), (20, 5), (1, 1), (150, 50)] {
        top.resize(columns, rows);
        if columns > 20 {
            let rule = format!(
                "workers: 3, by running {}",
                "─".repeat(usize::from(columns) - 26)
            );
            top.wait_for(&rule);
            assert!(!top.shown().contains("panicked"));
        }
    }
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
}

/// Ctrl-Z gives the terminal back and takes it again; in between the program would be stopped, if its
/// session had a shell.
#[test]
fn everything_is_drawn_again_after_a_pause() {
    let dir = Scratch::new();
    let server = server(&dir);
    let mut top = Terminal::start(dir.path(), &server.path);
    top.wait_for("workers: 3");
    let before = top.shown().len();
    top.press("\x1a");
    wait_until("a second screen", || {
        let since = &top.shown()[before..];
        let (left, entered) = (since.find("\x1b[?1049l")?, since.rfind("\x1b[?1049h")?);
        assert!(left < entered);
        screen(&since[entered..])
            .contains("workers: 3")
            .then_some(())
    });
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
}

#[test]
fn a_signal_ends_it_after_it_has_given_back_the_terminal() {
    let dir = Scratch::new();
    let server = server(&dir);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let top = Terminal::start(dir.path(), &server.path);
        top.wait_for("workers: 3");
        top.program().signal(signal);
        let status = top.end();
        // setsid(1) tells the end of its child as a shell does.
        let ended = status.signal().or(status.code().map(|code| code - 128));
        assert_eq!(ended, Some(signal as i32), "{status:?}");
    }
}

#[test]
fn a_server_that_goes_is_waited_for() {
    let dir = Scratch::new();
    let first = server(&dir);
    let mut top = Terminal::start(dir.path(), &first.path);
    top.wait_for("workers: 3");
    drop(first);
    top.wait_for("no answer, trying again");
    let _second = server(&dir);
    top.wait_for("never reloaded");
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
}
