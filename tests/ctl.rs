//! `rswsgictl`: every verb against a real server, every exit status, how it finds its server, `top` in
//! a terminal.

mod documents;
mod exits;
mod finding;
mod top;
mod verbs;

use crate::support::only_rswsgi;

fn ours() -> bool {
    only_rswsgi("the control socket")
}
