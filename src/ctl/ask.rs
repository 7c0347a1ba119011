//! Does what the command line asks for, once: finds the server, asks, shows the answer.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::client::{self, Client, Deadline};
use super::command::{self, Invocation, Output, Task};
use super::find::{self, State};
use super::show::{self, Paint};
use super::{Error, Exit, Result, print, say, top, wait};
use crate::control::stats::Stats;
use crate::control::{
    AppList, Config, HowToStop, Level, LogTail, Ping, Recycled, Reloaded, Request, Scaled,
    Stopping, Trace, Verb, Why, read_reply,
};

/// How long an answer may take that needs nothing but the server.
const SHORT: Duration = Duration::from_secs(10);
/// How long `wait` waits.
const LONG: Duration = Duration::from_secs(60);

pub fn run(invocation: &Invocation) -> Result<()> {
    let deadline = client::deadline(invocation.timeout.or_else(|| usual(&invocation.task)));
    match &invocation.task {
        Task::Completions(shell) => completions(*shell),
        Task::List => list(invocation, deadline),
        Task::Wait(until) => wait::wait(invocation, *until, deadline),
        Task::Top(options) => top::run(invocation, *options, deadline),
        Task::Ask(Verb::Stop(how)) => stop(invocation, *how, deadline),
        Task::Ask(verb) => ask(invocation, verb, deadline),
        Task::Requests { older } => {
            let stats = stats(invocation, deadline)?;
            let running = show::running(&stats, older.as_secs_f64());
            present(invocation, json!({ "requests": running }), |paint| {
                show::requests(&running, paint)
            })
        }
        Task::Workers => {
            let stats = stats(invocation, deadline)?;
            let workers = show::crew(&stats);
            present(invocation, json!({ "workers": workers }), |paint| {
                show::workers(&workers, paint)
            })
        }
    }
}

fn usual(task: &Task) -> Option<Duration> {
    match task {
        // The server has limits of its own for these, which its settings say.
        Task::Ask(Verb::Reload | Verb::Stop(_)) => None,
        Task::Wait(_) => Some(LONG),
        _ => Some(SHORT),
    }
}

/// The server that is meant; a deadline for finding it even where the answer may take its time.
pub fn connect(invocation: &Invocation, deadline: Deadline) -> Result<Client> {
    let deadline = deadline.or_else(|| client::deadline(Some(SHORT)));
    let (client, skipped) = find::server(invocation, deadline)?;
    if invocation.output == Output::Human {
        skipped.iter().for_each(|line| say(line));
    }
    Ok(client)
}

fn stats(invocation: &Invocation, deadline: Deadline) -> Result<Stats> {
    let mut client = connect(invocation, deadline)?;
    client.stats(invocation.app.as_deref(), deadline)
}

/// Something of our own making, in the form of a reply or in that for people.
fn present(
    invocation: &Invocation,
    body: serde_json::Value,
    human: impl FnOnce(Paint) -> String,
) -> Result<()> {
    match invocation.output {
        Output::Human => print(&human(paint())),
        Output::Json => {
            #[derive(Serialize)]
            struct Line {
                ok: bool,
                #[serde(flatten)]
                body: serde_json::Value,
            }
            let line = serde_json::to_string(&Line { ok: true, body });
            print(&(line.expect("all keys are texts") + "\n"))
        }
    }
}

/// Colours are for terminals, and for people who want them (no-color.org).
pub fn paint() -> Paint {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match wanted && std::io::stdout().is_terminal() {
        true => Paint::Ansi,
        false => Paint::None,
    }
}

