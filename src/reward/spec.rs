//! Rewards by their description: `[WEIGHT*]KIND:MAIN[;OPTION=VALUE]…`, as a command line or a
//! configuration writes them. [`RewardLoader`] makes rewards of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{self, FileSource};
use super::{Mix, Reward, RewardLoader, RewardSource, kinds, terms};
use crate::error::{Error, Result};
use crate::llama::Placement;

/// A reward with its weight in the mix.
#[derive(Clone, Debug)]
pub struct RewardSpec {
    /// Factor of the reward.
    pub weight: f64,
    /// What it is.
    pub source: Arc<dyn RewardSource>,
}

impl RewardLoader {
    /// Loads `specs` as one reward.
    ///
    /// # Errors
    /// Those of the rewards, and [`Error::Field`](crate::Error::Field) when there is none.
    pub fn load(&mut self, specs: &[RewardSpec]) -> Result<Box<dyn Reward>> {
        let mut parts = specs
            .iter()
            .map(|spec| Ok((spec.weight, spec.source.load(self)?)))
            .collect::<Result<Vec<_>>>()?;
        match parts.pop() {
            Some((1.0, reward)) if parts.is_empty() => Ok(reward),
            last => {
                parts.extend(last);
                if let Some((_, reward)) = parts.iter().find(|(_, reward)| reward.compares()) {
                    return Err(Error::field(
                        "reward",
                        format!(
                            "{} only compares the responses of a run, and has no unit that a \
                             weight or another reward could be put beside; give it alone",
                            reward.name()
                        ),
                    ));
                }
                Ok(Box::new(Mix::new(parts)?))
            }
        }
    }
}

impl RewardSpec {
    /// A GGUF whose kind its header tells: a classifier, or a head inside the file; or one with
    /// a head's file beside it, by the name of [`head_beside`](super::head_beside).
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            weight: 1.0,
            source: Arc::new(FileSource::new(path.into(), Placement::default())),
        }
    }

    /// The files that it names: models, heads, schemas, programs.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        self.source.files()
    }

    /// Reads `[WEIGHT*]KIND:MAIN[;OPTION=VALUE]…`; see [`kinds`](super::kinds()).
    ///
    /// # Errors
    /// [`Error::Field`] with what is wrong and what there is.
    pub fn parse(text: &str) -> Result<Self> {
        let (weight, rest) = weight(text)?;
        let source = kinds::parse(rest)?;
        Ok(Self { weight, source })
    }

    /// Reads `[WEIGHT*]FILE[;OPTION=VALUE]…`, where the file tells what it is.
    ///
    /// # Errors
    /// [`Error::Field`] for a weight that is none, and with the options that there are.
    pub fn parse_file(text: &str) -> Result<Self> {
        let (weight, rest) = weight(text)?;
        let source = file::parse(rest)?;
        Ok(Self { weight, source })
    }
}

