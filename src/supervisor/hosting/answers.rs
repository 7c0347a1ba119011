//! What people are told about the apps: which there are, and the story of their starts.

#![forbid(unsafe_code)]

use crate::control::{AppEntry, AppList, AppLog, AppStory, LogTail, Refused, Why};
use crate::net::Listener;
use crate::scoreboard::State;
use crate::supervisor::Supervisor;
use crate::supervisor::app::App;
use crate::sys::clock::{Nanos, seconds};

impl Supervisor {
    /// The apps, and the files of which there is none, by name.
    /// `owner`: only those of this user.
    pub fn list_apps(&self, name: Option<&str>, owner: Option<u32>, now: Nanos) -> AppList {
        let is_own = |of: Option<u32>| owner.is_none_or(|owner| of == Some(owner));
        let apps = self.apps.iter().filter(|app| !app.is_retired());
        let apps = apps.filter(|app| is_own(Some(app.presence.owner)));
        let apps = apps.map(|app| app.entry(now));
        let disabled = self.host.iter().flat_map(|host| &host.disabled);
        let disabled = disabled.filter(|disabled| is_own(disabled.owner));
        let disabled = disabled.map(|disabled| AppEntry {
            app: disabled.name.clone(),
            state: "disabled".into(),
            reason: Some(disabled.reason.clone()),
            ..AppEntry::default()
        });
        let chosen = |entry: &AppEntry| name.is_none_or(|name| entry.app == name);
        let mut apps: Vec<AppEntry> = apps.chain(disabled).filter(chosen).collect();
        apps.sort_by(|a, b| a.app.cmp(&b.app));
        AppList { apps }
    }

    pub fn tell_why(
        &self,
        name: Option<&str>,
        owner: Option<u32>,
        now: Nanos,
    ) -> Result<Why, Refused> {
        let stories = self
            .list_apps(name, owner, now)
            .apps
            .into_iter()
            .map(|entry| {
                let mut apps = self.apps.iter().filter(|app| !app.is_retired());
                let app = apps.find(|app| app.settings.name == entry.app);
                AppStory {
                    app: entry.app,
                    state: entry.state,
                    reason: entry.reason,
                    starts: app.map(|app| app.story.show(now)).unwrap_or_default(),
                }
            });
        let apps: Vec<AppStory> = stories.collect();
        match apps.is_empty() {
            true => Err(Refused::no_such_app(name)),
            false => Ok(Why { apps }),
        }
    }
}

impl Supervisor {
    /// The last lines of these apps.
    pub fn tail(&self, apps: &[usize]) -> LogTail {
        let apps = apps.iter().map(|index| {
            let app = &self.apps[*index];
            AppLog {
                app: app.settings.name.clone(),
                lines: app.tail.lines(),
            }
        });
        LogTail {
            apps: apps.collect(),
        }
    }
}

impl App {
    fn entry(&self, now: Nanos) -> AppEntry {
        let processes = self.generations.iter().map(|generation| {
            let rows = generation.scoreboard.rows().iter();
            1 + rows.filter(|row| row.state() != State::Dead).count() as u32
        });
        let failing = self.is_failing().then(|| self.story.last_error()).flatten();
        let idle = self.idle_since().map(|since| now.saturating_sub(since));
        AppEntry {
            app: self.settings.name.clone(),
            state: self.condition().into(),
            user: self.settings.privileges.user.clone(),
            processes: processes.sum(),
            generation: self.serving().map(|generation| generation.number),
            idle_seconds: idle.map(seconds),
            listeners: self
                .listeners
                .iter()
                .map(Listener::name)
                .map(str::to_owned)
                .collect(),
            turned_away: self.presence.turned_away,
            lacks: self.serving().map(|g| g.lacks.clone()).unwrap_or_default(),
            reason: self.presence.mistake.clone().or(failing),
        }
    }
}
