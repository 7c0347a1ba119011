//! Forks that the application makes inside a worker: its children inherit everything, and nothing of
//! it is theirs.
//!
//! The hooks run by way of `os.register_at_fork`. A child that only executes another program
//! (`subprocess`) does not come here: exec closes our descriptors and resets our handlers.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use super::signal::Held;

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

thread_local! {
    /// Of the fork that this thread is about to make.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// In the parent, before a fork: until the child has disowned them, signals sent to it would be taken for
/// orders to the worker, by way of the pipe they share.
pub fn before(signals: &[Signal]) {
    let held = Held::new(signals).ok();
    HELD.with(|ours| {
        // Another hook may fork, too: what was there before the first of them counts.
        let mut ours = ours.borrow_mut();
        if ours.is_none() {
            *ours = held;
        }
    });
}

fn let_go() {
    // Dropped outside of the cell: signals arrive at once.
    let held = HELD.with(|ours| ours.borrow_mut().take());
    drop(held);
}

/// In the parent, after a fork.
pub fn in_parent() {
    HAS_CHILDREN.store(true, Ordering::Relaxed);
    let_go();
}

/// In the child: signals sent to it are its own, and no longer orders to a worker.
pub fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
    super::signal::disown();
    super::orphan::forget();
    let_go();
}
