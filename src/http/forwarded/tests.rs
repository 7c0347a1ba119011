use super::*;
use crate::http::Xorshift;

type Fields<'f, 'a> = &'f [(&'a str, &'a str)];

/// Proxies live in 10.0.0.0/8 and at ::1.
fn trusts(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST,
    }
}

fn headers<'a>(fields: Fields<'_, 'a>) -> Vec<httparse::Header<'a>> {
    let header = |(name, value): &(&'a str, &'a str)| httparse::Header {
        name,
        value: value.as_bytes(),
    };
    fields.iter().map(header).collect()
}

fn x_forwarded() -> Believed {
    let fields = [Field::For, Field::Proto, Field::Host, Field::Port];
    fields.into_iter().fold(Believed::default(), Believed::with)
}

fn read<'a>(fields: Fields<'_, 'a>, believed: Believed) -> Result<Forwarded<'a>, Refusal> {
    Forwarded::read(&headers(fields), believed, trusts)
}

fn x<'a>(fields: Fields<'_, 'a>) -> Forwarded<'a> {
    read(fields, x_forwarded()).unwrap()
}

fn at(text: &str) -> Client {
    let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    Client::At(ip.unwrap_or_else(|_| text.parse().unwrap()))
}

#[test]
fn addresses_are_walked_from_the_right_to_the_first_stranger() {
    for (value, client) in [
        ("192.0.2.7", at("192.0.2.7")),
        ("6.6.6.6, 192.0.2.7", at("192.0.2.7")),
        ("6.6.6.6, 192.0.2.7, 10.0.0.1", at("192.0.2.7")),
        ("6.6.6.6,192.0.2.7,10.0.0.1,10.0.0.2", at("192.0.2.7")),
        ("192.0.2.7, ::1", at("192.0.2.7")),
        // Everybody is trusted: the one farthest away has asked.
        ("10.0.0.9, 10.0.0.1", at("10.0.0.9")),
        // What a client writes is not looked at.
        ("10.0.0.1, <script>, 192.0.2.7, 10.0.0.1", at("192.0.2.7")),
        ("unknown, 192.0.2.7", at("192.0.2.7")),
        // Ports, brackets, white space, empty elements.
        ("192.0.2.7:4711", at("192.0.2.7:4711")),
        ("2001:db8::7", at("2001:db8::7")),
        ("[2001:db8::7]", at("2001:db8::7")),
        ("[2001:db8::7]:4711, 10.0.0.1:5", at("[2001:db8::7]:4711")),
        (" 192.0.2.7 \t, ,10.0.0.1,", at("192.0.2.7")),
        // IPv4 in the clothes of IPv6 is IPv4, trusted or not.
        ("::ffff:192.0.2.7, ::ffff:10.0.0.1", at("192.0.2.7")),
        // Nobody.
        ("", Client::Sender),
        (" , ", Client::Sender),
        // Somebody, but who?
        ("unknown", Client::Unknown),
        ("_hidden, 10.0.0.1", Client::Unknown),
        ("192.0.2.7, localhost, 10.0.0.1", Client::Unknown),
        ("192.0.2.07", Client::Unknown),
        ("0300.0.2.7", Client::Unknown),
        ("3232235777", Client::Unknown),
        ("192.0.2.7:", Client::Unknown),
        ("192.0.2.7:99999", Client::Unknown),
        ("[192.0.2.7]", Client::Unknown),
        ("[2001:db8::7", Client::Unknown),
        ("[2001:db8::7]4711", Client::Unknown),
        ("fe80::1%eth0", Client::Unknown),
        ("10.0.0.1 192.0.2.7", Client::Unknown),
        ("\u{1}", Client::Unknown),
    ] {
        assert_eq!(x(&[("X-Forwarded-For", value)]).client, client, "{value:?}");
    }
}

#[test]
fn repeated_fields_are_one_list() {
    let fields = [
        ("X-Forwarded-For", "6.6.6.6, 7.7.7.7"),
        ("Accept", "*/*"),
        ("x-forwarded-for", "192.0.2.7"),
        ("X-FORWARDED-FOR", "10.0.0.1"),
    ];
    assert_eq!(x(&fields).client, at("192.0.2.7"));
}

#[test]
fn of_scheme_host_and_port_the_last_value_counts() {
    let proto = |value| x(&[("X-Forwarded-Proto", value)]).scheme;
    assert_eq!(proto("https"), Some(Scheme::Https));
    assert_eq!(proto("HTTPS "), Some(Scheme::Https));
    assert_eq!(proto("http"), Some(Scheme::Http));
    assert_eq!(proto("wss"), Some(Scheme::Https));
    assert_eq!(proto("https, http"), Some(Scheme::Http));
    assert_eq!(proto("junk, https"), Some(Scheme::Https));
    assert_eq!(proto(""), None);
    let repeated = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Port", "8443"),
    ];
    let forwarded = x(&repeated);
    assert_eq!(forwarded.scheme, Some(Scheme::Http));
    assert_eq!(forwarded.host.as_deref(), Some(&b"shop.example"[..]));
    assert_eq!(forwarded.port, Some(8443));
}

