//! Which metrics there are.

use super::text::{Page, Type};
use crate::control::Stats;
use crate::control::stats::{App, Bucket, Distribution};

/// A number of an app, with the value of its second label.
type Sample<'a> = (&'a str, f64);

/// Bounds of histogram buckets, in units of 2^10 ns (1.024 µs), the resolution of what is counted:
/// powers of two from 131 µs to 69 s, about two per factor of four.
const BOUNDS: std::ops::RangeInclusive<u32> = 7..=26;

pub fn write(stats: &Stats, page: &mut Page) {
    let server = &stats.server;
    page.family(
        "rswsgi_info",
        Type::Gauge,
        "The version of the server; always 1.",
    );
    page.sample(&[("version", &server.version)], 1.0);
    let help = "When the server was started, since 1970-01-01 00:00 UTC.";
    page.family("rswsgi_start_time_seconds", Type::Gauge, help);
    page.sample(&[], server.started_seconds);
    gauges(&stats.apps, page);
    counters(&stats.apps, page);
    let help = "Time from the complete request to the handed-over response.";
    histogram(
        page,
        "rswsgi_request_duration_seconds",
        help,
        &stats.apps,
        |app| &app.latency,
    );
    let help = "Time requests waited in the kernel before their connection was accepted: a sample, TCP only.";
    histogram(
        page,
        "rswsgi_queue_duration_seconds",
        help,
        &stats.apps,
        |app| &app.queue,
    );
    let help = "Time connections waited for the worker that took them over from another.";
    histogram(
        page,
        "rswsgi_relay_duration_seconds",
        help,
        &stats.apps,
        |app| &app.relay.wait,
    );
}

fn gauges(apps: &[App], page: &mut Page) {
    let mut gauge = |name, help, of: &dyn Fn(&App) -> Option<f64>| {
        page.family(name, Type::Gauge, help);
        for app in apps {
            if let Some(value) = of(app) {
                page.sample(&[("app", &app.name)], value);
            }
        }
    };
    gauge("rswsgi_up", "Whether a generation serves.", &|app| {
        Some(f64::from(u8::from(app.generation.is_some())))
    });
    gauge(
        "rswsgi_generation",
        "Number of the generation that serves.",
        &|app| Some(app.generation.as_ref()?.number as f64),
    );
    gauge(
        "rswsgi_generation_age_seconds",
        "Time since its master was started.",
        &|app| Some(app.generation.as_ref()?.age_seconds),
    );
    gauge(
        "rswsgi_last_reload_ok",
        "Whether the last reload ended well.",
        &|app| {
            let reload = app
                .reload
                .as_ref()
                .filter(|reload| reload.result != "under way")?;
            Some(f64::from(u8::from(reload.result == "ok")))
        },
    );
    gauge("rswsgi_workers_min", "Fewest workers.", &|app| {
        Some(app.pool.min.into())
    });
    gauge("rswsgi_workers_max", "Most workers.", &|app| {
        Some(app.pool.max.into())
    });
    gauge(
        "rswsgi_workers_target",
        "Workers there are to be now.",
        &|app| Some(app.pool.target.into()),
    );
    gauge(
        "rswsgi_requests_in_flight",
        "Requests in the application now.",
        &|app| Some(app.requests.in_flight.into()),
    );
    gauge(
        "rswsgi_oldest_request_seconds",
        "Age of the oldest running request; 0 without one.",
        &|app| {
            let ages = app
                .workers
                .iter()
                .filter_map(|worker| worker.request.as_ref());
            Some(ages.map(|request| request.age_seconds).fold(0.0, f64::max))
        },
    );
    gauge("rswsgi_connections_open", "Open connections.", &|app| {
        Some(app.connections.open as f64)
    });
    gauge(
        "rswsgi_memory_sample_age_seconds",
        "Time since the memory was looked at.",
        &|app| Some(app.memory.as_ref()?.age_seconds),
    );
    gauge(
        "rswsgi_memory_pss_bytes",
        "Proportional set size of master and workers.",
        &|app| Some(app.memory.as_ref()?.pss_bytes as f64),
    );
    gauge(
        "rswsgi_memory_uss_bytes",
        "Unique set size of the workers.",
        &|app| Some(app.memory.as_ref()?.uss_bytes as f64),
    );
    gauge(
        "rswsgi_memory_private_dirty_bytes",
        "Memory that workers have written since their fork.",
        &|app| Some(app.memory.as_ref()?.private_dirty_bytes as f64),
    );
    labelled(
        page,
        Type::Gauge,
        "rswsgi_workers",
        "state",
        "Workers by state.",
        apps,
        |app| {
            let pool = &app.pool;
            [
                ("starting", pool.starting),
                ("idle", pool.idle),
                ("busy", pool.busy),
                ("draining", pool.draining),
            ]
            .map(|(state, count)| (state, count.into()))
            .to_vec()
        },
    );
    let help = "Connections that wait to be accepted.";
    labelled(
        page,
        Type::Gauge,
        "rswsgi_listener_backlog",
        "listener",
        help,
        apps,
        |app| {
            let backlog = app.listeners.iter();
            backlog
                .filter_map(|l| Some((l.name.as_str(), l.backlog?.into())))
                .collect()
        },
    );
    let help = "Connections that may wait to be accepted.";
    labelled(
        page,
        Type::Gauge,
        "rswsgi_listener_backlog_limit",
        "listener",
        help,
        apps,
        |app| {
            let backlog = app.listeners.iter();
            backlog
                .filter_map(|l| Some((l.name.as_str(), l.backlog_limit?.into())))
                .collect()
        },
    );
}

