//! What an idle worker does about its memory: it shares again what is as it was at the fork.

use std::io;

use crate::log;
use crate::sys::clock::Nanos;
use crate::sys::image::Image;

pub struct Rest {
    image: Option<Image>,
    /// How long it is to be idle first.
    after: Nanos,
    /// `Nanos::MAX`: it has rested since it was last busy, or never will.
    at: Nanos,
    threads_told: bool,
}

impl Rest {
    pub fn new(image: Option<Image>, after: Nanos) -> Self {
        Self {
            image,
            after,
            at: Nanos::MAX,
            threads_told: false,
        }
    }

    /// The worker has been busy until `now`.
    pub fn put_off(&mut self, now: Nanos) {
        if self.image.is_some() {
            self.at = now.saturating_add(self.after);
        }
    }

    /// The time of the next rest.
    pub fn at(&self) -> Nanos {
        self.at
    }

    pub fn is_due(&self, now: Nanos) -> bool {
        now >= self.at
    }

    /// Rests if it is time to.
    pub fn take(&mut self, now: Nanos) {
        if now < self.at {
            return;
        }
        self.at = Nanos::MAX;
        let Some(image) = &self.image else { return };
        match image.give_back() {
            Ok(_) => {}
            // Threads may end, so the next rest looks again.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                if !std::mem::replace(&mut self.threads_told, true) {
                    log::warning!("memory is not shared again: {error}");
                }
            }
            Err(error) => {
                log::warning!("memory is not shared again, now and later: {error}");
                self.image = None;
            }
        }
    }
}
