//! The commands beside serving: `rswsgi request` and `rswsgi convert`.
//!
//! A name is a command only as the first argument. A module of the same name is served by
//! `rswsgi request:app`, `rswsgi -- request`, or with any option before it.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::ask::{self, Ask, Data, ShowHead};
use super::command::{Arguments, argument, failed, help, layer};
use super::setting::{Section, Setting};
use super::table::SETTINGS;
use crate::error::{Error, Exit, Result};

/// What a command does beside what the settings say.
#[derive(Debug)]
pub enum Subcommand {
    Request {
        ask: Ask,
        data: Option<Data>,
    },
    /// A file or a command line of another server.
    Convert {
        source: String,
    },
}

const REQUEST_HELP: &str = "\
The application answers in a process of its own, without a server, and without a time limit. Only the body of the \
response goes to standard output; what the application prints goes to standard error. Options of serving are taken, too, and \
mean nothing.

  rswsgi request shop.wsgi                                the page at /
  rswsgi request -i -H 'Accept: text/html' shop.wsgi '/find?q=tea'
  rswsgi request -d name=tea -d price=3 shop.wsgi /new    a form, by POST
  rswsgi request -X PUT -H 'Content-Type: application/json' -d @tea.json shop.wsgi /tea/1
  rswsgi request -s shop.wsgi /refresh >/dev/null         for cron
  rswsgi request --config /etc/shop.toml https://shop.example/start

Exit status: 0 for an answer below 400, 22 for one of 400 or more (as curl --fail), 1 when the application raises or \
breaks off its response, 64 wrong usage, 78 when it cannot be loaded.";

const CONVERT_HELP: &str = "\
SOURCE is gunicorn.conf.py, uwsgi.ini (or .yaml, .json), a Procfile, or a command line in quotes. The configuration \
goes to standard output, as TOML; options without an equivalent stand at its end, with what comes nearest.

gunicorn.conf.py is a program: it is executed, by the interpreter of the application (--python, --venv), because it \
may import what is installed there. As root it is executed as the owner of the file, unless --user says otherwise.

  rswsgi convert gunicorn.conf.py > rswsgi.toml
  rswsgi convert --venv venv gunicorn.conf.py
  rswsgi convert 'gunicorn -w 4 -b 0.0.0.0:80 shop.wsgi'
  rswsgi convert /etc/uwsgi/apps-enabled/shop.ini

Exit status: 0 when there is a configuration, also one without some of the options, 64 wrong usage, 78 when the \
source cannot be read.";

/// All of them, as clap sees them; also the source of man page and completions.
pub fn subcommands() -> [Command; 2] {
    [request(), convert()]
}

fn request() -> Command {
    let settings = SETTINGS
        .iter()
        .filter(|setting| setting.section != Section::Actions || setting.name == "config");
    // What only a server has is taken, too, so that its command line can be used as it is.
    let matters = |setting: &Setting| match setting.section {
        Section::Application | Section::Privileges | Section::Actions => true,
        _ => ["underscore-fields", "error-pages"].contains(&setting.name),
    };
    let settings = settings.map(move |setting| argument(setting).hide(!matters(setting)));
    let own = |name: &'static str, value: &'static str, help: &'static str| {
        let argument = Arg::new(name).long(name).help(help).help_heading("Request");
        match value {
            "" => argument.action(ArgAction::SetTrue),
            value => argument.value_name(value).action(ArgAction::Append),
        }
    };
    Command::new("request")
        .about("Answer one request without a server and print the response")
        .override_usage("rswsgi request [OPTIONS] MODULE[:EXPRESSION] [PATH]")
        .after_help("More with --help")
        .after_long_help(REQUEST_HELP)
        .arg(
            own("request", "METHOD", "Method [GET, with --data POST]")
                .short('X')
                .action(ArgAction::Set),
        )
        .arg(
            own(
                "header",
                "NAME: VALUE",
                "Header field to send; repeatable, 'NAME:' leaves one out",
            )
            .short('H'),
        )
        .arg(
            own(
                "data",
                "DATA|@FILE",
                "Body to send, as it is; @- is standard input",
            )
            .short('d')
            .allow_hyphen_values(true),
        )
        .arg(own("include", "", "Print status and header to standard output").short('i'))
        .arg(
            own("silent", "", "Do not print status and header")
                .short('s')
                .conflicts_with("include"),
        )
        .args(settings)
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .help("/path?query, or http://host/path [/]"),
        )
        .arg(help("Actions"))
}

