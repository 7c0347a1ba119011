//! The character classes of RFC 9110 §5 and RFC 3986, as tables and small predicates.

#![forbid(unsafe_code)]

const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
// RFC 3986 reg-name without `%` and `,`: no host in use needs them, and a comma is what two
// `Host` fields become when an intermediary joins them (RFC 9110 §5.3).
const REG_NAME: [bool; 256] = table(b"-._~!$&'()*+;=");

/// Letters, digits and `extra`.
const fn table(extra: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < extra.len() {
        table[extra[index] as usize] = true;
        index += 1;
    }
    table
}

#[inline]
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

#[inline]
pub(super) fn is_reg_name_byte(byte: u8) -> bool {
    REG_NAME[usize::from(byte)]
}

/// Visible, space, HTAB or obs-text: what a field value and a reason phrase may hold.
#[inline]
pub(super) fn is_text_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// Neither control bytes, space, `#` nor bytes over 0x7F (RFC 3986 §2; a fragment is never sent,
/// RFC 9110 §7.1). Other bytes outside the grammar, such as `|` and `"`, are sent by browsers.
#[inline]
pub(super) fn is_target_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#'
}

/// `1*DIGIT` within `u64`: no sign, no white space, no list (RFC 9110 §8.6).
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

pub(super) fn trim_ows(bytes: &[u8]) -> &[u8] {
    let ows = |b: &u8| *b == b' ' || *b == b'\t';
    let start = bytes.iter().take_while(|b| ows(b)).count();
    let bytes = &bytes[start..];
    let end = bytes.iter().rev().take_while(|b| ows(b)).count();
    &bytes[..bytes.len() - end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_decimals_strictly() {
        for (text, value) in [
            ("0", Some(0)),
            ("5", Some(5)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("", None),
            ("+5", None),
            ("-5", None),
            ("5 6", None),
            ("5,5", None),
            ("0x10", None),
            ("5\0", None),
            ("/", None),
            (":", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn trims_optional_white_space_only() {
        assert_eq!(trim_ows(b" \ta b\t "), b"a b");
        assert_eq!(trim_ows(b" \t"), b"");
        assert_eq!(trim_ows(b"\x0ba"), b"\x0ba");
    }
}
