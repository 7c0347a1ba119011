//! A client of the control socket that sends exactly the bytes it is told to.

use super::{PATIENCE, Running};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the server puts its control socket when nobody says anything.
pub fn path(server: &Running, app: &str) -> PathBuf {
    server.dir().join("run").join(format!("{app}.control"))
}

pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    #[track_caller]
    pub fn connect(path: &Path) -> Control {
        let stream = UnixStream::connect(path)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", path.display()));
        let timeouts = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        timeouts.expect("thirty seconds are a valid timeout");
        Control {
            stream: BufReader::new(stream),
        }
    }

    /// To the socket at its usual place.
    #[track_caller]
    pub fn of(server: &Running, app: &str) -> Control {
        Control::connect(&path(server, app))
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("send to the control socket");
    }

    pub fn set_patience(&mut self, patience: Duration) {
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Some(patience)).expect("a timeout");
        stream.set_read_timeout(Some(patience)).expect("a timeout");
    }

    /// The next line, as it came; empty at the end of the connection.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        read.expect("a reply, or the end of the connection");
        line
    }

    #[track_caller]
    pub fn reply(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Sends one request, given without its version, and waits for the reply.
    #[track_caller]
    pub fn ask(&mut self, mut request: Value) -> Value {
        request["v"] = 1.into();
        self.send(format!("{request}\n"));
        self.reply()
    }

    /// The same, for one that is done.
    #[track_caller]
    pub fn done(&mut self, request: Value) -> Value {
        let reply = self.ask(request.clone());
        assert_eq!(reply["ok"], true, "{request}: {reply}");
        reply
    }

    /// The same, for one that is refused as this kind.
    #[track_caller]
    pub fn refused(&mut self, request: Value, kind: &str) -> Value {
        let reply = self.ask(request.clone());
        assert_eq!(reply["ok"], false, "{request}: {reply}");
        assert_eq!(reply["kind"], kind, "{request}: {reply}");
        reply
    }

    /// The statistics of the only app.
    #[track_caller]
    pub fn app(&mut self) -> Value {
        let reply = self.done(serde_json::json!({"do": "stats"}));
        reply["apps"][0].clone()
    }

    /// Sends nothing more.
    pub fn end(&self) {
        // It may be closed already.
        let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Everything that comes until the end.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        read.expect("the end of the connection");
        rest
    }
}
