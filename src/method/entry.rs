//! What a method says of itself for the table: its name, its settings, how they are read.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Settings;
use crate::error::{Error, Result};

/// A method in the table.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Its settings.
    pub settings: &'static [Group],
    /// Its presets: name, and settings as JSON.
    pub presets: &'static [(&'static str, &'static str)],
    /// Reads its settings from a map of those that are given: [`read`] of its struct.
    pub build: fn(&Map<String, Value>) -> Result<Read>,
}

/// A method's settings as they were read, and all of them by name, defaults included.
pub type Read = (Arc<dyn Settings>, Value);

/// Settings that go together.
#[derive(Debug)]
pub struct Group {
    /// The setting, and its value, without which nobody reads these.
    pub only_with: Option<(&'static str, &'static str)>,
    /// They themselves.
    pub settings: &'static [Setting],
}

/// A setting as help shows it.
#[derive(Debug)]
pub struct Setting {
    /// Its name, that of a field of the method's struct.
    pub name: &'static str,
    /// What stands for its value; empty for one that is on or off.
    pub value: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Another way to say the same: the later of the two counts.
    pub instead_of: Option<&'static str>,
}

/// A setting without another way to say it.
#[must_use]
pub const fn setting(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting {
        name,
        value,
        help,
        instead_of: None,
    }
}

/// Where tokens are drawn from the logits: the fields of
/// [`SamplingOptions`](crate::rollout::SamplingOptions).
pub(super) const SAMPLING: &[Setting] = &[
    setting("temp", "T", "temperature"),
    setting("top-k", "K", "keep the K most probable tokens; 0 keeps all"),
    setting(
        "top-p",
        "P",
        "keep the tokens that make up this probability; 1 keeps all",
    ),
    setting(
        "min-p",
        "P",
        "keep tokens at least this fraction as probable as the first; 0 keeps all",
    ),
];

/// Reads the settings `S` from `given`, and answers with all of them as well, defaults included.
///
/// # Errors
/// [`Error::Field`] for a value of another kind, or a setting that there is not.
pub fn read<S>(given: &Map<String, Value>) -> Result<Read>
where
    S: Settings + Serialize + DeserializeOwned + 'static,
{
    for (name, value) in given {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        serde_json::from_value::<S>(alone.into()).map_err(|error| {
            let wanted = expected(&error.to_string());
            Error::field(name, format!("{value}; must be {wanted}"))
        })?;
    }
    let failed = |error: serde_json::Error| Error::Run(format!("settings: {error}"));
    let settings: S = serde_json::from_value(given.clone().into()).map_err(failed)?;
    let all = serde_json::to_value(&settings).map_err(failed)?;
    // Structs within structs do not refuse what they do not know.
    if let Some(unknown) = given.keys().find(|name| all.get(name.as_str()).is_none()) {
        return Err(Error::field(unknown, "no such setting"));
    }
    Ok((Arc::new(settings), all))
}

/// What a deserialiser would have liked, in words.
fn expected(message: &str) -> String {
    let wanted = message.rsplit_once("expected ").map_or(message, |(_, w)| w);
    match wanted {
        "usize" | "u32" | "u64" => "a whole number, 0 or more".into(),
        "f64" | "f32" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "string" => "a text".into(),
        other => other.replace('`', ""),
    }
}

impl Entry {
    pub(super) fn setting(&self, name: &str) -> Option<(&'static Group, &'static Setting)> {
        self.settings
            .iter()
            .flat_map(|group| group.settings.iter().map(move |setting| (group, setting)))
            .find(|(_, setting)| setting.name == name)
    }
}
