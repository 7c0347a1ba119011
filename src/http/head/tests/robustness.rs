//! Mutated heads and noise: no panic, and one verdict however the bytes arrive.

use super::super::super::Xorshift;
use super::*;

/// What a worker does: waits for `is_complete`, then parses. `None` when it still waits.
fn arriving(
    buf: &[u8],
    limits: &Limits,
    ends: impl IntoIterator<Item = usize>,
) -> Option<Result<Option<String>, Refusal>> {
    let mut scanned_to = 0;
    for end in ends {
        if is_complete(&buf[..end], limits, &mut scanned_to) {
            let verdict = verdict(&buf[..end], limits);
            if verdict != Ok(None) {
                return Some(verdict);
            }
        }
    }
    None
}

/// Whole, every prefix, byte by byte and by `splits`: always one verdict.
fn agrees_however_it_is_cut(buf: &[u8], limits: &Limits, rng: &mut Xorshift) {
    let whole = verdict(buf, limits);
    let shown = buf.escape_ascii();
    for end in 0..buf.len() {
        let part = verdict(&buf[..end], limits);
        assert!(
            part == Ok(None) || part == whole,
            "{part:?} at {end} of {shown}: {whole:?}"
        );
    }
    let bytewise = arriving(buf, limits, 1..=buf.len());
    let mut at = 0;
    let random = std::iter::from_fn(|| {
        let more = buf.len() - at;
        at += 1 + rng.below(more.max(1));
        (more > 0).then_some(at)
    });
    for arrived in [bytewise, arriving(buf, limits, random)] {
        match arrived {
            Some(verdict) => assert_eq!(verdict, whole, "{shown}"),
            // A fault in a line may wait for the end of the head, a head for its end.
            None => assert!(
                whole.as_ref().is_ok_and(Option::is_none) || !ends_head(buf),
                "{shown}"
            ),
        }
    }
}

fn ends_head(buf: &[u8]) -> bool {
    let blank = buf.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    let start = blank.count();
    buf[start..].windows(4).any(|w| w == b"\r\n\r\n")
}

const SEEDS: [&[u8]; 7] = [
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
    b"\r\n\r\nGET /a?b HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET",
    b"POST http://[::1]:80/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: a\r\nX_Y: 1\r\nX:\r\n\r\n",
    b"PUT /%41?x=%42 HTTP/1.1\r\nHost: a.b\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n0123456789",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\nConnection: a, close\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
];

fn mutate(bytes: &mut Vec<u8>, rng: &mut Xorshift) {
    const SPICE: &[u8] = b"\r\n\r\n\r\n :\t\0\x0b\x7f\x80\xff_#,;*/.?0159aAhH%[]@";
    for _ in 0..rng.below(4) {
        let at = rng.below(bytes.len());
        let spice = SPICE[rng.below(SPICE.len())];
        match rng.below(5) {
            0 => bytes[at] = spice,
            1 => bytes.insert(at, spice),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => {
                let end = at + rng.below(bytes.len() - at);
                let copy = bytes[at..end].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes[at] = u8::try_from(rng.below(256)).unwrap(),
        }
    }
}

#[test]
fn gives_one_verdict_on_mutated_heads_however_they_arrive() {
    let mut rng = Xorshift(0x9e37_79b9_7f4a_7c15);
    let tight = Limits {
        request_line: 24,
        head: 70,
        fields: 2,
        underscores: Underscores::Refuse,
    };
    let mut complete = 0;
    for round in 0..5_000 {
        let mut bytes = SEEDS[round % SEEDS.len()].to_vec();
        mutate(&mut bytes, &mut rng);
        agrees_however_it_is_cut(&bytes, &Limits::default(), &mut rng);
        agrees_however_it_is_cut(&bytes, &tight, &mut rng);
        complete += usize::from(matches!(verdict(&bytes, &Limits::default()), Ok(Some(_))));
    }
    assert!((500..4_500).contains(&complete), "{complete}");
}

#[test]
fn never_panics_on_noise() {
    let mut rng = Xorshift(7);
    for _ in 0..5_000 {
        let length = rng.below(64);
        let bytes: Vec<u8> = (0..length)
            .map(|_| u8::try_from(rng.below(256)).unwrap())
            .collect();
        agrees_however_it_is_cut(&bytes, &Limits::default(), &mut rng);
    }
}
