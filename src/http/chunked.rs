//! Decoder of chunked bodies (RFC 9112 §7.1), one byte position per state.
//!
//! It takes the input as it arrives, hands out the data in place, and stops right behind the final
//! CRLF, so a pipelined request stays in the buffer. Extensions and trailers are checked, bounded
//! and discarded: no WSGI application can see them.

#![forbid(unsafe_code)]

use super::grammar::{is_text_byte, is_token_byte};
use super::refusal::Refusal;
use super::target::hex;

/// Bytes of extensions in one body, as in hyper: they are pure overhead, so a body that consists
/// of them is an attack.
const EXTENSIONS: u32 = 4096;
/// Bytes of the trailer section.
const TRAILERS: u32 = 8192;
/// Digits of one size, leading zeros included.
const SIZE_DIGITS: u8 = 16;

/// What one call did with its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Less than the input only when `done`.
    pub consumed: usize,
    pub done: bool,
}

#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Of the current chunk, first as announced, then as still to come.
    size: u64,
    /// What the body may still grow by.
    allowance: u64,
    extensions: u32,
    trailers: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// After this many digits of the size.
    Size(u8),
    /// White space that only an extension may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunked {
    /// For a body of at most `body_limit` bytes of data; a chunk that would pass it is refused
    /// when its size is announced.
    pub fn new(body_limit: u64) -> Chunked {
        Chunked {
            state: State::Size(0),
            size: 0,
            allowance: body_limit,
            extensions: 0,
            trailers: 0,
        }
    }

    /// Decodes as much as there is and passes the data, in pieces, to `sink`.
    pub fn decode(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<Step, Refusal> {
        let mut at = 0;
        while self.state != State::Done {
            let Some(&byte) = input.get(at) else {
                break;
            };
            if self.state == State::Data {
                let rest = &input[at..];
                let take = usize::try_from(self.size).map_or(rest.len(), |n| n.min(rest.len()));
                sink(&rest[..take]);
                at += take;
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(byte)?;
                at += 1;
            }
        }
        Ok(Step {
            consumed: at,
            done: self.state == State::Done,
        })
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match self.state {
            State::Size(digits) => self.size(digits, byte),
            State::SizeSpace => {
                self.count_extension()?;
                match byte {
                    b' ' | b'\t' => Ok(State::SizeSpace),
                    b';' => Ok(State::Extension),
                    _ => Err(Refusal::BadChunk),
                }
            }
            State::Extension => match byte {
                b'\r' => Ok(State::SizeLf),
                b'\n' => Err(Refusal::BareLf),
                byte if !is_text_byte(byte) => Err(Refusal::BadChunk),
                _ => self.count_extension().map(|()| State::Extension),
            },
            State::SizeLf if byte != b'\n' => Err(Refusal::BareCr),
            State::SizeLf if self.size == 0 => Ok(State::Trailer),
            State::SizeLf => self.announce(),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size(0)),
            State::Data | State::DataCr | State::DataLf | State::Done => Err(Refusal::BadChunk),
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::EndLf => Err(Refusal::BareCr),
            State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer(byte)
            }
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, Refusal> {
        match byte {
            b'\n' if digits > 0 => Err(Refusal::BareLf),
            b'\r' if digits > 0 => Ok(State::SizeLf),
            b';' if digits > 0 => self.count_extension().map(|()| State::Extension),
            // RFC 9112 §7.1.1: "bad" white space before the semicolon must be parsed.
            b' ' | b'\t' if digits > 0 => self.count_extension().map(|()| State::SizeSpace),
            _ => {
                let digit = hex(byte).filter(|_| digits < SIZE_DIGITS);
                let digit = digit.ok_or(Refusal::BadChunk)?;
                // Sixteen digits fill 64 bits exactly, so nothing is shifted out.
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size(digits + 1))
            }
        }
    }

    fn announce(&mut self) -> Result<State, Refusal> {
        let left = self.allowance.checked_sub(self.size);
        self.allowance = left.ok_or(Refusal::BodyTooLarge)?;
        Ok(State::Data)
    }

    fn count_extension(&mut self) -> Result<(), Refusal> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS {
            return Err(Refusal::ChunkExtensionTooLong);
        }
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailers += 1;
        if self.trailers > TRAILERS {
            return Err(Refusal::TrailersTooLarge);
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::EndLf),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            (State::TrailerLf, _) => Err(Refusal::BareCr),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (_, b'\n') => Err(Refusal::BareLf),
            (State::TrailerValue, byte) if is_text_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerValue, _) => Err(Refusal::BadFieldValue),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::Trailer, b' ' | b'\t') => Err(Refusal::ObsFold),
            (State::TrailerName, b' ' | b'\t') => Err(Refusal::SpaceBeforeColon),
            (_, byte) if is_token_byte(byte) => Ok(State::TrailerName),
            _ => Err(Refusal::BadFieldName),
        }
    }
}

#[cfg(test)]
mod tests;
