//! An orphaned worker leaves, even one whose application never returns.
//!
//! `PR_SET_PDEATHSIG` brings SIGTERM when the parent dies; the handler, which also runs while C code
//! holds the interpreter, then arms a kernel timer whose signal is SIGKILL (`timer_create(2)`).

use std::io;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

static PARENT: AtomicI32 = AtomicI32::new(0);
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());
static GRACE_MILLIS: AtomicI32 = AtomicI32::new(0);

/// From now on this process is killed `grace` after its parent has died. To be called after a fork:
/// timers are not inherited. An error if the parent is dead already.
pub fn follow(parent: Pid, grace: Duration) -> io::Result<()> {
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: all-zero bytes are a valid sigevent.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    // SAFETY: both pointers are valid for the call.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
    Errno::result(made)?;
    TIMER.store(timer, Ordering::SeqCst);
    let millis = i32::try_from(grace.as_millis()).unwrap_or(i32::MAX);
    GRACE_MILLIS.store(millis, Ordering::SeqCst);
    PARENT.store(parent.as_raw(), Ordering::SeqCst);
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
    match getppid() == parent {
        true => Ok(()),
        false => Err(io::Error::other("the parent is gone")),
    }
}

/// The promise is not that of a forked child: it has no timer, and its parent is another.
pub(super) fn forget() {
    PARENT.store(0, Ordering::SeqCst);
}

/// Arms the timer if the parent is gone. Async-signal-safe (`signal-safety(7)`: getppid,
/// timer_settime).
pub fn check() {
    let parent = PARENT.load(Ordering::Relaxed);
    if parent == 0 || getppid().as_raw() == parent {
        return;
    }
    let millis = GRACE_MILLIS.load(Ordering::Relaxed);
    let value = libc::timespec {
        tv_sec: libc::time_t::from(millis / 1000),
        tv_nsec: libc::c_long::from(millis % 1000) * 1_000_000,
    };
    let interval = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let when = libc::itimerspec {
        it_interval: interval,
        it_value: value,
    };
    let timer = TIMER.load(Ordering::Relaxed);
    // SAFETY: the timer was created by `follow` in this process (PARENT is set after TIMER), and
    // `when` is valid for the call.
    unsafe { libc::timer_settime(timer, 0, &when, std::ptr::null_mut()) };
}