fn counters(apps: &[App], page: &mut Page) {
    let mut counter = |name, help, of: &dyn Fn(&App) -> u64| {
        page.family(name, Type::Counter, help);
        for app in apps {
            page.sample(&[("app", &app.name)], of(app) as f64);
        }
    };
    counter(
        "rswsgi_requests_total",
        "Requests that reached the application.",
        &|app| app.requests.total,
    );
    counter(
        "rswsgi_connections_accepted_total",
        "Accepted connections.",
        &|app| app.connections.accepted,
    );
    counter(
        "rswsgi_received_bytes_total",
        "Bytes received from clients.",
        &|app| app.bytes.received_bytes,
    );
    counter(
        "rswsgi_sent_bytes_total",
        "Bytes sent to clients.",
        &|app| app.bytes.sent_bytes,
    );
    counter("rswsgi_worker_spawns_total", "Workers forked.", &|app| {
        app.processes.spawns
    });
    counter(
        "rswsgi_workers_retired_total",
        "Workers that left for want of work.",
        &|app| app.processes.retired,
    );
    counter(
        "rswsgi_relay_taken_total",
        "Connections that workers have taken over from others.",
        &|app| app.relay.taken,
    );
    counter(
        "rswsgi_relay_full_total",
        "Attempts to send a connection on while too many were under way.",
        &|app| app.relay.full,
    );
    counter(
        "rswsgi_relay_refused_total",
        "Connections that were taken over and could not be served.",
        &|app| app.relay.refused,
    );
    let help = "Connections that workers have sent to others, by cause.";
    labelled(
        page,
        Type::Counter,
        "rswsgi_relayed_total",
        "cause",
        help,
        apps,
        |app| {
            let relay = &app.relay;
            [
                ("busy", relay.busy),
                ("drain", relay.drain),
                ("stuck", relay.stuck),
                ("balance", relay.balance),
            ]
            .map(|(cause, count)| (cause, count as f64))
            .to_vec()
        },
    );
    let help = "Responses by class of status.";
    labelled(
        page,
        Type::Counter,
        "rswsgi_responses_total",
        "class",
        help,
        apps,
        |app| {
            let requests = &app.requests;
            [
                ("2xx", requests.status_2xx),
                ("3xx", requests.status_3xx),
                ("4xx", requests.status_4xx),
                ("5xx", requests.status_5xx),
            ]
            .map(|(class, count)| (class, count as f64))
            .to_vec()
        },
    );
    let help = "What went wrong, by kind.";
    labelled(
        page,
        Type::Counter,
        "rswsgi_errors_total",
        "kind",
        help,
        apps,
        |app| {
            let errors = &app.errors;
            [
                ("exception", errors.exceptions),
                ("soft_timeout", errors.soft_timeouts),
                ("hard_timeout", errors.hard_timeouts),
                ("crash", errors.crashes),
                ("start_failure", errors.start_failures),
                ("master_crash", errors.master_crashes),
                ("client_abort", errors.client_aborts),
                ("broken_response", errors.broken_responses),
                ("unlogged_request", errors.unlogged_requests),
            ]
            .map(|(kind, count)| (kind, count as f64))
            .to_vec()
        },
    );
    let help = "Requests refused by the server, by reason.";
    labelled(
        page,
        Type::Counter,
        "rswsgi_refused_total",
        "reason",
        help,
        apps,
        |app| {
            let refused = app.errors.refused.iter();
            refused
                .map(|(reason, count)| (reason.as_str(), *count as f64))
                .collect()
        },
    );
    let help = "Workers replaced as planned, by reason.";
    labelled(
        page,
        Type::Counter,
        "rswsgi_workers_recycled_total",
        "reason",
        help,
        apps,
        |app| {
            let processes = &app.processes;
            [
                ("requests", processes.recycled_requests),
                ("age", processes.recycled_age),
                ("memory", processes.recycled_memory),
                ("asked", processes.recycled_asked),
            ]
            .map(|(reason, count)| (reason, count as f64))
            .to_vec()
        },
    );
    let help = "Reloads, by result.";
    labelled(
        page,
        Type::Counter,
        "rswsgi_reloads_total",
        "result",
        help,
        apps,
        |app| {
            let (ok, failed) = (app.processes.reloads, app.errors.failed_reloads);
            vec![("ok", ok as f64), ("failed", failed as f64)]
        },
    );
}

