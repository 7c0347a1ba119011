//! Django behind nginx over a Unix socket that rswsgi binds itself: the admin site, forms and files
//! with SQLite, static files by nginx.

use super::{MIB, Site, assert_file, assert_rows, assert_same, noise, rows, venv, write};
use crate::support::server::Address;
use crate::support::{Curl, Response, Server, provision};
use std::path::Path;

/// As the site is served in production, but for the users.
fn django(target: &str) -> Option<Site> {
    django_in(&venv()?, target)
}

pub fn django_in(venv: &Path, target: &str) -> Option<Site> {
    let start = provision::django_start(venv)?;
    let server = Server::new();
    std::fs::copy(start.join("db.sqlite3"), server.dir().join("db.sqlite3"))
        .expect("copy the database of the site");
    let socket = server.dir().join("site.sock");
    let server = server
        .bind(&format!("unix:{}", socket.display()))
        .app(target)
        .workers(2)
        .any_python()
        .arg("--venv", venv)
        .expect_error("Internal Server Error: /broken")
        .expect_error("LookupError")
        .start();
    let locations = format!(
        "location /static/ {{ alias {}/; }}",
        start.join("static").display()
    );
    Site::behind(server, &Address::Unix(socket), &locations)
}

/// The hidden field that Django puts into every form.
#[track_caller]
fn token(page: &Response) -> String {
    let text = page.text();
    let (_, rest) = text
        .split_once("name=\"csrfmiddlewaretoken\" value=\"")
        .unwrap_or_else(|| panic!("no form: {text}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// Fetches the form, fills it in, sends it and follows the redirection.
#[track_caller]
fn fill_in(curl: &Curl, path: &str, fields: &[&str]) -> (Vec<u16>, String) {
    let form = curl.get(path);
    let token = format!("csrfmiddlewaretoken={}", token(form.assert_status(200)));
    let fields = fields.iter().copied().chain([&*token]);
    let args = fields.flat_map(|field| ["--data-urlencode", field]);
    let reply = curl.run(path, args.chain(["-L"]));
    (reply.statuses, reply.last.text())
}

#[track_caller]
fn log_in(curl: &Curl) {
    let (statuses, page) = fill_in(
        curl,
        "/admin/login/?next=/admin/",
        &["username=admin", "password=correct horse"],
    );
    assert_eq!(statuses, [302, 200]);
    assert!(page.contains("Site administration"), "{page}");
}

#[track_caller]
pub fn write_and_read(site: &Site, name: &str, text: &str) {
    let fields = [format!("name={name}"), format!("text={text}")];
    let (statuses, page) = fill_in(&site.curl, "/", &[&fields[0], &fields[1]]);
    assert_eq!(statuses, [302, 200]);
    let wanted = format!("<b>{name}</b>: {text}");
    assert!(page.contains(&wanted), "{wanted} in {page}");
    site.assert_passed("POST", "/", 302);
}

#[test]
fn an_administrator_logs_in_and_edits() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    let curl = &site.curl;
    let stranger = curl.run("/admin/", ["-L"]);
    assert_eq!(stranger.statuses, [302, 200]);
    assert!(stranger.last.text().contains("id_username"));
    let login = "/admin/login/?next=/admin/";
    let (statuses, page) = fill_in(curl, login, &["username=admin", "password=wrong"]);
    assert_eq!(statuses, [200]);
    assert!(page.contains("Please enter the correct username"), "{page}");
    log_in(curl);
    site.assert_passed("POST", "/admin/login/?next=/admin/", 302);

    let add = "/admin/guestbook/entry/add/";
    let (statuses, page) = fill_in(curl, add, &["name=Zoë", "text=by the admin ☃"]);
    assert_eq!(statuses, [302, 200]);
    assert!(page.contains("was added successfully"), "{page}");
    assert!(page.contains("Zoë: by the admin ☃"), "{page}");
    site.assert_passed("POST", add, 302);
    assert!(curl.get("/").text().contains("<b>Zoë</b>: by the admin ☃"));

    let delete = "/admin/guestbook/entry/1/delete/";
    let (statuses, page) = fill_in(curl, delete, &["post=yes"]);
    assert_eq!(statuses, [302, 200]);
    assert!(page.contains("was deleted successfully"), "{page}");
    assert!(!curl.get("/").text().contains("Zoë"));

    let (statuses, _) = fill_in_from(curl, "/admin/", "/admin/logout/");
    assert_eq!(statuses, [200]);
    curl.get("/admin/").assert_status(302);
}

/// Sends the form that `page` shows to another path.
#[track_caller]
fn fill_in_from(curl: &Curl, page: &str, path: &str) -> (Vec<u16>, String) {
    let token = format!("csrfmiddlewaretoken={}", token(&curl.get(page)));
    let reply = curl.run(path, ["--data-urlencode", &*token]);
    (reply.statuses, reply.last.text())
}

#[test]
fn a_form_is_kept_in_sqlite_by_several_workers() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    for (name, text) in [("Ann", "first"), ("Bjørn", "naïve ☃"), ("Cleo", "third")] {
        write_and_read(&site, name, text);
    }
    let (statuses, page) = fill_in(&site.curl, "/", &["name=", "text=no name"]);
    assert_eq!(statuses, [400]);
    assert!(page.contains("This field is required"), "{page}");
    let forged = site.curl.run("/", ["-d", "name=x&text=forged"]).last;
    forged.assert_status(403);
    site.assert_passed("POST", "/", 403);
    let page = site.curl.get("/").text();
    assert_eq!(page.matches("<li>").count(), 3, "{page}");
}

#[test]
fn a_file_of_20_mb_is_uploaded_and_downloaded() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    let bytes = noise(20 * MIB);
    write(&site.path("noise.bin"), &bytes);
    let file = format!("file=@{}", site.path("noise.bin").display());
    let token = format!("csrfmiddlewaretoken={}", token(&site.curl.get("/upload")));
    let form = ["-F", &*token, "-F", "note=naïve ☃", "-F", &*file];
    let told = site.curl.run("/upload", form).last;
    assert_eq!(
        told.assert_status(200).json(),
        serde_json::json!({"note": "naïve ☃", "name": "uploads/noise.bin", "size": bytes.len()})
    );
    assert_file(&site.path("media/uploads/noise.bin"), &bytes);
    site.assert_passed("POST", "/upload", 200);

    let file = site.curl.get("/files/noise.bin");
    assert_eq!(file.field("Content-Length"), Some("20971520"));
    assert_same(&file.body, &bytes, "by wsgi.file_wrapper");
    site.assert_passed("GET", "/files/noise.bin", 200);
    let head = site.curl.run("/files/noise.bin", ["--head"]).last;
    assert_eq!(head.field("Content-Length"), Some("20971520"));
    let streamed = site.curl.get("/stream/noise.bin");
    assert_eq!(streamed.field("Content-Length"), None);
    assert_same(&streamed.body, &bytes, "streamed");
    site.assert_passed("GET", "/stream/noise.bin", 200);
}

