//! Another kernel for a test: User Mode Linux (`linux.uml` of Debian's user-mode-linux), with the files of
//! this machine and nothing else of it. For what a test must not, or cannot, have of the kernel here.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::{Scratch, skip};

/// It is many times slower than the machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// Set where the test runs in it.
pub const INSIDE: &str = "RSWSGI_TEST_KERNEL";

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What is around the test there: everything that it writes is in memory.
const SURROUNDINGS: &str = "
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /dev
mkdir /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/full c 1 7
mknod -m 666 /dev/tty c 5 0
ip link set lo up
";

/// Runs the tests with names that begin so, `count` of them, in a kernel of its own, as root, and fails if
/// one does. Nothing is run where there is no such kernel.
#[track_caller]
pub fn run_again(tests: &str, count: usize) {
    let found = Command::new("linux.uml").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        skip("no kernel for it: User Mode Linux (linux.uml) is not installed");
        return;
    }
    let place = Scratch::new();
    let program = std::env::current_exe().expect("this program");
    let mut script = format!("#!/bin/sh\nexec 2>&1\nPATH={:?}\n", path());
    script.push_str("export PATH\n");
    script.push_str(SURROUNDINGS);
    let _ = write!(
        script,
        "cd {:?}\nexport {INSIDE}=1 RUST_BACKTRACE=1\n{:?} {tests} --ignored --test-threads 1 --nocapture\n\
         echo \"ended with $?\"\n\
         python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'\n",
        Path::new(env!("CARGO_MANIFEST_DIR")),
        program,
    );
    let init = place.path().join("init");
    std::fs::write(&init, script).expect("write the script");
    make_executable(&init);
    let mut kernel = Command::new("linux.uml")
        .args([
            "mem=1024M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
        ])
        .args(["rw", "con=null", "con0=null,fd:1", "quiet"])
        .arg(format!("init={}", init.display()))
        .env("TMPDIR", "/dev/shm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start linux.uml");
    let mut output = kernel.stdout.take().expect("a pipe");
    let (told, said) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.read_to_end(&mut text);
        let _ = told.send(String::from_utf8_lossy(&text).into_owned());
    });
    let said = said.recv_timeout(PATIENCE);
    let _ = kernel.kill();
    let _ = kernel.wait();
    let said = said.unwrap_or_else(|_| panic!("{tests} did not end in the kernel of its own"));
    assert!(
        said.contains("ended with 0") && said.contains(&format!("{count} passed")),
        "in a kernel of its own:\n{said}"
    );
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}

fn make_executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).expect("it is ours");
}
