//! WAS connections as the watcher sees them, who acts on them while the application runs: it answers the
//! client whose request runs, and passes others on that ask for something. Nothing here knows Python.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use pyo3::prelude::*;

use super::super::Worker;
use super::super::accept::Accepted;
use super::super::ferry::{Passage, counter, tell_trouble};
use super::super::floor::{Floor, Places};
use super::line::{Line, standing};
use super::{Connection, Phase};
use crate::log;
use crate::net::was::Connection as Descriptors;
use crate::relay::{Cause, FrontEnd, MOST_INPUT, Message, Put, Traits};
use crate::scoreboard::Counter;
use crate::sys::clock::Nanos;
use crate::sys::{forks, socket};
use crate::was::{Session, State};

/// Before the input in a message: bytes of the last response, and whether the client has been told.
const PREFIX: usize = 9;

/// One connection.
struct Ward {
    line: Arc<Line>,
    epoch: u32,
    origin: usize,
}

/// All of a worker, under the lock of the [`Floor`].
#[derive(Default)]
pub struct Wards {
    /// By place.
    all: Vec<Option<Ward>>,
    /// Whose request runs.
    running: Option<Arc<Line>>,
    /// Those that have left.
    gone: Vec<usize>,
}

impl Wards {
    pub fn len(&self) -> usize {
        self.all.iter().flatten().count()
    }

    fn put(&mut self, place: usize, ward: Ward) {
        if self.all.len() <= place {
            self.all.resize_with(place + 1, || None);
        }
        self.all[place] = Some(ward);
    }

    pub fn strike(&mut self, place: usize) {
        if let Some(ward) = self.all.get_mut(place) {
            *ward = None;
        }
    }

    /// The request of this connection runs from now on.
    pub fn begin(&mut self, line: Arc<Line>) {
        self.running = Some(line);
    }

    pub fn end(&mut self) {
        self.running = None;
    }

    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Where the client whose request runs may say something.
    pub fn running(&self) -> Option<RawFd> {
        let line = self.running.as_ref()?;
        let is_lost = line.hold().lost().is_some();
        (!is_lost).then(|| line.control().as_raw_fd())
    }

    /// Answers that client. False when it says nothing more.
    pub fn attend(&self) -> bool {
        self.running.as_ref().is_some_and(|line| {
            let mut hold = line.hold();
            hold.attend();
            hold.lost().is_none()
        })
    }

    /// Tells that client that it will not be answered. Whether nothing was said before.
    pub fn answer_late(&self, status: u16) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|line| line.hold().answer_late(status))
    }

    fn of_idle(&self, place: usize) -> Option<(&Ward, State, Vec<u8>)> {
        let ward = self.all.get(place)?.as_ref()?;
        let (state, input) = standing(&ward.line)?;
        (input.len() <= MOST_INPUT - PREFIX).then_some((ward, state, input))
    }

    /// Place, number and control channel of those on which nothing is half done.
    pub fn idle(&self) -> impl Iterator<Item = (usize, u32, RawFd)> {
        self.places().into_iter().filter_map(|place| {
            let (ward, ..) = self.of_idle(place)?;
            Some((place, ward.epoch, ward.line.control().as_raw_fd()))
        })
    }

    pub fn places(&self) -> Vec<usize> {
        let all = self.all.iter().enumerate();
        all.filter_map(|(place, ward)| ward.as_ref().map(|_| place))
            .collect()
    }

    /// Whether this one is still there, and its client has said something.
    pub fn asks(&self, place: usize, epoch: u32) -> bool {
        let ward = self.all.get(place).and_then(Option::as_ref);
        ward.is_some_and(|ward| ward.epoch == epoch && socket::has_bytes(ward.line.control()))
    }
}

