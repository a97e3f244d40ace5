//! What a context is made for.

use llama_cpp_sys_2 as sys;
use serde::{Deserialize, Serialize};

use super::super::attention::Attention;
use super::super::{LEAST_ROWS, MAX_SEQUENCES};
use super::Model;
use crate::error::Result;

/// The way to the perturbed logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogitsRoute {
    /// The graph gives the model's own logits; where a floor leaves few tokens, W_j·v is added to
    /// theirs from the rows of the file, and elsewhere v takes the way of [`Graph`](Self::Graph).
    #[default]
    Rows,
    /// v is added to the pre-logits inside the model's graph.
    Graph,
    /// The pre-logits are taken out, v is added, and the output matrix is applied to the
    /// sum in a graph of its own: an independent check of the others.
    Recompute,
}

/// How a context is made.
#[derive(Clone, Debug)]
pub struct ContextOptions {
    /// Sequences at once, as many as the [rows of a step](crate::llama::step_rows), up to [`MAX_SEQUENCES`].
    pub sequences: usize,
    /// Sequences behind those that only hold what others are to go on from; both together are at
    /// most [`MAX_SEQUENCES`]. A recurrent or hybrid model has at least one, for its prompt.
    pub parked: usize,
    /// Tokens that one sequence can hold (prompt and response).
    pub context: usize,
    /// CPU threads.
    pub threads: usize,
    /// CPU threads where several tokens are decoded at once: prompts, and steps of several rows; 0
    /// takes `threads`.
    pub threads_batch: usize,
    /// How attention is computed.
    pub attention: Attention,
    /// The way to the perturbed logits.
    pub logits: LogitsRoute,
}

impl Default for ContextOptions {
    /// The least rows of a step, nothing parked, 512 tokens, one thread.
    fn default() -> Self {
        Self {
            sequences: LEAST_ROWS,
            parked: 0,
            context: 512,
            threads: 1,
            threads_batch: 0,
            attention: Attention::default(),
            logits: LogitsRoute::default(),
        }
    }
}

impl ContextOptions {
    /// Puts threads and attention into the parameters of a context of `model`, which may be one for
    /// texts that are only `read`.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) for what the model cannot have.
    pub(super) fn set(
        &self,
        params: &mut sys::llama_context_params,
        model: &Model,
        read: bool,
    ) -> Result<()> {
        let threads = |n: usize| i32::try_from(n.max(1)).unwrap_or(i32::MAX);
        params.n_threads = threads(self.threads);
        params.n_threads_batch = match self.threads_batch {
            0 => params.n_threads,
            batch => threads(batch),
        };
        let attention = self.attention.of(model, read)?;
        params.flash_attn_type = attention.flash.raw();
        (params.type_k, params.type_v) = (attention.keys.raw(), attention.values.raw());
        Ok(())
    }

    /// Sequences of a context of `model`, those that are only parked among them.
    pub(in crate::llama) fn held(&self, model: &Model) -> usize {
        let least = usize::from(model.is_recurrent());
        (self.sequences + self.parked.max(least)).min(MAX_SEQUENCES)
    }
}
