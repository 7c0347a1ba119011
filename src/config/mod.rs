//! Settings: one declaration each (`table.rs`), from the command line to [`Settings`].
//!
//! [`parse`] reads the layers (`layers.rs`: defaults < configuration file < environment < command
//! line) and resolves them (`settings.rs`). It is given arguments and environment, and gives back what
//! to do: nothing here prints, exits or changes anything, and only configuration files are opened.

#![forbid(unsafe_code)]

mod apps;
mod ask;
mod before_fork;
mod bind;
mod command;
mod development;
mod example;
mod file;
mod given;
mod hosting;
mod isolation;
mod layers;
mod listen;
mod logs;
mod privileges;
mod proxies;
mod reload;
mod setting;
mod settings;
mod subcommand;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod users;
mod value;
mod variables;
mod workers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use apps::{AppFile, Change, Host, Place};
pub use ask::{Ask, Data, ShowHead};
pub use before_fork::{BeforeFork, ForkSafety, WarmUp, WarmUpFailure};
pub use bind::{Bind, DEFAULT_BIND, FIRST_FD, SOCKET_PATH_LENGTH};
pub use command::command;
pub use development::{Audience, Watching};
pub use example::write_line;
pub use given::Given;
pub use hosting::{HostLimits, Presence};
pub use isolation::{CgroupLimits, Isolation, Preset};
pub use layers::InForce;
pub use listen::{Listen, ProxyProtocol};
pub use logs::{LevelOf, LogSettings, OwnLogs};
pub use privileges::{Privileges, RESOURCES, ResourceLimit};
pub use proxies::{ForwardedField, Proxies};
pub use setting::{Environment, Kind, Scope, Section, Setting, TakesEffect, Value};
pub use settings::{
    ControlSocket, InterpreterSettings, Limits, Recycling, Settings, UnderscoreFields,
};
pub use subcommand::{Subcommand, subcommands};
pub use table::SETTINGS;
pub use target::{DefaultNames, Target};
pub use value::{duration as read_duration, show_duration, show_size};
pub use variables::unknown_variables;
pub use workers::{MAX_WORKERS, Pool, Workers};

use crate::error::{Error, Exit, Result};
use command::Arguments;
use layers::{Layer, Layers, Source};

/// Where a daemon logs, which has no standard error.
const DAEMON_LOG: &str = "syslog";

/// What the program is asked to do.
#[derive(Debug)]
pub enum Invocation {
    Serve(Settings),
    /// The same for many apps.
    Host(Box<Host>),
    /// Import the app, report, exit.
    Check(Settings),
    CheckAll(Box<Host>),
    /// Answer one request, exit.
    Request {
        settings: Box<Settings>,
        ask: Ask,
        data: Option<Data>,
    },
    /// One request, for somebody who types what a WAS client would start.
    Demo {
        settings: Box<Settings>,
        ask: Ask,
    },
    /// Print a configuration of another server as one of ours.
    Convert {
        /// A file or a command line.
        source: String,
        interpreter: InterpreterSettings,
        privileges: Privileges,
    },
    /// Text for standard output; the exit status is 0.
    Print(String),
}

/// Whether a setting takes these values, each by itself.
///
/// # Errors
/// The reason why not.
pub fn accepts(name: &str, texts: &[String]) -> Result<(), String> {
    let mut given = Layer::new(Source::CommandLine);
    given.set(table::setting(name), texts.to_vec());
    if !matches!(name, "target" | "module") {
        given.set(table::setting("target"), vec!["a".to_owned()]);
    }
    let layers = Layers {
        layers: vec![Layer::defaults(), given],
        directory: "/".into(),
    };
    match settings::resolve(&layers) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let start = format!("--{name}: ");
            Err(text.strip_prefix(&start).unwrap_or(&text).to_owned())
        }
    }
}

/// Reads the arguments (the first is the program's name) and the environment.
///
/// # Errors
/// [`Exit::Usage`] for a mistake on the command line, [`Exit::Config`] for one in the environment.
pub fn parse(
    args: impl Iterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation> {
    parse_for(Starter::Somebody, args, env)
}

/// The same, depending on who has started this program.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_for(
    starter: Starter,
    args: impl Iterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation> {
    let directory = working_directory()?;
    parse_in(&directory, args, env, starter)
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|error| Error::io("cannot determine the working directory", &error))
}

