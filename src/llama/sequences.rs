//! Who holds what: which sequence of a [`Context`](super::Context) holds which tokens, and how it comes to hold
//! others.
//!
//! ```text
//! hold      this sequence holds these tokens, by whatever way is the cheapest
//! share     this sequence holds what that one holds, by a copy
//! rewind    this sequence holds only its first so many tokens, by cutting back
//! holder    a sequence that holds these tokens as somebody's response
//! release   this sequence holds nothing
//! ```
//!
//! # Bit-exactness
//!
//! The same tokens give the same numbers, to the last bit, whatever was decoded before or beside
//! them (dense models on the CPU). Quantised activations turn a difference in the last bit into
//! one in the second digit of a logit, so nothing less would do. What it takes:
//!
//! 1. **A stream for each sequence** (`kv_unified = false`): its attention does not look at the
//!    cells of others.
//! 2. **Steps of [`step_rows`](super::step_rows)**: of eight rows, twelve, sixteen. Kernels change their code path, and with it the
//!    last bits, with the number of rows; a step that has not enough candidates is filled up with
//!    rows of idle sequences ([`Sequences::idle`]). Or one row alone, from a response's first token
//!    to its last, whoever else is there: that is one way for ever, too, and costs a quarter.
//! 3. **Prompts whole, in pieces of [`PROMPT_CHUNK`] from their first token on**, one sequence
//!    alone. A prompt that was decoded as the beginning of a longer one, or token by token as
//!    somebody's response, has other bits: it is not used again for this prompt ([`Reuse::Whole`]).
//!    What was decoded in groups as a response behind a prompt is used again for a response behind the
//!    same prompt ([`Sequences::holder`]).
//! 4. **Texts that are only read in blocks of [`BLOCK`] positions** that begin at multiples of
//!    it, without flash attention, the last block filled up. Then a block's bits depend on what is
//!    before it alone, and any number of whole blocks can be used again ([`Reuse::Blocks`]).
//! 5. **Copies are safe, at any time**: a copy has the bits of its original. Between streams
//!    llama.cpp copies whole sequences; what is too much is cut off afterwards.
//! 6. **Cutting back is safe**: cells behind the cut are not looked at. A recurrent state cannot be
//!    cut back, and such models are refused before they come here.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::LEAST_ROWS;
use super::model::Token;
use crate::error::{Error, Result};

/// Tokens of a prompt that are decoded in one piece; fixed, so that a prompt's numbers do
/// not depend on the number of sequences.
pub(super) const PROMPT_CHUNK: usize = 512;

/// Positions of a block of a text that is only read.
pub(super) const BLOCK: usize = LEAST_ROWS;

/// Which tokens that are held already may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// A beginning as a whole, exactly as it was decoded.
    Whole,
    /// Whole blocks of [`BLOCK`].
    Blocks,
}

/// What one sequence holds.
#[derive(Clone, Default)]
struct Held {
    tokens: Vec<Token>,
    /// How many of them are the beginning that it was made to hold.
    beginning: usize,
    /// Whether any of the others was decoded in a step of its own.
    alone: bool,
}

/// What every sequence of one context holds.
pub(super) struct Sequences {
    /// The context's memory.
    memory: sys::llama_memory_t,
    held: Vec<Held>,
    reuse: Reuse,
}

impl Sequences {
    /// Of a new `context`, which must be there as long as this is used.
    pub(super) fn new(context: NonNull<sys::llama_context>, count: usize, reuse: Reuse) -> Self {
        Self {
            // SAFETY: a query on a live context.
            memory: unsafe { sys::llama_get_memory(context.as_ptr()) },
            held: vec![Held::default(); count],
            reuse,
        }
    }

    fn check(&self, sequence: usize) -> Result<()> {
        let count = self.held.len();
        if sequence < count {
            return Ok(());
        }
        Err(Error::Engine(format!("sequence {sequence} of {count}")))
    }

    /// How many of `tokens` need not be decoded in `sequence` again.
    fn usable(&self, sequence: usize, tokens: &[Token]) -> usize {
        let held = &self.held[sequence];
        match self.reuse {
            Reuse::Whole if held.tokens[..held.beginning] == *tokens => tokens.len(),
            Reuse::Whole => 0,
            Reuse::Blocks => common_beginning(&held.tokens, tokens) / BLOCK * BLOCK,
        }
    }

