//! Where a value comes from: defaults < configuration file < environment < command line, each a layer
//! of texts.
//!
//! The highest layer that names a setting has it alone: a list on the command line replaces the one
//! in the environment.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file;
use super::setting::{Kind, Setting, Value};
use super::table::{SETTINGS, setting};
use crate::error::{Error, Exit, Result};

/// Who named a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Default,
    File(PathBuf),
    Environment,
    CommandLine,
}

/// What one source says, as text.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    source: Source,
    /// Where relative paths start, if not where the program was started.
    pub(super) directory: Option<PathBuf>,
    /// The directory of further files that one names.
    pub(super) includes: Option<PathBuf>,
    pub(super) values: BTreeMap<&'static str, Written>,
}

/// A value as it was given: several texts for a list.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub texts: Vec<String>,
    /// Of a file, from 1; 0 elsewhere.
    pub line: usize,
}

impl Layer {
    pub(super) fn new(source: Source) -> Layer {
        Layer {
            source,
            directory: None,
            includes: None,
            values: BTreeMap::new(),
        }
    }

    pub(super) fn defaults() -> Layer {
        let mut layer = Layer::new(Source::Default);
        for setting in SETTINGS {
            if let Some(text) = setting.default {
                layer.set(setting, vec![text.to_owned()]);
            }
        }
        layer
    }

    /// An empty variable counts as unset: `RSWSGI_BIND= rswsgi ...` goes back to the default.
    pub(super) fn environment(env: &impl Fn(&str) -> Option<OsString>) -> Result<Layer> {
        let mut layer = Layer::new(Source::Environment);
        for setting in SETTINGS {
            let Some(variable) = setting.variable() else {
                continue;
            };
            let Some(text) = env(&variable).filter(|text| !text.is_empty()) else {
                continue;
            };
            let text = text.into_string().map_err(|text| {
                let message = format!("{variable}: {text:?} is not UTF-8");
                Error::new(Source::Environment.exit(), message)
            })?;
            let values = match setting.kind {
                Kind::List { separator } => text
                    .split(separator)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
                _ => vec![text],
            };
            layer.set(setting, values);
        }
        Ok(layer)
    }

    pub(super) fn set(&mut self, setting: &Setting, texts: Vec<String>) {
        self.values.insert(setting.name, Written { texts, line: 0 });
    }

    pub(super) fn last(&self, name: &str) -> Option<&str> {
        Some(self.values.get(name)?.texts.last()?.as_str())
    }

    /// Turns the reason a parser gave into an error that names the setting as its author wrote it.
    pub(super) fn check<T>(&self, name: &str, read: Result<T, String>) -> Result<T> {
        read.map_err(|reason| {
            let line = self.values.get(name).map_or(0, |given| given.line);
            let place = self.source.spell(setting(name), line);
            Error::new(self.source.exit(), format!("{place}: {reason}"))
        })
    }
}

impl Source {
    /// The setting as its author wrote it.
    fn spell(&self, setting: &Setting, line: usize) -> String {
        let flag = match setting.name {
            "target" => "target".to_owned(),
            name => format!("--{name}"),
        };
        match self {
            Source::Default | Source::CommandLine => flag,
            Source::Environment => setting.variable().unwrap_or(flag),
            Source::File(path) => format!("{}:{line}: {}", path.display(), setting.name),
        }
    }

    /// For people who ask where a value comes from.
    fn describe(&self, setting: &Setting, line: usize) -> String {
        match self {
            Source::Default => "default".to_owned(),
            Source::File(path) => format!("{}:{line}", path.display()),
            Source::Environment | Source::CommandLine => self.spell(setting, line),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Source::Default => Exit::Internal,
            Source::File(_) | Source::Environment => Exit::Config,
            Source::CommandLine => Exit::Usage,
        }
    }
}

/// A setting as it counts.
#[derive(Clone, Debug)]
pub struct InForce {
    pub setting: &'static Setting,
    /// As they were given; none for a setting without a value, several for a list.
    pub values: Vec<String>,
    /// `default`, `--workers`, `RSWSGI_WORKERS` or `/etc/shop.toml:3`; `None` without a value.
    pub origin: Option<String>,
}

/// The layers, the lowest first.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub(super) layers: Vec<Layer>,
    /// Where the program was started.
    pub(super) directory: PathBuf,
}

impl Layers {
    pub(super) fn highest_first(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().rev()
    }

    /// Another default than the declared one, where that depends on other settings.
    pub(super) fn set_default(&mut self, name: &str, text: &str) {
        let is_lowest = |layer: &&mut Layer| layer.source == Source::Default;
        if let Some(defaults) = self.layers.iter_mut().find(is_lowest) {
            defaults.set(setting(name), vec![text.to_owned()]);
        }
    }

