//! The control socket: what can be asked and told there, by whom, and what a hostile client gets.

use crate::support::only_rswsgi;

mod access;
mod counters;
mod hostile;
mod pages;
mod replies;
mod trace;
mod verbs;

fn ours() -> bool {
    only_rswsgi("a control socket")
}
