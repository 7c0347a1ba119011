//! Serves one application with several servers in turn and compares what a request costs.
//!
//! Requests per second depend on what else the machine does; CPU time per request much less, so
//! that is the figure tables are sorted by. Every server is started anew for each sample, proves
//! that it answers correctly, is warmed up and measured; rounds are interleaved, so that a slow
//! minute of the machine hits every server. Nothing here asserts a speed.

#[path = "../common/arguments.rs"]
mod arguments;
mod clients;
#[path = "../common/environment.rs"]
mod environment;
mod floor;
#[path = "../common/http.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod http;
mod limit;
mod load;
#[path = "../common/module.rs"]
mod module;
mod probe;
#[path = "../common/process.rs"]
mod process;
mod report;
mod servers;
#[path = "../common/usage.rs"]
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use environment::Environment;
use load::{AccessLog, WORKLOADS, Workload};
use process::{Cpus, Placement, Running};
use report::{Outcome, Sample};
use servers::{Logs, SERVERS, Server};

/// Seconds; wrk knows no shorter run.
const WARM_UP: u32 = 1;

struct Options {
    rounds: u32,
    seconds: u32,
    workers: u32,
    placement: Placement,
    python: PathBuf,
    workloads: Vec<&'static Workload>,
    servers: Vec<&'static Server>,
}

