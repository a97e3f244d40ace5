//! Which reward is asked for which run.

use super::events::RunId;
use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::reward::{Pending, Reward, Sample, Scores};
use crate::rollout::Form;

/// The rewards of one run.
pub struct RunRewards<'a> {
    /// What is optimised.
    pub reward: &'a mut dyn Reward,
    /// A second reward that only watches: it scores the same candidates, is reported beside the
    /// first, and steers nothing. When it fails as a whole, the run goes on without it
    /// ([`HeldOutFailed`](super::EventKind::HeldOutFailed)).
    pub held_out: Option<&'a mut dyn Reward>,
}

impl<'a> RunRewards<'a> {
    /// Of rewards as they are loaded.
    pub fn new(reward: &'a mut dyn Reward, held_out: &'a mut Option<Box<dyn Reward>>) -> Self {
        Self {
            reward,
            held_out: match held_out {
                Some(reward) => Some(reward.as_mut()),
                None => None,
            },
        }
    }
}

/// The rewards of every run: they are handed in with each call, so that they belong to whoever
/// drives the runs. Any [`Reward`] is one for all runs; so are a reward and a held-out one
/// ([`RunRewards`]).
pub trait Rewards {
    /// Those of `run`.
    fn of(&mut self, run: RunId) -> RunRewards<'_>;
}

impl<R: Reward> Rewards for R {
    fn of(&mut self, _run: RunId) -> RunRewards<'_> {
        RunRewards {
            reward: self,
            held_out: None,
        }
    }
}

impl Rewards for RunRewards<'_> {
    fn of(&mut self, _run: RunId) -> RunRewards<'_> {
        RunRewards {
            reward: &mut *self.reward,
            held_out: match &mut self.held_out {
                Some(reward) => Some(&mut **reward),
                None => None,
            },
        }
    }
}

/// Responses to one prompt, as a reward takes them.
pub(super) fn samples<'a>(
    prompt: &'a str,
    responses: impl Iterator<Item = &'a str>,
) -> Vec<Sample<'a>> {
    responses
        .map(|response| Sample { prompt, response })
        .collect()
}

/// What a reward says of some samples: there already, or in the making.
pub(super) enum Asked {
    There(Result<Scores>),
    Pending(Pending),
}

impl Asked {
    /// Asks for the scores of `samples`.
    pub(super) fn of(reward: &mut dyn Reward, samples: &[Sample<'_>]) -> Self {
        if samples.is_empty() {
            return Self::There(Ok(Vec::new()));
        }
        match reward.begin(samples) {
            Some(pending) => Self::Pending(pending),
            None => Self::There(reward.score(samples)),
        }
    }

    /// Whether they are there.
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Self::There(_))
    }

    /// Whether there will be none.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::There(Err(_)))
    }

    /// Whether they were not there before, and are now.
    pub(super) fn becomes_there(&mut self) -> bool {
        let Self::Pending(pending) = self else {
            return false;
        };
        let scores = pending();
        let there = scores.is_some();
        if let Some(scores) = scores {
            *self = Self::There(scores);
        }
        there
    }

    /// The scores, as many as there are samples.
    pub(super) fn scores(self, samples: usize) -> Result<Scores> {
        let scores = match self {
            Self::There(scores) => scores?,
            Self::Pending(_) => return Err(Error::Reward("the scores are not there yet".into())),
        };
        if scores.len() == samples {
            return Ok(scores);
        }
        Err(Error::Reward(format!(
            "{} scores for {samples} responses",
            scores.len()
        )))
    }
}

/// Texts of responses of this form that are being written; `None` for those without any text yet.
pub(super) fn beginnings(
    model: &Model,
    form: &Form,
    responses: &[Vec<Token>],
) -> Vec<Option<String>> {
    let texts = responses.iter().map(|tokens| form.read(model, tokens).text);
    texts
        .map(|text| Some(text).filter(|text| !text.trim().is_empty()))
        .collect()
}
