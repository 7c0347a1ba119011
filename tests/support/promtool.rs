//! The parser of Prometheus itself, which reads a page of metrics and objects.

use super::skip;
use std::io::Write;
use std::process::{Command, Stdio};

/// False, and said loudly, where it is not.
pub fn is_here() -> bool {
    let found = Command::new("promtool").arg("--version").output().is_ok();
    if !found {
        skip("promtool is not installed (Debian: prometheus)");
    }
    found
}

/// Nothing is wrong with the page, and nothing could be better.
#[track_caller]
pub fn assert_accepts(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run promtool");
    let mut input = promtool.stdin.take().expect("it is a pipe");
    input.write_all(page.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{page}");
    assert_eq!(said, "", "{page}");
}
