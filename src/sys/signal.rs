//! Signals as data: a handler writes the number into a pipe that the event loop of the process
//! reads.
//!
//! The supervisor could leave this to `signal-hook` alone, and does ([`Inbox::hooked`]). Masters and
//! workers cannot: application code replaces dispositions at import and `signal-hook` installs a
//! handler only once per process, so they install theirs with `sigaction(2)`, again after import and
//! again after fork ([`Inbox::installed`]).

use std::io;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

/// The write end that the handler of this process uses; -1 for none.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Received signals, in the order of arrival. Readable (`AsFd`) when there are any.
#[derive(Debug)]
pub struct Inbox {
    pipe: UnixStream,
    write_end: Option<RawFd>,
}

extern "C" fn handler(signal: libc::c_int) {
    let byte = [signal as u8];
    let errno = nix::errno::Errno::last_raw();
    let fd = PIPE.load(Ordering::Relaxed);
    // SAFETY: write(2) is async-signal-safe and reads one byte of a live array. A full pipe drops
    // the signal: the ones before it have not been read yet either. The number in `PIPE` is open
    // for as long as it stands there (`Inbox::drop`).
    unsafe { libc::write(fd, byte.as_ptr().cast(), 1) };
    super::orphan::check();
    nix::errno::Errno::set_raw(errno);
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    Ok((read, write))
}

impl Inbox {
    /// For a process that runs no foreign code.
    pub fn hooked(signals: &[Signal]) -> io::Result<Self> {
        let (pipe, write) = pair()?;
        for &signal in signals {
            let write = write.try_clone()?;
            let byte = [signal as u8];
            let action = move || {
                let _ = (&write).write(&byte);
            };
            // SAFETY: the action makes one write(2), which is async-signal-safe.
            unsafe { signal_hook::low_level::register(signal as i32, action) }?;
        }
        Ok(Self {
            pipe,
            write_end: None,
        })
    }

    /// For a process that runs application code: the handlers are set whatever was there before.
    /// At most one such inbox exists per process; an earlier one is to be dropped first.
    pub fn installed(signals: &[Signal]) -> io::Result<Self> {
        let (pipe, write) = pair()?;
        let write_end = write.into_raw_fd();
        PIPE.store(write_end, Ordering::SeqCst);
        let inbox = Self {
            pipe,
            write_end: Some(write_end),
        };
        inbox.install(signals)?;
        Ok(inbox)
    }

    /// Sets the handlers again, after foreign code had a chance to replace them.
    pub fn install(&self, signals: &[Signal]) -> io::Result<()> {
        let action = SigAction::new(
            SigHandler::Handler(handler),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        for &signal in signals {
            // SAFETY: the handler is async-signal-safe (see there).
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(())
    }

    /// The next signal, if there is one.
    ///
    /// Real-time signals have no name; they wake the reader and are passed over.
    pub fn take(&self) -> Option<Signal> {
        let mut byte = [0];
        while let Ok(1) = (&self.pipe).read(&mut byte) {
            if let Ok(signal) = Signal::try_from(i32::from(byte[0])) {
                return Some(signal);
            }
        }
        None
    }

    /// Where others may write signal numbers, too: `signal.set_wakeup_fd` of Python.
    pub fn write_end(&self) -> Option<RawFd> {
        self.write_end
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(fd) = self.write_end {
            PIPE.store(-1, Ordering::SeqCst);
            let _ = nix::unistd::close(fd);
        }
    }
}

/// What [`mark_end`] has found, and where its mark goes.
static MARKED: AtomicUsize = AtomicUsize::new(0);
static MARK_TO: AtomicI32 = AtomicI32::new(-1);

extern "C" fn marked(signal: libc::c_int) {
    let errno = nix::errno::Errno::last_raw();
    let before = MARKED.load(Ordering::Relaxed);
    // SAFETY: `mark_end` has stored the address of a handler of this type before it installed this one.
    let before: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(before) };
    before(signal);
    // SAFETY: write(2) is async-signal-safe and reads one byte of a live array.
    unsafe { libc::write(MARK_TO.load(Ordering::Relaxed), [0u8].as_ptr().cast(), 1) };
    nix::errno::Errno::set_raw(errno);
}

/// Lets the handler of a signal be followed by a NUL byte on `fd`, which is to stay open for the life of
/// the process. For one signal per process.
///
/// # Errors
/// When the signal has no handler, or one of another kind.
pub fn mark_end(signal: libc::c_int, fd: RawFd) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: sigaction(2) without a new action only fills in the old one.
    let done = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    nix::errno::Errno::result(done)?;
    let is_plain = action.sa_flags & libc::SA_SIGINFO == 0;
    if !is_plain || [libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
        return Err(io::Error::other("the signal has no handler to be marked"));
    }
    MARK_TO.store(fd, Ordering::SeqCst);
    MARKED.store(action.sa_sigaction, Ordering::SeqCst);
    action.sa_sigaction = marked as *const () as libc::sighandler_t;
    // SAFETY: the new handler is as async-signal-safe as the one it calls, under the same flags.
    let done = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    nix::errno::Errno::result(done)?;
    Ok(())
}

