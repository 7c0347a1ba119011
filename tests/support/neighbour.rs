//! A program in front of the server under test: its own process, configuration and directory.

use super::server::Address;
use super::{Client, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Goes out of scope before the server it stands in front of: declare it later.
pub struct Neighbour {
    child: Child,
    address: Address,
    dir: PathBuf,
}

/// An address that nobody else has: a port that is free on a loopback address of our own. (Not every
/// program takes a socket that is passed to it.)
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let pid = std::process::id().to_le_bytes();
    let ip = Ipv4Addr::new(127, 1 + pid[0] % 250, 1 + pid[1] % 250, 1 + number[0] % 250);
    let listener = TcpListener::bind((ip, 0)).expect("bind a free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
}

/// `text` with each piece replaced; what is not there is a mistake of the test, or of the text.
#[track_caller]
pub fn replaced(text: &str, pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "there is no {old:?} in\n{text}");
        text.replace(old, new)
    })
}

impl Neighbour {
    /// `command` runs in `dir`, stays in the foreground and soon listens on `address`.
    pub fn start(mut command: Command, dir: &Path, address: SocketAddr) -> Neighbour {
        let output = File::create(dir.join("output")).expect("create a log");
        let errors = output.try_clone().expect("duplicate a descriptor");
        command.current_dir(dir).stdin(Stdio::null());
        command.stdout(output).stderr(errors);
        // Where programs keep what they think they need.
        for name in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, dir);
        }
        let line = format!("{command:?}");
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let mut neighbour = Neighbour {
            child,
            address: Address::Tcp(address),
            dir: dir.to_owned(),
        };
        let deadline = Instant::now() + PATIENCE;
        while Client::try_connect(&neighbour.address).is_err() {
            let ended = neighbour.child.try_wait().expect("wait for our own child");
            let late = Instant::now() > deadline;
            if ended.is_some() || late {
                panic!("{line} does not listen ({ended:?}):\n{}", neighbour.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        neighbour
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        let client = Client::try_connect(&self.address);
        client.unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.log()))
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        ["output", "error.log"].map(read).concat()
    }

    fn stop(&mut self) -> Result<(), String> {
        // A child that was not waited for keeps its number.
        let _ = kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        );
        let deadline = Instant::now() + PATIENCE;
        while self
            .child
            .try_wait()
            .expect("wait for our own child")
            .is_none()
        {
            if Instant::now() > deadline {
                return Err("it does not stop".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let verdict = self.stop();
        if verdict.is_err() {
            let _ = self.child.kill(); // fails only for a child that has ended
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.dir.display(), self.log());
        } else if let Err(reason) = verdict {
            panic!("{}: {reason}\n{}", self.dir.display(), self.log());
        }
    }
}
