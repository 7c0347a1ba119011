//! Declarations for servers with many apps, and for apps that are shut in.

#![forbid(unsafe_code)]

use super::{APPLICATION, CONTROL, DAY, PRIVILEGES};
use crate::config::setting::Kind::{Choice, Duration, List, Number, Path, Size, Switch};
use crate::config::setting::TakesEffect::Restart;
use crate::config::setting::{Scope, Section, Setting};

const HOSTING: Setting = Setting {
    section: Section::Hosting,
    scope: Scope::Host,
    ..APPLICATION
};

pub const PASSENGER: Setting = Setting {
    name: "passenger",
    kind: Switch,
    help: "Serve passenger_wsgi.py, and reload when tmp/restart.txt is touched",
    long_help: "What is named as target or --restart-file wins.",
    ..APPLICATION
};

pub const RESTART_FILE: Setting = Setting {
    name: "restart-file",
    value: "FILE",
    kind: Path,
    help: "File that asks for a reload of the application when it is touched",
    long_help: "A relative one starts in --chdir. It is looked at every second while the application serves, by the \
        user of the application, and only its time is.",
    ..APPLICATION
};

pub const ISOLATION: Setting = Setting {
    name: "isolation",
    value: "PRESET",
    kind: Choice(&["off", "webspace"]),
    default: Some("off"),
    help: "How far the application is shut in: off, webspace",
    long_help: "webspace turns on what the kernel offers: a cgroup, a read-only system with an empty /tmp of its own \
        and without the processes of others (as root), Landlock rules for what it may read and write, a \
        seccomp filter, no new privileges. It may write to its home directory, --chdir, --temp-dir and \
        --writable. What is lacking is in the log and in rswsgictl app list.",
    ..PRIVILEGES
};

pub const WRITABLE: Setting = Setting {
    name: "writable",
    value: "DIR",
    kind: List { separator: ':' },
    help: "With --isolation: another directory to write to; repeatable",
    ..PRIVILEGES
};

pub const READABLE: Setting = Setting {
    name: "readable",
    value: "DIR",
    kind: List { separator: ':' },
    help: "With --isolation: another directory to read; repeatable",
    ..PRIVILEGES
};

pub const MEMORY_MAX: Setting = Setting {
    name: "memory-max",
    value: "SIZE",
    kind: Size(0..=u64::MAX >> 1),
    default: Some("0"),
    help: "Memory of all its processes together, 0 for no limit (cgroup)",
    long_help: "Beyond it the kernel ends one of them. Takes a cgroup of version 2 that is delegated to the \
        server: Delegate=yes and DelegateSubgroup=supervisor in a systemd unit, or --cgroup.",
    ..PRIVILEGES
};

pub const MEMORY_HIGH: Setting = Setting {
    name: "memory-high",
    value: "SIZE",
    kind: Size(0..=u64::MAX >> 1),
    default: Some("0"),
    help: "Memory beyond which they are slowed down, 0 for none (cgroup)",
    ..PRIVILEGES
};

pub const MAX_TASKS: Setting = Setting {
    name: "max-tasks",
    value: "NUMBER",
    kind: Number(0..=4_000_000),
    default: Some("0"),
    help: "Processes and threads of the application, 0 for no limit (cgroup)",
    ..PRIVILEGES
};

pub const CPU_WEIGHT: Setting = Setting {
    name: "cpu-weight",
    value: "NUMBER",
    kind: Number(0..=10_000),
    default: Some("0"),
    help: "Its share of the CPUs beside others, 100 is usual (cgroup)",
    ..PRIVILEGES
};

pub const CGROUP: Setting = Setting {
    name: "cgroup",
    value: "DIR",
    kind: Path,
    scope: Scope::Host,
    help: "Directory of a cgroup that is delegated to the server",
    long_help: "Each app gets one below it.",
    ..PRIVILEGES
};

pub const APPS_DIR: Setting = Setting {
    name: "apps-dir",
    value: "DIR",
    kind: Path,
    takes_effect: Restart,
    help: "Directory with a file for each of many apps to serve, instead of MODULE",
    long_help: "DIR/shop.toml (or .yaml) holds the settings of the app shop: target and bind, and what differs from \
        the settings given here, which are the defaults of all apps ({name} stands for the name of the app in \
        paths, addresses, user and group). A file with a mistake disables its app alone: rswsgictl app list \
        shows why. Reload picks up new, changed and removed files and leaves the other apps alone.",
    ..HOSTING
};

