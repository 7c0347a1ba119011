//! uWSGI: the options that people use as a table, and what has to be looked at together.
//!
//! uWSGI has over a thousand options. One that is not in the table may be a placeholder (uWSGI takes any
//! name for one), so it is listed as unknown only where nothing refers to it.

#![forbid(unsafe_code)]

mod files;
mod table;

use std::collections::BTreeMap;

use serde_json::Value;

pub use files::{Source, read_ini, read_json, read_yaml};
pub(super) use table::TABLE;

use super::read::{self, is_on, one};
use super::{Becomes, Draft, Given, find};

/// Settings whose defaults differ, where nothing is said.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("processes", "1", "workers"),
    ("harakiri", "no limit", "request-timeout"),
    ("limit-post", "no limit", "max-body"),
];

type Options = BTreeMap<&'static str, Vec<Value>>;

/// In the order in which they were read.
pub fn convert(options: Vec<Given>) -> Draft {
    let mut draft = Draft::new("uWSGI");
    let mut given = Options::new();
    let mut logs_requests = true;
    for Given { name, value } in options {
        let name = name.trim_start_matches('-').replace('_', "-");
        match find(TABLE, &name) {
            Some(row) if is_off(row, &value) => {}
            // The names in such a row are options of their own, in others they are synonyms.
            Some(row) if matches!(row.becomes, Becomes::Needless(_) | Becomes::Lost(_)) => {
                logs_requests &= row.name() != "disable-logging";
                draft.take(row, &name, &value);
            }
            Some(row) => given.entry(row.name()).or_default().push(value),
            None => draft.lose(&name, &value, "no option of uWSGI that rswsgi knows"),
        }
    }
    for row in TABLE {
        for value in given.get(row.name()).into_iter().flatten() {
            draft.take(row, row.name(), value);
        }
    }
    combine(&given, &mut draft);
    for (name, theirs, ours) in DEFAULTS {
        if !given.contains_key(name) && draft.get(ours).is_none() {
            draft.note(format!(
                "{name} was left at uWSGI's default, {theirs}; rswsgi has another one for --{ours}."
            ));
        }
    }
    if logs_requests && draft.get("access-log").is_none() {
        draft.note("uWSGI logs each request unless it is told otherwise; here --access-log does.");
    }
    draft
}

/// `name = false` is as if it had not been given, where the option is on or off.
fn is_off(row: &super::Row, value: &Value) -> bool {
    row.takes == super::Takes::Nothing && !is_on(value) && value.as_str() != Some("")
}

fn last<'a>(given: &'a Options, name: &str) -> Option<&'a Value> {
    given.get(name)?.last()
}

/// What several options say together.
fn combine(given: &Options, draft: &mut Draft) {
    target(given, draft);
    sockets(given, draft);
    pool(given, draft);
    lists(given, draft);
    logs(given, draft);
    restart(given, draft);
    draft.remark(
        "request-timeout",
        "uWSGI kills the worker; rswsgi raises rswsgi.RequestTimeout in the application and answers 504",
    );
    draft.remark(
        "max-memory",
        "it counts what a worker does not share with the others, not its resident size",
    );
    draft.remark(
        "sys-path",
        "uWSGI puts them at the start of sys.path, rswsgi at its end",
    );
}

fn target(given: &Options, draft: &mut Draft) {
    let text = |name: &str| last(given, name).and_then(|value| one(value).ok());
    let callable = text("callable");
    let name = |module: String| match (&callable, module.contains(':')) {
        (Some(callable), false) => format!("{module}:{callable}"),
        _ => module,
    };
    let mounts = given.get("mount").map(Vec::as_slice).unwrap_or_default();
    if let Some(module) = text("module") {
        draft.set("target", vec![name(module)], "module, callable");
    } else if let Some(file) = text("wsgi-file") {
        from_file(&file, &name, draft);
    } else if let [mount] = mounts {
        let mount = one(mount).unwrap_or_default();
        if let Some((prefix, module)) = mount.split_once('=') {
            match module.strip_suffix(".py") {
                Some(_) => from_file(module, &name, draft),
                None => draft.set("target", vec![name(module.into())], "mount"),
            }
            let prefix = prefix.trim_end_matches('/');
            draft.set("script-name", vec![prefix.into()], "mount");
        }
        return;
    } else if let Some(paste) = last(given, "paste") {
        let text = "make a module with application = paste.deploy.loadapp(\"config:/path/of.ini\")";
        draft.lose("paste", paste, text);
    }
    for mount in mounts {
        let text = "one application per rswsgi: mount further ones in the web server, or with a dispatcher in \
            the application";
        draft.lose("mount", mount, text);
    }
}

