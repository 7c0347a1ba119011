//! The service manager: what systemd is told (sd_notify(3)), and when.
//!
//! Nothing here decides about apps: it is given how they are and says it. Without `$NOTIFY_SOCKET` it
//! says nothing and is never due.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::AsFd;

use crate::log;
use crate::net::{KEPT, Listener, Origin};
use crate::sys::clock::{Nanos, SECOND};
use crate::sys::notify::Notifier;

/// Between lines that tell how much there is to do.
const STATUS_EVERY: Nanos = 10 * SECOND;
/// What a start or stop may take beyond its own time limit.
const MARGIN: Nanos = 5 * SECOND;

pub struct Service {
    notifier: Option<Notifier>,
    /// Between signs of life: half of what the manager waits (sd_watchdog_enabled(3)).
    watchdog: Option<Nanos>,
    sign_due: Nanos,
    status_due: Nanos,
    /// So many descriptors the manager keeps (`$FDSTORE`).
    keeps: u64,
    told: String,
}

/// Where the service is, and how long it may take to get further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase<'a> {
    Starting { within: Nanos },
    Reloading { within: Nanos, status: &'a str },
    Stopping { within: Nanos },
}

impl Service {
    pub fn new(env: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let notifier = env("NOTIFY_SOCKET")
            .filter(|name| !name.is_empty())
            .and_then(|name| match Notifier::new(&name) {
                Ok(notifier) => Some(notifier),
                Err(error) => {
                    log::warning!("cannot use NOTIFY_SOCKET={}: {error}", name.display());
                    None
                }
            });
        Self {
            watchdog: watchdog(&env, pid).filter(|_| notifier.is_some()),
            keeps: match notifier {
                Some(_) => keeps(&env),
                None => 0,
            },
            notifier,
            sign_due: 0,
            status_due: 0,
            told: String::new(),
        }
    }

    fn send(&self, state: &str) {
        self.tell(|notifier| notifier.send(state));
    }

    fn tell(&self, send: impl FnOnce(&Notifier) -> std::io::Result<()>) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = send(notifier)
        {
            log::warning!("cannot notify the service manager: {error}");
        }
    }

    /// The manager's own time limits are not to cut short what has one of ours.
    pub fn enter(&self, phase: Phase<'_>, now: Nanos) {
        let within = match phase {
            Phase::Starting { within } => within,
            Phase::Reloading { within, status } => {
                // The time tells this one from another that was asked for later.
                let micros = now / 1000;
                self.send(&format!(
                    "RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS={status}"
                ));
                within
            }
            Phase::Stopping { within } => {
                self.send("STOPPING=1");
                within
            }
        };
        let micros = within.saturating_add(MARGIN) / 1000;
        self.send(&format!("EXTEND_TIMEOUT_USEC={micros}"));
    }

    /// `status`: one line. With [`Ready::Yes`] the start or reload under way is over.
    pub fn status(&mut self, ready: Ready, status: &str, now: Nanos) {
        // One line (sd_notify(3)), and not a page.
        let shown: String = status
            .chars()
            .filter(|c| !c.is_control())
            .take(400)
            .collect();
        let ready = match ready {
            Ready::Yes => "READY=1\n",
            Ready::No => "",
        };
        self.send(&format!("{ready}STATUS={shown}"));
        self.told = shown;
        self.status_due = now + STATUS_EVERY;
    }

    /// When [`Service::due`] is to be called again.
    pub fn wake_at(&self) -> Option<Nanos> {
        self.notifier.as_ref()?;
        let sign = self.watchdog.map(|_| self.sign_due);
        [sign, Some(self.status_due)].into_iter().flatten().min()
    }

    /// What is due now; it is not due again before its time.
    pub fn due(&mut self, now: Nanos) -> Due {
        if self.notifier.is_none() {
            return Due::default();
        }
        let sign = match self.watchdog {
            Some(every) if now >= self.sign_due => {
                self.sign_due = now + every;
                true
            }
            _ => false,
        };
        let status = now >= self.status_due;
        if status {
            self.status_due = now + STATUS_EVERY;
        }
        Due { sign, status }
    }

    /// Something serves or is on its way to. Without this the manager is left to wonder, and in the end
    /// restarts the service.
    pub fn sign(&self) {
        self.send("WATCHDOG=1");
    }

    /// The status, if it is another one than before.
    pub fn refresh(&mut self, status: &str, now: Nanos) {
        if status != self.told {
            self.status(Ready::No, status, now);
        }
    }

    /// Gives the manager what we have bound, to be passed to the service when it is started again: no
    /// connection is refused meanwhile. The socket files stay, too.
    pub fn keep<'a>(&self, listeners: impl IntoIterator<Item = &'a mut Listener>) {
        if self.keeps == 0 {
            return;
        }
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={KEPT}"));
        let ours = |listener: &&mut Listener| listener.origin() == Origin::Bound;
        let mut count = 0;
        for listener in listeners.into_iter().filter(ours) {
            count += 1;
            // What it has no room for it would close.
            if count <= self.keeps {
                let state = format!("FDSTORE=1\nFDNAME={KEPT}\nFDPOLL=0");
                self.tell(|notifier| notifier.send_with(&state, listener.as_fd()));
                listener.keep_file();
            }
        }
        if count > self.keeps {
            let (most, more) = (self.keeps, count - self.keeps);
            log::warning!(
                "the service manager keeps {most} listeners over a restart (FileDescriptorStoreMax=); {more} more refuse \
                 connections meanwhile"
            );
        }
    }
}

/// What there is to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    pub sign: bool,
    pub status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Yes,
    No,
}

fn number(text: Option<OsString>) -> Option<u64> {
    text?.to_str()?.parse().ok()
}

/// `$WATCHDOG_USEC`, unless it is meant for another process.
fn watchdog(env: impl Fn(&str) -> Option<OsString>, pid: u32) -> Option<Nanos> {
    let meant = env("WATCHDOG_PID").is_none_or(|text| number(Some(text)) == Some(pid.into()));
    let micros = number(env("WATCHDOG_USEC")).filter(|micros| meant && *micros > 0)?;
    Some(micros.saturating_mul(1000) / 2)
}

/// systemd sets `$FDSTORE` from version 254 on; for older ones a unit sets it itself.
fn keeps(env: impl Fn(&str) -> Option<OsString>) -> u64 {
    number(env("FDSTORE")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + use<> {
        let variables: Vec<(String, OsString)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        move |name| {
            let found = variables.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        }
    }

    #[test]
    fn signs_of_life_are_due_twice_in_the_time_that_the_manager_waits() {
        assert_eq!(watchdog(of(&[]), 7), None);
        assert_eq!(
            watchdog(of(&[("WATCHDOG_USEC", "2000000")]), 7),
            Some(SECOND)
        );
        let meant = |pid| of(&[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", pid)]);
        assert_eq!(watchdog(meant("7"), 7), Some(SECOND));
        assert_eq!(watchdog(meant("8"), 7), None);
        assert_eq!(watchdog(meant("x"), 7), None);
        for wrong in ["0", "", "-1", "many"] {
            assert_eq!(watchdog(of(&[("WATCHDOG_USEC", wrong)]), 7), None);
        }
    }

    #[test]
    fn without_a_manager_nothing_is_ever_due() {
        let mut service = Service::new(of(&[("WATCHDOG_USEC", "2000000"), ("FDSTORE", "3")]), 7);
        assert_eq!(service.wake_at(), None);
        assert_eq!(service.keeps, 0);
        assert_eq!(service.due(SECOND), Due::default());
    }
}
