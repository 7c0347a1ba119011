//! An app on its way from this program to the one that replaces it, and back.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use serde_json::Value;

use super::develop::Explains;
use super::{App, first_failure, serving, terms};
use crate::error::{Error, Exit, Result};
use crate::net::{HandedListener, Listener};
use crate::relay::{FORMAT, Relay};
use crate::schedule::{Generations, Quiet, Stage, Standing};
use crate::scoreboard::{Scoreboard, Totals};
use crate::supervisor::Served;
use crate::supervisor::budget::Budget;
use crate::supervisor::generation::Generation;
use crate::supervisor::hand_over::{AppState, GenerationState, HandedStage, RelayState, take};
use crate::supervisor::hosting::{Presence, Story, Tail};
use crate::supervisor::output::Output;
use crate::supervisor::own_logs::OwnLogs;
use crate::supervisor::progress::Progress;
use crate::supervisor::was::Broker;

impl App {
    /// For the program that replaces this one; `None` while a generation starts or is about to.
    pub fn hand_over(&self) -> Option<Result<AppState>> {
        let quiet = self.plan.quiet()?;
        if self.remains.iter().any(Output::holds_up) || self.was.holds_up() {
            return None;
        }
        let settings = serde_json::to_value(&self.settings).map_err(|error| {
            let message = format!("cannot hand over the settings: {error}");
            Error::new(Exit::Internal, message)
        });
        let stage = |stage: Stage| match stage {
            Stage::Leaving { until } | Stage::Starting { until } | Stage::Ending { until, .. } => {
                HandedStage::Leaving { until }
            }
            Stage::Serving => HandedStage::Serving,
        };
        let generations = quiet.entries.iter().filter_map(|entry| {
            let generation = &self.generations[self.index(entry.number)?];
            Some(generation.hand_over(stage(entry.stage)))
        });
        Some(settings.map(|settings| AppState {
            settings,
            listeners: self.listeners.iter().map(Listener::hand_over).collect(),
            generations: generations.collect(),
            next: quiet.next,
            restart_at: quiet.restart_at,
            is_resting: quiet.is_resting,
            totals: self.past.by_name(),
            tally: self.tally,
            reload: self.reload.clone(),
            relay: self.relay.as_ref().map(|relay| RelayState {
                format: FORMAT,
                ends: relay.ends().map(|end| end.as_raw_fd()),
            }),
            was: self.was.hand_over(),
            verbosity: self.verbosity,
        }))
    }

    /// The descriptors that are handed over.
    pub fn handed(&self) -> Vec<BorrowedFd<'_>> {
        let mut handed: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        handed.extend(self.was.handed());
        for Generation {
            child,
            channel,
            scoreboard,
            output,
            ..
        } in &self.generations
        {
            handed.extend([child.as_fd(), channel.as_fd(), scoreboard.as_fd()]);
            handed.extend(output.handed());
        }
        handed.extend(self.relay.iter().flat_map(Relay::ends));
        handed
    }

    /// Takes over what the program before had, by duplicates: until all is well nothing of it changes.
    pub fn resume(state: &AppState, served: &Served) -> Result<Self> {
        let settings = match serde_json::from_value(state.settings.clone()) {
            Ok(settings) => settings,
            // Of another version.
            Err(_) => {
                let name = state.settings.get("name").and_then(Value::as_str);
                served.app(name.unwrap_or_default())?
            }
        };
        let listener = |handed: &HandedListener| {
            Listener::resume(handed, take(handed.spec.fd, &handed.spec.name)?)
        };
        let listeners = state.listeners.iter().map(listener);
        let generations = state.generations.iter();
        let quiet = Quiet {
            next: state.next,
            terms: terms(&settings),
            restart_at: state.restart_at,
            entries: generations.clone().map(entry).collect(),
            is_resting: state.is_resting,
        };
        let mut past = Totals::from_names(&state.totals);
        let foreign = |state: &&GenerationState| state.layout != Scoreboard::layout();
        for state in generations.clone().filter(foreign) {
            past.merge(&Totals::from_names(&state.totals));
        }
        let relay = match state.relay {
            Some(RelayState {
                format: FORMAT,
                ends,
            }) => {
                let [entry, exit] = ends.map(|end| take(end, "an end of the relay"));
                Some(Relay::from_ends(entry?, exit?))
            }
            _ => None,
        };
        let generations = generations.map(|state| {
            let mut generation = Generation::resume(state, &settings)?;
            generation.relays = state.relays && relay.is_some();
            Ok(generation)
        });
        let plan = Generations::resume(quiet, first_failure(&settings));
        let status = match plan.serving() {
            Some(number) => serving(&settings, number),
            None => String::new(),
        };
        let app = Self {
            listeners: listeners.collect::<Result<_>>()?,
            was: Broker::resume(&state.was)?,
            generations: generations.collect::<Result<_>>()?,
            relay,
            development: None,
            explains: Explains::Nothing,
            held: None,
            candidate: None,
            plan,
            past,
            tally: state.tally,
            reload: state.reload.clone(),
            answers: Vec::new(),
            sampled: None,
            remains: Vec::new(),
            presence: Presence::of(&settings),
            story: Story::default(),
            tail: Tail::default(),
            sweep: None,
            own_logs: OwnLogs::of(&settings),
            verbosity: state.verbosity,
            budget: Budget::default(),
            status,
            progress: Progress::default(),
            settings,
        };
        Ok(app)
    }

    /// Once all is taken over: from now on socket files are removed by this program.
    pub fn own_files(&mut self, state: &AppState) {
        self.pass_level_on();
        for (listener, handed) in self.listeners.iter_mut().zip(&state.listeners) {
            listener.own_file(handed);
        }
        self.was.own_files(&state.was);
    }
}

fn entry(state: &GenerationState) -> Standing {
    Standing {
        number: state.number,
        stage: match state.stage {
            HandedStage::Serving => Stage::Serving,
            HandedStage::Leaving { until } => Stage::Leaving { until },
        },
        started: state.started,
    }
}
