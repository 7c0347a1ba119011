//! Command lines: `gunicorn -w 4 shop:app`, `web: gunicorn ...` of a Procfile, `uwsgi --http :80 ...`.

#![forbid(unsafe_code)]

use super::{Given, Row, Takes, find, gunicorn, uwsgi};

/// A command that starts a server.
#[derive(Debug, PartialEq)]
pub enum Command {
    Gunicorn {
        /// The file that is named, to be read before these options.
        config: Option<String>,
        options: Vec<Given>,
        notes: Vec<String>,
    },
    Uwsgi {
        options: Vec<Given>,
        notes: Vec<String>,
    },
}

/// Reads a command line, or the line `web:` of a Procfile.
pub fn parse(text: &str) -> Result<Command, String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("web:"))
        .or_else(|| text.lines().find(|line| !line.trim().is_empty()))
        .unwrap_or_default();
    let words = shlex::split(line).ok_or("a quote in it is not closed")?;
    let server = words.iter().position(|word| server(word).is_some());
    let Some(at) = server else {
        return Err("it is neither a file nor a command line of gunicorn or uwsgi".into());
    };
    let (before, arguments) = (&words[..at], &words[at + 1..]);
    let is_module = before.ends_with(&["-m".to_owned()]);
    let mut notes = Vec::new();
    let mut options = Vec::new();
    let mut by_way_of = Vec::new();
    for word in before {
        match word.split_once('=') {
            Some((name, _)) if !name.is_empty() && !name.starts_with('-') => {
                options.push(Given::new("env", serde_json::json!([word])));
            }
            _ if word == "exec" || is_module => {}
            _ => by_way_of.push(word.as_str()),
        }
    }
    if !by_way_of.is_empty() {
        notes.push(format!("it was started by way of: {}", by_way_of.join(" ")));
    }
    match server_of(&words[at]) {
        Some(Server::Uwsgi) => {
            // Each is an option of its own there.
            for option in &mut options {
                option.value = option.value[0].clone();
            }
            flags(uwsgi::TABLE, arguments, &mut options, |_| None);
            Ok(Command::Uwsgi { options, notes })
        }
        _ => {
            let env: Vec<_> = options
                .drain(..)
                .map(|option| option.value[0].clone())
                .collect();
            let positional = |_: &str| Some("wsgi_app");
            flags(gunicorn::TABLE, arguments, &mut options, positional);
            let config = options.iter().rev().find(|option| option.name == "config");
            let config = config
                .and_then(|option| option.value.as_str())
                .map(str::to_owned);
            options.retain(|option| option.name != "config");
            let options = repeated(options, env);
            Ok(Command::Gunicorn {
                config,
                options,
                notes,
            })
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Gunicorn,
    Uwsgi,
}

fn server(word: &str) -> Option<Server> {
    server_of(word)
}

fn server_of(word: &str) -> Option<Server> {
    match word.rsplit('/').next().unwrap_or_default() {
        "gunicorn" | "gunicorn3" | "gunicorn.app.wsgiapp" => Some(Server::Gunicorn),
        "uwsgi" | "uwsgi-core" | "uwsgi_python3" => Some(Server::Uwsgi),
        _ => None,
    }
}

/// Reads `--name value`, `--name=value`, `-n value`, `-nvalue`.
fn flags(
    table: &'static [Row],
    words: &[String],
    options: &mut Vec<Given>,
    positional: impl Fn(&str) -> Option<&'static str>,
) {
    let mut words = words.iter().map(String::as_str).peekable();
    let mut only_positional = false;
    while let Some(word) = words.next() {
        if word == "--" {
            only_positional = true;
            continue;
        }
        if only_positional || !word.starts_with('-') || word == "-" {
            match positional(word) {
                Some(name) => options.push(Given::new(name, word)),
                None => options.push(config_file(word)),
            }
            continue;
        }
        let (flag, inline) = match word.starts_with("--") {
            true => match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            },
            false => {
                let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
                let rest = word[end..].trim_start_matches('=');
                (&word[..end], Some(rest).filter(|rest| !rest.is_empty()))
            }
        };
        let Some(row) = by_flag(table, flag) else {
            let value = inline.or_else(|| words.next_if(|next| !next.starts_with('-')));
            options.push(Given::new(flag, value.unwrap_or("true")));
            continue;
        };
        let value = match row.takes {
            Takes::Nothing => inline.map_or(serde_json::Value::Bool(true), Into::into),
            Takes::Value => {
                let value = inline.or_else(|| words.next_if(|next| !is_flag(next)));
                value.map_or(serde_json::Value::Bool(true), Into::into)
            }
        };
        // The names in a row of uWSGI need not be synonyms.
        let name = if has_flags(table) {
            row.name()
        } else {
            bare(flag)
        };
        options.push(Given::new(name, value));
    }
}

