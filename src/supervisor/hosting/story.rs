//! What the supervisor remembers of the last starts of an app, for whoever asks why it does not serve.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::control::Start as Shown;
use crate::schedule::{Cause, Number};
use crate::supervisor::generation::Failure;
use crate::sys::clock::{MILLISECOND, Nanos, seconds};

/// Starts that are remembered.
const MOST: usize = 8;
/// Of an error: a text of the application's. Only the latest failure has its traceback.
const REASON: usize = 500;
const TRACEBACK: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Result {
    Starting,
    Served,
    Failed,
    GivenUp,
    Lost,
}

#[derive(Debug)]
struct Start {
    number: Number,
    cause: &'static str,
    asked: Nanos,
    started: Nanos,
    imported: Option<Nanos>,
    ended: Option<Nanos>,
    result: Result,
    failure: Option<Failure>,
    back_off: Option<Nanos>,
}

#[derive(Debug, Default)]
pub struct Story {
    /// The latest last.
    starts: VecDeque<Start>,
    /// What the next one is for, and since when.
    next: Option<(&'static str, Nanos)>,
}

impl Story {
    /// The next start is because of this.
    pub fn because_of(&mut self, cause: &'static str, now: Nanos) {
        self.next.get_or_insert((cause, now));
    }

    pub fn started(&mut self, number: Number, cause: Cause, now: Nanos) {
        let usual = match cause {
            Cause::First => "start",
            Cause::Reload => "reload",
            Cause::Restart => "restart",
        };
        let (cause, asked) = self.next.take().unwrap_or((usual, now));
        // What has not ended by now, and is not this one, was given up for it.
        for start in &mut self.starts {
            if start.result == Result::Starting {
                start.result = Result::GivenUp;
            }
        }
        if self.starts.len() == MOST {
            self.starts.pop_front();
        }
        self.starts.push_back(Start {
            number,
            cause,
            asked,
            started: now,
            imported: None,
            ended: None,
            result: Result::Starting,
            failure: None,
            back_off: None,
        });
    }

    /// `import`: as its master says.
    pub fn imported(&mut self, number: Number, import_millis: u64) {
        if let Some(start) = self.find(number) {
            start.imported = Some(import_millis.saturating_mul(MILLISECOND));
        }
    }

    pub fn served(&mut self, number: Number, now: Nanos) {
        if let Some(start) = self.find(number) {
            (start.result, start.ended) = (Result::Served, Some(now));
        }
    }

    /// It did not come up, or ended although it served.
    pub fn failed(&mut self, number: Number, failure: &Failure, now: Nanos) {
        for start in &mut self.starts {
            if let Some(failure) = &mut start.failure {
                failure.traceback = String::new();
            }
        }
        let Some(start) = self.find(number) else {
            return;
        };
        start.result = match start.result {
            Result::Served => Result::Lost,
            _ => Result::Failed,
        };
        start.ended.get_or_insert(now);
        start.failure = Some(Failure {
            reason: head(&failure.reason, REASON),
            traceback: tail(&failure.traceback, TRACEBACK),
        });
    }

    pub fn put_off(&mut self, delay: Nanos) {
        if let Some(start) = self.starts.back_mut() {
            start.back_off = Some(delay);
        }
    }

    fn find(&mut self, number: Number) -> Option<&mut Start> {
        self.starts.iter_mut().find(|start| start.number == number)
    }

    /// Why the last start failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        let failure = self.starts.back()?.failure.as_ref()?;
        Some(failure.reason.clone())
    }

    /// The latest first.
    pub fn show(&self, now: Nanos) -> Vec<Shown> {
        let starts = self.starts.iter().rev();
        starts.map(|start| start.show(now)).collect()
    }
}

impl Start {
    fn show(&self, now: Nanos) -> Shown {
        let failure = self.failure.as_ref();
        let since = |from: Nanos, to: Nanos| seconds(to.saturating_sub(from));
        let traceback = failure.map(|failure| failure.traceback.as_str());
        Shown {
            generation: self.number,
            cause: self.cause.into(),
            age_seconds: since(self.asked, now),
            result: match self.result {
                Result::Starting => "starting",
                Result::Served => "served",
                Result::Failed => "failed",
                Result::GivenUp => "given up",
                Result::Lost => "lost",
            }
            .into(),
            waited_seconds: since(self.asked, self.started),
            imported_seconds: self.imported.map(seconds),
            took_seconds: self.ended.map(|ended| since(self.started, ended)),
            error: failure.map(|failure| failure.reason.clone()),
            traceback: traceback.filter(|text| !text.is_empty()).map(str::to_owned),
            back_off_seconds: self.back_off.map(seconds),
        }
    }
}

/// Text of the application's: lines, and no control characters.
fn plain(text: &str) -> String {
    let keep = |c: &char| *c == '\n' || !c.is_control();
    text.trim_end().chars().filter(keep).collect()
}

fn head(text: &str, most: usize) -> String {
    let text = plain(text);
    text[..text.floor_char_boundary(most)].to_owned()
}

fn tail(text: &str, most: usize) -> String {
    let text = plain(text);
    let start = text.len().saturating_sub(most);
    text[text.ceil_char_boundary(start)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn failure(reason: &str, traceback: &str) -> Failure {
        Failure {
            reason: reason.into(),
            traceback: traceback.into(),
        }
    }

    #[test]
    fn the_steps_of_a_start_have_their_durations() {
        let mut story = Story::default();
        story.because_of("connection", SECOND);
        story.because_of("reload", 2 * SECOND);
        story.started(1, Cause::Restart, 3 * SECOND);
        assert_eq!(story.show(4 * SECOND)[0].result, "starting");
        story.imported(1, 1500);
        story.served(1, 5 * SECOND);
        let start = &story.show(10 * SECOND)[0];
        let told = (start.cause.as_str(), start.result.as_str());
        assert_eq!(told, ("connection", "served"));
        assert_eq!((start.age_seconds, start.waited_seconds), (9.0, 2.0));
        assert_eq!(start.imported_seconds, Some(1.5));
        assert_eq!(start.took_seconds, Some(2.0));
    }

    #[test]
    fn only_so_many_are_kept_and_only_the_latest_failure_in_full() {
        let mut story = Story::default();
        for number in 1..=20 {
            story.started(number, Cause::Restart, number * SECOND);
            let long = failure(&"r".repeat(5000), &format!("{}\x1bend", "t".repeat(90_000)));
            story.failed(number, &long, number * SECOND + 7);
            story.put_off(2 * SECOND);
        }
        let starts = story.show(30 * SECOND);
        assert_eq!(starts.len(), MOST);
        assert_eq!(starts[0].generation, 20);
        assert_eq!(starts[0].back_off_seconds, Some(2.0));
        let shown = starts[0].traceback.as_deref().unwrap();
        assert!(
            shown.ends_with("tend") && shown.len() == TRACEBACK,
            "{}",
            shown.len()
        );
        assert_eq!(starts[0].error.as_deref().map(str::len), Some(REASON));
        assert!(starts[1..].iter().all(|start| start.traceback.is_none()));
    }

    #[test]
    fn what_served_and_ended_was_lost_and_what_never_ended_was_given_up() {
        let mut story = Story::default();
        story.started(1, Cause::First, 0);
        story.served(1, 1);
        story.failed(1, &failure("killed", ""), 2);
        story.started(2, Cause::Reload, 3);
        story.started(3, Cause::Reload, 4);
        let results: Vec<_> = story.show(5).into_iter().map(|s| s.result).collect();
        assert_eq!(results, ["starting", "given up", "lost"]);
    }
}
