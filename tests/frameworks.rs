//! Real parts: Flask and Django as people write them, behind a real nginx, with curl as the client.
//!
//! The statuses that nginx logged for the server behind it are the record that each test looks at.

use crate::support::nginx::Record;
use crate::support::server::Address;
use crate::support::{Curl, Nginx, Random, Running, only_rswsgi, provision, python};
use std::path::{Path, PathBuf};

mod direct;
mod django;
mod flask;
mod versions;

const MIB: usize = 1024 * 1024;

/// A site behind nginx. The fields are in the order in which they have to go away.
struct Site {
    curl: Curl,
    nginx: Nginx,
    server: Running,
}

impl Site {
    /// Puts nginx in front of a server whose first listener is a Unix socket.
    fn new(server: Running, locations: &str) -> Option<Site> {
        let address = server.address().clone();
        Site::behind(server, &address, locations)
    }

    /// The same for a socket that the server has bound itself.
    fn behind(server: Running, address: &Address, locations: &str) -> Option<Site> {
        let nginx = Nginx::start(server.dir(), address, locations)?;
        let curl = Curl::new(nginx.address(), server.dir())?;
        Some(Site {
            curl,
            nginx,
            server,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.dir().join(name)
    }

    /// wsgiref.validate raises or warns; both would be in the log.
    #[track_caller]
    fn assert_silent(self) {
        drop(self.nginx);
        let finished = self.server.finish();
        for piece in ["WSGIWarning", "wsgiref", "garbage collected", "Traceback"] {
            assert_eq!(finished.count(piece), 0, "{piece}:\n{}", finished.stderr);
        }
    }

    /// nginx has this from the server, and passed it on.
    #[track_caller]
    fn assert_passed(&self, method: &str, path: &str, status: u16) {
        let upstream = Some(status);
        (self.nginx).expect_record(method, path, Record { status, upstream });
    }

    /// nginx answered this without asking the server.
    #[track_caller]
    fn assert_by_nginx(&self, method: &str, path: &str, status: u16) {
        let upstream = None;
        (self.nginx).expect_record(method, path, Record { status, upstream });
    }
}

/// An environment of the default interpreter for these tests.
fn venv() -> Option<PathBuf> {
    if !only_rswsgi("serving a virtual environment") {
        return None;
    }
    provision::venv(&python::default())
}

/// Bytes that no compression and no mistake in an offset leaves alike.
fn noise(length: usize) -> Vec<u8> {
    let mut random = Random::new(length as u64);
    let words = (0..length.div_ceil(8)).map(|_| random.next().to_le_bytes());
    let mut bytes = words.collect::<Vec<_>>().concat();
    bytes.truncate(length);
    bytes
}

/// Writes a file of the test.
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("write a file of the test");
}

#[track_caller]
fn assert_same(left: &[u8], right: &[u8], what: &str) {
    if left != right {
        let mut pairs = left.iter().zip(right);
        let at = pairs.position(|(left, right)| left != right);
        let (left, right) = (left.len(), right.len());
        panic!("{what}: {left} and {right} bytes, first difference at {at:?}");
    }
}

#[track_caller]
fn assert_file(path: &Path, bytes: &[u8]) {
    let read = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_same(&read, bytes, &path.display().to_string());
}

/// Rows whose sum and last element tell that all of them arrived.
fn rows(count: usize) -> serde_json::Value {
    let row = |number| serde_json::json!({"number": number, "text": format!("row {number} ☃")});
    serde_json::json!({"rows": (0..count).map(row).collect::<Vec<_>>()})
}

#[track_caller]
fn assert_rows(answer: &serde_json::Value, count: usize) {
    assert_eq!(answer["count"], count);
    assert_eq!(answer["total"], count * (count - 1) / 2);
    assert_eq!(answer["last"]["text"], format!("row {} ☃", count - 1));
}

/// The connections that were accepted from this Unix socket and are open, as inodes.
fn accepted(address: &Address) -> Vec<String> {
    let Address::Unix(path) = address else {
        panic!("{address:?} is no Unix socket")
    };
    let table = std::fs::read_to_string("/proc/net/unix").expect("read /proc/net/unix");
    let rows = table.lines().map(|line| line.split_whitespace().collect());
    // Num RefCount Protocol Flags Type St Inode Path; 03 is connected (proc(5)).
    let ours = rows
        .filter(|row: &Vec<&str>| row.len() == 8 && row[5] == "03" && Path::new(row[7]) == path);
    ours.map(|row| row[6].to_owned()).collect()
}