#[test]
fn what_cannot_be_read_in_one_way_is_refused() {
    for field in [
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Proto", "https http"),
        ("X-Forwarded-Proto", "http, on"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Host", "a/b"),
        ("X-Forwarded-Host", "user@host"),
        ("X-Forwarded-Host", "host:port"),
        ("X-Forwarded-Host", "[::1"),
        ("X-Forwarded-Host", ":80"),
        ("X-Forwarded-Port", "0"),
        ("X-Forwarded-Port", "65536"),
        ("X-Forwarded-Port", "+80"),
        ("X-Forwarded-Port", "80 80"),
    ] {
        let refused = read(&[field], x_forwarded());
        assert_eq!(refused, Err(Refusal::BadForwarded), "{field:?}");
    }
}

#[test]
fn only_fields_that_are_believed_are_read() {
    let all = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "in valid"),
        ("X-Forwarded-Port", "no port"),
        ("Forwarded", "not; valid=\""),
    ];
    let usual = Believed::default().with(Field::For).with(Field::Proto);
    let expected = Forwarded {
        client: at("192.0.2.7"),
        scheme: Some(Scheme::Https),
        ..Forwarded::default()
    };
    assert_eq!(read(&all, usual), Ok(expected));
    assert_eq!(read(&all, Believed::default()), Ok(Forwarded::default()));
    let proto = Believed::default().with(Field::Proto);
    assert_eq!(read(&all, proto).unwrap().client, Client::Sender);
}

#[test]
fn the_host_is_put_together_as_the_client_has_named_it() {
    for (host, port, scheme, of_proxy, expected) in [
        (None, None, "http", "app:8000", "app:8000"),
        (
            Some("shop.example"),
            None,
            "http",
            "app:8000",
            "shop.example",
        ),
        (
            Some("shop.example:81"),
            None,
            "http",
            "app",
            "shop.example:81",
        ),
        (None, Some("443"), "https", "app:8000", "app"),
        (None, Some("443"), "http", "app:8000", "app:443"),
        (None, Some("80"), "http", "app:8000", "app"),
        (
            Some("shop.example:1"),
            Some("8443"),
            "https",
            "app",
            "shop.example:8443",
        ),
        (Some("[::1]:1"), Some("8443"), "https", "app", "[::1]:8443"),
        (None, Some("8443"), "https", "", ""),
    ] {
        let mut fields = vec![("X-Forwarded-Proto", scheme)];
        fields.extend(host.map(|host| ("X-Forwarded-Host", host)));
        fields.extend(port.map(|port| ("X-Forwarded-Port", port)));
        let forwarded = x(&fields);
        let found = forwarded.host(Some(of_proxy.as_bytes())).unwrap();
        assert_eq!(std::str::from_utf8(&found), Ok(expected));
    }
    assert_eq!(x(&[]).host(None), None);
}

fn standard(value: &str) -> Result<Forwarded<'_>, Refusal> {
    read(
        &[("Forwarded", value)],
        Believed::default().with(Field::Forwarded),
    )
}

#[test]
fn forwarded_is_walked_alike_and_its_element_tells_the_rest() {
    let host = |host: &'static str| Some(Cow::Borrowed(host.as_bytes()));
    for (value, client, scheme, name) in [
        ("for=192.0.2.7", at("192.0.2.7"), None, None),
        (
            "for=192.0.2.7;proto=https;host=shop.example",
            at("192.0.2.7"),
            Some(Scheme::Https),
            host("shop.example"),
        ),
        (
            "For=\"192.0.2.7:4711\" ; PROTO=HTTPS; by=10.0.0.1;ext=\"a,b;c\"",
            at("192.0.2.7:4711"),
            Some(Scheme::Https),
            None,
        ),
        (
            "for=\"[2001:db8::7]:4711\";host=\"shop.example:8443\"",
            at("[2001:db8::7]:4711"),
            None,
            host("shop.example:8443"),
        ),
        // Quotes that many leave out.
        (
            "for=[2001:db8::7]:4711",
            at("[2001:db8::7]:4711"),
            None,
            None,
        ),
        ("for=192.0.2.7:_x", at("192.0.2.7"), None, None),
        // What the client has written does not count, that of the nearest proxy does not either.
        (
            "for=6.6.6.6;proto=http;host=evil, for=192.0.2.7;proto=https, for=10.0.0.1;proto=http;host=in",
            at("192.0.2.7"),
            Some(Scheme::Https),
            None,
        ),
        ("for=10.0.0.9, for=10.0.0.1", at("10.0.0.9"), None, None),
        (
            "for=unknown;proto=https",
            Client::Unknown,
            Some(Scheme::Https),
            None,
        ),
        ("for=_SEVKISEK", Client::Unknown, None, None),
        ("for=\"\"", Client::Unknown, None, None),
        ("for=nobody", Client::Unknown, None, None),
        ("proto=https", Client::Unknown, Some(Scheme::Https), None),
        (
            "for=6.6.6.6, proto=https",
            Client::Unknown,
            Some(Scheme::Https),
            None,
        ),
        ("", Client::Sender, None, None),
        (", ;; ,", Client::Sender, None, None),
        ("for=\"192\\.0.2.7\"", at("192.0.2.7"), None, None),
    ] {
        let expected = Forwarded {
            client,
            scheme,
            host: name,
            port: None,
        };
        assert_eq!(standard(value), Ok(expected), "{value}");
    }
}

