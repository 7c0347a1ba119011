//! The options of uWSGI, by subject.

#![forbid(unsafe_code)]

use crate::convert::Becomes::{Lost, Needless, Setting, Together};
use crate::convert::{Row, read, row, switch};

const STATIC: &str = "files are for the web server in front (nginx: location /static/ { alias ...; }), or WhiteNoise";
const JOBS: &str = "jobs are for systemd timers and services, cron, or a queue (Celery, RQ)";
const EMPEROR: &str =
    "one service per application: rswsgi@NAME.service reads /etc/rswsgi/NAME.toml";
const ROUTING: &str = "routing and headers are for the web server in front or a WSGI middleware";
const HOOKS: &str = "ExecStartPre= and ExecStopPost= of systemd";
const ASYNC: &str =
    "a worker runs one request at a time: let --workers MIN..MAX be as large as what waits at once";
const TLS: &str = "TLS ends in the web server in front (nginx, Apache, Caddy, HAProxy)";
const PROTOCOL: &str = "rswsgi speaks HTTP on its listeners";
const CACHE: &str =
    "no cache in the server: Redis or memcached, or the cache of the web server in front";
const ELASTIC: &str = "a worker more is started within milliseconds when all are busy; --idle-timeout says when it leaves";
pub(super) const TOUCH: &str = "--restart-file, rswsgictl reload or systemctl reload, in the deploy script or from a systemd path unit; --reload while developing";
const ROTATE: &str = "logrotate moves the file and sends USR1";
const METRICS: &str = "rswsgictl stats and --metrics-bind (Prometheus) tell more";
const REQUEST_LOG: &str = "--access-log-format says what a line holds";
const ONCE: &str = "the application is imported once, before workers are forked; os.register_at_fork(after_in_child=...) runs \
    in each worker";

