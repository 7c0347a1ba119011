//! Configurations that mean harm, or are not what they seem: whoever converts them gets an answer.

use super::{converted, run, text, write};
use crate::support::Scratch;
use std::fs;

/// Refused with this reason.
#[track_caller]
fn assert_refused(dir: &Scratch, name: &str, reason: &str) {
    let output = run(dir, &["convert", name]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{name}: {stderr}");
    assert!(stderr.contains(reason), "{name}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{name}");
}

#[test]
fn a_configuration_that_ends_its_interpreter_is_told_so() {
    let dir = Scratch::new();
    for (name, line) in [
        ("quiet.py", "import sys; sys.exit(0)"),
        ("sudden.py", "import os; os._exit(0)"),
    ] {
        write(&dir, name, &format!("workers = 2\n{line}\n"));
        let reason =
            format!("{name} cannot be executed: it ends the interpreter before its own end");
        assert_refused(&dir, name, &reason);
    }
}

#[test]
fn what_a_configuration_leaves_running_is_not_waited_for() {
    let dir = Scratch::new();
    write(&dir, "wait", "");
    let forks = "import os, time\n\
        if os.fork() == 0:\n    \
            null = os.open(os.devnull, os.O_RDWR)\n    \
            os.dup2(null, 1)\n    os.dup2(null, 2)\n    \
            while os.path.exists('wait'):\n        time.sleep(0.02)\n    \
            os._exit(0)\n\
        workers = 3\n";
    write(&dir, "forks.py", forks);
    let made = converted(&dir, &["forks.py"]);
    assert!(made.contains("workers = \"3\""), "{made}");
    fs::remove_file(dir.file("wait")).expect("it is ours");
}

#[test]
fn a_configuration_without_end_is_refused() {
    let dir = Scratch::new();
    let floods = "import os\n\
        for fd in range(3, 32):\n    \
            try:\n        \
                while os.isatty(fd) is False and os.fstat(fd).st_mode & 0o170000 == 0o010000:\n            \
                    os.write(fd, b'x' * 65536)\n    \
            except OSError:\n        pass\n";
    write(&dir, "floods.py", floods);
    assert_refused(&dir, "floods.py", "it defines more than 1 MiB");
    write(&dir, "large.py", "workers = 'x' * (2 << 20)\n");
    assert_refused(&dir, "large.py", "it defines more than 1 MiB");
    let large = format!("[uwsgi]\nmodule = shop\n{}", "# more\n".repeat(1 << 18));
    write(&dir, "large.ini", &large);
    assert_refused(&dir, "large.ini", "it has more than 1 MiB");
}

#[test]
fn numbers_that_no_setting_has_are_no_reason_to_fail() {
    let dir = Scratch::new();
    let text =
        "keepalive = float('inf')\nmax_requests = 10 ** 400\nown = float('nan')\nworkers = 2\n";
    write(&dir, "numbers.py", text);
    let made = converted(&dir, &["numbers.py"]);
    assert!(made.contains("workers = \"2\""), "{made}");
}