#[test]
fn static_files_of_the_admin_come_from_nginx() {
    let Some(mut site) = django("django_site.wsgi:application") else {
        return;
    };
    let curl = &site.curl;
    let login = curl.get("/admin/login/").text();
    let css = "/static/admin/css/base.css";
    assert!(login.contains(&format!("href=\"{css}\"")), "{login}");
    let whole = curl.get(css);
    assert_eq!(
        whole.assert_status(200).field("Content-Type"),
        Some("text/css")
    );
    site.assert_by_nginx("GET", css, 200);

    let range = curl.run(css, ["--range", "100-299"]).last;
    assert_same(
        &range.assert_status(206).body,
        &whole.body[100..300],
        "a range",
    );
    // A download that was cut off goes on where it stopped.
    let partial = site.path("base.css");
    write(&partial, &whole.body[..1000]);
    let name = partial.to_str().expect("an ASCII path");
    let rest = curl.run(css, ["-C", "-", "-o", name, &curl.url(css)]);
    assert_eq!(rest.statuses.first(), Some(&206));
    assert_file(&partial, &whole.body);

    let modified = whole.field("Last-Modified").expect("nginx says when");
    let again = curl
        .run(css, ["-H", &format!("If-Modified-Since: {modified}")])
        .last;
    assert_eq!((again.status, again.body.len()), (304, 0));
    site.assert_by_nginx("GET", css, 304);
    let missing = "/static/admin/css/no.css";
    site.nginx.expect("no.css\" failed");
    site.curl.get(missing).assert_status(404);
    site.assert_by_nginx("GET", missing, 404);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    std::fs::create_dir(site.path("media")).expect("create a directory");
    write(&site.path("media/served.txt"), b"by django.views.static\n");
    for path in ["/page", "/served/served.txt"] {
        let first = site.curl.get(path);
        let modified = first.assert_status(200).field("Last-Modified");
        let since = format!("If-Modified-Since: {}", modified.expect("Django says when"));
        let again = site.curl.run(path, ["-H", &since]).last;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.field("Content-Type"), None);
        site.assert_passed("GET", path, 304);
        let since = "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT";
        let newer = site.curl.run(path, ["-H", since]).last;
        assert_same(&newer.assert_status(200).body, &first.body, path);
        site.assert_passed("GET", path, 200);
        let head = site.curl.run(path, ["--head"]).last;
        assert_eq!(head.field("Last-Modified"), modified);
        assert_eq!(head.field("Content-Length"), first.field("Content-Length"));
    }
    let tagged = site.curl.run("/page", ["-H", "If-None-Match: \"first\""]);
    tagged.last.assert_status(304);
}

