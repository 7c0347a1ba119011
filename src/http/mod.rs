//! HTTP/1.1 without I/O: request heads, chunked bodies, response heads.
//!
//! Bytes in, facts out: nothing here reads a socket or a clock, and nothing here knows Python. What
//! one proxy reads in one way and another in a different way is refused, never repaired: behind a
//! proxy every repair is a request-smuggling hole (RFC 9112 §11.2).

#![forbid(unsafe_code)]

pub mod chunked;
pub mod date;
pub mod forwarded;
mod grammar;
pub mod head;
pub mod page;
pub mod proxy;
pub mod refusal;
pub mod response;
mod syntax;
pub mod target;

pub use chunked::{Chunked, Step};
pub use date::DateCache;
pub use head::{Framing, Head, Limits, MAX_FIELDS, Parsed, Scratch, Underscores, scratch};
pub use page::Pages;
pub use refusal::Refusal;
pub use target::{Form, Target};

/// The protocol versions served; any other is refused with 505.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Http10,
    Http11,
}

impl Version {
    /// As in the request line and in `SERVER_PROTOCOL`.
    pub fn name(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

/// xorshift64*: enough randomness for mutation tests, the same on every run.
#[cfg(test)]
pub(crate) struct Xorshift(pub u64);

#[cfg(test)]
impl Xorshift {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).unwrap() % bound
    }
}