fn ask(invocation: &Invocation, verb: &Verb, deadline: Deadline) -> Result<()> {
    let mut client = connect(invocation, deadline)?;
    let line = exchange(invocation, &mut client, verb, deadline)?;
    if invocation.output == Output::Json {
        return Ok(());
    }
    let paint = paint();
    print(&match verb {
        Verb::Ping => show::ping(&read::<Ping>(&line)?),
        Verb::Stats => show::stats(&client::understood(read(&line)?)?, client.path(), paint),
        Verb::Reload => show::reloaded(&read::<Reloaded>(&line)?),
        Verb::Scale(_) => show::scaled(&read::<Scaled>(&line)?),
        Verb::Recycle { .. } => show::recycled(&read::<Recycled>(&line)?),
        Verb::Trace(_) => show::trace(&read::<Trace>(&line)?, paint),
        Verb::Config => show::config(&read::<Config>(&line)?, paint),
        Verb::Apps => show::apps(&read::<AppList>(&line)?, paint),
        Verb::Logs => show::logs(&read::<LogTail>(&line)?, paint),
        Verb::Why => show::why(&read::<Why>(&line)?, paint),
        Verb::LogLevel { .. } => show::level(&read::<Level>(&line)?),
        Verb::Reopen => "log files opened anew\n".to_owned(),
        Verb::Stop(_) => String::new(),
    })
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    Ok(read_reply(line)?)
}

/// Asks; prints the reply where it is wanted as it came, also one that refuses.
fn exchange(
    invocation: &Invocation,
    client: &mut Client,
    verb: &Verb,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let request = Request {
        app: invocation.app.clone(),
        verb: verb.clone(),
    };
    let line = client.ask(&request, deadline)?;
    let verdict = read::<serde::de::IgnoredAny>(&line);
    match (invocation.output, verdict) {
        (Output::Human, Ok(_)) => Ok(line),
        (Output::Human, Err(error)) if *verb == Verb::Reload => Err(Error {
            message: format!("reload failed: {}", error.message),
            ..error
        }),
        (Output::Human, Err(error)) => Err(error),
        (Output::Json, verdict) => {
            print(&String::from_utf8_lossy(&line))?;
            // All has been said.
            let silent = |error: Error| Error::new(error.exit, "");
            verdict.map(|_| line).map_err(silent)
        }
    }
}

/// Asks, and waits until the server is gone: it closes the connection by its end.
fn stop(invocation: &Invocation, how: HowToStop, deadline: Deadline) -> Result<()> {
    let mut client = connect(invocation, deadline)?;
    let since = Instant::now();
    let line = exchange(invocation, &mut client, &Verb::Stop(how), deadline)?;
    if let Some(app) = read::<Stopping>(&line)?.app {
        return match invocation.output {
            Output::Human => print(&format!("{}: its processes leave\n", show::escape(&app))),
            Output::Json => Ok(()),
        };
    }
    client
        .wait_end(deadline)
        .map_err(|error| match error.exit {
            Exit::TimedOut => Error::new(
                error.exit,
                "the server is stopping, and has not ended in time",
            ),
            _ => error,
        })?;
    match invocation.output {
        Output::Human => print(&show::stopped(since.elapsed())),
        Output::Json => Ok(()),
    }
}

/// Every server there is; without any the exit status says so.
fn list(invocation: &Invocation, deadline: Deadline) -> Result<()> {
    let places = find::survey(deadline);
    let (mut servers, mut skipped) = (Vec::new(), Vec::new());
    for place in &places {
        let control = place.path.to_string_lossy().into_owned();
        match &place.state {
            State::Live(ping, _) => servers.push(show::Server { control, ping }),
            State::Not(error) => skipped.push((control, error)),
        }
    }
    let reasons = skipped
        .iter()
        .map(|(control, error)| json!({ "control": control, "reason": error.message }));
    let body = json!({ "servers": servers, "skipped": reasons.collect::<Vec<_>>() });
    if !servers.is_empty() || invocation.output == Output::Json {
        present(invocation, body, |paint| show::servers(&servers, paint))?;
    }
    if !servers.is_empty() {
        if invocation.output == Output::Human {
            skipped
                .iter()
                .for_each(|(_, error)| say(&format!("skipped: {error}")));
        }
        return Ok(());
    }
    let nobody = find::nobody(
        skipped
            .into_iter()
            .map(|(_, error)| error.clone())
            .collect(),
    );
    Err(match invocation.output {
        Output::Human => nobody,
        Output::Json => Error::new(nobody.exit, ""),
    })
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command::command(), "rswsgictl", &mut script);
    print(&String::from_utf8_lossy(&script))
}
