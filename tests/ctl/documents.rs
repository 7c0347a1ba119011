//! Man page and completions, compared with the command line.

use crate::support::{Scratch, ctl};
use std::path::Path;
use std::process::Command;

fn manual() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/rswsgictl.1");
    std::fs::read_to_string(path).expect("read the man page")
}

/// Long options of a command as the man page writes them: `\-\-log\-level`.
fn options(command: &clap::Command) -> Vec<String> {
    let long = command.get_arguments().filter_map(|arg| arg.get_long());
    long.filter(|name| !["help", "version"].contains(name))
        .map(|name| format!("\\-\\-{}", name.replace('-', "\\-")))
        .collect()
}

#[test]
fn the_manual_has_every_verb_and_option_and_exit_status() {
    let manual = manual();
    let command = rswsgi::ctl::command();
    let mut missing = options(&command);
    for verb in command.get_subcommands() {
        let name = verb.get_name().replace('-', "\\-");
        let head = format!(".SS {name}\n");
        let start = manual.find(&head);
        let Some(start) = start else {
            missing.push(head);
            continue;
        };
        let section = &manual[start + head.len()..];
        let end = section.find("\n.S").unwrap_or(section.len());
        let options = options(verb).into_iter();
        missing.extend(options.filter(|option| !section[..end].contains(option)));
    }
    missing.retain(|word| !manual.contains(word) || word.starts_with(".SS"));
    assert!(missing.is_empty(), "man/rswsgictl.1 lacks {missing:?}");
    let statuses = (0..=5).map(|status| format!(".B {status}\n"));
    for status in statuses {
        assert!(manual.contains(&status), "no {status:?}");
    }
}

#[test]
fn the_manual_names_no_verb_that_is_gone() {
    let command = rswsgi::ctl::command();
    let verbs: Vec<_> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    let manual = manual();
    let heads = manual.lines().filter_map(|line| line.strip_prefix(".SS "));
    for head in heads {
        let name = head.replace("\\-", "-");
        assert!(verbs.contains(&name.as_str()), "{name} is no verb");
    }
}

#[test]
fn completions_know_the_verbs() {
    let dir = Scratch::new();
    for (shell, syntax) in [("bash", true), ("zsh", false), ("fish", false)] {
        let said = ctl(dir.path(), &["completions", shell]).done();
        let said = said.shows(&["rswsgictl", "reload", "log-level", "interval"]);
        if syntax {
            let script = dir.file("script");
            std::fs::write(&script, &said.out).expect("write a script");
            let status = Command::new(shell).arg("-n").arg(&script).status();
            assert!(status.expect("start the shell").success());
        }
    }
}
