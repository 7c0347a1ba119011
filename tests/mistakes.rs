//! Mistakes of a tired operator: the message says what is wrong and what to do next.

use crate::support::{BUILT, Server, copy_program, only_rswsgi, skip};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn ours() -> bool {
    only_rswsgi("its messages")
}

#[test]
fn a_factory_that_is_not_called_is_no_application() {
    if !ours() {
        return;
    }
    let text = "def application(environ, start_response):\n    pass\n\
                def flexible(*arguments, more=None):\n    pass\n\
                def create_app(config=None):\n    return application\n\
                def no_arguments():\n    return application\n\
                def too_many(a, b, c):\n    pass\n\
                class Bound:\n    def method(self, environ, start_response):\n        pass\n\
                bound = Bound()\n";
    let check = |target: &str| {
        let server = Server::new().file("factory.py", text);
        server
            .app(&format!("factory:{target}"))
            .flag("--check")
            .run()
    };
    for (target, signature) in [
        ("create_app", "(config=None)"),
        ("no_arguments", "()"),
        ("too_many", "(a, b, c)"),
    ] {
        let finished = check(target);
        finished.assert_status(78);
        finished.assert_says(&format!(
            "factory:{target} takes {signature}, not (environ, start_response); \
            if it makes the application, call it: 'factory:{target}(...)'"
        ));
    }
    for target in ["application", "flexible", "bound.method", "create_app()"] {
        check(target).assert_status(0);
    }
}

#[test]
fn a_module_that_the_application_lacks_is_told_with_the_interpreter() {
    if !ours() {
        return;
    }
    let server = Server::new().file("needs.py", "import no_such_library\n");
    let finished = server.app("needs").flag("--check").run();
    finished.assert_status(78);
    finished.assert_says("No module named 'no_such_library' (the interpreter is ");
    finished.assert_says("; --venv names another)");
}

#[test]
fn a_package_that_cannot_be_read_is_told_from_one_that_is_not_there() {
    if !ours() {
        return;
    }
    let mut server = Server::new().app("package.wsgi").flag("--check");
    let package = server.dir().join("package");
    fs::create_dir(&package).expect("a new directory");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    // Root may read everything.
    if nix::unistd::Uid::effective().is_root() {
        let python = Path::new("/usr/bin/python3");
        if !python.exists() {
            return skip("there is no Python that everybody may execute");
        }
        set(server.dir(), 0o755);
        server = server.python(python).arg("--user", "nobody");
    }
    set(&package, 0o000);
    let finished = server.run();
    finished.assert_status(78);
    finished.assert_says("there is no module 'package.wsgi' (the directory is ");
    finished.assert_says(&format!(
        " may not read {} (by its mode, or --isolation)",
        package.display()
    ));
}

#[test]
fn an_import_that_hangs_is_told_with_the_limit_by_check_too() {
    if !ours() {
        return;
    }
    let text = "import threading\nthreading.Event().wait()\n";
    let server = Server::new().file("hangs.py", text).app("hangs");
    let finished = server.arg("--start-timeout", "1s").flag("--check").run();
    finished.assert_status(78);
    finished.assert_says("cannot serve hangs: importing it took longer than --start-timeout (1s)");
}

#[test]
fn a_configuration_without_a_target_is_named() {
    if !ours() {
        return;
    }
    let server = Server::new().file("shop.toml", "workers = 3\n");
    let file = server.dir().join("shop.toml");
    let finished = server.arg("--config", &file).run();
    finished.assert_status(78);
    finished.assert_says(&format!(
        "no application given: {} has no target",
        file.display()
    ));
}

#[test]
fn check_warns_of_variables_that_are_unknown() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").env("RSWSGI_WROKERS", "3");
    let finished = server.flag("--check").run();
    finished.assert_status(0);
    finished.assert_says("RSWSGI_WROKERS");
}

#[test]
fn a_command_without_its_argument_points_to_its_own_help() {
    if !ours() {
        return;
    }
    let output = Command::new(BUILT).arg("convert").output().expect("rswsgi");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("see rswsgi convert --help"), "{said}");
}

#[test]
fn a_program_without_its_module_says_what_is_missing() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").unset("RSWSGI_MODULE");
    let alone = server.dir().join("bin/rswsgi");
    fs::create_dir(alone.parent().expect("bin")).expect("a new directory");
    copy_program(Path::new(BUILT), &alone);
    let finished = server.program(&alone).flag("--check").run();
    finished.assert_status(78);
    finished.assert_says("rswsgi has no librswsgi.so beside it or in ../lib/rswsgi, nor has ");

    let server = Server::new().app("basic");
    let broken = server.dir().join("broken.so");
    fs::write(&broken, "no library").expect("a new file");
    let finished = server.env("RSWSGI_MODULE", &broken).flag("--check").run();
    finished.assert_status(78);
    finished.assert_says("rswsgi cannot load its module: ");
    finished.assert_says(&broken.display().to_string());
}
