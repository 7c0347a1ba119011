//! The grammar of `Forwarded` (RFC 7239 §4): elements between commas, pairs between semicolons.

#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::http::grammar::{is_text_byte, is_token, is_token_byte, trim_ows};

/// What one proxy has added; `by` and whatever else there may be is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element<'b> {
    pub client: Option<Cow<'b, [u8]>>,
    pub scheme: Option<Cow<'b, [u8]>>,
    pub host: Option<Cow<'b, [u8]>>,
}

/// Adds the elements of one field; `None` when it breaks the grammar. Empty elements and empty pairs
/// are none (RFC 9110 §5.6.1).
pub fn read<'b>(value: &'b [u8], elements: &mut Vec<Element<'b>>) -> Option<()> {
    let mut rest = value;
    loop {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut element = Element::default();
        let end = loop {
            rest = trim_ows(rest);
            if !matches!(rest.first(), None | Some(b',' | b';')) {
                let (name, value, after) = pair(rest)?;
                // Each name once (§4).
                if names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                    return None;
                }
                names.push(name);
                element.set(name, value);
                rest = trim_ows(after);
            }
            match rest.split_first() {
                Some((b';', after)) => rest = after,
                Some((b',', after)) => break Some(after),
                Some(_) => return None,
                None => break None,
            }
        };
        if !names.is_empty() {
            elements.push(element);
        }
        match end {
            Some(after) => rest = after,
            None => return Some(()),
        }
    }
}

impl<'b> Element<'b> {
    fn set(&mut self, name: &[u8], value: Cow<'b, [u8]>) {
        let place = match () {
            () if name.eq_ignore_ascii_case(b"for") => &mut self.client,
            () if name.eq_ignore_ascii_case(b"proto") => &mut self.scheme,
            () if name.eq_ignore_ascii_case(b"host") => &mut self.host,
            () => return,
        };
        *place = Some(value);
    }
}

type Pair<'b> = (&'b [u8], Cow<'b, [u8]>, &'b [u8]);

/// `token "=" (token | quoted-string)`, and what follows.
fn pair(text: &[u8]) -> Option<Pair<'_>> {
    let equals = memchr::memchr(b'=', text)?;
    let (name, rest) = (&text[..equals], &text[equals + 1..]);
    if !is_token(name) {
        return None;
    }
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let (value, rest) = unquote(quoted)?;
        return Some((name, value, rest));
    }
    // Addresses with a port belong in quotes, which many leave out.
    let is_bare = |byte: &u8| is_token_byte(*byte) || b":[]".contains(byte);
    let length = rest.iter().take_while(|byte| is_bare(byte)).count();
    let (value, rest) = rest.split_at(length);
    (length > 0).then_some((name, value.into(), rest))
}

/// The value of a quoted string (RFC 9110 §5.6.4) and what follows its end.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut value = Cow::Borrowed(&text[..0]);
    let mut at = 0;
    loop {
        let byte = *text.get(at)?;
        let (plain, used) = match byte {
            b'"' => return Some((value, &text[at + 1..])),
            b'\\' => (*text.get(at + 1)?, 2),
            other => (other, 1),
        };
        if !is_text_byte(plain) {
            return None;
        }
        match &mut value {
            Cow::Borrowed(start) if used == 1 => *start = &text[..at + 1],
            other => other.to_mut().push(plain),
        }
        at += used;
    }
}
