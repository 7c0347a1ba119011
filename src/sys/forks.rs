//! Forks that the application makes inside a worker: its children inherit everything, and nothing of
//! it is theirs.
//!
//! The hooks run by way of `os.register_at_fork`. A child that only executes another program
//! (`subprocess`) does not come here: exec closes our descriptors and resets our handlers.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_CHILD: AtomicBool = AtomicBool::new(false);
static HAS_CHILDREN: AtomicBool = AtomicBool::new(false);

/// This process is a child that the application forked from a worker.
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// This worker has forked: closing a descriptor may no longer close the connection behind it.
pub fn has_children() -> bool {
    HAS_CHILDREN.load(Ordering::Relaxed)
}

/// In the parent, after a fork.
pub fn in_parent() {
    HAS_CHILDREN.store(true, Ordering::Relaxed);
}

/// In the child: signals sent to it are its own, and no longer orders to a worker.
pub fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
    super::signal::disown();
    super::orphan::forget();
}
