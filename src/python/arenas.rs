//! Where Python's objects live: the arenas of its allocator and the C heap, as ranges of memory
//! that can be put into an [`Image`].

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use pyo3::prelude::*;

use crate::sys::image::{self, Image, Kind};

/// `PyObjectArenaAllocator` (`Include/cpython/objimpl.h`), the same since CPython 3.4. It is no part
/// of the stable ABI, so it is looked up by name.
#[repr(C)]
#[derive(Clone, Copy)]
struct Allocator {
    context: *mut c_void,
    alloc: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    free: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, usize)>,
}

type Exchange = unsafe extern "C" fn(*mut Allocator);

// SAFETY: used with the interpreter lock held only, as CPython uses it.
unsafe impl Send for Allocator {}
// SAFETY: as above; it is never changed.
unsafe impl Sync for Allocator {}

/// What was there before us, and does the work.
static ORIGINAL: OnceLock<Allocator> = OnceLock::new();
static ARENAS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

/// Takes note of all arenas from now on; to be called once, before the application is imported. On
/// an interpreter without such a hook none become known.
pub fn watch_arenas(_py: Python<'_>) {
    let (Some(get), Some(set)) = (
        find(c"PyObject_GetArenaAllocator"),
        find(c"PyObject_SetArenaAllocator"),
    ) else {
        return;
    };
    let mut allocator = Allocator {
        context: std::ptr::null_mut(),
        alloc: None,
        free: None,
    };
    // SAFETY: attached; it fills the three fields.
    unsafe { get(&mut allocator) };
    if allocator.alloc.is_none() || allocator.free.is_none() || ORIGINAL.set(allocator).is_err() {
        return;
    }
    allocator.alloc = Some(alloc);
    allocator.free = Some(free);
    // SAFETY: attached; the structure is copied. Arenas of before go to `free` as well, which hands
    // them to the original function that made them.
    unsafe { set(&mut allocator) };
}

fn find(name: &std::ffi::CStr) -> Option<Exchange> {
    // SAFETY: dlsym(3) with a string that ends with NUL.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: both names belong to functions of this signature, since CPython 3.4; null becomes `None`.
    unsafe { std::mem::transmute::<*mut c_void, Option<Exchange>>(symbol) }
}

unsafe extern "C" fn alloc(context: *mut c_void, size: usize) -> *mut c_void {
    let Some(original) = ORIGINAL.get().and_then(|original| original.alloc) else {
        return std::ptr::null_mut();
    };
    // SAFETY: CPython calls us as it would call the original, with the context of the original.
    let arena = unsafe { original(context, size) };
    if !arena.is_null()
        && let Ok(mut arenas) = ARENAS.lock()
    {
        arenas.push(arena.addr()..arena.addr() + size);
    }
    arena
}

unsafe extern "C" fn free(context: *mut c_void, arena: *mut c_void, size: usize) {
    if let Ok(mut arenas) = ARENAS.lock() {
        arenas.retain(|range| range.start != arena.addr());
    }
    if let Some(original) = ORIGINAL.get().and_then(|original| original.free) {
        // SAFETY: as in `alloc`; an arena is unmapped, whatever it is mapped from.
        unsafe { original(context, arena, size) };
    }
}

/// An image of all objects, to which the forks of this process can return.
pub fn image(_py: Python<'_>) -> io::Result<Image> {
    let mappings = image::mappings()?;
    let mut ranges: Vec<Range<usize>> = match ARENAS.lock() {
        Ok(arenas) => arenas.clone(),
        Err(_) => Vec::new(),
    };
    // Whole arenas only, of memory that is still as `mmap(2)` gave it: not with malloc(3) arenas.
    ranges.retain(|arena| {
        let is_in = |range: &Range<usize>| range.start <= arena.start && arena.end <= range.end;
        arena.start.is_multiple_of(ALIGNMENT)
            && arena.len().is_multiple_of(ALIGNMENT)
            && mappings
                .iter()
                .any(|m| is_in(&m.range) && m.kind == Kind::Anonymous)
    });
    if heap_is_of_glibc() {
        let heap = mappings.into_iter().filter(|m| m.kind == Kind::Heap);
        ranges.extend(heap.map(|mapping| mapping.range));
    }
    // SAFETY: arenas come from mmap(2) and are only ever unmapped (`Objects/obmalloc.c`); the heap
    // grows by brk(2), which adds mappings of its own, and shrinks. All are private, anonymous,
    // readable and writable, as /proc/self/maps has just said. A thread's rseq(2) area lies in neither.
    unsafe { Image::take(&ranges) }
}

/// Whether malloc(3) is that of glibc, which expects no zeros in heap memory that it has dropped with
/// madvise(2) (`mtrim` in `malloc/malloc.c`; `calloc` clears it). In an image it would not find any.
fn heap_is_of_glibc() -> bool {
    let base = |name: &std::ffi::CStr| {
        // SAFETY: dlsym(3) with a string that ends with NUL.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: dladdr(3) takes any address and fills the structure unless it returns 0.
        let is_found =
            !symbol.is_null() && unsafe { libc::dladdr(symbol, found.as_mut_ptr()) } != 0;
        // SAFETY: it has been filled.
        is_found.then(|| unsafe { found.assume_init() }.dli_fbase)
    };
    let library = base(c"gnu_get_libc_version");
    library.is_some() && [c"malloc", c"calloc", c"free"].map(base) == [library; 3]
}

/// The page size of any architecture divides it; arenas have 256 KiB or 1 MiB.
const ALIGNMENT: usize = 4096;
