//! Status codes as WAS clients take them.

#![forbid(unsafe_code)]

/// The codes that the production client knows. For any other it ends the connection.
const KNOWN: &[(u16, u16)] = &[
    (200, 208),
    (226, 226),
    (300, 305),
    (307, 308),
    (400, 418),
    (421, 426),
    (428, 429),
    (431, 431),
    (451, 451),
    (500, 508),
    (510, 511),
];

/// The same status or, where the client would not take it, the general one of its class. Interim codes
/// do not come here; a class that does not exist is an error of the application.
pub fn client_status(status: u16) -> u16 {
    let is_known = |&(first, last): &(u16, u16)| (first..=last).contains(&status);
    match status {
        _ if KNOWN.iter().any(is_known) => status,
        200..=599 => status / 100 * 100,
        _ => 500,
    }
}

/// No body may follow.
pub fn is_empty(status: u16) -> bool {
    matches!(status, 100 | 204 | 205 | 304)
}
