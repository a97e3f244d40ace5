//! Many sequences of one model, decoded a step at a time, with a perturbation on the
//! pre-logits of each.
//!
//! Every sequence has a key-value stream of its own (`kv_unified = false`): attention then
//! costs the same however many other sequences there are, and a sequence's numbers depend
//! on its own tokens alone. The price is that a step must use consecutive sequence ids from
//! 0 on, and that a prompt is copied to each stream.

mod logits;
mod options;
mod read;

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::batch::Batch;
use super::hook::{Action, Hook, RowsEdit, eval_callback};
use super::model::{Model, Token};
use super::output::{HeadCapture, OutputMatrix};
use super::sequences::{BLOCK, PROMPT_CHUNK, Reuse, STATE_BLOCK, Sequences};
use super::{LEAST_ROWS, MAX_SEQUENCES, ROW_GROUP, step_rows};
use crate::error::{Error, Result};
pub use options::{ContextOptions, LogitsRoute};
pub(super) use read::READ_TOKENS;

/// One row of a step: the next token of one sequence. Row i belongs to sequence i.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The token to decode.
    pub token: Token,
    /// Its position in the sequence.
    pub position: usize,
}

/// A llama.cpp context for generation.
pub struct Context {
    raw: NonNull<sys::llama_context>,
    // Freed after `raw`, whose callback points at it.
    hook: Box<Hook>,
    output: Option<OutputMatrix>,
    recomputed: Vec<f32>,
    /// Whether the last step's perturbation stands in the graph's logits.
    perturbed: bool,
    batch: Batch,
    options: ContextOptions,
    sequences: Sequences,
    /// Tokens of a beginning that are decoded in one call.
    piece: usize,
    /// Those with a filler row in the next step, and what they hold.
    idle: Vec<(usize, usize)>,
    /// Where in the last batch its output rows are.
    outputs: Vec<usize>,
    most_outputs: usize,
    // Dropped last: the context and the output matrix use its tensors.
    model: Arc<Model>,
}

// SAFETY: a llama.cpp context is tied to no thread; it only must not be used from two at
// once, which `&mut self` rules out.
unsafe impl Send for Context {}

impl Context {
    /// Makes a context; architectures whose pre-logits cannot be perturbed are refused by name.
    ///
    /// # Errors
    /// [`Error::Model`] for those, [`Error::Field`] for sizes out of range,
    /// [`Error::Engine`] when llama.cpp cannot make it (usually: not enough memory).
    pub fn new(model: Arc<Model>, options: &ContextOptions) -> Result<Self> {
        Self::make(model, options, 1)
    }

    fn make(model: Arc<Model>, options: &ContextOptions, outputs: usize) -> Result<Self> {
        model.check_decoder()?;
        let n = options.sequences;
        let recurrent = model.is_recurrent();
        // One of those keeps the prompt.
        let most = MAX_SEQUENCES - if recurrent { ROW_GROUP } else { 0 };
        if n > most || n != step_rows(n) {
            return Err(Error::field(
                "parallel",
                format!(
                    "{n} sequences; allowed are multiples of {ROW_GROUP} from {LEAST_ROWS} to {most}"
                ),
            ));
        }
        let held = options.held(&model);
        let too_large = || Error::field("context", "too large; give a smaller one");
        let total = options.context.checked_mul(held).ok_or_else(too_large)?;
        // SAFETY: returns plain data.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = u32::try_from(total).map_err(|_| too_large())?;
        params.n_seq_max = held as u32;
        // A larger step than `n_batch` makes llama.cpp abort.
        params.n_batch = PROMPT_CHUNK.max(n) as u32;
        params.n_ubatch = params.n_batch;
        let most_outputs = n * outputs;
        // As many as there are sequences, or llama.cpp's own reservation aborts.
        params.n_outputs_max = (held * outputs) as u32;
        let reuse = if outputs > 1 {
            Reuse::Blocks
        } else {
            Reuse::Whole
        };
        options.set(&mut params, &model, reuse == Reuse::Blocks)?;
        // A file with a head may ask for pooling.
        params.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
        params.kv_unified = false;
        // Sequences are cut back, to the prompt for one, which a sliding window would have lost.
        params.swa_full = true;
        params.no_perf = true;
        // `embeddings = true` would rename the node the hook looks for.
        params.embeddings = false;
        let mut hook = Hook::new(model.width(), HeadCapture::new());
        params.cb_eval = Some(eval_callback);
        params.cb_eval_user_data = std::ptr::from_mut(hook.as_mut()).cast();
        // SAFETY: the model is alive, and `hook` outlives the context (see the fields).
        let raw = unsafe { sys::llama_init_from_model(model.raw().as_ptr(), params) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::Engine(format!(
                "no context for {n} sequences of {} tokens; try a smaller `context`, \
                 `max-tokens` or `parallel`",
                options.context
            ))
        })?;
        model.adapt(raw);
        let context = Self {
            raw,
            hook,
            output: None,
            recomputed: Vec::new(),
            perturbed: false,
            batch: Batch::new(),
            options: options.clone(),
            sequences: Sequences::new(raw, held, reuse, recurrent.then_some(n)),
            piece: match reuse {
                Reuse::Blocks if recurrent => STATE_BLOCK,
                _ => PROMPT_CHUNK,
            },
            idle: Vec::new(),
            outputs: Vec::new(),
            most_outputs,
            model,
        };
        if context.capacity() < options.context {
            return Err(Error::Engine(format!(
                "llama.cpp gave {} tokens a sequence instead of {}",
                context.capacity(),
                options.context
            )));
        }
        Ok(context)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How this context was made.
    #[must_use]
    pub fn options(&self) -> &ContextOptions {
        &self.options
    }

