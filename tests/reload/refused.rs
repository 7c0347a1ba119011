//! What is refused: a new version that cannot serve, while the old one goes on.

use super::{assert_keeps_serving, ours, shop, version};
use crate::support::{Running, Server};
use std::os::unix::fs::symlink;

/// As above, for a module that cannot be imported; afterwards a good one can.
#[track_caller]
fn assert_module_refused(server: Server, import: &str, said: &[&str]) {
    let text = version("two", import);
    assert_keeps_serving(server, |server| server.write("shop.py", &text), said);
}

#[test]
fn a_syntax_error_is_refused() {
    if !ours() {
        return;
    }
    let said = [
        "SyntaxError: invalid syntax",
        "importing shop raised SyntaxError",
    ];
    assert_keeps_serving(
        shop(),
        |server| server.write("shop.py", "def broken(:\n"),
        &said[1..],
    );
}

#[test]
fn an_exception_at_import_is_refused_with_its_traceback() {
    if !ours() {
        return;
    }
    let said = [
        "Traceback (most recent call last)",
        "importing shop raised LookupError: told once;",
    ];
    assert_module_refused(shop(), "raise LookupError('told once')", &said);
}

#[test]
fn a_missing_module_is_refused() {
    if !ours() {
        return;
    }
    let said = ["importing shop raised ModuleNotFoundError", "Traceback"];
    assert_module_refused(shop(), "import no_such_module_anywhere", &said);
    let remove = |server: &Running| {
        std::fs::remove_file(server.dir().join("shop.py")).expect("remove the module");
    };
    assert_keeps_serving(shop(), remove, &["there is no module 'shop'"]);
}

#[test]
fn an_application_that_leaves_at_import_is_refused() {
    if !ours() {
        return;
    }
    assert_module_refused(
        shop(),
        "sys.exit(3)",
        &["importing shop called sys.exit(3)"],
    );
    let said = ["the master ended, exited with status 4"];
    assert_module_refused(shop(), "os._exit(4)", &said);
    let said = ["the master ended, killed by SIGABRT"];
    assert_module_refused(shop(), "os.abort()", &said);
}

#[test]
fn what_is_no_application_is_refused() {
    if !ours() {
        return;
    }
    let remove = |server: &Running| server.write("shop.py", "");
    assert_keeps_serving(shop(), remove, &["no attribute 'application' or 'app'"]);
}

#[test]
fn an_import_that_hangs_is_given_up_after_start_timeout() {
    if !ours() {
        return;
    }
    let server = shop().arg("--start-timeout", "4s");
    // C code that holds the interpreter and ignores TERM does not outlive it either.
    let import = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); wait_at('never')";
    let said = ["took longer than --start-timeout (4s)"];
    let text = version("two", import);
    let began = std::time::Instant::now();
    let hang = |server: &Running| {
        std::mem::forget(server.gate("never"));
        server.write("shop.py", &text);
    };
    assert_keeps_serving(server, hang, &said);
    assert!(began.elapsed().as_secs() >= 4, "given up too early");
}

#[test]
fn workers_that_die_at_once_are_refused() {
    if !ours() {
        return;
    }
    let import = "os.register_at_fork(after_in_child=lambda: os._exit(3))";
    assert_module_refused(shop(), import, &["its workers end before they are ready"]);
}

#[test]
fn an_interpreter_that_is_gone_is_refused() {
    if !ours() {
        return;
    }
    let python = crate::support::python::default().path;
    for arguments in ["--python", "--venv"] {
        let server = shop().any_python();
        let venv = server.dir().join("venv");
        std::fs::create_dir_all(venv.join("bin")).expect("make a directory");
        let program = venv.join("bin/python");
        symlink(&python, &program).expect("link to the interpreter");
        let (value, said) = match arguments {
            "--python" => (program.clone(), "there is no such program"),
            _ => (venv, "it has no bin/python"),
        };
        let server = server.arg(arguments, value);
        let remove = |_: &Running| std::fs::remove_file(&program).expect("remove the link");
        assert_keeps_serving(server, remove, &[said]);
    }
}

#[test]
fn an_interpreter_that_does_not_work_is_refused() {
    if !ours() {
        return;
    }
    let python = crate::support::python::default().path;
    let server = shop();
    let link = server.dir().join("python");
    symlink(&python, &link).expect("link to the interpreter");
    let break_it = |_: &Running| {
        std::fs::remove_file(&link).expect("remove the link");
        symlink("/bin/false", &link).expect("link to another program");
    };
    let said = ["the master ended, exited with status 1"];
    assert_keeps_serving(server.python(&link), break_it, &said);
}

#[test]
fn a_directory_that_is_gone_is_refused() {
    if !ours() {
        return;
    }
    let server = shop();
    let code = server.dir().join("code");
    std::fs::create_dir(&code).expect("make a directory");
    let remove = |_: &Running| std::fs::remove_dir(&code).expect("remove a directory");
    assert_keeps_serving(
        server.arg("--chdir", &code),
        remove,
        &["is not a directory"],
    );
}
