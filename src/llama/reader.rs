//! Many texts of a decoder on one shared beginning: the pre-logits and logits behind them, or
//! how likely each of their tokens is.
//!
//! What all texts begin with is decoded once and kept, so that the next texts on the same
//! beginning (the candidates of the next iteration) cost only what is their own. The rest
//! of many texts goes through the model side by side, a sequence each.
//!
//! Every text is decoded in blocks of [`BLOCK`] positions that begin at multiples of it, the
//! last one filled up with tokens that nothing looks back at: a text then has the same bits
//! alone, on a shared beginning, or among others (the rules are in `sequences.rs`, with those of
//! recurrent states: longer blocks, of fewer texts at once, one block in a call).

use std::iter::zip;
use std::sync::Arc;

use super::attention::Attention;
use super::context::{Context, ContextOptions, LogitsRoute, READ_TOKENS};
use super::model::{Model, Token};
use super::sequences::BLOCK;
use super::sequences::common_beginning;
use crate::error::{Error, Result};
use crate::math::normaliser;

/// Texts side by side.
const SEQUENCES: usize = 16;
/// Last positions of a text that can be read.
const MAX_POSITIONS: usize = 3;
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

/// How likely a model finds the tokens of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextLikelihood {
    /// log p of each token from the asked one on, given all before it: at temperature 1, without
    /// truncation, in nats.
    pub log_p: Vec<f64>,
    /// Tokens decoded for this text, as in [`TextReading`].
    pub decoded: usize,
}

/// What is read of texts: every position from one of each on, to its end.
struct Plan<'a> {
    texts: Vec<&'a [Token]>,
    from: Vec<usize>,
    /// Whether the blocks that are read are read as a whole. Logits then come from the output
    /// matrix in whole groups of rows, and their bits do not depend on how many are read.
    whole_blocks: bool,
}

/// What is done with a row: the context, the row's index, the text's index.
type Visit<'a> = &'a mut dyn FnMut(&Context, usize, usize) -> Result<()>;

/// Reads texts with one model.
pub struct Reader {
    model: Arc<Model>,
    threads: usize,
    attention: Attention,
    context: Option<Context>,
}