pub const USER_APPS_DIR: Setting = Setting {
    name: "user-apps-dir",
    value: "DIR",
    kind: Path,
    takes_effect: Restart,
    help: "Directory in which users may have files of apps",
    long_help: "It belongs to root; mode 1777 lets everybody put files there. A file has to belong to a user who alone \
        may write to it, and its name to be that of the user, or to begin with it and a dot. Its app runs as \
        that user. It may not say what is for the administrator: user, rlimit, isolation, on-demand and the \
        like; it has at most the workers, start-timeout and graceful-timeout of the host file. A user has at most 32 files.",
    ..HOSTING
};

pub const USER_LISTEN_DIR: Setting = Setting {
    name: "user-listen-dir",
    value: "DIR",
    kind: Path,
    help: "Directory in which apps of users may have sockets: DIR/NAME.sock",
    long_help: "It should be writable for root alone. An app that names no address has that of the host file.",
    ..HOSTING
};

pub const APP_LOG: Setting = Setting {
    name: "app-log",
    value: "FILE",
    kind: Path,
    section: Section::Logs,
    help: "Log file of an app alone, which belongs to its user",
    long_help: "What the app prints and what its processes log goes there instead of the log of the server. With {name} in \
        the host file each app has one. It is written as the user of the app, with this user's rights and quota; \
        in a directory that only root may change it is made for the user. No link of others than root is \
        followed. A file that was moved away is noticed by itself.",
    ..APPLICATION
};

pub const APP_ACCESS_LOG: Setting = Setting {
    name: "app-access-log",
    value: "FILE",
    kind: Path,
    section: Section::Logs,
    help: "Access log of an app alone, which belongs to its user",
    long_help: "Instead of --access-log, in the same form, and with the rules of --app-log.",
    ..APPLICATION
};

pub const MAX_PROCESSES: Setting = Setting {
    name: "max-processes",
    value: "NUMBER",
    kind: Number(0..=1_000_000),
    default: Some("0"),
    help: "Processes of all apps together, 0 for no limit",
    long_help: "An app counts with its master and as many workers as it may have. Whoever wakes when there is no \
        room waits for it: the app that has been idle for longest makes some.",
    ..HOSTING
};

pub const MAX_STARTING: Setting = Setting {
    name: "max-starting",
    value: "NUMBER",
    kind: Number(0..=100_000),
    default: Some("0"),
    help: "Apps that are started at the same time, 0 for one per CPU",
    long_help: "Those that have waited longest come first, those of a user of whom none starts before others.",
    ..HOSTING
};

pub const ON_DEMAND: Setting = Setting {
    name: "on-demand",
    kind: Switch,
    scope: Scope::Admin,
    help: "Start the application with the first connection only",
    long_help: "Until then there is no process of it: the supervisor waits at its sockets, and nobody is refused \
        while it starts. One that cannot be started answers 503 until it is tried again.",
    ..HOSTING
};

pub const IDLE_EXIT: Setting = Setting {
    name: "idle-exit",
    value: "TIME",
    kind: Duration(0..=365 * DAY),
    default: Some("10m"),
    scope: Scope::Admin,
    help: "With --on-demand: time without a request until it stops, 0 for never",
    ..HOSTING
};

pub const RESERVE: Setting = Setting {
    name: "reserve",
    kind: Switch,
    scope: Scope::Admin,
    help: "With --on-demand: keep room within --max-processes for this app",
    long_help: "Apps that are always there have it anyway.",
    ..HOSTING
};

pub const CONTROL_USERS: Setting = Setting {
    name: "control-users",
    kind: Switch,
    help: "Let the users of apps ask about and steer their own apps",
    long_help: "The control socket gets mode 666; who asks is told by the kernel. The user of an app may ask for ping, apps, \
        why, stats, config, trace, logs, reload and stop of it, and for nothing of others.",
    ..CONTROL
};
