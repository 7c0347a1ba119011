use super::*;

#[test]
fn reads_the_code_of_a_status() {
    for (status, code) in [
        (&b"200 OK"[..], 200),
        (b"200", 200),
        (b"200 ", 200),
        (b"404 Not Found", 404),
        (b"299  two spaces", 299),
        (b"999 \xe9t\xe9", 999),
        (b"599 a\tb", 599),
    ] {
        assert_eq!(check_status(status), Ok(code), "{}", status.escape_ascii());
    }
}

#[test]
fn refuses_bad_statuses() {
    let not_a_status = "is not three digits, a space and a reason";
    let control = "contains a control character";
    let interim = "is interim and cannot end a request";
    for (status, says) in [
        ("", not_a_status),
        ("20", not_a_status),
        ("2000 OK", not_a_status),
        ("200OK", not_a_status),
        ("200\tOK", not_a_status),
        (" 200 OK", not_a_status),
        ("OK", not_a_status),
        ("2x0 OK", not_a_status),
        ("099 Low", not_a_status),
        ("000", not_a_status),
        ("+20 OK", not_a_status),
        ("200\r\nX: y", not_a_status),
        ("200 OK\r\nX: y", control),
        ("200 OK\n", control),
        ("200 \0", control),
        ("200 \x7f", control),
        ("100 Continue", interim),
        ("101 Switching Protocols", interim),
        ("199", interim),
    ] {
        let bad = check_status(status.as_bytes()).unwrap_err().to_string();
        assert!(bad.ends_with(says), "{status:?}: {bad}");
        assert!(!bad.contains(['\r', '\n', '\0']), "{bad:?}");
    }
}

#[test]
fn knows_the_fields_that_concern_the_server() {
    for (name, value, kind) in [
        (
            "Content-Type",
            "text/plain; charset=utf-8",
            FieldKind::Plain,
        ),
        ("X-Tab", "a\tb", FieldKind::Plain),
        ("X-Empty", "", FieldKind::Plain),
        ("Set-Cookie", "a=\u{e9}", FieldKind::Plain),
        ("Content-Length", "5", FieldKind::ContentLength(5)),
        ("content-length", " 0 ", FieldKind::ContentLength(0)),
        ("DATE", "x", FieldKind::Date),
        ("server", "x", FieldKind::Server),
        ("Proxy", "x", FieldKind::Plain),
        ("Connections", "x", FieldKind::Plain),
        ("WWW-Authenticate", "Basic", FieldKind::Plain),
    ] {
        assert_eq!(
            check_field(name.as_bytes(), value.as_bytes()),
            Ok(kind),
            "{name}"
        );
    }
}

#[test]
fn refuses_bad_fields_with_a_sentence_for_the_application() {
    for (name, value, says) in [
        ("X Y", "a", "header name 'X Y' is not a token"),
        ("", "a", "header name '' is not a token"),
        ("X:", "a", "header name 'X:' is not a token"),
        ("X\r\nY", "a", "header name 'X\\r\\nY' is not a token"),
        ("\u{e9}", "a", "header name '\\xc3\\xa9' is not a token"),
        (
            "X",
            "a\r\nY: b",
            "value of header 'X' contains the control character 0x0d",
        ),
        (
            "X",
            "a\n",
            "value of header 'X' contains the control character 0x0a",
        ),
        (
            "X",
            "\0",
            "value of header 'X' contains the control character 0x00",
        ),
        (
            "X",
            "\x7f",
            "value of header 'X' contains the control character 0x7f",
        ),
        (
            "Content-Length",
            "+5",
            "Content-Length '+5' is not a decimal number",
        ),
        (
            "Content-Length",
            "",
            "Content-Length '' is not a decimal number",
        ),
        (
            "Connection",
            "close",
            "header 'Connection' is hop-by-hop and belongs to the server (PEP 3333)",
        ),
    ] {
        let bad = check_field(name.as_bytes(), value.as_bytes()).unwrap_err();
        assert_eq!(bad.to_string(), says);
    }
}