/// Who has started this program, as far as it decides what the command line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    Somebody,
    /// The application need not be named: it is where python-was looks for it.
    WasClient,
    /// Somebody who types: what python-was would be called with gets its demo.
    Person,
    /// The same under a name that serves WAS clients only.
    PersonAsWasClient,
}

/// The modules that are tried, in this order.
const WAS_MODULES: [&str; 2] = ["app", "wsgi"];

/// The flags of python-was, and those that say which Python is meant. Any other one asks for a server.
const DEMO_SETTINGS: [&str; 6] = ["sys-path", "module", "app", "python", "venv", "chdir"];

impl Starter {
    fn is_demo(self, layers: &Layers) -> Result<bool> {
        let Some(given) = layers.layers.last() else {
            return Ok(false);
        };
        let is_was = |layer: &Layer| layer.last("bind") == Some("was:");
        let is_server = |layer: &Layer| layer.values.contains_key("bind") && !is_was(layer);
        let names = given.values.contains_key("module") || given.values.contains_key("app");
        let mut given_names = given.values.keys();
        Ok(match self {
            Starter::Somebody | Starter::WasClient => false,
            _ if layers.switch("check")? => false,
            Starter::PersonAsWasClient => true,
            Starter::Person if is_was(given) => true,
            Starter::Person => {
                names
                    && given_names.all(|name| DEMO_SETTINGS.contains(name))
                    && !layers.layers.iter().any(is_server)
            }
        })
    }
}

fn parse_in(
    directory: &Path,
    args: impl Iterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    starter: Starter,
) -> Result<Invocation> {
    if directory.to_str().is_none() {
        let message = format!(
            "cannot run in {}: its name is not UTF-8",
            directory.display()
        );
        return Err(Error::new(Exit::Config, message));
    }
    let (command_line, subcommand) = match command::read(args)? {
        Arguments::Print(text) => return Ok(Invocation::Print(text)),
        Arguments::Layer(layer) => (layer, None),
        Arguments::Subcommand { layer, subcommand } => (layer, Some(subcommand)),
    };
    let mut layers = Layers {
        layers: vec![Layer::defaults(), Layer::environment(&env)?, command_line],
        directory: directory.to_owned(),
    };
    if let Some(Subcommand::Convert { source }) = subcommand {
        return Ok(Invocation::Convert {
            source,
            interpreter: settings::resolve_interpreter(&layers)?,
            privileges: privileges::resolve(&layers)?,
        });
    }
    if let Some(path) = layers.path("config")? {
        layers.layers.splice(1..1, file::layers(&path)?);
    }
    if layers.switch("daemon")? {
        layers.set_default("log", DAEMON_LOG);
    }
    if layers.switch("reload")? {
        layers.set_default("workers", "1");
    }
    if let Some(shell) = layers.text("completions")? {
        let text = layers.check("completions", command::completions(&shell))?;
        return Ok(Invocation::Print(text));
    }
    if layers.switch("print-config")? {
        return Ok(Invocation::Print(example::write(&layers.in_force())));
    }
    let is_named = layers.text("target")?.is_some() || layers.text("module")?.is_some();
    let is_demo = subcommand.is_none() && starter.is_demo(&layers)?;
    if (starter == Starter::WasClient || is_demo) && !is_named {
        layers.set_default("module", WAS_MODULES[0]);
    }
    let resolve = |layers: &Layers| {
        let mut settings = settings::resolve(layers)?;
        // Named as python-was takes it, or not at all.
        let as_python_was = layers.text("target")?.is_none();
        if as_python_was && (starter == Starter::WasClient || is_demo) {
            settings.default_names = DefaultNames::AppFirst;
        }
        Ok::<_, Error>(settings)
    };
    if is_demo {
        let settings = Box::new(resolve(&layers)?);
        let ask = Ask::page();
        return Ok(Invocation::Demo { settings, ask });
    }
    if let Some(Subcommand::Request { ask, data }) = subcommand {
        let settings = Box::new(settings::resolve(&layers)?);
        return Ok(Invocation::Request {
            settings,
            ask,
            data,
        });
    }
    let is_check = layers.switch("check")?;
    Ok(match (Host::read(&layers)?.map(Box::new), is_check) {
        (Some(host), false) => Invocation::Host(host),
        (Some(host), true) => Invocation::CheckAll(host),
        (None, false) => Invocation::Serve(resolve(&layers)?),
        (None, true) => Invocation::Check(resolve(&layers)?),
    })
}
