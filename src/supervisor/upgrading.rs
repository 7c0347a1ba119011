//! An upgrade step by step: nothing is handed over before everything is settled.

#![forbid(unsafe_code)]

use super::app::App;
use super::hand_over::HandOver;
use super::pid_file::PidFile;
use super::upgrade::Upgrade;
use super::{Course, Supervisor, upgrade};
use crate::error::Result;
use crate::link::VERSION;
use crate::log;
use crate::sys::clock::Nanos;

impl Supervisor {
    pub(super) fn upgrade(&mut self) {
        if self.apps.iter().any(|app| app.settings.reload) {
            log::info!("not upgrading: --reload is for development");
            return;
        }
        match (self.course, &self.upgrade) {
            (Course::Serving, None) => {
                log::info!("upgrading (SIGUSR2)");
                self.upgrade = Some(Upgrade::Asked);
            }
            (Course::Serving, Some(_)) => log::info!("an upgrade is under way already"),
            _ => log::info!("not upgrading: the server stops"),
        }
    }

    /// Does the next step of an upgrade that is under way.
    pub(super) fn go_on_upgrading(&mut self, now: Nanos) {
        let Some(upgrade) = self.upgrade.take() else {
            return;
        };
        if self.course != Course::Serving {
            upgrade.give_up();
            return;
        }
        match self.upgraded(upgrade, now) {
            Ok(upgrade) => self.upgrade = Some(upgrade),
            Err(error) => {
                log::error!("upgrade refused: {error}; {VERSION} goes on serving");
                self.tell_status(now);
            }
        }
    }

    /// The next stage, after a check that passed in another program.
    fn upgraded(&mut self, upgrade: Upgrade, now: Nanos) -> Result<Upgrade> {
        let program = self.program.clone()?;
        let upgrade = upgrade.settle(&program, now)?;
        // Nothing is handed over that starts or is about to: it is waited for.
        let Some(apps) = self
            .apps
            .iter()
            .map(App::hand_over)
            .collect::<Option<Vec<_>>>()
        else {
            return Ok(upgrade);
        };
        let apps = apps.into_iter().collect::<Result<Vec<_>>>()?;
        let mut state = HandOver::new(VERSION, program.clone(), apps);
        state.birth = Some(self.birth);
        state.doors = self.control.hand_over();
        if let Some(orphans) = &self.orphans {
            (state.foreign, state.company) = (orphans.foreign(), orphans.company());
        }
        state.pid_file = self.pid_file.as_ref().map(PidFile::hand_over);
        match upgrade {
            Upgrade::Asked => Upgrade::check(&program, &self.arguments, &state, now),
            Upgrade::Checking { .. } | Upgrade::Late { .. } => Ok(upgrade),
            Upgrade::Agreed { version } => {
                log::info!("executing {} ({version})", program.display());
                self.notify_reloading(now, "upgrading");
                self.settle_logs();
                let apps = self.apps.iter().flat_map(App::handed);
                let pid_file = self.pid_file.iter().flat_map(PidFile::descriptors);
                let kept: Vec<_> = apps.chain(self.control.handed()).chain(pid_file).collect();
                let (arguments, signals) = (&self.arguments, &self.signals);
                Err(upgrade::execute(
                    &program, arguments, &state, &kept, signals,
                ))
            }
        }
    }
}
