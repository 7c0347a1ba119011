//! The settings reference of gunicorn.

#![forbid(unsafe_code)]

use serde_json::Value;

use crate::convert::Becomes::{Lost, Needless, Setting, Together};
use crate::convert::{Row, read, row, switch};

const TLS: &str = "TLS ends in the web server in front (nginx, Apache, Caddy, HAProxy)";
pub(super) const ASGI: &str =
    "rswsgi serves WSGI; for asynchronous (ASGI) applications take uvicorn or granian";
pub(super) const HTTP2: &str =
    "HTTP/2 is for the web server in front; behind it HTTP/1.1 with keep-alive does";
const DIRTY: &str = "no pool for long tasks: a queue (Celery, RQ) or a service of its own does it";
const STATSD: &str =
    "no StatsD: --metrics-bind serves /metrics for Prometheus, rswsgictl stats tells the same";
const LOGGING: &str = "logging is the application's: call logging.config at its import; the server's own log is \
    configured by --log, --log-format and --log-level";
const LENIENT: &str = "rswsgi refuses what RFC 9112 does not allow";
const PASTE: &str =
    "make a module with application = paste.deploy.loadapp(\"config:/path/of.ini\") and name that";
const AFTER_FORK: &str =
    "os.register_at_fork(after_in_child=...) in the application runs in each worker";
const MIDDLEWARE: &str = "a WSGI middleware around the application sees each request";
const TRUST: &str = "--forwarded-fields names the fields that --trusted-proxies are believed";

