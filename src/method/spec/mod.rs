//! A method with its settings, and the one way to them from names and values.
//!
//! A preset, `aisp:elites=8` in a comparison, a trial of `tune`, a field of JSON and a flag are
//! all the same: entries of a map from setting names to values, which the method's own struct
//! reads. Later maps win ([`MethodSpec::with`]).

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result, io_reason};
use crate::method::entry::{Entry, Setting};
use crate::method::registry::METHODS;
use crate::method::{Facts, Method, Rounds, Settings};
use crate::text::read;

/// A method with its settings.
#[derive(Clone)]
pub struct MethodSpec {
    label: String,
    entry: &'static Entry,
    given: Map<String, Value>,
    settings: Arc<dyn Settings>,
    all: Value,
}

impl MethodSpec {
    /// A method of the table, with its defaults.
    ///
    /// # Panics
    /// For an entry whose defaults cannot be read.
    #[must_use]
    pub fn of(entry: &'static Entry) -> Self {
        let (settings, all) = (entry.build)(&Map::new()).expect("tested: defaults are valid");
        Self {
            label: entry.name.to_owned(),
            entry,
            given: Map::new(),
            settings,
            all,
        }
    }

    /// The method called `name`, with its defaults.
    ///
    /// # Errors
    /// [`Error::Field`] where there is none, naming those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let entry = METHODS.iter().find(|entry| entry.name == name);
        entry.map(|entry| Self::of(entry)).ok_or_else(|| {
            let names: Vec<&str> = METHODS.iter().map(|entry| entry.name).collect();
            let names = names.join(", ");
            Error::field("method", format!("no method {name:?}; there are {names}"))
        })
    }

    /// The same with the maps `over` in place of what was given before, the later ones in place of
    /// the earlier ones.
    ///
    /// # Errors
    /// [`Error::Field`] for a setting that the method does not have, naming those it has, or that
    /// nobody reads beside the others; and for a value of another kind.
    pub fn with<'a>(
        mut self,
        over: impl IntoIterator<Item = &'a Map<String, Value>>,
    ) -> Result<Self> {
        for over in over {
            self.put(over)?;
        }
        self.checked()
    }

    /// Puts `over` in place of what was given before, and reads nothing yet.
    fn put(&mut self, over: &Map<String, Value>) -> Result<()> {
        for (name, value) in over {
            let Some((_, setting)) = self.entry.setting(name) else {
                return Err(self.unknown(name));
            };
            let groups = self.entry.settings.iter();
            let same = |other: &&Setting| {
                setting.instead_of == Some(other.name) || other.instead_of == Some(setting.name)
            };
            let others = groups.flat_map(|g| g.settings).filter(same);
            for other in others.filter(|other| !over.contains_key(other.name)) {
                self.given.remove(other.name);
            }
            self.given.insert(name.clone(), value.clone());
        }
        Ok(())
    }

    /// Reads what was given.
    fn checked(mut self) -> Result<Self> {
        (self.settings, self.all) = (self.entry.build)(&self.given)?;
        for name in self.given.keys() {
            if let Some((other, wanted)) = self.lacks(name) {
                let reason = format!("it only goes with `{other}` = {wanted}");
                return Err(Error::field(name, reason));
            }
        }
        Ok(self)
    }

    /// What has to be set otherwise before anybody reads the setting.
    fn lacks(&self, name: &str) -> Option<(&'static str, &'static str)> {
        let (group, setting) = self.entry.setting(name)?;
        let instead = setting.instead_of.map(|other| (other, "auto"));
        let needed = group.only_with.into_iter().chain(instead);
        let mut lacking = needed.filter(|(other, wanted)| text(&self.all[*other]) != *wanted);
        lacking.next()
    }

    /// Whether the method has the setting, and reads it beside the others.
    #[must_use]
    pub fn reads(&self, name: &str) -> bool {
        self.entry.setting(name).is_some() && self.lacks(name).is_none()
    }

    fn unknown(&self, name: &str) -> Error {
        let settings = self.entry.settings.iter().flat_map(|group| group.settings);
        let names: Vec<String> = settings.map(|s| format!("`{}`", s.name)).collect();
        let method = self.entry.name;
        let reason = match names.is_empty() {
            true => format!("no setting of {method}, which has none"),
            false => format!("no setting of {method}, which has {}", names.join(", ")),
        };
        Error::field(name, reason)
    }

    /// The same under another label: what comparisons call it.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What comparisons call it: as it was written, or its name.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its line in the table.
    #[must_use]
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// What differs from its defaults by being given, by name: what a preset file holds.
    #[must_use]
    pub fn given(&self) -> &Map<String, Value> {
        &self.given
    }

    /// All its settings by name, defaults included.
    #[must_use]
    pub fn all(&self) -> &Value {
        &self.all
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &dyn Settings {
        self.settings.as_ref()
    }

    /// The method for one prompt.
    ///
    /// # Errors
    /// [`Error::Field`] for `rounds` or settings out of range, else those of [`Settings::build`].
    pub fn build(&self, rounds: &Rounds, facts: &Facts) -> Result<Box<dyn Method>> {
        self.validate(rounds)?;
        self.settings.build(rounds, facts)
    }

    /// Checks everything that can be checked without a model.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field and its value.
    pub fn validate(&self, rounds: &Rounds) -> Result<()> {
        rounds.validate()?;
        self.settings.validate(rounds)
    }
}

