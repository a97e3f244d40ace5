//! The memory that the sequences of an [`Aligner`] take.

use std::sync::Arc;

use super::{Aligner, Batch};
use crate::error::{Error, Result};
use crate::llama::{ContextMemory, available_memory, offloads};
use crate::rollout::RolloutOptions;

/// What llama.cpp notes down of a place for keys and values, in bytes.
///
/// Source: `llama_kv_cells` in llama.cpp's `src/llama-kv-cells.h`.
const CELL: u64 = 48;
/// Parked sequences take at most this part of the memory that is free: a fourth.
const PARKED_SHARE: u64 = 4;
/// Runs that have candidates at the same time: with one in its last few, the next ones fill the places.
const SIDE_BY_SIDE: usize = 3;

impl Aligner {
    /// What the next prompts need of memory, where none is longer than what was
    /// [reserved](Self::reserve).
    #[must_use]
    pub fn memory(&self) -> ContextMemory {
        let context = self.options.context.unwrap_or(self.reserved);
        ContextMemory::of(&self.model, &self.rollout_options(context).of_context())
    }

    /// Makes room for what so many runs, side by side, go on from, in a batch that is yet to be made.
    pub fn expect(&mut self, runs: usize) {
        self.side_by_side = self.side_by_side.max(runs.min(SIDE_BY_SIDE));
    }

    /// How a rollout with so many tokens a sequence is made: with as many parked sequences as take
    /// [a part](PARKED_SHARE) of the memory at most.
    fn rollout_options(&self, context: usize) -> RolloutOptions {
        self.rollout_options_in(context, available_memory())
    }

    /// The same where so many bytes are free; `None` where that is not known.
    fn rollout_options_in(&self, context: usize, free: Option<u64>) -> RolloutOptions {
        let mut options = RolloutOptions {
            parallel: self.options.parallel,
            parked: 0,
            context,
            threads: self.options.threads,
            threads_batch: self.options.threads_batch,
            attention: self.options.attention,
            logits: self.options.logits,
        };
        if self.options.share_prefixes {
            let (sequences, needed) = self.needed(&options);
            let each = needed.div_ceil(sequences).max(1);
            let most = free.map_or(u64::MAX, |free| {
                (free / PARKED_SHARE).min(free.saturating_sub(needed)) / each
            });
            // A GPU's memory is not known here, and recurrent states are no beginnings of others.
            let runs = match offloads() || self.model.is_recurrent() {
                true => 1,
                false => self.side_by_side,
            };
            let wanted = self.options.parallel * runs;
            options.parked = wanted.min(usize::try_from(most).unwrap_or(usize::MAX));
        }
        options
    }

    /// The sequences of such a rollout, and what it takes of the memory, in bytes.
    fn needed(&self, options: &RolloutOptions) -> (u64, u64) {
        let memory = ContextMemory::of(&self.model, &options.of_context());
        let cells = CELL * (memory.tokens * memory.sequences) as u64;
        (memory.sequences as u64, memory.total() + cells)
    }

    /// Refuses what so much free memory has no room for, where the sequences are in it.
    fn check_memory(&self, options: &RolloutOptions, free: Option<u64>) -> Result<()> {
        let (sequences, needed) = self.needed(options);
        match free.filter(|_| !offloads()) {
            Some(free) if needed > free => Err(Error::field(
                "context",
                format!(
                    "{:.1} GB for {sequences} sequences of {} tokens, and {:.1} GB of memory are free; give \
                     a smaller `context`, `max-tokens` or `parallel`",
                    needed as f64 / 1e9,
                    options.context,
                    free as f64 / 1e9
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The batch, made or made anew where its context is too short.
    pub(super) fn batch_for(&mut self, prompt: usize, response: usize) -> Result<&mut Batch> {
        let needed = prompt + response;
        self.check_length(prompt, response)?;
        let context = self.options.context.unwrap_or(needed.max(self.reserved));
        let made = self.batch.take();
        let added = made.as_ref().map_or(0, |batch| batch.added);
        let fits = |batch: &Batch| batch.rollout().context().options().context >= context;
        let batch = match made.filter(fits) {
            Some(batch) => batch,
            None => {
                let free = available_memory();
                let options = self.rollout_options_in(context, free);
                self.check_memory(&options, free)?;
                let mut batch = Batch::new(Arc::clone(&self.model), &options)?;
                // Runs are counted on.
                batch.added = added;
                batch
            }
        };
        Ok(self.batch.insert(batch))
    }
}
