//! The form of every reply, against files in `golden/`. Values that differ from run to run are masked:
//! numbers are 0, texts that name places or processes are `...`. `RSWSGI_WRITE_GOLDEN=1` writes the files.

use super::ours;
use crate::support::{Control, Server};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Texts that are the same in every run.
const FIXED: &[&str] = &[
    "kind",
    "stage",
    "result",
    "name",
    "app",
    "takes_effect",
    "source",
    "stopping",
    "method",
    "path",
    "request",
];

fn mask(key: &str, value: &Value) -> Value {
    match value {
        Value::Number(_) => 0.into(),
        // What a kernel or a moment decides.
        Value::Array(_) if key == "last_minute" || key == "buckets" => "...".into(),
        Value::String(text) if key == "name" && text.contains(':') => "...".into(),
        Value::String(_) if key == "state" || !FIXED.contains(&key) => "...".into(),
        // Some stand for all.
        Value::Array(settings) if key == "settings" => settings
            .iter()
            .filter(|setting| {
                ["target", "env", "venv"]
                    .iter()
                    .any(|name| setting["name"] == *name)
            })
            .map(|setting| mask("", setting))
            .collect(),
        Value::Array(items) => items.iter().map(|item| mask(key, item)).collect(),
        Value::Object(fields) => {
            let masked = fields.iter().map(|(k, v)| (k.clone(), mask(k, v)));
            Value::Object(masked.collect())
        }
        other => other.clone(),
    }
}

#[track_caller]
fn compare(name: &str, reply: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/control/golden")
        .join(format!("{name}.json"));
    let shown = serde_json::to_string_pretty(&mask("", reply)).expect("it is JSON") + "\n";
    if std::env::var_os("RSWSGI_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, shown).expect("write a golden file");
        return;
    }
    let golden = std::fs::read_to_string(&path).expect("read a golden file");
    assert_eq!(shown, golden, "the reply to {name} has another form");
}

#[test]
fn every_reply_has_the_form_that_is_documented() {
    if !ours() {
        return;
    }
    let broken = "raise RuntimeError('broken')\n";
    let server = Server::new()
        .app("basic")
        .workers(1)
        .arg("--env", "SECRET=hidden")
        .file("basic2.py", broken)
        .expect_error("reload failed")
        .expect_error("RuntimeError")
        .start();
    let mut control = Control::of(&server, "basic");
    // One request runs meanwhile.
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait?x HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.notes.next().starts_with("waiting"));
    for (name, request) in [
        ("ping", json!({"do": "ping"})),
        ("stats", json!({"do": "stats"})),
        ("trace", json!({"do": "trace"})),
        ("config", json!({"do": "config"})),
        ("scale", json!({"do": "scale", "by": 0})),
        ("recycle", json!({"do": "recycle"})),
        ("log-level", json!({"do": "log-level"})),
        ("reopen", json!({"do": "reopen"})),
        ("no-such-app", json!({"do": "stats", "app": "other"})),
        ("no-such-worker", json!({"do": "trace", "worker": 999})),
        ("unknown-verb", json!({"do": "dance"})),
        ("bad-argument", json!({"do": "scale"})),
    ] {
        let reply = control.ask(request);
        assert!(!reply.to_string().contains("hidden"), "{reply}");
        compare(name, &reply);
    }
    gate.open();
    client.response().assert_status(200);
    compare("reload", &control.ask(json!({"do": "reload"})));
    server.write("basic.py", broken);
    control.send("not JSON\n");
    compare("malformed", &control.reply());
    assert_eq!(
        control.line(),
        "",
        "after what is no request nothing is read"
    );
    let mut control = Control::of(&server, "basic");
    compare("stop", &control.ask(json!({"do": "stop"})));
    assert_eq!(control.line(), "", "the connection ends with the server");
}

#[test]
fn a_failed_reload_has_a_form_too() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("shop")
        .file(
            "shop.py",
            "def application(environ, start_response):\n    pass\n",
        )
        .expect_error("reload failed")
        .expect_error("RuntimeError")
        .start();
    let mut control = Control::of(&server, "shop");
    server.write("shop.py", "raise RuntimeError('broken')\n");
    compare("reload-failed", &control.ask(json!({"do": "reload"})));
    compare("stats-after-a-failed-reload", &control.app()["reload"]);
}

#[test]
fn the_manual_names_every_field() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(directory.join("man/rswsgi-control.7"));
    let manual = manual.expect("read the manual").replace("\\-", "-");
    let source = |name: &str| {
        let path = directory.join("src/control").join(name);
        std::fs::read_to_string(path).expect("read a source file")
    };
    let mut missing = Vec::new();
    for file in ["stats.rs", "reply.rs", "hosting.rs"] {
        let text = source(file);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let fields = code.lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("    pub ")?.split_once(':')?;
            name.chars()
                .all(|c| c.is_alphanumeric() || c == '_')
                .then_some(name)
        });
        let is_missing = |name: &&str| !manual.contains(&format!("\n.It Va {name}\n"));
        missing.extend(fields.filter(is_missing).map(str::to_owned));
    }
    for verb in rswsgi::control::VERBS {
        if !manual.contains(&format!("\n.It Ic {verb}\n")) {
            missing.push(verb.into());
        }
    }
    assert!(missing.is_empty(), "not in the manual: {missing:?}");
}
