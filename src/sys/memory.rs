//! Memory shared between processes: a sealed memfd, mapped. The descriptor travels; each process
//! maps it for itself. Contents written by another process are untrusted input.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

/// A type that may live in shared memory.
///
/// # Safety
/// The type is `#[repr(C)]`, consists of atomics only (so that any bit pattern is valid and writes
/// of other processes are not data races), and needs no more alignment than a page.
pub unsafe trait Shareable {}

/// Declares a type [`Shareable`]: the promises of the trait are the caller's to keep.
macro_rules! shareable {
    ($type:ty) => {
        // SAFETY: promised where the macro is used: `#[repr(C)]`, atomics only.
        #[allow(unsafe_code)]
        unsafe impl $crate::sys::memory::Shareable for $type {}
    };
}
pub(crate) use shareable;

/// An array of `T` mapped from a memfd. Unmapped on drop.
pub struct Shared<T: Shareable> {
    fd: OwnedFd,
    base: NonNull<T>,
    count: usize,
}

// SAFETY: the mapping is owned by this value and `T` is made of atomics (`Shareable`).
unsafe impl<T: Shareable> Send for Shared<T> {}
// SAFETY: as above; shared access goes through atomics only.
unsafe impl<T: Shareable> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// Creates a zeroed array of `count` elements whose size can never change again: a process
    /// that received the descriptor cannot make the others fault by truncating it.
    pub fn create(name: &CStr, count: usize) -> io::Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let bytes = count * size_of::<T>();
        nix::unistd::ftruncate(&fd, i64::try_from(bytes).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Self::map(fd)
    }

    /// Maps what another process created. Its size decides the number of elements.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        let bytes = usize::try_from(fstat(&fd)?.st_size).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(bytes)
            .filter(|n| n.get().is_multiple_of(size_of::<T>()))
            .ok_or_else(|| io::Error::other("shared memory has an unexpected size"))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice overlaps nothing; the
        // file is as long as the mapping.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &fd, 0) }?;
        Ok(Self {
            fd,
            base: base.cast(),
            count: bytes / size_of::<T>(),
        })
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the mapping holds `count` elements, lives as long as `self`, is page-aligned and
        // any bytes are valid values of `T` (`Shareable`).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl<T: Shareable> AsFd for Shared<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T: Shareable> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the range `map` mapped; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.base.cast(), self.count * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[repr(C)]
    struct Cell(AtomicU64);
    // SAFETY: one atomic, repr(C).
    unsafe impl Shareable for Cell {}

    #[test]
    fn two_mappings_of_one_memory_see_each_other() {
        let a = Shared::<Cell>::create(c"test", 4).unwrap();
        let b = Shared::<Cell>::map(a.fd.try_clone().unwrap()).unwrap();
        a.as_slice()[3].0.store(7, Ordering::Relaxed);
        assert_eq!(b.as_slice().len(), 4);
        assert_eq!(b.as_slice()[3].0.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn the_size_cannot_be_changed_by_who_received_it() {
        let a = Shared::<Cell>::create(c"test", 4).unwrap();
        assert!(nix::unistd::ftruncate(&a, 0).is_err());
        assert!(nix::unistd::ftruncate(&a, 1 << 20).is_err());
    }
}