fn convert() -> Command {
    let settings = SETTINGS
        .iter()
        .filter(|setting| ["python", "venv", "user", "group"].contains(&setting.name));
    Command::new("convert")
        .about("Print a configuration of gunicorn or uWSGI as one of rswsgi")
        .override_usage("rswsgi convert [OPTIONS] SOURCE")
        .after_help("More with --help")
        .after_long_help(CONVERT_HELP)
        .arg(
            Arg::new("source")
                .value_name("SOURCE")
                .required(true)
                .help("File, or command line in quotes"),
        )
        .args(settings.map(argument))
        .arg(help("Actions"))
}

/// The arguments after the name of the command; `None` when that is no command.
pub(super) fn read(arguments: &[OsString]) -> Option<Result<Arguments>> {
    let name = arguments.get(1)?;
    let command = subcommands()
        .into_iter()
        .find(|command| OsStr::new(command.get_name()) == name)?;
    let is_request = command.get_name() == "request";
    let shown = format!("rswsgi {}", command.get_name());
    let command = command
        .bin_name(&shown)
        .max_term_width(100)
        .args_override_self(true)
        .disable_help_flag(true);
    Some(match command.try_get_matches_from(&arguments[1..]) {
        Err(error) => failed(&shown, &error),
        Ok(matches) if is_request => read_request(&matches),
        Ok(matches) => Ok(Arguments::Subcommand {
            layer: layer(&matches),
            subcommand: Subcommand::Convert {
                source: text(&matches, "source").unwrap_or_default(),
            },
        }),
    })
}

fn text(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.get_one::<String>(name).cloned()
}

fn read_request(matches: &ArgMatches) -> Result<Arguments> {
    let bad = |name: &str| {
        let name = name.to_owned();
        move |reason: String| Error::new(Exit::Usage, format!("{name}: {reason}"))
    };
    let all = |name: &str| {
        let values = matches.get_many::<String>(name).into_iter().flatten();
        values.cloned().collect::<Vec<_>>()
    };
    let mut layer = layer(matches);
    let path = match (layer.last("target"), text(matches, "path")) {
        // The target is in the configuration, this is the path.
        (Some(first), None) if is_path(first) => {
            let path = first.to_owned();
            layer.values.remove("target");
            path
        }
        (_, path) => path.unwrap_or_else(|| "/".into()),
    };
    let data = ask::read_data(&all("data")).map_err(bad("--data"))?;
    let mut fields = Vec::new();
    let mut without = Vec::new();
    for field in all("header") {
        match ask::read_field(&field).map_err(bad("--header"))? {
            (name, Some(value)) => fields.push((name, value)),
            (name, None) => without.push(name),
        }
    }
    let method = match text(matches, "request") {
        Some(method) => ask::read_method(&method).map_err(bad("--request"))?,
        None if data.is_some() => "POST".into(),
        None => "GET".into(),
    };
    let ask = Ask {
        method,
        to: ask::read_path(&path).map_err(bad("path"))?,
        fields,
        without,
        show_head: match (matches.get_flag("include"), matches.get_flag("silent")) {
            (true, _) => ShowHead::Stdout,
            (false, true) => ShowHead::Nowhere,
            (false, false) => ShowHead::Stderr,
        },
    };
    Ok(Arguments::Subcommand {
        layer,
        subcommand: Subcommand::Request { ask, data },
    })
}

/// No module starts like this.
fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.contains("://")
}
