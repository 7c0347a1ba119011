//! A generation that is no more, and why.

#![forbid(unsafe_code)]

use crate::config::Target;
use crate::error::{Error, Exit};
use crate::schedule::Number;
use crate::supervisor::generation::{self, Failure, Generation};
use crate::supervisor::output::Output;
use crate::sys::process::Ended;

/// A generation that has ended or could not be started.
pub struct Gone {
    /// `generation 3 (pid 77)`
    pub who: String,
    pub target: Target,
    /// `the master exited with status 1`, or what it said itself.
    pub how: Failure,
    /// What kills a master, and a time limit, may not be there at the next try.
    pub exit: Exit,
    /// It could not even be started.
    pub error: Option<Error>,
}

impl Gone {
    pub fn ended(generation: Generation, ended: Ended) -> (Self, Output) {
        if let Some(error) = generation.not_executed() {
            let target = generation.settings.target;
            let gone = Gone::refused(generation.number, target, error);
            return (gone, generation.output);
        }
        let output = generation.output;
        let describe = generation::describe(generation.number, generation.child.pid());
        let gone = Self {
            who: describe,
            target: generation.settings.target,
            how: generation.failure.unwrap_or_else(|| Failure {
                reason: format!("the master ended, {ended}"),
                traceback: String::new(),
            }),
            exit: match ended {
                Ended::Exited(_) => Exit::Config,
                _ => Exit::Failed,
            },
            error: None,
        };
        (gone, output)
    }

    pub fn refused(number: Number, target: Target, error: Error) -> Self {
        Self {
            who: format!("generation {number}"),
            target,
            how: Failure {
                reason: error.to_string(),
                traceback: String::new(),
            },
            exit: error.exit(),
            error: Some(error),
        }
    }

    /// Why it did not come up, in full.
    pub fn error(&self) -> Error {
        if let Some(error) = &self.error {
            return error.clone();
        }
        let Failure { reason, traceback } = &self.how;
        let message = format!("cannot serve {}: {reason}\n{traceback}", self.target);
        Error::new(self.exit, message.trim_end())
    }
}
