//! The access log: one line for every request, whatever becomes of it.
//!
//! ```text
//! worker      writes what it knows of a request into an entry of its lane before the application runs,
//!             completes it afterwards and puts it into the lane's ring: no system call ([`Pen`])
//! master      completes the entries of a worker that has died ([`Lane::bury`])
//! supervisor  reads the rings, makes lines of the records, gives them to the sink ([`Intake`])
//! ```
//!
//! A lane has one writer at a time, its worker or whoever buries that one, and one reader, the
//! supervisor, to whom its contents are untrusted. A full ring loses records, which are counted; nobody
//! waits. The reader sleeps while nothing happens, and is woken by a byte in a pipe only when it has said
//! that it sleeps or when a ring is half full ([`Desk`]).

mod desk;
mod format;
mod intake;
mod lane;
mod ledger;
mod pen;
mod record;
mod values;

pub use desk::{Bell, Desk};
pub use format::{Context, Format};
pub use intake::{Intake, Taken};
pub use lane::{Lanes, Published};
pub use ledger::Ledger;
pub use pen::{Facts, Pen, Ticket, Told, Waits};
pub use record::{Ending, Line};
