use super::super::Form;
use super::*;

mod framing;
mod robustness;

type Facts = (Framing, bool, bool);

/// A head with this request line and these field lines, without CRLF.
fn head(line: &str, fields: &[&str]) -> Vec<u8> {
    let mut bytes = format!("{line}\r\n").into_bytes();
    for field in fields {
        bytes.extend_from_slice(field.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A good 1.1 request with these fields after `Host`.
fn get(fields: &[&str]) -> Vec<u8> {
    let fields: Vec<&str> = std::iter::once(&"Host: a").chain(fields).copied().collect();
    head("GET / HTTP/1.1", &fields)
}

/// The verdict as owned text, to compare verdicts on different buffers.
fn verdict(buf: &[u8], limits: &Limits) -> Result<Option<String>, Refusal> {
    match parse(buf, limits, &mut scratch())? {
        Parsed::Complete(head) => Ok(Some(format!("{head:?}"))),
        Parsed::Partial => Ok(None),
    }
}

fn refusal(buf: &[u8]) -> Option<Refusal> {
    verdict(buf, &Limits::default()).err()
}

#[track_caller]
fn with_head<R>(buf: &[u8], look: impl FnOnce(&Head<'_, '_>) -> R) -> R {
    match parse(buf, &Limits::default(), &mut scratch()) {
        Ok(Parsed::Complete(head)) => look(&head),
        other => panic!("{}: {other:?}", buf.escape_ascii()),
    }
}

#[track_caller]
fn facts(buf: &[u8]) -> Facts {
    with_head(buf, |head| {
        (head.framing, head.keep_alive, head.expects_continue)
    })
}

#[track_caller]
fn refuses(table: &[(&[u8], Refusal)]) {
    for (bytes, expected) in table {
        assert_eq!(refusal(bytes), Some(*expected), "{}", bytes.escape_ascii());
    }
}

#[track_caller]
fn refuses_fields(table: &[(&[&str], Refusal)]) {
    for (fields, expected) in table {
        assert_eq!(refusal(&get(fields)), Some(*expected), "{fields:?}");
    }
}

#[test]
fn parses_a_whole_head_in_place() {
    let bytes =
        b"POST /a%20b?x=1&y HTTP/1.1\r\nHost: example.com:8000\r\nX-One: \t two  words \r\n\
                  Empty:\r\nContent-Length: 3\r\nCookie: \xe9\r\n\r\nabcGET";
    with_head(bytes, |head| {
        assert_eq!(head.method, b"POST");
        assert_eq!(head.target.raw, b"/a%20b?x=1&y");
        assert_eq!(head.target.path, b"/a%20b");
        assert_eq!(head.target.query, b"x=1&y");
        assert_eq!(head.target.form, Form::Origin);
        assert_eq!(head.version, Version::Http11);
        assert_eq!(head.framing, Framing::Length(3));
        assert_eq!(head.host, Some(b"example.com:8000".as_slice()));
        assert!(head.keep_alive && !head.expects_continue && !head.has_underscores);
        let fields: Vec<(&str, &[u8])> = head.fields.iter().map(|f| (f.name, f.value)).collect();
        let expected: [(&str, &[u8]); 5] = [
            ("Host", b"example.com:8000"),
            ("X-One", b"two  words"),
            ("Empty", b""),
            ("Content-Length", b"3"),
            ("Cookie", b"\xe9"),
        ];
        assert_eq!(fields, expected);
        assert_eq!(head.len, bytes.len() - b"abcGET".len());
    });
}

#[test]
fn parses_a_head_without_fields() {
    with_head(b"GET / HTTP/1.0\r\n\r\n", |head| {
        assert_eq!(head.fields.len(), 0);
        assert_eq!(head.version, Version::Http10);
        assert_eq!(head.host, None);
        assert_eq!(head.len, 18);
    });
}

#[test]
fn skips_a_few_blank_lines_before_the_request_line() {
    for count in 0..=4 {
        let bytes = [b"\r\n".repeat(count), get(&[])].concat();
        with_head(&bytes, |head| assert_eq!(head.len, bytes.len()));
    }
    let bytes = [b"\r\n".repeat(5), get(&[])].concat();
    assert_eq!(refusal(&bytes), Some(Refusal::MalformedRequestLine));
    refuses(&[
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLf),
        (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLf),
        (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareCr),
        (b"\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareCr),
    ]);
}

#[test]
fn refuses_malformed_request_lines() {
    use Refusal::*;
    refuses(&[
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        (b"GET / b HTTP/1.1\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET /\r\n\r\n", MalformedRequestLine),
        (b"GET\r\n\r\n", MalformedRequestLine),
        (b"GET \r\n\r\n", MalformedRequestLine),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET / HTTP/1.\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET / HTTP/x.1\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b"GET / XTTP/1.1\r\nHost: a\r\n\r\n", MalformedRequestLine),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
        (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
        (b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BadMethod),
        (b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
    ]);
}

#[test]
fn refuses_versions_other_than_1_0_and_1_1() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3", "HTTP/2"] {
        let bytes = head(&format!("GET / {version}"), &["Host: a"]);
        assert_eq!(refusal(&bytes), Some(Refusal::BadVersion), "{version}");
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(refusal(preface), Some(Refusal::BadVersion));
}

#[test]
fn takes_any_token_of_moderate_length_as_method() {
    let longest = "M".repeat(32);
    for method in [
        "GET",
        "get",
        "PROPFIND",
        "M-SEARCH",
        "X!#$%&'*+.^_`|~",
        &longest,
    ] {
        let bytes = head(&format!("{method} / HTTP/1.1"), &["Host: a"]);
        with_head(&bytes, |head| assert_eq!(head.method, method.as_bytes()));
    }
    let bytes = head(&format!("{longest}M / HTTP/1.1"), &["Host: a"]);
    assert_eq!(refusal(&bytes), Some(Refusal::BadMethod));
}

#[test]
fn refuses_bad_targets_whatever_follows() {
    for (method, target) in [
        ("GET", "a"),
        ("GET", "*"),
        ("OPTIONS", "**"),
        ("GET", "/#f"),
        ("GET", "/?a#f"),
        ("GET", "/\u{e9}"),
        ("GET", "/?\u{e9}"),
        ("GET", "/\x01"),
        ("GET", "/\x7f"),
        ("GET", "example.com:443"),
        ("CONNECT", "example.com:443"),
        ("CONNECT", "/"),
    ] {
        let bytes = head(&format!("{method} {target} HTTP/1.1"), &["Host: a"]);
        assert_eq!(
            refusal(&bytes),
            Some(Refusal::BadTarget),
            "{method} {target}"
        );
    }
    let latin = b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(refusal(latin), Some(Refusal::BadTarget));
}

#[test]
fn lets_the_authority_of_the_target_replace_host() {
    let line = "GET http://b:81/x?y HTTP/1.1";
    with_head(&head(line, &["Host: a"]), |head| {
        assert_eq!(head.host, Some(b"b:81".as_slice()));
        assert_eq!(head.target.path, b"/x");
        assert_eq!(head.target.query, b"y");
    });
    assert_eq!(refusal(&head(line, &[])), Some(Refusal::MissingHost));
    assert_eq!(refusal(&head(line, &["Host: a b"])), Some(Refusal::BadHost));
}

#[test]
fn refuses_line_ends_other_than_crlf_and_folded_lines() {
    use Refusal::*;
    refuses(&[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\nY: b\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b \nY: b\r\n\r\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLf),
        (b"GET / HTTP/1.1\nHost: a\n\n", BareLf),
        (b"GET / HTTP/1.0\n\r\n", BareLf),
        (b"GET / HTTP/1.0\r\n\n", BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rX", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r: b\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BareCr),
        (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", ObsFold),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tb\r\n\r\n", ObsFold),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n b\r\n\r\n", ObsFold),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", ObsFold),
    ]);
}

#[test]
fn refuses_bad_field_names_and_values() {
    use Refusal::*;
    refuses_fields(&[
        (&["X : a"], SpaceBeforeColon),
        (&["X\t: a"], SpaceBeforeColon),
        (&["X Y: a"], SpaceBeforeColon),
        (&[": a"], BadFieldName),
        (&["X"], BadFieldName),
        (&["X(: a"], BadFieldName),
        (&["X\u{e9}: a"], BadFieldName),
        (&["\x00X: a"], BadFieldName),
        (&["X: \x00"], BadFieldValue),
        (&["X: a\x01b"], BadFieldValue),
        (&["X: a\x0bb"], BadFieldValue),
        (&["X: a\x7f"], BadFieldValue),
        (&["X: a\x1b[1m"], BadFieldValue),
    ]);
    for field in [
        "X: a\tb",
        "X:\t a",
        "X: \u{e9}",
        "X:a",
        "X:",
        "X:  ",
        "X: \"(,;:)\"",
    ] {
        assert_eq!(refusal(&get(&[field])), None, "{field:?}");
    }
}

#[test]
fn needs_exactly_one_valid_host_in_1_1() {
    use Refusal::*;
    for (line, fields, expected) in [
        ("GET / HTTP/1.1", &[][..], Some(MissingHost)),
        ("GET / HTTP/1.1", &["X-Host: a"], Some(MissingHost)),
        (
            "GET / HTTP/1.1",
            &["Host: a", "host: a"],
            Some(RepeatedHost),
        ),
        (
            "GET / HTTP/1.0",
            &["Host: a", "Host: b"],
            Some(RepeatedHost),
        ),
        ("GET / HTTP/1.0", &["Host: a/b"], Some(BadHost)),
        ("GET / HTTP/1.1", &["Host: a/b"], Some(BadHost)),
        ("GET / HTTP/1.1", &["Host: a, b"], Some(BadHost)),
        ("GET / HTTP/1.1", &["Host: a@b"], Some(BadHost)),
        ("GET / HTTP/1.0", &[], None),
        ("GET / HTTP/1.0", &["Host: a"], None),
        ("GET / HTTP/1.1", &["HOST: a"], None),
        ("GET / HTTP/1.1", &["Host:"], None),
    ] {
        assert_eq!(refusal(&head(line, fields)), expected, "{line} {fields:?}");
    }
}

#[test]
fn keeps_the_connection_as_its_options_say() {
    for (version, fields, keeps) in [
        ("1.1", &[][..], true),
        ("1.1", &["Connection: close"], false),
        ("1.1", &["connection: CLOSE"], false),
        ("1.1", &["Connection: upgrade , Close"], false),
        (
            "1.1",
            &["Connection: keep-alive", "Connection: close"],
            false,
        ),
        ("1.1", &["Connection: close, keep-alive"], false),
        ("1.1", &["Connection: closed"], true),
        ("1.1", &["Connection: upgrade"], true),
        ("1.1", &["Connection:"], true),
        ("1.0", &[], false),
        ("1.0", &["Connection: Keep-Alive"], true),
        ("1.0", &["Connection: TE,keep-alive"], true),
        ("1.0", &["Connection: te", "Connection: keep-alive"], true),
        ("1.0", &["Connection: keep-alive, close"], false),
        ("1.0", &["Keep-Alive: timeout=5"], false),
    ] {
        let mut all = vec!["Host: a"];
        all.extend(fields);
        let bytes = head(&format!("GET / HTTP/{version}"), &all);
        assert_eq!(facts(&bytes).1, keeps, "{version} {fields:?}");
    }
}

#[test]
fn expects_continue_only_in_1_1_and_before_a_body() {
    for (line, fields, expects) in [
        (
            "POST / HTTP/1.1",
            &["Content-Length: 5", "Expect: 100-continue"][..],
            true,
        ),
        (
            "POST / HTTP/1.1",
            &["Content-Length: 5", "expect: 100-Continue"],
            true,
        ),
        (
            "POST / HTTP/1.1",
            &["Expect: 100-continue", "Transfer-Encoding: chunked"],
            true,
        ),
        ("POST / HTTP/1.1", &["Content-Length: 5"], false),
        ("POST / HTTP/1.1", &["Content-Length: 5", "Expect:"], false),
        (
            "POST / HTTP/1.1",
            &["Content-Length: 0", "Expect: 100-continue"],
            false,
        ),
        ("POST / HTTP/1.1", &["Expect: 100-continue"], false),
        (
            "POST / HTTP/1.0",
            &["Content-Length: 5", "Expect: 100-continue"],
            false,
        ),
    ] {
        let mut all = vec!["Host: a"];
        all.extend(fields);
        assert_eq!(facts(&head(line, &all)).2, expects, "{line} {fields:?}");
    }
    refuses_fields(&[
        (&["Expect: 200-ok"], Refusal::ExpectationFailed),
        (&["Expect: 100-continue, x"], Refusal::ExpectationFailed),
        (
            &["Expect: 100-continue", "Expect: x"],
            Refusal::ExpectationFailed,
        ),
    ]);
}

#[test]
fn treats_underscores_as_configured() {
    for (field, has) in [
        ("X-One: _", false),
        ("X_One: a", true),
        ("_: a", true),
        ("Abcdefg_: a", true),
        ("Abcdefgh_: a", true),
        ("Abcdefghijklmno_pqrst: a", true),
        ("Abcdefg^Abcdefg`: a", false),
    ] {
        let bytes = get(&[field]);
        with_head(&bytes, |head| {
            assert_eq!(head.has_underscores, has, "{field}")
        });
        let refuse = Limits {
            underscores: Underscores::Refuse,
            ..Limits::default()
        };
        let expected = has.then_some(Refusal::UnderscoreField);
        assert_eq!(verdict(&bytes, &refuse).err(), expected, "{field}");
        let name = field.split(':').next().unwrap().as_bytes();
        assert_eq!(environ_worthy(name, Underscores::Drop), !has);
        assert!(environ_worthy(name, Underscores::Keep));
    }
}

/// Parses the longest head within `limits` and one beyond, which is refused as soon as `at` bytes
/// of it are there, and never earlier.
#[track_caller]
fn at_the_limit(limits: &Limits, within: &[u8], beyond: &[u8], at: usize, expected: Refusal) {
    assert!(verdict(within, limits).unwrap().is_some());
    for end in 0..at {
        assert_eq!(verdict(&beyond[..end], limits), Ok(None), "{end}");
        assert!(!is_complete(&beyond[..end], limits, &mut 0), "{end}");
    }
    for end in at..=beyond.len() {
        assert_eq!(verdict(&beyond[..end], limits), Err(expected), "{end}");
        // The scan may need one byte more, to see whether a CRLF ends the line in time.
        assert!(
            end == at || is_complete(&beyond[..end], limits, &mut 0),
            "{end}"
        );
    }
}

#[test]
fn refuses_a_request_line_over_its_limit_before_it_ends() {
    let limits = Limits {
        request_line: 30,
        ..Limits::default()
    };
    let line = |n: usize| head(&format!("GET /{} HTTP/1.1", "a".repeat(n)), &["Host: a"]);
    at_the_limit(
        &limits,
        &line(16),
        &line(17),
        31,
        Refusal::RequestLineTooLong,
    );
    at_the_limit(
        &limits,
        &line(16),
        &line(500),
        31,
        Refusal::RequestLineTooLong,
    );
    let endless = b"GET /"
        .iter()
        .copied()
        .chain([b'a'; 100])
        .collect::<Vec<u8>>();
    assert_eq!(verdict(&endless, &limits), Err(Refusal::RequestLineTooLong));
    assert!(is_complete(&endless, &limits, &mut 0));
}

#[test]
fn refuses_a_head_over_its_limit_before_it_ends() {
    let limits = Limits {
        head: 100,
        ..Limits::default()
    };
    let filled = |n: usize| get(&[&format!("X: {}", "a".repeat(n))]);
    let room = 100 - filled(0).len();
    at_the_limit(
        &limits,
        &filled(room),
        &filled(room + 1),
        101,
        Refusal::HeadTooLarge,
    );
    at_the_limit(
        &limits,
        &filled(room),
        &filled(1000),
        101,
        Refusal::HeadTooLarge,
    );
}

#[test]
fn refuses_more_fields_than_its_limit() {
    for fields in [1, 2, 100, MAX_FIELDS, 1000] {
        let limits = Limits {
            fields,
            ..Limits::default()
        };
        let allowed = fields.min(MAX_FIELDS);
        let lines = |n: usize| get(&vec!["X: y"; n - 1]);
        assert!(verdict(&lines(allowed), &limits).unwrap().is_some());
        assert_eq!(
            verdict(&lines(allowed + 1), &limits),
            Err(Refusal::TooManyFields)
        );
    }
}

#[test]
fn finds_an_underscore_anywhere_in_a_name() {
    for length in 1..40 {
        let mut name = vec![b'^'; length];
        assert!(environ_worthy(&name, Underscores::Drop), "{length}");
        for at in 0..length {
            name[at] = b'_';
            assert!(
                !environ_worthy(&name, Underscores::Drop),
                "{at} of {length}"
            );
            name[at] = b'^';
        }
    }
}

#[test]
fn names_the_first_fault_of_an_incomplete_head() {
    use Refusal::*;
    refuses(&[
        (b"G(", BadMethod),
        (b"GET /#", BadTarget),
        (b"GET /\x80", BadTarget),
        (b"GET /# HTTP/1.1\nHost", BadTarget),
        (b"GET / HTTP/2", BadVersion),
        (b"GET / HTTP/1.1\n", BareLf),
        (b"GET / HTTP/1.1\r\nX ", SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nX: \x00", BadFieldValue),
        (b"GET / HTTP/1.1\r\nX: y\r\n ", ObsFold),
    ]);
}

#[test]
fn waits_while_only_blank_lines_have_arrived() {
    for (bytes, complete) in [
        (&b""[..], false),
        (b"\r", false),
        (b"\r\n\r\n", false),
        (b"\r\n\r\n\r\n\r\n", false),
        (b"\r\n\r\n\r\n\r\n\r\n", true),
        (b"\n", true),
        (b"\r\r", true),
    ] {
        let limits = Limits::default();
        assert_eq!(is_complete(bytes, &limits, &mut 0), complete);
        assert_eq!(verdict(bytes, &limits).is_err(), complete);
    }
}

#[test]
fn scans_no_byte_twice_while_a_head_arrives() {
    let bytes = get(&["X: y"; 50]);
    let mut scanned_to = 0;
    for end in 1..bytes.len() {
        assert!(
            !is_complete(&bytes[..end], &Limits::default(), &mut scanned_to),
            "{end}"
        );
        assert_eq!(scanned_to, end);
    }
    assert!(is_complete(&bytes, &Limits::default(), &mut scanned_to));
    // A line end that it would report, had it not been told that it saw this part before.
    let seen = b"GET / HTTP/1.1\nHost: a";
    assert!(is_complete(seen, &Limits::default(), &mut 0));
    assert!(!is_complete(seen, &Limits::default(), &mut 15));
}
