//! The configuration file is read again by a reload.

use super::{assert_keeps_serving, ours, shop};
use crate::support::{Server, wait_until};
use nix::sys::signal::Signal;

/// With a configuration file that says this.
fn configured(text: &str) -> Server {
    let server = shop().file("rswsgi.toml", text);
    let path = server.dir().join("rswsgi.toml");
    server.arg("--config", path)
}

#[test]
fn the_configuration_file_is_read_again() {
    if !ours() {
        return;
    }
    let server = configured("workers = 2\n").default_workers().start();
    let workers = |count: usize| {
        wait_until(&format!("{count} workers of one master"), || {
            let masters = server.masters();
            (masters.len() == 1 && masters[0].children().len() == count).then_some(())
        });
    };
    workers(2);
    server.write("rswsgi.toml", "workers = 3\n");
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    workers(3);
    server.get("/").assert_text("one");
    server.finish();
}

#[test]
fn a_mistake_in_the_configuration_file_is_refused() {
    if !ours() {
        return;
    }
    for (text, said) in [
        (
            "keep-alive = 'long'\n",
            "rswsgi.toml:1: keep-alive: \"long\" is not a duration",
        ),
        (
            "\nkeepalive = 2\n",
            "rswsgi.toml:2: unknown setting \"keepalive\"; did you mean \"keep-alive\"?",
        ),
        ("keep-alive = ", "rswsgi.toml:1: "),
    ] {
        assert_keeps_serving(
            configured("keep-alive = 30\n"),
            |server| server.write("rswsgi.toml", text),
            &[said],
        );
    }
}

#[test]
fn a_configuration_file_that_is_gone_is_refused() {
    if !ours() {
        return;
    }
    assert_keeps_serving(
        configured("keep-alive = 30\n"),
        |server| std::fs::remove_file(server.dir().join("rswsgi.toml")).expect("it was there"),
        &["cannot read the configuration "],
    );
}
