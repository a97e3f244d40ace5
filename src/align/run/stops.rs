//! Why and when a run ends before its last iteration.

use super::Run;
use crate::align::record::StopReason;
use crate::error::{Error, Result};
use crate::stop::GRACE;

impl Run {
    /// Whether the candidates that are being written are no longer wanted.
    pub(in crate::align) fn is_over(&mut self) -> bool {
        if self.stopped.is_some() {
            return true;
        }
        if self.stop.is_requested() {
            self.stopped = Some(StopReason::Interrupted);
        } else if self.out_of_time() {
            self.stopped = Some(StopReason::TimeLimit);
        } else if self.out_of_tokens() || self.out_of_guidance() {
            self.stopped = Some(StopReason::Budget);
        }
        self.stopped.is_some()
    }

    /// Ends the run by a failure of the reward: what is scored so far is its outcome. Any other
    /// failure leaves none.
    pub(super) fn end_by(&mut self, error: Error) -> Result<()> {
        let Error::Reward(reason) = error else {
            return Err(error);
        };
        // It was given up, and the answer so far is the answer.
        if self.is_late() && self.tally.best().is_some() {
            self.stopped = Some(StopReason::TimeLimit);
            return Ok(());
        }
        self.failure = Some(reason);
        self.stopped = Some(match self.stop.is_requested() {
            true => StopReason::Interrupted,
            false => StopReason::RewardFailed,
        });
        Ok(())
    }

    /// Whether a method that asks can ask no more, and there is an answer that it was guided to.
    pub(super) fn out_of_guidance(&self) -> bool {
        self.unguided && self.tally.best().is_some()
    }

    fn out_of_tokens(&mut self) -> bool {
        let written = self.open.written();
        self.paid = self.options.budget.paid(&self.tally.usage, written);
        self.paid.is_some()
    }

    /// Whether the run ended with an iteration that is scored: those behind it are not wanted.
    pub(super) fn ended_before(&self) -> bool {
        use StopReason::{Budget, Divergence, Patience, TargetReward};
        let scored = matches!(
            self.stopped,
            Some(Budget | Divergence | Patience | TargetReward)
        );
        scored && self.paid.is_none()
    }

    fn out_of_time(&self) -> bool {
        self.over_time() >= 0.0
    }

    /// Whether its time was over so long ago that what is still waited for is given up.
    pub(super) fn is_late(&self) -> bool {
        self.over_time() >= GRACE.as_secs_f64()
    }

    /// Seconds beyond its time.
    fn over_time(&self) -> f64 {
        let limit = self.options.budget.seconds.unwrap_or(f64::INFINITY);
        self.started.elapsed().as_secs_f64() - limit
    }

    /// Why the run ends between two iterations, if it does.
    pub(super) fn why_stop(&self, diverged: bool, waited: usize) -> Option<StopReason> {
        let target = self.options.target_reward;
        if self.stop.is_requested() {
            Some(StopReason::Interrupted)
        } else if target.is_some_and(|t| self.tally.best().is_some_and(|c| c.reward >= Some(t))) {
            Some(StopReason::TargetReward)
        } else if diverged && self.options.stop_on_divergence {
            Some(StopReason::Divergence)
        } else if self.options.patience.is_some_and(|most| waited >= most) {
            Some(StopReason::Patience)
        } else if self.out_of_time() {
            Some(StopReason::TimeLimit)
        } else if self.unguided || self.options.budget.is_spent(&self.tally.usage) {
            Some(StopReason::Budget)
        } else {
            None
        }
    }

    /// What a stop that was chosen has saved: as many tokens for each iteration that the run did not
    /// come to as those took that it came to.
    pub(super) fn tokens_saved(&self) -> Option<usize> {
        use StopReason::{Divergence, Patience, TargetReward};
        let chosen = matches!(self.stopped, Some(Divergence | Patience | TargetReward));
        let (done, all) = (self.iterations.len(), self.method.shape().1);
        let tokens: usize = self.iterations.iter().map(|i| i.tokens).sum();
        (chosen && done > 0).then(|| tokens * all.saturating_sub(done) / done)
    }
}
