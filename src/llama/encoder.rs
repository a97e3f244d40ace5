//! Texts to pooled vectors: classifier scores (RANK pooling), mean features, those of the first
//! token.
//!
//! One text a run: a text's numbers then depend on that text alone, which packing several
//! texts into one attention would not guarantee to the last bit.
//!
//! A BERT was trained with a type for each token: the first up to the first separator, the second
//! behind it. llama.cpp gives all of them the first, so the vectors of a pair's tokens are made
//! here, with what the second type differs by.

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::attention::FlashAttention;
use super::batch::Batch;
use super::model::{Model, Token};
use super::obstacles::is_encoder;
use crate::error::{Error, Result};
use crate::output::OutputRows;

/// Longest text of an encoder, in tokens, whatever the model allows: attention memory grows
/// with the square.
const MAX_TEXT: usize = 4096;

/// The same for a decoder, which computes the logits of every token on the way.
const MAX_DECODER_TEXT: usize = 512;

/// What is made of the token vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The classification head of the model.
    Rank,
    /// The mean over the tokens.
    Mean,
    /// The first token's vector.
    Cls,
}

/// A llama.cpp context for encoding.
pub struct Encoder {
    raw: NonNull<sys::llama_context>,
    batch: Batch,
    capacity: usize,
    width: usize,
    types: Option<TokenTypes>,
    model: Arc<Model>,
}

/// The two types of a BERT's tokens.
struct TokenTypes {
    /// What ends the first text.
    separator: Token,
    /// The vectors of tokens.
    rows: OutputRows,
    /// The second type's vector less the first's, `[d]`.
    difference: Vec<f32>,
}

impl TokenTypes {
    fn of(model: &Model) -> Result<Option<Self>> {
        let gguf = model.gguf();
        let is_bert =
            gguf.architecture() == Some("bert") && gguf.str("tokenizer.ggml.model") == Some("bert");
        let (Some(separator), true) = (model.separator(), is_bert) else {
            return Ok(None);
        };
        let types = model.values("token_types.weight")?.unwrap_or_default();
        let (first, second) = types.split_at(model.width().min(types.len()));
        if second.len() != first.len() || second.is_empty() {
            return Ok(None);
        }
        // A BERT has no output matrix but that of its tokens.
        let rows = model.output_rows()?;
        if rows.width() != second.len() {
            return Ok(None);
        }
        Ok(Some(Self {
            separator,
            rows,
            difference: second.iter().zip(first).map(|(b, a)| b - a).collect(),
        }))
    }

    /// The vectors of a pair's tokens; `None` for a text alone.
    fn vectors(&self, tokens: &[Token]) -> Result<Option<Vec<f32>>> {
        let width = self.difference.len();
        let ends = tokens.iter().position(|&token| token == self.separator);
        let Some(second) = ends.map(|at| at + 1).filter(|&at| at < tokens.len()) else {
            return Ok(None);
        };
        let mut vectors = vec![0.0; tokens.len() * width];
        for (i, (row, &token)) in vectors.chunks_exact_mut(width).zip(tokens).enumerate() {
            self.rows.row(token, row)?;
            if i >= second {
                row.iter_mut()
                    .zip(&self.difference)
                    .for_each(|(v, d)| *v += d);
            }
        }
        Ok(Some(vectors))
    }
}

// SAFETY: as for `Context`: tied to no thread, used through `&mut self`.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Makes an encoder with `threads` CPU threads. Texts come one by one and nothing of them is
    /// kept, so keys and values are what they are by default.
    ///
    /// # Errors
    /// [`Error::Engine`] when llama.cpp cannot make it, [`Error::Io`] and [`Error::Model`] for token
    /// types that cannot be read.
    pub fn new(
        model: Arc<Model>,
        pooling: Pooling,
        threads: usize,
        flash: FlashAttention,
    ) -> Result<Self> {
        let longest = match is_encoder(model.gguf()) {
            true => MAX_TEXT,
            false => MAX_DECODER_TEXT,
        };
        let capacity = model.trained_context().clamp(1, longest);
        let types = TokenTypes::of(&model)?;
        // SAFETY: returns plain data.
        let mut params = unsafe { sys::llama_context_default_params() };
        let size = capacity as u32;
        // A text without causal attention must fit one ubatch, or llama.cpp aborts.
        (params.n_ctx, params.n_batch, params.n_ubatch) = (size, size, size);
        params.n_seq_max = 1;
        let threads = i32::try_from(threads.max(1)).unwrap_or(i32::MAX);
        (params.n_threads, params.n_threads_batch) = (threads, threads);
        params.flash_attn_type = flash.raw();
        params.embeddings = true;
        params.no_perf = true;
        params.pooling_type = match pooling {
            Pooling::Rank => sys::LLAMA_POOLING_TYPE_RANK,
            Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
            Pooling::Cls => sys::LLAMA_POOLING_TYPE_CLS,
        };
        // SAFETY: the model is alive and kept by this object.
        let raw = unsafe { sys::llama_init_from_model(model.raw().as_ptr(), params) };
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::Engine(format!("no context for {}", model.path().display())))?;
        model.adapt(raw);
        let width = match pooling {
            Pooling::Rank => model.classifier_outputs(),
            Pooling::Mean | Pooling::Cls => model.width(),
        };
        Ok(Self {
            raw,
            batch: Batch::new(),
            capacity,
            width,
            types,
            model,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Length of a pooled vector.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Longest text, in tokens.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The pooled vector of one text: `[labels]` for [`Pooling::Rank`], else `[d]`.
    ///
    /// # Errors
    /// [`Error::Engine`] for an empty or too long text, or when llama.cpp fails; [`Error::Io`] when
    /// the vectors of a pair's tokens cannot be read from the file.
    pub fn encode(&mut self, tokens: &[Token]) -> Result<Vec<f32>> {
        if tokens.is_empty() || tokens.len() > self.capacity {
            return Err(Error::Engine(format!(
                "a text of {} tokens; this encoder takes 1 to {}",
                tokens.len(),
                self.capacity
            )));
        }
        self.batch.clear();
        for (position, &token) in tokens.iter().enumerate() {
            self.batch.push(token, position, 0, true);
        }
        let types = self.types.as_ref();
        let mut vectors = types
            .map(|types| types.vectors(tokens))
            .transpose()?
            .flatten();
        let batch = match &mut vectors {
            Some(vectors) => self.batch.raw_of(vectors),
            None => self.batch.raw(),
        };
        // SAFETY: the batch's arrays live in `self.batch` and `vectors`, of the model's width; it
        // fits one ubatch; the result belongs to the context and has `width` floats for sequence 0.
        unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            if !memory.is_null() {
                sys::llama_memory_clear(memory, false);
            }
            let code = sys::llama_decode(self.raw.as_ptr(), batch);
            if code != 0 {
                return Err(Error::Engine(format!("encoding failed with code {code}")));
            }
            let pointer = sys::llama_get_embeddings_seq(self.raw.as_ptr(), 0);
            if pointer.is_null() {
                return Err(Error::Engine("the encoder gave no vector".into()));
            }
            Ok(std::slice::from_raw_parts(pointer, self.width).to_vec())
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once; the model is still alive.
        unsafe { sys::llama_free(self.raw.as_ptr()) };
    }
}