#[test]
fn refuses_every_hop_by_hop_field() {
    for name in [
        "connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "proxy-authorization",
        "TE",
        "Trailer",
        "trailers",
        "Transfer-Encoding",
        "UPGRADE",
    ] {
        let bad = check_field(name.as_bytes(), b"x");
        assert_eq!(bad, Err(BadResponse::HopByHop(name.to_owned())));
    }
}

fn asked(version: Version, method: Method) -> Asked {
    Asked {
        version,
        method,
        after: After::Persist,
    }
}

#[test]
fn decides_how_a_body_is_delimited() {
    use Delimiter::{Chunked, Close, Head, Length};
    use Version::{Http10, Http11};
    let get = Method::Other;
    let head = Method::Head;
    for (version, method, status, declared, known, delimiter, body) in [
        (Http11, get, 200, Some(5), None, Length(5), Body::Send),
        (Http11, get, 200, Some(5), Some(3), Length(5), Body::Send),
        (Http11, get, 200, None, Some(3), Length(3), Body::Send),
        (Http11, get, 200, None, Some(0), Length(0), Body::Send),
        (Http11, get, 200, None, None, Chunked, Body::Send),
        (Http10, get, 200, Some(5), None, Length(5), Body::Send),
        (Http10, get, 200, None, Some(3), Length(3), Body::Send),
        (Http10, get, 200, None, None, Close, Body::Send),
        (Http11, head, 200, Some(5), None, Length(5), Body::Discard),
        (
            Http11,
            head,
            200,
            Some(5),
            Some(0),
            Length(5),
            Body::Discard,
        ),
        (Http11, head, 200, None, Some(3), Length(3), Body::Discard),
        (Http11, head, 200, None, Some(0), Head, Body::Discard),
        (Http11, head, 200, None, None, Head, Body::Discard),
        (Http10, head, 200, None, None, Head, Body::Discard),
        (Http11, get, 204, Some(5), Some(5), Head, Body::Discard),
        (Http11, head, 204, Some(0), None, Head, Body::Discard),
        (Http10, get, 204, None, None, Head, Body::Discard),
        (Http11, get, 304, None, Some(0), Head, Body::Discard),
        (Http11, get, 304, Some(5), Some(0), Length(5), Body::Discard),
        (Http11, get, 205, Some(5), Some(5), Length(0), Body::Discard),
        (Http11, get, 500, None, None, Chunked, Body::Send),
    ] {
        let got = framing(asked(version, method), status, declared, known);
        let row = (version, method, status, declared, known);
        assert_eq!((got.delimiter, got.body), (delimiter, body), "{row:?}");
        assert_eq!(
            got.body == Body::Discard,
            method == head || status == 205 || forbids_body(status)
        );
    }
}

#[test]
fn decides_whether_the_connection_persists() {
    use Version::{Http10, Http11};
    for (version, after, known, connection) in [
        (Http11, After::Persist, Some(1), Connection::Unsaid),
        (Http11, After::Persist, None, Connection::Unsaid),
        (Http11, After::Close, Some(1), Connection::Close),
        (Http11, After::Close, None, Connection::Close),
        (Http10, After::Persist, Some(1), Connection::KeepAlive),
        (Http10, After::Persist, None, Connection::Close),
        (Http10, After::Close, Some(1), Connection::Close),
    ] {
        let asked = Asked {
            version,
            method: Method::Other,
            after,
        };
        let delivery = framing(asked, 200, None, known);
        assert_eq!(
            delivery.connection, connection,
            "{version:?} {after:?} {known:?}"
        );
        let closes = connection == Connection::Close;
        assert_eq!(delivery.after() == After::Close, closes);
    }
}

fn rendered(status: &str, delimiter: Delimiter, connection: Connection) -> String {
    let mut fields = Vec::new();
    write_field(&mut fields, b"X", b"y");
    let mut out = b"before|".to_vec();
    let head = ResponseHead {
        status: status.as_bytes(),
        fields: &fields,
        date: Some(b"Sun, 06 Nov 1994 08:49:37 GMT"),
        server: Some(b"rswsgi"),
        delivery: Delivery {
            delimiter,
            body: Body::Send,
            connection,
        },
    };
    write_head(&mut out, &head);
    String::from_utf8(out).unwrap()
}

