use super::*;
use crate::http::Xorshift;

fn complete(buf: &[u8]) -> Option<(usize, Source)> {
    match parse(buf) {
        Ok(Parsed::Complete(announced)) => Some((announced.len, announced.source)),
        _ => None,
    }
}

fn client(text: &str) -> Source {
    Source::Client(text.parse().unwrap())
}

/// A header of version 2.
fn block(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let mut bytes = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    bytes.extend([0; 16]);
    bytes.extend([0x12, 0x67, 0x01, 0xbb]);
    bytes
}

#[test]
fn lines_name_the_client() {
    for (line, source) in [
        (
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443",
            client("192.0.2.7:4711"),
        ),
        (
            "PROXY TCP6 2001:db8::7 ::1 4711 443",
            client("[2001:db8::7]:4711"),
        ),
        (
            "PROXY TCP6 2001:DB8:0:0:0:0:0:7 ::1 0 65535",
            client("[2001:db8::7]:0"),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 443",
            client("192.0.2.7:4711"),
        ),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
            client("255.255.255.255:65535"),
        ),
        ("PROXY UNKNOWN", Source::Unknown),
        ("PROXY UNKNOWN ", Source::Unknown),
        ("PROXY UNKNOWN whatever  1 2 3", Source::Unknown),
    ] {
        let bytes = format!("{line}\r\nGET / HTTP/1.1\r\n");
        let expected = Some((line.len() + 2, source));
        assert_eq!(complete(bytes.as_bytes()), expected, "{line}");
    }
}

#[test]
fn the_longest_line_is_taken_and_a_longer_one_is_not() {
    let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
    assert_eq!(longest.len(), MAX_LINE);
    assert_eq!(
        complete(longest.as_bytes()),
        Some((MAX_LINE, Source::Unknown))
    );
    let longer = longest.replace("\r\n", "x\r\n");
    assert_eq!(parse(longer.as_bytes()), Err(Malformed));
    assert_eq!(parse(&longer.as_bytes()[..MAX_LINE]), Err(Malformed));
    let endless = "PROXY UNKNOWN ".to_owned() + &"x".repeat(200);
    assert_eq!(
        parse(&endless.as_bytes()[..MAX_LINE - 1]),
        Ok(Parsed::Partial)
    );
    assert_eq!(parse(endless.as_bytes()), Err(Malformed));
}

#[test]
fn lines_that_are_nearly_right_are_refused() {
    for line in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY unknown\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 x 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 ::1::2 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 99999999999999999999\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rGET",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 \u{662}\r\n",
        "POST / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\n",
        "\u{16}\u{3}\u{1}",
        "\r\n\r\nGET / HTTP/1.1\r\n",
        " PROXY UNKNOWN\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Malformed), "{line:?}");
    }
}

#[test]
fn blocks_name_the_client() {
    let with_more = [&V4[..], b"\x04\x00\x03abc"].concat();
    let unix = [0; 216];
    for (bytes, source) in [
        (block(0x21, 0x11, 12, &V4), client("192.0.2.7:4711")),
        (block(0x21, 0x11, 18, &with_more), client("192.0.2.7:4711")),
        (block(0x21, 0x21, 36, &v6()), client("[2001:db8::7]:4711")),
        (block(0x21, 0x31, 216, &unix), Source::Unknown),
        (block(0x21, 0x32, 216, &unix), Source::Unknown),
        (block(0x21, 0x00, 0, b""), Source::Unknown),
        (block(0x21, 0x00, 3, b"abc"), Source::Unknown),
        (block(0x21, 0x12, 12, &V4), Source::Unknown),
        (block(0x21, 0x22, 36, &v6()), Source::Unknown),
        // LOCAL may say anything about addresses, and its length always counts.
        (block(0x20, 0x00, 0, b""), Source::Proxy),
        (block(0x20, 0x11, 12, &V4), Source::Proxy),
        (block(0x20, 0x11, 3, b"abc"), Source::Proxy),
        (block(0x20, 0xff, 0, b""), Source::Proxy),
    ] {
        let length = bytes.len();
        let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(complete(&followed), Some((length, source)), "{bytes:x?}");
    }
}

