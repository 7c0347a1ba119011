//! Serves one Django project with several servers and compares what each added worker costs in
//! memory, how long a start takes and how long a killed worker is missed.
//!
//! Every worker has to prove that it serves: the project tells in each response which process
//! answered, and the memory is measured when all of them have answered the same number of requests.
//! Nothing here asserts a size.

#[path = "../common/arguments.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod arguments;
#[path = "../common/environment.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod environment;
#[path = "../common/http.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod http;
mod load;
#[path = "../common/module.rs"]
mod module;
#[path = "../common/process.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod process;
mod project;
mod report;
mod servers;
#[path = "../common/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, value_parser};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use environment::Environment;
use load::Visitor;
use process::{Cpus, Placement, Running};
use project::{PROJECTS, Project};
use report::Row;
use servers::{SERVERS, Server};
use usage::Memory;

/// For the memory of the first start, before anything was served, to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(20);
/// Starts per server and number of workers, of which the median counts.
const STARTS: usize = 3;

struct Options {
    workers: Vec<u32>,
    requests: u32,
    pause: Duration,
    project: &'static Project,
    python: PathBuf,
    servers: Vec<&'static Server>,
}

/// What all runs have in common.
struct Bench {
    options: Options,
    environment: Environment,
    cpus: Cpus,
}

fn main() -> ExitCode {
    let matches = command_line().get_matches();
    match options(&matches).and_then(measure_all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command_line() -> clap::Command {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_delimiter(',').help(help)
    };
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        let number = value_parser!(u32);
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(number)
            .help(help)
    };
    clap::Command::new("memory")
        .about("Compares the memory of rswsgi with that of other servers")
        .args([
            list(
                "workers",
                "Numbers of workers; the first is what others are compared with",
            )
            .default_value("1,8,32,64")
            .value_parser(value_parser!(u32).range(1..)),
            number(
                "requests",
                "200",
                "Requests that each worker answers at least",
            ),
            number(
                "pause",
                "1",
                "Seconds between the last answer and the measurement",
            ),
            list("servers", "Servers to run, by name"),
            Arg::new("project")
                .long("project")
                .default_value(PROJECTS[0].name)
                .value_parser(PROJECTS.iter().map(|p| p.name).collect::<Vec<_>>())
                .help("Django project to serve: hardly more than Django, or a whole site"),
            Arg::new("python")
                .long("python")
                .default_value("python3")
                .value_parser(value_parser!(PathBuf))
                .help("Interpreter the virtual environment is made from"),
            arguments::bench(),
        ])
}

fn options(matches: &ArgMatches) -> Result<Options, String> {
    let number = |name| *matches.get_one::<u32>(name).expect("it has a default");
    let servers = match matches.get_many::<String>("servers") {
        None => SERVERS.iter().collect(),
        Some(names) => names
            .map(|name| {
                let known = || SERVERS.iter().map(|server| server.name);
                let found = SERVERS.iter().find(|server| server.name == name);
                found.ok_or_else(|| {
                    let known: Vec<&str> = known().collect();
                    format!(
                        "--servers {name}: unknown, choose from {}",
                        known.join(", ")
                    )
                })
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(Options {
        workers: matches
            .get_many("workers")
            .expect("it has a default")
            .copied()
            .collect(),
        requests: number("requests"),
        pause: Duration::from_secs(number("pause").into()),
        project: Project::named(
            matches
                .get_one::<String>("project")
                .expect("it has a default"),
        ),
        python: matches
            .get_one::<PathBuf>("python")
            .expect("it has a default")
            .clone(),
        servers,
    })
}

fn measure_all(options: Options) -> Result<(), String> {
    process::require(&["taskset", "setpriv"])?;
    module::is_current()?;
    let packages = ["Django", "gunicorn", "granian", "uWSGI"];
    let environment = Environment::prepare(&options.python, Some(&packages))?;
    environment.has("Django")?;
    options.project.prepare(&environment)?;
    let bench = Bench {
        cpus: Cpus::split(Placement::Anywhere)?,
        environment,
        options,
    };
    println!("{}", report::preamble(&bench.options, &bench.environment));
    let mut rows = Vec::new();
    for server in &bench.options.servers {
        let row = match bench.measure(server) {
            Ok(row) => row,
            Err(reason) => Row::failed(server.name, reason),
        };
        eprintln!("{}", row.line(&bench.options.workers));
        rows.push(row);
    }
    println!("{}", report::table(&bench.options.workers, &rows));
    Ok(())
}

impl Bench {
    fn measure(&self, server: &Server) -> Result<Row, String> {
        if let Some(package) = server.package {
            self.environment.has(package)?;
        }
        (server.suits)(&self.environment.python_version)?;
        let mut row = Row::new(server.name);
        for &workers in &self.options.workers {
            eprintln!("{} with {workers} worker(s)", server.name);
            let (idle, served) = self.memory(server, workers)?;
            row.idle.push(idle);
            row.served.push(served);
        }
        row.start_one = self.start_time(server, 1)?;
        row.start_many = self.start_time(server, report::MANY)?;
        row.replacement = self.replacement_time(server);
        Ok(row)
    }

    fn start(&self, server: &Server, workers: u32) -> Result<(Running, u16, Duration), String> {
        let port = process::free_port()?;
        let mut command = (server.command)(&servers::Start {
            port,
            workers,
            environment: &self.environment,
            project: self.options.project,
        });
        self.options.project.surround(&mut command);
        let started = Instant::now();
        let mut running = Running::start(command, server.name, &self.cpus.server)?;
        load::wait_for_answer(&mut running, self.visitor(port))?;
        Ok((running, port, started.elapsed()))
    }

    fn visitor(&self, port: u16) -> Visitor {
        Visitor {
            port,
            paths: self.options.project.paths,
        }
    }

    /// Memory before anything but the first request was served, and after all workers have served.
    fn memory(&self, server: &Server, workers: u32) -> Result<(Memory, Memory), String> {
        let (running, port, _) = self.start(server, workers)?;
        let idle = at_rest(&running);
        load::serve(self.visitor(port), workers, self.options.requests)
            .map_err(|error| format!("{error}{}", running.last_words()))?;
        thread::sleep(self.options.pause);
        Ok((idle, usage::memory(&running.tree())))
    }

    fn start_time(&self, server: &Server, workers: u32) -> Result<Duration, String> {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            times.push(self.start(server, workers)?.2);
        }
        times.sort();
        Ok(times[STARTS / 2])
    }

    /// From the death of the only worker to an answer of its successor.
    fn replacement_time(&self, server: &Server) -> Result<Duration, String> {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let (mut running, port, _) = self.start(server, 1)?;
            let worker = load::ask_once(self.visitor(port)).map_err(|error| error.to_string())?;
            let below = running.tree();
            if !below.iter().any(|process| process.pid == worker) {
                return Err(format!("process {worker} is none of the server's"));
            }
            let killed = Instant::now();
            kill(Pid::from_raw(worker), Signal::SIGKILL).map_err(|error| error.to_string())?;
            load::wait_for_answer(&mut running, self.visitor(port))?;
            times.push(killed.elapsed());
        }
        times.sort();
        Ok(times[STARTS / 2])
    }
}

/// Waits until the servers that start their workers one by one have done so.
fn at_rest(running: &Running) -> Memory {
    let deadline = Instant::now() + REST_LIMIT;
    let mut before = usage::memory(&running.tree());
    loop {
        thread::sleep(Duration::from_millis(1000));
        let now = usage::memory(&running.tree());
        if now.proportional.abs_diff(before.proportional) < 256 || Instant::now() > deadline {
            return now;
        }
        before = now;
    }
}