fn labelled<'a>(
    page: &mut Page,
    kind: Type,
    name: &'static str,
    label: &str,
    help: &str,
    apps: &'a [App],
    of: impl Fn(&'a App) -> Vec<Sample<'a>>,
) {
    page.family(name, kind, help);
    for app in apps {
        for (value, number) in of(app) {
            page.sample(&[("app", &app.name), (label, value)], number);
        }
    }
}

fn histogram(
    page: &mut Page,
    name: &'static str,
    help: &str,
    apps: &[App],
    of: impl Fn(&App) -> &Distribution,
) {
    page.family(name, Type::Histogram, help);
    for app in apps {
        let distribution = of(app);
        let app = ("app", app.name.as_str());
        for power in BOUNDS {
            let bound = f64::from(1u32 << power) * 1.024e-6;
            // Bounds are ends of buckets; what is left is the error of a conversion.
            let below = |end: Option<f64>| end.is_some_and(|end| end <= bound * 1.001);
            let within = distribution
                .buckets
                .iter()
                .filter(|b| below(b.below_seconds));
            // Numbers of an application that may lie.
            let add = |sum: u64, bucket: &Bucket| sum.wrapping_add(bucket.count);
            let count = within.fold(0, add);
            let shown = format!("{bound:.6}");
            page.suffixed("_bucket", &[app, ("le", &shown)], count as f64);
        }
        let count = distribution.count as f64;
        page.suffixed("_bucket", &[app, ("le", "+Inf")], count);
        page.suffixed("_sum", &[app], distribution.sum_seconds);
        page.suffixed("_count", &[app], count);
    }
}
