use super::super::Xorshift;
use super::*;

type Outcome = Result<(usize, bool), Refusal>;

/// Feeds `input` in pieces of these lengths, the last one repeated.
fn decode(input: &[u8], limit: u64, pieces: &[usize]) -> (Vec<u8>, Outcome) {
    let mut decoder = Chunked::new(limit);
    let mut data = Vec::new();
    let mut at = 0;
    let mut lengths = pieces.iter();
    let mut length = pieces[0];
    loop {
        length = *lengths.next().unwrap_or(&length);
        let end = (at + length).min(input.len());
        match decoder.decode(&input[at..end], &mut |piece| data.extend_from_slice(piece)) {
            Err(refusal) => return (data, Err(refusal)),
            Ok(step) => {
                at += step.consumed;
                assert!(
                    step.done || at == end,
                    "stopped before the end of its input"
                );
                if step.done || at == input.len() {
                    return (data, Ok((at, step.done)));
                }
            }
        }
    }
}

fn whole(input: &[u8]) -> (Vec<u8>, Outcome) {
    decode(input, u64::MAX, &[input.len().max(1)])
}

#[test]
fn decodes_whole_bodies() {
    for (input, data) in [
        (&b"0\r\n\r\n"[..], &b""[..]),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (
            b"A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
            b"0123456789\r\n\r\n\r\n\r\n\r\n",
        ),
        (b"0000000000000001\r\na\r\n0\r\n\r\n", b"a"),
        (b"1;x\r\na\r\n0;y=z\r\n\r\n", b"a"),
        (b"1 ; x=\"a;\tb\"\r\na\r\n0\t;\r\n\r\n", b"a"),
        (
            b"1\r\na\r\n0\r\nX: y\r\nContent-Length:\r\nZ:\t\xe9\r\n\r\n",
            b"a",
        ),
    ] {
        assert_eq!(
            whole(input),
            (data.to_vec(), Ok((input.len(), true))),
            "{}",
            input.escape_ascii()
        );
    }
}

