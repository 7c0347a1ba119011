//! The memory of a process as it was at one moment, to which its forks can return page by page.
//!
//! A fork shares all memory with its parent until one of them writes. Python writes a lot that leaves
//! no trace: each use of an object counts its references up and down again. [`Image::take`] puts memory into
//! a file without a name and maps it privately in its own place, so nothing changes for those who use it.
//! A fork can then compare what it has written with the file ([`Image::give_back`]) and drop the copies that
//! do not differ: the next access finds the shared page, with the same contents (madvise(2), MADV_DONTNEED).

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow};

/// The file that memory is mapped from.
#[derive(Debug)]
pub struct Image {
    file: File,
    /// Device and inode, as /proc/self/maps shows them.
    identity: (u64, u64),
}

/// A part of the address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub range: Range<usize>,
    /// Where the range begins in its file.
    offset: u64,
    identity: (u64, u64),
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As mmap(2) gives it.
    Anonymous,
    /// Of brk(2).
    Heap,
    Other,
}

/// Pages looked at in one go.
const WINDOW: usize = 64;
/// The largest page of the architectures that Linux runs on with a C library.
const LARGEST_PAGE: usize = 64 * 1024;
/// pagemap (Documentation/admin-guide/mm/pagemap.rst): in memory; of a file, not a copy of ours.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;

impl Image {
    /// Moves the pages of `ranges` into a new file and maps them from there.
    ///
    /// # Errors
    /// Those of the system calls, and `Unsupported` when other threads run. Memory is intact then.
    ///
    /// # Safety
    /// Each range consists of whole pages of private, anonymous, readable and writable memory.
    /// Whoever manages it may unmap it, but never grows it with mremap(2): there is no file behind
    /// its end. The kernel does not write to it behind our back (as it does to the memory of a
    /// thread's rseq(2) area).
    pub unsafe fn take(ranges: &[Range<usize>]) -> io::Result<Image> {
        only_thread()?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(c"rswsgi-image", flags)?;
        let length: usize = ranges.iter().map(|range| range.len()).sum();
        nix::unistd::ftruncate(&fd, i64::try_from(length).map_err(io::Error::other)?)?;
        let quiet = Quiet::new()?;
        let mut offset = 0;
        let mut result = Ok(());
        for range in ranges {
            // SAFETY: promised by the caller; no other thread, no signal handler runs meanwhile.
            result = result.and_then(|()| unsafe { relocate(&fd, range, offset) });
            offset += range.len();
        }
        drop(quiet);
        result?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
        let file = File::from(fd);
        let metadata = file.metadata()?;
        Ok(Image {
            identity: (metadata.dev(), metadata.ino()),
            file,
        })
    }

    /// Drops this process's copies of pages that do not differ from the image; returns the bytes.
    ///
    /// # Errors
    /// Those of reading `/proc/self`, and `Unsupported` when other threads run: they could write to
    /// a page between the look at it and its end.
    pub fn give_back(&self) -> io::Result<usize> {
        let page = page_size();
        let mappings = mappings()?;
        let pagemap = File::open("/proc/self/pagemap")?;
        only_thread()?;
        let _quiet = Quiet::new()?;
        // From here on nothing but the stack is written to, which is not in the image: a page must
        // not change after it has been compared.
        let mut given = 0;
        for mapping in mappings.iter().filter(|m| m.identity == self.identity) {
            let mut address = mapping.range.start;
            while address < mapping.range.end {
                let pages = ((mapping.range.end - address) / page).min(WINDOW);
                let mut entries = [0; WINDOW * 8];
                let entries = &mut entries[..pages * 8];
                pagemap.read_exact_at(entries, (address / page * 8) as u64)?;
                let offset = mapping.offset + (address - mapping.range.start) as u64;
                given += self.give_back_window(entries, address, offset, page)?;
                address += pages * page;
            }
        }
        Ok(given)
    }

