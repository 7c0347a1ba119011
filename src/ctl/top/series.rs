//! What several looks at one app tell together: rates and latencies over time, and which requests keep
//! its workers.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::control::stats::{App, Bucket};

/// Points that are kept of each series: more than a terminal is wide.
const KEPT: usize = 1000;
/// Looks that say which requests keep the workers.
const SAMPLED: usize = 60;

/// Of one interval between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// Requests in it.
    pub count: u64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Debug, Default)]
pub struct Series {
    /// When the last look was taken: seconds since 1970.
    time: f64,
    /// Completed requests by second since 1970.
    completed: BTreeMap<u64, u64>,
    /// One entry per look, the oldest first.
    latencies: VecDeque<Latency>,
    buckets: Vec<Bucket>,
    looks: usize,
    /// The requests that ran at each look.
    ran: VecDeque<Vec<String>>,
    /// By generation and slot: requests so far, and per second in the last interval.
    workers: HashMap<(u64, u32), (u64, Option<f64>)>,
}

impl Series {
    pub fn look(&mut self, time: f64, app: &App) {
        let elapsed = time - self.time;
        self.count_completed(time, &app.rates.last_minute);
        let latency = match self.looks {
            // The first interval is the whole life of the server.
            0 => percentiles(&app.latency.buckets, app.latency.max_seconds),
            _ => {
                let fresh = difference(&self.buckets, &app.latency.buckets);
                percentiles(&fresh, app.latency.max_seconds)
            }
        };
        push(&mut self.latencies, latency, KEPT);
        self.buckets = app.latency.buckets.clone();
        let running = app
            .workers
            .iter()
            .filter_map(|worker| worker.request.as_ref());
        let names = running.map(|it| format!("{} {}", it.method, without_query(&it.path)));
        push(&mut self.ran, names.collect(), SAMPLED);
        let before = std::mem::take(&mut self.workers);
        for worker in &app.workers {
            let key = (worker.generation, worker.slot);
            let rate = before
                .get(&key)
                .filter(|_| elapsed > 0.0)
                .map(|(requests, _)| worker.requests.saturating_sub(*requests) as f64 / elapsed);
            self.workers.insert(key, (worker.requests, rate));
        }
        self.time = time;
        self.looks += 1;
    }

    fn count_completed(&mut self, time: f64, last_minute: &[u64]) {
        let now = time.max(0.0) as u64;
        let start = now.saturating_sub(last_minute.len() as u64);
        if self
            .completed
            .keys()
            .next_back()
            .is_some_and(|&last| last >= now + 5)
        {
            self.completed.clear(); // The clock has been set back.
        }
        self.completed
            .extend((start..).zip(last_minute.iter().copied()));
        while self.completed.len() > KEPT {
            self.completed.pop_first();
        }
    }

    /// Completed requests in each of the last so many full seconds, the oldest first.
    pub fn completed(&self, seconds: usize) -> Vec<u64> {
        let now = self.time.max(0.0) as u64;
        let span = now.saturating_sub(seconds as u64)..now;
        span.map(|second| self.completed.get(&second).copied().unwrap_or(0))
            .collect()
    }

    /// The latencies of so many intervals, the oldest first; fewer when there are fewer. The first
    /// one is left out when there are others: it is the whole life of the server before.
    pub fn latencies(&self, intervals: usize) -> impl Iterator<Item = &Latency> {
        let start = self.latencies.len().saturating_sub(intervals);
        let first = usize::from(self.looks == self.latencies.len() && self.looks > 1);
        self.latencies.iter().skip(start.max(first))
    }

    /// That of the last interval, or since the start of the server when there was one look only.
    pub fn latest(&self) -> Latency {
        self.latencies.back().copied().unwrap_or_default()
    }

    pub fn is_since_start(&self) -> bool {
        self.looks < 2
    }

