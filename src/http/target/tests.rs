use super::*;

#[test]
fn splits_origin_form_at_the_first_question_mark() {
    for (raw, path, query) in [
        ("/", "/", ""),
        ("/a", "/a", ""),
        ("/a?", "/a", ""),
        ("/a?b=c", "/a", "b=c"),
        ("/a?b?c", "/a", "b?c"),
        ("/?/", "/", "/"),
        ("//a//b", "//a//b", ""),
        ("/%zz|^\"", "/%zz|^\"", ""),
    ] {
        let target = Target::parse(b"GET", raw.as_bytes()).unwrap();
        assert_eq!(target.form, Form::Origin, "{raw}");
        assert_eq!(target.raw, raw.as_bytes());
        assert_eq!(target.path, path.as_bytes(), "{raw}");
        assert_eq!(target.query, query.as_bytes(), "{raw}");
        assert_eq!(target.authority, None);
    }
}

#[test]
fn splits_absolute_form() {
    for (raw, authority, path, query) in [
        ("http://a", "a", "/", ""),
        ("HTTP://a/", "a", "/", ""),
        ("https://a:8/b?c", "a:8", "/b", "c"),
        ("http://a?c", "a", "/", "c"),
        ("http://[::1]:8000/b", "[::1]:8000", "/b", ""),
        ("http://a/http://b/", "a", "/http://b/", ""),
    ] {
        let target = Target::parse(b"GET", raw.as_bytes()).unwrap();
        assert_eq!(target.form, Form::Absolute, "{raw}");
        assert_eq!(target.authority, Some(authority.as_bytes()), "{raw}");
        assert_eq!(target.path, path.as_bytes(), "{raw}");
        assert_eq!(target.query, query.as_bytes(), "{raw}");
    }
}

#[test]
fn takes_the_asterisk_for_options_only() {
    let target = Target::parse(b"OPTIONS", b"*").unwrap();
    assert_eq!((target.form, target.path), (Form::Asterisk, &b"*"[..]));
    assert_eq!(Target::parse(b"GET", b"*"), Err(Refusal::BadTarget));
    assert_eq!(Target::parse(b"options", b"*"), Err(Refusal::BadTarget));
}

#[test]
fn refuses_other_forms() {
    for raw in [
        "",
        "a",
        "a/b",
        "?",
        "a:80",
        "ftp://a/",
        "http:/a",
        "http:///b",
        "http://",
        "http://:80/",
        "http://a@b/",
        "http://a:b@c/",
        "http://a#f",
        "http://a/#f",
        "http://a/?#f",
        "http://a:99999/",
        "http://a,b/",
        "http://a\\b/",
        "/#",
        "/?#",
    ] {
        let target = Target::parse(b"GET", raw.as_bytes());
        assert_eq!(target, Err(Refusal::BadTarget), "{raw}");
    }
    assert_eq!(Target::parse(b"GET", b"/\x80"), Err(Refusal::BadTarget));
    assert_eq!(Target::parse(b"CONNECT", b"a:80"), Err(Refusal::BadTarget));
}

#[test]
fn knows_a_valid_host() {
    for host in [
        "",
        "a",
        "A.example.com",
        "a.example.com.",
        "a_b",
        "127.0.0.1",
        "127.0.0.1:8000",
        "a:",
        "a:0",
        "a:65535",
        "a:000080",
        "[::1]",
        "[::1]:80",
        "[::ffff:127.0.0.1]",
        "a!$&'()*+;=~-",
    ] {
        assert!(is_host(host.as_bytes()), "{host}");
    }
    for host in [
        ":",
        ":80",
        "a:65536",
        "a:123456",
        "a:-1",
        "a:8o",
        "a:80:80",
        "::1",
        "[::1",
        "[]",
        "[a]",
        "[::1]a",
        "[::1]80",
        "[::1]:x",
        "[fe80::1%eth0]",
        "a b",
        "a,b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "a%41",
        "a\\b",
        "<a>",
        "a\"",
        "\u{e9}",
        "a\tb",
    ] {
        assert!(!is_host(host.as_bytes()), "{host}");
    }
}

#[test]
fn splits_a_host_from_its_port() {
    for (host, name, port) in [
        ("a", "a", None),
        ("a:80", "a", Some("80")),
        ("a:", "a", None),
        ("", "", None),
        ("127.0.0.1:8000", "127.0.0.1", Some("8000")),
        ("[::1]", "[::1]", None),
        ("[::1]:8080", "[::1]", Some("8080")),
        ("[::1]:", "[::1]", None),
        ("[::1", "[::1", None),
        ("[::1]x", "[::1]", None),
    ] {
        let expected = (name.as_bytes(), port.map(str::as_bytes));
        assert_eq!(split_host(host.as_bytes()), expected, "{host}");
    }
}

#[test]
fn decodes_escapes_and_leaves_invalid_ones() {
    let mut buf = b"left over".to_vec();
    for (path, decoded) in [
        ("/a", &b"/a"[..]),
        ("/%41", b"/A"),
        ("/%c3%A9", b"/\xc3\xa9"),
        ("/%ff", b"/\xff"),
        ("/a%20b%2Fc", b"/a b/c"),
        ("/%2541", b"/%41"),
        ("/%00", b"/\0"),
        ("/%0d%0a", b"/\r\n"),
        ("/%", b"/%"),
        ("/%4", b"/%4"),
        ("/%zz", b"/%zz"),
        ("/%4g%41", b"/%4gA"),
        ("/%%41", b"/%A"),
        ("/+", b"/+"),
    ] {
        let got = percent_decode(path.as_bytes(), &mut buf);
        assert_eq!(got, decoded, "{path}");
    }
}

#[test]
fn copies_nothing_when_there_is_nothing_to_decode() {
    let path = b"/a/b";
    let mut buf = Vec::new();
    let decoded = percent_decode(path, &mut buf);
    assert_eq!(decoded.as_ptr(), path.as_ptr());
    assert_eq!(buf.capacity(), 0);
}
