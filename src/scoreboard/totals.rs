//! Sums over the rows of scoreboards, for people.

use std::collections::BTreeMap;
use std::fmt;

use super::{Counter, Durations, Recent, Scoreboard};
use crate::http::Refusal;
use crate::sys::clock::MILLISECOND;

/// What the workers of any number of generations have done.
#[derive(Debug, Clone)]
pub struct Totals {
    counters: [u64; Counter::ALL.len()],
    refusals: [u64; Refusal::ALL.len()],
    pub latency: Durations,
    pub queue: Durations,
    pub relay: Durations,
    pub recent: Recent,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            counters: [0; Counter::ALL.len()],
            refusals: [0; Refusal::ALL.len()],
            latency: Durations::default(),
            queue: Durations::default(),
            relay: Durations::default(),
            recent: Recent::default(),
        }
    }
}

impl Totals {
    /// The numbers of another process are only ever shown, so a wrong one does no harm.
    pub fn add(&mut self, scoreboard: &Scoreboard) {
        for row in scoreboard.rows().iter().chain([scoreboard.pool()]) {
            for (sum, counter) in self.counters.iter_mut().zip(Counter::ALL) {
                *sum = sum.wrapping_add(row.counter(*counter));
            }
            for (sum, refusal) in self.refusals.iter_mut().zip(Refusal::ALL) {
                *sum = sum.wrapping_add(row.refusals(*refusal));
            }
            self.latency.add(row.latency());
            self.queue.add(row.queue());
            self.relay.add(row.relay());
            self.recent.add(row.seconds());
        }
    }

    pub fn merge(&mut self, other: &Totals) {
        for (sum, more) in self.counters.iter_mut().zip(&other.counters) {
            *sum = sum.wrapping_add(*more);
        }
        for (sum, more) in self.refusals.iter_mut().zip(&other.refusals) {
            *sum = sum.wrapping_add(*more);
        }
        self.latency.merge(&other.latency);
        self.queue.merge(&other.queue);
        self.relay.merge(&other.relay);
        self.recent.merge(&other.recent);
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal as usize]
    }

    /// By name, for a program of another version; without the last few minutes.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let counters = Counter::ALL.iter().map(|c| c.name());
        let refusals = Refusal::ALL.iter().map(|r| r.name());
        counters
            .zip(self.counters)
            .map(|(name, count)| (name.to_owned(), count))
            .chain(
                refusals
                    .zip(self.refusals)
                    .map(|(name, count)| (format!("refused {name}"), count)),
            )
            .chain(self.latency.names("latency"))
            .chain(self.queue.names("queue"))
            .chain(self.relay.names("relay"))
            .collect()
    }

    /// What is not known (any more) is left out.
    pub fn from_names(names: &BTreeMap<String, u64>) -> Self {
        let of = |name: &str| names.get(name).copied().unwrap_or_default();
        let mut totals = Self {
            latency: Durations::from_names(of, "latency"),
            queue: Durations::from_names(of, "queue"),
            relay: Durations::from_names(of, "relay"),
            ..Self::default()
        };
        for counter in Counter::ALL {
            totals.counters[*counter as usize] = of(counter.name());
        }
        for refusal in Refusal::ALL {
            totals.refusals[*refusal as usize] = of(&format!("refused {}", refusal.name()));
        }
        totals
    }
}

/// `12 requests (mean 1.250 ms), 3 connections; status_2xx 11, status_5xx 1; refused: bad_length 2`
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |counter| self.counter(counter);
        write!(f, "{} requests", of(Counter::Requests))?;
        if let Some(mean) = self.latency.sum().checked_div(self.latency.count()) {
            let (millis, rest) = (mean / MILLISECOND, mean % MILLISECOND);
            write!(f, " (mean {millis}.{:03} ms)", rest / 1000)?;
        }
        write!(f, ", {} connections", of(Counter::Connections))?;
        let mut separator = "; ";
        for counter in Counter::ALL {
            let shown = !matches!(
                counter,
                Counter::Requests | Counter::Connections | Counter::Spawns
            );
            if shown && of(*counter) > 0 {
                write!(f, "{separator}{} {}", counter.name(), of(*counter))?;
                separator = ", ";
            }
        }
        let mut separator = "; refused: ";
        for refusal in Refusal::ALL {
            let count = self.refusals[*refusal as usize];
            if count > 0 {
                write!(f, "{separator}{} {count}", refusal.name())?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_not_zero() {
        let board = Scoreboard::create(2).unwrap();
        let mut totals = Totals::default();
        totals.add(&board);
        assert_eq!(totals.to_string(), "0 requests, 0 connections");
        for row in board.rows() {
            row.begin_request(b"GET /", 0, 1);
            row.end_request(2_500_000);
            row.count(Counter::Connections, 2);
            row.count_status(404);
            row.count_refusal(Refusal::BadLength);
        }
        totals.add(&board);
        assert_eq!(
            totals.to_string(),
            "2 requests (mean 2.500 ms), 4 connections; status_4xx 2; refused: bad_length 2"
        );
    }

    #[test]
    fn are_the_same_after_a_journey_by_name() {
        let board = Scoreboard::create(1).unwrap();
        board.row(0).begin_request(b"GET /", 0, 1);
        board.row(0).end_request(7);
        board.row(0).count(Counter::Connections, 3);
        board.row(0).count_refusal(Refusal::BadLength);
        board.row(0).queue().record(9);
        board.pool().count(Counter::Spawns, 4);
        let mut totals = Totals::default();
        totals.add(&board);
        let mut names = totals.by_name();
        names.insert("of a later version".into(), 5);
        let again = Totals::from_names(&names);
        assert_eq!(again.to_string(), totals.to_string());
        assert_eq!(again.by_name(), totals.by_name());
        assert_eq!(again.latency, totals.latency);
        assert_eq!(again.queue.max(), Some(9));
        assert_eq!(again.counter(Counter::Spawns), 4);
        let mut twice = again;
        twice.merge(&totals);
        assert_eq!(twice.counter(Counter::Connections), 6);
        assert_eq!(twice.refusals(Refusal::BadLength), 2);
    }
}