fn weight(text: &str) -> Result<(f64, &str)> {
    let (weight, rest) = terms::split_weight(text).map_err(|e| Error::field("reward", e))?;
    match weight {
        Some(0.0) => Err(Error::field("reward", format!("{text:?}: a weight of 0"))),
        weight => Ok((weight.unwrap_or(1.0), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debug(text: &str) -> String {
        format!("{:?}", RewardSpec::parse(text).unwrap().source)
    }

    fn refusal(text: &str) -> (String, String) {
        match RewardSpec::parse(text).unwrap_err() {
            Error::Field { field, reason } => (field, reason),
            other => panic!("{text}: {other}"),
        }
    }

    #[test]
    fn every_kind_is_described() {
        for kind in kinds() {
            assert!(kind.form.starts_with(&format!("{}:", kind.name)));
            assert!(!kind.about.is_empty(), "{}", kind.name);
            let same = kinds().iter().filter(|other| other.name == kind.name);
            assert_eq!(same.count(), 1, "{}", kind.name);
        }
    }

    #[test]
    fn every_option_of_the_table_is_read_and_no_other() {
        let unread = |text: &str| match RewardSpec::parse(text) {
            Err(Error::Field { reason, .. }) => {
                reason.contains("no option") || reason.contains("no such rule")
            }
            _ => false,
        };
        for kind in kinds() {
            for option in kind.options {
                let text = format!("{}:x;{}=1", kind.name, option.name);
                assert!(!unread(&text), "{text}");
                assert!(kind.usage().contains(&format!("[;{option}]")));
            }
            for term in kind.terms {
                assert!(!unread(&format!("{}:{}", kind.name, term.name)), "{term}");
            }
            assert!(
                unread(&format!("{}:x;nonsense=1", kind.name)),
                "{}",
                kind.name
            );
        }
    }

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_rewards() {
        let mut seen = 0;
        for kind in kinds() {
            // Those that are a value, and no sentence.
            let defaults = kind.options.iter().filter_map(|option| {
                let (_, default) = option.about.split_once("[default: ")?;
                let value = default.strip_suffix(']')?;
                (!value.contains(' ')).then(|| format!(";{}={value}", option.name))
            });
            let given: Vec<String> = defaults.collect();
            seen += given.len();
            if !given.is_empty() {
                let plain = format!("{}:x", kind.name);
                assert_eq!(debug(&(plain.clone() + &given.concat())), debug(&plain));
            }
        }
        assert!(seen > 5);
    }

    #[test]
    fn what_stands_in_a_description_is_in_the_source() {
        let spec = RewardSpec::parse("-2*head:m.gguf;head=h.gguf;pooling=mean").unwrap();
        assert_eq!(spec.weight, -2.0);
        assert_eq!(spec.files(), [Path::new("m.gguf"), Path::new("h.gguf")]);
        let other = RewardSpec::parse_file("0.5*m.gguf").unwrap();
        assert_eq!((other.weight, other.files()[0]), (0.5, Path::new("m.gguf")));
        let other = RewardSpec::parse_file("2*m.gguf;ngl=all").unwrap();
        assert_eq!((other.weight, other.files()[0]), (2.0, Path::new("m.gguf")));
        assert!(RewardSpec::parse_file("m.gguf;text=chat").is_err());
        for (text, files, word) in [
            ("classifier:c.gguf;too-long=truncate", 1, "Truncate"),
            ("judge:j.gguf;scale=1..5", 1, "high: 5"),
            (
                "judge:j.gguf;ngl=0;dev=none",
                1,
                "Placement { gpu_layers: Some(Some(0)), devices: Some([]) }",
            ),
            ("judge:self;question=\"{response}; good?\"", 0, "; good?"),
            (
                "likelihood:l.gguf;chat=off;between=\\n\\n",
                1,
                "chat: Some(false), between: Some(\"\\n\\n\")",
            ),
            ("0.1*likelihood:self", 0, "LikelihoodSource(None"),
            ("rule:json; 2*words=3", 0, "json; 2*words=3"),
            ("command:cat;timeout=2;restarts=7", 0, "restarts: 7"),
            ("http:localhost:80;api=chat;retries=9", 0, "retries: 9"),
        ] {
            assert!(debug(text).contains(word), "{text}: {}", debug(text));
            assert_eq!(RewardSpec::parse(text).unwrap().files().len(), files);
        }
    }

    #[test]
    fn a_wrong_description_is_answered_with_the_right_ones() {
        for (text, words) in [
            ("film.gguf", &["KIND:…", "kinds are classifier, head"][..]),
            ("magic:x", &["no kind \"magic\"", "command, http"]),
            ("0*rule:json", &["a weight of 0"]),
            ("judge:", &["judge: nothing behind the colon"]),
            ("judge:self;yes=Y", &["judge: give yes=… and no=… together"]),
            ("judge:j;ngl=x", &["judge: ngl=x: neither a number"]),
            ("judge:self;scale=5..1", &["judge: scale=5..1: must be"]),
            (
                "likelihood:self;chat=maybe",
                &["likelihood: chat=maybe: neither on nor off"],
            ),
            (
                "likelihood:x;scale=1..2",
                &["\"scale\"", "[;chat=on|off][;between=TEXT][;ngl=N]"],
            ),
            (
                "head:m;quest=x",
                &[
                    "head: ",
                    "\"quest\"",
                    "[;pooling=last|mean|cls]",
                    "][;ngl=N][;dev=NAME,…]",
                ],
            ),
            ("http:x;timeout=0", &["http: timeout=0: must be seconds"]),
            (
                "classifier:m;text=a",
                &["classifier: text=a: \"a\" has no {response}"],
            ),
            (
                "rule:nonsense=3",
                &["rule: nonsense=3: there is no such rule"],
            ),
        ] {
            let (field, reason) = refusal(text);
            assert_eq!(field, "reward");
            for word in words {
                assert!(reason.contains(word), "{text}: {reason}");
            }
            assert!(!reason.contains("--"), "{reason}");
            assert!(!reason.contains("reward:"), "{reason}");
        }
    }
}
