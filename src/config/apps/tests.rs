use super::*;
use crate::config::{Invocation, parse};
use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};

/// A host file `host.toml` and a directory `apps` of one test.
struct Place(PathBuf);

impl Place {
    fn new(host: &str) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rswsgi-apps-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("apps")).unwrap();
        std::fs::write(path.join("host.toml"), format!("apps-dir = 'apps'\n{host}")).unwrap();
        Place(path)
    }

    /// With files of users alone.
    fn of_users(host: &str) -> Place {
        let place = Place::new("");
        let text = format!("user-apps-dir = 'apps'\n{host}");
        std::fs::write(place.0.join("host.toml"), text).unwrap();
        place
    }

    fn app(self, name: &str, text: &str) -> Place {
        std::fs::write(self.0.join("apps").join(name), text).unwrap();
        self
    }

    fn read(&self, more: &[&str]) -> Result<Host> {
        let file = self.0.join("host.toml").into_os_string();
        let arguments = [OsString::from("rswsgi"), "-c".into(), file].into_iter();
        let more = more.iter().map(OsString::from);
        match parse(arguments.chain(more), |_| None)? {
            Invocation::Host(host) => Ok(*host),
            other => panic!("{other:?}"),
        }
    }

    fn apps(&self) -> Vec<AppFile> {
        self.read(&[]).unwrap().apps().unwrap()
    }

    fn mistake(&self) -> String {
        let mut apps = self.apps();
        assert_eq!(apps.len(), 1);
        let error = apps.remove(0).settings.unwrap_err();
        assert_eq!(error.exit(), Exit::Config);
        let here = format!("{}/apps/", self.0.display());
        error.to_string().replace(&here, "")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_app_has_the_settings_of_the_host_and_above_them_its_own() {
    let host = "workers = 1\non-demand = true\nbind = 'unix:run/{name}.sock'\nchdir = 'srv/{name}'\n\
        [env]\nA = 'host'\n";
    let place = Place::new(host)
        .app("shop.toml", "target = 'shop.wsgi'\nworkers = '2..4'\n")
        .app("blog.yaml", "target: blog\nchdir: here\nenv:\n  A: blog\n")
        .app("notes.txt", "not an app");
    let apps = place.apps();
    let names: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["blog", "shop"]);
    let of = |index: usize| apps[index].settings.as_ref().unwrap();
    let (blog, shop) = (of(0), of(1));
    assert_eq!((blog.name.as_str(), shop.name.as_str()), ("blog", "shop"));
    let bound = |name: &str| format!("unix:{}/run/{name}.sock", place.0.display());
    assert_eq!(blog.bind[0].to_string(), bound("blog"));
    assert_eq!(shop.bind[0].to_string(), bound("shop"));
    let directory = |settings: &Settings| settings.interpreter.chdir.clone().unwrap();
    assert_eq!(directory(blog), place.0.join("apps/here"));
    assert_eq!(directory(shop), place.0.join("srv/shop"));
    assert_eq!(shop.workers.to_string(), "2..4");
    assert_eq!(blog.interpreter.env, [("A".into(), "blog".into())]);
    assert!(shop.presence.on_demand);
    let given = |name: &str| {
        let given = shop.given.iter().find(|given| given.name == name);
        given.and_then(|given| given.source.clone()).unwrap()
    };
    assert!(given("workers").ends_with("/apps/shop.toml:2"));
    assert!(given("on-demand").ends_with("/host.toml:3"));
    assert_eq!(given("backlog"), "default");
}

#[test]
fn what_the_file_of_an_app_says_wins_over_the_command_line() {
    let place = Place::new("").app("a.toml", "target = 'a'\nbind = ':1'\nworkers = 3\n");
    let host = place.read(&["--workers", "7", "--backlog", "9"]).unwrap();
    let apps = host.apps().unwrap();
    let settings = apps[0].settings.as_ref().unwrap();
    assert_eq!(settings.workers.to_string(), "3");
    assert_eq!(settings.backlog, 9);
}

#[test]
fn the_server_has_a_name_of_its_own() {
    let place = Place::new("");
    assert_eq!(place.read(&[]).unwrap().settings.name, "rswsgi");
    let named = Place::new("name = 'web'\n").app("a.toml", "target = 'a'\nbind = ':1'\n");
    assert_eq!(named.read(&[]).unwrap().settings.name, "web");
    assert_eq!(named.apps()[0].settings.as_ref().unwrap().name, "a");
}

