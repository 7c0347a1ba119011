//! A model of how the main loop of a worker and its watcher wake each other (`src/worker/floor.rs`, `watcher.rs`):
//! every order of their single steps on what they share. Whenever the application does not come back, the
//! watcher comes to look at the connections of others; whenever the worker is idle, the watcher comes to
//! rest; and neither waits for the other for ever.
//!
//! All of what they share is sequentially consistent, so an order of steps is all there is to it. Time is left
//! out: a nap with an end may end at any moment.

use std::collections::{HashSet, VecDeque};

/// Runs of the application.
const RUNS: u8 = 3;

/// A step that is left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// The main loop never rings for a run that nobody will look at.
    NoBell,
    /// The watcher does not look again after it has said when it will.
    NoSecondLook,
    /// The main loop does not ring when the application has come back from a run that is polled.
    NoBellAfter,
    /// The watcher waits for the end of a run without a look at whether it is over.
    NoLookBeforePolling,
    /// The main loop tells of the run while it still holds the lock.
    TellsFirst,
}

/// A run and whether it is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run(u8, bool);

/// When the watcher looks, as it has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Looks {
    Never,
    InTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Main {
    /// With the lock.
    Loops,
    /// The lock is given back, or the run begun: one of them comes first.
    Half,
    Released,
    Runs,
    /// The run is over.
    Over,
    /// The bell was rung if it had to be; the lock is wanted.
    Wants,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Watcher {
    Starts,
    /// It knows of this run.
    Saw(Run),
    /// It has said that it will look.
    Said(Run, Looks),
    Naps(Looks),
    /// It is to poll for this run and looks who is here, with the lock.
    Gathers(Run),
    /// It knows who is here, or does not.
    Polls(Run, bool),
    NapsPolling(Run, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    run: Run,
    looks: Looks,
    polls: bool,
    bell: bool,
    main: Main,
    watcher: Watcher,
    /// The run that the watcher knew of last.
    seen: Run,
}

impl State {
    fn first() -> State {
        let run = Run(0, false);
        State {
            run,
            looks: Looks::Never,
            polls: false,
            bell: false,
            main: Main::Loops,
            watcher: Watcher::Starts,
            seen: run,
        }
    }

    fn main_steps(self, flaw: Flaw) -> Vec<State> {
        let mut next = self;
        match self.main {
            Main::Loops if self.run.0 == RUNS => return Vec::new(),
            Main::Loops => {
                if flaw == Flaw::TellsFirst {
                    next.run = Run(self.run.0 + 1, true);
                }
                next.main = Main::Half;
            }
            Main::Half => {
                if flaw != Flaw::TellsFirst {
                    next.run = Run(self.run.0 + 1, true);
                }
                next.main = Main::Released;
            }
            Main::Released => {
                next.bell |= self.looks == Looks::Never && flaw != Flaw::NoBell;
                next.main = Main::Runs;
            }
            Main::Runs => {
                next.run = Run(self.run.0, false);
                next.main = Main::Over;
            }
            Main::Over => {
                next.bell |= self.polls && flaw != Flaw::NoBellAfter;
                next.main = Main::Wants;
            }
            Main::Wants if matches!(self.watcher, Watcher::Gathers(_)) => return Vec::new(),
            Main::Wants => next.main = Main::Loops,
        }
        vec![next]
    }

    /// `patient`: time passes, as far as it matters.
    fn watcher_steps(self, flaw: Flaw, patient: bool) -> Vec<State> {
        let mut steps = Vec::new();
        let mut step = |change: &dyn Fn(&mut State)| {
            let mut next = self;
            change(&mut next);
            steps.push(next);
        };
        match self.watcher {
            Watcher::Starts => {
                let run = self.run;
                let is_locked = match self.main {
                    Main::Loops => true,
                    Main::Half => flaw == Flaw::TellsFirst,
                    _ => false,
                };
                if run.1 && is_locked {
                    step(&|next| {
                        next.polls = true;
                        next.looks = Looks::Never;
                        next.watcher = Watcher::Polls(run, false);
                    });
                } else if run.1 {
                    step(&|next| next.watcher = Watcher::Gathers(run));
                }
                if !run.1 || !patient {
                    step(&|next| next.watcher = Watcher::Saw(run));
                }
            }
            Watcher::Saw(run) => {
                let looks = match run.1 || run != self.seen {
                    true => Looks::InTime,
                    false => Looks::Never,
                };
                step(&|next| {
                    next.seen = run;
                    next.looks = looks;
                    next.watcher = Watcher::Said(run, looks);
                });
            }
            Watcher::Said(run, looks) => {
                let is_old = self.run != run && flaw != Flaw::NoSecondLook;
                let nap = if is_old { Looks::InTime } else { looks };
                step(&|next| next.watcher = Watcher::Naps(nap));
            }
            Watcher::Naps(looks) => {
                if self.bell || looks == Looks::InTime {
                    step(&|next| {
                        next.bell = false;
                        next.watcher = Watcher::Starts;
                    });
                }
            }
            Watcher::Gathers(run) => step(&|next| {
                next.polls = true;
                next.looks = Looks::Never;
                next.watcher = Watcher::Polls(run, true);
            }),
            Watcher::Polls(run, knows) => {
                match self.run == run || flaw == Flaw::NoLookBeforePolling {
                    true => step(&|next| next.watcher = Watcher::NapsPolling(run, knows)),
                    false => step(&|next| {
                        next.polls = false;
                        next.seen = run;
                        next.watcher = Watcher::Starts;
                    }),
                }
            }
            Watcher::NapsPolling(run, knows) => {
                if self.bell {
                    step(&|next| {
                        next.bell = false;
                        next.watcher = match flaw {
                            Flaw::NoLookBeforePolling if self.run != run => Watcher::Starts,
                            _ => Watcher::Polls(run, knows),
                        };
                    });
                }
            }
        }
        steps
    }

    /// Where the watcher comes to when nothing else happens but that time passes.
    fn at_last(self, flaw: Flaw) -> Option<State> {
        let mut state = self;
        for _ in 0..50 {
            match state.watcher_steps(flaw, true)[..] {
                [] => return Some(state),
                [next] => state = next,
                _ => return None,
            }
        }
        None
    }

    fn check(self, flaw: Flaw) -> Result<(), String> {
        let rest = self.at_last(flaw);
        let wrong = |what: &str| Err(format!("{what}: {self:?} comes to {rest:?}"));
        let Some(rest) = rest else {
            return wrong("the watcher finds no rest");
        };
        let rests = match self.main {
            Main::Runs => rest.watcher == Watcher::NapsPolling(self.run, true),
            Main::Loops => rest.watcher == Watcher::Naps(Looks::Never),
            // It has steps to take, which nothing may prevent for ever.
            _ => true,
        };
        match rests {
            _ if self.main_steps(flaw).is_empty() && self.main == Main::Wants => {
                let goes_on = !rest.main_steps(flaw).is_empty();
                if goes_on {
                    Ok(())
                } else {
                    wrong("the main loop waits")
                }
            }
            true => Ok(()),
            false => wrong("the watcher sleeps"),
        }
    }
}

fn explore(flaw: Flaw) -> Result<usize, String> {
    let first = State::first();
    let mut known = HashSet::from([first]);
    let mut queue = VecDeque::from([first]);
    while let Some(state) = queue.pop_front() {
        state.check(flaw)?;
        let mut steps = state.main_steps(flaw);
        steps.extend(state.watcher_steps(flaw, false));
        queue.extend(steps.into_iter().filter(|next| known.insert(*next)));
    }
    Ok(known.len())
}

#[test]
fn the_watcher_looks_when_it_must_and_sleeps_when_it_may() {
    match explore(Flaw::Nothing) {
        Ok(states) => println!("{states} states"),
        Err(how) => panic!("{how}"),
    }
}

#[test]
fn each_bell_and_each_look_is_needed() {
    for flaw in [
        Flaw::NoBell,
        Flaw::NoSecondLook,
        Flaw::NoBellAfter,
        Flaw::NoLookBeforePolling,
        Flaw::TellsFirst,
    ] {
        let found = explore(flaw);
        assert!(found.is_err(), "{flaw:?} goes unnoticed: {found:?}");
    }
}