pub(in crate::convert) static TABLE: &[Row] = &[
    // The application
    row("module wsgi w", Together),
    row("wsgi-file file", Together),
    row("callable", Together),
    row("mount", Together),
    row("paste ini-paste ini-paste-logged", Together),
    switch(
        "manage-script-name",
        Needless("SCRIPT_NAME and PATH_INFO are always split as PEP 3333 says"),
    ),
    row("chdir", Setting("chdir", read::text)),
    row("chdir2", Lost("--chdir is set before the import and stays")),
    row("virtualenv venv home H pyhome", Setting("venv", read::text)),
    row("pythonpath python-path pp", Together),
    row("env", Together),
    row("pyargv", Lost("sys.argv is [\"rswsgi\"]; use --env")),
    row(
        "import pyimport shared-import shared-pyimport spooler-import",
        Lost("import it in the module of the application"),
    ),
    row("eval pyrun", Lost("put it into a module")),
    switch(
        "need-app",
        Needless("what cannot be imported is not started"),
    ),
    switch("single-interpreter i", Needless("there is one interpreter")),
    switch(
        "enable-threads",
        Needless(
            "threads of the application work, but not those it starts at its import: see --fork-safety",
        ),
    ),
    row(
        "thread-stacksize threads-stacksize",
        Lost("threading.stack_size() in the application"),
    ),
    switch("lazy lazy-apps", Lost(ONCE)),
    switch(
        "no-site no-default-app catch-exceptions py-call-osafterfork py-call-uwsgi-fork-hooks",
        Needless("it does not arise"),
    ),
    row(
        "optimize py-optimize",
        Lost("PYTHONOPTIMIZE in the environment of rswsgi"),
    ),
    row(
        "wsgi-env-behaviour wsgi-env-behavior",
        Needless("each request has an environ of its own"),
    ),
    switch(
        "wsgi-disable-file-wrapper",
        Lost("wsgi.file_wrapper is there, an application need not use it"),
    ),
    row(
        "plugin plugins plugins-dir",
        Needless("there are no plugins; Python is built in"),
    ),
    row("py-tracebacker", Lost("rswsgictl trace")),
    // Sockets
    row("socket s uwsgi-socket", Together),
    row("http-socket", Together),
    row("http", Together),
    row("chmod-socket C", Together),
    row("chown-socket", Together),
    row("listen l", Setting("backlog", read::number)),
    switch("abstract-socket", Lost("--bind unix:@NAME")),
    row(
        "https https2 https-socket ssl-socket suwsgi-socket",
        Lost(TLS),
    ),
    row(
        "fastcgi-socket scgi-socket fastcgi-nph-socket scgi-nph-socket zeromq raw-socket puwsgi-socket protocol",
        Lost(PROTOCOL),
    ),
    row(
        "shared-socket undeferred-shared-socket map-socket",
        Lost("every worker accepts from every listener; systemd can pass sockets"),
    ),
    switch(
        "vacuum",
        Needless("a socket file is removed at the end, and one that a crash left is replaced"),
    ),
    switch("reuse-port", Needless("workers accept from one socket")),
    switch(
        "so-keepalive so-send-timeout",
        Needless("idle connections are closed after --keep-alive"),
    ),
    row("socket-timeout z", Setting("send-timeout", read::seconds)),
    row(
        "http-timeout",
        Lost("--head-timeout, --body-timeout and --send-timeout say how long a client may be idle"),
    ),
    row("http-keepalive", Lost("--keep-alive is a time")),
    switch(
        "http-auto-chunked http-chunked-input http-raw-body add-header-http http11-socket",
        Needless("HTTP/1.1 is spoken as it is"),
    ),
    row(
        "http-to http-processes http-modifier1 http-buffer-size http-events http-server-name-as-http-host http-websockets fastrouter* rawrouter* sslrouter* http-subscription* subscribe* subscription*",
        Lost(ROUTING),
    ),
    row("buffer-size b", Setting("limit-head", head)),
    row("limit-post", Setting("max-body", read::number)),
    row("post-buffering", Setting("body-memory", read::number)),
    row(
        "post-buffering-bufsize post-buffering-busize",
        Needless("bodies are complete before the application sees them"),
    ),
    // Workers
    row("processes p workers", Together),
    row("threads", Together),
    row("cheaper", Together),
    row(
        "cheaper-initial cheaper-step cheaper-overload cheaper-idle cheaper-algo cheaper-algo-list cheaper-busyness-* cheaper-rss-limit-soft cheaper-rss-limit-hard",
        Needless(ELASTIC),
    ),
    row("idle", Setting("exit-idle", read::seconds)),
    switch(
        "die-on-idle cheap",
        Lost("--exit-idle, with a socket unit of systemd"),
    ),
    switch("master M", Needless("there always is one")),
    switch("no-orphans", Needless("nothing is ever left running")),
    switch(
        "thunder-lock",
        Needless("idle workers wait without a lock, the kernel wakes one"),
    ),
    row("harakiri t", Setting("request-timeout", read::seconds)),
    switch(
        "harakiri-verbose",
        Needless("the Python stacks are always logged"),
    ),
    row(
        "harakiri-graceful-timeout harakiri-graceful-signal",
        Lost(
            "rswsgi.RequestTimeout is raised first, --kill-timeout says when the worker is killed",
        ),
    ),
    row("max-requests R", Setting("max-requests", read::number)),
    row(
        "max-requests-delta",
        Setting("max-requests-jitter", read::number),
    ),
    row(
        "min-worker-lifetime",
        Needless("a replacement is ready before the old worker leaves"),
    ),
    row("max-worker-lifetime", Setting("max-age", read::seconds)),
    row(
        "max-worker-lifetime-delta",
        Needless("up to a tenth is added to --max-age, different for each worker"),
    ),
    row("reload-on-rss", Setting("max-memory", read::mebibytes)),
    row(
        "evil-reload-on-rss reload-on-as evil-reload-on-as reload-on-uss reload-on-pss",
        Lost("--max-memory counts what a worker does not share"),
    ),
    row(
        "worker-reload-mercy reload-mercy exit-on-reload",
        Setting("graceful-timeout", read::seconds),
    ),
    row("gevent", Together),
    row(
        "async ugreen asyncio greenlet tornado loop gevent-monkey-patch gevent-early-monkey-patch coroae",
        Lost(ASYNC),
    ),
    switch(
        "websockets websocket-ping-freq websocket-max-size",
        Lost("WebSockets are for an ASGI server; WSGI has none"),
    ),
    row("cpu-affinity", Lost("CPUAffinity= of systemd")),
    row("nice", Lost("Nice= of systemd")),
    row(
        "offload-threads",
        Needless("the event loop sends what a client has not taken yet"),
    ),
    row(
        "procname",
        Lost("titles are those of rswsgi, with the --name of the app"),
    ),
    row(
        "procname-prefix procname-prefix-spaced procname-append",
        Setting("name", name),
    ),
    switch("auto-procname", Needless("processes have titles")),
    switch(
        "memory-report",
        Needless("rswsgictl stats has the memory of each worker"),
    ),
    switch(
        "ksm",
        Lost("workers share the memory of the master; see --immortal and --share-again"),
    ),
    // Privileges
    row("uid", Setting("user", read::text)),
    row("gid", Setting("group", read::text)),
    row("add-gid", Lost("the groups are those of the user")),
    row("umask", Setting("umask", read::umask)),
    row("limit-as", Together),
    row("max-fd", Together),
    row("limit-nproc", Lost("--rlimit nproc=NUMBER")),
    row("chroot", Lost("RootDirectory= of systemd")),
    row(
        "cap unshare cgroup cgroup-opt pivot-root fs-* linux-fs linux-ns*",
        Lost("systemd can do that: CapabilityBoundingSet=, Private...=, ProtectSystem="),
    ),
    // Logs
    row("logto logto2 log", Together),
    row("daemonize d daemonize2", Together),
    row("logger", Together),
    row("req-logger log-req", Together),
    row("log-format logformat", Together),
    switch(
        "disable-logging L",
        Needless("there is no line per request unless --access-log asks for it"),
    ),
    row(
        "log-date logdate log-prefix log-encoder log-req-encoder log-micros log-master log-master-bufsize log-drain log-backupname threaded-logger log-master-stream log-master-req-stream",
        Needless("entries have a time; --log-format json makes objects of them"),
    ),
    row(
        "log-maxsize log-truncate log-reopen touch-logreopen touch-logrotate log-zero",
        Lost(ROTATE),
    ),
    row("log-slow", Setting("slow-request", milliseconds)),
    row(
        "log-4xx log-5xx log-big log-sendfile log-ioerror log-zero-size log-response-size log-if*",
        Lost(REQUEST_LOG),
    ),
    row(
        "log-x-forwarded-for log-route*",
        Lost("%({X-Forwarded-For}i)s in --access-log-format"),
    ),
    switch(
        "ignore-sigpipe ignore-write-errors disable-write-exception disable-sigpipe write-errors-tolerance",
        Needless("a client that leaves is no error"),
    ),
    // Reload and control
    row(
        "py-autoreload py-auto-reload python-autoreload python-auto-reload",
        Setting("reload", read::yes),
    ),
    row(
        "py-auto-reload-ignore py-autoreload-ignore",
        Lost("--reload watches all modules"),
    ),
    row("touch-reload", Together),
    row(
        "touch-chain-reload touch-workers-reload touch-mules-reload touch-spoolers-reload fs-reload brutal-reload-on-change",
        Lost(TOUCH),
    ),
    row(
        "touch-exec touch-signal touch-emperor touch-private",
        Lost(HOOKS),
    ),
    row("master-fifo fifo0", Lost("rswsgictl steers the server")),
    row(
        "pidfile pidfile2 safe-pidfile safe-pidfile2",
        Setting("pid-file", read::text),
    ),
    switch(
        "die-on-term exit-on-term hook-master-start-term",
        Needless("TERM stops, HUP reloads"),
    ),
    row(
        "stats stats-server stats-http stats-minified stats-push* metric* enable-metrics snmp* carbon* statsd*",
        Lost(METRICS),
    ),
    // The rest
    row(
        "static-map static-map2 check-static static-index static-expires* static-skip-ext static-gzip* static-safe static-cache* mimefile check-static-docroot docroot",
        Lost(STATIC),
    ),
    row(
        "cron cron2 unique-cron legion-cron mule* mules farm spooler* spoolers attach-daemon attach-daemon2 smart-attach-daemon smart-daemon legacy-attach-daemon",
        Lost(JOBS),
    ),
    row(
        "emperor* vassal* vassals* legion* zerg* imperial-monitor*",
        Lost(EMPEROR),
    ),
    row(
        "route* add-header response-headers del-header collect-header pull-header final-route error-route* error-page*",
        Lost(ROUTING),
    ),
    row("hook-* exec-* call-* after-* before-*", Lost(HOOKS)),
    row("cache cache2 cache-*", Lost(CACHE)),
    row(
        "queue queue-* sharedarea* lock-engine locks signal* rpc* alarm* alarm",
        Lost("the API of the module uwsgi is uWSGI's own"),
    ),
    row(
        "auto-snapshot snapshot",
        Lost("the old generation goes on until the new one is ready"),
    ),
    row("inherit include", Needless("it is part of what was read")),
    row(
        "strict show-config no-server quiet version print",
        Needless("rswsgi refuses settings it does not know"),
    ),
    row(
        "if-* if-not-* end endif for for-glob for-times endfor for-readline",
        Lost("conditions and loops: the options in them were taken as they stand"),
    ),
    row(
        "xml ldap sqlite3 zookeeper config yaml yml json ini",
        Lost("a further configuration: convert it as well"),
    ),
];

/// uWSGI's is the buffer of a whole head.
fn head(value: &serde_json::Value) -> read::Read {
    let bytes = read::whole(value)?;
    Ok(vec![match bytes {
        bytes if bytes % 1024 == 0 => format!("{}k", bytes / 1024),
        bytes => bytes.to_string(),
    }])
}

fn milliseconds(value: &serde_json::Value) -> read::Read {
    read::whole(value).map(|millis| vec![format!("{millis}ms")])
}

fn name(value: &serde_json::Value) -> read::Read {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let text = read::one(value)?;
    Ok(vec![text.trim().chars().filter(|c| fits(*c)).collect()])
}
