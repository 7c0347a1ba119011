//! The state of `top`: what was seen, what is selected, which page is shown. Pure: keys and answers in,
//! what to do next out. Drawing only reads it.

use std::collections::HashMap;

use super::series::Series;
use crate::control::stats::{App, Stats, Worker};
use crate::control::{Refused, Trace};
use crate::ctl::show;

/// A key, whatever the terminal sends for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C
    Interrupt,
    /// Ctrl-Z
    Suspend,
}

/// What is to be done besides drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Quit,
    Suspend,
    /// Ask for the stack of the worker in this slot.
    Trace {
        app: String,
        slot: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// The request that has been running longest first.
    Running,
    Slot,
    State,
    Rate,
    Requests,
    Memory,
    Age,
}

impl Sort {
    const ALL: [Sort; 7] = [
        Sort::Running,
        Sort::Slot,
        Sort::State,
        Sort::Rate,
        Sort::Requests,
        Sort::Memory,
        Sort::Age,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Sort::Running => "running",
            Sort::Slot => "slot",
            Sort::State => "state",
            Sort::Rate => "rate",
            Sort::Requests => "requests",
            Sort::Memory => "memory",
            Sort::Age => "age",
        }
    }

    fn step(self, by: usize) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL[(at + by) % Sort::ALL.len()]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Usual,
    Reversed,
}