#[test]
fn a_mistake_is_that_of_one_app_and_has_a_place() {
    for (text, reason) in [
        (
            "target = 'a'\n",
            "a.toml: bind is missing; each app needs an address of its own, such as \
             unix:/run/apps/a.sock",
        ),
        (
            "bind = ':1'\n",
            "no application given: a.toml has no target; example: target = \"myapp.wsgi:application\"",
        ),
        (
            "\nlog = 'x'\n",
            "a.toml:2: log is a setting of the server as a whole, not of an app",
        ),
        (
            "name = 'b'\n",
            "a.toml:1: name is a setting of the server as a whole, not of an app",
        ),
        (
            "apps-dir = 'b'\n",
            "a.toml:1: apps-dir is a setting of the server as a whole, not of an app",
        ),
        (
            "include = 'b'\n",
            "a.toml:1: the file of an app cannot include others",
        ),
        (
            "target = 'a'\nbind = ':1'\nworkers = 'many'\n",
            "a.toml:3: workers: \"many\" is neither a number of workers, MIN..MAX nor auto",
        ),
        (
            "target = 'a'\nworker = 3\n",
            "a.toml:2: unknown setting \"worker\"; did you mean \"workers\"?",
        ),
    ] {
        let place = Place::new("").app("a.toml", text);
        assert_eq!(place.mistake(), reason);
    }
    let place = Place::new("").app("a b.toml", "target = 'a'\n");
    assert!(
        place
            .mistake()
            .starts_with("a b.toml: \"a b\" is not an app name")
    );
    let twice = Place::new("bind = ':1'\n")
        .app("a.toml", "target = 'a'\n")
        .app("a.yaml", "target: a\n");
    let apps = twice.apps();
    assert!(apps[0].settings.is_ok());
    let reason = apps[1].settings.as_ref().unwrap_err().to_string();
    assert!(reason.ends_with("a.toml is the app a already"), "{reason}");
}

#[test]
fn a_target_beside_a_directory_of_apps_is_refused() {
    let (admin, users) = (Place::new(""), Place::of_users(""));
    for (place, named) in [(admin, "apps-dir"), (users, "user-apps-dir")] {
        for more in [&["shop"][..], &["--module", "shop"], &["--app", "shop"]] {
            let error = place.read(more).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            let text = error.to_string();
            let expected = format!("does not go together with {named}, whose");
            assert!(text.contains(&expected), "{text}");
        }
    }
}

#[test]
fn a_directory_of_users_alone_makes_a_host() {
    let place = Place::of_users("app-log = '/home/{name}/error.log'\n");
    let host = place.read(&[]).unwrap();
    assert!(host.settings.is_hosted());
    // Its files are read like those beside the files of the administrator.
    let apps = host.apps().unwrap();
    assert!(apps.is_empty());
    let place = place.app("x.toml", "target = 'x'\n");
    let apps = place.apps();
    assert_eq!(apps[0].place, super::Place::Users);
}

#[test]
fn only_what_has_changed_is_touched() {
    let settings = |text: &str, host: &str| {
        let place = Place::new(host).app("a.toml", &format!("target = 'a'\n{text}"));
        place.apps().remove(0).settings.unwrap()
    };
    let before = settings("bind = ':1'\nworkers = 2\n", "");
    let change = |text: &str, host: &str| before.change_to(&settings(text, host));
    // Another line, another spelling, another log: the same app.
    assert_eq!(
        change("\nworkers = '2..2'\nbind = ':1'\n", ""),
        Change::None
    );
    let elsewhere = "access-log-format = 'common'\naccess-log = 'x'\nmax-processes = 7\n";
    assert_eq!(
        change("bind = ':1'\nworkers = 2\n", elsewhere),
        Change::None
    );
    let Change::Reload(newer) = change("bind = ':1'\nworkers = 3\n", elsewhere) else {
        panic!("another number of workers");
    };
    assert_eq!(newer.workers.to_string(), "3");
    assert_eq!(newer.logs, before.logs);
    assert_eq!(change("bind = ':2'\nworkers = 2\n", ""), Change::Move);
    let user = change("bind = ':1'\nworkers = 2\nuser = 'ann'\n", "");
    assert_eq!(user, Change::Handover);
    // What is logged of it is told to its processes; nothing is replaced for that.
    let level = change("bind = ':1'\nworkers = 2\nlog-level = 'error'\n", "");
    assert!(matches!(level, Change::Level(_)), "{level:?}");
    let both = change("bind = ':1'\nworkers = 3\nlog-level = 'error'\n", "");
    assert!(matches!(both, Change::Reload(_)), "{both:?}");
    let backlog = change("bind = ':1'\nworkers = 2\nbacklog = 3\n", "");
    assert_eq!(backlog, Change::Move);
}

#[test]
fn two_apps_at_one_address_collide() {
    let settings = |bind: &str| {
        let place = Place::new("").app("a.toml", &format!("target = 'a'\nbind = {bind}\n"));
        place.apps().remove(0).settings.unwrap()
    };
    let one = settings("[':1', 'unix:/run/a?mode=666']");
    for (bind, collides) in [
        ("':1'", true),
        ("':2'", false),
        ("'unix:/run/a'", true),
        ("'unix:/run/b'", false),
    ] {
        assert_eq!(
            one.collides_with(&settings(bind)).is_some(),
            collides,
            "{bind}"
        );
    }
}
