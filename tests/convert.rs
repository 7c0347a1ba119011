//! `rswsgi convert`: configurations of gunicorn and uWSGI.

mod hostile;

use crate::support::{BUILT, Scratch, provision, python, skip};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Scratch, arguments: &[&str]) -> Output {
    let mut command = Command::new(BUILT);
    command.args(arguments).current_dir(dir.path());
    for name in ["VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH"] {
        command.env_remove(name);
    }
    command.env("RSWSGI_PYTHON", python::default().path);
    command.stdin(Stdio::null()).output().expect("run rswsgi")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `rswsgi convert` prints.
#[track_caller]
fn converted(dir: &Scratch, arguments: &[&str]) -> String {
    let output = run(dir, &[&["convert"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The lines that set something.
fn settings(toml: &str) -> Vec<&str> {
    let lines = toml.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn write(dir: &Scratch, name: &str, text: &str) {
    std::fs::write(dir.file(name), text).expect("write into the test's directory");
}

/// rswsgi takes it, and prints the same settings.
#[track_caller]
fn assert_readable(dir: &Scratch, toml: &str) {
    write(dir, "made.toml", toml);
    let output = run(dir, &["--config", "made.toml", "--print-config", "shop"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}\n{toml}", text(&output.stderr));
    for line in settings(toml) {
        let (name, _) = line.split_once(" = ").unwrap_or((line, ""));
        let is_variable = line.starts_with('[') || line.starts_with('"');
        let start = format!("{name} = ");
        let is_there = printed.lines().any(|line| line.starts_with(&start));
        assert!(is_there || is_variable, "{line} is not in\n{printed}");
    }
}

/// It could serve with them, too.
#[track_caller]
fn assert_valid(dir: &Scratch, toml: &str) {
    assert_readable(dir, toml);
    let module = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return []\n";
    write(dir, "shop.py", module);
    let output = run(dir, &["--config", "made.toml", "--check", "shop"]);
    assert!(output.status.success(), "{}\n{toml}", text(&output.stderr));
}

const GUNICORN: &str = "
import multiprocessing
from pathlib import Path

print('printed by the configuration')
cores = multiprocessing.cpu_count()
bind = ['unix:/run/shop.sock', '127.0.0.1:8080']
workers = 3
threads = 4
timeout = 120
graceful_timeout = 45.5
max_requests = 1000
max_requests_jitter = 50
preload_app = True
accesslog = '-'
errorlog = Path('/var/log/shop.log')
loglevel = 'warning'
raw_env = ['A=1', 'QUOTED=a \"b\"\\n']
worker_class = 'gthread'
keyfile = None
certfile = '/etc/shop.pem'
limit_request_line = 0
umask = 0o007

def post_fork(server, worker):
    pass
";

#[test]
fn a_configuration_of_gunicorn_is_executed_and_converted() {
    let dir = Scratch::new();
    write(&dir, "gunicorn.conf.py", GUNICORN);
    let output = run(&dir, &["convert", "gunicorn.conf.py"]);
    let (toml, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        settings(&toml),
        [
            "umask = \"007\"",
            "bind = [\"unix:/run/shop.sock?mode=660\", \"127.0.0.1:8080\"]",
            "workers = \"3..12\"",
            "max-connections = 1000",
            "request-timeout = \"2m\"",
            "max-requests = 1000",
            "max-requests-jitter = 50",
            "graceful-timeout = \"45500ms\"",
            "limit-request-line = \"64k\"",
            "log = \"/var/log/shop.log\"",
            "log-level = \"warning\"",
            "access-log = \"-\"",
            "[env]",
            "\"A\" = \"1\"",
            "\"QUOTED\" = \"a \\\"b\\\"\\u000A\"",
        ]
        .into_iter()
        .filter(|line| !line.starts_with("max-connections"))
        .collect::<Vec<_>>(),
        "{toml}"
    );
    for listed in [
        "certfile = \"/etc/shop.pem\"",
        "post_fork = a function",
        "#   preload_app",
    ] {
        assert!(toml.contains(listed), "{listed}: {toml}");
    }
    assert!(!toml.contains("keyfile"), "{toml}");
    assert!(
        stderr.contains("executing gunicorn.conf.py with "),
        "{stderr}"
    );
    assert!(stderr.contains("printed by the configuration"), "{stderr}");
    assert!(stderr.contains("2 options have no equivalent"), "{stderr}");
    assert_valid(
        &dir,
        &toml.replace("/var/log/", "./").replace("/run/", "./"),
    );
}

#[test]
fn every_setting_and_every_flag_of_gunicorn_is_known() {
    let Some(python) = provision::gunicorn(&python::default()) else {
        return;
    };
    let dir = Scratch::new();
    let question = "
from gunicorn.config import KNOWN_SETTINGS
for setting in KNOWN_SETTINGS:
    print(setting.name, *(setting.cli or []))
";
    let output = Command::new(python).args(["-c", question]).output();
    let output = output.expect("ask gunicorn");
    let known = text(&output.stdout);
    assert!(known.lines().count() > 90, "{}", text(&output.stderr));
    let mut file = String::new();
    let mut command = "gunicorn".to_owned();
    for line in known.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        file += &format!("{name} = 'x1'\n");
        for flag in words.filter(|flag| *flag != "-c" && *flag != "--config") {
            command += &format!(" {flag}");
        }
    }
    write(&dir, "gunicorn.conf.py", &file);
    let toml = converted(&dir, &["gunicorn.conf.py"]);
    // `timeout` is not there because `graceful_timeout` is.
    let told: HashSet<&str> = toml
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    for line in known.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        // An option that makes no difference alone, or is the configuration itself.
        let is_there = told.contains(name);
        assert!(is_there, "{name} is neither mapped nor listed:\n{toml}");
    }
    assert!(!toml.contains("no setting of gunicorn"), "{toml}");
    assert_readable(&dir, &toml);
    let toml = converted(&dir, &[&command]);
    assert!(!toml.contains("no option of gunicorn"), "{toml}");
}

#[test]
fn a_configuration_that_fails_shows_its_traceback() {
    let dir = Scratch::new();
    write(&dir, "broken.py", "import no_such_module\n");
    let output = run(&dir, &["convert", "broken.py"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(
        stderr.contains("No module named 'no_such_module'"),
        "{stderr}"
    );
    assert!(stderr.contains("--venv or --python"), "{stderr}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn command_lines_and_procfiles_are_converted() {
    let dir = Scratch::new();
    write(&dir, "conf.py", "workers = 2\ntimeout = 9\n");
    write(
        &dir,
        "Procfile",
        "release: ./manage.py migrate\nweb: gunicorn shop --workers 5 -t 7\n",
    );
    for (source, expected) in [
        (
            "Procfile",
            &[
                "target = \"shop\"",
                "workers = \"5\"",
                "request-timeout = \"7s\"",
            ][..],
        ),
        (
            "A=b gunicorn -c conf.py -w 8 'shop:make(\"x\")'",
            &[
                "target = \"shop:make(\\\"x\\\")\"",
                "workers = \"8\"",
                "request-timeout = \"9s\"",
                "[env]",
                "\"A\" = \"b\"",
            ],
        ),
        (
            "uwsgi --http-socket :8080 --module shop -p 3",
            &["target = \"shop\"", "bind = [\":8080\"]", "workers = \"3\""],
        ),
    ] {
        let toml = converted(&dir, &[source]);
        assert_eq!(settings(&toml), expected, "{toml}");
        assert_valid(&dir, &toml.replace("make(\\\"x\\\")", "application"));
    }
    for (source, status) in [
        ("no-such-file", 78),
        ("waitress-serve a:b", 78),
        ("made.toml", 78),
    ] {
        let output = run(&dir, &["convert", source]);
        assert_eq!(output.status.code(), Some(status), "{source}");
    }
    assert_eq!(run(&dir, &["convert"]).status.code(), Some(64));
}

#[test]
fn a_configuration_of_uwsgi_is_converted() {
    let dir = Scratch::new();
    write(
        &dir,
        "shop.ini",
        "[uwsgi]\nproject = shop\nmodule = %(project)\ncallable = application\nmaster = true\nprocesses = 8\n\
         cheaper = 2\nharakiri = 30\nmax-requests = 5000\nsocket = run/%n.sock\nchmod-socket = 660\nenv = A=1\n\
         env = B=%(project)\nvacuum = true\ndie-on-term = true\nstatic-map = /static=/srv/static\n\
         touch-reload = %p\nini = more.ini\nno-such-option = 7\n",
    );
    write(&dir, "more.ini", "[uwsgi]\nbuffer-size = 32768\n");
    let toml = converted(&dir, &["shop.ini"]);
    let restart = format!("restart-file = \"{}\"", dir.file("shop.ini").display());
    assert_eq!(
        settings(&toml),
        [
            "target = \"shop:application\"",
            &restart,
            "bind = [\"unix:run/shop.sock?mode=660\"]",
            "workers = \"2..8\"",
            "request-timeout = \"30s\"",
            "max-requests = 5000",
            "limit-head = \"32k\"",
            "[env]",
            "\"A\" = \"1\"",
            "\"B\" = \"shop\"",
        ],
        "{toml}"
    );
    for listed in [
        "static-map = \"/static=/srv/static\"",
        "no-such-option = \"7\"",
        "uwsgi_pass",
    ] {
        assert!(toml.contains(listed), "{listed}: {toml}");
    }
    assert_valid(&dir, &toml);
    write(
        &dir,
        "shop.json",
        r#"{"uwsgi": {"module": "shop", "processes": 2}}"#,
    );
    write(
        &dir,
        "shop.yaml",
        "uwsgi:\n  module: shop\n  processes: 2\n",
    );
    for file in ["shop.json", "shop.yaml"] {
        let toml = converted(&dir, &[file]);
        assert_eq!(
            settings(&toml),
            ["target = \"shop\"", "workers = \"2\""],
            "{file}"
        );
    }
}

fn chown(path: &Path, owner: u32, group: u32) {
    let user = nix::unistd::Uid::from_raw(owner);
    let group = nix::unistd::Gid::from_raw(group);
    nix::unistd::chown(path, Some(user), Some(group)).expect("root may give files away");
}

fn chmod(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("change what is our own");
}

#[test]
fn root_executes_a_configuration_as_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root becomes somebody else");
    }
    let python = "/usr/bin/python3";
    if !Path::new(python).exists() {
        return skip("no interpreter that everybody may execute");
    }
    let nobody = nix::unistd::User::from_name("nobody");
    let Some(nobody) = nobody.expect("read the user database") else {
        return skip("nobody is not in the user database");
    };
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let dir = Scratch::new();
    write(
        &dir,
        "gunicorn.conf.py",
        "import os\nraw_env = [f'WHO={os.getuid()}:{os.getgid()}:{os.getgroups()}']\n",
    );
    let file = dir.file("gunicorn.conf.py");
    chmod(dir.path(), 0o755);
    let ask = |more: &[&str]| {
        let words = ["convert", "--python", python];
        let output = run(&dir, &[&words, more, &["gunicorn.conf.py"]].concat());
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    // The group of the file says nothing about its owner.
    chown(&file, uid, 0);
    chmod(&file, 0o644);
    let theirs = format!("\"WHO\" = \"{uid}:{gid}:[{gid}]\"");
    for more in [&[][..], &["--user", "nobody"]] {
        let (_, toml, stderr) = ask(more);
        assert!(toml.contains(&theirs), "{more:?}: {toml}{stderr}");
        assert!(stderr.contains("as user "), "{stderr}");
    }
    // A group alone makes nobody root.
    let (_, toml, stderr) = ask(&["--group", "0"]);
    let start = format!("\"WHO\" = \"{uid}:0:");
    assert!(toml.contains(&start), "{toml}{stderr}");
    chown(&file, 4_000_000, gid);
    let (status, toml, stderr) = ask(&[]);
    assert_eq!((status, toml.as_str()), (Some(77), ""), "{stderr}");
    assert!(
        stderr.contains("its owner 4000000 is not in the user database"),
        "{stderr}"
    );
    let (_, toml, stderr) = ask(&["--user", "nobody"]);
    assert!(toml.contains(&theirs), "{toml}{stderr}");
    chown(&file, 0, gid);
    let (_, toml, stderr) = ask(&[]);
    assert!(toml.contains("\"WHO\" = \"0:0:"), "{toml}{stderr}");
    chmod(&file, 0o666);
    let (status, toml, stderr) = ask(&[]);
    assert_eq!((status, toml.as_str()), (Some(77), ""), "{stderr}");
    assert!(
        stderr.contains("others than root may write to it"),
        "{stderr}"
    );
    let (status, ..) = ask(&["--user", "nobody"]);
    assert_eq!(status, Some(0));
}

#[test]
fn root_imports_nothing_from_a_working_directory_of_others() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root has something to lose");
    }
    let python = "/usr/bin/python3";
    if !Path::new(python).exists() {
        return skip("no interpreter that everybody may execute");
    }
    let (dir, apart) = (Scratch::new(), Scratch::new());
    let mark = dir.file("executed");
    let plant = format!("open({:?}, 'a').write(__name__)\n", mark.display());
    for name in ["json.py", "os.py", "types.py", "importlib.py", "beside.py"] {
        write(&dir, name, &plant);
    }
    // The configuration is not beside them: root wrote it, and may execute it as root.
    write(
        &apart,
        "gunicorn.conf.py",
        "try:\n    import beside\n    workers = 7\nexcept ImportError:\n    workers = 5\n",
    );
    let configuration = apart.file("gunicorn.conf.py");
    chmod(&configuration, 0o644);
    for path in [dir.path(), apart.path()] {
        chmod(path, 0o755);
    }
    let ask = || {
        let configuration = configuration.to_str().expect("a path of ours is text");
        let toml = converted(&dir, &["--python", python, configuration]);
        let executed = std::fs::read_to_string(&mark).unwrap_or_default();
        let _ = std::fs::remove_file(&mark);
        (settings(&toml)[0].to_owned(), executed)
    };
    let (refused, searched) = ("workers = \"5\"", "workers = \"7\"");
    assert_eq!(ask(), (searched.to_owned(), "beside".to_owned()));
    chmod(dir.path(), 0o775);
    assert_eq!(ask(), (refused.to_owned(), String::new()));
    chmod(dir.path(), 0o755);
    chown(dir.path(), 65534, 0);
    assert_eq!(ask(), (refused.to_owned(), String::new()));
}

#[test]
fn a_configuration_that_is_no_file_is_not_waited_for() {
    let dir = Scratch::new();
    nix::unistd::mkfifo(&dir.file("gunicorn.conf.py"), nix::sys::stat::Mode::S_IRUSR)
        .expect("make a fifo");
    let output = run(&dir, &["convert", "gunicorn.conf.py"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("it is not a regular file"), "{stderr}");
}
