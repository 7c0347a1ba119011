//! The terminal of the person who starts the server: the application, which is somebody else, types nothing there.

use super::{NOBODY, common_python, server};
use crate::support::{PATIENCE, skip, wait_until};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::ttyname;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Tries on every way to a terminal, and says how each ended.
const TYPES: &str = r#"
import errno, fcntl, os, termios

def attempt(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def type_at(fd):
    for byte in b"id\n":
        fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))

def by_name(path, what):
    fd = os.open(path, os.O_RDWR)
    try:
        what(fd)
    finally:
        os.close(fd)

def take(fd):
    fcntl.ioctl(fd, termios.TIOCSCTTY, 1)

def attempts(terminal):
    found = ["tty=" + attempt(by_name, "/dev/tty", type_at)]
    found += ["take=" + attempt(by_name, terminal, take)]
    found += ["name=" + attempt(by_name, terminal, type_at)]
    for fd in range(32):
        if os.isatty(fd):
            found.append("%d=%s" % (fd, attempt(type_at, fd)))
    return " ".join(found)
"#;

/// A pseudo-terminal that everybody may open.
struct Terminal {
    /// The end of the person.
    screen: File,
    /// The end of programs.
    line: File,
    name: PathBuf,
}

impl Terminal {
    fn open() -> Terminal {
        let pty = openpty(None, None).expect("open a pseudo-terminal");
        let name = ttyname(&pty.slave).expect("it has a name");
        let everybody = fs::Permissions::from_mode(0o666);
        fs::set_permissions(&name, everybody).expect("it is ours");
        for end in [&pty.master, &pty.slave] {
            let no_wait = FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR);
            fcntl(end, no_wait).expect("a terminal does not make one wait");
            let close = FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC);
            fcntl(end, close).expect("no other test is to have it");
        }
        Terminal {
            screen: pty.master.into(),
            line: pty.slave.into(),
            name,
        }
    }

    /// What starts a program as the person at this terminal does.
    fn script(&self) -> String {
        let name = self.name.display();
        // As terminals give it: open once, for reading and writing.
        format!("exec setsid --ctty \"$@\" <>{name} >&0 2>&0")
    }

    /// What programs would read as typed.
    fn typed(&self) -> String {
        read_all(&self.line)
    }
}

