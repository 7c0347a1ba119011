//! Serves one application over Multi-WAS and over HTTP on a Unix socket, and compares what a request costs.
//!
//! Both are asked by the load generator of this file: one thread, clients that ask again as soon as
//! they are answered, each over one connection that stays. Only the CPU time of the server is compared; rounds
//! are interleaved, so that a slow minute of the machine hits both. Nothing here asserts a speed.

#[path = "../common/arguments.rs"]
mod arguments;
mod clients;
#[path = "../common/module.rs"]
mod module;
#[path = "../common/process.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod process;
#[path = "../common/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what is common")]
mod usage;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, value_parser};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use clients::{Client, Http, Was};
use process::{Cpus, Placement, Running};
use usage::Usage;

const WARM_UP: Duration = Duration::from_secs(1);
/// For the first answer, with the import of the application in it.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What is asked for, and how long the answer is.
pub struct Workload {
    pub name: &'static str,
    pub path: &'static str,
    /// Bytes posted; nothing means GET.
    pub upload: usize,
    pub answer: usize,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "hello, 14 bytes",
        path: "/hello",
        upload: 0,
        answer: 14,
    },
    Workload {
        name: "16 KB POST, read by the application",
        path: "/upload",
        upload: 16_384,
        answer: 6,
    },
    Workload {
        name: "1 MiB response",
        path: "/big",
        upload: 0,
        answer: 1 << 20,
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum FrontEnd {
    MultiWas,
    Http,
}

impl FrontEnd {
    const ALL: [FrontEnd; 2] = [FrontEnd::MultiWas, FrontEnd::Http];

    fn name(self) -> &'static str {
        match self {
            FrontEnd::MultiWas => "Multi-WAS",
            FrontEnd::Http => "HTTP, Unix socket",
        }
    }
}

struct Options {
    rounds: u32,
    seconds: u32,
    workers: u32,
    clients: u32,
    python: PathBuf,
}

struct Sample {
    requests: u64,
    cpu: Duration,
    elapsed: Duration,
}

