//! Questions whose answer is being worked out.

#![forbid(unsafe_code)]

use super::client::Id;
use crate::control::{Kind, Page, Refused, ScaledApp, Stack};
use crate::link::{Done, Ticket};
use crate::schedule::Number;
use crate::supervisor::generation::Answer;
use crate::supervisor::hosting::Outcome;
use crate::sys::clock::Nanos;

pub struct Pending {
    pub client: Id,
    /// It is answered at this time, with whatever there is.
    pub until: Option<Nanos>,
    /// It is not answered before.
    pub not_before: Nanos,
    pub awaited: Vec<Awaited>,
    pub then: Then,
    /// What a master has refused, last.
    pub refused: Option<Refused>,
}

/// An answer that one generation owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    pub ticket: Ticket,
    pub app: String,
    pub generation: Number,
}

/// What is being worked out.
#[derive(Debug)]
pub enum Then {
    /// That of these apps.
    Reload(Vec<String>),
    /// That of the files of many apps.
    Files(Outcome),
    /// A sample of the memory, before the statistics.
    /// Of one app, or of all.
    Stats(Option<String>),
    Page(Page),
    Scale(Vec<ScaledApp>),
    Recycle(u32),
    Trace {
        stacks: Vec<Stack>,
        bytes: usize,
    },
}

/// All stacks in one answer.
const MOST: usize = 16 << 20;

impl Pending {
    pub fn new(client: Id, until: Option<Nanos>, then: Then) -> Self {
        Self {
            client,
            until,
            not_before: 0,
            awaited: Vec::new(),
            then,
            refused: None,
        }
    }

    /// When something is to be done about it although nobody answers.
    pub fn wake_at(&self) -> Option<Nanos> {
        match self.awaited.is_empty() && self.not_before > 0 {
            true => Some(self.not_before),
            false => self.until,
        }
    }

    /// Takes an answer, if it is one to this question from the generation that was asked.
    pub fn hear(&mut self, app: &str, generation: Number, answer: &mut Answer) {
        let ticket = match answer {
            Answer::Done(ticket, _) | Answer::Stack(ticket, _) | Answer::More(ticket, ..) => {
                *ticket
            }
        };
        let ours = |awaited: &Awaited| {
            awaited.ticket == ticket && awaited.app == app && awaited.generation == generation
        };
        let Some(at) = self.awaited.iter().position(ours) else {
            return;
        };
        match answer {
            Answer::Done(_, done) => {
                self.awaited.swap_remove(at);
                self.done(app, done);
            }
            Answer::Stack(_, stack) => {
                let mut stack = std::mem::replace(&mut **stack, empty());
                (stack.app, stack.generation) = (app.into(), generation);
                self.keep(stack);
            }
            Answer::More(_, slot, text) => self.extend((app, generation, *slot), text),
        }
    }

    fn done(&mut self, app: &str, done: &Done) {
        match (done, &mut self.then) {
            (Done::Resized { min, max }, Then::Scale(scaled)) => scaled.push(ScaledApp {
                app: app.into(),
                min: *min,
                max: *max,
            }),
            (Done::Recycling { workers }, Then::Recycle(count)) => {
                *count = count.saturating_add(*workers);
            }
            (Done::Refused { kind, error }, _) => {
                self.refused = Some(Refused::new(*kind, printable(error)));
            }
            _ => {}
        }
    }

    /// What comes from a master is bounded here: it may be anybody's code by now.
    fn keep(&mut self, stack: Stack) {
        let Then::Trace { stacks, bytes } = &mut self.then else {
            return;
        };
        let size = stack.stack.len() + stack.request.as_deref().map_or(0, str::len) + 256;
        if *bytes + size <= MOST {
            *bytes += size;
            stacks.push(stack);
        }
    }

    fn extend(&mut self, (app, generation, slot): (&str, Number, u32), text: &str) {
        let Then::Trace { stacks, bytes } = &mut self.then else {
            return;
        };
        let same = |stack: &&mut Stack| {
            stack.app == app && stack.generation == generation && stack.slot == slot
        };
        if *bytes + text.len() <= MOST
            && let Some(stack) = stacks.iter_mut().find(same)
        {
            *bytes += text.len();
            stack.stack.push_str(text);
        }
    }

    /// Nobody is waited for any more whose generation is gone.
    pub fn forget(&mut self, is_there: impl Fn(&Awaited) -> bool) {
        self.awaited.retain(|awaited| {
            let there = is_there(awaited);
            if !there {
                let text = format!("generation {} has ended meanwhile", awaited.generation);
                self.refused = Some(Refused::new(Kind::Unavailable, text));
            }
            there
        });
    }
}

fn empty() -> Stack {
    Stack {
        app: String::new(),
        generation: 0,
        slot: 0,
        pid: 0,
        state: String::new(),
        request: None,
        request_age_seconds: None,
        stack: String::new(),
        error: None,
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(then: Then) -> Pending {
        let mut pending = Pending::new(1, None, then);
        pending.awaited.push(Awaited {
            ticket: 7,
            app: "shop".into(),
            generation: 3,
        });
        pending
    }

    fn trace() -> Then {
        Then::Trace {
            stacks: Vec::new(),
            bytes: 0,
        }
    }

    #[test]
    fn only_the_generation_that_was_asked_can_answer() {
        let mut pending = pending(Then::Recycle(0));
        let mut answer = Answer::Done(7, Done::Recycling { workers: 2 });
        pending.hear("other", 3, &mut answer);
        pending.hear("shop", 2, &mut answer);
        pending.hear(
            "shop",
            3,
            &mut Answer::Done(8, Done::Recycling { workers: 9 }),
        );
        assert_eq!(pending.awaited.len(), 1);
        pending.hear("shop", 3, &mut answer);
        assert!(pending.awaited.is_empty());
        pending.hear("shop", 3, &mut answer);
        assert!(matches!(pending.then, Then::Recycle(2)));
    }

    #[test]
    fn a_stack_is_put_together_and_bounded() {
        let mut pending = pending(trace());
        let mut stack = empty();
        (stack.app, stack.generation, stack.slot) = ("forged".into(), 99, 4);
        stack.stack = "a".into();
        pending.hear("shop", 3, &mut Answer::Stack(7, Box::new(stack)));
        pending.hear("shop", 3, &mut Answer::More(7, 4, "b".into()));
        pending.hear("shop", 3, &mut Answer::More(7, 5, "c".into()));
        for _ in 0..40 {
            let text = "x".repeat(1 << 20);
            pending.hear("shop", 3, &mut Answer::More(7, 4, text));
        }
        let Then::Trace { stacks, bytes } = &pending.then else {
            panic!("it was a trace");
        };
        assert_eq!((stacks[0].app.as_str(), stacks[0].generation), ("shop", 3));
        assert!(stacks[0].stack.starts_with("abx"));
        assert!(*bytes <= MOST && stacks[0].stack.len() <= MOST);
    }

    #[test]
    fn a_generation_that_is_gone_owes_nothing() {
        let mut pending = pending(trace());
        pending.forget(|_| true);
        assert_eq!(pending.awaited.len(), 1);
        pending.forget(|awaited| awaited.generation != 3);
        assert!(pending.awaited.is_empty() && pending.refused.is_some());
    }
}
