//! curl as a client: what people use, with cookies, forms, uploads, ranges.

use super::client::{Framing, Response};
use super::provision;
use super::server::Address;
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One person's curl: the cookies stay from request to request.
pub struct Curl {
    program: PathBuf,
    base: Vec<OsString>,
    origin: String,
    dir: PathBuf,
    number: Cell<u32>,
}

/// What one run of curl saw: every head, in order, and the last body.
#[derive(Debug)]
pub struct Reply {
    pub last: Response,
    /// The statuses of all heads, interim ones and redirections too.
    pub statuses: Vec<u16>,
    /// Bytes of request bodies.
    pub uploaded: u64,
    /// Connections it made.
    pub connects: u32,
}

impl Curl {
    /// For the server at this address; files are written into the directory of the test.
    pub fn new(address: &Address, dir: &Path) -> Option<Curl> {
        let program = provision::program("curl", "curl")?;
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = dir.join(format!("curl-{number}"));
        std::fs::create_dir(&dir).expect("create a directory for curl");
        // -q comes first: no settings of the user.
        let mut base: Vec<OsString> = ["-q", "-sS", "--noproxy", "*", "--max-time", "30"]
            .map(Into::into)
            .into();
        let origin = match address {
            Address::Tcp(address) => format!("http://{address}"),
            Address::Unix(path) => {
                base.extend(["--unix-socket".into(), path.into()]);
                "http://localhost".into()
            }
        };
        let jar = dir.join("cookies");
        base.extend(["-b".into(), jar.clone().into(), "-c".into(), jar.into()]);
        Some(Curl {
            program,
            base,
            origin,
            dir,
            number: Cell::new(0),
        })
    }

    /// The URL of a path, for arguments.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.run(path, [""; 0]).last
    }

    /// One run with these arguments; curl's own failure is the test's.
    #[track_caller]
    pub fn run(&self, path: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Reply {
        self.number.set(self.number.get() + 1);
        let file = |name: &str| self.dir.join(format!("{name}-{}", self.number.get()));
        let (heads, body) = (file("heads"), file("body"));
        let mut command = self.command(args);
        command.args(["-w", "%{size_upload} %{num_connects}\n", "-g"]);
        command.arg("-D").arg(&heads).arg("-o").arg(&body);
        let told = output(command.arg(self.url(path)));
        let heads = std::fs::read(&heads).expect("curl writes the heads");
        let mut heads = parse(&heads);
        let statuses = heads.iter().map(|head| head.status).collect();
        let mut last = heads.pop().expect("there is a response");
        // Without a body curl makes no file.
        last.body = std::fs::read(&body).unwrap_or_default();
        let numbers = told.lines().map(|line| line.split_once(' '));
        let (mut uploaded, mut connects) = (0, 0);
        for (size, number) in numbers.map(|pair| pair.expect("two numbers per URL")) {
            uploaded += size.parse::<u64>().expect("the size of an upload");
            connects += number.parse::<u32>().expect("a number of connections");
        }
        Reply {
            last,
            statuses,
            uploaded,
            connects,
        }
    }

    /// Many requests by one run, after curl's globbing of the path; the statuses and the bodies.
    #[track_caller]
    pub fn many(&self, path: &str, args: &[&str]) -> (Vec<u16>, Vec<String>) {
        let dir = self.dir.join("many");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("create a directory for curl");
        let mut command = self.command(args);
        command.args(["-w", "%{http_code}\n", "-o"]);
        command.arg(dir.join("#1")).arg(self.url(path));
        let statuses = output(&mut command)
            .lines()
            .map(|line| line.parse().expect("a status"))
            .collect();
        let entries = std::fs::read_dir(&dir).expect("the directory just made");
        let paths = entries.flatten().map(|entry| entry.path());
        let bodies = paths.map(|path| std::fs::read_to_string(path).expect("a text"));
        (statuses, bodies.collect())
    }

    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.base).args(args);
        command
    }
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().expect("run curl");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The heads as `curl -D` writes them, interim ones included.
#[track_caller]
fn parse(text: &[u8]) -> Vec<Response> {
    let text: String = text.iter().map(|&byte| char::from(byte)).collect(); // Latin-1
    let heads = text.split("\r\n\r\n").filter(|head| !head.is_empty());
    heads.map(parse_head).collect()
}

#[track_caller]
fn parse_head(text: &str) -> Response {
    let mut lines = text.split("\r\n");
    let line = lines.next().expect("split gives one piece at least");
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (version, status, reason) = (word(), word(), word());
    let fields = lines.map(|line| {
        let (name, value) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("field {line:?}"));
        (name.to_owned(), value.trim().to_owned())
    });
    Response {
        version,
        status: status
            .parse()
            .unwrap_or_else(|_| panic!("status line {line:?}")),
        reason,
        fields: fields.collect(),
        framing: Framing::None,
        body: Vec::new(),
    }
}