/// The settings of a method's preset, by its name or from a JSON file.
///
/// # Errors
/// [`Error::Field`] where there is none, or it is no JSON object.
pub fn preset(entry: &'static Entry, name: &str) -> Result<Map<String, Value>> {
    // In a file they are no flags.
    let wrong =
        |reason: String| Error::field("preset", format!("{name}: {}", reason.replace('`', "")));
    let own = entry.presets.iter().find(|(own, _)| *own == name);
    let text = match own {
        Some((_, json)) => (*json).to_owned(),
        None => read(Path::new(name)).map_err(|error| {
            let names: Vec<&str> = entry.presets.iter().map(|(own, _)| *own).collect();
            let names = names
                .iter()
                .map(|name| format!("{name}, or "))
                .collect::<String>();
            wrong(match error.kind() {
                std::io::ErrorKind::NotFound => {
                    let method = entry.name;
                    format!("no preset of {method}, and no such file; give {names}a JSON file")
                }
                _ => io_reason(&error),
            })
        })?,
    };
    let given: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("{e}; want an object of settings")))?;
    // What is wrong in it is wrong with the preset.
    let mut spec = MethodSpec::of(entry);
    let read = spec.put(&given).and_then(|()| (entry.build)(&given));
    match read {
        Err(Error::Field { field, reason }) => Err(wrong(format!("{field}: {reason}"))),
        Err(other) => Err(other),
        Ok(_) => Ok(given),
    }
}

/// A value as it is written behind `NAME=`.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value from what is written behind `NAME=`: a number, true, false, or a text.
#[must_use]
pub fn parse_value(text: &str) -> Value {
    if let Ok(switch) = text.parse::<bool>() {
        return switch.into();
    }
    let whole = text.parse::<u64>().map(Value::from);
    let whole = whole.or_else(|_| text.parse::<i64>().map(Value::from));
    let number = |_| text.parse::<f64>().map(Value::from);
    match whole.or_else(number) {
        // NaN and infinity have no number.
        Ok(number) if !number.is_null() => number,
        _ => text.into(),
    }
}

impl FromStr for MethodSpec {
    type Err = Error;

    /// `METHOD[:NAME=VALUE]…`, `preset=NAME` among them.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let mut spec = Self::named(parts.next().unwrap_or_default())?;
        for part in parts {
            match part.split_once('=') {
                Some(("preset", name)) => spec.put(&preset(spec.entry, name)?)?,
                Some((name, text)) => {
                    spec.put(&Map::from_iter([(name.to_owned(), parse_value(text))]))?;
                }
                None => {
                    let reason = format!("{part:?}; settings are written NAME=VALUE");
                    return Err(Error::field("method", reason));
                }
            }
        }
        Ok(spec.checked()?.labelled(text))
    }
}

/// Two of the same method with the same settings are the same, whatever they are called.
impl PartialEq for MethodSpec {
    fn eq(&self, other: &Self) -> bool {
        self.entry.name == other.entry.name && self.all == other.all
    }
}

impl fmt::Debug for MethodSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl Default for MethodSpec {
    /// The first of the table.
    fn default() -> Self {
        Self::of(METHODS[0])
    }
}

/// How a method is written in JSON: what it is called, and all its settings.
#[derive(Serialize, Deserialize)]
struct Written {
    name: String,
    method: String,
    settings: Map<String, Value>,
}

impl Serialize for MethodSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Written {
            name: self.label.clone(),
            method: self.entry.name.into(),
            settings: self.all.as_object().cloned().unwrap_or_default(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MethodSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let written = Written::deserialize(from)?;
        let read = || -> Result<Self> {
            let mut spec = Self::named(&written.method)?.labelled(written.name);
            (spec.settings, spec.all) = (spec.entry.build)(&written.settings)?;
            spec.given = written.settings;
            Ok(spec)
        };
        read().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
