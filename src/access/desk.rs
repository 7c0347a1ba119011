//! What the supervisor and the processes of one generation tell each other about logs, in shared memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::log::Level;
use crate::sys::memory::Shared;

#[repr(C, align(64))]
struct Cells {
    /// The level of the error log; written by the supervisor alone.
    level: AtomicU32,
    /// The reader of the rings sleeps and is to be woken for the next record.
    asleep: AtomicU32,
    /// It has been woken because a ring fills up.
    urgent: AtomicU32,
}

crate::sys::memory::shareable!(Cells);

pub struct Desk(Shared<Cells>);

impl Desk {
    pub fn create() -> io::Result<Self> {
        Ok(Self(Shared::create(c"rswsgi desk", 1)?))
    }

    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Shared::map(fd)?))
    }

    fn cells(&self) -> &Cells {
        &self.0.as_slice()[0]
    }

    /// For the processes that read it.
    pub fn level(&self) -> &AtomicU32 {
        &self.cells().level
    }

    pub fn set_level(&self, level: Level) {
        self.cells().level.store(level as u32, Ordering::Relaxed);
    }

    /// The reader sleeps from now on. What was written before it said so it has to look for once more.
    pub fn sleep(&self) {
        self.cells().asleep.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The reader is awake, and looks.
    pub fn wake(&self) {
        self.cells().asleep.store(0, Ordering::Relaxed);
        self.cells().urgent.store(0, Ordering::SeqCst);
    }

    /// After a record was written: whether the reader has to be woken, by the caller and nobody else.
    pub(super) fn is_to_be_woken(&self, is_filling: bool) -> bool {
        fence(Ordering::SeqCst);
        let cells = self.cells();
        let once = |cell: &AtomicU32, idle: u32| {
            cell.load(Ordering::Relaxed) == idle && cell.swap(1 - idle, Ordering::SeqCst) == idle
        };
        once(&cells.asleep, 1) || (is_filling && once(&cells.urgent, 0))
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The writing end of the pipe that wakes the reader. That nobody holds it any more tells the reader that
/// nothing more will come.
pub struct Bell(OwnedFd);

impl Bell {
    /// With the reading end. Neither end waits.
    pub fn pair() -> io::Result<(OwnedFd, Bell)> {
        use nix::fcntl::OFlag;
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok((read, Bell(write)))
    }

    pub fn from_fd(fd: OwnedFd) -> Bell {
        Bell(fd)
    }

    pub fn ring(&self) {
        // A full pipe wakes, too.
        let _ = nix::unistd::write(&self.0, &[1]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