/// Every setting, with its flags.
pub(in crate::convert) static TABLE: &[Row] = &[
    row("config -c --config", Needless("it is read")),
    row("wsgi_app", Together),
    // Debugging
    switch("reload --reload", Setting("reload", read::yes)),
    row(
        "reload_engine --reload-engine",
        Needless("changes are told by the kernel (inotify)"),
    ),
    row(
        "reload_extra_files --reload-extra-file",
        Setting("reload-extra", read::list),
    ),
    switch(
        "spew --spew",
        Lost("rswsgictl trace shows what each worker is doing"),
    ),
    switch(
        "check_config --check-config",
        Lost("an action: rswsgi --check"),
    ),
    switch(
        "print_config --print-config",
        Lost("an action: rswsgi --print-config"),
    ),
    // Logging
    row(
        "accesslog --access-logfile",
        Setting("access-log", read::text),
    ),
    switch(
        "disable_redirect_access_to_syslog --disable-redirect-access-to-syslog",
        Needless("the access log goes where --access-log says and nowhere else"),
    ),
    row(
        "access_log_format --access-logformat",
        Setting("access-log-format", read::text),
    ),
    row("errorlog --error-logfile --log-file", Together),
    row("loglevel --log-level", Setting("log-level", log_level)),
    switch(
        "capture_output --capture-output",
        Needless("what the application prints goes into the log"),
    ),
    row("logger_class --logger-class", Lost(LOGGING)),
    row("logconfig --log-config", Lost(LOGGING)),
    row("logconfig_dict", Lost(LOGGING)),
    row("logconfig_json --log-config-json", Lost(LOGGING)),
    row("syslog_addr --log-syslog-to", Together),
    switch("syslog --log-syslog", Together),
    row(
        "syslog_prefix --log-syslog-prefix",
        Needless("entries are those of rswsgi and of its process"),
    ),
    row("syslog_facility --log-syslog-facility", Together),
    switch(
        "enable_stdio_inheritance -R --enable-stdio-inheritance",
        Needless("standard output and error are inherited, and flushed line by line"),
    ),
    row("statsd_host --statsd-host", Lost(STATSD)),
    row("dogstatsd_tags --dogstatsd-tags", Lost(STATSD)),
    row("statsd_prefix --statsd-prefix", Lost(STATSD)),
    switch(
        "enable_backlog_metric --enable-backlog-metric",
        Needless("/metrics has the backlog of each listener"),
    ),
    // Process naming
    row("proc_name -n --name", Setting("name", app_name)),
    row(
        "default_proc_name",
        Needless("the app is named after its module"),
    ),
    // TLS
    row("keyfile --keyfile", Lost(TLS)),
    row("certfile --certfile", Lost(TLS)),
    row("ssl_version --ssl-version", Lost(TLS)),
    row("cert_reqs --cert-reqs", Lost(TLS)),
    row("ca_certs --ca-certs", Lost(TLS)),
    switch("suppress_ragged_eofs --suppress-ragged-eofs", Needless(TLS)),
    switch(
        "do_handshake_on_connect --do-handshake-on-connect",
        Needless(TLS),
    ),
    row("ciphers --ciphers", Lost(TLS)),
    row("ssl_context", Lost(TLS)),
    // HTTP/2
    row("http_protocols --http-protocols", Together),
    row("http2_cleartext --http2-cleartext", Lost(HTTP2)),
    row(
        "http2_max_concurrent_streams --http2-max-concurrent-streams",
        Lost(HTTP2),
    ),
    row(
        "http2_initial_window_size --http2-initial-window-size",
        Lost(HTTP2),
    ),
    row("http2_max_frame_size --http2-max-frame-size", Lost(HTTP2)),
    row(
        "http2_max_header_list_size --http2-max-header-list-size",
        Lost(HTTP2),
    ),
    // Security
    row(
        "limit_request_line --limit-request-line",
        Setting("limit-request-line", request_line),
    ),
    row(
        "limit_request_fields --limit-request-fields",
        Setting("limit-fields", read::number),
    ),
    row(
        "limit_request_field_size --limit-request-field_size",
        Lost("--limit-head is for the whole head"),
    ),
    // Hooks
    row(
        "on_starting",
        Lost("ExecStartPre= of systemd, or code at the import of the application"),
    ),
    row(
        "on_reload",
        Lost("code at the import of the application runs for each generation"),
    ),
    row(
        "when_ready",
        Lost("systemd is told (Type=notify), rswsgictl wait waits for it"),
    ),
    row(
        "pre_fork",
        Lost("os.register_at_fork(before=...) in the application"),
    ),
    row("post_fork", Lost(AFTER_FORK)),
    row("post_worker_init", Lost(AFTER_FORK)),
    row(
        "worker_int",
        Lost("atexit functions of the application run when a worker leaves"),
    ),
    row(
        "worker_abort",
        Lost(
            "rswsgi.RequestTimeout is raised in the application at --request-timeout; after --kill-timeout the stacks \
            go into the log",
        ),
    ),
    row(
        "pre_exec",
        Lost("USR2 executes the program anew after a check"),
    ),
    row("pre_request", Lost(MIDDLEWARE)),
    row("post_request", Lost(MIDDLEWARE)),
    row(
        "child_exit",
        Lost("the log says how a worker has ended; no code runs outside the workers"),
    ),
    row(
        "worker_exit",
        Lost("atexit functions of the application run when a worker leaves"),
    ),
    row(
        "nworkers_changed",
        Lost("rswsgictl stats and /metrics have the number of workers"),
    ),
    row("on_exit", Lost("ExecStopPost= of systemd")),
    // Server mechanics
    switch(
        "preload_app --preload",
        Needless("the application is always imported once, before workers are forked"),
    ),
    switch(
        "sendfile --no-sendfile",
        Needless("wsgi.file_wrapper always uses sendfile(2)"),
    ),
    switch(
        "reuse_port --reuse-port",
        Needless("workers accept from one socket, no connection waits at a busy one"),
    ),
    row("chdir --chdir", Setting("chdir", read::text)),
    switch("daemon -D --daemon", Setting("daemon", read::yes)),
    row("raw_env -e --env", Setting("env", read::list)),
    row("pidfile -p --pid", Setting("pid-file", read::text)),
    row(
        "worker_tmp_dir --worker-tmp-dir",
        Needless("workers have no heartbeat files"),
    ),
    row("user -u --user", Setting("user", read::text)),
    row("group -g --group", Setting("group", read::text)),
    row("umask -m --umask", Together),
    switch(
        "initgroups --initgroups",
        Needless("the groups of --user are always set"),
    ),
    row("tmp_upload_dir", Setting("temp-dir", read::text)),
    row("secure_scheme_headers", Lost(TRUST)),
    row(
        "forwarded_allow_ips --forwarded-allow-ips",
        Setting("trusted-proxies", networks),
    ),
    row("pythonpath --pythonpath", Together),
    row("paste --paste --paster", Lost(PASTE)),
    row("raw_paste_global_conf --paste-global", Lost(PASTE)),
    row("proxy_protocol --proxy-protocol", Together),
    row(
        "proxy_allow_ips --proxy-allow-from",
        Lost(
            "who can connect to a listener with ?proxy-protocol=on is believed: keep others from it",
        ),
    ),
    row("protocol --protocol", Together),
    row(
        "uwsgi_allow_ips --uwsgi-allow-from",
        Lost("rswsgi speaks HTTP, not the uwsgi protocol"),
    ),
    switch("strip_header_spaces --strip-header-spaces", Lost(LENIENT)),
    switch(
        "permit_unconventional_http_method --permit-unconventional-http-method",
        Lost(LENIENT),
    ),
    switch(
        "permit_unconventional_http_version --permit-unconventional-http-version",
        Lost(LENIENT),
    ),
    switch("casefold_http_method --casefold-http-method", Lost(LENIENT)),
    switch(
        "permit_obsolete_folding --permit-obsolete-folding",
        Lost(LENIENT),
    ),
    row(
        "forwarder_headers --forwarder-headers",
        Lost("--script-name sets the mount point, headers cannot"),
    ),
    row(
        "header_map --header-map",
        Setting("underscore-fields", header_map),
    ),
    row("root_path --root-path", Lost(ASGI)),
    // Server socket
    row("bind -b --bind", Together),
    row("backlog --backlog", Setting("backlog", read::number)),
    // Worker processes
    row("workers -w --workers", Together),
    row("worker_class -k --worker-class", Together),
    row("threads --threads", Together),
    row(
        "worker_connections --worker-connections",
        Setting("max-connections", read::number),
    ),
    row(
        "max_requests --max-requests",
        Setting("max-requests", read::number),
    ),
    row(
        "max_requests_jitter --max-requests-jitter",
        Setting("max-requests-jitter", read::number),
    ),
    row(
        "timeout -t --timeout",
        Setting("request-timeout", read::seconds),
    ),
    row(
        "graceful_timeout --graceful-timeout",
        Setting("graceful-timeout", read::seconds),
    ),
    row(
        "keepalive --keep-alive",
        Setting("keep-alive", read::seconds),
    ),
    row("http_parser --http-parser", Needless("there is one")),
    row("asgi_loop --asgi-loop", Lost(ASGI)),
    row("asgi_lifespan --asgi-lifespan", Lost(ASGI)),
    row(
        "asgi_disconnect_grace_period --asgi-disconnect-grace-period",
        Lost(ASGI),
    ),
    row(
        "websocket_max_message_size --websocket-max-message-size",
        Lost(ASGI),
    ),
    // Dirty arbiters
    row("dirty_apps --dirty-app", Lost(DIRTY)),
    row("dirty_workers --dirty-workers", Lost(DIRTY)),
    row("dirty_timeout --dirty-timeout", Lost(DIRTY)),
    row("dirty_threads --dirty-threads", Lost(DIRTY)),
    row(
        "dirty_graceful_timeout --dirty-graceful-timeout",
        Lost(DIRTY),
    ),
    row("on_dirty_starting", Lost(DIRTY)),
    row("dirty_post_fork", Lost(DIRTY)),
    row("dirty_worker_init", Lost(DIRTY)),
    row("dirty_worker_exit", Lost(DIRTY)),
    // Control
    row(
        "control_socket --control-socket",
        Lost("--control names the socket of rswsgictl, which speaks another language"),
    ),
    switch(
        "control_socket_disable --no-control-socket",
        Setting("control", no_control),
    ),
    row(
        "control_socket_mode --control-socket-mode",
        Lost("its mode is 600; --control-group lets a group look"),
    ),
];

