//! From arguments and environment to settings, as a whole.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::error::Exit;

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation> {
    let args = ["rswsgi"].iter().chain(args).map(OsString::from);
    let find = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    parse_in(Path::new("/srv"), args, find)
}

fn serve_with(args: &[&str], env: &[(&str, &str)]) -> Settings {
    match run(args, env).unwrap() {
        Invocation::Serve(settings) => settings,
        other => panic!("{other:?}"),
    }
}

fn serve(args: &[&str]) -> Settings {
    serve_with(args, &[])
}

fn refused(args: &[&str]) -> String {
    let error = run(args, &[]).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage, "{error}");
    error.to_string()
}

/// A setting that is read gets its own value into the settings; one that is forgotten changes nothing.
#[test]
fn every_setting_reaches_the_settings() {
    let plain = serve_with(&["m"], &[]);
    for setting in SETTINGS {
        let value = match (&setting.kind, setting.name) {
            (_, "target" | "app" | "check") => continue,
            (Kind::Switch, _) => String::new(),
            // Its smallest value is the default of some: none.
            (Kind::Number(limits) | Kind::Size(limits), _) => match limits.start() {
                0 if setting.default == Some("0") => "1".to_owned(),
                start => start.to_string(),
            },
            (Kind::Duration(limits), _) => format!("{}ms", limits.end()),
            (Kind::Choice(choices), _) => choices[choices.len() - 1].to_owned(),
            (Kind::Path, _) | (_, "sys-path") => "x".to_owned(),
            (_, "bind") => "unix:x".to_owned(),
            (_, "env") => "K=V".to_owned(),
            (_, "script-name" | "warm-up") => "/x".to_owned(),
            (_, "workers") => "3".to_owned(),
            (_, "module" | "name" | "log" | "access-log") => "x".to_owned(),
            (_, "access-log-format") => "json".to_owned(),
            (_, name) => panic!("{name} needs a value here"),
        };
        let flag = match value.as_str() {
            "" => format!("--{}", setting.name),
            value => format!("--{}={value}", setting.name),
        };
        let mut args = vec![flag.as_str()];
        if setting.name == "limit-head" {
            args.push("--limit-request-line=256");
        }
        if setting.name != "module" {
            args.push("m");
        }
        assert_ne!(serve(&args), plain, "{flag} changes nothing");
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let settings = serve(&["mysite.wsgi"]);
    assert_eq!(settings.name, "mysite");
    assert_eq!(settings.bind, []);
    assert_eq!(settings.workers, Pool::Auto);
    assert_eq!(settings.script_name, "");
    assert_eq!(settings.underscore_fields, UnderscoreFields::Drop);
    let limits = settings.limits;
    assert_eq!(
        (limits.request_line, limits.head, limits.fields),
        (8192, 65_536, 100)
    );
    assert_eq!((limits.max_body, limits.body_memory), (256 << 20, 1 << 20));
    assert_eq!(limits.keep_alive, Some(Duration::from_secs(75)));
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_default() {
    let backlog = |args, env| serve_with(args, env).backlog;
    let env = &[("RSWSGI_BACKLOG", "7")];
    assert_eq!(backlog(&["m"], &[]), 2048);
    assert_eq!(backlog(&["m"], env), 7);
    assert_eq!(backlog(&["m", "--backlog=9"], env), 9);
    assert_eq!(backlog(&["m"], &[("RSWSGI_BACKLOG", "")]), 2048);
}

#[test]
fn a_list_of_a_higher_layer_replaces_the_lower_one() {
    let env = &[
        ("RSWSGI_BIND", "127.0.0.1:1,unix:/a"),
        ("RSWSGI_SYS_PATH", "/x:y"),
    ];
    let settings = serve_with(&["m"], env);
    let texts: Vec<_> = settings.bind.iter().map(Bind::to_string).collect();
    assert_eq!(texts, ["127.0.0.1:1", "unix:/a"]);
    assert_eq!(
        settings.interpreter.sys_path,
        [PathBuf::from("/x"), PathBuf::from("/srv/y")]
    );
    let settings = serve_with(&["m", "-b", ":2", "-b:3"], env);
    let texts: Vec<_> = settings.bind.iter().map(Bind::to_string).collect();
    assert_eq!(texts, [":2", ":3"]);
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    for (args, name, value, message) in [
        (
            &["m"][..],
            "RSWSGI_BACKLOG",
            "x",
            "RSWSGI_BACKLOG: \"x\" is not a number",
        ),
        (
            &[],
            "RSWSGI_TARGET",
            "a.py",
            "RSWSGI_TARGET: \"a.py\" is a file, not a module; did you mean \"a\"?",
        ),
    ] {
        let error = run(args, &[(name, value)]).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.exit(), Exit::Config);
    }
}

#[test]
fn a_variable_that_is_not_text_is_refused() {
    let args = ["rswsgi", "m"].iter().map(OsString::from);
    let env = |name: &str| (name == "RSWSGI_VENV").then(|| OsString::from_vec(vec![b'/', 0xff]));
    let error = parse_in(Path::new("/srv"), args, env).unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
    assert!(error.to_string().starts_with("RSWSGI_VENV: "), "{error}");
}

#[test]
fn the_target_may_be_spelled_in_two_ways_but_not_in_both() {
    let target = |args: &[&str]| serve(args).target.to_string();
    assert_eq!(target(&["a:b"]), "a:b");
    assert_eq!(target(&["--module", "a", "--app", "b"]), "a:b");
    assert_eq!(target(&["--module", "a"]), "a");
    assert_eq!(target(&["--module", "a:b"]), "a:b");
    refused(&["a", "--module", "a"]);
    refused(&["a", "--app", "b"]);
    refused(&["--app", "b"]);
    refused(&["--module", "a:b", "--app", "c"]);
    refused(&["a", "b"]);
    refused(&[]);
}

#[test]
fn a_target_on_the_command_line_replaces_the_one_in_the_environment() {
    let env = &[("RSWSGI_TARGET", "e:e")];
    assert_eq!(serve_with(&[], env).target.to_string(), "e:e");
    assert_eq!(serve_with(&["a"], env).target.to_string(), "a");
    assert_eq!(serve_with(&["--module=a"], env).target.to_string(), "a");
}

#[test]
fn relative_paths_start_where_the_program_was_started() {
    let settings = serve(&[
        "m",
        "--venv=v",
        "--chdir=/c",
        "--sys-path=s",
        "--temp-dir=t",
        "--python=bin/python",
        "--bind=unix:a.sock",
    ]);
    let python = settings.interpreter;
    assert_eq!(python.venv, Some(PathBuf::from("/srv/v")));
    assert_eq!(python.chdir, Some(PathBuf::from("/c")));
    assert_eq!(python.sys_path, [PathBuf::from("/srv/s")]);
    assert_eq!(python.python, Some(PathBuf::from("/srv/bin/python")));
    assert_eq!(settings.limits.temp_dir, Some(PathBuf::from("/srv/t")));
    assert_eq!(settings.bind[0].to_string(), "unix:/srv/a.sock");
    let python = serve(&["m", "--python=python3.12"]).interpreter.python;
    assert_eq!(python, Some(PathBuf::from("python3.12")));
}

#[test]
fn zero_switches_a_limit_off_where_that_is_promised() {
    let limits = serve(&["m", "--keep-alive=0", "--max-body=0"]).limits;
    assert_eq!(limits.keep_alive, None);
    assert_eq!(limits.max_body, u64::MAX);
}

#[test]
fn a_mistake_names_the_flag_and_the_reason() {
    for (flag, message) in [
        ("--backlog=x", "--backlog: \"x\" is not a number"),
        (
            "--head-timeout=1d",
            "--head-timeout: \"1d\" is not a duration such as 500ms, 30s, 5m or 1h",
        ),
        (
            "--limit-fields=300",
            "--limit-fields: \"300\" is not between 1 and 256",
        ),
        (
            "--underscore-fields=x",
            "--underscore-fields: \"x\" is not one of drop, refuse, keep",
        ),
        (
            "--script-name=a",
            "--script-name: \"a\" does not start with '/'",
        ),
        (
            "--limit-head=1k",
            "--limit-head: a request line of 8k does not fit into a head of 1k",
        ),
        ("--venv=", "--venv: the path is empty"),
        (
            "--name=a b",
            "--name: \"a b\" is not an app name: 1 to 64 letters, digits, '-', '_' or '.', not starting with '.'",
        ),
    ] {
        assert_eq!(refused(&["m", flag]), message);
    }
}

#[test]
fn an_unknown_flag_gets_a_suggestion() {
    assert_eq!(
        refused(&["m", "--wrokers=2"]),
        "unknown option \"--wrokers\"; did you mean \"--workers\"?"
    );
    assert_eq!(
        refused(&["m", "--zzz"]),
        "unknown option \"--zzz\"; see rswsgi --help"
    );
    assert!(refused(&["m", "--backlog"]).contains("--backlog"));
}

#[test]
fn the_last_of_two_equal_flags_wins() {
    assert_eq!(serve(&["m", "--backlog=1", "--backlog=2"]).backlog, 2);
}

#[test]
fn check_is_an_invocation_of_its_own() {
    assert!(matches!(
        run(&["m", "--check"], &[]),
        Ok(Invocation::Check(_))
    ));
    let env = &[("RSWSGI_CHECK", "1")];
    assert!(matches!(run(&["m"], env), Ok(Invocation::Serve(_))));
}

#[test]
fn help_and_version_are_texts_to_print() {
    let print = |flag| match run(&[flag], &[]) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        print("--version"),
        format!("rswsgi {}\n", env!("CARGO_PKG_VERSION"))
    );
    let (short, long) = (print("-h"), print("--help"));
    assert!(short.len() < long.len());
    for setting in SETTINGS {
        if setting.name != "target" {
            assert!(
                short.contains(&format!("--{}", setting.name)),
                "{}",
                setting.name
            );
        }
        if let Some(variable) = setting.variable() {
            assert!(long.contains(&variable), "{variable}");
        }
    }
}

#[test]
fn the_command_is_one_clap_accepts() {
    command().debug_assert();
}

#[test]
fn settings_survive_the_way_to_the_master() {
    let settings = serve(&[
        "m:f(\"x\")",
        "-b",
        "unix:/a?mode=600",
        "-b",
        "[::1]:0",
        "-w3",
        "--env=A=b",
        "--max-body=0",
        "--keep-alive=0",
    ]);
    let text = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
}
