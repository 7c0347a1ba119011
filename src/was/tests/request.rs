//! Packets and the metadata of requests.

use super::*;

#[test]
fn a_packet_is_taken_when_all_of_it_is_there() {
    let bytes = [packet(Command::Header, b"a=b"), packet(Command::Nop, b"")].concat();
    for cut in 0..bytes.len() {
        let mut packets = Packets::default();
        packets.push(&bytes[..cut]);
        assert_eq!(packets.first().is_some(), cut >= 7, "{cut}");
        packets.push(&bytes[cut..]);
        assert_eq!(packets.take().unwrap().payload, b"a=b");
        assert_eq!(packets.take().unwrap().command, 0);
        assert!(packets.take().is_none() && packets.is_empty());
    }
}

#[test]
fn the_largest_payload_is_one_packet() {
    let bytes = packet(Command::Header, &[b'='; MAX_PAYLOAD]);
    let mut packets = Packets::default();
    packets.push(&bytes);
    assert_eq!(packets.take().unwrap().payload.len(), MAX_PAYLOAD);
}

#[test]
fn metadata_comes_in_any_order() {
    let mut rest = vec![
        packet(Command::Uri, b"/s/p?q"),
        packet(Command::Header, b"x=1=2"),
        packet(Command::Method, &4u16.to_ne_bytes()),
        packet(Command::ScriptName, b"/s"),
        packet(Command::Parameter, b"key=value"),
        packet(Command::PathInfo, b"/p"),
        packet(Command::Tls, b""),
        packet(Command::QueryString, b"q"),
        packet(Command::RemoteHost, b"2001:db8::1"),
        packet(Command::Metric, b""),
        packet(Command::DocumentRoot, b"/var/www"),
    ];
    for _ in 0..rest.len() {
        rest.rotate_left(1);
        let mut packets = vec![packet(Command::Request, b"")];
        packets.extend(rest.clone());
        packets.push(packet(Command::NoData, b""));
        let case = Case::of(&packets);
        let request = &case.request;
        assert_eq!(request.method().name(), Some("PUT"));
        assert_eq!(request.uri(), Some(&b"/s/p?q"[..]));
        assert_eq!(request.script_name(), Some(&b"/s"[..]));
        assert_eq!(request.path_info(), Some(&b"/p"[..]));
        assert_eq!(request.query_string(), Some(&b"q"[..]));
        assert_eq!(request.remote_host(), Some(&b"2001:db8::1"[..]));
        assert_eq!(request.document_root(), Some(&b"/var/www"[..]));
        assert!(request.is_tls() && request.wants_metrics());
        let header: Vec<_> = request.headers().collect();
        assert_eq!(header, [(&b"x"[..], &b"1=2"[..])]);
        let parameter: Vec<_> = request.parameters().collect();
        assert_eq!(parameter, [(&b"key"[..], &b"value"[..])]);
        assert_eq!(request.refusal(), None);
    }
}

#[test]
fn a_request_without_a_method_is_a_get_and_may_be_repeated() {
    let case = Case::of(&get());
    assert_eq!(case.request.method().name(), Some("GET"));
    let head = packet(Command::Method, &1u32.to_ne_bytes());
    let packets = [packet(Command::Request, b""), head.clone(), head];
    assert_eq!(Case::of(&packets).request.method().name(), Some("HEAD"));
}

#[test]
fn every_method_has_its_number() {
    for (number, name) in [
        (1, "HEAD"),
        (2, "GET"),
        (3, "POST"),
        (4, "PUT"),
        (5, "DELETE"),
        (6, "OPTIONS"),
        (7, "TRACE"),
        (8, "PROPFIND"),
        (9, "PROPPATCH"),
        (10, "MKCOL"),
        (11, "COPY"),
        (12, "MOVE"),
        (13, "LOCK"),
        (14, "UNLOCK"),
        (15, "PATCH"),
        (16, "REPORT"),
        (17, "QUERY"),
    ] {
        let packets = [
            packet(Command::Request, b""),
            packet(Command::Method, &u32::to_ne_bytes(number)),
            packet(Command::Uri, b"/"),
        ];
        let case = Case::of(&packets);
        assert_eq!(case.request.method().name(), Some(name));
        assert_eq!(case.request.refusal(), None);
    }
}

