//! gunicorn: its settings reference as a table, and what has to be looked at together.

#![forbid(unsafe_code)]

mod table;

use std::collections::BTreeMap;

use serde_json::Value;

use super::read::{self, is_on, one, show};
use super::{Draft, Given, find};
pub(super) use table::TABLE;
use table::{ASGI, HTTP2};

/// Marks a value that is a function or a class: `{CALLABLE: its name}`.
pub const CALLABLE: &str = "callable";

/// Settings whose defaults differ, where nothing is said: gunicorn's name, its default, our setting.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("workers", "1", "workers"),
    ("timeout", "30 s", "request-timeout"),
    ("keepalive", "2 s", "keep-alive"),
    ("forwarded_allow_ips", "this machine", "trusted-proxies"),
    ("limit_request_line", "4094", "limit-request-line"),
];

/// In the order in which they were read: the last one counts.
pub fn convert(options: Vec<Given>) -> Draft {
    let mut draft = Draft::new("gunicorn");
    let mut given: BTreeMap<&'static str, Value> = BTreeMap::new();
    let mut unknown = Vec::new();
    for Given { name, value } in options {
        match find(TABLE, &name) {
            // What is off, empty or none is as if it had not been given.
            Some(row) if is_nothing(&value) => {
                given.remove(row.name());
            }
            Some(row) => {
                given.insert(row.name(), value);
            }
            None => unknown.push((name, value)),
        }
    }
    for row in TABLE {
        if let Some(value) = given.get(row.name()) {
            draft.take(row, row.name(), value);
        }
    }
    combine(&given, &mut draft);
    for (name, value) in unknown {
        match name.starts_with('-') {
            true => draft.lose(&name, &value, "no option of gunicorn that rswsgi knows"),
            // A variable of the program that the file is.
            false if value.get(CALLABLE).is_some() => {}
            false => draft.needless(&name, "no setting of gunicorn"),
        }
    }
    for (name, theirs, ours) in DEFAULTS {
        if !given.contains_key(name) && draft.get(ours).is_none() {
            draft.note(format!(
                "{name} was left at gunicorn's default, {theirs}; rswsgi has another one for --{ours}."
            ));
        }
    }
    draft
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) | Value::Bool(true) => false,
    }
}

/// What several options say together.
fn combine(given: &BTreeMap<&'static str, Value>, draft: &mut Draft) {
    let get = |name: &str| given.get(name);
    if let Some(value) = get("wsgi_app") {
        match one(value) {
            Ok(target) => draft.set("target", vec![target], "wsgi_app"),
            Err(reason) => draft.lose("wsgi_app", value, reason),
        }
    }
    let version = get("proxy_protocol").map(|value| (value, one(value).unwrap_or_default()));
    let speaks_first = match version {
        Some((value, text)) if is_on(value) || ["auto", "v1", "v2"].contains(&&*text) => {
            Some(value)
        }
        Some((value, text)) if text != "off" => {
            draft.lose(
                "proxy_protocol",
                value,
                "it is neither off, v1, v2 nor auto",
            );
            None
        }
        _ => None,
    };
    bind(get("bind"), get("umask"), speaks_first, draft);
    pool(get("workers"), get("threads"), get("worker_class"), draft);
    logs(given, draft);
    if let Some(value) = get("umask") {
        match read::umask(value) {
            Ok(texts) => draft.set("umask", texts, "umask"),
            Err(reason) => draft.lose("umask", value, reason),
        }
    }
    if let Some(value) = get("pythonpath") {
        match read::commas(value) {
            Ok(texts) => draft.set("sys-path", texts, "pythonpath"),
            Err(reason) => draft.lose("pythonpath", value, reason),
        }
        draft.remark(
            "sys-path",
            "gunicorn puts them at the start of sys.path, rswsgi at its end",
        );
    }
    if let Some(value) = get("protocol").filter(|value| value.as_str() != Some("http")) {
        let text = "rswsgi speaks HTTP: in nginx proxy_pass takes the place of uwsgi_pass";
        draft.lose("protocol", value, text);
    }
    let plain = |value: &&Value| !matches!(value.as_str(), Some("h1"));
    if let Some(value) = get("http_protocols").filter(plain) {
        draft.lose("http_protocols", value, HTTP2);
    }
    draft.remark(
        "trusted-proxies",
        "gunicorn learns only the scheme from them; here REMOTE_ADDR is that of the client as well, so that an \
         application needs no ProxyFix",
    );
    draft.remark(
        "request-timeout",
        "gunicorn kills the worker; rswsgi raises rswsgi.RequestTimeout in the application and answers 504",
    );
    draft.remark(
        "max-connections",
        "of each worker; requests run one at a time in it",
    );
}

