//! The `Date` field, rendered once per second (RFC 9110 §5.6.7, IMF-fixdate).
//!
//! The event loop passes the time in; this module reads no clock.

#![forbid(unsafe_code)]

use std::io::Write;
use std::time::{Duration, SystemTime};

/// The last second that IMF-fixdate, with its four-digit year, can write.
const LAST_SECOND: u64 = 253_402_300_799;

pub struct DateCache {
    second: u64,
    text: [u8; 29],
}

impl DateCache {
    pub fn new() -> DateCache {
        DateCache {
            second: 0,
            text: *b"Thu, 01 Jan 1970 00:00:00 GMT",
        }
    }

    /// The date for `second`, in seconds since 1970 UTC.
    #[inline]
    pub fn render(&mut self, second: u64) -> &[u8; 29] {
        if second != self.second {
            self.refresh(second);
        }
        &self.text
    }

    #[cold]
    fn refresh(&mut self, second: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second.min(LAST_SECOND));
        write!(&mut self.text[..], "{}", httpdate::HttpDate::from(time))
            .expect("a date of a four-digit year has 29 bytes");
        self.second = second;
    }
}

impl Default for DateCache {
    fn default() -> DateCache {
        DateCache::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_any_second_as_imf_fixdate() {
        let mut cache = DateCache::new();
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(cache.render(second), text.as_bytes());
        }
    }
}
