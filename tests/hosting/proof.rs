//! Two hundred apps of twenty users in one server: what they cost while nobody asks.

use super::{module, ours};
use crate::support::{Hosted, Hosting};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

const APPS: u64 = 200;
/// What an app may cost the supervisor while it has no process.
const MOST_PER_APP: u64 = 64 * 1024;

/// Memory that the process has written, in bytes: pages of its program are not data of apps.
fn written_memory(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("alive");
    let mut lines = text.lines();
    let size = lines.find_map(|line| line.strip_prefix("Private_Dirty:"));
    let size = size.and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
    size.expect("the kernel counts it") * 1024
}

#[test]
fn two_hundred_idle_apps_have_no_process_and_cost_little() {
    if !ours() {
        return;
    }
    let mut hosting = Hosting::new("on-demand = true\n").file("some.py", &module("some", ""));
    for number in 0..APPS {
        // Others can be played by root only.
        let user = match Uid::effective().is_root() {
            true => format!("user = '{0}'\ngroup = '{0}'\n", 60_001 + number % 20),
            false => String::new(),
        };
        hosting = hosting.app(&format!("a{number}"), &format!("target = 'some'\n{user}"));
    }
    let hosted = hosting.start();
    let supervisor = hosted.server.supervisor();
    assert_eq!(supervisor.descendants().len(), 0);
    // All of it, also what the supervisor would have with one app.
    let memory = written_memory(supervisor.number);
    assert!(
        memory < APPS * MOST_PER_APP,
        "{memory} bytes for {APPS} apps"
    );
    let list = hosted.ctl(&["--json", "app", "list"]).done().json();
    let apps = list["apps"].as_array().expect("a list");
    assert_eq!(apps.len() as u64, APPS);
    assert!(apps.iter().all(|app| app["state"] == "at rest"));
}

const RUNNING: usize = 12;

/// Of all apps, which says that they run: soft and hard limit of their descriptors.
fn limits(hosted: &Hosted) -> Vec<String> {
    let names = (0..RUNNING).map(|number| format!("a{number}"));
    names.map(|name| hosted.get(&name, "/").text()).collect()
}

#[test]
fn more_apps_run_than_the_soft_limit_of_descriptors_allows() {
    if !ours() {
        return;
    }
    let text = "import resource\n\
                def application(environ, start_response):\n    \
                    start_response('200 OK', [])\n    \
                    limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n    \
                    return [repr(limits).encode()]\n";
    let mut hosting = Hosting::new("").file("limited.py", text);
    for number in 0..RUNNING {
        hosting = hosting.app(&format!("a{number}"), "target = 'limited'\n");
    }
    // About nine for each.
    let hosted = hosting
        .change(|server| server.under(["prlimit", "--nofile=64:1024"]))
        .start();
    let as_it_was = vec!["(64, 1024)"; RUNNING];
    assert_eq!(limits(&hosted), as_it_was);
    hosted.server.signal(Signal::SIGUSR2);
    hosted.server.log.wait_for("upgraded from ");
    hosted.ctl(&["--app", "a0", "reload"]).done();
    assert_eq!(limits(&hosted), as_it_was);
}
