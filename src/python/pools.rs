//! Gaps in Python's own allocator: free blocks in pools that are partly in use.

use std::collections::HashMap;

use pyo3::ffi;
use pyo3::prelude::*;

/// Takes, for good, every free block of a pool that is partly in use. What workers allocate then
/// comes from whole free pools, side by side, instead of from gaps between shared objects, where
/// each write copies a page. Returns the bytes taken (some hundred KiB after the import of a large
/// framework).
///
/// The allocator hands out a whole free pool only when no pool of that size class has a free block
/// left (`Objects/obmalloc.c`). So all gaps are taken as soon as all blocks of one pool are ours.
/// Under another allocator (`PYTHONMALLOC`, debug hooks) that never happens, and everything is given
/// back.
pub fn fill_gaps(_py: Python<'_>) -> usize {
    (1..=LARGEST / ALIGNMENT)
        .map(|class| fill_class(class * ALIGNMENT))
        .sum()
}

/// Of CPython 3.10 and later on 64 bits.
const POOL: usize = 16 * 1024;
const POOL_HEADER: usize = 48;
const ALIGNMENT: usize = 16;
/// Larger objects are the C heap's.
const LARGEST: usize = 512;
/// Per size class.
const MOST: usize = 4 << 20;

fn fill_class(size: usize) -> usize {
    let per_pool = (POOL - POOL_HEADER) / size;
    let mut blocks = Vec::new();
    let mut counts: HashMap<usize, usize> = HashMap::new();
    let mut whole = None;
    while whole.is_none() && blocks.len() * size < MOST {
        // SAFETY: attached. What is returned is never used or, below, freed once.
        let block = unsafe { ffi::PyObject_Malloc(size) };
        if block.is_null() {
            break;
        }
        blocks.push(block);
        let pool = block.addr() / POOL;
        let count = counts.entry(pool).or_default();
        *count += 1;
        whole = (*count == per_pool).then_some(pool);
    }
    let mut taken = 0;
    for block in blocks {
        if whole.is_some_and(|pool| block.addr() / POOL != pool) {
            taken += size;
        } else {
            // SAFETY: attached; `PyObject_Malloc` returned it and nobody else has it.
            unsafe { ffi::PyObject_Free(block) };
        }
    }
    taken
}
