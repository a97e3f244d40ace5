//! What the rewards say of an iteration.

use std::sync::Arc;
use std::time::Instant;

use super::Run;
use crate::align::events::EventKind;
use crate::align::parts;
use crate::align::rewards::{RunRewards, beside, samples, score};
use crate::error::Result;
use crate::reward::Sample;
use crate::rollout::Candidate;

impl Run {
    /// Scores the texts of `candidates` that have no score yet.
    pub(super) fn score(
        &mut self,
        rewards: &mut RunRewards<'_>,
        candidates: &[(usize, &Candidate)],
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let texts = self.tally.unknown(candidates);
        let prompt = Arc::clone(&self.prompt);
        let samples = samples(&prompt, texts.iter().copied());
        let elites = self.tally.elites();
        let begun = Instant::now();
        let rewarded = beside(&prompt, &elites, |elite| Some(elite.reward));
        let mut scores = score(&mut *rewards.reward, &samples, &rewarded)?;
        self.timings.reward_seconds += begun.elapsed().as_secs_f64();
        let scale = self.options.reward_scale;
        let parts = self.parts.get_or_insert_with(|| {
            let parts = parts::measure(rewards.reward.parts(), &scores, scale);
            if !parts.is_empty() {
                tell(EventKind::RewardParts {
                    decisive: parts::decisive(&parts),
                    parts: parts.clone(),
                });
            }
            parts
        });
        for score in scores.iter_mut().flatten().filter(|_| scale) {
            score.reward = parts::scaled(parts, score);
        }
        let watched = beside(&prompt, &elites, |elite| elite.held_out);
        let watched = self.watch(rewards, &samples, &watched, tell);
        let mut watched = watched.into_iter();
        for (text, score) in texts.into_iter().zip(scores) {
            self.tally.learn(text, score, watched.next().flatten());
        }
        Ok(())
    }

    /// What the held-out reward says of each sample. It only watches: when it fails as a
    /// whole the run goes on without it.
    fn watch(
        &mut self,
        rewards: &mut RunRewards<'_>,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
        tell: &mut dyn FnMut(EventKind),
    ) -> Vec<Option<f64>> {
        let wanted = !samples.is_empty() && !self.held_out_failed;
        let Some(reward) = rewards.held_out.as_mut().filter(|_| wanted) else {
            return Vec::new();
        };
        let begun = Instant::now();
        let scores = score(&mut **reward, samples, elites);
        self.timings.held_out_seconds += begun.elapsed().as_secs_f64();
        match scores {
            Ok(scores) => scores
                .into_iter()
                .map(|score| Some(score.ok()?.reward).filter(|r| r.is_finite()))
                .collect(),
            Err(error) => {
                self.held_out_failed = true;
                let reason = error.to_string();
                tell(EventKind::HeldOutFailed { reason });
                Vec::new()
            }
        }
    }
}
