//! What a rollout is made for.

use crate::llama::{Attention, ContextOptions, LogitsRoute, step_rows};

/// How a rollout is made.
#[derive(Clone, Debug)]
pub struct RolloutOptions {
    /// Candidates side by side, 1 to 256; rounded up to the [rows of a step](step_rows).
    pub parallel: usize,
    /// Sequences that hold what candidates with a [beginning](crate::rollout::Job::beginning) go on from;
    /// 0 decodes every beginning again, and keeps nothing of what the model said. Results do not depend on it.
    pub parked: usize,
    /// Tokens that a prompt and its response may take together.
    pub context: usize,
    /// CPU threads.
    pub threads: usize,
    /// CPU threads where several tokens are decoded at once; 0 takes `threads`.
    pub threads_batch: usize,
    /// How attention is computed.
    pub attention: Attention,
    /// The way to the perturbed logits.
    pub logits: LogitsRoute,
}

impl Default for RolloutOptions {
    /// 16 candidates side by side, nothing parked, 512 tokens, a thread for each physical core.
    fn default() -> Self {
        Self {
            parallel: 16,
            parked: 0,
            context: 512,
            threads: crate::default_threads(),
            threads_batch: 0,
            attention: Attention::default(),
            logits: LogitsRoute::default(),
        }
    }
}

impl RolloutOptions {
    /// How its context is made.
    #[must_use]
    pub fn of_context(&self) -> ContextOptions {
        ContextOptions {
            sequences: step_rows(self.parallel),
            parked: self.parked,
            context: self.context,
            threads: self.threads,
            threads_batch: self.threads_batch,
            attention: self.attention,
            logits: self.logits,
        }
    }
}
