//! Who holds what: which sequence of a [`Context`](super::Context) holds which tokens, and how it comes to hold
//! others.
//!
//! ```text
//! hold      this sequence holds these tokens, by whatever way is the cheapest
//! share     this sequence holds what that one holds, by a copy
//! rewind    this sequence holds only its first so many tokens, by cutting back
//! place     where tokens are decoded that nobody holds
//! holder    the sequence that holds most of these tokens as somebody's response
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
//! 2. **Steps of [`Model::step_rows`](super::Model::step_rows)**: of four rows where the types of the
//!    weights allow it, of eight, twelve, sixteen. Kernels change their code path, and with it the
//!    last bits, with the number of rows; a step that has not enough candidates is filled up with
//!    rows of idle sequences ([`Sequences::idle`]). Or one row alone, from a response's first token
//!    to its last, whoever else is there: that is one way for ever, too, and costs the least.
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
//! 6. **Cutting back is safe**: cells behind the cut are not looked at.
//!
//! # Recurrent and hybrid models
//!
//! A recurrent state is that of all tokens so far and cannot be cut back ([`Sequences::cuts`]). There,
//! a beginning is decoded in a sequence that nobody writes in, and whoever is to hold it copies that
//! one as a whole; a sequence that anything was decoded behind, a filler row too, is of no use to
//! others. Texts that are only read are decoded in pieces of [`STATE_BLOCK`], each in a call of its
//! own: what the state is rounded to depends on how the tokens before it were cut into calls.

use std::collections::VecDeque;
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

/// The same where there is a recurrent state: what llama.cpp's linear attention computes at once
/// (`src/models/delta-net-base.cpp`).
pub(super) const STATE_BLOCK: usize = 64;

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
    /// Where they cannot be cut back: the sequences that keep beginnings for others, the one used
    /// last at the end.
    kept: Option<VecDeque<usize>>,
}

impl Sequences {
    /// Of a new `context`, which must be there as long as this is used. Where its memory is
    /// recurrent, those from `first_kept` on keep beginnings for the others.
    pub(super) fn new(
        context: NonNull<sys::llama_context>,
        count: usize,
        reuse: Reuse,
        first_kept: Option<usize>,
    ) -> Self {
        Self {
            // SAFETY: a query on a live context.
            memory: unsafe { sys::llama_get_memory(context.as_ptr()) },
            held: vec![Held::default(); count],
            reuse,
            kept: first_kept.map(|first| (first..count).collect()),
        }
    }

    /// Whether what a sequence holds can be cut back.
    pub(super) fn cuts(&self) -> bool {
        self.kept.is_none()
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
        let reuse = match self.cuts() {
            true => self.reuse,
            // Nothing is behind it then.
            false if held.tokens.len() == held.beginning => Reuse::Whole,
            false => return 0,
        };
        match reuse {
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
            if let Some(other) = (0..self.held.len()).rfind(holds) {
                self.share(other, sequence)?;
                self.used(other);
                usable = tokens.len();
            }
        }
        self.rewind(sequence, usable)?;
        if usable == tokens.len() {
            self.begin(sequence, tokens);
        }
        Ok(usable)
    }

    /// Where the tokens that [`hold`](Self::hold) did not find are decoded: in `sequence` itself, or
    /// in one that keeps them, in place of what was used the longest time ago, to be
    /// [copied](Self::share) afterwards.
    pub(super) fn place(&mut self, sequence: usize) -> Result<usize> {
        let Some(&oldest) = self.kept.as_ref().and_then(VecDeque::front) else {
            return Ok(sequence);
        };
        self.release(oldest)?;
        self.used(oldest);
        Ok(oldest)
    }

    /// Puts a sequence that keeps a beginning last in the order of use.
    fn used(&mut self, sequence: usize) {
        if let Some(kept) = &mut self.kept
            && let Some(place) = kept.iter().position(|&s| s == sequence)
        {
            kept.remove(place);
            kept.push_back(sequence);
        }
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

    /// The sequence that holds most of `tokens` as somebody's response in groups behind the first
    /// `beginning` of them, which are its prompt, and how many those are; more than the prompt. Of
    /// equal ones the last, as parked ones are. None where it could not be cut back to them.
    pub(super) fn holder(&self, tokens: &[Token], beginning: usize) -> Option<(usize, usize)> {
        let common = |held: &Held| match self.cuts() && held.beginning == beginning && !held.alone {
            true => common_beginning(&held.tokens, tokens),
            false => 0,
        };
        let common = self.held.iter().map(common);
        let most = common.enumerate().max_by_key(|(_, common)| *common);
        most.filter(|(_, common)| *common > beginning)
    }

    /// The last sequence that holds what `sequence` does, where that is more than its beginning and
    /// was decoded in groups.
    pub(super) fn holder_of_response(&self, sequence: usize) -> Option<usize> {
        let held = &self.held[sequence];
        let response = held.tokens.len() > held.beginning && !held.alone;
        let holder = response.then(|| self.holder(&held.tokens, held.beginning))?;
        holder.map(|(sequence, _)| sequence)
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
    /// sequence holds, or at its last place where it is full, and is cut off again behind the step;
    /// where nothing can be cut off, it stays, and what is full begins anew.
    pub(super) fn idle(&mut self, sequence: usize, capacity: usize) -> Result<(Token, usize)> {
        self.check(sequence)?;
        let tokens = &self.held[sequence].tokens;
        let token = tokens.last().copied().unwrap_or(0);
        let position = match tokens.len() < capacity {
            true => tokens.len(),
            false if self.cuts() => capacity - 1,
            false => 0,
        };
        self.rewind(sequence, position)?;
        Ok((token, position))
    }
}

/// How many tokens two texts begin with in common.
pub(super) fn common_beginning(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
