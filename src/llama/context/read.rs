//! Blocks of many sequences at once, for texts that are read and not written.

use std::sync::Arc;

use super::{
    Action, Context, ContextOptions, Error, Model, PROMPT_CHUNK, Result, Token, step_rows,
};

/// Most tokens of one [`Context::read`]; one ubatch, so that rows come in the batch's order.
pub(in crate::llama) const READ_TOKENS: usize = PROMPT_CHUNK;

impl Context {
    /// Makes a context for [`Self::read`], with at most `outputs` outputs of a sequence at
    /// once. Attention is computed row by row the same way however many rows there are,
    /// which flash attention does not promise.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(in crate::llama) fn for_reading(
        model: Arc<Model>,
        options: &ContextOptions,
        outputs: usize,
    ) -> Result<Self> {
        Self::make(model, options, outputs.max(2))
    }

    /// Most outputs of one [`Self::read`].
    pub(in crate::llama) fn most_outputs(&self) -> usize {
        self.most_outputs
    }

    /// Decodes as many tokens of each of the sequences 0, 1, … behind the `length` tokens that
    /// each of them holds. `output` tells of a sequence and an index in its block whether
    /// pre-logits and logits are wanted. The answer are their rows, in this order, sequence by
    /// sequence; rows that nobody wants may stand between them, as their number is that of a
    /// [step](step_rows).
    ///
    /// # Errors
    /// [`Error::Engine`] for blocks of different lengths or too many tokens, or when
    /// llama.cpp fails; [`Error::Model`] when it shows other rows than these.
    pub(in crate::llama) fn read(
        &mut self,
        length: usize,
        blocks: &[&[Token]],
        output: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Vec<usize>> {
        let size = blocks.first().map_or(0, |b| b.len());
        let wanted: Vec<bool> = (0..size * blocks.len())
            .map(|at| output(at / size, at % size))
            .collect();
        let count = wanted.iter().filter(|wanted| **wanted).count();
        let mut more = match count {
            0 => 0,
            count => step_rows(count) - count,
        };
        let mut rows = Vec::with_capacity(count);
        self.outputs.clear();
        self.batch.clear();
        for (sequence, block) in blocks.iter().enumerate() {
            for (i, &token) in block.iter().enumerate() {
                let wanted = wanted.get(sequence * size + i) == Some(&true);
                if wanted {
                    rows.push(self.outputs.len());
                }
                let fills = !wanted && more > 0;
                more -= usize::from(fills);
                if wanted || fills {
                    self.outputs.push(self.batch.len());
                }
                self.batch
                    .push(token, length + i, sequence, wanted || fills);
            }
        }
        for sequence in 0..blocks.len().min(self.options.sequences) {
            self.sequences.check_end(sequence, length)?;
        }
        let count = self.outputs.len();
        if size == 0
            || self.batch.len() != size * blocks.len()
            || self.batch.len() > READ_TOKENS
            || blocks.len() > self.options.sequences
            || count > self.most_outputs
        {
            self.outputs.clear();
            return Err(Error::Engine(format!(
                "blocks that cannot be read: {}",
                blocks.len()
            )));
        }
        self.hook.arm(if count > 0 {
            Action::Take
        } else {
            Action::Ignore
        });
        let decoded = self.decode();
        let checked = self.hook.disarm(count).map_err(|reason| {
            let arch = self.model.architecture();
            Error::model(self.model.path(), format!("architecture {arch}: {reason}"))
        });
        let result = decoded.and(checked);
        if result.is_err() {
            self.outputs.clear();
        }
        for (sequence, block) in blocks.iter().enumerate() {
            match result {
                Ok(()) => block
                    .iter()
                    .for_each(|&t| self.sequences.push(sequence, t, false)),
                Err(_) => self.sequences.release(sequence)?,
            }
        }
        result.map(|()| rows)
    }
}
