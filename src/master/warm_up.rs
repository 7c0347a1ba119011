//! Warm-up requests: the application answers them in the master, so that what it builds on its first
//! requests (routing tables, templates, regular expressions) is there when workers are forked, and
//! shared by them.
//!
//! They take the way of every request but for the socket: what is sent is counted and dropped.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};

use pyo3::prelude::*;

use crate::config::{WarmUp, WarmUpFailure};
use crate::http::forwarded::{Forwarded, Scheme, Sender};
use crate::http::{self, Parsed};
use crate::log;
use crate::python::Failure;
use crate::sys::clock::{self, MILLISECOND};
use crate::wsgi::{
    Application, Body, End, Outcome, Peer, Request, RequestBody, Start, Unsent, Wire,
};

/// Where responses go that nobody reads.
struct Void;

impl Wire for Void {
    fn send(
        &mut self,
        _py: Python<'_>,
        _start: Option<Start<'_>>,
        _body: Body<'_, '_>,
        _end: End,
    ) -> Result<(), Unsent> {
        Ok(())
    }

    fn cut(&mut self) {}
}

/// Runs all requests, also when one fails. They seem to come from this machine, by the first
/// listener.
pub fn run(
    py: Python<'_>,
    application: &mut Application,
    requests: &[WarmUp],
    on_failure: WarmUpFailure,
) -> Result<(), Failure> {
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let peer = Peer::new(py, Some(client));
    for request in requests {
        let started = clock::now();
        let failure = match ask(py, application, request, &peer) {
            Ok(status) => {
                let millis = (clock::now() - started) / MILLISECOND;
                log::info!(
                    "warm-up {} answered {status} in {millis} ms",
                    request.target
                );
                continue;
            }
            Err(failure) => failure,
        };
        match on_failure {
            WarmUpFailure::Refuse => return Err(failure),
            WarmUpFailure::Warn => log::warning!("{}\n{}", failure.reason, failure.traceback),
        }
    }
    Ok(())
}

/// The status, of a request that succeeded.
fn ask(
    py: Python<'_>,
    application: &mut Application,
    request: &WarmUp,
    peer: &Peer,
) -> Result<u16, Failure> {
    let failed = |what: String, traceback: String| Failure {
        reason: format!("the warm-up request for {} {what}", request.target),
        traceback,
    };
    let bytes = request.head();
    let mut scratch = http::scratch();
    let head = match http::head::parse(bytes.as_bytes(), &http::Limits::default(), &mut scratch) {
        Ok(Parsed::Complete(head)) => head,
        Ok(Parsed::Partial) => return Err(failed("is no whole request".into(), String::new())),
        Err(refusal) => {
            let text = format!("is no valid request ({})", refusal.name());
            return Err(failed(text, String::new()));
        }
    };
    let sender = match request.is_https {
        true => Sender::Proxy(Forwarded {
            scheme: Some(Scheme::Https),
            ..Forwarded::default()
        }),
        false => Sender::Unjudged,
    };
    let asked = Request {
        head: &head,
        body: RequestBody::None,
        origin: 0,
        sender: &sender,
        peer,
        // --start-timeout is the limit here.
        deadline: clock::Nanos::MAX,
        id: None,
        was: None,
    };
    let (_, status, outcome) = application.serve(py, asked, Box::new(Void), clock::unix_seconds());
    match outcome {
        Outcome::Failed(traceback) | Outcome::TimedOut(traceback) => {
            Err(failed("failed".into(), traceback))
        }
        Outcome::Broken(what) => Err(failed(
            format!("is answered wrongly: {what}"),
            String::new(),
        )),
        Outcome::Complete | Outcome::ClientGone if status >= 400 => {
            let host = match status {
                400 => format!("; does the application accept the host {:?}?", request.host),
                _ => String::new(),
            };
            Err(failed(
                format!("was answered {status}{host}"),
                String::new(),
            ))
        }
        Outcome::Complete | Outcome::ClientGone => Ok(status),
    }
}