/// `dir/wsgi.py` is the module `wsgi` where it can be found.
fn from_file(file: &str, name: &impl Fn(String) -> String, draft: &mut Draft) {
    let (directory, base) = file.rsplit_once('/').unwrap_or(("", file));
    let Some(module) = base.strip_suffix(".py") else {
        let text = "rename it to a module: NAME.py";
        return draft.lose("wsgi-file", &file.into(), text);
    };
    // A file in a package that is found from the working directory is best named as such.
    let inside = draft
        .get("chdir")
        .and_then(|texts| texts.last())
        .and_then(|chdir| directory.strip_prefix(chdir.trim_end_matches('/')));
    let relative = match inside {
        Some(rest) => Some(rest.trim_start_matches('/')),
        None if !file.starts_with('/') => Some(directory),
        None => None,
    };
    match relative {
        Some(package) if !package.contains("..") => {
            let package = package.trim_start_matches("./").replace('/', ".");
            let module = match package.as_str() {
                "" => module.to_owned(),
                package => format!("{package}.{module}"),
            };
            draft.set("target", vec![name(module)], "wsgi-file, callable");
            if draft
                .get("target")
                .is_some_and(|texts| texts[0].contains('.'))
            {
                draft.remark("target", "as a module of the package that the file is in");
            }
        }
        _ => {
            draft.set("target", vec![name(module.into())], "wsgi-file, callable");
            draft.add("sys-path", vec![directory.into()], "wsgi-file");
        }
    }
}

