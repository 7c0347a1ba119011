//! Packages: what `pip install .` puts into a virtual environment, and that it works there.

pub mod deb;
mod image;

use crate::support::{Server, only_rswsgi, python, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages")
}

/// Runs a command; its output when it succeeds.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .env_remove("VIRTUAL_ENV")
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!(
            "{command:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        )),
    }
}

/// The wheel, built once for all tests, from a copy: building leaves files in the source.
fn wheel() -> &'static Result<PathBuf, String> {
    static WHEEL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    WHEEL.get_or_init(|| {
        let (source, out) = (scratch().join("source"), scratch().join("wheels"));
        for directory in [&source, &out] {
            let _ = fs::remove_dir_all(directory);
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        let parts = [
            "Cargo.toml",
            "Cargo.lock",
            "README.md",
            "CHANGELOG.md",
            "MANIFEST.in",
            "pyproject.toml",
            "src",
            "python",
            "tests",
            "benches",
            "examples",
            "man",
            "packaging",
            "systemd",
        ];
        // With their times, so that cargo knows what it has compiled before.
        let mut copy = Command::new("cp");
        copy.arg("--archive")
            .args(parts.map(|part| root().join(part)));
        run(copy.arg(&source))?;
        let environment = venv(&python::default().path, BUILDING)?;
        run(pip_that_builds(&environment)
            .args(["wheel", "--quiet", "--no-deps", "--wheel-dir"])
            .arg(&out)
            .arg(&source))?;
        let mut entries = fs::read_dir(&out)
            .map_err(|error| error.to_string())?
            .flatten();
        let wheel = entries.next().ok_or("pip built no wheel")?;
        Ok(wheel.path())
    })
}

/// The environment that all builds are made in, one after the other: where the interpreter is in another
/// place, PyO3 is compiled again.
const BUILDING: &str = "build";

fn pip_that_builds(environment: &Path) -> Command {
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.env("CARGO_TARGET_DIR", scratch().join("target"))
        .env("SETUPTOOLS_RUST_CARGO_PROFILE", "dev");
    pip
}

fn venv(python: &Path, name: &str) -> Result<PathBuf, String> {
    let path = scratch().join(name);
    let _ = fs::remove_dir_all(&path);
    run(Command::new(python).args(["-m", "venv"]).arg(&path))?;
    Ok(path)
}

/// The wheel, if one can be built here: that needs pip's registry.
fn built() -> Option<&'static PathBuf> {
    if !only_rswsgi("its packages") {
        return None;
    }
    match wheel() {
        Ok(wheel) => Some(wheel),
        Err(reason) if reason.contains("No matching distribution") => {
            skip(&format!("setuptools-rust is not to be had: {reason}"));
            None
        }
        Err(reason) => panic!("{reason}"),
    }
}

