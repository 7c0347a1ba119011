use super::*;

fn read(text: &str) -> Vec<Given> {
    let env = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
    let source = Source {
        path: "/etc/uwsgi/shop.ini",
        env: &env,
        cpus: 4,
        host: "web1",
    };
    read_ini(text, &source).unwrap()
}

fn value(ini: &str, setting: &str) -> String {
    let draft = convert(read(&format!("[uwsgi]\n{ini}")));
    draft
        .get(setting)
        .map(|texts| texts.join(" "))
        .unwrap_or_default()
}

fn lost(ini: &str) -> Vec<String> {
    let mut draft = convert(read(&format!("[uwsgi]\n{ini}")));
    draft.write("x");
    draft.lost().map(str::to_owned).collect()
}

#[test]
fn placeholders_and_magic_words_are_filled_in() {
    let given = read(
        "[other]\nprocesses = 9\n[uwsgi]\n; a comment\n# another\nbase = /srv/%n\n\
         chdir = %(base)/app\nset-placeholder = user=me\nuid = %(user)\nlogto = %d%c-%h.log\n\
         virtualenv = $(HOME)/v\nprocesses = %k\nenv = A=50%%\nmaster\nenv = B=%(unknown)\n",
    );
    let pairs: Vec<(&str, &str)> = given
        .iter()
        .map(|given| (given.name.as_str(), given.value.as_str().unwrap()))
        .collect();
    assert_eq!(
        pairs,
        [
            ("chdir", "/srv/shop/app"),
            ("uid", "me"),
            ("logto", "/etc/uwsgi/uwsgi-web1.log"),
            ("virtualenv", "/home/me/v"),
            ("processes", "4"),
            ("env", "A=50%"),
            ("master", "true"),
            ("env", "B=%(unknown)"),
        ]
    );
}

#[test]
fn values_become_those_of_the_settings() {
    for (ini, setting, expected) in [
        ("module = shop.wsgi", "target", "shop.wsgi"),
        ("module = shop:app", "target", "shop:app"),
        ("wsgi = shop\ncallable = app", "target", "shop:app"),
        ("wsgi-file = shop/wsgi.py", "target", "shop.wsgi"),
        (
            "chdir = /srv\nwsgi-file = /srv/shop/wsgi.py",
            "target",
            "shop.wsgi",
        ),
        ("wsgi-file = /opt/x/wsgi.py", "target", "wsgi"),
        ("wsgi-file = /opt/x/wsgi.py", "sys-path", "/opt/x"),
        (
            "mount = /shop=shop:app\nmanage-script-name = true",
            "script-name",
            "/shop",
        ),
        ("mount = /shop=shop:app", "target", "shop:app"),
        (
            "socket = /run/a.sock\nchmod-socket = 660",
            "bind",
            "unix:/run/a.sock?mode=660",
        ),
        (
            "socket = /run/a.sock\nchmod-socket = 0660\nchown-socket = me:www-data",
            "bind",
            "unix:/run/a.sock?mode=660&user=me&group=www-data",
        ),
        (
            "http-socket = :8080\nhttp = 127.0.0.1:1",
            "bind",
            ":8080 127.0.0.1:1",
        ),
        ("processes = 8\ncheaper = 2", "workers", "2..8"),
        ("workers = 4\nthreads = 2", "workers", "4..8"),
        ("processes = 4", "workers", "4"),
        ("gevent = 100", "workers", "1..100"),
        ("harakiri = 30", "request-timeout", "30s"),
        ("max_requests = 500", "max-requests", "500"),
        ("reload-on-rss = 200", "max-memory", "200m"),
        ("env = A=1\nenv = B=2", "env", "A=1 B=2"),
        ("pythonpath = a\npp = b", "sys-path", "a b"),
        ("uid = www-data\ngid = www-data", "user", "www-data"),
        ("buffer-size = 32768", "limit-head", "32k"),
        (
            "limit-as = 512\nmax-fd = 1000",
            "rlimit",
            "as=512m nofile=1000",
        ),
        ("logger = syslog:shop,local1", "log", "syslog"),
        (
            "req-logger = file:/var/log/a.log",
            "access-log",
            "/var/log/a.log",
        ),
        ("home = venv", "venv", "venv"),
        ("touch-reload = /srv/x", "restart-file", "/srv/x"),
    ] {
        assert_eq!(value(ini, setting), expected, "{ini}");
    }
}

#[test]
fn what_cannot_be_said_is_listed() {
    assert_eq!(
        lost("module = a\nmaster = true\nvacuum = 1\ndie-on-term = true"),
        [""; 0]
    );
    for (ini, option) in [
        ("static-map = /static=/srv/static", "static-map"),
        ("touch-reload = /srv/x", ""),
        (
            "touch-reload = /srv/x\ntouch-reload = /srv/y",
            "touch-reload",
        ),
        ("touch-mules-reload = /srv/x", "touch-mules-reload"),
        ("route-host = x redirect:y", "route-host"),
        ("cheaper-busyness-max = 50", ""),
        ("no-such-thing = 1", "no-such-thing"),
        ("lazy-apps = false", ""),
        ("lazy-apps = true", "lazy-apps"),
        ("mount = /a=a\nmount = /b=b", "mount"),
        ("harakiri = soon", "harakiri"),
    ] {
        let lost = lost(&format!("module = a\n{ini}"));
        let names: Vec<&str> = lost.iter().map(|l| l.split(' ').next().unwrap()).collect();
        match option {
            "" => assert!(names.is_empty(), "{ini}: {lost:?}"),
            option => assert!(names.contains(&option), "{ini}: {lost:?}"),
        }
    }
}

#[test]
fn all_forms_of_file_say_the_same() {
    let none = |_: &str| None;
    let source = Source {
        path: "/x.yaml",
        env: &none,
        cpus: 1,
        host: "",
    };
    let ini = read_ini(
        "[uwsgi]\nmodule = a\nenv = A=1\nenv = B=2\nprocesses = 4\n",
        &source,
    );
    let yaml = read_yaml(
        "uwsgi:\n  module: a\n  env: [A=1, B=2]\n  processes: 4\n",
        &source,
    );
    let json = read_json(
        r#"{"uwsgi": {"module": "a", "env": ["A=1", "B=2"], "processes": 4}}"#,
        &source,
    );
    let sorted = |given: Result<Vec<Given>, String>| {
        let mut pairs: Vec<_> = given
            .unwrap()
            .into_iter()
            .map(|given| (given.name, given.value.to_string()))
            .collect();
        pairs.sort();
        pairs
    };
    let ini = sorted(ini);
    assert_eq!(sorted(yaml), ini);
    assert_eq!(sorted(json), ini);
    assert!(read_ini("module = a\n", &source).is_err());
}