#[test]
fn leaves_a_pipelined_request_alone() {
    let body = b"1\r\na\r\n0\r\n\r\n";
    let input = [body.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(whole(&input), (b"a".to_vec(), Ok((body.len(), true))));
}

#[test]
fn consumes_nothing_once_done() {
    let mut decoder = Chunked::new(10);
    let done = |consumed| {
        Ok(Step {
            consumed,
            done: true,
        })
    };
    assert_eq!(decoder.decode(b"0\r\n\r\nGET", &mut |_| ()), done(5));
    assert_eq!(decoder.decode(b"GET", &mut |_| ()), done(0));
}

#[test]
fn waits_for_the_rest_of_a_body() {
    let input = b"2;x\r\nab\r\n0\r\nX: y\r\n\r\n";
    for end in 0..input.len() {
        assert_eq!(whole(&input[..end]).1, Ok((end, false)), "{end}");
    }
}

#[test]
fn refuses_bad_chunks() {
    use Refusal::*;
    for (input, refusal) in [
        (&b"\r\n"[..], BadChunk),
        (b"\n", BadChunk),
        (b";x\r\n", BadChunk),
        (b" 5\r\n", BadChunk),
        (b"-5\r\n", BadChunk),
        (b"+5\r\n", BadChunk),
        (b"0x5\r\n", BadChunk),
        (b"5g\r\n", BadChunk),
        (b"5 \r\n", BadChunk),
        (b"5 5\r\n", BadChunk),
        (b"5\0\r\n", BadChunk),
        (b"5\x0b\r\n", BadChunk),
        (b"00000000000000001\r\n", BadChunk),
        (b"10000000000000000\r\n", BadChunk),
        (b"5\n", BareLf),
        (b"5\rh", BareCr),
        (b"5\r\r\n", BareCr),
        (b"1\r\nab", BadChunk),
        (b"1\r\na\n", BadChunk),
        (b"1\r\na\rb", BadChunk),
        (b"1\r\na\r\n\r\n", BadChunk),
        (b"1;x\n", BareLf),
        (b"1;x\ry", BareCr),
        (b"1;\x00", BadChunk),
        (b"1;\x7f", BadChunk),
        (b"1;\"a\n\"", BareLf),
        (b"0\r\n\n", BareLf),
        (b"0\r\n\rX", BareCr),
        (b"0\r\nX: y\n", BareLf),
        (b"0\r\nX: y\rz", BareCr),
        (b"0\r\n X: y", ObsFold),
        (b"0\r\nX: y\r\n z", ObsFold),
        (b"0\r\nX : y", SpaceBeforeColon),
        (b"0\r\n: y", BadFieldName),
        (b"0\r\nX\r\n", BadFieldName),
        (b"0\r\nX\n", BareLf),
        (b"0\r\nX\xe9: y", BadFieldName),
        (b"0\r\nX: \x00", BadFieldValue),
        (b"0\r\nGET / HTTP/1.1\r\n", SpaceBeforeColon),
    ] {
        let shown = input.escape_ascii();
        assert_eq!(whole(input).1, Err(refusal), "{shown}");
        assert_eq!(decode(input, u64::MAX, &[1]).1, Err(refusal), "{shown}");
    }
}

#[test]
fn refuses_a_body_over_its_limit_when_a_size_announces_it() {
    let input = b"3\r\nabc\r\n3\r\n";
    assert_eq!(decode(input, 6, &[100]).1, Ok((input.len(), false)));
    assert_eq!(
        decode(input, 5, &[100]),
        (b"abc".to_vec(), Err(Refusal::BodyTooLarge))
    );
    let overflow = b"1\r\na\r\nffffffffffffffff\r\n";
    assert_eq!(whole(overflow).1, Err(Refusal::BodyTooLarge));
    assert!(whole(b"ffffffffffffffff\r\na").1.is_ok());
    assert!(decode(b"0\r\n\r\n", 0, &[9]).1.is_ok());
    assert_eq!(decode(b"1\r\n", 0, &[9]).1, Err(Refusal::BodyTooLarge));
}

#[test]
fn bounds_the_extensions_of_the_whole_body() {
    let body = |n: usize| {
        let extension = "x".repeat(n - 1);
        format!("1;{extension}\r\na\r\n0;{}\r\n\r\n", "x".repeat(95)).into_bytes()
    };
    assert!(whole(&body(4000)).1.is_ok_and(|(_, done)| done));
    let refused = Err(Refusal::ChunkExtensionTooLong);
    assert_eq!(whole(&body(4001)).1, refused);
    let spaces = [b"1".as_slice(), &[b' '; 4097]].concat();
    assert_eq!(whole(&spaces).1, refused);
    let many = b"1;\r\na\r\n".repeat(4097);
    assert_eq!(whole(&many).1, refused);
}

#[test]
fn bounds_the_trailers() {
    // Every byte of the section but the final LF counts.
    let body = |n: usize| {
        let value = "x".repeat(n - "X:\r\n\r".len());
        format!("0\r\nX:{value}\r\n\r\n").into_bytes()
    };
    assert!(whole(&body(8192)).1.is_ok_and(|(_, done)| done));
    assert_eq!(whole(&body(8193)).1, Err(Refusal::TrailersTooLarge));
    let many = [b"0\r\n".as_slice(), &b"X:\r\n".repeat(2049)].concat();
    assert_eq!(whole(&many).1, Err(Refusal::TrailersTooLarge));
}

#[test]
fn gives_one_verdict_on_mutated_bodies_however_they_arrive() {
    const SPICE: &[u8] = b"\r\n\r\n 0123aF;:\0\x7f\xff";
    let seeds: [&[u8]; 3] = [
        b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nGET",
        b"1\r\na\r\n0;x\r\nX: y\r\nY:z\r\n\r\n",
        b"000a\r\n0123456789\r\n1 ;\r\n-\r\n0\r\n\r\n",
    ];
    let mut rng = Xorshift(0x1234_5678_9abc_def1);
    let mut done = 0;
    for round in 0..5_000 {
        let mut input = seeds[round % seeds.len()].to_vec();
        for _ in 0..rng.below(3) {
            let at = rng.below(input.len());
            let spice = SPICE[rng.below(SPICE.len())];
            if rng.below(2) == 0 {
                input[at] = spice;
            } else {
                input.insert(at, spice);
            }
        }
        let expected = decode(&input, 20, &[1000]);
        done += usize::from(expected.1.is_ok_and(|(_, done)| done));
        let shown = input.escape_ascii();
        for split in 1..input.len() {
            assert_eq!(
                decode(&input, 20, &[split, 1000]),
                expected,
                "{split}: {shown}"
            );
        }
        let pieces: Vec<usize> = (0..10).map(|_| 1 + rng.below(6)).collect();
        assert_eq!(decode(&input, 20, &[1]), expected, "{shown}");
        assert_eq!(decode(&input, 20, &pieces), expected, "{pieces:?}: {shown}");
    }
    assert!((500..4_500).contains(&done), "{done}");
}
