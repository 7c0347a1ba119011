//! Why a request was refused, with its status and its metric label.
//!
//! Every refusal answers with an error page and closes the connection: after bytes that could be
//! read in two ways, nothing that follows on the connection can be trusted.

#![forbid(unsafe_code)]

use std::fmt;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident $status:literal $name:literal)*) => {
        /// One reason per variant; the discriminant is the index in [`Refusal::ALL`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            pub const ALL: &[Refusal] = &[$(Refusal::$variant,)*];

            /// The status code of the answer.
            pub fn status(self) -> u16 {
                match self { $(Refusal::$variant => $status,)* }
            }

            /// The metric label.
            pub fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }
        }
    };
}

refusals! {
    MalformedRequestLine 400 "malformed_request_line"
    /// Not a token (RFC 9110 §9.1), or longer than any method there is.
    BadMethod 400 "bad_method"
    BadTarget 400 "bad_target"
    /// A well-formed version that is neither 1.0 nor 1.1.
    BadVersion 505 "bad_version"
    BareCr 400 "bare_cr"
    BareLf 400 "bare_lf"
    /// A line that starts with white space (RFC 9112 §5.2).
    ObsFold 400 "obs_fold"
    SpaceBeforeColon 400 "space_before_colon"
    BadFieldName 400 "bad_field_name"
    BadFieldValue 400 "bad_field_value"
    UnderscoreField 400 "underscore_field"
    MissingHost 400 "missing_host"
    RepeatedHost 400 "repeated_host"
    BadHost 400 "bad_host"
    LengthAndCoding 400 "length_and_coding"
    BadLength 400 "bad_length"
    DifferingLengths 400 "differing_lengths"
    /// Any transfer coding other than exactly one `chunked`.
    BadCoding 400 "bad_coding"
    CodingIn10 400 "coding_in_10"
    RequestLineTooLong 414 "request_line_too_long"
    HeadTooLarge 431 "head_too_large"
    TooManyFields 431 "too_many_fields"
    BadChunk 400 "bad_chunk"
    ChunkExtensionTooLong 400 "chunk_extension_too_long"
    TrailersTooLarge 431 "trailers_too_large"
    BodyTooLarge 413 "body_too_large"
    ExpectationFailed 417 "expectation_failed"
    /// No header of the PROXY protocol where there has to be one.
    BadProxyHeader 400 "bad_proxy_header"
    /// A trusted proxy has sent `Forwarded` or an `X-Forwarded-` field that cannot be read in one way.
    BadForwarded 400 "bad_forwarded"
    HeadTimeout 408 "head_timeout"
    BodyTimeout 408 "body_timeout"
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_discriminant() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(index, *refusal as usize);
        }
    }

    #[test]
    fn names_are_unique_snake_case_labels() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            let name = refusal.name();
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(Refusal::ALL[..index].iter().all(|r| r.name() != name));
        }
    }

    #[test]
    fn every_status_is_a_client_error_or_505() {
        for refusal in Refusal::ALL {
            let status = refusal.status();
            assert!((400..500).contains(&status) || status == 505, "{refusal:?}");
            assert_ne!(crate::http::response::reason(status), "Unknown");
        }
    }
}
