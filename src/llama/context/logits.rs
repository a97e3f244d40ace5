//! What a step has computed: logits with the perturbation, those of the model itself, pre-logits.

use llama_cpp_sys_2 as sys;

use super::{Context, LogitsRoute};
use crate::error::{Error, Result};

impl Context {
    /// Applies the output matrix to the rows x `[rows, d]`, outside the model's graph.
    pub(super) fn apply_head(&mut self, x: &[f32]) -> Result<()> {
        if self.output.is_none() {
            let threads = i32::try_from(self.options.threads.max(1)).unwrap_or(i32::MAX);
            let output = self.hook.head.build(threads).map_err(|reason| {
                Error::model(
                    self.model.path(),
                    format!(
                        "architecture {}: logits cannot be recomputed, {reason}; use \
                         `logits` = graph and no `price`",
                        self.model.architecture()
                    ),
                )
            })?;
            self.output = Some(output);
        }
        match &mut self.output {
            Some(output) => output
                .logits(x, self.outputs.len(), &mut self.recomputed)
                .map_err(Error::Engine),
            None => Ok(()),
        }
    }

    /// Makes [`Self::own_logits`] available for the rows of the last step: where the graph's
    /// logits are those of z + v, the output matrix is applied to z once more.
    ///
    /// # Errors
    /// [`Error::Model`] for a model whose output matrix stands behind operations that are not
    /// known, [`Error::Engine`] when llama.cpp fails.
    pub fn compute_own_logits(&mut self) -> Result<()> {
        if !self.perturbed {
            return Ok(());
        }
        let z = std::mem::take(&mut self.hook.pre_logits);
        let applied = self.apply_head(&z);
        self.hook.pre_logits = z;
        applied
    }

    /// Logits `[vocabulary]` of z alone for a row of the last step: what the model itself says.
    ///
    /// # Errors
    /// [`Error::Engine`] for a row that the last step did not have, or when
    /// [`compute_own_logits`](Self::compute_own_logits) was not called after it.
    pub fn own_logits(&self, row: usize) -> Result<&[f32]> {
        let missing = || Error::Engine(format!("no logits for row {row}"));
        if row >= self.outputs.len() {
            return Err(missing());
        }
        match self.perturbed {
            true => self.recomputed_row(row),
            false => self.graph_logits(row),
        }
        .ok_or_else(missing)
    }

    fn recomputed_row(&self, row: usize) -> Option<&[f32]> {
        let vocabulary = self.model.vocabulary();
        self.recomputed
            .get(row * vocabulary..(row + 1) * vocabulary)
    }

    /// Logits `[vocabulary]` of a row of the last step.
    ///
    /// # Errors
    /// [`Error::Engine`] for a row that the last step did not have.
    pub fn logits(&self, row: usize) -> Result<&[f32]> {
        let missing = || Error::Engine(format!("no logits for row {row}"));
        if row >= self.outputs.len() {
            return Err(missing());
        }
        match self.options.logits {
            LogitsRoute::Recompute => self.recomputed_row(row),
            LogitsRoute::Graph | LogitsRoute::Rows => self.graph_logits(row),
        }
        .ok_or_else(missing)
    }

    /// Logits as the graph computed them, whatever the route: on [`LogitsRoute::Recompute`]
    /// those of z alone.
    #[must_use]
    pub fn graph_logits(&self, row: usize) -> Option<&[f32]> {
        let row = *self.outputs.get(row)?;
        // SAFETY: this row of the last batch was an output, so the index exists; llama.cpp keeps
        // `vocabulary` floats there until the next decode, which needs `&mut self`.
        unsafe {
            let pointer = sys::llama_get_logits_ith(self.raw.as_ptr(), row as i32);
            (!pointer.is_null())
                .then(|| std::slice::from_raw_parts(pointer, self.model.vocabulary()))
        }
    }

    /// Pre-logits z [rows, d] of the last step, before any perturbation; empty unless the
    /// step was asked to keep them or had to read them.
    #[must_use]
    pub fn pre_logits(&self) -> &[f32] {
        &self.hook.pre_logits
    }
}
