//! What a client has sent so far, and the next request in it.

use super::page::{self, Page};
use super::{Kind, MAX_REQUEST, Refused};

/// The bytes of one client that have not been used yet; never more than [`MAX_REQUEST`] and what
/// one read adds to them.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// Up to here the request does not end.
    scanned: usize,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// One line, to be read by [`super::Request::read`].
    Line(Vec<u8>),
    /// One HTTP request; the connection is closed after the answer.
    Page(Page),
    /// The connection is closed after the answer, a JSON line.
    Wrong(Refused),
}

impl Input {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing of a request is there.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next request, if it is complete.
    pub fn take(&mut self) -> Option<Asked> {
        self.skip_blanks();
        match self.bytes.first()? {
            b'A'..=b'Z' => self.next_page(),
            b'{' => self.next_line(),
            _ => {
                let text = "a request begins with '{', or is an HTTP request";
                Some(Asked::Wrong(Refused::new(Kind::Malformed, text)))
            }
        }
    }

    /// Empty lines and white space before a request are nothing.
    fn skip_blanks(&mut self) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let start = self.bytes.iter().position(|byte| !blank(byte));
        match start {
            Some(0) => {}
            start => {
                self.bytes.drain(..start.unwrap_or(self.bytes.len()));
                self.scanned = 0;
            }
        }
    }

    fn next_line(&mut self) -> Option<Asked> {
        let end = memchr::memchr(b'\n', &self.bytes[self.scanned..]);
        match end.map(|end| self.scanned + end) {
            Some(end) if end < MAX_REQUEST => {
                let rest = self.bytes.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.truncate(end);
                self.scanned = 0;
                Some(Asked::Line(line))
            }
            None if self.bytes.len() < MAX_REQUEST => {
                self.scanned = self.bytes.len();
                None
            }
            _ => Some(too_long()),
        }
    }

    fn next_page(&mut self) -> Option<Asked> {
        match page::read(&self.bytes, &mut self.scanned) {
            Some(page) => Some(Asked::Page(page)),
            None if self.bytes.len() < MAX_REQUEST => None,
            None => Some(too_long()),
        }
    }
}

fn too_long() -> Asked {
    let text = format!("a request has at most {MAX_REQUEST} bytes");
    Asked::Wrong(Refused::new(Kind::TooLong, text))
}

#[cfg(test)]
mod tests {
    use super::super::{Request, Wanted};
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        let mut input = Input::default();
        input.push(bytes);
        input
    }

    fn kind(asked: Option<Asked>) -> Option<Kind> {
        match asked {
            Some(Asked::Wrong(refused)) => Some(refused.kind),
            _ => None,
        }
    }

    #[test]
    fn lines_come_one_by_one_however_they_arrive() {
        let bytes = b"\r\n {\"a\":1}\r\n{}\n\n{\"half";
        for size in 1..bytes.len() {
            let mut input = Input::default();
            let mut lines = Vec::new();
            for piece in bytes.chunks(size) {
                input.push(piece);
                while let Some(asked) = input.take() {
                    match asked {
                        Asked::Line(line) => lines.push(line),
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(lines, [b"{\"a\":1}\r".to_vec(), b"{}".to_vec()]);
            assert!(!input.is_empty());
        }
    }

    #[test]
    fn a_line_may_have_64_kib_and_no_more() {
        let line = |length: usize| [b"{", vec![b' '; length - 1].as_slice()].concat();
        let mut longest = input(&line(MAX_REQUEST - 1));
        assert_eq!(longest.take(), None);
        longest.push(b"\n");
        assert!(matches!(longest.take(), Some(Asked::Line(_))));
        assert_eq!(kind(input(&line(MAX_REQUEST)).take()), Some(Kind::TooLong));
        let long = [line(MAX_REQUEST).as_slice(), b"\n"].concat();
        assert_eq!(kind(input(&long).take()), Some(Kind::TooLong));
        let head = [b"GET /", vec![b'x'; MAX_REQUEST].as_slice()].concat();
        assert!(input(&head).take().is_some());
    }

    #[test]
    fn what_is_neither_language_is_refused_at_its_first_byte() {
        for strange in [b"\0".as_slice(), b"\x16\x03\x01", b"get /", b"[", b"\xff"] {
            assert_eq!(kind(input(strange).take()), Some(Kind::Malformed));
        }
        assert_eq!(input(b" \r\n").take(), None);
    }

    #[test]
    fn an_http_request_is_recognised() {
        let mut input = input(b"GET /health HTTP/1.1\r\nHost: x\r\n");
        assert_eq!(input.take(), None);
        input.push(b"\r\n");
        let Some(Asked::Page(page)) = input.take() else {
            panic!("no page");
        };
        assert_eq!(page.wanted, Ok(Wanted::Health));
    }

    /// Whatever comes, in whatever pieces: requests and refusals, no panic, bounded memory.
    #[test]
    fn random_and_truncated_input_only_ever_gives_an_error() {
        let seeds = [
            b"{\"v\":1,\"do\":\"stats\"}\n".as_slice(),
            b"{\"v\":1,\"do\":\"scale\",\"by\":1}\n{\"v\":1,\"do\":\"ping\"}\n",
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text\r\n\r\n",
            b"HEAD /health HTTP/1.0\r\n\r\n",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % limit
        };
        for round in 0..20_000 {
            let mut bytes = seeds[random(seeds.len())].to_vec();
            for _ in 0..random(6) {
                let at = random(bytes.len().max(1)).min(bytes.len());
                match random(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, random(256) as u8),
                    2 if at < bytes.len() => bytes[at] = random(256) as u8,
                    _ => bytes.extend_from_slice(&seeds[random(seeds.len())][..4]),
                }
            }
            let mut input = Input::default();
            let size = 1 + random(64);
            'client: for piece in bytes.chunks(size) {
                input.push(piece);
                let mut turns = 0;
                while let Some(asked) = input.take() {
                    turns += 1;
                    assert!(turns <= bytes.len(), "round {round} does not end");
                    match asked {
                        Asked::Line(line) => drop(Request::read(&line)),
                        Asked::Page(_) | Asked::Wrong(_) => break 'client,
                    }
                }
            }
        }
    }
}
