//! What a run has counted so far: its scored candidates, the best of them, what they cost.

use super::record::{ScoredCandidate, Usage};
use crate::error::Error;
use crate::reward::Answer;
use crate::rollout::Candidate;

/// Candidates without a reward, by reason.
#[derive(Default)]
struct Failures {
    empty: usize,
    other: usize,
    last: String,
}

/// The count.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) usage: Usage,
    /// Highest reward.
    pub(super) best: Option<f64>,
    /// Held-out reward of the candidate that has it.
    pub(super) held_out_best: Option<f64>,
    /// All candidates.
    pub(super) ranked: Vec<ScoredCandidate>,
    failures: Failures,
}

impl ScoredCandidate {
    /// Candidate `index` of `iteration`, before it is scored.
    pub(super) fn new(iteration: usize, index: usize, candidate: &Candidate) -> Self {
        Self {
            iteration,
            candidate: index,
            reward: None,
            held_out: None,
            tokens: candidate.tokens.len(),
            end: candidate.end,
            text: candidate.text.clone(),
            error: None,
            truncated: false,
        }
    }
}

impl Tally {
    /// Counts a candidate that has nothing to score.
    pub(super) fn count_empty(&mut self, scored: &mut ScoredCandidate) {
        self.failures.empty += 1;
        self.usage.unscored += 1;
        scored.error = Some("empty response".into());
    }

    /// Counts a candidate that was given to the reward, and puts down what that said.
    pub(super) fn count(&mut self, scored: &mut ScoredCandidate, answer: Option<Answer>) {
        self.usage.reward_calls += 1;
        match answer {
            Some(Ok(score)) => {
                self.usage.reward_tokens += score.tokens;
                self.usage.truncated += usize::from(score.truncated);
                scored.truncated = score.truncated;
                if score.reward.is_finite() {
                    scored.reward = Some(score.reward);
                } else {
                    scored.error = Some(format!("the reward is {}", score.reward));
                }
            }
            Some(Err(error)) => scored.error = Some(error.to_string()),
            None => scored.error = Some("no score".into()),
        }
        if let Some(error) = &scored.error {
            self.failures.other += 1;
            self.failures.last.clone_from(error);
        }
        self.usage.unscored += usize::from(scored.reward.is_none());
        if scored.reward > self.best {
            self.best = scored.reward;
            self.held_out_best = scored.held_out;
        }
    }

    /// Why there is no answer.
    pub(super) fn no_answer(&self) -> Error {
        let Failures { empty, other, last } = &self.failures;
        match (empty, other) {
            (0, 0) => Error::Run(
                "stopped before a candidate had any token; nothing to answer with".into(),
            ),
            (_, 0) => Error::Run(format!(
                "every candidate is empty ({empty} of {empty}): the model ends its turn at once; \
                 check the prompt and the chat template (`chat-template`, `chat`)"
            )),
            _ => Error::Reward(format!(
                "no response could be scored: {other} of {} failed, the last with: {last}",
                empty + other
            )),
        }
    }
}

/// Whether there is nothing to score.
pub(super) fn is_empty(candidate: &Candidate) -> bool {
    candidate.text.trim().is_empty()
}