fn read_all(mut file: &File) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = file.read(&mut chunk) {
        text.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What somebody can do who is of the session of the terminal: whether the kernel lets anybody type at all.
fn typed_in_the_session(python: &Path, dir: &Path) -> String {
    let terminal = Terminal::open();
    let program = format!("{TYPES}\nprint(attempts({:?}))\n", terminal.name);
    let file = dir.join("in_session.py");
    fs::write(&file, program).expect("a file");
    let mut command = Command::new("sh");
    command.args(["-c", &terminal.script(), "sh", "setpriv"]);
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    command.args(ids).arg("--clear-groups");
    let mut child = command.arg(python).arg(&file).spawn().expect("sh");
    let deadline = Instant::now() + PATIENCE;
    let mut screen = String::new();
    while child.try_wait().expect("a child").is_none() {
        screen += &read_all(&terminal.screen);
        assert!(Instant::now() < deadline, "it hangs: {screen}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    screen += &read_all(&terminal.screen);
    assert!(screen.contains("tty="), "{screen}");
    terminal.typed()
}

#[test]
fn the_application_types_nothing_into_the_terminal_of_whoever_has_started_the_server() {
    let Some(server) = server() else {
        return;
    };
    let Some(python) = common_python() else {
        return skip("no Python 3.10 or later that another user could execute");
    };
    let can_type = typed_in_the_session(&python, server.dir());
    if can_type.is_empty() {
        // dev.tty.legacy_tiocsti=0, since Linux 6.2: nobody types, so only the lack of a terminal is proven.
        let switch = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
        let text = format!("no TIOCSTI on this kernel (legacy_tiocsti: {switch:?})\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
        assert_eq!(switch.expect("who can forbid it can tell").trim(), "0");
    } else {
        assert_eq!(can_type.lines().next(), Some("id"));
    }
    let terminal = Terminal::open();
    let application = format!(
        "{TYPES}\nimport os\n\
         def look(name):\n    with open('out/new', 'w') as file:\n        file.write(attempts({:?}))\n    \
         os.rename('out/new', 'out/' + name)\n\
         look('master')\n\
         def application(environ, start_response):\n    look('worker')\n    \
         print('printed by the worker', flush=True)\n    \
         start_response('204 No Content', [])\n    return []\n",
        terminal.name
    );
    let script = terminal.script();
    let server = server
        .file("keyboard.py", &application)
        .app("keyboard")
        .arg("--user", "nobody")
        .under(["sh", "-c", &script, "sh"])
        .start();
    server.get("/").assert_status(204);
    // The server itself is at the terminal: it would stop for Ctrl-C.
    let supervisor = server.supervisor();
    let stdin = fs::read_link(format!("/proc/{}/fd/0", supervisor.number));
    assert_eq!(stdin.expect("it lives"), terminal.name);
    for who in ["master", "worker"] {
        let found = server.file(&format!("out/{who}"));
        let results: Vec<&str> = found.split(' ').collect();
        assert!(results.contains(&"tty=ENXIO"), "{who}: {found}");
        assert!(results.contains(&"take=EPERM"), "{who}: {found}");
        let name = results.iter().find(|result| result.starts_with("name="));
        let name = name.expect("it was tried");
        assert!(["name=EPERM", "name=EIO"].contains(name), "{who}: {found}");
        // Through a descriptor of the server it could read what the person types.
        assert_eq!(results.len(), 3, "a terminal is open in the {who}: {found}");
    }
    assert_eq!(terminal.typed(), "");
    let mut screen = String::new();
    wait_until("log and prints on the screen", || {
        screen += &read_all(&terminal.screen);
        let shown = ["serving keyboard", "printed by the worker"];
        shown
            .iter()
            .all(|piece| screen.contains(piece))
            .then_some(())
    });
    server.finish();
}

/// One request, and a check, print to the terminal itself; nothing can be read there.
#[test]
fn what_root_runs_once_for_another_user_reads_nothing_from_the_terminal() {
    let Some(server) = server() else {
        return;
    };
    let Some(python) = common_python() else {
        return skip("no Python 3.10 or later that another user could execute");
    };
    let looks = "import fcntl, os\n\
        found = ['%d%s' % (fd, 'rw'[fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY]) \
        for fd in range(32) if os.isatty(fd)]\n\
        print('terminals', *found, 'end', flush=True)\n\
        def application(environ, start_response):\n    \
        start_response('200 OK', [])\n    return [b'the answer']\n";
    let server = server.file("glances.py", looks);
    let dir = server.dir().to_owned();
    chown(dir.join("glances.py"), Some(NOBODY), Some(NOBODY)).expect("as root");
    for (arguments, answer) in [
        (
            &["request", "--user", "nobody", "glances"][..],
            "the answer",
        ),
        (&["--check", "--user", "nobody", "glances"], "glances: ok"),
        (&["convert", "glances.py"], "limit-request-line"),
    ] {
        let terminal = Terminal::open();
        let mut command = Command::new("sh");
        command.args(["-c", &terminal.script(), "sh"]);
        command.arg(dir.join("bin/rswsgi")).args(arguments);
        command.arg("--python").arg(&python);
        let mut child = command.current_dir(&dir).spawn().expect("sh");
        let mut screen = String::new();
        let status = wait_until("its end", || {
            screen += &read_all(&terminal.screen);
            child.try_wait().expect("a child")
        });
        screen += &read_all(&terminal.screen);
        assert!(status.success(), "{screen}");
        assert!(screen.contains(answer), "{screen}");
        let (_, open) = screen.split_once("terminals ").expect("it looks");
        let (open, _) = open.split_once(" end").expect("it says so");
        assert!(open.starts_with("1w 2w"), "{screen}");
        assert!(!open.contains('r'), "{screen}");
    }
}
