//! The declarations of all settings, in the order of `--help`.
//!
//! To add one: declare it here, give it a field in `settings.rs`, read it in `resolve`. The tests
//! below and those of `mod.rs` find what was forgotten.

#![forbid(unsafe_code)]

mod hosted;

use super::setting::Environment::{Derived, None as NoVariable};
use super::setting::Kind::{Choice, Duration, List, Number, Path, Size, Switch, Text};
use super::setting::TakesEffect::{Live, Reload, Restart};
use super::setting::{Scope, Section, Setting};

const DAY: u64 = 86_400_000;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// What most settings of a section have in common.
const APPLICATION: Setting = Setting {
    name: "",
    short: None,
    value: "",
    kind: Text,
    section: Section::Application,
    default: None,
    environment: Derived,
    scope: Scope::App,
    takes_effect: Reload,
    help: "",
    long_help: "",
};
const PRIVILEGES: Setting = Setting {
    section: Section::Privileges,
    scope: Scope::Admin,
    ..APPLICATION
};
const PROCESS: Setting = Setting {
    section: Section::Process,
    scope: Scope::Host,
    takes_effect: Restart,
    ..APPLICATION
};
const LISTENING: Setting = Setting {
    section: Section::Listening,
    takes_effect: Restart,
    ..APPLICATION
};
const WORKERS: Setting = Setting {
    section: Section::Workers,
    ..APPLICATION
};
const REQUESTS: Setting = Setting {
    section: Section::Requests,
    ..APPLICATION
};
const DEVELOPMENT: Setting = Setting {
    section: Section::Development,
    // It makes the supervisor look at files of the application.
    scope: Scope::Admin,
    ..APPLICATION
};
const LOGS: Setting = Setting {
    section: Section::Logs,
    scope: Scope::Host,
    ..APPLICATION
};

const CONTROL: Setting = Setting {
    section: Section::Control,
    scope: Scope::Host,
    takes_effect: Restart,
    ..APPLICATION
};

pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "target",
        value: "MODULE[:EXPRESSION]",
        help: "Application to serve, such as myapp.wsgi:application",
        long_help: "MODULE is imported; EXPRESSION is a name in it (obj, obj.attribute) or a call that returns the \
            application (create_app(\"production\", debug=False), literal arguments only). Without \
            EXPRESSION it is application, else app.",
        ..APPLICATION
    },
    Setting {
        name: "module",
        value: "NAME",
        // RSWSGI_MODULE names the extension module.
        environment: NoVariable,
        help: "Module of the application, instead of MODULE",
        ..APPLICATION
    },
    Setting {
        name: "app",
        value: "NAME",
        environment: NoVariable,
        help: "Name or call in --module, instead of EXPRESSION",
        ..APPLICATION
    },
    Setting {
        name: "name",
        value: "NAME",
        scope: Scope::Host,
        takes_effect: Restart,
        help: "Name of the app in process titles, logs and metrics",
        long_help: "Letters, digits, '-', '_' and '.'. By default the part of MODULE before the first dot.",
        ..APPLICATION
    },
    hosted::PASSENGER,
    hosted::RESTART_FILE,
    Setting {
        name: "python",
        value: "PATH",
        kind: Path,
        help: "Python interpreter to run the application in",
        long_help: "A path, or a name to be found on PATH; CPython 3.10 or later. By default the one of --venv, the one \
            beside rswsgi, the one of $VIRTUAL_ENV, or python3 on PATH.",
        ..APPLICATION
    },
    Setting {
        name: "venv",
        value: "DIR",
        kind: Path,
        help: "Virtual environment of the application",
        long_help: "Its bin/python is used.",
        ..APPLICATION
    },
    Setting {
        name: "chdir",
        value: "DIR",
        kind: Path,
        help: "Working directory of the application",
        long_help: "Set before MODULE is imported, and searched for it. By default the directory rswsgi was started in.",
        ..APPLICATION
    },
    Setting {
        name: "sys-path",
        value: "DIR",
        kind: List { separator: ':' },
        help: "Directory to add to the end of sys.path; repeatable",
        ..APPLICATION
    },
    Setting {
        name: "env",
        value: "KEY=VALUE",
        kind: List { separator: '\n' },
        help: "Environment variable for the application; repeatable",
        ..APPLICATION
    },
    Setting {
        name: "script-name",
        value: "PREFIX",
        default: Some(""),
        help: "Path the application is mounted at, such as /shop",
        long_help: "It is taken off PATH_INFO and becomes SCRIPT_NAME; it starts with '/' and does not end with one.",
        ..APPLICATION
    },
    Setting {
        name: "user",
        value: "NAME",
        help: "User the application runs as, a name or a number; needs root",
        long_help: "Sockets are bound before. The interpreter and everything after it runs as this user, with its groups \
            and without capabilities; that it cannot go back is verified. HOME, USER, LOGNAME and SHELL are set.",
        ..PRIVILEGES
    },
    Setting {
        name: "group",
        value: "NAME",
        help: "Group the application runs as, a name or a number",
        long_help: "By default the one of --user.",
        ..PRIVILEGES
    },
    Setting {
        name: "umask",
        scope: Scope::App,
        value: "OCTAL",
        help: "Permissions that files of the application do not get, such as 027",
        ..PRIVILEGES
    },
    Setting {
        name: "rlimit",
        value: "NAME=SOFT[:HARD]",
        kind: List { separator: ',' },
        help: "Resource limit of each process of the application; repeatable",
        long_help: "NAME is one of getrlimit(2) in lower case: nofile=4096, as=2g, core=0:infinity, nproc=100.",
        ..PRIVILEGES
    },
    Setting {
        name: "allow-new-privileges",
        kind: Switch,
        help: "With --user: let programs that the application starts gain privileges",
        long_help: "Without it set-user-ID and set-group-ID programs (sudo, some versions of sendmail) run without the \
            rights of their owner (PR_SET_NO_NEW_PRIVS).",
        ..PRIVILEGES
    },
    hosted::ISOLATION,
    hosted::WRITABLE,
    hosted::READABLE,
    hosted::MEMORY_MAX,
    hosted::MEMORY_HIGH,
    hosted::MAX_TASKS,
    hosted::CPU_WEIGHT,
    hosted::CGROUP,
    Setting {
        name: "daemon",
        kind: Switch,
        help: "Go on in the background once the server is ready",
        long_help: "The command that was launched waits for that and has the exit status of the start; what went wrong is \
            printed. The daemon has no terminal and nothing on its standard streams, so that the log has to go \
            elsewhere: to syslog, unless --log names a file or the journal. A service manager (systemd, a \
            container) wants a server in the foreground.",
        ..PROCESS
    },
    Setting {
        name: "pid-file",
        value: "FILE",
        kind: Path,
        help: "File with the process number of the server",
        long_help: "A second server with the same file does not start (status 69), and one that a crash has left is \
            replaced: the server holds a lock (flock(2)) on a file beside it, whose name ends with .lock and which \
            only its owner can read, since whoever can read a file can lock it. Both are removed when the server \
            stops, and stay over an upgrade (USR2).",
        ..PROCESS
    },
    hosted::APPS_DIR,
    hosted::USER_APPS_DIR,
    hosted::USER_LISTEN_DIR,
    hosted::MAX_PROCESSES,
    hosted::MAX_STARTING,
    hosted::ON_DEMAND,
    hosted::IDLE_EXIT,
    hosted::RESERVE,
    Setting {
        name: "bind",
        short: Some('b'),
        value: "ADDR",
        kind: List { separator: ',' },
        help: "Address to listen on; repeatable [127.0.0.1:8000]",
        long_help: "HOST:PORT, [IPV6]:PORT, :PORT for every address of the machine, unix:/path for a Unix socket, \
            unix:@name for an abstract one, fd://N for an inherited listening socket, was:/path for a socket of WAS \
            clients (Remote-WAS), was: for the WAS connection or Multi-WAS socket that this program was started \
            with. Sockets passed by systemd are taken without being named; the default applies when there are none. fd://NAME takes those of this \
            name (FileDescriptorName=); then all have to be named, here, by --metrics-bind or by --control. \
            unix:/path?mode=660&user=U&group=G sets who may connect: by default mode 660 and the user and group of \
            rswsgi, so a web server that runs as another user needs group=www-data (its group) or mode=666. \
            ?proxy-protocol=on demands a header of the PROXY protocol (version 1 or 2) on each connection: the \
            client that it names takes the place of the peer, and who may connect can name anybody. One whom the \
            proxy cannot describe (UNKNOWN) has the address of the proxy, and nothing that it sends is believed \
            for --trusted-proxies.",
        ..LISTENING
    },
    Setting {
        name: "host",
        value: "HOST",
        help: "Host to listen on, where no --bind is given",
        long_help: "As other servers call it. It means nothing to a server that a WAS client has started.",
        ..LISTENING
    },
    Setting {
        name: "port",
        value: "PORT",
        help: "Port to listen on, where no --bind is given",
        long_help: "As other servers call it. It means nothing to a server that a WAS client has started.",
        ..LISTENING
    },
    Setting {
        name: "backlog",
        value: "NUMBER",
        kind: Number(1..=65_535),
        default: Some("2048"),
        help: "Connections the kernel may queue per listener",
        long_help: "The kernel lowers it to net.core.somaxconn. It does not apply to inherited sockets.",
        ..LISTENING
    },
    Setting {
        name: "workers",
        short: Some('w'),
        value: "N",
        default: Some("auto"),
        help: "Number of workers, MIN..MAX, or auto for one per CPU up to eight per CPU",
        long_help: "Beyond MIN, workers are started within milliseconds when all are busy, a connection waits and \
            the CPUs are not the limit; they leave after --idle-timeout.",
        ..WORKERS
    },
    Setting {
        name: "warm-up",
        value: "PATH",
        kind: List { separator: ' ' },
        help: "GET request to run before workers are forked; repeatable",
        long_help: "The application answers it in the master, so that what it loads and caches on the first request \
            is shared by all workers. /path has the host localhost; http://example.org/path and \
            https://example.org/path name another one, which an application may insist on (ALLOWED_HOSTS of \
            Django).",
        ..WORKERS
    },
    Setting {
        name: "warm-up-failure",
        value: "ACTION",
        kind: Choice(&["warn", "refuse"]),
        default: Some("warn"),
        help: "Treatment of a warm-up request that fails: warn, refuse",
        long_help: "It fails when the application raises or answers 4xx or 5xx. refuse makes it a check: the generation \
            does not start, and on reload the old one goes on.",
        ..WORKERS
    },
    Setting {
        name: "fork-safety",
        value: "ACTION",
        kind: Choice(&["warn", "refuse", "off"]),
        default: Some("warn"),
        help: "Treatment of what forked workers cannot share: warn, refuse, off",
        long_help: "Before the first fork the master looks for threads, connections (to databases above all), listening \
            sockets and open SQLite files that the import of the application or a warm-up request has left behind.",
        ..WORKERS
    },
    Setting {
        name: "immortal",
        kind: Switch,
        help: "Make all objects immortal before workers are forked (CPython 3.12, 3.13)",
        long_help: "Reference counts of shared objects are then no longer written, so that more memory stays shared \
            (PEP 683). What was imported is never freed. Objects with finalizers and those that are weakly \
            referenced, other than classes, functions and modules, are left out. Other versions of Python \
            ignore it with a warning.",
        ..WORKERS
    },
    Setting {
        name: "share-again",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("0s"),
        help: "Idle time after which a worker shares memory again, 0 for never",
        long_help: "What a worker writes it no longer shares, and Python writes when it merely looks: it counts \
            references. An idle worker compares its memory with what it was at the fork and gives back what is \
            the same, which takes a millisecond per 150 pages or so; the next request takes copies again as it needs \
            them. It does nothing while the application has threads.",
        ..WORKERS
    },
    Setting {
        name: "max-connections",
        value: "NUMBER",
        kind: Number(1..=1_000_000),
        default: Some("1024"),
        help: "Open connections per worker",
        long_help: "A worker that has as many makes room for a client that waits: it closes the connection \
                    that has been idle for longest, or ends one with its next response. WAS connections count, but none \
                    is closed for this: new ones wait for a worker that has room.",
        ..WORKERS
    },
    Setting {
        name: "request-timeout",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("60s"),
        help: "Time a request may take, 0 for no limit",
        long_help: "Beyond it rswsgi.RequestTimeout is raised in the application and the client gets 504. An \
            application sees its deadline in environ[\"rswsgi.deadline\"] (of time.monotonic()) and moves \
            it with rswsgi.extend_deadline(seconds).",
        ..WORKERS
    },
    Setting {
        name: "kill-timeout",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("5s"),
        help: "Time a worker has to react to RequestTimeout before it is killed",
        long_help: "The Python stacks of all its threads are written to the log first.",
        ..WORKERS
    },
    Setting {
        name: "slow-request",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("0"),
        help: "Time after which a running request is logged with its stacks, 0 for never",
        long_help: "Once per request, while it runs, and at most five per second and app. The request is not \
            disturbed for longer than it takes to print the stacks.",
        ..WORKERS
    },
    Setting {
        name: "max-requests",
        value: "NUMBER",
        kind: Number(0..=u64::MAX >> 1),
        default: Some("0"),
        help: "Requests after which a worker is replaced, 0 for never",
        long_help: "The replacement is ready before the old worker leaves.",
        ..WORKERS
    },
    Setting {
        name: "max-requests-jitter",
        value: "NUMBER",
        kind: Number(0..=u64::MAX >> 1),
        default: Some("0"),
        help: "Random addition to --max-requests, different for each worker",
        ..WORKERS
    },
    Setting {
        name: "max-age",
        value: "TIME",
        kind: Duration(0..=365 * DAY),
        default: Some("0"),
        help: "Age at which a worker is replaced, 0 for never",
        long_help: "Up to a tenth is added, different for each worker.",
        ..WORKERS
    },
    Setting {
        name: "max-memory",
        value: "SIZE",
        kind: Size(0..=u64::MAX >> 1),
        default: Some("0"),
        help: "Memory of its own at which a worker is replaced, 0 for never",
        long_help: "Its unique set size: what it does not share with its siblings. Three samples in a row, ten \
            seconds apart, have to agree.",
        ..WORKERS
    },
    Setting {
        name: "idle-timeout",
        value: "TIME",
        kind: Duration(100..=DAY),
        default: Some("60s"),
        help: "Time without a request after which a worker beyond the minimum leaves",
        ..WORKERS
    },
    Setting {
        name: "exit-idle",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("0"),
        help: "Idle time after which a socket-activated service exits, 0 for never",
        long_help: "Idle is who has no connection. Only when all sockets were passed by systemd, which starts the \
            service again on the next connection.",
        ..WORKERS
    },
    Setting {
        name: "start-timeout",
        value: "TIME",
        kind: Duration(100..=DAY),
        default: Some("60s"),
        help: "Time until the application is imported and the workers are ready",
        ..WORKERS
    },
    Setting {
        name: "graceful-timeout",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("30s"),
        help: "Time running requests have to finish on stop and reload",
        ..WORKERS
    },
    Setting {
        name: "limit-request-line",
        value: "SIZE",
        kind: Size(256..=64 * KIB),
        default: Some("8k"),
        help: "Largest request line (414 beyond)",
        ..REQUESTS
    },
    Setting {
        name: "limit-head",
        value: "SIZE",
        kind: Size(KIB..=1024 * KIB),
        default: Some("64k"),
        help: "Largest request head, request line included (431 beyond)",
        ..REQUESTS
    },
    Setting {
        name: "limit-fields",
        value: "NUMBER",
        kind: Number(1..=256),
        default: Some("100"),
        help: "Most header fields in a request (431 beyond)",
        ..REQUESTS
    },
    Setting {
        name: "underscore-fields",
        value: "ACTION",
        kind: Choice(&["drop", "refuse", "keep"]),
        default: Some("drop"),
        help: "Treatment of header fields with '_' in their name: drop, refuse, keep",
        long_help: "X_User and X-User are the same HTTP_X_USER to an application: a client could forge what a proxy sets. \
            refuse answers 400.",
        ..REQUESTS
    },
    Setting {
        name: "trusted-proxies",
        value: "NETWORK",
        kind: List { separator: ',' },
        help: "Network whose word about the client counts, or unix; repeatable",
        long_help: "10.0.0.0/8, ::1, or unix for whoever may connect to a Unix socket; nobody by default. From such a \
            peer X-Forwarded-For is walked from the right to the first address that is not trusted, which becomes \
            REMOTE_ADDR and that of the access log; X-Forwarded-Proto becomes wsgi.url_scheme. Of X-Forwarded-Host, \
            X-Forwarded-Port and Forwarded the application then sees only what --forwarded-fields names.",
        ..REQUESTS
    },
    Setting {
        name: "forwarded-fields",
        value: "FIELD",
        kind: List { separator: ',' },
        help: "Field that trusted proxies set [x-forwarded-for,x-forwarded-proto]",
        long_help: "x-forwarded-for, x-forwarded-proto, x-forwarded-host (HTTP_HOST), x-forwarded-port, or forwarded \
            alone (RFC 7239: for, proto and host). Name those that every trusted proxy sets or removes: the \
            others it passes on as the client has written them. Of several values the last one counts; one that \
            makes no sense is answered with 400.",
        ..REQUESTS
    },
    Setting {
        name: "max-body",
        value: "SIZE",
        kind: Size(0..=u64::MAX >> 1),
        default: Some("256m"),
        help: "Largest request body (413 beyond), 0 for no limit",
        ..REQUESTS
    },
    Setting {
        name: "body-memory",
        value: "SIZE",
        kind: Size(0..=GIB),
        default: Some("1m"),
        help: "Request body kept in memory; a larger one goes to a temporary file",
        ..REQUESTS
    },
    Setting {
        name: "temp-dir",
        value: "DIR",
        kind: Path,
        help: "Directory for the temporary files of large bodies",
        long_help: "They have no name and vanish with the worker. By default $TMPDIR, else /tmp.",
        ..REQUESTS
    },
    Setting {
        name: "head-timeout",
        value: "TIME",
        kind: Duration(100..=DAY),
        default: Some("10s"),
        help: "Time for a request head to arrive, from its first byte",
        ..REQUESTS
    },
    Setting {
        name: "body-timeout",
        value: "TIME",
        kind: Duration(100..=DAY),
        default: Some("30s"),
        help: "Time without progress while a request body arrives",
        ..REQUESTS
    },
    Setting {
        name: "send-timeout",
        value: "TIME",
        kind: Duration(100..=DAY),
        default: Some("60s"),
        help: "Time without progress while a response is sent",
        ..REQUESTS
    },
    Setting {
        name: "keep-alive",
        value: "TIME",
        kind: Duration(0..=DAY),
        default: Some("75s"),
        help: "Time an idle connection is kept open, 0 to close after each response",
        long_help: "It should be longer than what the proxy in front keeps its own side open (nginx: 60s), so that the \
            proxy never sends a request into a connection that is being closed.",
        ..REQUESTS
    },
    Setting {
        name: "relay",
        value: "SWITCH",
        kind: Choice(&["on", "off"]),
        default: Some("on"),
        help: "Whether connections may go from one worker to another: on, off",
        long_help: "A worker that is busy, leaves or is stuck then keeps no client waiting and closes no connection that \
            another worker could go on with.",
        ..REQUESTS
    },
    Setting {
        name: "relay-after",
        value: "TIME",
        kind: Duration(1..=DAY),
        default: Some("10ms"),
        help: "Time a request runs before others on its worker go elsewhere",
        long_help: "Connections of the worker on which another request arrives meanwhile are taken over by a worker that \
            has nothing to do, or by the first that has.",
        ..REQUESTS
    },
    Setting {
        name: "output-buffer",
        value: "SIZE",
        kind: Size(0..=GIB),
        default: Some("1m"),
        help: "Response that may wait for a slow reader before the application waits",
        ..REQUESTS
    },
    Setting {
        name: "error-pages",
        value: "DIR",
        kind: Path,
        help: "Directory with pages for errors: 500.html, 404.json, 5xx.txt",
        long_help: "They take the place of what the server itself answers, in the form that the client asks for \
            (Accept); the application's own answers are left alone. Read at start and reload, 64k at most each.",
        ..REQUESTS
    },
    Setting {
        name: "reload",
        kind: Switch,
        takes_effect: Restart,
        help: "Reload whenever a module of the application changes; for development",
        long_help: "A reload is verified as on HUP. While the last one has failed every request is answered 500 by a page \
            with the traceback, and a start that fails waits for the next change. The configuration is watched, \
            too. There is one worker unless --workers says otherwise.",
        ..DEVELOPMENT
    },
    Setting {
        name: "reload-extra",
        value: "PATH",
        kind: List { separator: ':' },
        help: "File or directory that --reload watches as well; repeatable",
        long_help: "Templates, for instance. A directory is watched with everything below it.",
        ..DEVELOPMENT
    },
    Setting {
        name: "reload-page",
        value: "WHO",
        kind: Choice(&["local", "everyone", "nobody"]),
        default: Some("local"),
        help: "Who sees the traceback of a failed reload: local, everyone, nobody",
        long_help: "A traceback shows source code. local is a client on this machine or on a Unix socket whose request \
            no proxy has marked (Forwarded, X-Forwarded-For, Via and the like); a proxy that marks nothing makes \
            everybody local. Over TCP the request has to be for an IP address, localhost or a name below it: any \
            other name may have been made to mean this machine.",
        ..DEVELOPMENT
    },
    Setting {
        name: "log",
        value: "WHERE",
        default: Some("stderr"),
        takes_effect: Restart,
        help: "Log: stderr, stdout, FILE, syslog[:FACILITY], journal",
        long_help: "When standard error is the journal of systemd, entries keep their level there. With a FILE, syslog or \
            journal, what the application prints goes there, too. Files are opened anew on USR1. \
            syslog@PATH and journal@PATH name another socket than the usual one. The default of a --daemon is syslog.",
        ..LOGS
    },
    Setting {
        name: "log-format",
        value: "FORM",
        kind: Choice(&["text", "json"]),
        default: Some("text"),
        takes_effect: Restart,
        help: "Form of log entries: text, json",
        ..LOGS
    },
    Setting {
        name: "log-level",
        value: "LEVEL",
        kind: Choice(&["error", "warning", "info", "debug"]),
        default: Some("info"),
        scope: Scope::App,
        help: "What is logged: error, warning, info, debug",
        long_help: "In the file of one of many apps it holds for that app alone: for what its processes log, and for what \
            the server logs about it. A file of --user-apps-dir decides about the processes only, and asks for no \
            more than the server logs unless the app has an --app-log.",
        ..LOGS
    },
    Setting {
        name: "access-log",
        value: "WHERE",
        default: Some("off"),
        takes_effect: Restart,
        help: "Line for every request: off, stdout (-), stderr, FILE, syslog, journal",
        long_help: "Exactly one line for each, also for those that are refused, cut off by the client, or lost with a \
            worker that crashed (status 000). It never makes a request wait: what a slow disk or reader does not take \
            is counted. Spelled like --log; files are opened anew on USR1.",
        ..LOGS
    },
    Setting {
        name: "access-log-format",
        value: "FORM",
        default: Some("combined"),
        help: "Form of these lines: common, combined, json, or with %(name)s",
        long_help: "Names are those of gunicorn (h t r m U q H s B b f a T M D L p {Header}i {Header}o) and peer port \
            time time_iso request method target path query protocol status bytes referer user_agent id \
            queue_ms app_ms total_ms outcome app generation worker pid. The time is UTC and that of the \
            request's arrival. id is X-Request-ID, or made; the application finds it as \
            environ[\"rswsgi.request_id\"]. outcome is complete, aborted (by the client; status 499 before \
            there was an answer), failed, timed-out, broken, refused, crashed, killed or stopped.",
        ..LOGS
    },
    hosted::APP_LOG,
    hosted::APP_ACCESS_LOG,
    Setting {
        name: "control",
        value: "PATH",
        help: "Control socket, fd://NAME, or none [in the runtime directory]",
        long_help: "What the server is doing can be asked there, and it can be told what to do: rswsgi-control(7). By \
            default it is NAME.control in the first of $RUNTIME_DIRECTORY, /run/rswsgi and \
            $XDG_RUNTIME_DIR/rswsgi in which rswsgi may create it. Only root and the user of rswsgi may use it. \
            fd://NAME (or fd://N) takes a Unix socket that systemd passes (FileDescriptorName=): its file, mode and \
            group are those of the socket unit and are left alone; who may ask for what is the same. Asking a \
            service that has been stopped then starts it.",
        ..CONTROL
    },
    Setting {
        name: "control-group",
        value: "GROUP",
        help: "Group whose members may look, but not steer, through the control socket",
        long_help: "They may ask for ping, stats, trace and config, and for the pages /stats, /metrics and /health. The \
            socket gets this group and mode 660.",
        ..CONTROL
    },
    hosted::CONTROL_USERS,
    Setting {
        name: "metrics-bind",
        value: "ADDR",
        kind: List { separator: ',' },
        help: "Address that serves /metrics and /health; repeatable",
        long_help: "In the same forms as --bind. Whoever can connect can read them.",
        ..CONTROL
    },
    Setting {
        name: "config",
        short: Some('c'),
        value: "FILE",
        kind: Path,
        section: Section::Actions,
        help: "Configuration file, TOML or YAML by its extension",
        long_help: "Its keys are the names of these options, so that workers = \"2..16\" stands for --workers 2..16; \
            lists are written as such, env also as a table; include = \"DIR\" adds the files of a directory in the \
            order of their names. Relative paths in it start in its own directory. It is read again on reload.",
        ..APPLICATION
    },
    Setting {
        name: "print-config",
        kind: Switch,
        section: Section::Actions,
        environment: NoVariable,
        takes_effect: Live,
        help: "Print a commented configuration file with the values in force, then exit",
        ..APPLICATION
    },
    Setting {
        name: "completions",
        value: "SHELL",
        kind: Choice(&["bash", "zsh", "fish"]),
        section: Section::Actions,
        environment: NoVariable,
        takes_effect: Live,
        help: "Print the completions for a shell, bash, zsh or fish, then exit",
        ..APPLICATION
    },
    Setting {
        name: "check",
        kind: Switch,
        section: Section::Actions,
        environment: NoVariable,
        takes_effect: Live,
        help: "Check the settings and import the application, then exit",
        ..APPLICATION
    },
];

/// The declaration of `name`.
pub fn setting(name: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .expect("only declared settings are asked for, a test resolves them all")
}

#[cfg(test)]
mod tests;
