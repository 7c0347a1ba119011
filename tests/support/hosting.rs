//! A server with many apps: a host file, a directory with a file per app, and their sockets.

use super::server::Address;
use super::{Client, Response, Running, Said, Server, ctl, python};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// `host.toml`, and `apps/`, in the directory of a test. Apps listen on `own/NAME.sock`.
pub struct Hosting {
    server: Server,
}

/// The same, started.
pub struct Hosted {
    pub server: Running,
}

impl Hosting {
    /// `host`: more lines of the host file.
    pub fn new(host: &str) -> Hosting {
        Hosting::on(Server::new(), host)
    }

    /// On a server of a special kind.
    pub fn on(server: Server, host: &str) -> Hosting {
        let server = server.default_workers().bind_nothing();
        for name in ["apps", "sockets"] {
            std::fs::create_dir(server.dir().join(name)).expect("a new directory");
        }
        let own = |name: &str| !host.lines().any(|line| line.starts_with(name));
        let mut text = "apps-dir = \"apps\"\n".to_owned();
        if own("python") {
            let _ = writeln!(text, "python = {:?}", python::default().path);
        }
        for (name, line) in [
            ("workers", "workers = 1"),
            ("bind", "bind = \"unix:sockets/{name}.sock\""),
            ("chdir", "chdir = \".\""),
        ] {
            if own(name) {
                let _ = writeln!(text, "{line}");
            }
        }
        let file = server.dir().join("host.toml");
        std::fs::write(&file, text + host).expect("write the host file");
        Hosting {
            server: server.any_python().arg("--config", file),
        }
    }

    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    /// `apps/NAME.toml`
    pub fn app(self, name: &str, text: &str) -> Hosting {
        write(self.dir(), name, text);
        self
    }

    pub fn file(mut self, name: &str, text: &str) -> Hosting {
        self.server = self.server.file(name, text);
        self
    }

    pub fn change(mut self, change: impl FnOnce(Server) -> Server) -> Hosting {
        self.server = change(self.server);
        self
    }

    pub fn expect_error(self, piece: &str) -> Hosting {
        self.change(|server| server.expect_error(piece))
    }

    #[track_caller]
    pub fn start(self) -> Hosted {
        Hosted {
            server: self.server.start(),
        }
    }

    pub fn into_server(self) -> Server {
        self.server
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    let file = dir.join("apps").join(format!("{name}.toml"));
    // Renamed into its place: nobody reads half of it.
    let new = dir.join("new");
    std::fs::write(&new, text).expect("write the file of an app");
    std::fs::rename(&new, file).expect("rename within the test's directory");
}

impl Hosted {
    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    pub fn write(&self, name: &str, text: &str) {
        write(self.dir(), name, text);
    }

    pub fn remove(&self, name: &str) {
        let file = self.dir().join("apps").join(format!("{name}.toml"));
        std::fs::remove_file(file).expect("it is there");
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir().join("sockets").join(format!("{name}.sock"))
    }

    #[track_caller]
    pub fn connect(&self, name: &str) -> Client {
        let address = Address::Unix(self.socket(name));
        Client::try_connect(&address)
            .unwrap_or_else(|error| panic!("cannot connect to {name}: {error}"))
    }

    #[track_caller]
    pub fn get(&self, name: &str, path: &str) -> Response {
        let mut client = self.connect(name);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        let response = client.response();
        client.expect_end();
        response
    }

    /// `rswsgictl` with these words.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Said {
        let run = self.dir().join("run");
        let socket = run.join("rswsgi.control");
        let socket = socket.to_str().expect("a path of the test is UTF-8");
        ctl(&run, &[&["--control", socket], words].concat())
    }

    /// What `rswsgictl app list` says of an app.
    #[track_caller]
    pub fn app(&self, name: &str) -> Value {
        let list = self.ctl(&["--json", "app", "list"]).done().json();
        let apps = list["apps"].as_array().expect("a list").clone();
        let mut apps = apps.into_iter().filter(|app| app["app"] == name);
        let app = apps
            .next()
            .unwrap_or_else(|| panic!("no app {name}: {list}"));
        assert_eq!(apps.next(), None, "{name} is there twice");
        app
    }

    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.app(name)["state"].as_str().expect("a text").to_owned()
    }
}
