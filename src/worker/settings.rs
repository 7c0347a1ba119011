//! What the settings come to for a worker.

use std::io;
use std::path::PathBuf;

use super::body;
use crate::config::{ForwardedField, Settings, UnderscoreFields};
use crate::http;
use crate::http::forwarded::{Believed, Field};

pub(super) fn temp_dir(settings: &Settings) -> PathBuf {
    let given = settings.limits.temp_dir.clone();
    given.unwrap_or_else(std::env::temp_dir)
}

/// Whether request bodies can be kept in files.
///
/// # Errors
/// The directory, and why not.
pub fn try_to_store(settings: &Settings) -> Result<(), (PathBuf, io::Error)> {
    let directory = temp_dir(settings);
    let tried = body::unlinked(&directory);
    tried.map(drop).map_err(|error| (directory, error))
}

/// Requests a worker serves: the jitter keeps siblings from being replaced together.
pub(super) fn lifetime(settings: &Settings) -> Option<u64> {
    let recycling = &settings.recycling;
    let jitter = match recycling.max_requests_jitter {
        0 => 0,
        // Knuth's multiplicative hash: consecutive process numbers come out far apart.
        most => u64::from(std::process::id()).wrapping_mul(2_654_435_761) % (most + 1),
    };
    recycling.max_requests.map(|n| n.saturating_add(jitter))
}

/// What trusted proxies are known to set.
pub fn believed(settings: &Settings) -> Believed {
    let fields = settings.proxies.fields.iter();
    fields.fold(Believed::default(), |believed, field| {
        believed.with(match field {
            ForwardedField::Forwarded => Field::Forwarded,
            ForwardedField::XForwardedFor => Field::For,
            ForwardedField::XForwardedProto => Field::Proto,
            ForwardedField::XForwardedHost => Field::Host,
            ForwardedField::XForwardedPort => Field::Port,
        })
    })
}

pub fn underscores(settings: &Settings) -> http::Underscores {
    match settings.underscore_fields {
        UnderscoreFields::Drop => http::Underscores::Drop,
        UnderscoreFields::Refuse => http::Underscores::Refuse,
        UnderscoreFields::Keep => http::Underscores::Keep,
    }
}