#[test]
fn forwarded_that_breaks_its_grammar_is_refused() {
    for value in [
        "for",
        "for=",
        "=x",
        "for =x",
        "for= x",
        "for=\"192.0.2.7",
        "for=\"192.0.2.7\\",
        "for=\"a\"b",
        "for=192.0.2.7 proto=https",
        "for=192.0.2.7;for=192.0.2.7",
        "for=192.0.2.7;For=192.0.2.7",
        "for=a{b",
        "for=<script>",
        "for=192.0.2.7;proto=ftp",
        "for=192.0.2.7;host=\"a b\"",
        "for=192.0.2.7;host=\"\"",
        // An open quote of the client meets what its proxy adds.
        "for=\", for=192.0.2.7",
        "for=\", for=\"[2001:db8::7]:4711\"",
        "for=\"\\, for=\"[2001:db8::7]\"",
        "x=\", for=\"_hidden\";proto=https",
    ] {
        assert_eq!(standard(value), Err(Refusal::BadForwarded), "{value}");
    }
}

#[test]
fn the_application_sees_only_what_somebody_vouches_for() {
    let proxy = Sender::Proxy(Forwarded::default());
    let usual = Believed::default().with(Field::For).with(Field::Proto);
    let forwarded = Believed::default().with(Field::Forwarded);
    for (name, stranger, by_usual, by_forwarded) in [
        ("Host", true, true, true),
        ("X-Request-ID", true, true, true),
        ("X-Forwarded", true, true, true),
        ("Forwarded-For", true, true, true),
        ("X-Forwarded-For", false, true, false),
        ("x-forwarded-PROTO", false, true, false),
        ("X-Forwarded-Host", false, false, false),
        ("X-Forwarded-Port", false, false, false),
        ("Forwarded", false, false, true),
        ("X-Forwarded-Prefix", false, true, true),
        ("X-Real-IP", false, true, true),
        ("X_Forwarded_For", false, false, false),
        ("X-Forwarded_Proto", false, false, false),
        ("X_Real_IP", false, false, false),
    ] {
        let name = name.as_bytes();
        assert!(is_shown(name, &Sender::Unjudged, usual));
        assert_eq!(is_shown(name, &Sender::Stranger, usual), stranger);
        assert_eq!(is_shown(name, &proxy, usual), by_usual);
        assert_eq!(is_shown(name, &proxy, forwarded), by_forwarded);
    }
}

/// Whatever a client sends ahead of what trusted proxies add, in the same field or in fields before it:
/// the client is the one that they saw.
#[test]
fn nothing_a_client_sends_moves_it() {
    let mut random = Xorshift(0x5eed);
    let pieces = [
        "192.0.2.66",
        "10.0.0.1",
        ",",
        " ",
        ";",
        "=",
        "\"",
        "\\",
        "for",
        "for=",
        "proto=https",
        "unknown",
        "_x",
        "[::1]",
        ":80",
        "\t",
        "host=evil",
        "\u{e9}",
        "1.2.3",
        "x",
    ];
    let chains = [vec!["192.0.2.7"], vec!["192.0.2.7", "10.0.0.1", "10.0.0.2"]];
    let mut refused = 0;
    for _ in 0..20_000 {
        let count = random.below(8);
        let junk: String = (0..count)
            .map(|_| pieces[random.below(pieces.len())])
            .collect();
        let chain = &chains[random.below(2)];
        let hops = chain.join(", ");
        let list = match (junk.is_empty(), random.below(2)) {
            (false, 0) => vec![("X-Forwarded-For", format!("{junk}, {hops}"))],
            _ => vec![("X-Forwarded-For", junk.clone()), ("X-Forwarded-For", hops)],
        };
        let fields: Vec<_> = list.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(x(&fields).client, at("192.0.2.7"), "{fields:?}");

        let quoted = |hop: &&str| format!("for=\"{hop}:4711\";proto=http");
        let bare = |hop: &&str| format!("for={hop};proto=http");
        let hops: Vec<_> = match random.below(2) {
            0 => chain.iter().map(quoted).collect(),
            _ => chain.iter().map(bare).collect(),
        };
        let value = match junk.is_empty() {
            true => hops.join(", "),
            false => format!("{junk}, {}", hops.join(", ")),
        };
        match standard(&value) {
            Ok(forwarded) => {
                let Client::At(address) = forwarded.client else {
                    panic!("{value}: {forwarded:?}");
                };
                assert_eq!(address.ip().to_string(), "192.0.2.7", "{value}");
                assert_eq!(forwarded.scheme, Some(Scheme::Http), "{value}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!((1000..19_000).contains(&refused), "both happen: {refused}");
}
