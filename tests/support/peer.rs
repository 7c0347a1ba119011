//! Which server is under test. `RSWSGI_UNDER_TEST=gunicorn` (a name on PATH, or a path to it) runs the
//! protocol modules against a peer, to see whether a test is about the protocol or about us.

use super::skip;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnderTest {
    Rswsgi,
    Gunicorn(PathBuf),
}

pub fn under_test() -> UnderTest {
    let Some(value) = std::env::var_os("RSWSGI_UNDER_TEST") else {
        return UnderTest::Rswsgi;
    };
    let path = PathBuf::from(&value);
    match path.file_name().and_then(|name| name.to_str()) {
        Some("gunicorn") => UnderTest::Gunicorn(path),
        Some("rswsgi") => UnderTest::Rswsgi,
        _ => panic!("RSWSGI_UNDER_TEST={value:?}: expected rswsgi, gunicorn or a path to gunicorn"),
    }
}

/// Marks behaviour that only rswsgi promises: `if !only_rswsgi("why") { return; }`.
#[track_caller]
pub fn only_rswsgi(promise: &str) -> bool {
    let ours = under_test() == UnderTest::Rswsgi;
    if !ours {
        skip(&format!("only rswsgi promises this: {promise}"));
    }
    ours
}
