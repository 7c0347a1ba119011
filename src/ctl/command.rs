//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;

use crate::config;
use crate::control::{DIRECTORIES, HowToStop, Resize, SUFFIX, Verb, Workers};

const ABOUT: &str = "Asks and steers a running rswsgi";

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no server there, 4 timed out, 5 no permission.";

/// Names the control socket instead of `--control`; the server reads it, too.
pub const VARIABLE: &str = "RSWSGI_CONTROL";

/// What the arguments ask for.
#[derive(Debug)]
pub struct Invocation {
    pub control: Option<PathBuf>,
    pub app: Option<String>,
    pub output: Output,
    /// `None`: as long as is usual for this verb.
    pub timeout: Option<Duration>,
    pub task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tables and sentences.
    Human,
    /// The reply as it came.
    Json,
}

#[derive(Debug, PartialEq)]
pub enum Task {
    /// A verb of the control socket.
    Ask(Verb),
    /// The running requests that have been running for so long.
    Requests {
        older: Duration,
    },
    Workers,
    Wait(Until),
    Top(Top),
    /// The servers there are.
    List,
    Completions(Shell),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Answers,
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top {
    pub interval: Option<Duration>,
    /// One frame of this size as text; what is not given comes from the terminal.
    pub once: bool,
    pub width: Option<u16>,
    pub height: Option<u16>,
}

/// The command as clap sees it; also the source of the completions.
pub fn command() -> Command {
    Command::new("rswsgictl")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER_HELP)
        .max_term_width(100)
        .subcommand_required(true)
        .subcommand_value_name("VERB")
        .subcommand_help_heading("Verbs")
        .disable_help_subcommand(true)
        .infer_long_args(false)
        .args(global())
        .subcommands(asking())
        .subcommands(steering())
        .subcommand(app())
        .subcommand(top())
        .subcommand(
            Command::new("completions")
                .about("Print the completions for a shell")
                .arg(
                    Arg::new("shell")
                        .value_name("SHELL")
                        .required(true)
                        .value_parser(["bash", "zsh", "fish"]),
                ),
        )
}

fn global() -> [Arg; 4] {
    let control =
        format!("Control socket of the server [${VARIABLE}, or *.{SUFFIX} in {DIRECTORIES}]");
    [
        Arg::new("control")
            .long("control")
            .value_name("PATH")
            .value_parser(value_parser!(PathBuf))
            .value_hint(ValueHint::FilePath)
            .help(control),
        Arg::new("app")
            .long("app")
            .value_name("NAME")
            .value_parser(NonEmptyStringValueParser::new())
            .help("App it is about; without, all of the server"),
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Print the reply as it came"),
        Arg::new("timeout")
            .long("timeout")
            .value_name("DURATION")
            .value_parser(duration())
            .help("How long to wait [10s; wait: 60s; reload, stop: as long as it takes]"),
    ]
    .map(|arg| arg.global(true))
}

fn duration() -> ValueParser {
    ValueParser::from(config::read_duration)
}

fn verb(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about)
}

fn asking() -> [Command; 10] {
    [
        verb("ping", "Ask whether the server is there, and which it is"),
        verb("stats", "Show what it is doing and what it has done"),
        verb("workers", "Show the workers"),
        verb("requests", "Show the running requests, the oldest first").arg(
            Arg::new("older")
                .long("older")
                .value_name("DURATION")
                .value_parser(duration())
                .help("Only those that have been running for so long"),
        ),
        verb("trace", "Show the Python stacks of workers, now")
            .arg(worker("Only of the worker in this slot"))
            .arg(
                Arg::new("busy")
                    .long("busy")
                    .action(ArgAction::SetTrue)
                    .help("Only of workers that run a request"),
            )
            .group(ArgGroup::new("which").args(["worker", "busy"])),
        verb("config", "Show the settings in force"),
        verb("logs", "Show what apps have logged lately"),
        verb("log-level", "Show the log level, or set it").arg(
            Arg::new("level")
                .value_name("LEVEL")
                .help("error, warning, info or debug; without it the one in force is shown")
                .value_parser(NonEmptyStringValueParser::new()),
        ),
        verb("list", "Show the servers found on this machine"),
        verb("wait", "Wait until the server answers").arg(
            Arg::new("ready")
                .long("ready")
                .action(ArgAction::SetTrue)
                .help("and until its apps serve"),
        ),
    ]
}

fn steering() -> [Command; 5] {
    [
        verb(
            "reload",
            "Start the next generation, and wait until it serves",
        ),
        verb("stop", "Stop the server, and wait until it has ended").arg(
            Arg::new("now")
                .long("now")
                .action(ArgAction::SetTrue)
                .help("Do not wait for running requests"),
        ),
        verb(
            "scale",
            "Change the number of workers until the next reload",
        )
        .arg(
            Arg::new("workers")
                .value_name("+N|-N|N")
                .required(true)
                .allow_hyphen_values(true)
                .value_parser(ValueParser::from(resize))
                .help("So many more, so many fewer, or so many"),
        ),
        verb("recycle", "Replace the workers, as planned").arg(worker("Only the one in this slot")),
        verb("reopen", "Open the log files anew"),
    ]
}

