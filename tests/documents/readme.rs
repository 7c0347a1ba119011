//! Every command of the README is run by a test: those that serve here, word for word, on a machine of their own
//! (`machine.sh`); where the others are run is named, and a command of which nobody knows fails.

use super::{blocks, command, root};
use crate::support::{self, Scratch, only_rswsgi, provision, skip};
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

const PAGE: &str = include_str!("../../README.md");

/// A server of the page.
struct Case {
    /// What no other command of the page has.
    key: &'static str,
    /// What has to be there, what it has to answer, how it ends: see `machine.sh`.
    scenario: &'static str,
}

const CASES: &[Case] = &[
    Case {
        key: "--venv ./venv",
        scenario: r#"
            launch root
            serves 'mysite.wsgi:application' 'prefix=/srv/shop/venv'
            [ "$(echo $ADDRESSES | wc -w)" = 2 ] || fail "addresses: $ADDRESSES"
            [ "$(count worker)" = "$(grep -o 'workers [0-9]*' "$directory/command" | cut -d' ' -f2)" ] || fail workers
            stop
            [ ! -e /run/app.sock ] || fail "the socket is left""#,
    },
    Case {
        key: "mysite.wsgi:handler",
        scenario: "launch ann; serves mysite.wsgi:handler 'user=ann'; stop",
    },
    Case {
        key: "package.module:object.attribute",
        scenario: "launch ann; serves package.module:object.attribute; stop",
    },
    Case {
        key: "create_app",
        scenario: "launch ann; serves 'shop:create_app(production)'; stop",
    },
    Case {
        key: "--module",
        scenario: "launch ann; serves mysite.wsgi:handler; stop",
    },
    Case {
        key: "--config /etc/shop.toml",
        scenario: r#"
            mkdir /run/shop
            echo 'umask = "037"' >/etc/shop.d/more.toml
            cd /
            launch root
            serves shop.wsgi 'prefix=/srv/shop/venv' 'settings=shop.settings' 'umask=0o37'
            [ "$(count worker)" = 2 ] || fail workers
            stop"#,
    },
    Case {
        key: "--umask 027",
        scenario: r#"
            launch root
            serves shop.wsgi 'user=shop' 'umask=0o27' 'nofile=4096'
            [ "$(stat --format %G "${ADDRESSES#unix:}")" = www-data ] || fail "the group of the socket"
            runuser -u www-data -- curl --silent --unix-socket "${ADDRESSES#unix:}" http://localhost/ >/dev/null ||
                fail "www-data is shut out"
            ! runuser -u ann -- curl --silent --unix-socket "${ADDRESSES#unix:}" http://localhost/ >/dev/null ||
                fail "everybody may"
            stop"#,
    },
    Case {
        key: "--daemon",
        scenario: r#"
            bash "$directory/command" >"$directory/log" 2>&1 || fail "the start: $?"
            # It returns when the server is ready, so nothing is waited for.
            answers $ADDRESSES || fail "not ready"
            expect shop.wsgi 'user=shop'
            master=$(grep -o 'master=[0-9]*' "$directory/answer")
            grep -q serving /var/log/shop.log || fail "no log"
            signal() { bash -c "$(sed "s/HUP/$1/" "$directory/signal")"; }
            signal HUP
            replaced() { answers $ADDRESSES && ! has "$master"; }
            eventually replaced
            mv /var/log/shop.log /var/log/shop.log.1
            signal USR1
            eventually test -e /var/log/shop.log
            signal USR2
            eventually grep -q 'upgraded from' /var/log/shop.log
            eventually answers $ADDRESSES
            signal TERM
            eventually nothing_runs
            [ ! -e /run/shop.pid ] || fail "the pid file is left""#,
    },
    Case {
        key: "--config /etc/rswsgi/host.toml",
        scenario: r#"
            mkdir /run/apps
            launch root
            serves shop.wsgi 'user=shop' 'prefix=/srv/shop/venv'
            runuser -u www-data -- curl --silent --unix-socket "${ADDRESSES#unix:}" http://localhost/ >/dev/null ||
                fail "www-data is shut out"
            stop"#,
    },
    Case {
        key: "--trusted-proxies unix",
        scenario: r#"
            mkdir /run/shop
            launch root
            serves shop.wsgi
            { echo 'user www-data; pid /run/nginx.pid; events {} http {'; cat "$directory/nginx"; echo '}'; } >/run/nginx.conf
            nginx -c /run/nginx.conf || fail nginx
            eventually answers 127.0.0.1:80 --header 'X-Forwarded-For: 6.6.6.6' --header 'X-Forwarded-Proto: https'
            expect shop.wsgi 'client=127.0.0.1' 'scheme=http '
            nginx -c /run/nginx.conf -s stop
            stop"#,
    },
    Case {
        key: "--reload-extra",
        scenario: r#"
            cd /home/ann/site
            runuser -u ann -- mkdir src src/templates templates
            mv shop answer.py src
            launch ann
            serves shop.wsgi 'user=ann'
            address=$ADDRESSES
            save() { echo "$1" >new.py && chown ann new.py && mv new.py src/shop/wsgi.py; }
            cp src/shop/wsgi.py good.py
            save '1 / 0'
            broken() { answers "$address" && has ZeroDivisionError; }
            eventually broken
            [ "$(get "$address" --output /dev/null --write-out '%{http_code}')" = 500 ] || fail status
            save "$(cat good.py)"
            works() { answers "$address" && has 'shop.wsgi user='; }
            eventually works
            master=$(grep -o 'master=[0-9]*' "$directory/answer")
            echo changed >templates/page.html
            replaced() { works && ! has "$master"; }
            eventually replaced
            sed -i '/ZeroDivisionError/d; /has failed/d' "$directory/log"
            stop"#,
    },
];

/// Where the other commands are run: what they start with, a file of the project, and what is in it.
/// `None`: the command itself, word for word.
const ELSEWHERE: &[(&str, &str, Option<&str>)] = &[
    ("cargo run", ".ci/run", None),
    ("curl", ".ci/run", None),
    ("cargo test", ".ci/run", None),
    (
        "pip install .",
        "tests/packages.rs",
        Some("fn pip_install_in_the_source_gives_commands_module_and_types"),
    ),
    (
        "packaging/deb.sh",
        "tests/packages/deb.rs",
        Some("packaging/deb.sh"),
    ),
    // By dpkg there; by apt, under its name, on the page that a newcomer follows.
    (
        "apt install",
        "tests/systemd/package.rs",
        Some("dpkg --install"),
    ),
    (
        "editor",
        "tests/systemd/package.rs",
        Some("/etc/rswsgi/rswsgi.toml"),
    ),
    ("runuser", "tests/systemd/package.rs", None),
    (
        "systemctl enable --now rswsgi.socket",
        "tests/systemd/package.rs",
        None,
    ),
    ("systemctl enable --now rswsgi@", "docs/django.md", None),
    ("systemctl reload", "docs/django.md", None),
    (
        "$ rswsgictl trace",
        "tests/ctl/verbs.rs",
        Some("fn requests_and_traces_show_what_keeps_a_worker"),
    ),
    // These serve nothing, and that test runs them as they are.
    (
        "rswsgi convert",
        "tests/documents.rs",
        Some("fn the_program_understands_the_commands_of_the_pages"),
    ),
    (
        "rswsgi request",
        "tests/documents.rs",
        Some("fn the_program_understands_the_commands_of_the_pages"),
    ),
    // The signals are sent to the daemon.
    ("kill", "tests/documents/readme.rs", Some("fn play")),
];

/// How blocks start that are files or output.
const NO_COMMANDS: &[&str] = &[
    "target = ",
    "[Socket]",
    "# /etc/rswsgi/",
    "upstream shop {",
    "rswsgi: supervisor",
];

/// Lines to type.
fn commands() -> Vec<String> {
    let blocks = blocks(PAGE).into_iter().map(|(_, text)| text);
    let typed = blocks.filter(|text| !NO_COMMANDS.iter().any(|start| text.starts_with(start)));
    let mut commands = Vec::new();
    for block in typed {
        // Where there are prompts, the rest is output.
        let prompts = block.lines().any(|line| line.starts_with("$ "));
        let lines = block
            .lines()
            .filter(|line| !prompts || line.starts_with("$ "));
        commands.extend(lines.map(str::to_owned));
    }
    commands
}

/// Commands that start a server.
fn servers() -> Vec<String> {
    let is_one = |line: &String| {
        let mut words = line.split(' ');
        words.next() == Some("rswsgi") && !matches!(words.next(), Some("request" | "convert"))
    };
    commands().into_iter().filter(is_one).collect()
}

/// The one command of the page that this is about.
fn typed(case: &Case) -> String {
    let mut servers = servers();
    servers.retain(|line| line.contains(case.key));
    assert_eq!(servers.len(), 1, "{}: {servers:?}", case.key);
    command(&servers[0]).expect("it starts a server")
}

#[test]
fn every_command_of_the_readme_is_run_by_a_test() {
    let servers = servers();
    for line in &servers {
        let cases = CASES.iter().filter(|case| line.contains(case.key));
        assert_eq!(cases.count(), 1, "cases of CASES for {line}");
    }
    let mut others = commands();
    others.retain(|line| !servers.contains(line));
    assert!(others.len() > 15, "{others:?}");
    for line in others {
        let elsewhere = ELSEWHERE.iter().find(|(start, ..)| line.starts_with(start));
        let Some((_, file, piece)) = elsewhere else {
            panic!("no test runs this command of README.md: {line}");
        };
        let text = fs::read_to_string(root().join(file)).expect("a file of the project");
        let bare = line.split("  ").next().unwrap_or_default();
        let piece = piece.unwrap_or(bare);
        assert!(text.contains(piece), "{file} has to run: {piece}");
    }
}

/// The files of which the page speaks, by their paths.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut after = String::new();
    for (_, block) in blocks(PAGE) {
        let path = match block.strip_prefix("# /") {
            Some(rest) => rest.lines().next().map(str::to_owned),
            // What is printed below the command that reads it.
            None if block.contains(" = ") => {
                let named = after.trim_end().strip_prefix("rswsgi --config /");
                named.map(str::to_owned)
            }
            None => None,
        };
        files.extend(path.map(|path| (path, block.clone())));
        after = block;
    }
    files
}

/// The addresses in the text of a command and of its file; the default if there are none.
fn addresses(text: &str) -> Vec<String> {
    let text = text.replace("{name}", "shop");
    let words = text.split(|c: char| c.is_whitespace() || "'\"?,".contains(c));
    let is_ip = |word: &str| word.parse::<std::net::SocketAddrV4>().is_ok();
    let found = words.filter(|word| word.starts_with("unix:/") || is_ip(word));
    let found: Vec<String> = found.map(str::to_owned).collect();
    match found.is_empty() {
        true => vec!["127.0.0.1:8000".into()],
        false => found,
    }
}

/// What the applications of the page have in common: they tell where they run.
const ANSWER: &str = r#"
import os, pwd, resource, sys

def says(who):
    def application(environ, start_response):
        umask = os.umask(0o77)
        os.umask(umask)
        facts = {
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "master": os.getppid(),
            "prefix": sys.prefix,
            "umask": oct(umask),
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "client": environ["REMOTE_ADDR"],
            "scheme": environ["wsgi.url_scheme"],
            "settings": os.environ.get("DJANGO_SETTINGS_MODULE"),
        }
        body = " ".join([who, *(f"{name}={value}" for name, value in facts.items())]) + " \n"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body.encode()]
    return application