/// In a forked child of the application: signals that are still ours get their default disposition
/// back, and nothing is written into the pipe of the parent any more.
pub(super) fn disown() {
    PIPE.store(-1, Ordering::SeqCst);
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if signal == Signal::SIGKILL || signal == Signal::SIGSTOP {
            continue;
        }
        // SAFETY: the default disposition runs no code of ours.
        let Ok(before) = (unsafe { sigaction(signal, &default) }) else {
            continue;
        };
        let is_ours = matches!(before.handler(), SigHandler::Handler(it) if it as usize == handler as *const () as usize);
        if !is_ours {
            // SAFETY: what was there before the line above was installed by whoever answers for it.
            let _ = unsafe { sigaction(signal, &before) };
        }
    }
}

/// Signals that a careless parent left blocked or ignored would never arrive.
pub fn start_clean() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code; nothing else has been installed yet.
    unsafe { sigaction(Signal::SIGCHLD, &default) }?;
    Ok(())
}

/// Holds signals back; those that arrive are delivered when it is dropped.
#[derive(Debug)]
pub struct Held {
    before: SigSet,
}

impl Held {
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Delivers what the program that this process executed before held back.
pub fn release(signals: &[Signal]) -> io::Result<()> {
    let set: SigSet = signals.iter().copied().collect();
    Ok(set.thread_unblock()?)
}

/// Sends a signal to this process once more: held back, it outlives an exec.
pub fn repeat(signal: Signal) -> io::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::getpid(), signal)?)
}

/// Default dispositions and an empty mask, for a child about to exec. Makes system calls only.
pub(super) fn reset_all() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: signal(2) with SIG_DFL runs no code; numbers that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn signals_are_read_in_order_and_held_ones_come_later() {
        // One test for both kinds: dispositions belong to the process, not to a test.
        let signals = [Signal::SIGUSR1, Signal::SIGWINCH];
        let inbox = Inbox::installed(&signals).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        raise(Signal::SIGWINCH).unwrap();
        assert_eq!(inbox.take(), Some(Signal::SIGUSR1));
        assert_eq!(inbox.take(), Some(Signal::SIGWINCH));
        assert_eq!(inbox.take(), None);
        let held = Held::new(&signals).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!(inbox.take(), None);
        drop(held);
        assert_eq!(inbox.take(), Some(Signal::SIGUSR1));
        std::mem::forget(Held::new(&signals).unwrap());
        raise(Signal::SIGWINCH).unwrap();
        assert_eq!(inbox.take(), None);
        release(&signals).unwrap();
        assert_eq!(inbox.take(), Some(Signal::SIGWINCH));

        let (read, write) = nix::unistd::pipe().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&write);
        assert!(mark_end(libc::SIGPROF, number).is_err());
        mark_end(Signal::SIGUSR1 as i32, number).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!(inbox.take(), Some(Signal::SIGUSR1));
        let mut mark = [7; 2];
        assert_eq!(nix::unistd::read(&read, &mut mark), Ok(1));
        assert_eq!(mark, [0, 7]);

        let hooked = Inbox::hooked(&[Signal::SIGURG]).unwrap();
        raise(Signal::SIGURG).unwrap();
        assert_eq!(hooked.take(), Some(Signal::SIGURG));
    }
}
