//! Many texts of a decoder on one shared beginning: the pre-logits and logits behind them.
//!
//! What all texts begin with is decoded once and kept, so that the next texts on the same
//! beginning (the candidates of the next iteration) cost only what is their own. The rest
//! of many texts goes through the model side by side, a sequence each.
//!
//! Every text is decoded in blocks of [`ROW_GROUP`] positions that begin at multiples of it, the
//! last one filled up with tokens that nothing looks back at: a text then has the same bits
//! alone, on a shared beginning, or among others (the rules are in `sequences.rs`).

use std::sync::Arc;

use super::ROW_GROUP;
use super::context::{Context, ContextOptions, LogitsRoute, READ_TOKENS};
use super::model::{Model, Token};
use super::sequences::common_beginning;
use crate::error::{Error, Result};
use crate::math::normaliser;

/// Texts side by side.
const SEQUENCES: usize = 16;
/// Last positions of a text that can be read.
const MAX_POSITIONS: usize = 2;
/// Longest text, in tokens, whatever the model allows.
const MAX_TEXT: usize = 4096;
/// Contexts grow by this many tokens a sequence.
const GROWTH: usize = 256;

/// What a model makes of one position of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Pre-logits z `[d]`.
    pub pre_logits: Vec<f32>,
    /// Logits of the tokens that were asked for, in that order.
    pub logits: Vec<f32>,
    /// Logarithm of the sum of e^logit over the vocabulary; a logit minus this is a
    /// log-probability. NaN where no logits were asked for.
    pub log_sum_exp: f64,
}

/// The readings of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextReading {
    /// The last positions, in order.
    pub positions: Vec<Reading>,
    /// Tokens decoded for this text; what it shares counts for the first text alone, and
    /// only where it was not held yet.
    pub decoded: usize,
}

/// Reads texts with one model.
pub struct Reader {
    model: Arc<Model>,
    threads: usize,
    context: Option<Context>,
}