    /// Which requests keep how many workers, on average of the last looks; the most first.
    pub fn busiest(&self) -> Vec<(&str, f64)> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for name in self.ran.iter().flatten() {
            *counts.entry(name).or_default() += 1;
        }
        let looks = self.ran.len().max(1) as f64;
        let shares = counts
            .into_iter()
            .map(|(name, count)| (name, f64::from(count) / looks));
        let mut shares: Vec<_> = shares.collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        shares
    }

    /// Requests per second of a worker in the last interval.
    pub fn rate(&self, generation: u64, slot: u32) -> Option<f64> {
        self.workers.get(&(generation, slot))?.1
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, kept: usize) {
    if queue.len() == kept {
        queue.pop_front();
    }
    queue.push_back(value);
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

fn key(bucket: &Bucket) -> u64 {
    bucket.below_seconds.map_or(u64::MAX, f64::to_bits)
}

/// What has been counted between two looks; after a restart of the server all there is.
fn difference(before: &[Bucket], after: &[Bucket]) -> Vec<Bucket> {
    let earlier: HashMap<u64, u64> = before.iter().map(|it| (key(it), it.count)).collect();
    let total = |buckets: &[Bucket]| buckets.iter().map(|it| it.count).sum::<u64>();
    if total(after) < total(before) {
        return after.to_vec();
    }
    let fresh = after.iter().map(|bucket| Bucket {
        count: bucket
            .count
            .saturating_sub(earlier.get(&key(bucket)).copied().unwrap_or(0)),
        ..*bucket
    });
    fresh.filter(|bucket| bucket.count > 0).collect()
}

/// Upper bounds, as in the statistics.
fn percentiles(buckets: &[Bucket], max: Option<f64>) -> Latency {
    let count: u64 = buckets.iter().map(|it| it.count).sum();
    let percentile = |share: f64| {
        let wanted = ((count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = buckets.iter().find(|bucket| {
            seen += bucket.count;
            seen >= wanted
        })?;
        match (bucket.below_seconds, max) {
            (Some(below), Some(max)) => Some(below.min(max)),
            (below, max) => below.or(max),
        }
    };
    Latency {
        count,
        p50: percentile(0.5),
        p90: percentile(0.9),
        p99: percentile(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::{Request, Worker};

    fn bucket(below: f64, count: u64) -> Bucket {
        Bucket {
            below_seconds: Some(below),
            count,
        }
    }

    fn app(buckets: &[Bucket]) -> App {
        let mut app = App::default();
        app.latency.buckets = buckets.to_vec();
        app.latency.max_seconds = Some(3.0);
        app
    }

    #[test]
    fn latencies_are_those_of_the_interval() {
        let mut series = Series::default();
        series.look(10.0, &app(&[bucket(0.001, 100)]));
        assert_eq!(series.latest().p99, Some(0.001));
        assert!(series.is_since_start());
        series.look(11.0, &app(&[bucket(0.001, 101), bucket(2.0, 99)]));
        let latest = series.latest();
        assert_eq!(
            (latest.count, latest.p50, latest.p99),
            (100, Some(2.0), Some(2.0))
        );
        series.look(12.0, &app(&[bucket(0.001, 101), bucket(2.0, 99)]));
        assert_eq!(series.latest(), Latency::default());
        // Another server behind the same socket.
        series.look(13.0, &app(&[bucket(0.004, 2)]));
        assert_eq!(series.latest().p50, Some(0.004));
        let shown: Vec<_> = series.latencies(100).map(|it| it.count).collect();
        assert_eq!(shown, [100, 0, 2]);
        assert_eq!(series.latencies(2).count(), 2);
    }

    #[test]
    fn a_bound_is_not_above_the_largest_duration() {
        let last = Bucket {
            below_seconds: None,
            count: 1,
        };
        assert_eq!(percentiles(&[last], Some(99.0)).p50, Some(99.0));
        assert_eq!(percentiles(&[bucket(4.0, 1)], Some(3.0)).p50, Some(3.0));
        assert_eq!(percentiles(&[], None), Latency::default());
    }

    #[test]
    fn each_second_is_counted_once_whatever_the_interval() {
        let mut series = Series::default();
        let mut minute = |time, counts: &[u64]| {
            let mut app = App::default();
            app.rates.last_minute = counts.to_vec();
            series.look(time, &app);
            series.completed(5)
        };
        assert_eq!(minute(100.9, &[1, 2, 3]), [0, 0, 1, 2, 3]);
        assert_eq!(minute(100.95, &[1, 2, 3]), [0, 0, 1, 2, 3]);
        assert_eq!(minute(102.1, &[3, 4, 5]), [1, 2, 3, 4, 5]);
        assert_eq!(minute(50.0, &[7, 8, 9]), [0, 0, 7, 8, 9]);
    }

    fn worker(slot: u32, requests: u64, path: Option<&str>) -> Worker {
        Worker {
            slot,
            requests,
            request: path.map(|path| Request {
                method: "GET".into(),
                path: path.into(),
                ..Request::default()
            }),
            ..Worker::default()
        }
    }

    #[test]
    fn what_runs_at_each_look_says_what_keeps_the_workers() {
        let mut series = Series::default();
        let crew = |workers: Vec<Worker>| App {
            workers,
            ..App::default()
        };
        series.look(
            1.0,
            &crew(vec![worker(0, 5, Some("/a?x=1")), worker(1, 0, None)]),
        );
        assert_eq!(series.rate(0, 0), None);
        series.look(
            3.0,
            &crew(vec![worker(0, 9, Some("/b")), worker(1, 0, Some("/a?y"))]),
        );
        assert_eq!(series.busiest(), [("GET /a", 1.0), ("GET /b", 0.5)]);
        assert_eq!(series.rate(0, 0), Some(2.0));
        assert_eq!(series.rate(0, 1), Some(0.0));
        assert_eq!(series.rate(7, 1), None);
    }
}