fn main() -> ExitCode {
    let matches = command_line().get_matches();
    if let Some(("floor", matches)) = matches.subcommand() {
        let error = floor::serve(number(matches, "port") as u16, number(matches, "workers"));
        eprintln!("floor: {error}");
        return ExitCode::FAILURE;
    }
    if let Some(("clients", matches)) = matches.subcommand() {
        return play(matches);
    }
    match options(&matches).and_then(|options| compare(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command_line() -> Command {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_delimiter(',').help(help)
    };
    Command::new("compare")
        .about("Compares rswsgi with other servers on this machine")
        .args([
            arguments::number("rounds", "3", "Samples per server and workload"),
            arguments::number("seconds", "2", "Length of a sample"),
            arguments::number(
                "workers",
                "1",
                "Processes that serve, per server (mixed: always 4)",
            ),
            list("only", "Workloads to run, by name"),
            list("servers", "Servers to run, by name"),
            Arg::new("python")
                .long("python")
                .default_value("python3")
                .value_parser(value_parser!(PathBuf))
                .help("Interpreter the virtual environment is made from"),
            Arg::new("confine")
                .long("confine")
                .action(ArgAction::SetTrue)
                .help("Keep the server off the load generator's CPU"),
            arguments::bench(),
        ])
        .subcommand(
            Command::new("floor")
                .about("Internal: serve fixed responses")
                .args([
                    arguments::number("port", "8000", ""),
                    arguments::number("workers", "1", ""),
                ]),
        )
        .subcommand(
            Command::new("clients")
                .about("Internal: ask for a workload with requests that differ")
                .args([
                    arguments::number("port", "8000", ""),
                    arguments::number("seconds", "1", ""),
                ])
                .arg(Arg::new("workload").long("workload").default_value("mixed")),
        )
}

fn play(matches: &ArgMatches) -> ExitCode {
    let name = matches.get_one::<String>("workload");
    let workload = WORKLOADS
        .iter()
        .find(|w| Some(w.name) == name.map(String::as_str));
    let Some(workload) = workload else {
        eprintln!("clients: no such workload");
        return ExitCode::FAILURE;
    };
    let port = number(matches, "port") as u16;
    match clients::play(workload, port, number(matches, "seconds")) {
        Ok(measured) => {
            println!("{measured}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(matches: &ArgMatches, name: &str) -> u32 {
    *matches.get_one(name).expect("the option has a default")
}

fn options(matches: &ArgMatches) -> Result<Options, String> {
    Ok(Options {
        rounds: number(matches, "rounds"),
        seconds: number(matches, "seconds"),
        workers: number(matches, "workers"),
        placement: match matches.get_flag("confine") {
            true => Placement::Confined,
            false => Placement::Anywhere,
        },
        python: matches
            .get_one::<PathBuf>("python")
            .expect("the option has a default")
            .clone(),
        workloads: chosen(matches, "only", &WORKLOADS, |workload| workload.name)?,
        servers: chosen(matches, "servers", &SERVERS, |server| server.name)?,
    })
}

/// The rows of `table` that the option names, in the order of the table; all without the option.
fn chosen<T>(
    matches: &ArgMatches,
    option: &str,
    table: &'static [T],
    name: fn(&T) -> &'static str,
) -> Result<Vec<&'static T>, String> {
    let Some(wanted) = matches.get_many::<String>(option) else {
        return Ok(table.iter().collect());
    };
    let wanted: Vec<&str> = wanted.map(String::as_str).collect();
    let known: Vec<&str> = table.iter().map(name).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !known.contains(wanted)) {
        return Err(format!(
            "--{option} {unknown}: unknown, choose from {}",
            known.join(", ")
        ));
    }
    Ok(table
        .iter()
        .filter(|row| wanted.contains(&name(row)))
        .collect())
}

fn compare(options: &Options) -> Result<(), String> {
    process::require(&["wrk", "taskset", "setpriv"])?;
    let cpus = Cpus::split(options.placement)?;
    let environment = Environment::prepare(&options.python, None)?;
    println!("{}", report::preamble(options, &environment, &cpus));
    for workload in &options.workloads {
        let servers = options
            .servers
            .iter()
            .filter(|server| server.takes_part(workload));
        let mut outcomes: Vec<Outcome> = servers.map(|s| Outcome::new(s)).collect();
        for round in 1..=options.rounds {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.works()) {
                let sample = sample(outcome.server, workload, options, &environment, &cpus);
                eprintln!(
                    "{} round {round}, {}: {}",
                    workload.name,
                    outcome.server.name,
                    report::progress(&sample)
                );
                outcome.add(sample);
            }
        }
        println!("{}", report::table(workload, &outcomes));
    }
    Ok(())
}

/// Starts the server, measures one workload once and stops the server.
fn sample(
    server: &Server,
    workload: &Workload,
    options: &Options,
    environment: &Environment,
    cpus: &Cpus,
) -> Result<Sample, String> {
    if let Some(package) = server.package {
        environment.has(package)?;
    }
    if server.is_ours() {
        module::is_current()?;
    }
    let workers = workload.workers.unwrap_or(options.workers);
    let port = process::free_port()?;
    let access_log = process::scratch(&format!("{}-access.log", server.name));
    let _ = std::fs::remove_file(&access_log);
    let command = (server.command)(&servers::Start {
        port,
        workers,
        module: workload.module,
        environment,
        access_log: (workload.log == AccessLog::On).then_some(&access_log),
    });
    let mut running = Running::start(command, server.name, &cpus.server)?;
    let manners = probe::wait_until_right(&mut running, port, workload, workers)?;
    load::run(workload, port, WARM_UP, &cpus.load)?;

    let before = usage::Usage::of(&running.tree());
    let load = load::run(workload, port, options.seconds, &cpus.load)?;
    let tree = running.tree();
    let spent = usage::Usage::of(&tree).since(&before);
    if workload.log == AccessLog::On {
        let path = match server.logs {
            Logs::ToOutput => process::scratch(&format!("{}.log", server.name)),
            Logs::ToFile | Logs::No => access_log,
        };
        has_lines(&path, load.requests)?;
    }
    Ok(Sample {
        load,
        cpu_per_request: spent.as_secs_f64() * 1e6 / load.requests as f64,
        proportional_set: usage::memory(&tree).proportional,
        manners,
    })
}

/// A log that is missing requests would be a cheap one. What was asked last may not be there yet.
fn has_lines(path: &std::path::Path, requests: u64) -> Result<(), String> {
    let shown = path.display();
    let log = std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
    match lines * 100 >= requests * 99 {
        true => Ok(()),
        false => Err(format!("{lines} lines in {shown} for {requests} requests")),
    }
}