fn main() -> ExitCode {
    match compare(&options(&command_line().get_matches())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("was: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command_line() -> clap::Command {
    clap::Command::new("was")
        .about("Compares Multi-WAS with HTTP over a Unix socket")
        .args([
            arguments::number("rounds", "5", "Samples per front end and workload"),
            arguments::number("seconds", "2", "Length of a sample"),
            arguments::number("workers", "1", "Processes that serve"),
            arguments::number(
                "clients",
                "8",
                "Connections, each with one request at a time",
            ),
            Arg::new("python")
                .long("python")
                .default_value("python3")
                .value_parser(value_parser!(PathBuf))
                .help("Interpreter that runs the application"),
            arguments::bench(),
        ])
}

fn options(matches: &ArgMatches) -> Options {
    let number = |name| *matches.get_one::<u32>(name).expect("it has a default");
    Options {
        rounds: number("rounds"),
        seconds: number("seconds"),
        workers: number("workers"),
        clients: number("clients"),
        python: matches
            .get_one::<PathBuf>("python")
            .expect("it has a default")
            .clone(),
    }
}

fn compare(options: &Options) -> Result<(), String> {
    process::require(&["taskset", "setpriv"])?;
    module::is_current()?;
    // A server beside its clients would be measured with their cache misses.
    let cpus = Cpus::split(Placement::Confined)?;
    stay_on(&cpus.load)?;
    println!("{}\n", preamble(options));
    println!("| | | requests per CPU second | CPU µs/request | to HTTP | CPU A-B µs | req/s |");
    println!("|---|---|---|---|---|---|---|");
    for workload in &WORKLOADS {
        let mut samples = [Vec::new(), Vec::new()];
        for round in 1..=options.rounds {
            for (front_end, samples) in FrontEnd::ALL.into_iter().zip(&mut samples) {
                eprintln!("{}, {}, round {round}", workload.name, front_end.name());
                samples.push(measure(options, &cpus, front_end, workload)?);
            }
        }
        let http = median(&samples[1], micros);
        for (front_end, samples) in FrontEnd::ALL.into_iter().zip(&samples) {
            let cost = median(samples, micros);
            let all = || samples.iter().map(micros);
            let lowest = all().fold(f64::INFINITY, f64::min);
            let highest = all().fold(0.0, f64::max);
            let per_second = median(samples, |s| s.requests as f64 / s.elapsed.as_secs_f64());
            println!(
                "| {} | {} | {:.0} | {cost:.1} | {:.2} | {lowest:.1}-{highest:.1} | {per_second:.0} |",
                workload.name,
                front_end.name(),
                1e6 / cost,
                cost / http,
            );
        }
    }
    println!("\nload average at the end: {}", load_average());
    Ok(())
}

fn preamble(options: &Options) -> String {
    format!(
        "{} rounds of {} s, {} worker(s), {} clients; load average before: {}",
        options.rounds,
        options.seconds,
        options.workers,
        options.clients,
        load_average()
    )
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn micros(sample: &Sample) -> f64 {
    sample.cpu.as_secs_f64() * 1e6 / sample.requests.max(1) as f64
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut all: Vec<f64> = samples.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Keeps the load generator, this process, on one CPU.
fn stay_on(cpu: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot stay on CPU {cpu}: {error}");
    let number = cpu.parse::<usize>().map_err(|error| failed(&error))?;
    let mut set = CpuSet::new();
    set.set(number).map_err(|error| failed(&error))?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| failed(&error))
}

/// A fresh server, warmed up.
fn measure(
    options: &Options,
    cpus: &Cpus,
    front_end: FrontEnd,
    workload: &Workload,
) -> Result<Sample, String> {
    let failed = |error| format!("cannot make a socket: {error}");
    let path = process::scratch("was-bench.sock");
    let _ = std::fs::remove_file(&path);
    let mut command = command(options);
    let mut clients: Vec<Box<dyn Client>> = Vec::new();
    let (running, multi) = match front_end {
        FrontEnd::MultiWas => {
            let (multi, stdin) = clients::multi().map_err(failed)?;
            let running = Running::start_on(Stdio::from(stdin), command, "was", &cpus.server)?;
            for _ in 0..options.clients {
                let client = Was::connect(&multi, workload).map_err(failed)?;
                clients.push(Box::new(client));
            }
            (running, Some(multi))
        }
        FrontEnd::Http => {
            command
                .arg("--bind")
                .arg(format!("unix:{}", path.display()));
            let mut running = Running::start(command, "was-http", &cpus.server)?;
            wait_for(&mut running, &path)?;
            for _ in 0..options.clients {
                let client = Http::connect(&path, workload).map_err(failed)?;
                clients.push(Box::new(client));
            }
            (running, None)
        }
    };
    let played = play(&mut clients, &running, options.seconds);
    let words = running.last_words();
    drop((clients, multi));
    drop(running);
    played.map_err(|error| format!("{}: {error}{words}", front_end.name()))
}

fn command(options: &Options) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rswsgi"));
    command
        .arg("--python")
        .arg(&options.python)
        .args(["--workers", &options.workers.to_string()])
        .args(["app:application"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/apps"));
    command
}

fn wait_for(running: &mut Running, path: &std::path::Path) -> Result<(), String> {
    let deadline = Instant::now() + START_LIMIT;
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        if let Some(reason) = running.gone() {
            return Err(reason);
        }
        if Instant::now() > deadline {
            return Err("no answer".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn play(
    clients: &mut [Box<dyn Client>],
    running: &Running,
    seconds: u32,
) -> Result<Sample, String> {
    for client in clients.iter_mut() {
        client.ask().map_err(|error| error.to_string())?;
    }
    // The first answers come when the application has been imported.
    let first = clients::serve(
        clients,
        Instant::now() + START_LIMIT,
        clients::Until::AllAnswered,
    )?;
    if first == 0 {
        return Err("no answer".into());
    }
    clients::serve(clients, Instant::now() + WARM_UP, clients::Until::Time)?;
    let (began, before) = (Instant::now(), Usage::of(&running.tree()));
    let span = Duration::from_secs(seconds.into());
    let requests = clients::serve(clients, began + span, clients::Until::Time)?;
    let elapsed = began.elapsed();
    let cpu = Usage::of(&running.tree()).since(&before);
    Ok(Sample {
        requests,
        cpu,
        elapsed,
    })
}