#[test]
fn writes_heads() {
    let ours = "X: y\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: rswsgi\r\n";
    for (status, delimiter, connection, first, last) in [
        (
            "200 OK",
            Delimiter::Length(0),
            Connection::Unsaid,
            "200 OK",
            "Content-Length: 0\r\n",
        ),
        (
            "200",
            Delimiter::Length(u64::MAX),
            Connection::Unsaid,
            "200 ",
            "Content-Length: 18446744073709551615\r\n",
        ),
        (
            "200 ",
            Delimiter::Chunked,
            Connection::Unsaid,
            "200 ",
            "Transfer-Encoding: chunked\r\n",
        ),
        (
            "204 No Content",
            Delimiter::Head,
            Connection::Unsaid,
            "204 No Content",
            "",
        ),
        (
            "200 OK",
            Delimiter::Close,
            Connection::Close,
            "200 OK",
            "Connection: close\r\n",
        ),
        (
            "200 OK",
            Delimiter::Length(10),
            Connection::KeepAlive,
            "200 OK",
            "Content-Length: 10\r\nConnection: keep-alive\r\n",
        ),
    ] {
        assert_eq!(
            rendered(status, delimiter, connection),
            format!("before|HTTP/1.1 {first}\r\n{ours}{last}\r\n")
        );
    }
}

#[test]
fn leaves_out_what_the_application_sent_itself() {
    let mut out = Vec::new();
    let head = ResponseHead {
        status: b"200 OK",
        fields: b"Date: x\r\nServer: y\r\n",
        date: None,
        server: None,
        delivery: framing(asked(Version::Http11, Method::Other), 200, Some(2), None),
    };
    write_head(&mut out, &head);
    assert_eq!(
        out,
        b"HTTP/1.1 200 OK\r\nDate: x\r\nServer: y\r\nContent-Length: 2\r\n\r\n"
    );
}

#[test]
fn writes_chunk_sizes_in_hexadecimal() {
    for size in [1, 9, 10, 15, 16, 255, 4096, 65535, usize::MAX] {
        let mut buf = [0xff; 18];
        let expected = format!("{size:x}\r\n");
        assert_eq!(chunk_prefix(size, &mut buf), expected.as_bytes());
    }
}

#[test]
fn decodes_its_own_chunks() {
    let mut out = Vec::new();
    for data in [&b"hello"[..], &[b'x'; 300]] {
        out.extend_from_slice(chunk_prefix(data.len(), &mut [0; 18]));
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(LAST_CHUNK);
    let mut length = 0;
    let step = super::super::Chunked::new(1000).decode(&out, &mut |data| length += data.len());
    assert!(step.is_ok_and(|step| step.done && step.consumed == out.len()));
    assert_eq!(length, 305);
}

#[test]
fn writes_error_pages_that_close() {
    let mut out = Vec::new();
    let page = "431 Request Header Fields Too Large\n";
    let refused = Refused {
        status: 431,
        method: Method::Other,
        form: Form::Plain,
        page: page.as_bytes(),
    };
    let head = write_refusal(&mut out, refused, None, Some(b"rswsgi"));
    assert_eq!(out.len(), head + page.len());
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!(
            "HTTP/1.1 431 Request Header Fields Too Large\r\n\
             Content-Type: text/plain; charset=utf-8\r\nServer: rswsgi\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{page}",
            page.len()
        )
    );
    let mut out = Vec::new();
    let refused = Refused {
        status: 504,
        method: Method::Head,
        form: Form::Html,
        page: &[b'x'; 20],
    };
    let head = write_refusal(&mut out, refused, None, None);
    assert_eq!(out.len(), head);
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.ends_with("Content-Length: 20\r\nConnection: close\r\n\r\n"),
        "{text}"
    );
}

#[test]
fn forbids_bodies_where_the_head_ends_the_response() {
    for status in [100, 101, 199, 204, 304] {
        assert!(forbids_body(status), "{status}");
    }
    for status in [200, 203, 205, 206, 300, 305, 404, 500] {
        assert!(!forbids_body(status), "{status}");
    }
}
