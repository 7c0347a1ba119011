//! The extension module that a benchmark of rswsgi runs.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// Refuses an extension module that is older than its source.
///
/// `cargo bench` builds the executable, but puts no module beside it: a bench target needs a
/// library that unwinds, which goes elsewhere. Without this check one would measure the module of
/// some earlier `cargo build --release`.
pub fn is_current() -> Result<(), String> {
    let build = "run `cargo build --release` first";
    let module = Path::new(env!("CARGO_BIN_EXE_rswsgi")).with_file_name("librswsgi.so");
    let built = modified(&module).ok_or_else(|| format!("no librswsgi.so, {build}"))?;
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if modified(&path).is_some_and(|changed| changed > built) {
                return Err(format!("librswsgi.so is older than its source, {build}"));
            }
        }
    }
    Ok(())
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
