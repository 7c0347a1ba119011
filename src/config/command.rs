//! The command line: a clap command built from the table, and the layer it yields.
//!
//! clap knows names, values and help; it neither reads values nor fills in defaults, that is left
//! to the layers. Nothing is printed here.

#![forbid(unsafe_code)]

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use clap_complete::Shell;

use super::layers::{Layer, Source};
use super::setting::{Kind, Setting};
use super::subcommand::{self, Subcommand};
use super::table::SETTINGS;
use crate::error::{Error, Exit, Result};

const ABOUT: &str = "Prefork WSGI application server";

const USAGE: &str = "rswsgi [OPTIONS] MODULE[:EXPRESSION]
       rswsgi [OPTIONS] --config FILE
       rswsgi request [OPTIONS] MODULE[:EXPRESSION] [PATH]    answer one request without a server
       rswsgi convert [OPTIONS] SOURCE    print a configuration of gunicorn or uWSGI as one of rswsgi";

const AFTER_HELP: &str = "\
Durations are written 500ms, 30s, 5m or 1h, a bare number is seconds; sizes 512, 8k, 1m or 1g, a bare number is bytes.
Precedence: default, then configuration file, then environment variable, then command line. In an environment variable the values of a \
repeatable option stand between ',' (bind), ':' (sys-path) or line breaks (env).
A module called request or convert is served by rswsgi -- request, or as request:app.
Relative paths start in the directory rswsgi was started in, those of a configuration file in its directory.

Exit status: 0 stopped as asked, 1 failed while running, 64 wrong usage, 69 address in use or pid file held by another, 70 internal error, \
71 refused by the operating system, 77 no permission, 78 configuration or application cannot be loaded.";

/// The one setting that is a positional argument.
const TARGET: &str = "target";

/// What the arguments ask for.
#[derive(Debug)]
pub(super) enum Arguments {
    Layer(Layer),
    Subcommand {
        layer: Layer,
        subcommand: Subcommand,
    },
    /// Text of `--help` or `--version`.
    Print(String),
}

/// The command as clap sees it; also the source of the man page and the completions.
pub fn command() -> Command {
    let settings = SETTINGS.iter().map(argument);
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the version")
        .help_heading("Actions");
    Command::new("rswsgi")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .override_usage(USAGE)
        .after_long_help(AFTER_HELP)
        .after_help("More with --help")
        .max_term_width(100)
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(settings)
        .args([help("Actions"), version])
}

pub(super) fn help(heading: &'static str) -> Arg {
    Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .help("Print help: -h a summary, --help everything")
        .help_heading(heading)
}

pub(super) fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name)
        .help(short_help(setting))
        .long_help(long_help(setting))
        .action(match setting.kind {
            Kind::Switch => ArgAction::SetTrue,
            Kind::List { .. } => ArgAction::Append,
            _ => ArgAction::Set,
        });
    let argument = match setting.value {
        "" => argument,
        value => argument.value_name(value).value_hint(hint(setting)),
    };
    if setting.name == TARGET {
        return argument;
    }
    let argument = argument
        .long(setting.name)
        .help_heading(setting.section.title());
    match setting.short {
        Some(short) => argument.short(short),
        None => argument,
    }
}

/// For completions.
fn hint(setting: &Setting) -> ValueHint {
    match (setting.name, setting.value) {
        ("python", _) => ValueHint::ExecutablePath,
        ("user", _) => ValueHint::Username,
        (_, "DIR") => ValueHint::DirPath,
        (_, "FILE" | "WHERE") => ValueHint::FilePath,
        _ => ValueHint::Other,
    }
}

/// A script for this shell: `bash`, `zsh` or `fish`.
pub(super) fn completions(shell: &str) -> Result<String, String> {
    let shell: Shell = shell.parse()?;
    // Values are read elsewhere; here they are to be offered.
    let choices = SETTINGS.iter().filter_map(|setting| match setting.kind {
        Kind::Choice(choices) => Some((setting.name, choices)),
        _ => None,
    });
    let whole = command().subcommands(subcommand::subcommands());
    let mut command = choices.fold(whole, |command, (name, choices)| {
        command.mut_arg(name, |arg| {
            arg.value_parser(PossibleValuesParser::new(choices))
        })
    });
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "rswsgi", &mut script);
    String::from_utf8(script).map_err(|error| error.to_string())
}

fn short_help(setting: &Setting) -> String {
    match setting.default {
        Some(default) if !default.is_empty() => format!("{} [{default}]", setting.help),
        _ => setting.help.to_owned(),
    }
}

fn long_help(setting: &Setting) -> String {
    let mut facts = Vec::new();
    if let Kind::Choice(choices) = setting.kind {
        facts.push(format!("[values: {}]", choices.join(", ")));
    }
    if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
        facts.push(format!("[default: {default}]"));
    }
    if let Some(variable) = setting.variable() {
        facts.push(format!("[environment: {variable}]"));
    }
    let mut help = format!("{}.", setting.help);
    if !setting.long_help.is_empty() {
        help = format!("{help} {}", setting.long_help);
    }
    match facts.is_empty() {
        true => help,
        false => format!("{help}\n{}", facts.join(" ")),
    }
}

/// Reads the arguments; the first is the name of the program.
pub(super) fn read(args: impl Iterator<Item = OsString>) -> Result<Arguments> {
    let args: Vec<OsString> = args.collect();
    if let Some(read) = subcommand::read(&args) {
        return read;
    }
    match command().try_get_matches_from(args) {
        Ok(matches) => Ok(Arguments::Layer(layer(&matches))),
        Err(error) => failed("rswsgi", &error),
    }
}

/// Help is asked for by what clap calls an error. `program`: with the name of a command.
pub(super) fn failed(program: &str, error: &clap::Error) -> Result<Arguments> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Ok(Arguments::Print(error.render().to_string()))
        }
        _ => Err(usage(program, error)),
    }
}

pub(super) fn layer(matches: &ArgMatches) -> Layer {
    let mut layer = Layer::new(Source::CommandLine);
    // A subcommand does not have all of them: an error in a debug build of clap, nothing in others.
    for setting in SETTINGS {
        if let Kind::Switch = setting.kind {
            if let Ok(Some(true)) = matches.try_get_one::<bool>(setting.name) {
                layer.set(setting, vec!["yes".to_owned()]);
            }
        } else if let Ok(Some(values)) = matches.try_get_many::<String>(setting.name) {
            layer.set(setting, values.cloned().collect());
        }
    }
    layer
}

/// clap's finding in one line.
fn usage(program: &str, error: &clap::Error) -> Error {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg);
    let message = match (error.kind(), argument) {
        (ErrorKind::UnknownArgument, Some(argument)) if argument.starts_with('-') => {
            format!("unknown option {argument:?}")
        }
        (ErrorKind::UnknownArgument, Some(argument)) => {
            format!("unexpected argument {argument:?}")
        }
        (ErrorKind::MissingRequiredArgument, Some(argument)) => format!("{argument} is missing"),
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    };
    let error = Error::new(Exit::Usage, message);
    match context(ContextKind::SuggestedArg) {
        Some(suggestion) => error.advise(format!("did you mean {suggestion:?}?")),
        None => error.advise(format_args!("see {program} --help")),
    }
}
