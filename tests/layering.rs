//! Reads the sources: who uses whom, what the map in `lib.rs` says, where unsafe code may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module uses what stands before it; those of one row stand in the order
/// in which they may use each other.
const LAYERS: &[&[&str]] = &[
    &["sys", "error", "log", "access"],
    &[
        "config",
        "http",
        "was",
        "schedule",
        "scoreboard",
        "control",
        "metrics",
        "cache",
        "relay",
        "convert",
    ],
    &["net", "link", "python"],
    &["wsgi"],
    &["worker"],
    &["master", "supervisor", "ctl"],
];

/// Pure decisions: no module of the crate at all.
const PURE: &[&str] = &["http", "was", "schedule"];

/// The programs that must never reach Python, and what they must not use for it.
const WITHOUT_PYTHON: &[&str] = &["supervisor", "ctl"];
const PYTHON_SIDE: &[&str] = &["python", "wsgi", "worker", "master"];

/// Where unsafe code may be.
const UNSAFE: &[&str] = &["sys", "python"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("read the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file below a top module, with its text without comments.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    files_below(&source(), &mut files);
    let mut modules: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for path in files {
        let inside = path.strip_prefix(source()).expect("found below it");
        let first = inside.components().next().expect("a file has a name");
        let name = first
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        let text = fs::read_to_string(&path).expect("read a source file");
        modules
            .entry(name)
            .or_default()
            .push((inside.to_owned(), without_comments(&text)));
    }
    for root in ["lib", "bin", "main"] {
        modules.remove(root);
    }
    modules
}

fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.find("//").map_or(line, |at| &line[..at]));
    lines.collect::<Vec<_>>().join("\n")
}

/// The top modules that this text names by `crate::`, also inside braces, or by enough `super::`.
fn uses(path: &Path, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        // `rswsgi_crate::` and `$crate::` of a macro: the first is another name, the second is ours.
        if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            found.extend(first_names(&text[at + "crate::".len()..]));
        }
    }
    for (at, name) in top_by_super(path, text) {
        assert!(at > 0, "a file does not begin with a path");
        found.insert(name);
    }
    found
}

/// The first names of a path or of a group of paths: `a::b`, `{a::b, c::{d, e}}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// `super::super::other` that climbs out of its own top module.
fn top_by_super(path: &Path, text: &str) -> Vec<(usize, String)> {
    let is_mod = path.file_stem().is_some_and(|stem| stem == "mod");
    let depth = path.components().count() - usize::from(is_mod);
    let climb = "super::".repeat(depth);
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&climb) {
        let before = text[..at].ends_with("super::");
        let rest = &text[at + climb.len()..];
        // One level less inside `mod tests`, where `super` is the file itself.
        let in_tests = text[..at].contains("mod tests");
        if !before && !rest.starts_with("super::") && !in_tests {
            found.extend(first_names(rest).into_iter().map(|name| (at, name)));
        }
    }
    found
}

fn rank(module: &str) -> Option<usize> {
    LAYERS
        .iter()
        .flat_map(|row| row.iter())
        .position(|name| *name == module)
}

#[test]
fn a_module_uses_only_what_stands_above_it() {
    let modules = modules();
    assert!(modules.len() > 2, "found only {:?}", modules.keys());
    let mut wrong = Vec::new();
    for (module, files) in &modules {
        let Some(own) = rank(module) else {
            wrong.push(format!("{module} has no place in the layers"));
            continue;
        };
        for (path, text) in files {
            for used in uses(path, text)
                .iter()
                .filter(|used| *used != module && modules.contains_key(*used))
            {
                if rank(used).is_none_or(|theirs| theirs >= own) {
                    wrong.push(format!(
                        "{} uses {used}, which stands below {module}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_use_nothing() {
    let modules = modules();
    for name in PURE {
        for (path, text) in modules.get(*name).into_iter().flatten() {
            let used: Vec<_> = uses(path, text)
                .into_iter()
                .filter(|used| used != name && modules.contains_key(used))
                .collect();
            assert!(used.is_empty(), "{} uses {used:?}", path.display());
            for outside in [
                "TcpStream",
                "std::fs",
                "std::process",
                "nix::",
                "libc::",
                "Instant::now",
                "SystemTime::now",
            ] {
                assert!(
                    !text.contains(outside),
                    "{} is pure and uses {outside}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn supervisor_and_ctl_never_reach_python() {
    let modules = modules();
    for name in WITHOUT_PYTHON {
        for (path, text) in modules.get(*name).into_iter().flatten() {
            let used: Vec<_> = uses(path, text)
                .into_iter()
                .filter(|used| PYTHON_SIDE.contains(&used.as_str()))
                .collect();
            assert!(
                used.is_empty() && !text.contains("pyo3"),
                "{} uses {used:?}",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stays_on_its_islands() {
    for (module, files) in modules() {
        for (path, text) in files {
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            let unsafe_word = words.clone().any(|word| word == "unsafe");
            let allowed = text.contains("allow(unsafe_code)");
            let island = UNSAFE.contains(&module.as_str());
            assert!(
                island || !(unsafe_word || allowed),
                "{} has unsafe code",
                path.display()
            );
        }
    }
}

#[test]
fn the_map_in_lib_rs_names_every_module_in_the_order_of_the_layers() {
    let text = fs::read_to_string(source().join("lib.rs")).expect("read lib.rs");
    let mut map = text
        .lines()
        .skip_while(|line| !line.starts_with("//! ```"))
        .skip(1);
    let map: Vec<&str> = map
        .by_ref()
        .take_while(|line| !line.starts_with("//! ```"))
        .filter_map(|line| {
            line.strip_prefix("//! ")
                .filter(|line| !line.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let declared: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| {
            line.trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .strip_prefix("mod ")
        })
        .filter_map(|rest| rest.strip_suffix(';'))
        .collect();
    let mapped: BTreeSet<&str> = map.iter().copied().collect();
    let missing: Vec<_> = declared.difference(&mapped).collect();
    assert!(missing.is_empty(), "not in the map: {missing:?}");
    let ranks: Vec<_> = map.iter().filter_map(|name| rank(name)).collect();
    assert!(ranks.is_sorted(), "the map is out of order: {map:?}");
    let homeless: Vec<_> = declared
        .iter()
        .filter(|name| rank(name).is_none())
        .collect();
    assert!(homeless.is_empty(), "no place in the layers: {homeless:?}");
}

#[test]
fn files_stay_short() {
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut files);
    }
    for path in files {
        let text = fs::read_to_string(&path).expect("read a source file");
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = without_comments(code)
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        assert!(lines <= 800, "{} has {lines} lines of code", path.display());
    }
}

#[test]
fn the_reader_of_paths_reads_paths() {
    let found =
        |path: &str, text: &str| uses(Path::new(path), text).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found("a.rs", "use crate::b::C;\nfn f() { crate::d::e() }"),
        ["b", "d"]
    );
    assert_eq!(
        found("a/mod.rs", "use crate::{b::{C, D}, e, f::g};"),
        ["b", "e", "f"]
    );
    assert_eq!(found("a/mod.rs", " use super::b;"), ["b"]);
    assert_eq!(
        found("a/x.rs", " use super::b; use super::super::c;"),
        ["c"]
    );
    assert_eq!(found("a.rs", " use super::b;"), ["b"]);
}
