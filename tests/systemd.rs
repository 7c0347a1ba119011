//! The units in `systemd/` under a real systemd, booted in namespaces for each test.

mod package;
mod walk;

use crate::support::{BUILT, module, only_rswsgi, skip};
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// What every scenario starts with.
const PRELUDE: &str = r#"
set -u
systemd-sysusers /usr/lib/sysusers.d/rswsgi.conf 2>/dev/null
say() { echo "== $*"; }
fail() {
    echo "FAILED: $*"
    journalctl --no-pager --quiet --unit 'rswsgi*' --lines 40
    exit 1
}
# An application that answers with its version.
publish() {
    cat >/srv/shop/shop.py <<APP
import os
def application(environ, start_response):
    body = b"$1 %d" % os.getuid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
APP
}
ask() { curl --silent --show-error --max-time 20 --unix-socket "$1" http://shop/ 2>&1; }
eventually() {
    local _
    for _ in $(seq 150); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "never: $*"
}
drop_in() {
    mkdir -p "/etc/systemd/system/$1.d"
    printf '%s\n' "[Service]" "${@:2}" >"/etc/systemd/system/$1.d/test.conf"
    systemctl daemon-reload
}
pid() { systemctl show --property MainPID --value "$1"; }
# Another process is the service now; between the two there is none (MainPID is 0).
is_replaced() {
    local now
    now=$(pid "$1")
    [ "$now" != 0 ] && [ "$now" != "$2" ] && systemctl is-active --quiet "$1"
}
publish one
"#;

struct Tree(PathBuf);

impl Tree {
    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a path of several parts")).expect("a directory");
        fs::write(&path, text).expect("a file");
    }

    fn open_to_all(&self, directories: &[&str]) {
        for directory in directories {
            let everybody = fs::Permissions::from_mode(0o755);
            fs::set_permissions(self.0.join(directory), everybody).expect("it is ours");
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is laid over the root: an application.
fn bare() -> Tree {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("rswsgi-systemd-{}-{number}", std::process::id());
    let tree = Tree(std::env::temp_dir().join(name));
    tree.write("srv/shop/README", "the application\n");
    tree.open_to_all(&["srv", "srv/shop"]);
    tree
}

/// The same with the program as a package would install it.
fn tree() -> Tree {
    let tree = bare();
    let built = Path::new(BUILT);
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let ctl = Path::new(env!("CARGO_BIN_EXE_rswsgictl"));
    let mut files = vec![
        (built.to_owned(), "usr/bin/rswsgi".to_owned()),
        (ctl.to_owned(), "usr/bin/rswsgictl".to_owned()),
        (module(), "usr/lib/rswsgi/librswsgi.so".to_owned()),
        (
            units.join("rswsgi.sysusers"),
            "usr/lib/sysusers.d/rswsgi.conf".to_owned(),
        ),
    ];
    for name in [
        "rswsgi.service",
        "rswsgi.socket",
        "rswsgi@.service",
        "rswsgi@.socket",
    ] {
        files.push((units.join(name), format!("etc/systemd/system/{name}")));
    }
    for (from, to) in files {
        let to = tree.0.join(to);
        fs::create_dir_all(to.parent().expect("a path of several parts")).expect("a directory");
        fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    let settings = "target = \"shop\"\nchdir = \"/srv/shop\"\nworkers = 2\n";
    tree.write("etc/rswsgi/shop.toml", settings);
    tree.open_to_all(&["etc", "etc/rswsgi", "usr", "usr/bin"]);
    tree
}

/// Whether all that is needed is here.
fn can_boot() -> bool {
    if !only_rswsgi("the units") {
        return false;
    }
    if !Uid::effective().is_root() {
        skip("only root can boot a systemd in namespaces");
        return false;
    }
    for needed in [
        "/usr/lib/systemd/systemd",
        "/usr/bin/python3",
        "/usr/bin/curl",
    ] {
        if !Path::new(needed).exists() {
            skip(&format!("there is no {needed}"));
            return false;
        }
    }
    true
}

/// Runs a scenario; what it says.
#[track_caller]
fn run(scenario: &str) -> Option<String> {
    can_boot().then(tree).and_then(|tree| boot(&tree, scenario))
}

/// Runs a scenario over this tree.
#[track_caller]
fn boot(tree: &Tree, scenario: &str) -> Option<String> {
    let script = tree.0.join("scenario.sh");
    fs::write(&script, format!("{PRELUDE}{scenario}")).expect("a file");
    let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/private.sh");
    let output = Command::new("timeout")
        .args(["--kill-after=10", "600", "bash"])
        .args([&boot, &tree.0, &script])
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("bash");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    let errors = String::from_utf8_lossy(&stderr);
    if status.code() == Some(71) {
        skip(&format!("no systemd can be booted here: {errors}"));
        return None;
    }
    assert!(status.success(), "{status}\n{said}\n{errors}");
    Some(said)
}

#[test]
fn a_connection_starts_the_service_as_its_own_user() {
    run(r#"
        systemctl start rswsgi@shop.socket || fail start
        answer=$(ask /run/rswsgi/shop.sock)
        [ "$answer" = "one $(id -u rswsgi)" ] || fail "answer: $answer"
        systemctl is-active --quiet rswsgi@shop.service || fail "not active"
        [ "$(stat -c %U:%a /run/rswsgi/shop.sock)" = rswsgi:660 ] || fail "owner of the socket"
        systemctl status rswsgi@shop.service | grep -q 'Status: "serving shop (generation 1)' || fail status
        eventually sh -c 'journalctl --quiet --unit rswsgi@shop.service | grep -q "serving shop on"'
        rswsgictl --control /run/rswsgi/shop.control ping || fail ping
        systemctl stop rswsgi@shop.service || fail stop
        [ "$(systemctl show --property Result --value rswsgi@shop.service)" = success ] || fail result
        # The socket still waits for the next one.
        [ "$(ask /run/rswsgi/shop.sock)" = "$answer" ] || fail "second start"
    "#);
}

#[test]
fn the_group_of_a_socket_survives_the_first_start_of_its_service() {
    run(r#"
        mkdir -p /etc/systemd/system/rswsgi@shop.socket.d
        printf '[Socket]\nSocketGroup=www-data\n' >/etc/systemd/system/rswsgi@shop.socket.d/group.conf
        systemctl daemon-reload
        systemctl start rswsgi@shop.socket rswsgi@shop.service || fail start
        [ "$(stat -c %U:%G:%a /run/rswsgi/shop.sock)" = rswsgi:www-data:660 ] || fail "$(ls -l /run/rswsgi)"
    "#);
}

#[test]
fn a_reload_fails_with_the_new_version_and_leaves_the_old_one_alone() {
    run(r#"
        systemctl start rswsgi@shop.socket rswsgi@shop.service || fail start
        main=$(pid rswsgi@shop.service)
        publish two
        systemctl reload rswsgi@shop.service || fail reload
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the new version does not serve"
        echo 'import nowhere' >/srv/shop/shop.py
        systemctl reload rswsgi@shop.service && fail "a broken version was taken"
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the old version does not serve"
        [ "$(pid rswsgi@shop.service)" = "$main" ] || fail "another process"
        systemctl is-active --quiet rswsgi@shop.service || fail "not active"
        eventually sh -c 'journalctl --quiet --unit rswsgi@shop.service | grep -q "ModuleNotFoundError"'
        publish three
        systemctl reload rswsgi@shop.service || fail "reload after a failed one"
        ask /run/rswsgi/shop.sock | grep -q '^three ' || fail "the newest version does not serve"
    "#);
}

#[test]
fn what_hangs_or_is_killed_is_started_again() {
    run(r#"
        drop_in rswsgi@shop.service WatchdogSec=1 RestartSec=0
        systemctl start rswsgi@shop.socket rswsgi@shop.service || fail start
        first=$(pid rswsgi@shop.service)
        sleep 2.5
        [ "$(pid rswsgi@shop.service)" = "$first" ] || fail "killed although it was well"
        kill -STOP "$first"
        # Meanwhile connections wait in the socket.
        ask /run/rswsgi/shop.sock | grep -q '^one ' || fail "no answer after the watchdog"
        eventually is_replaced rswsgi@shop.service "$first"
        [ "$(systemctl show --property NRestarts --value rswsgi@shop.service)" = 1 ] || fail "not restarted"
        second=$(pid rswsgi@shop.service)
        kill -KILL "$second"
        # A worker of the killed one may still take it.
        ask /run/rswsgi/shop.sock | grep -q '^one ' || fail "no answer after a kill"
        eventually is_replaced rswsgi@shop.service "$second"
        ask /run/rswsgi/shop.sock | grep -q '^one ' || fail "no answer of the third"
        pgrep --full "rswsgi: (master|worker)" >/dev/null || fail "nobody serves"
    "#);
}

#[test]
fn an_application_that_cannot_be_loaded_is_not_tried_again_and_again() {
    run(r#"
        echo 'import nowhere' >/srv/shop/shop.py
        systemctl start rswsgi@shop.service && fail "it started"
        sleep 2
        [ "$(systemctl show --property NRestarts --value rswsgi@shop.service)" = 0 ] || fail restarts
        [ "$(systemctl show --property ExecMainStatus --value rswsgi@shop.service)" = 78 ] || fail status
    "#);
}

#[test]
fn a_restart_refuses_no_connection_to_sockets_of_our_own() {
    run(r#"
        echo 'bind = ["unix:/run/rswsgi/own.sock", "127.0.0.1:8123"]' >>/etc/rswsgi/shop.toml
        systemctl start rswsgi@shop.service || fail start
        ask /run/rswsgi/own.sock | grep -q '^one ' || fail "no answer"
        touch /tmp/go
        load() {
            while [ -e /tmp/go ]; do
                "$@" >>/tmp/answers 2>>/tmp/errors || echo "$*: $?" >>/tmp/errors
                echo >>/tmp/answers
            done
        }
        load curl -sS --max-time 20 --unix-socket /run/rswsgi/own.sock http://shop/ & unix=$!
        load curl -sS --max-time 20 http://127.0.0.1:8123/ & tcp=$!
        for version in two three; do
            publish $version
            systemctl restart rswsgi@shop.service || fail restart
            sleep 0.5
        done
        rm /tmp/go
        wait $unix $tcp
        # What was under way in the old process was answered by it, all else by the next one.
        [ -s /tmp/errors ] && fail "$(sort /tmp/errors | uniq -c)"
        grep -q '^three ' /tmp/answers || fail "no answer of the last version"
        say "$(grep -c . /tmp/answers) answers"
        systemctl stop rswsgi@shop.service || fail stop
    "#);
}

#[test]
fn a_restart_of_a_server_with_many_apps_refuses_no_connection_of_any() {
    run(r#"
        mkdir /etc/rswsgi/apps
        cat >/etc/rswsgi/many.toml <<HOST
apps-dir = "apps"
bind = "unix:/run/rswsgi/{name}.sock"
chdir = "/srv/shop"
workers = 1
HOST
        for app in always other; do echo 'target = "shop"' >/etc/rswsgi/apps/$app.toml; done
        printf '%s\n' 'target = "shop"' 'on-demand = true' >/etc/rswsgi/apps/woken.toml
        printf '%s\n' 'target = "shop"' 'bind = "127.0.0.1:8124"' >/etc/rswsgi/apps/tcp.toml
        systemctl start rswsgi@many.service || fail start
        touch /tmp/go
        load() {
            while [ -e /tmp/go ]; do
                curl -sS --max-time 20 "$@" >>/tmp/answers 2>>/tmp/errors || echo "$*: $?" >>/tmp/errors
                echo >>/tmp/answers
            done
        }
        for app in always other woken; do load --unix-socket /run/rswsgi/$app.sock http://$app/ & done
        load http://127.0.0.1:8124/ &
        for version in two three; do
            publish $version
            systemctl restart rswsgi@many.service || fail restart
            for app in always other woken; do
                eventually sh -c "curl -sS --unix-socket /run/rswsgi/$app.sock http://$app/ | grep -q '^$version '"
            done
        done
        rm /tmp/go
        wait
        [ -s /tmp/errors ] && fail "$(sort /tmp/errors | uniq -c)"
        say "$(grep -c . /tmp/answers) answers"
        rswsgictl --control /run/rswsgi/many.control app list
        systemctl stop rswsgi@many.service || fail stop
    "#);
}

#[test]
fn a_slow_import_and_a_slow_stop_get_the_time_that_rswsgi_gives_them() {
    run(r#"
        drop_in rswsgi@shop.service TimeoutStartSec=1 TimeoutStopSec=1
        cat >>/srv/shop/shop.py <<APP
import time
time.sleep(3)
fast = application
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open("/var/lib/rswsgi/shop/running", "w").close()
        time.sleep(3)
    return fast(environ, start_response)
APP
        systemctl start rswsgi@shop.socket
        systemctl start rswsgi@shop.service || fail "the import was not waited for"
        ask /run/rswsgi/shop.sock | grep -q '^one ' || fail "no answer"
        curl -sS --unix-socket /run/rswsgi/shop.sock http://shop/slow >/tmp/slow & slow=$!
        eventually test -e /var/lib/rswsgi/shop/running
        systemctl stop rswsgi@shop.service || fail stop
        wait $slow || fail "the request was cut off"
        grep -q '^one ' /tmp/slow || fail "answer: $(cat /tmp/slow)"
        [ "$(systemctl show --property Result --value rswsgi@shop.service)" = success ] || fail result
    "#);
}

#[test]
fn a_reload_gets_the_time_that_rswsgi_gives_it_and_still_fails_with_a_broken_version() {
    run(r#"
        drop_in rswsgi@shop.service TimeoutStartSec=1
        systemctl start rswsgi@shop.socket rswsgi@shop.service || fail start
        main=$(pid rswsgi@shop.service)
        slow() { publish "$1"; printf 'import time\ntime.sleep(3)\n%s\n' "${2-}" >>/srv/shop/shop.py; }
        slow two
        systemctl reload rswsgi@shop.service || fail "the import was not waited for"
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the new version does not serve"
        slow three 'import nowhere'
        systemctl reload rswsgi@shop.service && fail "a broken version was taken"
        eventually sh -c 'journalctl --quiet --unit rswsgi@shop.service | grep -q "ModuleNotFoundError"'
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the old version does not serve"
        # Nothing is left that would end the service later.
        sleep 1.5
        systemctl is-active --quiet rswsgi@shop.service || fail "not active"
        [ "$(pid rswsgi@shop.service)" = "$main" ] || fail "another process"
        # The limit is one: a command that nobody asks more time for is ended.
        drop_in rswsgi@shop.service TimeoutStartSec=1 ExecReload= 'ExecReload=/bin/sleep 20'
        systemctl reload rswsgi@shop.service && fail "there is no limit"
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the old version does not serve"
    "#);
}

#[test]
fn a_stop_during_the_first_import_leaves_nothing() {
    run(r#"
        cat >>/srv/shop/shop.py <<APP
open("/var/lib/rswsgi/shop/importing", "w").close()
import time
time.sleep(600)
APP
        systemctl start --no-block rswsgi@shop.service
        eventually test -e /var/lib/rswsgi/shop/importing
        [ "$(systemctl is-active rswsgi@shop.service)" = activating ] || fail "ready before the import"
        timeout 20 systemctl stop rswsgi@shop.service || fail stop
        [ "$(systemctl is-active rswsgi@shop.service)" = active ] && fail "still active"
        pgrep --full "rswsgi: " && fail "processes are left"
        journalctl --quiet --unit rswsgi@shop.service | grep -q 'SIGKILL' && fail "it had to be killed"
        true
    "#);
}

#[test]
fn a_service_that_nobody_asks_leaves_and_comes_back_with_the_next_connection() {
    run(r#"
        echo 'exit-idle = "1s"' >>/etc/rswsgi/shop.toml
        systemctl start rswsgi@shop.socket || fail start
        for round in one two; do
            publish $round
            ask /run/rswsgi/shop.sock | grep -q "^$round " || fail "no answer in round $round"
            eventually sh -c '[ "$(systemctl is-active rswsgi@shop.service)" = inactive ]'
            [ "$(systemctl show --property Result --value rswsgi@shop.service)" = success ] || fail result
        done
        systemctl is-active --quiet rswsgi@shop.socket || fail "the socket is gone"
    "#);
}

#[test]
fn a_kill_under_load_costs_only_what_was_running() {
    run(r#"
        drop_in rswsgi@shop.service RestartSec=0
        systemctl start rswsgi@shop.socket rswsgi@shop.service || fail start
        touch /tmp/go
        load() {
            while [ -e /tmp/go ]; do
                curl -sS --max-time 20 --unix-socket /run/rswsgi/shop.sock http://shop/ \
                    >>/tmp/answers.$1 2>/dev/null || echo $? >>/tmp/errors.$1
                echo >>/tmp/answers.$1
            done
        }
        answers() { cat /tmp/answers.* | grep -c '^one '; }
        load 1 & first=$!
        load 2 & second=$!
        # curl's status 7 is also that of a connection that was taken and ended before it was looked at.
        python3 - <<'CONNECT' & third=$!
import os, socket, time
while os.path.exists("/tmp/go"):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect("/run/rswsgi/shop.sock")
        except OSError as error:
            with open("/tmp/refused", "a") as file:
                print(error, file=file)
    time.sleep(0.002)
with open("/tmp/connected", "w"):
    pass
CONNECT
        for round in 1 2 3; do
            eventually systemctl is-active rswsgi@shop.service
            eventually test -s /tmp/answers.1 -a -s /tmp/answers.2
            main=$(pid rswsgi@shop.service)
            kill -KILL "$main"
            eventually sh -c "! kill -0 $main"
            before=$(answers)
            for _ in $(seq 150); do
                [ "$(answers)" -gt $((before + 10)) ] && break
                sleep 0.1
            done
            [ "$(answers)" -gt $((before + 10)) ] || fail "nobody serves after kill $round"
        done
        rm /tmp/go
        wait $first $second $third
        # No connection was refused; of each client at most the request that ran in each round was lost.
        test -e /tmp/connected || fail "the third client ended"
        test -e /tmp/refused && fail "a connection was refused: $(cat /tmp/refused)"
        for client in 1 2; do
            touch /tmp/errors.$client
            [ "$(wc -l </tmp/errors.$client)" -le 3 ] || fail "lost: $(cat /tmp/errors.$client)"
        done
        [ "$(systemctl show --property NRestarts --value rswsgi@shop.service)" = 3 ] || fail restarts
        eventually sh -c 'journalctl --quiet --unit rswsgi@shop.service | grep -q "the supervisor is gone"'
        systemctl stop rswsgi@shop.socket rswsgi@shop.service || fail stop
        pgrep --full "rswsgi: " && fail "processes are left"
        true
    "#);
}

#[test]
fn sockets_of_units_are_told_apart_by_their_names() {
    run(r#"
        cat >/etc/systemd/system/statistics.socket <<UNIT
[Socket]
ListenStream=/run/statistics.sock
FileDescriptorName=statistics
Service=rswsgi@shop.service
UNIT
        printf 'bind = ["fd://rswsgi@shop.socket"]\nmetrics-bind = ["fd://statistics"]\n' >>/etc/rswsgi/shop.toml
        drop_in rswsgi@shop.service Sockets=statistics.socket Sockets=rswsgi@shop.socket
        systemctl start rswsgi@shop.socket statistics.socket || fail start
        ask /run/rswsgi/shop.sock | grep -q '^one ' || fail "no answer"
        curl -sS --unix-socket /run/statistics.sock http://shop/metrics | grep -q ^rswsgi_ || fail "no metrics"
    "#);
}

#[test]
fn the_control_socket_may_be_that_of_a_unit() {
    run(r#"
        cat >/etc/systemd/system/shop-control.socket <<UNIT
[Socket]
ListenStream=/run/shop.control
SocketMode=0600
FileDescriptorName=control
Service=rswsgi@shop.service
UNIT
        drop_in rswsgi@shop.service Sockets=shop-control.socket Sockets=rswsgi@shop.socket \
            ExecStart= 'ExecStart=/usr/bin/rswsgi --config /etc/rswsgi/%i.toml --name %i' \
            ExecReload= 'ExecReload=+/usr/bin/rswsgictl --control /run/shop.control reload'
        printf 'bind = ["fd://rswsgi@shop.socket"]\ncontrol = "fd://control"\n' >>/etc/rswsgi/shop.toml
        systemctl start rswsgi@shop.socket shop-control.socket || fail start
        ask /run/rswsgi/shop.sock | grep -q '^one ' || fail "no answer"
        seen() { stat --format '%i %a %U %G %z' /run/shop.control; }
        before=$(seen)
        case "$before" in *" 600 root root "*) ;; *) fail "$before" ;; esac
        publish two
        systemctl reload rswsgi@shop.service || fail reload
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the old one answers"
        echo 'raise SystemExit("broken")' >/srv/shop/shop.py
        systemctl reload rswsgi@shop.service 2>/dev/null && fail "a broken version was taken"
        ask /run/rswsgi/shop.sock | grep -q '^two ' || fail "the old one is gone"
        publish three
        systemctl restart rswsgi@shop.service || fail restart
        rswsgictl --control /run/shop.control wait --ready >/dev/null || fail "nobody there after the restart"
        [ -e /run/rswsgi/shop.control ] && fail "there is another control socket"
        systemctl stop rswsgi@shop.service 2>/dev/null || fail stop
        rswsgictl --control /run/shop.control ping >/dev/null || fail "asking does not start it"
        ask /run/rswsgi/shop.sock | grep -q '^three ' || fail "no answer"
        [ "$(seen)" = "$before" ] || fail "changed: $before: $(seen)"
    "#);
}

#[test]
fn the_units_are_in_order_and_exposed_as_little_as_the_readme_says() {
    let Some(said) = run(r#"
        for unit in rswsgi.service rswsgi.socket rswsgi@shop.service rswsgi@shop.socket; do
            found=$(systemd-analyze verify --man=no "$unit" 2>&1) || fail "$unit: $found"
            [ -z "$found" ] || fail "$unit: $found"
        done
        systemctl start rswsgi@shop.service || fail start
        systemd-analyze security --no-pager rswsgi@shop.service | tail -1
    "#) else {
        return;
    };
    let level = said.lines().last().unwrap_or_default();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("a README");
    let claimed = readme
        .split("exposure level of ")
        .nth(1)
        .unwrap_or_default();
    // Versions of systemd differ a little in what they weigh.
    assert!(
        number_in(level) <= number_in(claimed) + 0.3,
        "the README says {}: {level}",
        number_in(claimed)
    );
}

/// The first number with a decimal point.
fn number_in(text: &str) -> f64 {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| word.contains('.').then(|| word.parse().ok()).flatten())
        .unwrap_or_else(|| panic!("no number in {text:?}"))
}
