//! What a reward is made of before anything is loaded, and how a kind of them is described.

use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::{Reward, RewardLoader};
use crate::error::{Error, Result};

/// What a reward is made of, before anything is loaded. Its [`fmt::Debug`] text is all that
/// determines the reward, files aside.
pub trait RewardSource: fmt::Debug + Send + Sync {
    /// The files that it names: models, heads, schemas, programs.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Makes the reward; `loader` has the models.
    ///
    /// # Errors
    /// Those of the reward.
    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>>;
}

/// A kind of reward: what it is called, how it is written, how it is read.
#[derive(Debug)]
pub struct RewardKind {
    /// What stands in front of the colon.
    pub name: &'static str,
    /// How a reward of this kind is written, its options left out.
    pub form: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// What the terms of its main part may be, where that is a list of them.
    pub terms: &'static [RewardOption],
    /// The options that may stand behind its main part; there are no others.
    pub options: &'static [RewardOption],
    /// Reads what stands behind the colon.
    pub(super) parse: fn(&str) -> Result<Arc<dyn RewardSource>>,
}

/// An option of a kind of reward, or a term.
#[derive(Debug)]
pub struct RewardOption {
    /// What stands in front of the equals sign.
    pub name: &'static str,
    /// What may stand behind it; nothing where no equals sign does.
    pub value: &'static str,
    /// What it is for, and what it is where it is not given.
    pub about: &'static str,
}

impl RewardOption {
    /// With all of it.
    pub(super) const fn new(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self { name, value, about }
    }
}

/// `NAME=VALUE`.
impl fmt::Display for RewardOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            "" => f.write_str(self.name),
            value => write!(f, "{}={value}", self.name),
        }
    }
}

impl RewardKind {
    /// How a reward of this kind is written, with all options.
    #[must_use]
    pub fn usage(&self) -> String {
        let options = self.options.iter();
        let options: String = options.map(|option| format!("[;{option}]")).collect();
        format!("{}{options}", self.form)
    }

    /// The same with what it is and what each option is for, in lines.
    #[must_use]
    pub fn help(&self) -> String {
        let mut help = format!("{}\n    {}\n", self.form, self.about);
        for option in self.terms.iter().chain(self.options) {
            let name = option.to_string();
            let _ = writeln!(help, "    {name:<28}  {}", option.about);
        }
        help
    }

    /// What is wrong with a reward of this kind.
    pub(super) fn refuse(&self, reason: impl fmt::Display) -> Error {
        Error::field("reward", format!("{}: {reason}", self.name))
    }
}
