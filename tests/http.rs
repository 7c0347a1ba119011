//! RFC 9110 and RFC 9112 by raw bytes: what is refused, what is served, what ends a connection.

use crate::support::Server;

#[test]
fn serves_a_request() {
    let server = Server::new().app("basic").start();
    let mut client = server.connect();
    client.get("/hello").assert_text("hello\n");
    client.get("/hello").assert_text("hello\n");
}
