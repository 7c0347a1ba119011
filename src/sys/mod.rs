//! The kernel, as the rest of the program wants to see it: processes, descriptors, shared memory,
//! sockets, signals, clocks. One of the two places where `unsafe` is allowed; it knows nothing of
//! HTTP, WSGI or Python and makes no decisions.
#![allow(unsafe_code)]

pub mod account;
pub mod append;
pub mod clock;
pub mod descriptors;
pub mod diag;
pub mod family;
pub mod fd;
pub mod forks;
pub mod heap;
pub mod image;
pub mod inventory;
pub mod isolation;
pub mod launch;
pub mod memory;
pub mod notify;
pub mod orphan;
pub mod passing;
pub mod pipe;
pub mod poll;
pub mod privileges;
pub mod process;
pub mod seqpacket;
pub mod signal;
pub mod socket;
pub mod title;
