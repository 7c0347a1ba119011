//! From arguments and environment to settings, as a whole.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::error::Exit;

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation> {
    let args = ["rswsgi"].iter().chain(args).map(OsString::from);
    let find = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    parse_in(Path::new("/srv"), args, find, Starter::Somebody)
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

/// Without what was asked for, which is kept whether or not it is obeyed.
fn meaning(args: &[&str]) -> Settings {
    Settings {
        given: Vec::new(),
        ..serve(args)
    }
}

fn refused(args: &[&str]) -> String {
    let error = run(args, &[]).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage, "{error}");
    error.to_string()
}

/// A setting that is read gets its own value into the settings; one that is forgotten changes nothing.
#[test]
fn every_setting_reaches_the_settings() {
    let plain = meaning(&["m"]);
    for setting in SETTINGS {
        let value = match (&setting.kind, setting.name) {
            (_, "target" | "app" | "apps-dir" | "user-apps-dir" | "app-log" | "app-access-log") => {
                continue;
            }
            _ if setting.section == Section::Actions => continue,
            (Kind::Switch, _) => String::new(),
            // Its smallest value is the default of some: none.
            (Kind::Number(limits) | Kind::Size(limits), _) => match limits.start() {
                0 if setting.default == Some("0") => "1".to_owned(),
                start => start.to_string(),
            },
            (Kind::Duration(limits), _) => format!("{}ms", limits.end()),
            (Kind::Choice(choices), _) => choices[choices.len() - 1].to_owned(),
            (Kind::Path, _) | (_, "sys-path" | "reload-extra" | "writable" | "readable") => {
                "x".to_owned()
            }
            (_, "bind" | "metrics-bind" | "control") => "unix:x".to_owned(),
            (_, "env") => "K=V".to_owned(),
            (_, "script-name" | "warm-up") => "/x".to_owned(),
            (_, "workers") => "3".to_owned(),
            (_, "module" | "name" | "log" | "access-log" | "user" | "group" | "control-group") => {
                "x".to_owned()
            }
            (_, "host") => "h".to_owned(),
            (_, "port") => "81".to_owned(),
            (_, "umask") => "027".to_owned(),
            (_, "rlimit") => "core=0".to_owned(),
            (_, "access-log-format") => "json".to_owned(),
            (_, "trusted-proxies") => "unix".to_owned(),
            (_, "forwarded-fields") => "forwarded".to_owned(),
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
        assert_ne!(meaning(&args), plain, "{flag} changes nothing");
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
    let texts: Vec<_> = settings.bind.iter().map(Listen::to_string).collect();
    assert_eq!(texts, ["127.0.0.1:1", "unix:/a"]);
    assert_eq!(
        settings.interpreter.sys_path,
        [PathBuf::from("/x"), PathBuf::from("/srv/y")]
    );
    let settings = serve_with(&["m", "-b", ":2", "-b:3"], env);
    let texts: Vec<_> = settings.bind.iter().map(Listen::to_string).collect();
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
    let error = parse_in(Path::new("/srv"), args, env, Starter::Somebody).unwrap_err();
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
fn a_daemon_logs_to_syslog_unless_it_is_told_otherwise() {
    let syslog = serve(&["m", "--log=syslog"]).log;
    let daemon = serve(&["m", "--daemon"]);
    assert_eq!(daemon.log, syslog);
    let shown = daemon
        .given
        .iter()
        .find(|given| given.name == "log")
        .unwrap();
    assert_eq!(shown.values, ["syslog"]);
    assert_eq!(shown.source.as_deref(), Some("default"));
    assert!(daemon.daemon && !serve(&["m"]).daemon);
    assert_eq!(
        serve(&["m", "--daemon", "--log=a.log"]).log,
        serve(&["m", "--log=a.log"]).log
    );
    assert_eq!(
        refused(&["m", "--daemon", "--log=-"]),
        "--log: a daemon has no standard streams: name a file, syslog or journal"
    );
    assert_eq!(
        serve(&["m", "--pid-file=run/a.pid"]).pid_file,
        Some(PathBuf::from("/srv/run/a.pid"))
    );
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
fn completions_know_every_option_and_its_choices() {
    for shell in ["bash", "zsh", "fish"] {
        let flag = format!("--completions={shell}");
        let Ok(Invocation::Print(text)) = run(&[&flag], &[]) else {
            panic!("nothing printed");
        };
        for setting in SETTINGS.iter().filter(|s| s.name != "target") {
            let dashes = if shell == "fish" { "-l " } else { "--" };
            let flag = format!("{dashes}{}", setting.name);
            assert!(text.contains(&flag), "{shell}: {}", setting.name);
            if let super::Kind::Choice(choices) = setting.kind {
                assert!(choices.iter().all(|choice| text.contains(choice)));
            }
        }
    }
    assert_eq!(
        refused(&["--completions=csh"]),
        "--completions: \"csh\" is not one of bash, zsh, fish"
    );
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

/// A directory with these files, gone at the end.
struct Files(PathBuf);

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rswsgi-config-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(directory.join("conf.d")).unwrap();
        for (name, text) in files {
            std::fs::write(directory.join(name), text).unwrap();
        }
        Files(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_stands_between_the_defaults_and_the_environment() {
    let files = Files::new(&[("a.toml", "target = 'shop'\nbacklog = 5\nworkers = '1..3'\n")]);
    let path = files.path("a.toml");
    let settings = serve(&["-c", &path]);
    assert_eq!((settings.name.as_str(), settings.backlog), ("shop", 5));
    let variables = [("RSWSGI_BACKLOG", "7"), ("RSWSGI_CONFIG", path.as_str())];
    assert_eq!(serve_with(&[], &variables).backlog, 7);
    let settings = serve_with(&["--backlog=9", "other"], &variables);
    assert_eq!((settings.name.as_str(), settings.backlog), ("other", 9));
}

#[test]
fn relative_paths_in_a_file_start_beside_it() {
    let text =
        "target: shop\nchdir: app\nbind: ['unix:run/a.sock']\nsys-path: lib\npython: bin/python\n";
    let files = Files::new(&[("a.yml", text)]);
    let settings = serve(&["-c", &files.path("a.yml"), "--temp-dir=tmp"]);
    let here = |path: &str| files.0.join(path);
    assert_eq!(settings.interpreter.chdir, Some(here("app")));
    assert_eq!(settings.interpreter.python, Some(here("bin/python")));
    assert_eq!(settings.interpreter.sys_path, [here("lib")]);
    assert_eq!(
        settings.bind[0].to_string(),
        format!("unix:{}", files.path("run/a.sock"))
    );
    assert_eq!(settings.limits.temp_dir, Some(PathBuf::from("/srv/tmp")));
}

#[test]
fn a_directory_is_included_in_the_order_of_its_names() {
    let files = Files::new(&[
        (
            "a.toml",
            "target = 'shop'\nbacklog = 1\ninclude = 'conf.d'\nname = 'of-a'\n",
        ),
        ("conf.d/20.toml", "backlog = 20\n"),
        ("conf.d/10.yaml", "backlog: 10\nworkers: 10\n"),
        ("conf.d/30.toml~", "backlog = 30\n"),
        ("conf.d/.40.toml", "backlog = 40\n"),
    ]);
    let settings = serve(&["-c", &files.path("a.toml")]);
    assert_eq!((settings.backlog, settings.name.as_str()), (20, "of-a"));
    assert_eq!(settings.workers, "10".parse().unwrap());
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_file_and_line() {
    for (text, reason) in [
        (
            "target = 'a'\nbacklog = 0\n",
            ":2: backlog: \"0\" is not between 1 and 65535",
        ),
        ("target = 'a'\n\nbind = ['x:y']\n", ":3: bind: "),
        (
            "\n\nbacklogg = 1\n",
            ":3: unknown setting \"backlogg\"; did you mean \"backlog\"?",
        ),
        ("include = 'nowhere'\n", ":1: cannot include "),
        ("target = [", ":1: "),
    ] {
        let files = Files::new(&[("a.toml", text)]);
        let path = files.path("a.toml");
        let error = run(&["-c", &path], &[]).unwrap_err();
        assert_eq!(error.exit(), Exit::Config, "{error}");
        let expected = format!("{path}{reason}");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    for path in ["/nowhere.toml", "/etc/hostname"] {
        let error = run(&["-c", path], &[]).unwrap_err();
        assert_eq!(error.exit(), Exit::Config);
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn what_print_config_writes_means_the_same() {
    let args = [
        "shop:create(\"a\")",
        "--workers=2..5",
        "--bind=unix:/run/a.sock",
        "--bind=[::1]:80",
        "--env=A=\"b\\c\n\u{1}ä",
        "--request-timeout=5m",
        "--immortal",
        "--max-body=2g",
    ];
    let Ok(Invocation::Print(text)) = run(&[&args[..], &["--print-config"]].concat(), &[]) else {
        panic!("nothing printed");
    };
    let files = Files::new(&[("a.toml", &text)]);
    assert_eq!(meaning(&["-c", &files.path("a.toml")]), meaning(&args));
    // Every comment that shows a default is right, too.
    let uncommented: String = text
        .lines()
        .filter_map(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            let name = line.split(" = ").next()?;
            let is_one = line.contains(" = ") && SETTINGS.iter().any(|s| s.name == name);
            let value = SETTINGS.iter().find(|s| s.name == name)?.value;
            let has_value = !line.contains(&format!("\"{value}\""));
            (is_one && has_value).then(|| format!("{line}\n"))
        })
        .collect();
    assert!(uncommented.lines().count() > 20, "{text}");
    let files = Files::new(&[("b.toml", &uncommented)]);
    assert_eq!(meaning(&["-c", &files.path("b.toml")]), meaning(&args));
}

#[test]
fn print_config_needs_no_application() {
    let Ok(Invocation::Print(text)) = run(&["--print-config"], &[]) else {
        panic!("nothing printed");
    };
    assert!(
        text.lines()
            .all(|line| line.is_empty() || line.starts_with('#'))
    );
}

#[test]
fn started_by_a_was_client_the_application_need_not_be_named() {
    let parse = |arguments: &[&str]| {
        let args = ["rswsgi"].iter().chain(arguments).map(OsString::from);
        match parse_in(Path::new("/srv"), args, |_| None, Starter::WasClient).unwrap() {
            Invocation::Serve(settings) => settings,
            other => panic!("{other:?}"),
        }
    };
    let settings = parse(&[]);
    assert_eq!(settings.target.to_string(), "app");
    assert_eq!(settings.fallback_module.as_deref(), Some("wsgi"));
    let settings = parse(&["--app", "handler"]);
    assert_eq!(settings.target.to_string(), "app:handler");
    let settings = parse(&["--module", "site", "--host", "::1", "--port", "81"]);
    assert_eq!(settings.target.to_string(), "site");
    assert_eq!(settings.fallback_module, None);
    assert_eq!(
        settings.host_and_port(),
        Ok(Some("[::1]:81".parse().unwrap()))
    );
}

#[test]
fn a_person_who_types_the_command_of_a_was_client_gets_a_demo() {
    let is_demo = |starter: Starter, arguments: &[&str], bind: Option<&str>| {
        let args = ["rswsgi"].iter().chain(arguments).map(OsString::from);
        let env = |name: &str| bind.filter(|_| name == "RSWSGI_BIND").map(OsString::from);
        match parse_in(Path::new("/srv"), args, env, starter).unwrap() {
            Invocation::Demo { ask, .. } => {
                assert_eq!((&*ask.method, &*ask.to.target), ("GET", "/"));
                true
            }
            _ => false,
        }
    };
    let python_was = ["--sys-path", ".", "--module", "app", "--app", "app"];
    for (starter, arguments, bind, demo) in [
        (Starter::Person, &python_was[..], None, true),
        (Starter::Person, &["--module", "app"], None, true),
        (Starter::Person, &["--app", "app"], None, true),
        (Starter::Person, &["--bind", "was:"], None, true),
        (Starter::PersonAsWasClient, &[], None, true),
        (Starter::PersonAsWasClient, &["--workers", "2"], None, true),
        // Those serve.
        (Starter::Somebody, &python_was, None, false),
        (Starter::WasClient, &python_was, None, false),
        (Starter::Person, &python_was, Some("127.0.0.1:80"), false),
        (
            Starter::Person,
            &["--module", "app", "--port", "80"],
            None,
            false,
        ),
        (
            Starter::Person,
            &["--module", "app", "--workers", "2"],
            None,
            false,
        ),
        (Starter::Person, &["app"], None, false),
        (Starter::Person, &["app", "--bind", "[::1]:80"], None, false),
        (Starter::PersonAsWasClient, &["--check", "app"], None, false),
    ] {
        let found = is_demo(starter, arguments, bind);
        assert_eq!(found, demo, "{starter:?} {arguments:?} {bind:?}");
    }
}