/// A Unix socket of gunicorn has the permissions that its umask leaves, by default all.
fn bind(
    bind: Option<&Value>,
    umask: Option<&Value>,
    speaks_first: Option<&Value>,
    draft: &mut Draft,
) {
    let default = Value::from("127.0.0.1:8000");
    let Some(value) = bind.or(speaks_first.map(|_| &default)) else {
        return;
    };
    let addresses = match read::list(value) {
        Ok(addresses) => addresses,
        Err(reason) => return draft.lose("bind", value, reason),
    };
    let mask = umask.and_then(|mask| read::octal(mask).ok()).unwrap_or(0);
    // Who may write to a socket may connect to it.
    let mode = !mask & 0o666;
    let mut has_unix = false;
    let addresses = addresses
        .iter()
        .flat_map(|text| text.split(','))
        .map(|text| {
            let text = text.trim();
            let file = ["unix://", "unix:"]
                .iter()
                .find_map(|start| text.strip_prefix(start));
            match file {
                Some(path) => {
                    has_unix = true;
                    format!("unix:{path}?mode={mode:03o}")
                }
                None => tcp(text),
            }
        });
    let addresses = addresses.map(|address| match (speaks_first, address.contains('?')) {
        (None, _) => address,
        (Some(_), true) => format!("{address}&proxy-protocol=on"),
        (Some(_), false) => format!("{address}?proxy-protocol=on"),
    });
    let addresses = addresses.collect();
    let from = speaks_first.map_or("bind", |_| "bind, proxy_protocol");
    draft.set("bind", addresses, from);
    if has_unix {
        draft.remark(
            "bind",
            "the permissions that gunicorn gave the socket; ?mode=660&group=www-data lets only the web server in",
        );
    }
}

/// gunicorn's port, where there is none, is 8000.
fn tcp(text: &str) -> String {
    let text = ["tcp://", "http://"]
        .iter()
        .find_map(|start| text.strip_prefix(start))
        .unwrap_or(text);
    let has_port = match text.rsplit_once(']') {
        Some((_, rest)) => rest.starts_with(':'),
        None => text.contains(':'),
    };
    match has_port {
        true => text.to_owned(),
        false => format!("{text}:8000"),
    }
}

/// Threads and greenlets become workers: forks of a process that has imported the application cost little.
fn pool(
    workers: Option<&Value>,
    threads: Option<&Value>,
    class: Option<&Value>,
    draft: &mut Draft,
) {
    let count = |value: Option<&Value>| match value {
        None => Ok(1),
        Some(value) => read::whole(value),
    };
    let class = class.map(|class| one(class).unwrap_or_else(|_| show(class)));
    let class = class.as_deref().unwrap_or("sync");
    let (workers_given, threads_given) = (workers.is_some(), threads.is_some());
    match (count(workers), count(threads)) {
        (Ok(number), Ok(each)) => {
            let most = number.saturating_mul(each.max(1));
            let pool = match most > number {
                true => format!("{number}..{most}"),
                false => number.to_string(),
            };
            let from = match threads_given && most > number {
                true => "workers, threads",
                false => "workers",
            };
            if workers_given || most > number {
                draft.set("workers", vec![pool], from);
            }
            if most > number {
                draft.remark(
                    "workers",
                    "a worker runs one request at a time: as many workers as there were threads, started when \
                     they are needed",
                );
            } else if threads_given {
                draft.needless("threads", "a worker runs one request at a time");
            }
        }
        (number, each) => {
            for (option, value, read) in [("workers", workers, number), ("threads", threads, each)]
            {
                if let (Some(value), Err(reason)) = (value, read) {
                    draft.lose(option, value, reason);
                }
            }
        }
    }
    let of = |part: &str| class.contains(part);
    match class {
        "sync" | "gthread" => {}
        _ if of("gevent") || of("eventlet") || of("tornado") => draft.lose(
            "worker_class",
            &class.into(),
            "a worker runs one request at a time: let --workers MIN..MAX be as large as what waits at once",
        ),
        _ if of("vicorn") || of("asgi") => draft.lose("worker_class", &class.into(), ASGI),
        _ => draft.lose("worker_class", &class.into(), "there is one class of workers"),
    }
}