fn sockets(given: &Options, draft: &mut Draft) {
    let mode = last(given, "chmod-socket").map(|value| match one(value) {
        Ok(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() => digits,
        // Without a value it is open to all.
        _ => "666".into(),
    });
    let owner = last(given, "chown-socket").and_then(|value| one(value).ok());
    let mut query = Vec::new();
    if let Some(mode) = &mode {
        query.push(format!("mode={}", mode.trim_start_matches('0')));
    }
    if let Some(owner) = &owner {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        for (name, value) in [("user", user), ("group", group)] {
            if !value.is_empty() {
                query.push(format!("{name}={value}"));
            }
        }
    }
    for (option, speaks_http) in [("socket", false), ("http-socket", true), ("http", true)] {
        for value in given.get(option).into_iter().flatten() {
            for address in read::commas(value).unwrap_or_default() {
                let address = match address.contains(':') || is_port(&address) {
                    // A bare number is a port of 127.0.0.1 to nobody: uWSGI binds all addresses.
                    true if is_port(&address) => format!(":{address}"),
                    true => address,
                    false if query.is_empty() => format!("unix:{address}"),
                    false => format!("unix:{address}?{}", query.join("&")),
                };
                draft.add("bind", vec![address], option);
            }
            if !speaks_http {
                draft.remark(
                    "bind",
                    "it speaks HTTP, not the uwsgi protocol: in nginx proxy_pass http://... takes the place of \
                     uwsgi_pass and include uwsgi_params",
                );
            }
        }
    }
    if draft.get("bind").is_some() && mode.is_some() {
        draft.remark("bind", "the mode is chmod-socket");
    } else if let Some(value) = last(given, "chmod-socket") {
        draft.lose(
            "chmod-socket",
            value,
            "no socket is named; --bind unix:/path?mode=660 sets it",
        );
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Threads and greenlets become workers.
fn pool(given: &Options, draft: &mut Draft) {
    let mut count = |name: &str| match last(given, name).map(|value| (value, read::whole(value))) {
        Some((_, Ok(number))) => Some(number),
        // `%k` and the like.
        Some((value, Err(reason))) => {
            draft.lose(name, value, reason);
            None
        }
        None => None,
    };
    let (processes, threads) = (count("processes"), count("threads"));
    let (cheaper, greenlets) = (count("cheaper"), count("gevent"));
    let most = processes.unwrap_or(1);
    let each = threads.or(greenlets).unwrap_or(1).max(1);
    let all = most.saturating_mul(each);
    let least = cheaper.unwrap_or(most).clamp(1, most.max(1));
    if processes.is_none() && all == 1 {
        return;
    }
    let pool = match least < all {
        true => format!("{least}..{all}"),
        false => all.to_string(),
    };
    let names = [
        ("processes", processes.is_some()),
        ("cheaper", cheaper.is_some()),
        ("threads", threads.is_some()),
        ("gevent", greenlets.is_some()),
    ];
    let names: Vec<&str> = names
        .iter()
        .filter(|(_, is)| *is)
        .map(|(name, _)| *name)
        .collect();
    draft.set("workers", vec![pool], &names.join(", "));
    if each > 1 {
        draft.remark(
            "workers",
            "a worker runs one request at a time: as many workers as there were threads, started when they are \
             needed",
        );
    }
}

/// Options that are given once for each value.
fn lists(given: &Options, draft: &mut Draft) {
    for (option, setting) in [("pythonpath", "sys-path"), ("env", "env")] {
        for value in given.get(option).into_iter().flatten() {
            match one(value) {
                Ok(text) => draft.add(setting, vec![text], option),
                Err(reason) => draft.lose(option, value, reason),
            }
        }
    }
    if let Some(value) = last(given, "limit-as") {
        match read::mebibytes(value) {
            Ok(texts) => draft.add("rlimit", vec![format!("as={}", texts[0])], "limit-as"),
            Err(reason) => draft.lose("limit-as", value, reason),
        }
    }
    if let Some(value) = last(given, "max-fd") {
        match read::number(value) {
            Ok(texts) => draft.add("rlimit", vec![format!("nofile={}", texts[0])], "max-fd"),
            Err(reason) => draft.lose("max-fd", value, reason),
        }
    }
}

/// There is one file that asks for a reload.
fn restart(given: &Options, draft: &mut Draft) {
    for value in given.get("touch-reload").into_iter().flatten() {
        match one(value) {
            Ok(file) if draft.get("restart-file").is_none() => {
                draft.set("restart-file", vec![file], "touch-reload");
            }
            _ => draft.lose("touch-reload", value, table::TOUCH),
        }
    }
}

fn logs(given: &Options, draft: &mut Draft) {
    for name in ["logto", "daemonize", "logger"] {
        let Some(value) = last(given, name) else {
            continue;
        };
        let text = one(value).unwrap_or_default();
        let place = match text.split_once(':') {
            Some(("syslog", _)) => "syslog",
            Some(("file", path)) => path,
            Some(("stdio", _)) => "stderr",
            Some((_, _)) if name == "logger" => {
                let text = "--log takes stderr, a file, syslog or journal";
                draft.lose(name, value, text);
                continue;
            }
            _ if text == "syslog" => "syslog",
            _ => &text,
        };
        draft.set("log", vec![place.into()], name);
        if name == "daemonize" {
            draft.set("daemon", vec!["yes".into()], name);
        }
    }
    if let Some(value) = last(given, "req-logger") {
        let text = one(value).unwrap_or_default();
        let place = match text.split_once(':') {
            Some(("file", path)) => path.to_owned(),
            Some(("syslog", _)) => "syslog".into(),
            _ if text == "syslog" => "syslog".into(),
            _ => "stdout".into(),
        };
        draft.set("access-log", vec![place], "req-logger");
    }
    if let Some(value) = last(given, "log-format") {
        let text = "uWSGI names the fields %(addr), %(uri), ...; --access-log-format has %(h)s, %(q)s and names \
            such as %(app_ms)s: rswsgi --help lists them";
        draft.lose("log-format", value, text);
    }
}

#[cfg(test)]
mod tests;