impl Reader {
    /// Makes a reader with `threads` CPU threads. Memory for the texts is taken when they
    /// come. Of `attention` what keys and values are kept as counts; see there.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, threads: usize, attention: Attention) -> Result<Self> {
        model.check_decoder()?;
        Ok(Self {
            model,
            threads,
            attention,
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

    /// Reads the last `positions` (1 to 3) positions of every text, with the logits of the
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
        let plan = Plan {
            texts: texts.iter().map(Vec::as_slice).collect(),
            from: texts.iter().map(|text| text.len() - positions).collect(),
            whole_blocks: false,
        };
        let mut readings = vec![TextReading::default(); texts.len()];
        let decoded = self.run(&plan, MAX_POSITIONS, &mut |context, row, text| {
            let read = reading(context, row, watched)?;
            readings[text].positions.push(read);
            Ok(())
        })?;
        zip(&mut readings, decoded).for_each(|(reading, decoded)| reading.decoded = decoded);
        Ok(readings)
    }

    /// log p of the tokens of every text from the index in `from` (1 or more) on, each given all
    /// tokens before it; results are in the order of the texts. A text's numbers do not depend on
    /// the others, to the last bit (dense models on the CPU).
    ///
    /// # Errors
    /// [`Error::Engine`] for a text that has no such token or is longer than
    /// [`Self::capacity`], a token out of the vocabulary, or when llama.cpp fails.
    pub fn log_p(&mut self, texts: &[Vec<Token>], from: &[usize]) -> Result<Vec<TextLikelihood>> {
        if texts.len() != from.len() {
            let counts = format!("{} texts with {} beginnings", texts.len(), from.len());
            return Err(Error::Engine(counts));
        }
        for (text, &from) in zip(texts, from) {
            self.check(std::slice::from_ref(text), 1, text)?;
            if !(1..text.len()).contains(&from) {
                let length = text.len();
                return Err(Error::Engine(format!("token {from} of a text of {length}")));
            }
        }
        // What the last token predicts is not asked for.
        let plan = Plan {
            texts: texts.iter().map(|text| &text[..text.len() - 1]).collect(),
            from: from.iter().map(|from| from - 1).collect(),
            whole_blocks: true,
        };
        let mut likelihoods = vec![TextLikelihood::default(); texts.len()];
        let decoded = self.run(&plan, BLOCK, &mut |context, row, text| {
            let log_p = &mut likelihoods[text].log_p;
            let token = texts[text][from[text] + log_p.len()];
            let logits = context.logits(row)?;
            let (largest, rest) = normaliser(logits);
            let own = f64::from(logits[token as usize]);
            log_p.push(own - f64::from(largest) - rest);
            Ok(())
        })?;
        zip(&mut likelihoods, decoded).for_each(|(text, decoded)| text.decoded = decoded);
        Ok(likelihoods)
    }

    /// Carries out `plan` with at most `outputs` outputs of a sequence at once; the answer is how
    /// many tokens were decoded for each text.
    fn run(&mut self, plan: &Plan<'_>, outputs: usize, visit: Visit<'_>) -> Result<Vec<usize>> {
        let texts = &plan.texts;
        let mut decoded = vec![0; texts.len()];
        let Some(longest) = texts.iter().map(|text| text.len()).max() else {
            return Ok(decoded);
        };
        let context = self.make_room(longest, outputs)?;
        let shared = shared_beginning(plan, context.block());
        let tokens = match plan.whole_blocks {
            true => READ_TOKENS.min(context.most_outputs()),
            false => READ_TOKENS,
        };
        let side_by_side = match context.cuts() {
            true => SEQUENCES,
            false => tokens / context.block(),
        };
        // Sequences that still have tokens must come first: the longest texts.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(texts[i].len()));
        decoded[0] = context.hold(0, &texts[0][..shared])?;
        for group in order.chunks(side_by_side) {
            read_group(context, plan, group, shared, tokens, visit)?;
        }
        zip(&mut decoded, texts).for_each(|(decoded, text)| *decoded += text.len() - shared);
        Ok(decoded)
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

    /// A context that holds texts of `longest` tokens, made unless there is one.
    fn make_room(&mut self, longest: usize, outputs: usize) -> Result<&mut Context> {
        let context = longest.next_multiple_of(GROWTH);
        let fits = |made: &Context| {
            made.options().context >= context && made.most_outputs() >= SEQUENCES * outputs
        };
        let made = match self.context.take().filter(fits) {
            Some(made) => made,
            None => {
                let options = ContextOptions {
                    sequences: SEQUENCES,
                    context,
                    threads: self.threads,
                    attention: self.attention,
                    logits: LogitsRoute::Graph,
                    ..ContextOptions::default()
                };
                Context::for_reading(Arc::clone(&self.model), &options, outputs)?
            }
        };
        Ok(self.context.insert(made))
    }
}

/// Reads texts, the longest first, that all begin with the `shared` tokens that sequence 0 holds, at
/// most so many `tokens` in a call.
fn read_group(
    context: &mut Context,
    plan: &Plan<'_>,
    group: &[usize],
    shared: usize,
    tokens: usize,
    visit: Visit<'_>,
) -> Result<()> {
    let Plan { texts, from, .. } = plan;
    let length = context.block();
    for (sequence, &text) in group.iter().enumerate() {
        context.hold(sequence, &texts[text][..shared])?;
    }
    let own: Vec<Vec<Token>> = group
        .iter()
        .map(|&i| {
            let mut own = texts[i][shared..].to_vec();
            own.resize(own.len().next_multiple_of(length), 0);
            own
        })
        .collect();
    let mut done = 0;
    loop {
        let alive = own.iter().take_while(|o| o.len() > done).count();
        let Some(last) = alive.checked_sub(1) else {
            break;
        };
        let most = match context.cuts() {
            true => tokens / alive / length * length,
            false => length,
        };
        let size = (own[last].len() - done).min(most);
        let blocks: Vec<&[Token]> = own[..alive].iter().map(|o| &o[done..done + size]).collect();
        let read = |sequence: usize, i: usize| {
            let (at, text) = (shared + done + i, group[sequence]);
            (from[text]..texts[text].len()).contains(&at)
        };
        let output = |sequence: usize, i: usize| match plan.whole_blocks {
            true => {
                let block = i / BLOCK * BLOCK;
                (block..block + BLOCK).any(|i| read(sequence, i))
            }
            false => read(sequence, i),
        };
        let mut rows = context.read(shared + done, &blocks, &output)?.into_iter();
        for (sequence, &text) in group[..alive].iter().enumerate() {
            for i in (0..size).filter(|&i| output(sequence, i)) {
                if let Some(row) = rows.next()
                    && read(sequence, i)
                {
                    visit(context, row, text)?;
                }
            }
        }
        done += size;
    }
    for sequence in 0..group.len() {
        // Only what texts share counts as held, and is counted as decoded once.
        context.rewind(sequence, if context.cuts() { shared } else { 0 })?;
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

/// How many tokens all texts begin with in common, in whole blocks, what is read left out.
fn shared_beginning(plan: &Plan<'_>, block: usize) -> usize {
    let Some(first) = plan.texts.first() else {
        return 0;
    };
    let common = zip(&plan.texts, &plan.from)
        .map(|(text, &from)| common_beginning(first, text).min(from))
        .min()
        .unwrap_or(0);
    common / block * block
}