    /// Tokens that a sequence really holds; at least what was asked for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        // SAFETY: a query on a live context.
        unsafe { sys::llama_n_ctx_seq(self.raw.as_ptr()) as usize }
    }

    fn decode(&mut self) -> Result<()> {
        let batch = self.batch.raw();
        // SAFETY: the batch's arrays live in `self.batch`, its size is at most `n_batch`, and
        // its sequence ids are below `n_seq_max`: checked by the callers.
        let code = unsafe { sys::llama_decode(self.raw.as_ptr(), batch) };
        match code {
            0 => Ok(()),
            1 => Err(Error::Engine(
                "the context is full; give a larger `context` or a smaller `max-tokens`".into(),
            )),
            2 => Err(Error::Engine("decoding was aborted".into())),
            code => Err(Error::Engine(format!(
                "llama_decode failed with code {code}"
            ))),
        }
    }

    /// Makes `sequence` hold `tokens` and nothing else, by whatever way is the cheapest: cutting
    /// back what it holds, a copy from a sequence that holds them, or decoding them, without
    /// logits (in a recurrent or hybrid model behind the others, and then a copy). The answer is how
    /// many had to be decoded.
    ///
    /// # Errors
    /// [`Error::Engine`] for a sequence that does not exist, or when llama.cpp fails; the sequence
    /// then holds nothing.
    pub fn hold(&mut self, sequence: usize, tokens: &[Token]) -> Result<usize> {
        let held = self.sequences.hold(sequence, tokens)?;
        if held == tokens.len() {
            return Ok(0);
        }
        let place = self.sequences.place(sequence)?;
        for (chunk, part) in tokens[held..].chunks(self.piece).enumerate() {
            let position = held + chunk * self.piece;
            self.batch.clear();
            for (i, &token) in part.iter().enumerate() {
                self.batch.push(token, position + i, place, false);
            }
            self.hook.arm(Action::Ignore);
            if let Err(error) = self.decode() {
                self.sequences.release(place)?;
                return Err(error);
            }
        }
        self.sequences.begin(place, tokens);
        self.sequences.share(place, sequence)?;
        Ok(tokens.len() - held)
    }

    /// Makes `to` hold what `from` holds, by a copy.
    ///
    /// # Errors
    /// [`Error::Engine`] for a sequence that does not exist.
    pub fn share(&mut self, from: usize, to: usize) -> Result<()> {
        self.sequences.share(from, to)
    }

    /// Makes `sequence` hold only its first `length` tokens.
    ///
    /// # Errors
    /// [`Error::Engine`] for a sequence that does not exist or cannot be cut there.
    pub fn rewind(&mut self, sequence: usize, length: usize) -> Result<()> {
        self.sequences.rewind(sequence, length)
    }

    /// Makes `sequence` hold nothing.
    ///
    /// # Errors
    /// [`Error::Engine`] for a sequence that does not exist.
    pub fn release(&mut self, sequence: usize) -> Result<()> {
        self.sequences.release(sequence)
    }

    /// A row for a sequence that nobody writes in, which fills up a group of rows.
    ///
    /// # Errors
    /// [`Error::Engine`] for a sequence that does not exist.
    pub fn idle_row(&mut self, sequence: usize) -> Result<Row> {
        let (token, position) = self.sequences.idle(sequence, self.capacity())?;
        self.idle.push((sequence, position));
        Ok(Row { token, position })
    }

    /// The sequence, parked or not, that holds most of `tokens` as a response, decoded in groups,
    /// behind the prompt that the first `prompt` of them are; and how many those are.
    #[must_use]
    pub fn holder(&self, tokens: &[Token], prompt: usize) -> Option<(usize, usize)> {
        self.sequences.holder(tokens, prompt)
    }

    /// The [holder](Self::holder) of what `sequence` holds, where that is more than a prompt and was
    /// decoded in groups; itself where it is the only one.
    #[must_use]
    pub fn holder_of_response(&self, sequence: usize) -> Option<usize> {
        self.sequences.holder_of_response(sequence)
    }

    /// The sequences that are only parked; none in a recurrent or hybrid model, where they keep the
    /// prompts.
    #[must_use]
    pub fn parked(&self) -> std::ops::Range<usize> {
        let first = self.options.sequences;
        match self.cuts() {
            true => first..self.options.held(&self.model),
            false => first..first,
        }
    }

    /// Whether a sequence can be [cut back](Self::rewind) to any length; a recurrent state cannot.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.sequences.cuts()
    }

    /// Positions of a block of a text that is only read.
    pub(super) fn block(&self) -> usize {
        block(!self.cuts())
    }

    /// The edits of the next [`step`](Self::step), which must have a perturbation.
    pub fn set_edits(&mut self, edits: Vec<RowsEdit>) {
        self.hook.edits = edits;
    }

    /// Decodes one token of each of the sequences 0, 1, … and computes their logits from
    /// z + v.
    ///
    /// `rows`: as many as a [step](Model::step_rows) can have. `perturbation`: v, [rows, d], or none.
    /// `keep_pre_logits` makes [`Self::pre_logits`] available.
    ///
    /// # Errors
    /// [`Error::Engine`] when llama.cpp fails or shows other rows than these.
    pub fn step(
        &mut self,
        rows: &[Row],
        perturbation: Option<&[f32]>,
        keep_pre_logits: bool,
    ) -> Result<()> {
        if rows.len() != self.model.step_rows(rows.len()) || rows.len() > self.options.sequences {
            return Err(Error::Engine(format!("a step of {} rows", rows.len())));
        }
        self.step_from(0, rows, perturbation, keep_pre_logits)
    }

    /// The same for one row of one sequence; it is row 0 of what comes out. A fraction of the work
    /// of a group, and other bits: whoever is decoded this way has to be from the first token on.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn step_alone(
        &mut self,
        sequence: usize,
        row: Row,
        perturbation: Option<&[f32]>,
        keep_pre_logits: bool,
    ) -> Result<()> {
        self.step_from(sequence, &[row], perturbation, keep_pre_logits)
    }

    /// Decodes a token of each of the sequences from `first` on.
    fn step_from(
        &mut self,
        first: usize,
        rows: &[Row],
        perturbation: Option<&[f32]>,
        keep_pre_logits: bool,
    ) -> Result<()> {
        for (sequence, row) in (first..).zip(rows) {
            self.sequences.check_end(sequence, row.position)?;
        }
        let width = self.hook.width;
        if let Some(v) = perturbation {
            if v.len() != rows.len() * width {
                return Err(Error::Engine(format!(
                    "{} perturbation values for {} rows of width {width}",
                    v.len(),
                    rows.len()
                )));
            }
            self.hook.perturbation.clear();
            self.hook.perturbation.extend_from_slice(v);
        }
        let recompute = self.options.logits == LogitsRoute::Recompute;
        let action = match (recompute, perturbation) {
            (false, Some(_)) => Action::Add,
            (true, _) => Action::Take,
            (false, None) if keep_pre_logits => Action::Take,
            (false, None) => Action::Ignore,
        };
        self.batch.clear();
        for (sequence, row) in (first..).zip(rows) {
            self.batch.push(row.token, row.position, sequence, true);
        }
        self.outputs.clear();
        self.recomputed.clear();
        self.perturbed = action == Action::Add;
        self.hook.arm(action);
        let decoded = self.decode();
        let checked = self.hook.disarm(rows.len()).map_err(|reason| {
            let arch = self.model.architecture();
            Error::model(self.model.path(), format!("architecture {arch}: {reason}"))
        });
        let decoded = decoded.and(checked);
        for (sequence, row) in (first..).zip(rows) {
            match decoded {
                Ok(()) => self.sequences.push(sequence, row.token, rows.len() == 1),
                // What it holds now is unknown.
                Err(_) => self.sequences.release(sequence)?,
            }
        }
        for (sequence, length) in std::mem::take(&mut self.idle) {
            if self.cuts() && self.sequences.length(sequence) > length {
                self.sequences.rewind(sequence, length)?;
            }
        }
        decoded?;
        self.outputs.extend(0..rows.len());
        if recompute {
            if !self.hook.edits.is_empty() {
                self.hook.edit_now();
            }
            let mut x = self.hook.pre_logits.clone();
            if perturbation.is_some() {
                let v = &self.hook.perturbation;
                x.iter_mut().zip(v).for_each(|(x, v)| *x += v);
            }
            self.apply_head(&x)?;
        }
        self.hook.edits.clear();
        Ok(())
    }
}

/// Positions of a block of a text that is only read.
fn block(recurrent: bool) -> usize {
    match recurrent {
        true => STATE_BLOCK,
        false => BLOCK,
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.output = None;
        // SAFETY: made in `new`, freed once; hook and model are still alive.
        unsafe { sys::llama_free(self.raw.as_ptr()) };
    }
}