    fn give_back_window(
        &self,
        entries: &[u8],
        address: usize,
        offset: u64,
        page: usize,
    ) -> io::Result<usize> {
        let mut original = [0; LARGEST_PAGE];
        let original = &mut original[..page];
        let mut given = 0;
        for (index, entry) in entries.chunks_exact(8).enumerate() {
            let entry = u64::from_ne_bytes(entry.try_into().expect("it has eight bytes"));
            if entry & PRESENT == 0 || entry & OF_FILE != 0 {
                continue;
            }
            let distance = index * page;
            self.file
                .read_exact_at(original, offset + distance as u64)?;
            let here = std::ptr::without_provenance_mut::<libc::c_void>(address + distance);
            // SAFETY: the page is mapped (it was just listed, and no other thread unmaps it) and
            // readable; `original` has as many bytes.
            let differs = unsafe { libc::memcmp(here, original.as_ptr().cast(), page) };
            if differs == 0 {
                // SAFETY: a page of a private mapping of the sealed file; the next access finds the
                // page of the file there, whose bytes are those that are dropped.
                let done = unsafe { libc::madvise(here, page, libc::MADV_DONTNEED) };
                given += if done == 0 { page } else { 0 };
            }
        }
        Ok(given)
    }
}

/// Copies a range into the file and maps it from there.
///
/// # Safety
/// As for [`Image::take`]; nobody writes to the range meanwhile.
unsafe fn relocate(fd: &OwnedFd, range: &Range<usize>, offset: usize) -> io::Result<()> {
    let start = std::ptr::without_provenance_mut::<libc::c_void>(range.start);
    let mut done = 0;
    while done < range.len() {
        let from = start.wrapping_byte_add(done);
        let to = (offset + done) as libc::off_t;
        // SAFETY: the range is readable to its end, as the caller promises.
        match unsafe { libc::pwrite(fd.as_raw_fd(), from, range.len() - done, to) } {
            written @ 1.. => done += written as usize,
            _ => return Err(io::Error::last_os_error()),
        }
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let (length, fd) = (range.len(), fd.as_raw_fd());
    // SAFETY: replaces memory by a mapping of the same size with the same contents; nobody has
    // written to it since they were copied.
    match unsafe { libc::mmap(start, length, access, flags, fd, offset as libc::off_t) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The address space of this process, as proc_pid_maps(5) shows it.
pub fn mappings() -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string("/proc/self/maps")?;
    Ok(text.lines().filter_map(read_mapping).collect())
}

/// `start-end rw-p offset major:minor inode path`; only what is private, readable and writable.
fn read_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    if words.next()? != "rw-p" {
        return None;
    }
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let offset = number(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let device = libc::makedev(number(major)? as u32, number(minor)? as u32);
    let inode = words.next()?.parse().ok()?;
    let kind = match (inode, words.next()) {
        (0, None) => Kind::Anonymous,
        (0, Some("[heap]")) => Kind::Heap,
        _ => Kind::Other,
    };
    Some(Mapping {
        range: number(start)? as usize..number(end)? as usize,
        offset,
        identity: (device, inode),
        kind,
    })
}

fn page_size() -> usize {
    // SAFETY: sysconf(3) has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_or(LARGEST_PAGE, |size| size.min(LARGEST_PAGE))
}

fn only_thread() -> io::Result<()> {
    match fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "other threads run",
        )),
    }
}

/// No signal handler runs while this exists.
struct Quiet(SigSet);

impl Quiet {
    fn new() -> io::Result<Self> {
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_proc_maps() {
        let line = "55d0c000-55d0e000 rw-p 00002000 08:12 1234    /memfd:rswsgi-image (deleted)";
        let mapping = read_mapping(line).unwrap();
        assert_eq!(mapping.range, 0x55d0_c000..0x55d0_e000);
        assert_eq!((mapping.offset, mapping.identity.1), (0x2000, 1234));
        assert_eq!(mapping.identity.0, libc::makedev(8, 0x12));
        assert_eq!(mapping.kind, Kind::Other);
        let heap = "55d0c000-55d0e000 rw-p 00000000 00:00 0          [heap]";
        assert_eq!(read_mapping(heap).unwrap().kind, Kind::Heap);
        let anonymous = "55d0c000-55d0e000 rw-p 00000000 00:00 0 ";
        assert_eq!(read_mapping(anonymous).unwrap().kind, Kind::Anonymous);
        assert_eq!(
            read_mapping("55d0c000-55d0e000 r-xp 00000000 00:00 0"),
            None
        );
        assert!(mappings().unwrap().len() > 3);
    }
}