    /// Whether the lowest layer has a value for it.
    pub(super) fn has_default(&self, name: &str) -> bool {
        let is_lowest = |layer: &&Layer| layer.source == Source::Default;
        let lowest = self.layers.iter().find(is_lowest);
        lowest.is_some_and(|layer| layer.last(name).is_some())
    }

    /// Every setting but the actions, in the order of the table.
    pub(super) fn in_force(&self) -> Vec<InForce> {
        let lookup = |setting: &'static Setting| {
            let layer = self.layer_of(setting.name);
            let given = layer.and_then(|layer| Some((layer, layer.values.get(setting.name)?)));
            InForce {
                setting,
                values: given.map_or_else(Vec::new, |(_, given)| given.texts.clone()),
                origin: given.map(|(layer, given)| layer.source.describe(setting, given.line)),
            }
        };
        let settings = SETTINGS.iter().filter(|setting| file::in_files(setting));
        settings.map(lookup).collect()
    }

    /// Files that values were read from, and their directories where further ones may appear.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for layer in &self.layers {
            if let Source::File(path) = &layer.source {
                files.push(path.clone());
            }
            files.extend(layer.includes.clone());
        }
        files
    }

    /// The file that is to say what no layer says: that of an app among many, else the one that was named.
    pub(super) fn file(&self) -> Option<&Path> {
        let file = |layer: &&Layer| matches!(layer.source, Source::File(_));
        let of_app = self.layers.last().filter(file);
        match &of_app.or_else(|| self.layers.iter().find(file))?.source {
            Source::File(path) => Some(path),
            _ => None,
        }
    }

    /// Where a relative path in the value of `name` starts.
    pub(super) fn base(&self, name: &str) -> &Path {
        let layer = self.layer_of(name);
        let directory = layer.and_then(|layer| layer.directory.as_deref());
        directory.unwrap_or(&self.directory)
    }

    fn layer_of(&self, name: &str) -> Option<&Layer> {
        self.highest_first()
            .find(|layer| layer.values.contains_key(name))
    }

    /// Blames `name`, wherever it was named.
    pub(super) fn check<T>(&self, name: &str, read: Result<T, String>) -> Result<T> {
        self.check_first(&[name], read)
    }

    /// Of settings that do not go together, blames the one named in the highest layer.
    pub(super) fn check_first<T>(&self, names: &[&str], read: Result<T, String>) -> Result<T> {
        let named = self.highest_first().find_map(|layer| {
            let name = names.iter().find(|name| layer.last(name).is_some())?;
            Some((layer, name))
        });
        match named {
            Some((layer, name)) => layer.check(name, read),
            None => read.map_err(|reason| Error::new(Exit::Internal, reason)),
        }
    }

    fn value(&self, name: &str) -> Result<Option<Value>> {
        let text = self.layer_of(name).and_then(|layer| layer.last(name));
        let read = text.map(|text| setting(name).kind.read(text)).transpose();
        self.check(name, read)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        match self.value(name)? {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(misdeclared(name)),
        }
    }

    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(self.text(name)?.map(|text| self.base(name).join(text)))
    }

    /// A setting with a default and a parser of its own.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T> {
        let text = self.text(name)?.ok_or_else(|| misdeclared(name))?;
        self.check(name, parse(&text))
    }

    /// A number or a size with a default; the declared range must fit the type.
    pub(super) fn number<T: TryFrom<u64>>(&self, name: &str) -> Result<T> {
        match self.value(name)? {
            Some(Value::Number(number) | Value::Size(number)) => {
                T::try_from(number).map_err(|_| misdeclared(name))
            }
            _ => Err(misdeclared(name)),
        }
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration> {
        match self.value(name)? {
            Some(Value::Duration(duration)) => Ok(duration),
            _ => Err(misdeclared(name)),
        }
    }

    pub(super) fn switch(&self, name: &str) -> Result<bool> {
        match self.value(name)? {
            None => Ok(false),
            Some(Value::Switch(on)) => Ok(on),
            Some(_) => Err(misdeclared(name)),
        }
    }

    pub(super) fn list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>> {
        let Some(layer) = self.layer_of(name) else {
            return Ok(Vec::new());
        };
        let texts = layer.values.get(name).map(|given| &given.texts);
        let texts = texts.into_iter().flatten();
        texts.map(|text| layer.check(name, parse(text))).collect()
    }
}

/// Declaration and use disagree: a bug, which the tests of the table find.
fn misdeclared(name: &str) -> Error {
    Error::new(Exit::Internal, format!("setting {name} is misdeclared"))
}