fn worker(help: &'static str) -> Arg {
    Arg::new("worker")
        .long("worker")
        .value_name("N")
        .value_parser(value_parser!(u32))
        .help(help)
}

fn app() -> Command {
    verb(
        "app",
        "Show the apps of the server, or why one does not serve",
    )
    .subcommand_required(true)
    .subcommand(verb(
        "list",
        "Show all apps, also those that cannot be served",
    ))
    .subcommand(
        verb("why", "Tell the story of the last starts of an app").arg(
            Arg::new("name")
                .value_name("NAME")
                .value_parser(NonEmptyStringValueParser::new())
                .help("The app; without, all of them"),
        ),
    )
}

fn top() -> Command {
    let cells = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("CELLS")
            .requires("once")
            .value_parser(value_parser!(u16).range(1..=1000))
            .help(help)
    };
    verb("top", "Watch the server: q leaves, ? explains the keys")
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("DURATION")
                .value_parser(ValueParser::from(interval))
                .help("Time between two looks [1s]"),
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print one frame as plain text"),
        )
        .arg(cells(
            "width",
            "Width of that frame [that of the terminal, or 80]",
        ))
        .arg(cells(
            "height",
            "Height of that frame [that of the terminal, or 24]",
        ))
}

fn interval(text: &str) -> Result<Duration, String> {
    match config::read_duration(text)? {
        shorter if shorter < Duration::from_millis(100) => Err("at least 100ms".to_owned()),
        interval => Ok(interval),
    }
}

fn resize(text: &str) -> Result<Resize, String> {
    let wrong = || format!("{text:?} is no number of workers such as 4, +1 or -1");
    let digits = text.trim_start_matches(['+', '-']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let resize = match text.as_bytes()[0] {
        b'+' | b'-' => text.parse().map(Resize::By),
        _ => text.parse().map(Resize::To),
    };
    resize.map_err(|_| wrong())
}

/// Reads the arguments; the first is the name of the program.
pub fn read(args: impl Iterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let variable = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let control = matches.get_one::<PathBuf>("control").cloned();
    Ok(Invocation {
        control: control.or_else(|| variable().map(PathBuf::from)),
        app: named(&matches).or_else(|| matches.get_one::<String>("app").cloned()),
        output: match matches.get_flag("json") {
            true => Output::Json,
            false => Output::Human,
        },
        timeout: matches.get_one("timeout").copied(),
        task: task(&matches),
    })
}

/// `app why NAME` names an app, too.
fn named(matches: &ArgMatches) -> Option<String> {
    let why = matches
        .subcommand_matches("app")?
        .subcommand_matches("why")?;
    why.get_one::<String>("name").cloned()
}

fn task(matches: &ArgMatches) -> Task {
    let (name, verb) = matches.subcommand().expect("clap insists on a verb");
    let slot = || verb.get_one::<u32>("worker").copied();
    Task::Ask(match name {
        "ping" => Verb::Ping,
        "stats" => Verb::Stats,
        "reload" => Verb::Reload,
        "stop" if verb.get_flag("now") => Verb::Stop(HowToStop::Now),
        "stop" => Verb::Stop(HowToStop::Graceful),
        "scale" => Verb::Scale(*verb.get_one("workers").expect("clap insists on it")),
        "recycle" => Verb::Recycle { worker: slot() },
        "reopen" => Verb::Reopen,
        "trace" if verb.get_flag("busy") => Verb::Trace(Workers::Busy),
        "trace" => Verb::Trace(slot().map_or(Workers::All, Workers::One)),
        "config" => Verb::Config,
        "logs" => Verb::Logs,
        "app" if verb.subcommand_matches("why").is_some() => Verb::Why,
        "app" => Verb::Apps,
        "log-level" => Verb::LogLevel {
            level: verb.get_one("level").cloned(),
        },
        "workers" => return Task::Workers,
        "requests" => {
            let older = verb.get_one("older").copied().unwrap_or_default();
            return Task::Requests { older };
        }
        "wait" if verb.get_flag("ready") => return Task::Wait(Until::Ready),
        "wait" => return Task::Wait(Until::Answers),
        "list" => return Task::List,
        "top" => {
            return Task::Top(Top {
                interval: verb.get_one("interval").copied(),
                once: verb.get_flag("once"),
                width: verb.get_one("width").copied(),
                height: verb.get_one("height").copied(),
            });
        }
        _ => {
            let shell = verb.get_one::<String>("shell").expect("clap insists on it");
            return Task::Completions(match shell.as_str() {
                "bash" => Shell::Bash,
                "zsh" => Shell::Zsh,
                _ => Shell::Fish,
            });
        }
    })
}
