//! The pages.

#![forbid(unsafe_code)]

use super::access::Role;
use super::client::Id;
use super::is_public;
use super::pending::{Pending, Then};
use super::verbs::TEXT;
use crate::control::{Page, Reply, Wanted};
use crate::metrics;
use crate::supervisor::app::App;
use crate::supervisor::{Course, Supervisor};
use crate::sys::clock::Nanos;

impl Supervisor {
    pub(super) fn turn_to(&mut self, client: Id, role: Role, page: Page, now: Nanos) {
        let wanted = match page.wanted {
            Ok(wanted) if role == Role::Public && !is_public(wanted) => Err(404),
            // Pages are about all apps.
            Ok(wanted) if role.owner().is_some() && wanted != Wanted::Health => Err(404),
            wanted => wanted,
        };
        match wanted {
            Ok(Wanted::Health) => {
                let (status, text) = self.health();
                let answer = (status, TEXT, text.as_bytes());
                self.control.page(client, page, answer, now);
            }
            Ok(Wanted::Stats | Wanted::Metrics) => {
                let pending = Pending::new(client, None, Then::Page(page));
                if let Some(Pending { client, .. }) = self.wants_sample(pending, now) {
                    self.show(client, page, now);
                }
            }
            Err(status) => {
                let answer = (
                    status,
                    TEXT,
                    &b"there are /stats, /metrics and /health\n"[..],
                );
                self.control.page(client, page, answer, now);
            }
        }
    }

    pub(super) fn show(&mut self, client: Id, page: Page, now: Nanos) {
        let stats = self.stats(now);
        match page.wanted {
            Ok(Wanted::Metrics) => {
                let format = match page.open_metrics {
                    true => metrics::Format::OpenMetrics,
                    false => metrics::Format::Prometheus,
                };
                let body = metrics::render(&stats, format);
                let answer = (200, format.media_type(), body.as_bytes());
                self.control.page(client, page, answer, now);
            }
            _ => {
                let body = Reply::Stats(Box::new(stats)).write();
                let answer = (200, "application/json", body.as_slice());
                self.control.page(client, page, answer, now);
            }
        }
    }

    fn health(&self) -> (u16, &'static str) {
        // One of many apps is not the health of the server.
        let serves = |app: &App| app.serving().is_some() || app.is_managed();
        match self.course {
            Course::Serving if self.apps.iter().all(serves) => (200, "ok\n"),
            Course::Serving => (503, "nothing serves\n"),
            Course::Draining | Course::Stopping => (503, "the server stops\n"),
        }
    }
}
