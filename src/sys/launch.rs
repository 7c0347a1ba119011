//! Starts a program without waiting until it is executed. Where file, directory or interpreter belong to
//! somebody else, entering or executing them may take as long as their owner likes: by a lease (fcntl(2),
//! F_SETLEASE), by a file system of the owner's. It is the child that waits then.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::isolation::Isolation;
use super::privileges::Privileges;
use super::process::{Child, Stage, exit_now, preparation, start};

/// What has become of it.
pub struct Launch {
    told: OwnedFd,
}

impl Launch {
    /// What could not be done and why, once the child has ended.
    pub fn refused(&self) -> Option<(Stage, io::Error)> {
        let mut told = [0; 5];
        let Ok(5) = nix::unistd::read(&self.told, &mut told) else {
            return None;
        };
        let [stage, number @ ..] = told;
        let stage = match stage {
            stage if stage == Stage::Entering as u8 => Stage::Entering,
            stage if stage == Stage::Executing as u8 => Stage::Executing,
            _ => Stage::Preparing,
        };
        let error = io::Error::from_raw_os_error(i32::from_le_bytes(number));
        Some((stage, error))
    }
}

/// Exit status of a child that could not execute.
const NOT_EXECUTED: i32 = 126;

/// As [`super::process::spawn_isolated`], except that the program may be executed later, or not at all: then
/// the child ends. Orphans among its descendants become its children. Nothing is inherited but `pass` and the standard streams.
///
/// # Errors
/// Those of fork(2) and of preparing it.
pub fn launch(
    mut command: Command,
    pass: &[BorrowedFd<'_>],
    privileges: Privileges,
    directory: Option<&Path>,
    isolation: Isolation,
) -> io::Result<(Child, Launch)> {
    let (told, tell) = std::io::pipe()?;
    let (told, tell) = (OwnedFd::from(told), OwnedFd::from(tell));
    fcntl(&told, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let image = Image::of(&command)?;
    let mut kept: Vec<RawFd> = pass.iter().map(|fd| fd.as_raw_fd()).collect();
    kept.extend(isolation.descriptors());
    kept.push(tell.as_raw_fd());
    kept.sort_unstable();
    let mut prepare = preparation(pass, privileges, directory, isolation)?;
    let become_it = move || {
        // The library that has forked waits for the end of a pipe; this is it.
        close_others(&kept);
        // Of what it leaves behind: told apart from what others do.
        let _ = super::family::adopt_orphans();
        let (stage, errno) = match prepare() {
            Ok(()) => (Stage::Executing, image.execute()),
            Err((stage, error)) => (stage, error.raw_os_error().unwrap_or(libc::EINVAL)),
        };
        let mut told = [stage as u8; 5];
        told[1..].copy_from_slice(&errno.to_le_bytes());
        let _ = nix::unistd::write(&tell, &told);
        exit_now(NOT_EXECUTED)
    };
    // SAFETY: between fork and exec `become_it` makes system calls only; it neither allocates nor takes a
    // lock, and it never returns.
    unsafe { command.pre_exec(become_it) };
    Ok((start(command)?, Launch { told }))
}

/// Closes every descriptor after the standard streams that is not one of these, which are in order.
fn close_others(kept: &[RawFd]) {
    let mut from: libc::c_uint = 3;
    for fd in kept
        .iter()
        .filter_map(|fd| libc::c_uint::try_from(*fd).ok())
    {
        if fd > from {
            close_range(from, fd - 1);
        }
        from = from.max(fd + 1);
    }
    close_range(from, libc::c_uint::MAX);
}

/// Where the kernel has no close_range(2) nothing is closed, and the parent waits after all.
fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: close_range(2) takes integers. What is closed belongs to the child, which uses nothing but what
    // is kept until it executes or ends.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
}

/// What is to be executed, ready for execve(2).
struct Image {
    program: CString,
    /// Pointers into the texts, each list with a null at its end.
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    _texts: Vec<CString>,
}

// SAFETY: the pointers lead to texts that the value itself owns and never changes.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    fn of(command: &Command) -> io::Result<Image> {
        let program = CString::new(command.get_program().as_bytes())?;
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => environment.insert(name.to_owned(), value.to_owned()),
                None => environment.remove(name),
            };
        }
        let mut texts = Vec::new();
        let mut pointers = |text: Vec<u8>| -> io::Result<*const libc::c_char> {
            let text = CString::new(text)?;
            let pointer = text.as_ptr();
            texts.push(text);
            Ok(pointer)
        };
        let null = std::ptr::null;
        let own = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let arguments = own.map(|argument: &OsStr| pointers(argument.as_bytes().to_vec()));
        let mut arguments = arguments.collect::<io::Result<Vec<_>>>()?;
        arguments.push(null());
        let environment = environment
            .iter()
            .map(|(name, value)| pointers([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let mut environment = environment.collect::<io::Result<Vec<_>>>()?;
        environment.push(null());
        Ok(Image {
            program,
            arguments,
            environment,
            _texts: texts,
        })
    }

    /// The number of the error; otherwise it does not return.
    fn execute(&self) -> i32 {
        let (arguments, environment) = (self.arguments.as_ptr(), self.environment.as_ptr());
        // SAFETY: execve(2) reads a text and two lists of texts, which end in NUL and null and live as long
        // as `self`.
        unsafe { libc::execve(self.program.as_ptr(), arguments, environment) };
        Errno::last_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Ended;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    type Refused = Option<(Stage, Option<i32>)>;

    fn run(
        command: Command,
        pass: &[BorrowedFd<'_>],
        directory: Option<&Path>,
    ) -> (Ended, Refused) {
        let privileges = Privileges::default();
        let launched = launch(command, pass, privileges, directory, Isolation::default());
        let (child, launch) = launched.unwrap();
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(30_000u16)).unwrap();
        let ended = child.try_reap().unwrap().expect("it has ended");
        let refused = launch.refused();
        let refused = refused.map(|(stage, error)| (stage, error.raw_os_error()));
        (ended, refused)
    }

    #[test]
    fn a_program_has_its_arguments_its_environment_and_what_it_is_passed() {
        let (kept, other) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let (k, o) = (kept.0.as_raw_fd(), other.0.as_raw_fd());
        let mut command = Command::new("/bin/sh");
        let script = format!(
            "test \"$1$ADDED\" = onetwo && test -n \"$PATH\" && test -z \"$HOME\" && test -e /proc/self/fd/{k} \
             && ! test -e /proc/self/fd/{o}"
        );
        command.args(["-c", &script, "sh", "one"]);
        command.env("ADDED", "two").env_remove("HOME");
        let ended = run(command, &[kept.0.as_fd()], None);
        assert_eq!(ended, (Ended::Exited(0), None));
    }

    #[test]
    fn what_cannot_be_executed_is_told() {
        for (program, directory, stage) in [
            ("/no/such/program", None, Stage::Executing),
            ("/bin/true", Some("/no/such/directory"), Stage::Entering),
        ] {
            let ended = run(Command::new(program), &[], directory.map(Path::new));
            let refused = Some((stage, Some(libc::ENOENT)));
            assert_eq!(ended, (Ended::Exited(NOT_EXECUTED), refused));
        }
    }
}
