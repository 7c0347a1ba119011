//! What the artefacts are linked with: the supervisor is Rust only, and the module takes the symbols
//! of Python from the interpreter that loads it, whichever that is.

use crate::support::module;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};
use std::path::Path;

struct Links {
    needed: Vec<String>,
    undefined: Vec<String>,
    defined: Vec<String>,
}

fn links(path: &Path) -> Links {
    let data = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = ElfFile64::<object::Endianness>::parse(&*data).expect("a 64-bit ELF file");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let needed = needed_libraries(&file)
        .iter()
        .map(|name| text(name))
        .collect();
    let (mut undefined, mut defined) = (Vec::new(), Vec::new());
    for symbol in file.dynamic_symbols() {
        let name = text(symbol.name_bytes().unwrap_or_default());
        if symbol.is_undefined() {
            undefined.push(name)
        } else {
            defined.push(name)
        }
    }
    Links {
        needed,
        undefined,
        defined,
    }
}

/// The `DT_NEEDED` entries, as `readelf -d` prints them.
fn needed_libraries<'d>(file: &ElfFile64<'d, object::Endianness>) -> Vec<&'d [u8]> {
    let table = file
        .elf_dynamic_table()
        .expect("a readable dynamic section");
    let needed = table
        .iter()
        .filter(|entry| entry.tag == object::elf::DT_NEEDED);
    needed
        .map(|entry| table.string(entry).expect("the name of a library"))
        .collect()
}

fn is_python(symbol: &str) -> bool {
    symbol.starts_with("Py") || symbol.starts_with("_Py")
}

#[track_caller]
fn assert_free_of_python(path: &str) {
    let links = links(Path::new(path));
    let libraries: Vec<_> = links
        .needed
        .iter()
        .filter(|name| name.contains("python"))
        .collect();
    assert!(libraries.is_empty(), "{path} needs {libraries:?}");
    let symbols: Vec<_> = links
        .undefined
        .iter()
        .filter(|name| is_python(name))
        .collect();
    assert!(symbols.is_empty(), "{path} has undefined {symbols:?}");
    assert!(
        !links.needed.is_empty(),
        "{path}: no libc? then the test reads the wrong thing"
    );
}

#[test]
fn the_supervisor_has_no_python() {
    assert_free_of_python(env!("CARGO_BIN_EXE_rswsgi"));
}

#[test]
fn the_control_program_has_no_python() {
    assert_free_of_python(env!("CARGO_BIN_EXE_rswsgictl"));
}

/// The names of all functions that were linked in, mangled.
fn functions(path: &Path) -> Vec<String> {
    let data = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = ElfFile64::<object::Endianness>::parse(&*data).expect("a 64-bit ELF file");
    let code = file
        .symbols()
        .filter(|it| it.kind() == object::SymbolKind::Text);
    let names = code.filter_map(|symbol| symbol.name().ok());
    names.map(str::to_owned).collect()
}

#[test]
fn what_draws_is_in_the_control_program_alone() {
    let draws = |path: &Path| functions(path).iter().any(|name| name.contains("ratatui"));
    assert!(draws(Path::new(env!("CARGO_BIN_EXE_rswsgictl"))));
    for path in [env!("CARGO_BIN_EXE_rswsgi").into(), module()] {
        assert!(!draws(&path), "{} has grown", path.display());
    }
}

#[test]
fn the_module_takes_python_from_the_interpreter() {
    let links = links(&module());
    let libraries: Vec<_> = links
        .needed
        .iter()
        .filter(|name| name.contains("python"))
        .collect();
    assert!(
        libraries.is_empty(),
        "a second libpython in the process: {libraries:?}"
    );
    assert!(
        links.undefined.iter().any(|name| is_python(name)),
        "it uses Python, so it must have undefined symbols"
    );
}

#[test]
fn the_module_is_importable_as_rswsgi() {
    assert!(
        links(&module())
            .defined
            .iter()
            .any(|name| name == "PyInit_rswsgi")
    );
}
