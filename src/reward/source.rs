//! What a reward is made of before anything is loaded, and how a kind of them is described.

use std::fmt;
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
    /// How a reward of this kind is written, with all options.
    pub usage: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Reads what stands behind the colon.
    pub(super) parse: fn(&str) -> Result<Arc<dyn RewardSource>>,
}

impl RewardKind {
    /// What is wrong with a reward of this kind.
    pub(super) fn refuse(&self, reason: impl fmt::Display) -> Error {
        Error::field("reward", format!("{}: {reason}", self.name))
    }
}
