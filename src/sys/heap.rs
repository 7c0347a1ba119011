//! The C heap of a process about to fork. What a child allocates should not lie in gaps between
//! objects it shares with its siblings: each first write to a page costs a copy of it.

/// Gives whole free pages back to the kernel, then takes the gaps that are left, for good, so that
/// later allocations come from fresh memory at the end of the heap, side by side. Returns the bytes
/// taken (some hundred KiB after the import of a large framework).
#[cfg(target_env = "gnu")]
pub fn settle() -> usize {
    trim();
    // After the trim hardly more than a page is left between the last allocation and the end.
    let top = end_of_heap().saturating_sub(2 * PAGE);
    let mut taken = 0;
    let mut size = LARGEST;
    while size >= SMALLEST {
        while taken < MOST {
            // SAFETY: malloc(3) has no preconditions. What it returns is never used or, below, freed once.
            let block = unsafe { libc::malloc(size - OVERHEAD) };
            if block.is_null() {
                return taken;
            }
            let address = block.addr();
            if !(LOWEST..top).contains(&address) {
                // SAFETY: just returned by malloc(3).
                unsafe { libc::free(block) };
                break;
            }
            taken += size;
        }
        size -= match size {
            0..=1024 => 16,
            _ => (size / 16).next_multiple_of(16),
        };
    }
    taken
}

/// Other C libraries have no such heap.
#[cfg(not(target_env = "gnu"))]
pub fn settle() -> usize {
    0
}

#[cfg(target_env = "gnu")]
const PAGE: usize = 4096;
/// Chunks of glibc have a header of eight bytes and multiples of 16.
#[cfg(target_env = "gnu")]
const OVERHEAD: usize = 8;
#[cfg(target_env = "gnu")]
const SMALLEST: usize = 32;
/// Below the least size for which glibc turns to mmap(2) (M_MMAP_THRESHOLD, mallopt(3)).
#[cfg(target_env = "gnu")]
const LARGEST: usize = 120 * 1024;
/// A heap with more gaps than this is left as it is from there on.
#[cfg(target_env = "gnu")]
const MOST: usize = 8 << 20;
/// No heap lies below.
#[cfg(target_env = "gnu")]
const LOWEST: usize = 64 * 1024;

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(target_env = "gnu")]
fn end_of_heap() -> usize {
    // SAFETY: sbrk(2) with 0 changes nothing.
    unsafe { libc::sbrk(0) }.addr()
}