impl Floor {
    /// Sends a WAS connection on, if nothing is half done on it.
    pub fn ferry_was(
        &self,
        places: &mut Places,
        place: usize,
        cause: Cause,
        now: Nanos,
    ) -> Passage {
        let (Some(ferry), Some((ward, state, input))) =
            (&self.ground.ferry, places.was.of_idle(place))
        else {
            return Passage::NotYet;
        };
        let mut prefix = [0; PREFIX];
        prefix[..8].copy_from_slice(&state.sent.to_le_bytes());
        prefix[8] = state.told.into();
        let message = Message {
            front_end: FrontEnd::Was,
            cause,
            traits: Traits::default().with(Traits::SHARED, forks::has_children()),
            listener: ferry.marks[ward.origin],
            peer: None,
            sent: now,
            deadline: Nanos::MAX,
            arrived: 0,
            received: 0,
            input: &[],
        };
        let line = Arc::clone(&ward.line);
        let descriptors = [line.control(), line.input(), line.output()];
        match ferry
            .relay
            .put_all(&message, [&prefix, &input], &descriptors)
        {
            Put::Sent => {}
            Put::Full => {
                self.ground.row.count(Counter::RelayFull, 1);
                return Passage::NoRoom;
            }
            Put::Failed(error) => {
                tell_trouble(places, &error, now);
                return Passage::NoRoom;
            }
        }
        for fd in descriptors {
            // Not all of them are watched.
            let _ = self.ground.epoll.delete(fd);
        }
        places.was.strike(place);
        places.was.gone.push(place);
        let open = places.connections.len() + places.was.len();
        self.ground.row.set_connections(open);
        self.ground.row.count(counter(cause), 1);
        Passage::Left
    }
}

impl Worker<'_> {
    /// From now on the watcher knows it.
    pub(super) fn enrol(&mut self, place: usize) {
        let Connection {
            line,
            epoch,
            origin,
            ..
        } = &self.was.open[place];
        let ward = Ward {
            line: Arc::clone(line),
            epoch: *epoch,
            origin: *origin,
        };
        self.connections.was().put(place, ward);
    }

    /// Lets go of those that have left: they are open elsewhere.
    pub(in crate::worker) fn forget_gone_was(&mut self) {
        let gone = std::mem::take(&mut self.connections.was().gone);
        if gone.is_empty() {
            return;
        }
        for place in gone {
            if self.was.open.contains(place) {
                drop(self.was.open.remove(place));
            }
        }
        self.listen_if_not_full();
    }

    /// Others take the connections on which nothing is half done.
    pub(in crate::worker) fn hand_over_was(&mut self) -> Passage {
        for place in self.connections.was().places() {
            let is_idle = matches!(self.was.open[place].phase, Phase::Head);
            if !is_idle {
                continue;
            }
            let passage = self.connections.ferry_was(place, Cause::Drain, self.now);
            if passage == Passage::NoRoom {
                return Passage::NoRoom;
            }
        }
        Passage::Left
    }

    /// Goes on with a connection that another worker has sent.
    pub(in crate::worker) fn go_on_with_was(
        &mut self,
        py: Python<'_>,
        origin: usize,
        [control, input, output]: [std::os::fd::OwnedFd; 3],
        freight: &[u8],
    ) -> Accepted {
        let Some((prefix, rest)) = freight.split_first_chunk::<PREFIX>() else {
            log::error!("closed a WAS connection that another worker has sent: it is malformed");
            return Accepted::Over;
        };
        let (sent, told) = prefix.split_at(8);
        let state = State {
            sent: u64::from_le_bytes(sent.try_into().unwrap_or_default()),
            told: told != [0],
        };
        let descriptors = Descriptors {
            control,
            input,
            output,
        };
        let line = match Line::new(descriptors) {
            Ok(line) => line,
            Err(error) => {
                log::error!("cannot use a WAS connection: {error}");
                return Accepted::Over;
            }
        };
        *line.hold().session_mut() = Session::resume(state, rest);
        self.admit_was(py, origin, line)
    }
}
