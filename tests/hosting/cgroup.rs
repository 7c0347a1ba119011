//! A cgroup (version 2) per app: its limits, its end, and what is told when they cannot be had. Where no
//! kernel with the controllers is at hand these run in one of their own ([`kernel`]).

use super::isolation::{TRIES, ask, two_users};
use super::ours;
use crate::support::{Hosted, Hosting, kernel, wait_until};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where it is mounted in a kernel of its own.
const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup that is delegated to the server, in a kernel of its own.
fn delegated() -> Option<PathBuf> {
    if !ours() || !kernel::is_inside() {
        return None;
    }
    let mount = Path::new(MOUNT);
    fs::write(mount.join("cgroup.subtree_control"), "+cpu +memory +pids").expect("controllers");
    let delegated = mount.join("delegated");
    // What a test before has left is empty.
    if let Ok(left) = fs::read_dir(&delegated) {
        let left = left.flatten().map(|entry| entry.path());
        left.filter(|path| path.is_dir())
            .for_each(|path| drop(fs::remove_dir(path)));
        fs::remove_dir(&delegated).expect("it is empty");
    }
    fs::create_dir(&delegated).expect("a new cgroup");
    Some(delegated)
}

/// All that take [`delegated`], one after the other: a kernel in user mode is slow enough for one.
#[test]
fn a_kernel_of_its_own_keeps_what_cgroups_promise() {
    if ours() && !kernel::is_inside() {
        kernel::run_again("hosting::cgroup::in_a_kernel", 3);
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let text = fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

#[track_caller]
fn is_member(hosted: &Hosted, name: &str) {
    for master in hosted.server.masters() {
        let title = master.title();
        if title.contains(&format!("[{name} ")) {
            for process in [vec![master], master.children()].concat() {
                let cgroup = read(format!("/proc/{}/cgroup", process.number));
                assert_eq!(cgroup, format!("0::/delegated/app-{name}"), "{title}");
            }
            return;
        }
    }
    panic!("{name} has no master");
}

#[test]
#[ignore = "runs in a kernel of its own, see a_kernel_of_its_own_keeps_what_cgroups_promise"]
fn in_a_kernel_the_limits_of_an_app_hold_and_the_other_app_serves() {
    let Some(root) = delegated() else {
        return;
    };
    let host = format!(
        "cgroup = {root:?}\nmemory-max = '96m'\nmemory-high = '90m'\nmax-tasks = 25\ncpu-weight = 50\n"
    );
    let Some(hosting) = two_users(&host, TRIES) else {
        return;
    };
    let hosted = hosting
        .expect_error("cannot start the thread")
        .expect_error("SIGKILL")
        .start();
    let own = |name: &str, file: &str| read(root.join(format!("app-{name}")).join(file));
    for name in ["one", "two"] {
        assert_eq!(own(name, "memory.max"), (96 << 20).to_string());
        assert_eq!(own(name, "memory.high"), (90 << 20).to_string());
        assert_eq!(own(name, "pids.max"), "25");
        assert_eq!(own(name, "cpu.weight"), "50");
        is_member(&hosted, name);
        let lacks = hosted.app(name)["lacks"].clone();
        assert_eq!(
            lacks.as_array().map(Vec::len).unwrap_or_default(),
            0,
            "{lacks}"
        );
    }
    // The supervisor itself is not in there.
    let own_cgroup = read(format!(
        "/proc/{}/cgroup",
        hosted.server.supervisor().number
    ));
    assert_eq!(own_cgroup, "0::/");
    // A fork bomb ends at pids.max.
    assert_eq!(
        ask(&hosted, "one", &json!({"fork": 100})),
        "BlockingIOError"
    );
    assert!(own("one", "pids.events").contains("max "), "it was counted");
    // A memory hog is killed by the kernel, its own alone: memory.high would only make it slow.
    fs::write(root.join("app-one/memory.high"), "max").expect("as root");
    let mut client = hosted.connect("one");
    let body = json!({"hog": 512 << 20}).to_string();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    wait_until("the kernel to kill it", || {
        let events = own("one", "memory.events");
        let kills = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        (kills != Some("0")).then_some(())
    });
    assert_eq!(ask(&hosted, "two", &json!({"hog": 1})), "allowed");
    assert_eq!(ask(&hosted, "one", &json!({"hog": 1})), "allowed");
    let two = own("two", "memory.events");
    assert!(two.contains("oom_kill 0"), "{two}");
}

#[test]
#[ignore = "runs in a kernel of its own, see a_kernel_of_its_own_keeps_what_cgroups_promise"]
fn in_a_kernel_nothing_of_an_app_is_left_in_its_cgroup_when_it_ends() {
    let Some(root) = delegated() else {
        return;
    };
    let host = format!("cgroup = {root:?}\nmax-tasks = 25\n");
    let stray = format!(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    \
         if os.fork() == 0:\n        time.sleep(3600)\n    os._exit(0)\nos.wait()\n{TRIES}"
    );
    let Some(hosting) = two_users(&host, &stray) else {
        return;
    };
    let hosted = hosting.start();
    is_member(&hosted, "one");
    let leaf = root.join("app-one");
    let processes = read(leaf.join("cgroup.procs"));
    let processes: Vec<i32> = processes
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    assert!(
        processes.len() >= 3,
        "master, worker and stray: {processes:?}"
    );
    hosted.ctl(&["--app", "one", "stop"]).done();
    wait_until("the end of the cgroup", || (!leaf.exists()).then_some(()));
    for pid in processes {
        wait_until("the end of each process", || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
    assert!(root.join("app-two").exists());
    hosted.ctl(&["--app", "one", "reload"]).done();
    is_member(&hosted, "one");
}

#[test]
#[ignore = "runs in a kernel of its own, see a_kernel_of_its_own_keeps_what_cgroups_promise"]
fn in_a_kernel_a_delegated_cgroup_is_found_where_systemd_makes_it() {
    let Some(root) = delegated() else {
        return;
    };
    // As DelegateSubgroup=supervisor does.
    let own = root.join("supervisor");
    fs::create_dir(&own).expect("a new cgroup");
    fs::write(own.join("cgroup.procs"), "0").expect("it is ours");
    let Some(hosting) = two_users("max-tasks = 25\n", TRIES) else {
        return;
    };
    let hosted = hosting.start();
    is_member(&hosted, "one");
    assert_eq!(read(root.join("app-one/pids.max")), "25");
    fs::write(Path::new(MOUNT).join("cgroup.procs"), "0").expect("it is ours");
}

/// A directory that looks like a delegated cgroup, with a leaf in which everything is there.
fn pretended(hosting: &Hosting, app: &str, files: &[&str]) -> PathBuf {
    let leaf = hosting.dir().join("tree").join(format!("app-{app}"));
    fs::create_dir_all(&leaf).expect("a new directory");
    for file in files.iter().chain(&["cgroup.procs", "cgroup.kill"]) {
        fs::write(leaf.join(file), "").expect("a file");
    }
    leaf
}

#[test]
fn what_is_written_into_a_cgroup_is_what_the_settings_say() {
    let host = "cgroup = 'tree'\nmemory-max = '64m'\nmax-tasks = 30\ncpu-weight = 200\n";
    let Some(hosting) = two_users(host, TRIES) else {
        return;
    };
    let leaf = pretended(
        &hosting,
        "one",
        &["memory.max", "memory.high", "pids.max", "cpu.weight"],
    );
    pretended(&hosting, "two", &[]);
    // A directory of that name cannot be written to.
    fs::remove_file(leaf.join("cpu.weight")).expect("a file");
    fs::create_dir(leaf.join("cpu.weight")).expect("a new directory");
    let hosted = hosting.expect_error("goes without").start();
    assert_eq!(ask(&hosted, "one", &json!({"hog": 1})), "allowed");
    assert_eq!(read(leaf.join("memory.max")), (64 << 20).to_string());
    assert_eq!(read(leaf.join("memory.high")), "max");
    assert_eq!(read(leaf.join("pids.max")), "30");
    // By the child itself, before it is anybody else.
    assert_eq!(read(leaf.join("cgroup.procs")), "0");
    assert_eq!(
        fs::metadata(leaf.join("cgroup.procs"))
            .expect("a file")
            .uid(),
        0
    );
    let told = hosted.app("one")["lacks"].to_string();
    assert!(told.contains("cpu.weight: is a directory"), "{told}");
    // The other one has a leaf without any controller.
    let told = hosted.app("two")["lacks"].to_string();
    for file in ["memory.max", "pids.max", "cpu.weight"] {
        assert!(told.contains(&format!("{file} (the ")), "{told}");
    }
    assert!(told.contains("controller is not delegated"), "{told}");
    hosted.ctl(&["--app", "one", "stop"]).done();
    wait_until("the order to end what is left", || {
        (read(leaf.join("cgroup.kill")) == "1").then_some(())
    });
}

/// Files of a directory that were written to, in this order.
fn written(inotify: &Inotify) -> Vec<String> {
    let mut names = Vec::new();
    while let Ok(events) = inotify.read_events() {
        let found = events.into_iter().filter_map(|event| event.name);
        names.extend(found.map(|name| name.to_string_lossy().into_owned()));
    }
    names
}

#[test]
fn the_limits_of_a_cgroup_stand_before_anybody_is_in_it() {
    let host = "cgroup = 'tree'\nmemory-max = '64m'\nmemory-high = '60m'\nmax-tasks = 30\ncpu-weight = 200\n";
    let Some(hosting) = two_users(host, TRIES) else {
        return;
    };
    let limits = ["memory.max", "memory.high", "pids.max", "cpu.weight"];
    let leaf = pretended(&hosting, "one", &limits);
    pretended(&hosting, "two", &limits);
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).expect("inotify");
    let writes = AddWatchFlags::IN_MODIFY;
    inotify.add_watch(&leaf, writes).expect("a watch");
    let hosted = hosting.start();
    assert_eq!(ask(&hosted, "one", &json!({"hog": 1})), "allowed");
    let written = written(&inotify);
    let place = |file: &str| {
        let mut names = written.iter();
        names
            .rposition(|name| name == file)
            .unwrap_or_else(|| panic!("{file}: {written:?}"))
    };
    let first = written.iter().position(|name| name == "cgroup.procs");
    let first = first.expect("somebody has entered it");
    for limit in limits {
        assert!(place(limit) < first, "{limit}: {written:?}");
    }
    // With the next generation, too, those of the file are there before it.
    hosted.write(
        "one",
        "target = 'tries'\nuser = '65534'\ngroup = '65534'\nmax-tasks = 31\n",
    );
    hosted.ctl(&["reload"]).done();
    assert_eq!(read(leaf.join("pids.max")), "31");
    let written = self::written(&inotify);
    let last = |file: &str| written.iter().rposition(|name| name == file);
    assert!(last("pids.max") < last("cgroup.procs"), "{written:?}");
}
