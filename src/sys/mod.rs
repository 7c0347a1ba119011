//! The kernel: thin, safe wrappers around what neither `std` nor nix offers as safe.

pub mod fd;
