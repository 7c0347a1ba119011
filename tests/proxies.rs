//! Clients behind others: the PROXY protocol, fields of trusted proxies, and the real programs that stand in
//! front of a server.

mod forwarded;
mod neighbours;
mod proxy_protocol;

use crate::support::{Client, Response, Running, Server, UnderTest, under_test, wait_until};
use serde_json::Value;

fn ours() -> bool {
    under_test() == UnderTest::Rswsgi
}

/// The basic application, with an access log of JSON lines.
fn logged(server: Server) -> Server {
    let log = server.dir().join("access.log");
    server
        .app("basic")
        .arg("--access-log", log)
        .arg("--access-log-format", "json")
}

/// The lines of the access log, once there are as many.
#[track_caller]
fn wait_lines(server: &Running, count: usize) -> Vec<Value> {
    wait_until("lines of the access log", || {
        let text = server.file("access.log");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<Value> = whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// What the application has found in its environ.
struct Environ(Value);

impl Environ {
    fn of(response: &Response) -> Environ {
        Environ(response.assert_status(200).json())
    }

    /// `None` where there is no such key.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str().expect("text"))
    }

    #[track_caller]
    fn assert(&self, key: &str, value: impl Into<Option<&'static str>>) -> &Environ {
        assert_eq!(self.get(key), value.into(), "{key}");
        self
    }
}

#[track_caller]
fn environ(client: &mut Client, fields: &str) -> Environ {
    client.send(format!(
        "GET /environ HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"
    ));
    Environ::of(&client.response())
}