"#;

/// The applications, below `/srv/shop`.
const MODULES: &[(&str, &str)] = &[
    ("answer.py", ANSWER),
    (
        "mysite/wsgi.py",
        "from answer import says\napplication = says('mysite.wsgi:application')\n\
        handler = says('mysite.wsgi:handler')\n",
    ),
    (
        "package/module.py",
        "from answer import says\nclass object:\n    attribute = staticmethod(says('package.module:object.attribute'))\n",
    ),
    (
        "shop/__init__.py",
        "from answer import says\ndef create_app(kind):\n    return says(f'shop:create_app({kind})')\n",
    ),
    (
        "shop/wsgi.py",
        "from answer import says\napplication = says('shop.wsgi')\n",
    ),
];

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("inside")).expect("a directory");
    fs::write(path, text).expect("a file");
}

/// Plays one case; what went wrong.
fn play(case: &Case) -> Result<(), String> {
    let scratch = Scratch::new();
    let dir = scratch.path();
    let line = typed(case);
    let mut described = line.clone();
    for (path, text) in files() {
        if line.contains(&format!("/{path}")) {
            described.push_str(&format!("\n{text}"));
        }
        write(&dir.join("files").join(&path), &text);
    }
    fs::create_dir_all(dir.join("files/etc/shop.d")).expect("a directory");
    for (path, text) in MODULES {
        write(&dir.join("files/srv/shop").join(path), text);
    }
    fs::create_dir(dir.join("programs")).expect("a directory");
    for (name, program) in [
        ("rswsgi", support::BUILT.into()),
        ("rswsgictl", env!("CARGO_BIN_EXE_rswsgictl").into()),
        ("librswsgi.so", support::module()),
    ] {
        symlink(program, dir.join("programs").join(name)).expect("a link");
    }
    let blocks = blocks(PAGE).into_iter().map(|(_, text)| text);
    let nginx = blocks.filter(|text| text.starts_with("upstream shop {"));
    write(&dir.join("nginx"), &nginx.collect::<String>());
    let kill = commands()
        .into_iter()
        .find(|line| line.starts_with("kill "));
    write(&dir.join("signal"), &kill.expect("the daemon gets signals"));
    write(&dir.join("command"), &line);
    write(&dir.join("addresses"), &addresses(&described).join(" "));
    write(&dir.join("scenario"), case.scenario);
    let mut unshare = Command::new("timeout");
    unshare.args([
        "--kill-after=10",
        "120",
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
    ]);
    unshare.args([
        "--kill-child",
        "--mount-proc",
        "--propagation=private",
        "bash",
    ]);
    unshare
        .arg(root().join("tests/documents/machine.sh"))
        .arg(dir);
    let output = unshare
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{line}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Whether all that is needed is here.
fn can_play() -> bool {
    if !only_rswsgi("its pages") {
        return false;
    }
    if !Uid::effective().is_root() {
        skip("only root can make a machine with other users");
        return false;
    }
    // The interpreter of the system, which other users can execute.
    let needed = [
        ("python3", "python3"),
        ("curl", "curl"),
        ("nginx", "nginx-light"),
    ];
    needed
        .iter()
        .all(|(program, package)| provision::program(program, package).is_some())
        && provision::file("/usr/bin/python3", "python3").is_some()
}

#[test]
fn the_servers_of_the_readme_serve() {
    if !can_play() {
        return;
    }
    let cases = Mutex::new(CASES.iter());
    let next = || cases.lock().expect("no panic while holding this").next();
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let outcome = play(case);
                    let mut failures = failures.lock().expect("no panic while holding this");
                    failures.extend(outcome.err());
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