#[test]
fn a_large_json_body_is_read() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    write(&site.path("body"), rows(150_000).to_string().as_bytes());
    let data = format!("@{}", site.path("body").display());
    let reply = site.curl.run("/json", ["--json", &*data]);
    assert!(reply.uploaded > 4 * MIB as u64);
    assert_rows(&reply.last.assert_status(200).json(), 150_000);
    site.assert_passed("POST", "/json", 200);
}

#[test]
fn django_knows_the_client_and_its_own_address() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    let about = site.curl.get("/about?x=%C3%A9").json();
    assert_eq!(about["forwarded"], "127.0.0.1");
    assert_eq!(about["url"], site.curl.url("/about?x=%C3%A9"));
    site.assert_passed("GET", "/about?x=%C3%A9", 200);
    // A name the site does not know is refused by Django, not by us.
    let other = site.curl.run("/about", ["-H", "Host: other.example"]).last;
    other.assert_status(400);
    site.assert_passed("GET", "/about", 400);
}

#[test]
fn a_view_that_raises_is_a_500_with_its_traceback_in_the_log() {
    let Some(site) = django("django_site.wsgi:application") else {
        return;
    };
    site.curl.get("/broken").assert_status(500);
    site.assert_passed("GET", "/broken", 500);
    site.server.log.wait_for("LookupError: a view that raises");
    site.curl.get("/").assert_status(200);
}

#[test]
fn django_is_valid_wsgi() {
    let Some(site) = django("django_site.wsgi:validated") else {
        return;
    };
    log_in(&site.curl);
    write_and_read(&site, "Ann", "valid");
    write(&site.path("noise.bin"), &noise(3 * MIB));
    let file = format!("file=@{}", site.path("noise.bin").display());
    let token = format!("csrfmiddlewaretoken={}", token(&site.curl.get("/upload")));
    let form = ["-F", &*token, "-F", "note=x", "-F", &*file];
    site.curl.run("/upload", form).last.assert_status(200);
    for path in [
        "/",
        "/page",
        "/about",
        "/files/noise.bin",
        "/stream/noise.bin",
        "/served/uploads/noise.bin",
    ] {
        site.curl.get(path).assert_status(200);
        site.curl.run(path, ["--head"]).last.assert_status(200);
    }
    let since = ["-H", "If-None-Match: \"first\""];
    site.curl.run("/page", since).last.assert_status(304);
    site.assert_passed("GET", "/page", 304);
    site.assert_silent();
}