fn logs(given: &BTreeMap<&'static str, Value>, draft: &mut Draft) {
    let text = |name: &str| given.get(name).and_then(|value| one(value).ok());
    if let Some(file) = text("errorlog").filter(|file| file != "-") {
        draft.set("log", vec![file], "errorlog");
    }
    let Some(true) = given.get("syslog").map(is_on) else {
        for name in ["syslog_addr", "syslog_facility"] {
            if given.contains_key(name) {
                draft.needless(name, "syslog is off");
            }
        }
        return;
    };
    let facility = text("syslog_facility").unwrap_or_else(|| "user".into());
    let address = text("syslog_addr").unwrap_or_default();
    let socket = address.strip_prefix("unix://");
    let socket = socket.map(|path| path.split('#').next().unwrap_or_default());
    let place = match socket {
        Some(path) if path != "/dev/log" => format!("@{path}"),
        _ => String::new(),
    };
    let from = "syslog, syslog_facility, syslog_addr";
    draft.set("log", vec![format!("syslog:{facility}{place}")], from);
    if socket.is_none() && !address.is_empty() {
        let value = Value::String(address);
        let text = "rswsgi writes to the local syslog, which can send its entries on";
        draft.lose("syslog_addr", &value, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn converted(options: &[(&str, Value)]) -> Draft {
        let given = options
            .iter()
            .map(|(name, value)| Given::new(*name, value.clone()));
        convert(given.collect())
    }

    fn value(options: &[(&str, Value)], setting: &str) -> String {
        let draft = converted(options);
        draft
            .get(setting)
            .map(|texts| texts.join(" "))
            .unwrap_or_default()
    }

    #[test]
    fn values_become_those_of_the_settings() {
        for (options, setting, expected) in [
            (&[("workers", json!(4))][..], "workers", "4"),
            (
                &[("workers", json!(2)), ("threads", json!(8))],
                "workers",
                "2..16",
            ),
            (&[("threads", json!(4))], "workers", "1..4"),
            (&[("workers", json!(3)), ("-w", json!("5"))], "workers", "5"),
            (&[("bind", json!("0.0.0.0"))], "bind", "0.0.0.0:8000"),
            (
                &[("bind", json!(["[::]", "127.0.0.1:1"]))],
                "bind",
                "[::]:8000 127.0.0.1:1",
            ),
            (
                &[("bind", json!("unix:/run/a.sock"))],
                "bind",
                "unix:/run/a.sock?mode=666",
            ),
            (
                &[("bind", json!("unix:/a")), ("umask", json!("007"))],
                "bind",
                "unix:/a?mode=660",
            ),
            (&[("timeout", json!(120))], "request-timeout", "2m"),
            (
                &[("header_map", json!("dangerous"))],
                "underscore-fields",
                "keep",
            ),
            (&[("loglevel", json!("CRITICAL"))], "log-level", "error"),
            (&[("proc_name", json!("my shop"))], "name", "my-shop"),
            (&[("umask", json!(0o27))], "umask", "027"),
            (
                &[
                    ("syslog", json!(true)),
                    ("syslog_facility", json!("local1")),
                    ("syslog_addr", json!("unix:///run/x#dgram")),
                ],
                "log",
                "syslog:local1@/run/x",
            ),
            (&[("preload_app", json!(true))], "workers", ""),
            (&[("reload", json!(true))], "reload", "yes"),
            (
                &[("forwarded_allow_ips", json!("10.0.0.1, ::1"))],
                "trusted-proxies",
                "10.0.0.1 ::1",
            ),
            (
                &[
                    ("proxy_protocol", json!("auto")),
                    ("bind", json!(["unix:/a", ":1"])),
                ],
                "bind",
                "unix:/a?mode=666&proxy-protocol=on :1?proxy-protocol=on",
            ),
            (&[("proxy_protocol", json!("off"))], "bind", ""),
        ] {
            assert_eq!(value(options, setting), expected, "{options:?}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_listed() {
        let lost = |options: &[(&str, Value)]| {
            let mut draft = converted(options);
            let text = draft.write("x");
            (draft.lost().map(str::to_owned).collect::<Vec<_>>(), text)
        };
        let (lost_options, text) = lost(&[
            ("certfile", json!("/x.pem")),
            ("worker_class", json!("gevent")),
            ("post_fork", json!({ CALLABLE: "post_fork" })),
            ("workers", json!(5000)),
            ("bind", json!("0.0.0.0:$PORT")),
            ("keyfile", json!(null)),
        ]);
        assert_eq!(lost_options.len(), 5, "{text}");
        assert!(text.contains("--bind 0.0.0.0:$PORT"), "{text}");
        assert!(text.contains("post_fork = a function"), "{text}");
        assert!(!text.contains("keyfile"), "{text}");
        let (lost_options, _) = lost(&[("workers", json!(2)), ("cores", json!(9))]);
        assert_eq!(lost_options, Vec::<String>::new());
    }
}
