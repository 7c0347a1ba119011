//! The last lines that the processes of an app have written, for its user.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::log::Entry;
use crate::log::form::{Form, line};

/// Bytes that are kept.
const MOST: usize = 16 * 1024;
/// Of one line.
const LONGEST: usize = 2 * 1024;

#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    pub fn push(&mut self, entry: &Entry) {
        for text in line(Form::Text, entry).lines() {
            let mut text = text.to_owned();
            text.truncate(text.floor_char_boundary(LONGEST));
            text.shrink_to_fit();
            self.bytes += text.len();
            self.lines.push_back(text);
            while self.bytes > MOST {
                let first = self.lines.pop_front().unwrap_or_default();
                self.bytes -= first.len();
            }
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;
    use std::time::SystemTime;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for number in 0..3000 {
            tail.push(&Entry {
                time: SystemTime::UNIX_EPOCH,
                level: Level::Info,
                who: "output [shop gen 1]".into(),
                pid: 0,
                text: format!("line {number} {}", "x".repeat(number)),
            });
        }
        let lines = tail.lines();
        assert!(lines.iter().map(String::len).sum::<usize>() <= MOST);
        assert!(
            lines
                .last()
                .is_some_and(|line| line.starts_with("line 2999 "))
        );
        assert!(lines.len() >= 8);
    }
}
