//! What servers could do at best under a workload with slow requests: a closed system, simulated.
//!
//! Every client waits for its answer and asks again at once; whichever server is free takes the request
//! that has waited longest; a request that is not slow takes no time. Real servers stay below it: they
//! need CPU time, and most have several queues.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::load::Slow;

/// Slow requests that are simulated.
const LENGTH: u64 = 10_000;

pub struct Limit {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// A server runs one request at a time.
pub fn of(servers: u32, clients: u32, slow: &Slow) -> Limit {
    let mut waiting: VecDeque<Duration> = (0..clients).map(|_| Duration::ZERO).collect();
    let mut running = BinaryHeap::new();
    let mut latencies = Vec::new();
    let (mut now, mut free) = (Duration::ZERO, servers);
    let mut asked = 0;
    while asked < LENGTH * slow.one_in {
        if free > 0
            && let Some(since) = waiting.pop_front()
        {
            asked += 1;
            if asked % slow.one_in == 0 {
                free -= 1;
                running.push(Reverse((now + slow.takes, since)));
            } else {
                latencies.push(now - since);
                waiting.push_back(now);
            }
        } else if let Some(Reverse((end, since))) = running.pop() {
            now = end;
            free += 1;
            latencies.push(now - since);
            waiting.push_back(now);
        }
    }
    latencies.sort_unstable();
    let part = |percent: usize| latencies[latencies.len() * percent / 100];
    Limit {
        per_second: latencies.len() as f64 / now.as_secs_f64(),
        p50: part(50),
        p99: part(99),
    }
}
