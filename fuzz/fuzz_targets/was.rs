//! WAS packets from whoever: `cargo +nightly fuzz run was`.
//!
//! The protocol is taken as source, so that nothing else is built and nothing of Python is linked. What
//! has to hold stands in the driver, which the tests of the crate use, too.

#![no_main]

#[allow(dead_code, unused_imports, reason = "the server uses more of it")]
#[path = "../../src/was/mod.rs"]
mod was;

#[path = "../../src/was/tests/drive.rs"]
mod drive;

use was::*;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    drive::converse(script);
    drive::split(script);
});
