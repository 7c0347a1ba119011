//! The README and the pages beside it: links lead somewhere, and the program understands what they say it does.

mod readme;

use crate::support::{Scratch, only_rswsgi, python, write_program};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page for people, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for directory in ["docs", "benches"] {
        let entries = fs::read_dir(root().join(directory)).expect("a directory");
        let entries = entries.flatten().map(|entry| entry.path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a page");
        (path, text)
    };
    pages.into_iter().map(read).collect()
}

/// The lines of the text, without those of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        is_code ^= fence;
        !is_code && !fence && !line.starts_with("    ")
    })
}

/// Anchors of headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        let name: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let name = name.replace(' ', "-");
        let number = (1..).map(|number| format!("{name}-{number}"));
        let mut names = [name.clone()].into_iter().chain(number);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    anchors
}

/// Targets of links, with the text that is linked.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text).collect::<Vec<_>>().join("\n");
    // What is in backticks is no link.
    let plain: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let after = plain.split("](").skip(1);
    let targets = after.filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_there_are() {
    let mut followed = 0;
    for (page, text) in pages() {
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("in a directory").join(file),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).expect("a page"));
                assert!(
                    there.contains(anchor),
                    "{}: {link}: {there:?}",
                    page.display()
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 10, "{followed}");
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let text = "# `rswsgi`, and so on\n## A\n## A\n```sh\n# no\n```\n    # no\n#### C-D: (e)\n";
    let expected = ["rswsgi-and-so-on", "a", "a-1", "c-d-e"].map(str::to_owned);
    assert_eq!(anchors(text), expected.into());
    let text = "[a](b.md#c) `[no](d)` and\n[e](#f)\n";
    assert_eq!(links(text), ["b.md#c", "#f"]);
}

/// Blocks of code, indented or fenced, with the number of their first line.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.strip_prefix("    ");
        match (code, open) {
            (Some(code), true) => {
                let (_, text) = blocks.last_mut().expect("it was opened");
                *text += &format!("{code}\n");
            }
            (Some(code), false) => blocks.push((index + 1, format!("{code}\n"))),
            (None, _) => {}
        }
        open = code.is_some();
    }
    blocks
}

/// A directory in which the commands of the pages find what they speak of.
fn workshop() -> Scratch {
    let scratch = Scratch::new();
    let dir = scratch.path();
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    let application = "def application(environ, start_response):\n    \
        start_response('200 OK', [('Content-Length', '0')])\n    return []\n";
    write("shop/__init__.py", "");
    write("shop/wsgi.py", application);
    write("tea.json", "{}\n");
    write("etc/shop.toml", "target = \"shop.wsgi\"\n");
    write("etc/rswsgi/host.toml", "apps-dir = \"apps\"\n");
    fs::create_dir_all(dir.join("etc/rswsgi/apps")).expect("a directory");
    fs::create_dir(dir.join("shop.d")).expect("a directory");
    write("gunicorn.conf.py", "workers = 3\n");
    write(
        "etc/uwsgi/apps-enabled/shop.ini",
        "[uwsgi]\nmodule = shop.wsgi\n",
    );
    // Servers do not serve, they say how they have understood their options.
    let rswsgi = env!("CARGO_BIN_EXE_rswsgi");
    let script = format!(
        "#!/bin/sh\ncase $1 in request | convert) exec {rswsgi} \"$@\" ;; esac\n\
        exec {rswsgi} --print-config \"$@\" >/dev/null\n"
    );
    fs::create_dir(dir.join("bin")).expect("a directory");
    write_program(dir.join("bin/rswsgi"), &script);
    let ctl = format!(
        "#!/bin/sh\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_rswsgictl")
    );
    write_program(dir.join("bin/rswsgictl"), &ctl);
    for name in ["rswsgi", "rswsgictl"] {
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.join("bin").join(name), executable).expect("it is ours");
    }
    scratch
}

/// The command at the start of a line of a page, without what is said about it.
fn command(line: &str) -> Option<String> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let line = line.split("  ").next().expect("a first part");
    let program = line.split(' ').next().expect("a first part");
    matches!(program, "rswsgi" | "rswsgictl").then(|| line.trim_end().to_owned())
}

#[test]
fn the_program_understands_the_commands_of_the_pages() {
    if !only_rswsgi("its pages") {
        return;
    }
    let scratch = workshop();
    let dir = scratch.path();
    let python = python::default().path;
    let mut run = 0;
    for (page, text) in pages() {
        for (number, block) in blocks(&text) {
            // Lines that go on are one.
            let block = block.replace("\\\n", "");
            for line in block.lines().filter_map(command) {
                let here = line.replace(" /etc/", " etc/").replace(" /run/", " run/");
                let output = Command::new("sh")
                    .args(["-c", &here])
                    .env(
                        "PATH",
                        format!("{}:/usr/bin:/bin", dir.join("bin").display()),
                    )
                    .env("RSWSGI_PYTHON", &python)
                    .env("RUNTIME_DIRECTORY", dir)
                    .env("XDG_RUNTIME_DIR", dir)
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    // No server of this machine is asked.
                    .env("RSWSGI_CONTROL", dir.join("nobody.control"))
                    .current_dir(dir)
                    .output()
                    .expect("sh");
                // rswsgictl finds no server, or one of somebody else; it has understood what it was asked for.
                let understood = match line.starts_with("rswsgictl") {
                    true => output.status.code() != Some(2),
                    false => output.status.success(),
                };
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(understood, "{}:{number}: {line}: {said}", page.display());
                run += 1;
            }
        }
    }
    assert!(run > 20, "{run}");
}

#[test]
fn the_configurations_of_the_pages_are_some() {
    if !only_rswsgi("its pages") {
        return;
    }
    let scratch = workshop();
    let dir = scratch.path();
    let mut read = 0;
    for (page, text) in pages() {
        for (number, block) in blocks(&text) {
            let is_key = |line: &str| {
                let (key, _) = line.split_once(" = ")?;
                let known = rswsgi::config::SETTINGS.iter().any(|s| s.name == key);
                known.then_some(())
            };
            // One file each: an empty line stands between those of a block.
            for part in block
                .split("\n\n")
                .filter(|part| part.lines().any(|line| is_key(line).is_some()))
            {
                let file = dir.join("block.toml");
                fs::write(&file, part).expect("a file");
                let mut command = Command::new(env!("CARGO_BIN_EXE_rswsgi"));
                command.args(["--print-config", "--config"]).arg(&file);
                let output = command.current_dir(dir).output().expect("it was built");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success(),
                    "{}:{number}: {said}",
                    page.display()
                );
                read += 1;
            }
        }
    }
    assert!(read > 3, "{read}");
}