#[test]
fn an_ipv4_client_of_a_dual_stack_proxy_is_one_of_ipv4() {
    let mut bytes = v6();
    let mapped = Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
    bytes[..16].copy_from_slice(&mapped);
    assert_eq!(
        complete(&block(0x21, 0x21, 36, &bytes)),
        Some((52, client("192.0.2.7:4711")))
    );
}

#[test]
fn blocks_that_are_nearly_right_are_refused() {
    let mut other_signature = block(0x21, 0x11, 12, &V4);
    other_signature[11] = b'\r';
    for bytes in [
        other_signature,
        // Versions and commands that do not exist.
        block(0x11, 0x11, 12, &V4),
        block(0x31, 0x11, 12, &V4),
        block(0x22, 0x11, 12, &V4),
        block(0x2f, 0x11, 12, &V4),
        // Families and protocols that do not exist.
        block(0x21, 0x13, 12, &V4),
        block(0x21, 0x41, 12, &V4),
        block(0x21, 0xff, 12, &V4),
        // Too short for their addresses, whatever comes behind.
        block(0x21, 0x11, 11, &V4),
        block(0x21, 0x11, 0, &V4),
        block(0x21, 0x21, 35, &v6()),
        block(0x21, 0x31, 215, &[0; 216]),
        // Longer than anybody needs; told before the rest has come.
        block(0x21, 0x11, 4081, b""),
        block(0x20, 0x00, 0xffff, b""),
    ] {
        assert_eq!(parse(&bytes), Err(Malformed), "{bytes:x?}");
    }
    let longest = block(0x21, 0x00, 4080, &[0; 4080]);
    assert_eq!(complete(&longest), Some((MAX_BLOCK, Source::Unknown)));
    assert_eq!(parse(&block(0x21, 0, 0xffff, b"")[..15]), Err(Malformed));
}

#[test]
fn every_prefix_of_a_header_waits_for_the_rest() {
    let headers = [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        block(0x21, 0x11, 12, &V4),
        block(0x21, 0x11, 18, &[&V4[..], b"\x04\x00\x03abc"].concat()),
        block(0x21, 0x21, 36, &v6()),
        block(0x20, 0x00, 0, b""),
    ];
    for header in &headers {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(Parsed::Partial), "{header:x?}");
        }
        assert!(complete(header).is_some());
    }
}

/// Random bytes, and headers with random changes: no panic, a bounded wait, and a verdict that more
/// bytes do not change.
#[test]
fn whatever_comes_the_verdict_is_final() {
    let mut random = Xorshift(0x5eed);
    let seeds = [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(),
        b"PROXY UNKNOWN x\r\n".to_vec(),
        block(0x21, 0x11, 12, &V4),
        block(0x21, 0x21, 36, &v6()),
        block(0x20, 0x00, 2, b"ab"),
        Vec::new(),
    ];
    for _ in 0..20_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(4) {
            match (bytes.len(), random.below(3)) {
                (0, _) | (_, 0) => bytes.push(random.below(256) as u8),
                (length, 1) => bytes[random.below(length)] = random.below(256) as u8,
                (length, _) => drop(bytes.remove(random.below(length))),
            }
        }
        bytes.resize(bytes.len() + random.below(8), b'x');
        let mut verdict = Ok(Parsed::Partial);
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            if verdict != Ok(Parsed::Partial) {
                assert_eq!(now, verdict, "{bytes:x?}");
            }
            verdict = now;
        }
        bytes.resize(MAX_BLOCK, b'x');
        assert_ne!(parse(&bytes), Ok(Parsed::Partial), "{bytes:x?}");
    }
}
