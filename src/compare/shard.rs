//! A comparison on several machines: a share of its prompts for each, and their rows put together.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use super::rows::Name;
use super::{Plan, Store, files, place};
use crate::error::{Error, Result};
use crate::save::save;

/// One of `count` shares of the prompts, those whose index leaves `index` when it is divided by
/// `count`. As text `I/N`, from `1/N` to `N/N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether the prompt of this index belongs to it.
    #[must_use]
    pub fn has(self, prompt: usize) -> bool {
        prompt % self.count == self.index
    }
}

impl Default for Shard {
    /// All prompts.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(index, count)| {
            let (index, count) = (index.parse::<usize>().ok()?, count.parse().ok()?);
            (1..=count).contains(&index).then(|| Self {
                index: index - 1,
                count,
            })
        });
        parsed.ok_or_else(|| {
            let reason = format!("{text:?}; give I/N, from 1/N to N/N");
            Error::field("shard", reason)
        })
    }
}

/// Puts the rows of `folders`, which are of one plan, into the folder `into`, in the order of that plan:
/// what one comparison would have left there. The answer is the plan, and the folder.
///
/// # Errors
/// [`Error::Field`] where the folders were made with different settings, where two hold different rows
/// for one run, or where `into` holds rows; [`Error::Io`] for files that cannot be read or written.
pub fn merge(folders: &[PathBuf], into: &Path) -> Result<(Plan, Store)> {
    let [settings, results, _] = files(into);
    if results.exists() {
        let reason = format!(
            "{}: is there already; give another folder",
            results.display()
        );
        return Err(Error::field("output", reason));
    }
    let Some(first) = folders.first() else {
        return Err(Error::field("folders", "there are none; give at least one"));
    };
    let plan = Plan::of(first)?;
    let places: HashMap<Name<'_>, usize> = plan.cells().map(|c| plan.name(c)).zip(0..).collect();
    let mut lines: BTreeMap<usize, Value> = BTreeMap::new();
    for folder in folders {
        // What is not there is not to be made.
        Plan::of(folder)?;
        let store = Store::open(folder, &plan, Shard::default())?;
        let rows = store.rows().iter().map(|row| (row.name(), json(row)));
        let failures = store
            .failures()
            .iter()
            .map(|failed| (failed.name(), json(failed)));
        for (name, line) in rows.chain(failures) {
            let line = line?;
            let old = lines.entry(places[&name]).or_insert_with(|| line.clone());
            if timeless(old) != timeless(&line) {
                let reason = format!("{} is another row than in a folder before", place(name));
                let reason = format!("{}: {reason}; leave one of the two out", folder.display());
                return Err(Error::field("folders", reason));
            }
        }
    }
    std::fs::create_dir_all(into).map_err(Error::io(into))?;
    save(&settings, format!("{:#}\n", json(&plan)?))?;
    let text: String = lines.values().map(|line| format!("{line}\n")).collect();
    save(&results, text)?;
    let store = Store::open(into, &plan, Shard::default())?;
    Ok((plan, store))
}

/// What stands in a file of it.
pub(super) fn json(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|e| Error::Run(e.to_string()))
}

/// A row without what a clock said, and without the count of tokens that rewards had to read, which
/// depends on what they had read before.
fn timeless(row: &Value) -> Value {
    match row {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !["seconds", "reward_tokens"].contains(&name.as_str()));
            Value::Object(
                kept.map(|(name, value)| (name.clone(), timeless(value)))
                    .collect(),
            )
        }
        Value::Array(values) => values.iter().map(timeless).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_have_every_prompt_once() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"]
            .map(|text| text.parse().unwrap())
            .into();
        for prompt in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.has(prompt)).count(), 1);
            assert!(Shard::default().has(prompt));
        }
        for text in ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/3", "a/b"] {
            let error = text.parse::<Shard>().unwrap_err().to_string();
            assert!(error.contains("give I/N"), "{error}");
        }
    }

    #[test]
    fn rows_are_the_same_whatever_a_clock_said() {
        let row = |seconds: f64, reward: f64| {
            serde_json::json!({
                "reward": reward, "seconds": seconds, "usage": {"reward_tokens": seconds},
                "iterations": [{"seconds": seconds, "tokens": 8}]
            })
        };
        assert_eq!(timeless(&row(1.0, 2.0)), timeless(&row(3.0, 2.0)));
        assert_ne!(timeless(&row(1.0, 2.0)), timeless(&row(1.0, 2.5)));
    }
}