#[test]
fn an_unknown_method_is_answered_with_501() {
    for number in [0u32, 18, 4711, u32::MAX] {
        let packets = [
            packet(Command::Request, b""),
            packet(Command::Method, &number.to_ne_bytes()),
            packet(Command::Uri, b"/"),
            packet(Command::NoData, b""),
        ];
        let refusal = Case::of(&packets).request.refusal().unwrap();
        assert_eq!(refusal.status(), 501);
    }
}

#[test]
fn what_comes_once_only_is_not_taken_twice() {
    for command in [
        Command::Uri,
        Command::ScriptName,
        Command::PathInfo,
        Command::QueryString,
        Command::RemoteHost,
        Command::DocumentRoot,
    ] {
        let once = packet(command, b"/x");
        let packets = [packet(Command::Request, b""), once.clone(), once];
        assert_eq!(
            Case::violation(&packets),
            Violation::Repeated(command.number())
        );
    }
    let packets = [
        packet(Command::Request, b""),
        packet(Command::Method, &2u32.to_ne_bytes()),
        packet(Command::Method, &3u32.to_ne_bytes()),
    ];
    assert_eq!(Case::violation(&packets), Violation::Repeated(2));
}

#[test]
fn headers_may_be_repeated_but_not_malformed() {
    let packets = [
        packet(Command::Request, b""),
        packet(Command::Header, b"cookie=a=1"),
        packet(Command::Header, b"cookie=b=2"),
        packet(Command::Header, b"empty="),
    ];
    assert_eq!(Case::of(&packets).request.headers().len(), 3);
    for bad in [&b"no sign"[..], b"=value", b""] {
        for command in [Command::Header, Command::Parameter] {
            let packets = [packet(Command::Request, b""), packet(command, bad)];
            assert_eq!(
                Case::violation(&packets),
                Violation::Malformed(command.number())
            );
        }
    }
}

#[test]
fn what_http_cannot_carry_is_refused() {
    for bad in [&b"a b=c"[..], b"a=x\r\ny", b"a=\0", b"n\xe4me=x", b"a:=b"] {
        let packets = [
            packet(Command::Request, b""),
            packet(Command::Uri, b"/"),
            packet(Command::Header, bad),
        ];
        let refusal = Case::of(&packets).request.refusal().unwrap();
        assert_eq!(refusal.status(), 400, "{bad:?}");
    }
    let packets = [
        packet(Command::Request, b""),
        packet(Command::Uri, b"/"),
        packet(Command::Header, b"a=\xe4\tb"),
    ];
    assert_eq!(Case::of(&packets).request.refusal(), None);
}

#[test]
fn too_long_an_address_is_414_and_too_many_headers_are_431() {
    let long = vec![b'x'; 5000];
    for command in [
        Command::Uri,
        Command::ScriptName,
        Command::PathInfo,
        Command::QueryString,
    ] {
        let packets = [packet(Command::Request, b""), packet(command, &long)];
        let refusal = Case::of(&packets).request.refusal().unwrap();
        assert_eq!(refusal.status(), 414);
    }
    let field = packet(Command::Header, &[b"n=", &long[..]].concat());
    let many = vec![packet(Command::Parameter, b"n=v"); 101];
    for fields in [vec![field; 14], many] {
        let packets = [
            vec![packet(Command::Request, b""), packet(Command::Uri, b"/")],
            fields,
        ];
        let refusal = Case::of(&packets.concat()).request.refusal().unwrap();
        assert_eq!(refusal.status(), 431);
    }
}

#[test]
fn a_request_that_names_nothing_is_400() {
    let packets = [packet(Command::Request, b""), packet(Command::NoData, b"")];
    let refusal = Case::of(&packets).request.refusal().unwrap();
    assert_eq!(refusal.status(), 400);
}

#[test]
fn nothing_of_a_request_is_left_in_the_next_one() {
    let mut case = Case::of(&[
        packet(Command::Request, b""),
        packet(Command::Uri, &[b'x'; 5000]),
        packet(Command::Header, b"a_b=c"),
        packet(Command::Tls, b""),
        packet(Command::NoData, b""),
    ]);
    assert!(case.request.has_underscores());
    case.respond(Some(0));
    assert!(case.session.rest());
    case.hear(&get().concat()).unwrap();
    let request = &case.request;
    assert_eq!((request.refusal(), request.is_tls()), (None, false));
    assert_eq!(
        (request.headers().len(), request.has_underscores()),
        (0, false)
    );
}
