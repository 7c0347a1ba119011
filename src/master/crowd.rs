//! Whether connections wait that no worker is free to take.
//!
//! The kernel tells: an exclusive waiter of a listener (`EPOLLEXCLUSIVE`, epoll_ctl(2)) is woken only
//! if none before it was asleep and could take the event. The master stands behind all its workers,
//! so it wakes exactly when a connection arrives and every worker is busy; as long as one is free it
//! sleeps through any load.

use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;

use super::workers::Doors;
use crate::schedule::{Demand, Look, Step, WINDOW};
use crate::scoreboard::Row;
use crate::sys::clock::Nanos;
use crate::sys::process;

pub struct Crowd {
    epoll: Epoll,
    demand: Demand,
    next_look: Option<Nanos>,
}

/// Between looks while the CPUs are the limit.
const PATIENT: Nanos = 5 * WINDOW;

impl Crowd {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            demand: Demand::new(process::cpus()),
            next_look: None,
        })
    }

    /// Goes to the end of the queues of waiters again, behind a worker that has just come.
    pub fn stand_behind(&mut self, doors: Doors<'_>) -> nix::Result<()> {
        let listeners = doors.listeners.iter().map(AsFd::as_fd);
        let relay = doors.relay.map(AsFd::as_fd);
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE | EpollFlags::EPOLLET;
        for (index, door) in [doors.nudge.as_fd()]
            .into_iter()
            .chain(relay)
            .chain(listeners)
            .enumerate()
        {
            let _ = self.epoll.delete(door);
            self.epoll.add(door, EpollEvent::new(flags, index as u64))?;
        }
        Ok(())
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        self.next_look
    }

    /// Whether a call of the kernel is to be heard at once. Until the next look it is not: under load
    /// it calls for one connection in two.
    pub fn listens(&self) -> bool {
        self.next_look.is_none()
    }

    /// Nothing can be done about it.
    pub fn disperse(&mut self) {
        self.called();
        self.demand.forget();
        self.next_look = None;
    }

    /// Whether the kernel has woken us since the last call.
    fn called(&self) -> bool {
        let mut events = [EpollEvent::empty(); 8];
        let found = self.epoll.wait(&mut events, EpollTimeout::ZERO);
        found.is_ok_and(|count| count > 0)
    }

    /// Whether another worker is needed. `serving`: the workers that could be free.
    pub fn wants_another(
        &mut self,
        serving: &[(Pid, &Row)],
        starting: bool,
        doors: Doors<'_>,
        now: Nanos,
    ) -> bool {
        let called = self.called();
        let due = self.next_look.is_some_and(|at| at <= now);
        if !called && !due {
            return false;
        }
        let busy = |(_, row): &(Pid, &Row)| row.request_since().is_some();
        let waiting = somebody_waits(doors);
        let step = self.demand.look(Look {
            now,
            runnable: serving
                .iter()
                .filter(|(pid, _)| process::is_runnable(*pid))
                .count(),
            waiting,
            all_busy: serving.iter().all(busy),
            starting,
        });
        self.next_look = match step {
            Step::Observe | Step::Grow => Some(now + WINDOW),
            Step::Stay if self.demand.is_observed() => Some(now + PATIENT),
            // Who is free will take it; then another may wait behind it, of which the kernel, which
            // tells of changes, has told us already.
            Step::Stay if waiting || called => Some(now + WINDOW),
            Step::Stay => None,
        };
        step == Step::Grow
    }
}

impl AsFd for Crowd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

fn somebody_waits(doors: Doors<'_>) -> bool {
    let listeners = doors.listeners.iter().map(AsFd::as_fd);
    let mut fds: Vec<PollFd<'_>> = listeners
        .chain(doors.relay.map(AsFd::as_fd))
        .map(|door| PollFd::new(door, PollFlags::POLLIN))
        .collect();
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