impl Reader {
    /// Makes a reader with `threads` CPU threads. Memory for the texts is taken when they
    /// come.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, threads: usize) -> Result<Self> {
        model.check_decoder()?;
        Ok(Self {
            model,
            threads,
            context: None,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Longest text, in tokens: what the model was trained for, at most 4096.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.model.trained_context().clamp(1, MAX_TEXT)
    }

    /// Reads the last `positions` (1 or 2) positions of every text, with the logits of the
    /// tokens in `watched`; results are in the order of the texts. A text's numbers do not
    /// depend on the others, to the last bit (dense models on the CPU).
    ///
    /// # Errors
    /// [`Error::Engine`] for a text that is too short or longer than [`Self::capacity`], a
    /// watched token out of the vocabulary, or when llama.cpp fails.
    pub fn read(
        &mut self,
        texts: &[Vec<Token>],
        positions: usize,
        watched: &[Token],
    ) -> Result<Vec<TextReading>> {
        self.check(texts, positions, watched)?;
        let mut readings = vec![TextReading::default(); texts.len()];
        let Some(longest) = texts.iter().map(Vec::len).max() else {
            return Ok(readings);
        };
        self.make_room(longest)?;
        let shared = shared_beginning(texts, positions);
        // Sequences that still have tokens must come first: the longest texts.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(texts[i].len()));
        let result = self.context_mut().and_then(|context| {
            let decoded = context.hold(0, &texts[0][..shared])?;
            for group in order.chunks(SEQUENCES) {
                read_group(
                    context,
                    texts,
                    group,
                    shared,
                    positions,
                    watched,
                    &mut readings,
                )?;
            }
            readings[0].decoded += decoded;
            Ok(())
        });
        result.map(|()| readings)
    }

    fn check(&self, texts: &[Vec<Token>], positions: usize, watched: &[Token]) -> Result<()> {
        if !(1..=MAX_POSITIONS).contains(&positions) {
            return Err(Error::Engine(format!("{positions} positions of a text")));
        }
        let capacity = self.capacity();
        if let Some(text) = texts
            .iter()
            .find(|t| t.len() < positions || t.len() > capacity)
        {
            return Err(Error::Engine(format!(
                "a text of {} tokens; this reader takes {positions} to {capacity}",
                text.len()
            )));
        }
        let vocabulary = self.model.vocabulary();
        let known = |&token: &Token| usize::try_from(token).is_ok_and(|t| t < vocabulary);
        match watched.iter().copied().find(|t| !known(t)) {
            Some(token) => Err(Error::Engine(format!("token {token} of {vocabulary}"))),
            None => Ok(()),
        }
    }

    /// Makes a context that holds texts of `longest` tokens, unless there is one.
    fn make_room(&mut self, longest: usize) -> Result<()> {
        let context = longest.next_multiple_of(GROWTH);
        if let Some(made) = &self.context
            && made.options().context >= context
        {
            return Ok(());
        }
        self.context = None;
        let options = ContextOptions {
            sequences: SEQUENCES,
            context,
            threads: self.threads,
            logits: LogitsRoute::Graph,
        };
        let model = Arc::clone(&self.model);
        self.context = Some(Context::for_reading(model, &options, MAX_POSITIONS)?);
        Ok(())
    }

    fn context_mut(&mut self) -> Result<&mut Context> {
        let context = self.context.as_mut();
        context.ok_or_else(|| Error::Engine("no context for reading".into()))
    }
}

/// Reads texts, the longest first, that all begin with the `shared` tokens that sequence 0 holds.
fn read_group(
    context: &mut Context,
    texts: &[Vec<Token>],
    group: &[usize],
    shared: usize,
    positions: usize,
    watched: &[Token],
    readings: &mut [TextReading],
) -> Result<()> {
    for (sequence, &text) in group.iter().enumerate() {
        context.hold(sequence, &texts[text][..shared])?;
    }
    let own: Vec<Vec<Token>> = group
        .iter()
        .map(|&i| {
            let mut own = texts[i][shared..].to_vec();
            own.resize(own.len().next_multiple_of(ROW_GROUP), 0);
            own
        })
        .collect();
    let mut done = 0;
    loop {
        let alive = own.iter().take_while(|o| o.len() > done).count();
        let Some(last) = alive.checked_sub(1) else {
            break;
        };
        let most = READ_TOKENS / alive / ROW_GROUP * ROW_GROUP;
        let size = (own[last].len() - done).min(most);
        let blocks: Vec<&[Token]> = own[..alive].iter().map(|o| &o[done..done + size]).collect();
        let wanted = |sequence: usize, i: usize| {
            let (at, end) = (shared + done + i, texts[group[sequence]].len());
            at < end && at + positions >= end
        };
        context.read(shared + done, &blocks, &wanted)?;
        let mut row = 0;
        for (sequence, &text) in group[..alive].iter().enumerate() {
            for _ in (0..size).filter(|&i| wanted(sequence, i)) {
                let read = reading(context, row, watched)?;
                readings[text].positions.push(read);
                row += 1;
            }
        }
        done += size;
    }
    for (sequence, &text) in group.iter().enumerate() {
        // Only what texts share counts as held, and is counted as decoded once.
        context.rewind(sequence, shared)?;
        readings[text].decoded += texts[text].len() - shared;
    }
    Ok(())
}

/// The output `row` of the last blocks.
fn reading(context: &Context, row: usize, watched: &[Token]) -> Result<Reading> {
    let width = context.model().width();
    let pre_logits = context.pre_logits()[row * width..(row + 1) * width].to_vec();
    if watched.is_empty() {
        return Ok(Reading {
            pre_logits,
            logits: Vec::new(),
            log_sum_exp: f64::NAN,
        });
    }
    let logits = context.logits(row)?;
    let (largest, rest) = normaliser(logits);
    Ok(Reading {
        pre_logits,
        logits: watched.iter().map(|&t| logits[t as usize]).collect(),
        log_sum_exp: f64::from(largest) + rest,
    })
}

/// How many tokens all texts begin with in common, in whole blocks, their last `positions`
/// left out.
fn shared_beginning(texts: &[Vec<Token>], positions: usize) -> usize {
    let Some((first, rest)) = texts.split_first() else {
        return 0;
    };
    let common = rest
        .iter()
        .map(|text| common_beginning(first, text).min(text.len() - positions))
        .fold(first.len() - positions, usize::min);
    common / ROW_GROUP * ROW_GROUP
}
