//! What a process tree used: CPU time by the scheduler's own account, and memory.
//!
//! `schedstat` counts nanoseconds on the run queue's CPU per thread, where the times in `stat`
//! count clock ticks. A thread that ends during the measurement takes its time with it; the
//! servers compared keep theirs.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::process::Process;

/// Time each thread of a tree has spent on a CPU.
pub struct Usage(HashMap<(Process, i32), u64>);

impl Usage {
    pub fn of(tree: &[Process]) -> Usage {
        let mut threads = HashMap::new();
        for &process in tree {
            for tid in thread_ids(process.pid) {
                if let Some(time) = on_cpu(process.pid, tid) {
                    threads.insert((process, tid), time);
                }
            }
        }
        Usage(threads)
    }

    /// Time spent since `earlier`; threads that are new since then count in full.
    pub fn since(&self, earlier: &Usage) -> Duration {
        let spent = |(thread, now): (_, &u64)| now - earlier.0.get(thread).unwrap_or(&0).min(now);
        Duration::from_nanos(self.0.iter().map(spent).sum())
    }
}

fn thread_ids(pid: i32) -> Vec<i32> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn on_cpu(pid: i32, tid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// KiB of a process tree.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// Shared pages are divided among those that map them.
    pub proportional: u64,
    /// Pages nobody else maps.
    pub private: u64,
}

pub fn memory(tree: &[Process]) -> Memory {
    let mut all = Memory::default();
    for process in tree {
        let path = format!("/proc/{}/smaps_rollup", process.pid);
        let text = fs::read_to_string(path).unwrap_or_default();
        let of = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
            number.unwrap_or(0)
        };
        all.proportional += of("Pss:");
        all.private += of("Private_Clean:") + of("Private_Dirty:");
    }
    all
}