/// The stack of one worker.
#[derive(Debug, PartialEq, Eq)]
pub struct StackPage {
    pub app: String,
    pub slot: u32,
    pub content: Content,
    /// First line that is shown.
    pub scroll: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    Waiting,
    Lines(Vec<String>),
    Failed(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Page {
    Overview,
    Stack(StackPage),
    Help,
}

/// Whether what is shown is fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    Up,
    /// Why not; it is tried again.
    Lost(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    Running,
    Paused,
}

#[derive(Debug)]
pub struct Model {
    /// The control socket.
    pub control: String,
    pub page: Page,
    pub link: Link,
    pub motion: Motion,
    pub sort: Sort,
    pub order: Order,
    pub stats: Option<Stats>,
    series: HashMap<String, Series>,
    /// The name of the app that is shown.
    app: Option<String>,
    /// Generation and slot: the selection stays on its worker wherever it is sorted to.
    selected: Option<(u64, u32)>,
    /// Lines of the page that scrolls, as drawn last: what PageDown means.
    pub visible: usize,
}

impl Model {
    pub fn new(control: String) -> Model {
        Model {
            control,
            page: Page::Overview,
            link: Link::Up,
            motion: Motion::Running,
            sort: Sort::Running,
            order: Order::Usual,
            stats: None,
            series: HashMap::new(),
            app: None,
            selected: None,
            visible: 10,
        }
    }

    pub fn look(&mut self, stats: Stats) {
        self.link = Link::Up;
        if self.motion == Motion::Paused {
            return;
        }
        for app in &stats.apps {
            let series = self.series.entry(app.name.clone()).or_default();
            series.look(stats.time_seconds, app);
        }
        let there = |name: &String| stats.apps.iter().any(|app| app.name == *name);
        self.series.retain(|name, _| there(name));
        self.stats = Some(stats);
    }

    pub fn lost(&mut self, reason: String) {
        self.link = Link::Lost(reason);
    }

    pub fn traced(&mut self, slot: u32, answer: Result<Trace, Refused>) {
        if let Page::Stack(page) = &mut self.page
            && page.slot == slot
        {
            page.content = match answer {
                Ok(trace) => {
                    let text = show::trace(&trace, show::Paint::None);
                    Content::Lines(text.lines().map(str::to_owned).collect())
                }
                Err(refused) => Content::Failed(show::escape(&refused.error)),
            };
        }
    }

    /// The app that is shown, its place among all, and what was seen of it.
    pub fn current(&self) -> Option<(&App, &Series)> {
        let app = &self.stats.as_ref()?.apps.get(self.position())?;
        Some((app, self.series.get(&app.name)?))
    }

    pub fn position(&self) -> usize {
        let apps = self.stats.iter().flat_map(|stats| &stats.apps);
        let named = |app: &App| Some(&app.name) == self.app.as_ref();
        apps.into_iter().position(named).unwrap_or(0)
    }

    /// The workers in the order in which they are shown.
    pub fn workers(&self) -> Vec<&Worker> {
        let Some((app, series)) = self.current() else {
            return Vec::new();
        };
        let mut workers: Vec<&Worker> = app.workers.iter().collect();
        let age = |worker: &Worker| worker.request.as_ref().map_or(-1.0, |it| it.age_seconds);
        let rate = |worker: &Worker| series.rate(worker.generation, worker.slot).unwrap_or(-1.0);
        // Stable: what is equal stays in the order of generation and slot.
        workers.sort_by_key(|worker| (worker.generation, worker.slot));
        workers.sort_by(|a, b| match self.sort {
            Sort::Running => age(b).total_cmp(&age(a)),
            Sort::Slot => a.slot.cmp(&b.slot),
            Sort::State => a.state.cmp(&b.state),
            Sort::Rate => rate(b).total_cmp(&rate(a)),
            Sort::Requests => b.requests.cmp(&a.requests),
            Sort::Memory => b.pss_bytes.cmp(&a.pss_bytes),
            Sort::Age => b.age_seconds.total_cmp(&a.age_seconds),
        });
        if self.order == Order::Reversed {
            workers.reverse();
        }
        workers
    }

    /// The row of the selected worker, while it is there.
    pub fn row(&self, workers: &[&Worker]) -> Option<usize> {
        let selected = self.selected?;
        workers
            .iter()
            .position(|it| (it.generation, it.slot) == selected)
    }

    pub fn key(&mut self, key: Key) -> Option<Effect> {
        match (key, &mut self.page) {
            (Key::Interrupt | Key::Char('q'), _) => return Some(Effect::Quit),
            (Key::Suspend, _) => return Some(Effect::Suspend),
            (Key::Char('p' | ' '), _) => {
                self.motion = match self.motion {
                    Motion::Running => Motion::Paused,
                    Motion::Paused => Motion::Running,
                }
            }
            (Key::Char('?' | 'h'), Page::Overview) => self.page = Page::Help,
            (Key::Escape | Key::Char('?' | 'h'), Page::Help) => self.page = Page::Overview,
            (Key::Escape, Page::Stack(_)) => self.page = Page::Overview,
            (Key::Char('r') | Key::Enter, Page::Stack(page))
                if page.content != Content::Waiting =>
            {
                page.content = Content::Waiting;
                return Some(Effect::Trace {
                    app: page.app.clone(),
                    slot: page.slot,
                });
            }
            (key, Page::Stack(page)) => page.scroll = scrolled(page, key, self.visible),
            (key, Page::Overview) => return self.overview_key(key),
            (_, Page::Help) => {}
        }
        None
    }

    fn overview_key(&mut self, key: Key) -> Option<Effect> {
        match key {
            Key::Char('s' | '>') => self.sort = self.sort.step(1),
            Key::Char('S' | '<') => self.sort = self.sort.step(Sort::ALL.len() - 1),
            Key::Char('r') => {
                self.order = match self.order {
                    Order::Usual => Order::Reversed,
                    Order::Reversed => Order::Usual,
                }
            }
            Key::Char('a') | Key::Tab => self.switch(1),
            Key::Char('A') | Key::BackTab => self.switch(-1),
            Key::Enter => return self.open_stack(),
            Key::Escape => self.selected = None,
            key => self.select(key),
        }
        None
    }

    fn switch(&mut self, by: isize) {
        let apps = self.stats.as_ref().map_or(&[][..], |stats| &stats.apps);
        if apps.is_empty() {
            return;
        }
        let next = (self.position() as isize + by).rem_euclid(apps.len() as isize);
        self.app = Some(apps[next as usize].name.clone());
        self.selected = None;
    }

    fn select(&mut self, key: Key) {
        let workers = self.workers();
        let Some(last) = workers.len().checked_sub(1) else {
            return;
        };
        let row = match self.row(&workers) {
            Some(row) => moved(row, key, last, self.visible),
            None => match key {
                Key::End | Key::Char('G') => Some(last),
                key => moved(0, key, last, self.visible).map(|_| 0),
            },
        };
        if let Some(row) = row {
            self.selected = Some((workers[row].generation, workers[row].slot));
        }
    }

    /// That of the selected worker, or else of the first one.
    fn open_stack(&mut self) -> Option<Effect> {
        let workers = self.workers();
        let worker = workers.get(self.row(&workers).unwrap_or(0))?;
        let (slot, app) = (worker.slot, self.current()?.0.name.clone());
        self.selected = Some((worker.generation, slot));
        self.page = Page::Stack(StackPage {
            app: app.clone(),
            slot,
            content: Content::Waiting,
            scroll: 0,
        });
        Some(Effect::Trace { app, slot })
    }
}

fn scrolled(page: &StackPage, key: Key, visible: usize) -> usize {
    let Content::Lines(lines) = &page.content else {
        return page.scroll;
    };
    let last = lines.len().saturating_sub(visible.max(1));
    moved(page.scroll.min(last), key, last, visible).unwrap_or(page.scroll)
}

/// Where a key leads from a row; `None` for a key that leads nowhere.
fn moved(row: usize, key: Key, last: usize, visible: usize) -> Option<usize> {
    let page = visible.max(2) - 1;
    Some(match key {
        Key::Up | Key::Char('k') => row.saturating_sub(1),
        Key::Down | Key::Char('j') => (row + 1).min(last),
        Key::PageUp => row.saturating_sub(page),
        Key::PageDown => (row + page).min(last),
        Key::Home | Key::Char('g') => 0,
        Key::End | Key::Char('G') => last,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
