//! A real nginx in front of the server under test: its own process, configuration and directory.

use super::server::Address;
use super::{PATIENCE, provision, wait_until};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Goes out of scope before the server it stands in front of: declare it later.
pub struct Nginx {
    child: Child,
    address: Address,
    dir: PathBuf,
    expected: Vec<String>,
}

impl Nginx {
    /// Passes every request to the Unix socket, except what the `locations` (nginx's language) take.
    /// `dir` is the directory of the test, so the harness finds whatever nginx leaves running.
    pub fn start(dir: &Path, upstream: &Address, locations: &str) -> Option<Nginx> {
        let program = provision::program("nginx", "nginx-light")?;
        let Address::Unix(upstream) = upstream else {
            panic!("nginx is to use a Unix socket, not {upstream:?}")
        };
        let prefix = dir.join("nginx");
        fs::create_dir(&prefix).expect("create the directory of nginx");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let text = configuration(&address.to_string(), upstream, locations);
        fs::write(prefix.join("nginx.conf"), text).expect("write the configuration of nginx");

        let mut command = Command::new(program);
        command.arg("-p").arg(&prefix).args(["-c", "nginx.conf"]);
        command.args(["-e", "error.log"]).current_dir(&prefix);
        // Listening sockets it inherits: how nginx replaces its own binary. Nothing to wait for then.
        command.env("NGINX", "3;");
        let inherited = FdMapping {
            parent_fd: listener.into(),
            child_fd: 3,
        };
        command
            .fd_mappings(vec![inherited])
            .expect("one descriptor does not collide");
        let stderr = fs::File::create(prefix.join("stderr")).expect("create a log of nginx");
        command.stdin(Stdio::null()).stderr(stderr);
        let child = command.spawn().expect("start nginx");
        Some(Nginx {
            child,
            address: Address::Tcp(address),
            dir: prefix,
            expected: Vec::new(),
        })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until the last request of this method and path is logged like this: nginx logs a request
    /// after the client has its answer.
    #[track_caller]
    pub fn expect_record(&self, method: &str, path: &str, record: Record) {
        let Record { status, upstream } = record;
        let upstream = upstream.map_or("-".into(), |status| status.to_string());
        let (start, wanted) = (format!("{method} {path} "), format!("{status} {upstream}"));
        wait_until(&format!("nginx to log {start}{wanted}"), || {
            let log = fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
            let last = log
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix(&start))?;
            (last == wanted).then_some(())
        });
    }

    /// Lines of the error log with this piece are what the test provokes.
    pub fn expect(&mut self, piece: &str) {
        self.expected.push(piece.into());
    }

    fn stop(&mut self) -> Result<(), String> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // A child that was not waited for keeps its number.
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("wait for our own child") {
                Some(status) => break status,
                None if Instant::now() > deadline => return Err("it does not stop".into()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if !status.success() {
            return Err(format!("it ended with {status}"));
        }
        let complaints = self.complaints();
        if !complaints.is_empty() {
            return Err(format!("it complained:\n{}", complaints.join("\n")));
        }
        Ok(())
    }

    /// What nginx found wrong, also with the server behind it.
    fn complaints(&self) -> Vec<String> {
        let levels = ["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"];
        let log = self.log();
        let lines = log
            .lines()
            .filter(|line| levels.iter().any(|level| line.contains(level)));
        // How nginx works with large bodies, not a complaint.
        let lines = lines.filter(|line| !line.contains("is buffered to a temporary file"));
        let lines = lines.filter(|line| !self.expected.iter().any(|piece| line.contains(piece)));
        lines.map(str::to_owned).collect()
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        read("stderr") + &read("error.log")
    }
}

/// How nginx saw one request.
pub struct Record {
    /// What the client got.
    pub status: u16,
    /// What nginx got from the server; nothing when it answered by itself.
    pub upstream: Option<u16>,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let verdict = self.stop();
        if verdict.is_err() {
            let _ = self.child.kill(); // fails only for a child that has ended
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- nginx:\n{}", self.complaints().join("\n"));
        } else if let Err(reason) = verdict {
            panic!("nginx: {reason}\n{}", self.log());
        }
    }
}

fn configuration(address: &str, upstream: &Path, locations: &str) -> String {
    // Its workers must be able to read the checkout and to connect: they stay who we are.
    let user = match nix::unistd::geteuid().is_root() {
        true => "user root;",
        false => "",
    };
    let upstream = upstream.display();
    format!(
        "daemon off;
        {user}
        worker_processes 1;
        pid nginx.pid;
        error_log error.log notice;
        events {{ worker_connections 512; }}
        http {{
            log_format record '$request_method $request_uri $status $upstream_status';
            access_log access.log record;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            scgi_temp_path scgi;
            uwsgi_temp_path uwsgi;
            client_max_body_size 64m;
            client_body_buffer_size 1m;
            keepalive_requests 10000;
            types {{ text/css css; text/javascript js; image/svg+xml svg; }}
            default_type application/octet-stream;
            upstream app {{
                server unix:{upstream} max_fails=0;
                keepalive 8;
            }}
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            server {{
                listen {address};
                location / {{ proxy_pass http://app; }}
                {locations}
            }}
        }}
        "
    )
}
