//! What a search is told, by a map of names and values: the `aisp` object of a request, and the
//! file of a preset. Both are what `run` takes as flags: the limits, and the settings of the method.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::failure::{Failure, key};
use super::fields::Fields;
use crate::align::AlignOptions;
use crate::error::{Error, Result};
use crate::method::{MethodSpec, preset};
use crate::reward::RewardSpec;

/// What a name in the list of models does with a prompt.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What stands behind the model's name and a colon.
    pub name: String,
    /// How it searches.
    pub options: AlignOptions,
    /// Which of the server's rewards it searches for.
    pub rewards: usize,
}

/// A preset as its file has it.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// Limits and settings.
    pub settings: Map<String, Value>,
    /// Rewards, where it is for others than the server's.
    pub rewards: Vec<RewardSpec>,
    /// The reward that watches.
    pub held_out: Option<RewardSpec>,
}

impl Preset {
    /// Reads the text of a file: a map as that of a request, with `reward`, `model-reward` and
    /// `held-out` beside it, each a text or a list of texts as the flags take them.
    ///
    /// # Errors
    /// [`Error::Field`] for what is no such map.
    pub fn read(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::field("preset", reason);
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| wrong(format!("{e}; want an object of settings")))?;
        let mut settings: Map<String, Value> = map
            .into_iter()
            .map(|(name, v)| (name.replace('_', "-"), v))
            .collect();
        let mut texts = |name: &str| match settings.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(other) => serde_json::from_value::<Vec<String>>(other)
                .map_err(|e| wrong(format!("{name}: {e}"))),
        };
        let files = texts("model-reward")?;
        let kinds = texts("reward")?;
        let held_out = texts("held-out")?;
        if held_out.len() > 1 {
            return Err(wrong("held-out: one reward watches; give one".into()));
        }
        let rewards = files.iter().map(|text| RewardSpec::parse_file(text));
        let rewards = rewards.chain(kinds.iter().map(|text| RewardSpec::parse(text)));
        Ok(Self {
            rewards: rewards.collect::<Result<_>>()?,
            held_out: match held_out.first() {
                Some(text) => Some(RewardSpec::parse(text)?),
                None => None,
            },
            settings,
        })
    }
}

/// Where a map comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Whoever started the server.
    Server,
    /// Whoever asks it.
    Request,
}

/// What else a map may ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    /// Candidates that are shown.
    pub(super) candidates: usize,
}

/// Puts a map over `options`, which are still to be validated. Names are written with underscores or hyphens; `method` begins with the
/// defaults of another method, `preset` names one that the method has. A request may name no file,
/// and nothing else that runs or is read on this machine: those are the server's to choose.
pub(super) fn apply(
    map: &Map<String, Value>,
    options: &mut AlignOptions,
    from: From,
) -> std::result::Result<Extras, Failure> {
    let map: Map<String, Value> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.replace('_', "-"), value.clone()))
        .collect();
    let fields = Fields(&map);
    for name in ["reward", "model-reward", "held-out"] {
        if map.contains_key(name) {
            let reason = "rewards are chosen by the server's flags and presets, never by a request";
            return Err(Failure::field(&key(name), reason));
        }
    }
    let rounds = &mut options.rounds;
    if let Some(count) = fields.count("samples")? {
        rounds.samples = count;
    }
    if let Some(count) = fields.count("iterations")? {
        rounds.iterations = count;
    }
    if let Some(count) = fields.count("max-tokens")? {
        rounds.max_tokens = count;
    }
    if let Some(seed) = fields.whole("seed")? {
        rounds.seed = self::seed(Some(seed));
    }
    options.budget.seconds = fields.number("time-limit")?.or(options.budget.seconds);
    options.target_reward = fields.number("target-reward")?.or(options.target_reward);
    options.patience = fields.count("patience")?.or(options.patience);
    if map.contains_key("reward-scale") {
        options.reward_scale = fields.switch("reward-scale")?;
    }
    if map.contains_key("stop-on-divergence") {
        options.stop_on_divergence = fields.switch("stop-on-divergence")?;
    }
    let before = files(&options.method);
    if let Some(name) = fields.text("method")?
        && name != options.method.entry().name
    {
        options.method = MethodSpec::named(name)?;
    }
    let mut over = Map::new();
    if let Some(name) = fields.text("preset")? {
        let entry = options.method.entry();
        if from == From::Request && !entry.presets.iter().any(|(own, _)| *own == name) {
            let names: Vec<&str> = entry.presets.iter().map(|(own, _)| *own).collect();
            let reason = format!("no preset of {}; it has {names:?}", entry.name);
            return Err(Failure::field("preset", reason));
        }
        over = preset(entry, name)?;
    }
    let settings = map.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    over.extend(settings.map(|(name, value)| (name.clone(), value.clone())));
    options.method = options.method.clone().with([&over])?;
    let named = files(&options.method);
    if from == From::Request && named != before && !named.is_empty() {
        let reason = "it reads a file, which only the server's flags and presets may name";
        return Err(Failure::field("method", reason));
    }
    Ok(Extras {
        candidates: fields.count("candidates")?.unwrap_or(0),
    })
}

