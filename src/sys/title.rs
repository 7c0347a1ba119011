//! The process title that `ps` shows: the memory of the original arguments, overwritten.
//!
//! `proc_pid_cmdline(5)`: when the byte before the end of the argument area is not NUL, the kernel
//! shows the text up to the first NUL even where it runs on into the environment.

use std::sync::OnceLock;

struct Area {
    start: usize,
    arguments: usize,
    length: usize,
}

static AREA: OnceLock<Option<Area>> = OnceLock::new();

/// How much of the memory behind the arguments may be used too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Only the arguments: other code may hold pointers into the environment.
    Arguments,
    /// The environment as well, whose variables have been copied elsewhere ([`release_environment`]).
    ArgumentsAndEnvironment,
}

/// Copies every environment variable to the heap, so that nothing points at the original area.
/// To be called once, first thing, while the process has one thread; arguments must have been read.
pub fn release_environment() {
    // `=X=y` is a possible entry, but cannot be set again (environ(7)).
    let is_odd =
        |name: &std::ffi::OsStr| name.is_empty() || name.as_encoded_bytes().contains(&b'=');
    if std::env::vars_os().any(|(name, _)| is_odd(&name)) {
        return;
    }
    for (name, value) in std::env::vars_os() {
        // SAFETY: the process has a single thread (the caller's promise), so nobody reads the
        // environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    let _ = AREA.set(area(Room::ArgumentsAndEnvironment));
}

fn area(room: Room) -> Option<Area> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // proc_pid_stat(5): the second field may hold anything, so count from behind its parenthesis.
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ').skip(45);
    let mut next = || fields.next()?.trim().parse::<usize>().ok();
    let (arg_start, arg_end, env_start, env_end) = (next()?, next()?, next()?, next()?);
    let arguments = arg_end.checked_sub(arg_start).filter(|n| *n > 1)?;
    let end = match room {
        Room::ArgumentsAndEnvironment if env_start == arg_end => env_end,
        _ => arg_end,
    };
    Some(Area {
        start: arg_start,
        arguments,
        length: end.checked_sub(arg_start)?,
    })
}

/// Shows `title`, cut to the room there is, and sets the process name (`comm`). The name has at most
/// 15 bytes and no spaces: CPython counts its threads by splitting `/proc/self/stat` at them.
pub fn set(name: &str, title: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    let Some(area) = AREA.get_or_init(|| area(Room::Arguments)) else {
        return;
    };
    let shown = title.len().min(area.length - 1);
    // SAFETY: the kernel reports [start, start + length) as this process's argument (and, after
    // `release_environment`, unused environment) area, which stays mapped and writable; nothing
    // else writes it, and what reads it (std's argument iterator) has done so before.
    let memory = unsafe { std::slice::from_raw_parts_mut(area.start as *mut u8, area.length) };
    memory[..shown].copy_from_slice(&title.as_bytes()[..shown]);
    memory[shown..].fill(0);
    if shown < area.arguments {
        // Shorter than the arguments: pad inside the area; the NUL before its end says "as it is".
        memory[shown..area.arguments].fill(0);
    }
}