    /// Makes `sequence` hold as many of `tokens` as can be had without decoding, and nothing else:
    /// by cutting back what it holds, or by a copy. The answer is how many those are; the others
    /// are to be decoded behind them, and then to be [told](Self::begin).
    pub(super) fn hold(&mut self, sequence: usize, tokens: &[Token]) -> Result<usize> {
        self.check(sequence)?;
        let mut usable = self.usable(sequence, tokens);
        if usable < tokens.len() {
            let holds = |&other: &usize| self.usable(other, tokens) == tokens.len();
            if let Some(other) = (0..self.held.len()).find(holds) {
                self.share(other, sequence)?;
                usable = tokens.len();
            }
        }
        self.rewind(sequence, usable)?;
        if usable == tokens.len() {
            self.begin(sequence, tokens);
        }
        Ok(usable)
    }

    /// `sequence` holds `tokens`, and they are its beginning.
    pub(super) fn begin(&mut self, sequence: usize, tokens: &[Token]) {
        self.held[sequence] = Held {
            tokens: tokens.to_vec(),
            beginning: tokens.len(),
            alone: false,
        };
    }

    /// `sequence` holds one more token, from a group or from a step of its own.
    pub(super) fn push(&mut self, sequence: usize, token: Token, alone: bool) {
        let held = &mut self.held[sequence];
        held.tokens.push(token);
        held.alone |= alone;
    }

    /// A sequence that holds `tokens`, and perhaps more, as somebody's response in groups behind the
    /// first `beginning` of them, which are its prompt: the last one, as parked ones are.
    pub(super) fn holder(&self, tokens: &[Token], beginning: usize) -> Option<usize> {
        let holds = |held: &Held| {
            held.beginning == beginning && !held.alone && held.tokens.starts_with(tokens)
        };
        self.held.iter().rposition(holds)
    }

    /// The holder of what `sequence` holds, where that is more than its beginning and was decoded in
    /// groups.
    pub(super) fn holder_of_response(&self, sequence: usize) -> Option<usize> {
        let held = &self.held[sequence];
        let response = held.tokens.len() > held.beginning && !held.alone;
        response.then(|| self.holder(&held.tokens, held.beginning))?
    }

    /// Tokens that `sequence` holds.
    pub(super) fn length(&self, sequence: usize) -> usize {
        self.held[sequence].tokens.len()
    }

    /// Checks that the next token of `sequence` belongs at `position`.
    pub(super) fn check_end(&self, sequence: usize, position: usize) -> Result<()> {
        self.check(sequence)?;
        let length = self.held[sequence].tokens.len();
        if position == length {
            return Ok(());
        }
        Err(Error::Engine(format!(
            "position {position} of sequence {sequence}, which holds {length} tokens"
        )))
    }

    /// Makes `to` hold what `from` holds, by a copy.
    pub(super) fn share(&mut self, from: usize, to: usize) -> Result<()> {
        self.check(from)?;
        if from == to {
            return Ok(());
        }
        self.release(to)?;
        // SAFETY: the memory's context is alive and both ids exist; between streams llama.cpp
        // copies whole sequences only, which -1, -1 asks for.
        unsafe { sys::llama_memory_seq_cp(self.memory, from as i32, to as i32, -1, -1) };
        self.held[to] = self.held[from].clone();
        Ok(())
    }

    /// Makes `sequence` hold only its first `length` tokens.
    pub(super) fn rewind(&mut self, sequence: usize, length: usize) -> Result<()> {
        self.check(sequence)?;
        let from = i32::try_from(length).unwrap_or(i32::MAX);
        // SAFETY: the memory's context is alive and the id exists.
        let cut = unsafe { sys::llama_memory_seq_rm(self.memory, sequence as i32, from, -1) };
        if !cut {
            return Err(Error::Engine(format!(
                "sequence {sequence} cannot be cut back to {length} tokens"
            )));
        }
        let held = &mut self.held[sequence];
        held.tokens.truncate(length);
        held.alone &= length > held.beginning;
        // A part of a beginning is none.
        if length < held.beginning {
            held.beginning = 0;
        }
        Ok(())
    }

    /// Makes `sequence` hold nothing.
    pub(super) fn release(&mut self, sequence: usize) -> Result<()> {
        self.rewind(sequence, 0)
    }

    /// A token and its position for a sequence that nobody writes in. It stands behind what the
    /// sequence holds, or at its last place where it is full, and is cut off again behind the step.
    pub(super) fn idle(&mut self, sequence: usize, capacity: usize) -> Result<(Token, usize)> {
        self.check(sequence)?;
        let tokens = &self.held[sequence].tokens;
        let position = tokens.len().min(capacity - 1);
        let token = tokens.last().copied().unwrap_or(0);
        self.rewind(sequence, position)?;
        Ok((token, position))
    }
}

/// How many tokens two texts begin with in common.
pub(super) fn common_beginning(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