fn log_level(value: &Value) -> read::Read {
    let level = read::one(value)?.to_ascii_lowercase();
    Ok(vec![match level.as_str() {
        "critical" => "error".into(),
        "warn" => "warning".into(),
        _ => level,
    }])
}

/// 0 is no limit to gunicorn; ours is the largest one.
fn request_line(value: &Value) -> read::Read {
    Ok(vec![match read::whole(value)? {
        0 => "64k".into(),
        bytes => bytes.max(256).to_string(),
    }])
}

fn header_map(value: &Value) -> read::Read {
    match read::one(value)?.as_str() {
        "dangerous" => Ok(vec!["keep".into()]),
        other => Ok(vec![other.into()]),
    }
}

/// Names of processes may be anything; those of apps appear in file names.
fn app_name(value: &Value) -> read::Read {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = read::one(value)?;
    Ok(vec![
        name.chars()
            .map(|c| if fits(c) { c } else { '-' })
            .collect(),
    ])
}

/// To gunicorn `*` is everybody.
fn networks(value: &Value) -> read::Read {
    let names = read::commas(value)?.into_iter();
    Ok(names
        .flat_map(|name| match name.as_str() {
            "*" => vec!["0.0.0.0/0".into(), "::/0".into(), "unix".into()],
            _ => vec![name],
        })
        .collect())
}

fn no_control(_: &Value) -> read::Read {
    Ok(vec!["none".into()])
}