/// Whether the table has flags beside names.
fn has_flags(table: &[Row]) -> bool {
    table[0].names.contains("--")
}

fn bare(flag: &str) -> &str {
    flag.trim_start_matches('-')
}

fn is_flag(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// uWSGI takes a configuration file, or an address, without a flag.
fn config_file(word: &str) -> Given {
    match word.rsplit_once('.') {
        Some((_, "ini" | "yaml" | "yml" | "json" | "xml")) => Given::new("config", word),
        _ => Given::new("socket", word),
    }
}

/// gunicorn takes the start of a flag that no other has; uWSGI's options are flags by their names.
fn by_flag(table: &'static [Row], flag: &str) -> Option<&'static Row> {
    let exact = find(table, flag).or_else(|| match has_flags(table) {
        true => None,
        false => find(table, &bare(flag).replace('_', "-")),
    });
    exact.or_else(|| {
        let mut rows = table.iter().filter(|row| {
            let mut names = row.names.split(' ');
            flag.len() > 3 && flag.starts_with("--") && names.any(|name| name.starts_with(flag))
        });
        let first = rows.next()?;
        rows.next().is_none().then_some(first)
    })
}

/// Options that are given several times make a list.
fn repeated(options: Vec<Given>, env: Vec<serde_json::Value>) -> Vec<Given> {
    const LISTS: [&str; 4] = [
        "bind",
        "raw_env",
        "reload_extra_files",
        "raw_paste_global_conf",
    ];
    let mut joined: Vec<Given> = Vec::new();
    if !env.is_empty() {
        joined.push(Given::new("raw_env", env));
    }
    for option in options {
        let before = joined.iter_mut().find(|other| other.name == option.name);
        match before {
            Some(before) if LISTS.contains(&option.name.as_str()) => {
                match &mut before.value {
                    serde_json::Value::Array(values) => values.push(option.value),
                    single => *single = vec![single.take(), option.value].into(),
                };
            }
            _ => joined.push(option),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Vec<(String, String)> {
        let (Command::Gunicorn { options, .. } | Command::Uwsgi { options, .. }) =
            parse(line).unwrap();
        options
            .into_iter()
            .map(|given| (given.name, given.value.to_string()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn flags_are_read_in_every_spelling() {
        let expected = pairs(&[
            ("workers", "\"4\""),
            ("bind", "[\":80\",\"unix:/a b\"]"),
            ("preload_app", "true"),
            ("timeout", "\"9\""),
            ("errorlog", "\"-\""),
            ("wsgi_app", "\"shop:app\""),
        ]);
        let line = "gunicorn -w4 --bind=:80 -b 'unix:/a b' --preload -t 9 --log-file - shop:app";
        assert_eq!(options(line), expected);
        let line = "/srv/bin/gunicorn -w 4 -b :80 --bind 'unix:/a b' --pre --timeout=9 --error-logfile=- shop:app";
        assert_eq!(options(line), expected);
    }

    #[test]
    fn a_procfile_and_what_stands_before_the_server() {
        let text = "release: python manage.py migrate\nweb: A=1 newrelic-admin run-program gunicorn -c x.py app\n";
        let Command::Gunicorn {
            config,
            options,
            notes,
        } = parse(text).unwrap()
        else {
            panic!("another server");
        };
        assert_eq!(config.as_deref(), Some("x.py"));
        assert_eq!(
            options[0],
            Given::new("raw_env", serde_json::json!(["A=1"]))
        );
        assert!(notes[0].contains("newrelic-admin"), "{notes:?}");
        assert!(parse("python -m gunicorn app").is_ok());
        assert!(parse("waitress-serve app:app").is_err());
        assert!(parse("gunicorn 'app").is_err());
    }

    #[test]
    fn the_flags_of_uwsgi_are_its_options() {
        assert_eq!(
            options(
                "uwsgi --http :80 -p 4 --master -M --wsgi-file=a.py --die-on-term /run/a.sock x.ini"
            ),
            pairs(&[
                ("http", "\":80\""),
                ("p", "\"4\""),
                ("master", "true"),
                ("M", "true"),
                ("wsgi-file", "\"a.py\""),
                ("die-on-term", "true"),
                ("socket", "\"/run/a.sock\""),
                ("config", "\"x.ini\""),
            ])
        );
    }
}
