//! Which reward is asked for which run.

use super::events::RunId;
use super::request::Prompt;
use super::tally::Elite;
use crate::error::{Error, Result};
use crate::llama::{Model, Token};
use crate::reward::{Pending, Reward, Sample, Scores, given_up};
use crate::rollout::Form;
use crate::stop::Stop;

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
    prompt: &'a Prompt,
    responses: impl Iterator<Item = &'a str>,
) -> Vec<Sample<'a>> {
    let (text, messages) = (prompt.text(), prompt.conversation());
    let sample = |response| Sample {
        prompt: text,
        response,
        messages,
    };
    responses.map(sample).collect()
}

/// The best responses to a prompt so far, with what is `said` of each.
pub(super) fn beside<'a>(
    prompt: &'a Prompt,
    elites: &'a [Elite],
    said: impl Fn(&Elite) -> Option<f64>,
) -> Vec<(Sample<'a>, f64)> {
    let (text, messages) = (prompt.text(), prompt.conversation());
    let sample = |elite: &'a Elite| Sample {
        prompt: text,
        response: &elite.text,
        messages,
    };
    let elites = elites.iter();
    elites.filter_map(|e| Some((sample(e), said(e)?))).collect()
}

/// The scores of `samples` beside `elites`, as many as there are.
pub(super) fn score(
    reward: &mut dyn Reward,
    samples: &[Sample<'_>],
    elites: &[(Sample<'_>, f64)],
) -> Result<Scores> {
    if samples.is_empty() {
        return Ok(Vec::new());
    }
    whole(reward.score_beside(samples, elites)?, samples.len())
}

/// The scores, where there are as many as samples.
fn whole(scores: Scores, samples: usize) -> Result<Scores> {
    if scores.len() == samples {
        return Ok(scores);
    }
    Err(Error::Reward(format!(
        "{} scores for {samples} responses",
        scores.len()
    )))
}

/// What a reward says of some samples: there already, or in the making.
pub(super) enum Asked {
    There(Result<Scores>),
    /// With the number of samples.
    Pending(Pending, usize),
}

impl Asked {
    /// Asks for the scores of `samples` beside `elites`.
    pub(super) fn of(
        reward: &mut dyn Reward,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Self {
        let pending = match samples.is_empty() {
            true => None,
            false => reward.begin(samples, elites),
        };
        match pending {
            Some(pending) => Self::Pending(pending, samples.len()),
            None => Self::There(score(reward, samples, elites)),
        }
    }

    /// Whether there will be none.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::There(Err(_)))
    }

    /// Whether they were not there before, and are now: given up where they are too `late`, or too late for
    /// `stop`.
    pub(super) fn becomes_there(&mut self, stop: &Stop, late: bool) -> bool {
        let Self::Pending(pending, samples) = self else {
            return false;
        };
        let over = || (late || stop.is_overdue()).then(|| Err(given_up()));
        let Some(scores) = pending().or_else(over) else {
            return false;
        };
        let samples = *samples;
        *self = Self::There(scores.and_then(|scores| whole(scores, samples)));
        true
    }

    /// Whether they are there.
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Self::There(_))
    }

    /// The scores.
    pub(super) fn scores(self) -> Result<Scores> {
        match self {
            Self::There(scores) => scores,
            Self::Pending(..) => Err(Error::Reward("the scores are not there yet".into())),
        }
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
