//! What the processes of one server write to stderr.
//!
//! All of them hold the write end of one pipe, so its end of file says that the last one is gone.

use super::PATIENCE;
use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

#[derive(Default)]
struct State {
    text: Vec<u8>,
    ended: bool,
}

#[derive(Clone)]
pub struct Log {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Log {
    /// Reads the pipe on a thread of its own, into memory and into a file that outlives a failed test.
    pub fn follow(mut pipe: PipeReader, copy: &Path) -> Log {
        let mut copy = File::create(copy).expect("create the log file");
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let log = Log {
            shared: Arc::clone(&shared),
        };
        let body = move || {
            let mut chunk = [0; 16 * 1024];
            loop {
                let length = pipe.read(&mut chunk).unwrap_or(0);
                let mut state = shared.0.lock().expect("no panic while holding the log");
                state.text.extend_from_slice(&chunk[..length]);
                state.ended = length == 0;
                shared.1.notify_all();
                if length == 0 {
                    return;
                }
                drop(state);
                // The copy is a convenience for people; the directory may be gone by now.
                let _ = copy.write_all(&chunk[..length]);
            }
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(body)
            .expect("start the log thread");
        log
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().text).into_owned()
    }

    /// Waits until `found` likes the text; what it returns comes back.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            let text = String::from_utf8_lossy(&state.text).into_owned();
            if let Some(answer) = found(&text) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                drop(state); // a panic must not poison the log: it is printed next
                panic!("the log never showed {what}");
            }
            state = self
                .shared
                .1
                .wait_timeout(state, left)
                .expect("no panic while holding the log")
                .0;
        }
    }

    /// Waits for a piece of text, ignoring case.
    #[track_caller]
    pub fn wait_for(&self, piece: &str) {
        let wanted = piece.to_lowercase();
        self.wait(&format!("{piece:?}"), |text| {
            text.to_lowercase().contains(&wanted).then_some(())
        });
    }

    /// True when every process that could write is gone before the deadline.
    pub fn ends_before(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .shared
                .1
                .wait_timeout(state, left)
                .expect("no panic while holding the log")
                .0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .0
            .lock()
            .expect("no panic while holding the log")
    }
}

/// The lines that speak of an error or a panic and hold none of the `expected` pieces.
pub fn complaints(text: &str, expected: &[String]) -> Vec<String> {
    text.lines()
        .filter(|line| {
            let lower = line.to_lowercase();
            lower.contains("error") || lower.contains("panic")
        })
        .filter(|line| !expected.iter().any(|piece| line.contains(piece.as_str())))
        .map(str::to_owned)
        .collect()
}