/// Names of a map that are no settings of a method.
const OWN: [&str; 12] = [
    "candidates",
    "iterations",
    "max-tokens",
    "method",
    "patience",
    "preset",
    "reward-scale",
    "samples",
    "seed",
    "stop-on-divergence",
    "target-reward",
    "time-limit",
];

fn files(method: &MethodSpec) -> Vec<PathBuf> {
    let files = method.settings().files().into_iter();
    files.map(PathBuf::from).collect()
}

impl Preset {
    /// The search that it is, over `options`.
    ///
    /// # Errors
    /// [`Error::Field`] for what it cannot be.
    pub fn options(&self, options: &AlignOptions) -> Result<AlignOptions> {
        let mut options = options.clone();
        let applied = apply(&self.settings, &mut options, From::Server);
        applied.map_err(|failure| Error::field("preset", failure.to_string()))?;
        options.validate()?;
        Ok(options)
    }
}

/// The seed that is asked for; a random one where there is none, or it is below 0.
pub(super) fn seed(asked: Option<i64>) -> u64 {
    asked
        .and_then(|seed| u64::try_from(seed).ok())
        .unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(map: &Value) -> std::result::Result<AlignOptions, String> {
        let mut options = AlignOptions::default();
        let map = map.as_object().unwrap();
        apply(map, &mut options, From::Request).map_err(|failure| failure.to_string())?;
        let valid = options.validate().map_err(Failure::from);
        valid.map_err(|failure| failure.to_string())?;
        Ok(options)
    }

    #[test]
    fn a_map_says_what_flags_say() {
        let options = applied(&json!({
            "samples": 4, "iterations": 2, "time_limit": 1.5, "target-reward": 3, "seed": 7,
            "method": "best-of-n", "top_k": 5, "temp": null,
        }))
        .unwrap();
        assert_eq!((options.rounds.samples, options.rounds.iterations), (4, 2));
        assert_eq!(options.rounds.seed, 7);
        assert_eq!(options.budget.seconds, Some(1.5));
        assert_eq!(options.target_reward, Some(3.0));
        assert_eq!(options.method.entry().name, "best-of-n");
        assert_eq!(options.method.all()["top-k"], 5);
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (map, words) in [
            (json!({"samples": 0}), "samples: 0"),
            (json!({"samples": "x"}), "samples: must be a whole number"),
            (json!({"method": "magic"}), "method: no method"),
            (json!({"depth": 3}), "depth: no setting of search"),
            (
                json!({"reward": "command:id"}),
                "reward: rewards are chosen",
            ),
            (
                json!({"held_out": "http:x"}),
                "held_out: rewards are chosen",
            ),
            (
                json!({"preset": "/etc/passwd"}),
                "preset: no preset of search",
            ),
            (
                json!({"method": "re-control", "value": "/etc/passwd"}),
                "only the server's flags",
            ),
            (json!({"time_limit": -1}), "time_limit: -1"),
        ] {
            let error = applied(&map).unwrap_err();
            assert!(
                error.starts_with(words) || error.contains(words),
                "{map}: {error}"
            );
        }
    }
}
