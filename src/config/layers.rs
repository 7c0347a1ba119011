//! Where a value comes from: defaults < environment < command line, each a layer of texts.
//!
//! The highest layer that names a setting has it alone: a list on the command line replaces the one
//! in the environment. A configuration file will be one more layer, between the defaults and the
//! environment.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::setting::{Kind, Setting, Value};
use super::table::{SETTINGS, setting};
use crate::error::{Error, Exit, Result};

/// Who named a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Default,
    Environment,
    CommandLine,
}

/// What one source says, as text.
#[derive(Debug)]
pub(super) struct Layer {
    source: Source,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Layer {
    pub(super) fn new(source: Source) -> Layer {
        Layer {
            source,
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

    pub(super) fn set(&mut self, setting: &Setting, values: Vec<String>) {
        self.values.insert(setting.name, values);
    }

    pub(super) fn last(&self, name: &str) -> Option<&str> {
        Some(self.values.get(name)?.last()?.as_str())
    }

    /// Turns the reason a parser gave into an error that names the setting as its author wrote it.
    pub(super) fn check<T>(&self, name: &str, read: Result<T, String>) -> Result<T> {
        read.map_err(|reason| {
            let place = self.source.spell(setting(name));
            Error::new(self.source.exit(), format!("{place}: {reason}"))
        })
    }
}

impl Source {
    pub(super) fn name(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::Environment => "environment",
            Source::CommandLine => "command line",
        }
    }

    fn spell(self, setting: &Setting) -> String {
        let variable = setting.variable().filter(|_| self == Source::Environment);
        variable.unwrap_or_else(|| match setting.name {
            "target" => "target".to_owned(),
            name => format!("--{name}"),
        })
    }

    fn exit(self) -> Exit {
        match self {
            Source::Default => Exit::Internal,
            Source::Environment => Exit::Config,
            Source::CommandLine => Exit::Usage,
        }
    }
}

/// The layers, the lowest first.
#[derive(Debug)]
pub(super) struct Layers(pub(super) Vec<Layer>);

impl Layers {
    pub(super) fn highest_first(&self) -> impl Iterator<Item = &Layer> {
        self.0.iter().rev()
    }

    /// Who named a setting, and how.
    pub(super) fn given(&self, name: &str) -> Option<(Source, &[String])> {
        let layer = self.layer_of(name)?;
        Some((layer.source, layer.values.get(name)?))
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

    pub(super) fn path(&self, name: &str, directory: &Path) -> Result<Option<PathBuf>> {
        Ok(self.text(name)?.map(|text| directory.join(text)))
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
        let texts = layer.values.get(name).into_iter().flatten();
        texts.map(|text| layer.check(name, parse(text))).collect()
    }
}

/// Declaration and use disagree: a bug, which the tests of the table find.
fn misdeclared(name: &str) -> Error {
    Error::new(Exit::Internal, format!("setting {name} is misdeclared"))
}