#[test]
fn one_wheel_serves_every_python() {
    let Some(wheel) = built() else {
        return;
    };
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    assert!(name.contains("-cp310-abi3-linux_"), "{name}");
    for python in python::pythons() {
        let (major, minor) = python.version;
        let environment = venv(&python.path, &format!("clean-{major}.{minor}")).expect("a venv");
        run(Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--no-index"])
            .arg(wheel))
        .expect("the wheel installs");
        let question =
            "import rswsgi; print(rswsgi.__version__, rswsgi.RequestTimeout.__mro__[1].__name__)";
        let answer = run(Command::new(environment.join("bin/python")).args(["-c", question]));
        let expected = format!("{} BaseException\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(answer.expect("the module can be imported"), expected);
        for program in ["rswsgi", "rswsgictl"] {
            let answer = run(Command::new(environment.join("bin").join(program)).arg("--version"));
            let expected = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
            assert_eq!(answer.expect("it runs"), expected);
        }
        let server = Server::new()
            .app("procs")
            .program(environment.join("bin/rswsgi"))
            .any_python()
            .start();
        let version = format!("(Python {major}.{minor}.");
        server.log.wait_for(&version);
        server.get("/").assert_status(200);
        server.finish();
    }
}

#[test]
fn pip_install_in_the_source_gives_commands_module_and_types() {
    // It leaves its source behind, compiled.
    if built().is_none() {
        return;
    }
    let mut versions = 0;
    for python in python::pythons() {
        let environment = venv(&python.path, BUILDING).expect("a venv");
        let installed = run(pip_that_builds(&environment)
            .args(["install", "--quiet", "."])
            .current_dir(scratch().join("source")));
        installed.unwrap_or_else(|reason| panic!("{:?}: {reason}", python.version));
        let path = format!("{}/bin:/usr/bin:/bin", environment.display());
        // By name, as a user does, and not in the source.
        let run = |line: &str| {
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", line]).env("PATH", &path);
            let shell = shell.current_dir(&environment).env_remove("PYTHONPATH");
            run(shell).unwrap_or_else(|reason| panic!("{:?}: {reason}", python.version))
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(run("rswsgi --version"), format!("rswsgi {version}\n"));
        let ctl = run("rswsgictl --version");
        assert_eq!(ctl, format!("rswsgictl {version}\n"));
        let (major, minor) = python.version;
        let question = "import rswsgi, sys; print(rswsgi.__version__, *sys.version_info[:2])";
        let answer = run(&format!("python -c '{question}'"));
        assert_eq!(answer, format!("{version} {major} {minor}\n"));
        // PEP 561: a package of this name is looked for by type checkers, and needs no py.typed.
        let files = run("pip show --files rswsgi");
        assert!(files.contains(" rswsgi-stubs/__init__.pyi\n"), "{files}");
        let server = Server::new()
            .app("procs")
            .program(environment.join("bin/rswsgi"))
            .any_python()
            .start();
        server.log.wait_for(&format!("(Python {major}.{minor}."));
        server.get("/").assert_status(200);
        server.finish();
        versions += 1;
    }
    assert!(versions > 0, "no interpreter");
}

#[test]
fn what_pip_has_installed_serves_other_environments() {
    let Some(wheel) = built() else {
        return;
    };
    let environment = venv(&python::default().path, "serving").expect("a venv");
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--no-index"])
        .arg(wheel))
    .expect("the wheel installs");
    let other = venv(&python::default().path, "served").expect("a venv");
    let server = Server::new()
        .app("procs")
        .program(environment.join("bin/rswsgi"))
        .any_python()
        .arg("--venv", other)
        .start();
    server.get("/").assert_status(200);
    server.finish();
}

#[test]
fn the_types_are_those_of_the_module() {
    let Some(wheel) = built() else {
        return;
    };
    let environment = venv(&python::default().path, "types").expect("a venv");
    let installed = run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "mypy"])
        .arg(wheel));
    match installed {
        Err(reason) if reason.contains("No matching distribution") => {
            return skip(&format!("mypy is not to be had: {reason}"));
        }
        installed => installed.expect("mypy installs"),
    };
    let allowed = environment.join("allowed");
    // Of use to the server alone.
    fs::write(&allowed, "rswsgi\\._.*\nrswsgi\\.__.*\n").expect("a file");
    run(Command::new(environment.join("bin/python"))
        .args([
            "-m",
            "mypy.stubtest",
            "rswsgi",
            "--ignore-unused-allowlist",
            "--allowlist",
        ])
        .arg(allowed)
        .current_dir(&environment))
    .expect("stubs and module agree");
    // Found by a program of somebody else, and believed.
    let check = |text: &str| {
        fs::write(environment.join("program.py"), text).expect("a file");
        run(Command::new(environment.join("bin/mypy"))
            // A cache would take a program of the same second and length for the one before.
            .args(["--strict", "--cache-dir=/dev/null", "program.py"])
            .current_dir(&environment))
    };
    check("import rswsgi\nversion: str = rswsgi.__version__\n").expect("a right program");
    let wrong = check("import rswsgi\nversion: int = rswsgi.__version__\n");
    let complaint = wrong.expect_err("a wrong program");
    assert!(
        complaint.contains("expression has type \"str\""),
        "{complaint}"
    );
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, expected) in [
        ("pyproject.toml", format!("\nversion = \"{version}\"\n")),
        (
            "packaging/debian/changelog",
            format!("rswsgi ({version}-1) "),
        ),
    ] {
        let text = fs::read_to_string(root().join(file)).expect("a file");
        assert!(text.contains(&expected), "{file} has another version");
    }
}
