//! Body framing, and the corpus of known request-smuggling variants.

use super::*;

#[test]
fn frames_the_body_by_length() {
    for (fields, framing) in [
        (&[][..], Framing::None),
        (&["Content-Length: 0"], Framing::Length(0)),
        (&["content-length: 5"], Framing::Length(5)),
        (&["Content-Length:5\t"], Framing::Length(5)),
        (
            &["Content-Length: 5", "Content-Length: 5"],
            Framing::Length(5),
        ),
        (
            &["Content-Length: 18446744073709551615"],
            Framing::Length(u64::MAX),
        ),
        (&["Content_Length: 5"], Framing::None),
        (&["Content-Lengt: 5"], Framing::None),
    ] {
        assert_eq!(facts(&get(fields)).0, framing, "{fields:?}");
    }
}

#[test]
fn refuses_bad_and_differing_content_lengths() {
    use Refusal::*;
    refuses_fields(&[
        (&["Content-Length: +5"], BadLength),
        (&["Content-Length: -5"], BadLength),
        (&["Content-Length: 5 6"], BadLength),
        (&["Content-Length: 5, 5"], BadLength),
        (&["Content-Length: 5,6"], BadLength),
        (&["Content-Length: 0x10"], BadLength),
        (&["Content-Length: 5.0"], BadLength),
        (&["Content-Length: 1e3"], BadLength),
        (&["Content-Length: \"5\""], BadLength),
        (&["Content-Length:"], BadLength),
        (&["Content-Length: 5", "Content-Length:"], BadLength),
        (&["Content-Length: 18446744073709551616"], BadLength),
        (
            &["Content-Length: 5", "Content-Length: 6"],
            DifferingLengths,
        ),
        (
            &["Content-Length: 6", "X: y", "CONTENT-LENGTH: 5"],
            DifferingLengths,
        ),
    ]);
}

#[test]
fn frames_the_body_by_exactly_one_chunked() {
    for field in [
        "Transfer-Encoding: chunked",
        "transfer-encoding:CHUNKED",
        "TRANSFER-ENCODING: \tChunked \t",
    ] {
        assert_eq!(facts(&get(&[field])).0, Framing::Chunked, "{field}");
    }
    assert_eq!(
        facts(&get(&["Transfer_Encoding: chunked"])).0,
        Framing::None
    );
}

#[test]
fn refuses_the_known_smuggling_variants() {
    use Refusal::*;
    refuses_fields(&[
        (
            &["Transfer-Encoding: chunked", "Content-Length: 5"],
            LengthAndCoding,
        ),
        (
            &["Content-Length: 5", "Transfer-Encoding: chunked"],
            LengthAndCoding,
        ),
        (
            &["Content-Length: 0", "transfer-encoding: chunked"],
            LengthAndCoding,
        ),
        (&["Transfer-Encoding: xchunked"], BadCoding),
        (&["Transfer-Encoding: chunkedx"], BadCoding),
        (&["Transfer-Encoding: chunke"], BadCoding),
        (&["Transfer-Encoding: x chunked"], BadCoding),
        (&["Transfer-Encoding: \"chunked\""], BadCoding),
        (&["Transfer-Encoding: 'chunked'"], BadCoding),
        (&["Transfer-Encoding: chunked, identity"], BadCoding),
        (&["Transfer-Encoding: identity, chunked"], BadCoding),
        (&["Transfer-Encoding: identity"], BadCoding),
        (&["Transfer-Encoding: gzip, chunked"], BadCoding),
        (&["Transfer-Encoding: gzip"], BadCoding),
        (&["Transfer-Encoding: chunked, chunked"], BadCoding),
        (&["Transfer-Encoding: chunked,"], BadCoding),
        (&["Transfer-Encoding: ,chunked"], BadCoding),
        (&["Transfer-Encoding: chunked;q=1"], BadCoding),
        (&["Transfer-Encoding: chunk\u{e9}d"], BadCoding),
        (&["Transfer-Encoding: \u{a0}chunked"], BadCoding),
        (&["Transfer-Encoding:"], BadCoding),
        (
            &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            BadCoding,
        ),
        (
            &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
            BadCoding,
        ),
        (
            &["Transfer-Encoding: chunked", "Transfer-encoding: x"],
            BadCoding,
        ),
        (
            &["Transfer-Encoding: identity", "Content-Length: 5"],
            BadCoding,
        ),
        (&["Transfer-Encoding : chunked"], SpaceBeforeColon),
        (&["Transfer-Encoding\t: chunked"], SpaceBeforeColon),
        (&[" Transfer-Encoding: chunked"], ObsFold),
        (&["X: y", "\tTransfer-Encoding: chunked"], ObsFold),
        (&["Transfer-Encoding:\r\n chunked"], ObsFold),
        (&["Transfer-Encoding: \x0bchunked"], BadFieldValue),
        (&["Transfer-Encoding: \x0cchunked"], BadFieldValue),
        (&["Transfer-Encoding: chunked\x00"], BadFieldValue),
        (&["Transfer-Encoding\x00: chunked"], BadFieldName),
        (&["Transfer-Encoding\x0b: chunked"], BadFieldName),
        (&["X: y\nTransfer-Encoding: chunked"], BareLf),
        (&["X: y\rTransfer-Encoding: chunked"], BareCr),
        (&["X: y\r\rTransfer-Encoding: chunked"], BareCr),
        (&["X\rTransfer-Encoding: chunked"], BareCr),
        (&["Content-Length: 0x10"], BadLength),
        (&["Content-Length: 5\x00"], BadFieldValue),
        (&["Content-Length: \x0b5"], BadFieldValue),
        (&["Content-Length : 5"], SpaceBeforeColon),
        (&["Content-Length: 5\r\n 6"], ObsFold),
        (&["Content-Length: \u{b2}"], BadLength),
    ]);
    for fields in [
        &["Transfer-Encoding: chunked"][..],
        &["Host: a", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked", "Connection: keep-alive"],
    ] {
        let bytes = head("POST / HTTP/1.0", fields);
        assert_eq!(refusal(&bytes), Some(CodingIn10), "{fields:?}");
    }
}
