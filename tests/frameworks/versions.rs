//! One `librswsgi.so`, the sites above under every interpreter of this machine.

use super::{Site, django};
use crate::support::python::Python;
use crate::support::{Server, only_rswsgi, provision, pythons};
use std::collections::BTreeSet;
use std::io::Write;

/// Runs `check` for every interpreter; what it returns, the module in use, must be one and the same.
#[track_caller]
fn under_each(check: impl Fn(&Python, &std::path::Path) -> Option<String> + Sync) {
    if !only_rswsgi("one module for all versions of Python") {
        return;
    }
    let pythons = pythons();
    let names: Vec<_> = (pythons.iter())
        .map(|python| format!("{}.{}", python.version.0, python.version.1))
        .collect();
    // On the real stderr: a machine with one Python proves little, and should say so.
    let _ = writeln!(
        std::io::stderr(),
        "\nPython {} are tested",
        names.join(", ")
    );
    let modules: BTreeSet<String> = (pythons.iter())
        .filter_map(|python| check(python, &provision::venv(python)?))
        .collect();
    assert!(modules.len() <= 1, "one file for all: {modules:?}");
}

#[track_caller]
fn module(told: &serde_json::Value, python: &Python) -> Option<String> {
    let version = serde_json::json!([python.version.0, python.version.1]);
    assert_eq!(told["python"], version, "{python:?}");
    told["module"].as_str().map(str::to_owned)
}

#[test]
fn flask_is_served_under_every_python() {
    under_each(|python, venv| {
        let server = Server::new().unix().app("flask_site:validated").workers(2);
        let server = server.python(venv.join("bin/python3")).start();
        let site = Site::new(server, "")?;
        site.curl.get("/").assert_text("a page of Flask\n");
        site.curl.get("/visit").assert_text("1\n");
        site.curl.get("/visit").assert_text("2\n");
        let about = site.curl.get("/about").json();
        let prefix = about["prefix"].as_str().unwrap_or_default();
        assert_eq!(std::path::Path::new(prefix), venv);
        site.assert_passed("GET", "/about", 200);
        let module = module(&about, python);
        site.assert_silent();
        module
    });
}

#[test]
fn django_is_served_under_every_python() {
    under_each(|python, venv| {
        let site = django::django_in(venv, "django_site.wsgi:validated")?;
        django::write_and_read(&site, "Ann", "under every version");
        let module = module(&site.curl.get("/about").json(), python);
        site.assert_silent();
        module
    });
}
