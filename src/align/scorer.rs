//! The reward while responses are being written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::events::Usage;
use crate::llama::{Model, Token};
use crate::method::Scorer;
use crate::reward::{Reward, Sample};

/// A reward that an aligner and its method ask in turn.
pub(super) type SharedReward = Arc<Mutex<Box<dyn Reward>>>;

/// The reward itself; that somebody panicked while it was asked does not matter.
pub(super) fn lock(reward: &SharedReward) -> MutexGuard<'_, Box<dyn Reward>> {
    reward.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Scores the beginnings of responses to one prompt, and counts what that costs.
pub(super) struct RewardScorer {
    model: Arc<Model>,
    reward: SharedReward,
    prompt: String,
    /// Reward calls that are left; one is kept for the response itself.
    left: Mutex<usize>,
    usage: Mutex<Usage>,
}

impl RewardScorer {
    /// At most `calls` reward calls; once they are spent, nothing has a reward.
    pub(super) fn new(
        model: &Arc<Model>,
        reward: &SharedReward,
        prompt: &str,
        calls: Option<usize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            model: Arc::clone(model),
            reward: Arc::clone(reward),
            prompt: prompt.to_owned(),
            left: Mutex::new(calls.unwrap_or(usize::MAX)),
            usage: Mutex::new(Usage::default()),
        })
    }

    /// What was spent since the last call.
    pub(super) fn take_usage(&self) -> Usage {
        std::mem::take(&mut *self.usage.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Scorer for RewardScorer {
    fn score(&self, responses: &[Vec<Token>]) -> Result<Vec<Option<f64>>> {
        let texts: Vec<String> = responses
            .iter()
            .map(|tokens| self.model.text(tokens))
            .collect();
        let written: Vec<usize> = (0..texts.len())
            .filter(|&i| !texts[i].trim().is_empty())
            .collect();
        let samples: Vec<Sample<'_>> = written
            .iter()
            .map(|&i| Sample {
                prompt: &self.prompt,
                response: &texts[i],
            })
            .collect();
        let mut rewards = vec![None; texts.len()];
        {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            if samples.is_empty() || samples.len() >= *left {
                return Ok(rewards);
            }
            *left -= samples.len();
        }
        let scores = lock(&self.reward).score(&samples)?;
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.reward_calls += samples.len();
        for (index, score) in written.into_iter().zip(scores) {
            if let Ok(score) = score {
                usage.reward_tokens += score.tokens;
                rewards[index] = Some(score.reward).filter(|r| r.is_finite());
            }
        }
        Ok(rewards)
    }
}
