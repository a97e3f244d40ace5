//! The front of the library: one prompt in, one aligned answer out; or many runs in one [`Batch`].
//!
//! An [`Aligner`] owns a generator. [`Aligner::align`] is a batch of one run: a
//! [`Method`](crate::method::Method)'s proposals become candidates, candidates get rewards,
//! rewards go back to the method, until it is done, a [`Budget`] is spent or a
//! [`Stop`] comes. The best response seen is the answer. Everything that happens on the way
//! is told as an [`Event`]; progress bars, traces and plots are readers of those.

mod batch;
mod divergence;
mod events;
mod open;
mod patience;
mod record;
mod request;
mod rewards;
mod run;
mod tally;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub use batch::{Batch, Ended};
pub use events::{Event, EventKind, RunId};
pub use record::{
    Alignment, IterationStats, ModelNames, ScoredCandidate, StopReason, Timings, Usage,
};
pub use request::{AlignOptions, Budget, Prompt, Stop};
pub use rewards::{Rewards, RunRewards};

use crate::error::{Error, Result};
use crate::llama::{
    Attention, ChatOptions, ChatTemplate, ContextMemory, LogitsRoute, Model, Token,
    available_memory, offloads,
};
use crate::method::{Facts, Method};
use crate::rollout::{RolloutOptions, Work};

/// Parked sequences take at most this part of the memory that is free: a fourth.
const PARKED_SHARE: u64 = 4;

/// How an [`Aligner`] runs its generator.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Candidates side by side, 1 to 256 (default 16). Results do not depend on it.
    pub parallel: usize,
    /// Tokens that prompt and response may take together; `None` makes room for the prompt
    /// and the longest response.
    pub context: Option<usize>,
    /// CPU threads (default: the physical cores available).
    pub threads: usize,
    /// CPU threads where several tokens are decoded at once: prompts, and candidates side by side; 0
    /// (the default) takes `threads`.
    pub threads_batch: usize,
    /// How attention is computed, and what keys and values are kept as.
    pub attention: Attention,
    /// Whether candidates go on from what others have decoded (default true). Results do not depend
    /// on it, the work does, and the memory: as many more sequences as `parallel` are held, or as a
    /// fourth of the free memory has room for.
    pub share_prefixes: bool,
    /// The way to the perturbed logits.
    pub logits: LogitsRoute,
    /// How conversations are rendered.
    pub chat: ChatOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            parallel: 16,
            context: None,
            threads: default_threads(),
            threads_batch: 0,
            attention: Attention::default(),
            share_prefixes: true,
            logits: LogitsRoute::default(),
            chat: ChatOptions::default(),
        }
    }
}

/// Physical cores that this process may use; more threads only wait for each other.
#[must_use]
pub fn default_threads() -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, available)
}

/// A generator for one prompt after the other.
pub struct Aligner {
    model: Arc<Model>,
    options: EngineOptions,
    facts: Facts,
    batch: Option<Batch>,
    reserved: usize,
}

impl Aligner {
    /// Takes a generator.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that cannot generate here.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Self> {
        model.check_generator()?;
        Ok(Self {
            facts: Facts::new(Arc::clone(&model)),
            model,
            options,
            batch: None,
            reserved: 0,
        })
    }

    /// The generator.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What its rollout has decoded since it was last made, with a context that is long enough.
    #[must_use]
    pub fn work(&self) -> Work {
        let batch = self.batch.as_ref();
        batch.map_or(Work::default(), |batch| batch.rollout().work())
    }

    /// Makes the context long enough for `prompt` and a response of `max_tokens`.
    ///
    /// # Errors
    /// Those of [`tokenize`](Self::tokenize), and [`Error::Field`] for a prompt that is too long.
    pub fn reserve(&mut self, prompt: &Prompt, max_tokens: usize) -> Result<()> {
        let length = self.tokenize(prompt)?.len();
        self.check_length(length, max_tokens)?;
        self.reserved = self.reserved.max(length + max_tokens);
        Ok(())
    }

    /// Tokens of a prompt as the model sees them.
    ///
    /// # Errors
    /// [`Error::Model`] for a conversation without a chat template, [`Error::Field`] when
    /// the template refuses it.
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        match prompt {
            Prompt::Raw(text) => Ok(self.model.tokenize(text, true, true)),
            Prompt::Chat(messages) => ChatTemplate::new(&self.model, &self.options.chat)?.tokenize(
                &self.model,
                messages,
                true,
            ),
        }
    }

    /// Searches for the response to `prompt` that the reward likes best.
    ///
    /// `rewards` is a [`Reward`](crate::reward::Reward), or one with a held-out one
    /// ([`RunRewards`]). `observe` is told everything that happens. A request on `stop`, and a
    /// limit of time, end the run after the decoding step it is in; finished candidates are still
    /// scored.
    ///
    /// # Errors
    /// [`Error::Field`] for options out of range or a prompt that does not fit,
    /// [`Error::Model`] for a model that cannot be perturbed, [`Error::Reward`] when the
    /// reward fails as a whole, [`Error::Unscored`] when it fails for every candidate,
    /// [`Error::Run`] when no candidate has any text.
    pub fn align(
        &mut self,
        prompt: &Prompt,
        rewards: &mut dyn Rewards,
        options: &AlignOptions,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        let rounds = options.rounds.on(&self.tokenize(prompt)?);
        let method = options.method.build(&rounds, &self.facts)?;
        self.align_by(prompt, rewards, options, method, stop, observe)
    }

    /// [`align`](Self::align) with a method of the caller's own in place of that of `options`.
    ///
    /// # Errors
    /// Those of [`align`](Self::align).
    pub fn align_by(
        &mut self,
        prompt: &Prompt,
        rewards: &mut dyn Rewards,
        options: &AlignOptions,
        method: Box<dyn Method>,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        let tokens = self.tokenize(prompt)?;
        let batch = self.batch_for(tokens.len(), options.rounds.max_tokens)?;
        let run = batch.add(prompt.text(), tokens, options.clone(), method, stop.clone())?;
        loop {
            let ended = batch.turn(rewards, observe);
            if let Some((_, result)) = ended.into_iter().find(|(id, _)| *id == run) {
                return result;
            }
        }
    }

    /// [`align`](Self::align) for many prompts, as many of them at a time as keep the batch full:
    /// every answer is, to the byte, the one that its prompt has alone (dense models on the CPU).
    ///
    /// `done` is told what became of each, by its number, as soon as that is known; a prompt that
    /// cannot be answered keeps no other from it. After a request on `stop` no further one is begun.
    ///
    /// # Errors
    /// What `done` fails with, which ends all of them.
    pub fn align_all(
        &mut self,
        prompts: &[Prompt],
        rewards: &mut dyn Rewards,
        options: &AlignOptions,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
        done: &mut dyn FnMut(usize, Result<Alignment>) -> Result<()>,
    ) -> Result<()> {
        let max_tokens = options.rounds.max_tokens;
        let mut waiting = VecDeque::new();
        for (number, prompt) in prompts.iter().enumerate() {
            let tokens = self.tokenize(prompt).and_then(|tokens| {
                self.check_length(tokens.len(), max_tokens)?;
                Ok(tokens)
            });
            match tokens {
                Ok(tokens) => waiting.push_back((number, prompt, tokens)),
                Err(error) => done(number, Err(error))?,
            }
        }
        let longest = waiting.iter().map(|(_, _, tokens)| tokens.len()).max();
        let Some(longest) = longest else {
            return Ok(());
        };
        self.batch_for(longest, max_tokens)?;
        let Self { facts, batch, .. } = self;
        let Some(all) = batch else {
            return Ok(());
        };
        let mut begun: HashMap<RunId, usize> = HashMap::new();
        let finished = loop {
            if stop.is_requested() {
                waiting.clear();
            }
            if (all.is_empty() || all.rollout().free() > 0)
                && let Some((number, prompt, tokens)) = waiting.pop_front()
            {
                let rounds = options.rounds.on(&tokens);
                let method = options.method.build(&rounds, facts);
                let run = method.and_then(|method| {
                    all.add(prompt.text(), tokens, options.clone(), method, stop.clone())
                });
                match run {
                    Ok(run) => drop(begun.insert(run, number)),
                    Err(error) => {
                        if let Err(error) = done(number, Err(error)) {
                            break Err(error);
                        }
                    }
                }
            }
            if all.is_empty() && waiting.is_empty() {
                break Ok(());
            }
            let mut ended = all.turn(rewards, observe).into_iter();
            let told = ended.try_for_each(|(run, result)| match begun.remove(&run) {
                Some(number) => done(number, result),
                None => Ok(()),
            });
            if told.is_err() {
                break told;
            }
        };
        if finished.is_err() {
            // Whoever is in it has nobody left to tell.
            self.batch = None;
        }
        finished
    }

    /// Whether the model was trained for so many tokens, where the context is not given.
    fn check_length(&self, prompt: usize, response: usize) -> Result<()> {
        let trained = self.model.trained_context();
        if self.options.context.is_some() || trained == 0 || prompt + response <= trained {
            return Ok(());
        }
        Err(Error::field(
            "prompt",
            format!(
                "{prompt} prompt tokens and {response} response tokens exceed the {trained} \
                 tokens that the model was trained for; shorten the prompt or give a smaller \
                 `max-tokens`"
            ),
        ))
    }

    /// What the next prompts need of memory, where none is longer than what was
    /// [reserved](Self::reserve).
    #[must_use]
    pub fn memory(&self) -> ContextMemory {
        let context = self.options.context.unwrap_or(self.reserved);
        ContextMemory::of(&self.model, &self.rollout_options(context).of_context())
    }

    /// How a rollout with so many tokens a sequence is made: with as many parked sequences as take
    /// [a part](PARKED_SHARE) of the memory at most.
    fn rollout_options(&self, context: usize) -> RolloutOptions {
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
            let one = ContextMemory::of(&self.model, &options.of_context());
            let each = ((one.keys_and_values + one.states) / one.sequences.max(1) as u64).max(1);
            let most = available_memory().map_or(u64::MAX, |free| {
                (free / PARKED_SHARE).min(free.saturating_sub(one.total())) / each
            });
            options.parked = self.options.parallel.min(most as usize);
        }
        options
    }

    /// Refuses what the memory has no room for, where the sequences are in it.
    fn check_memory(&self, options: &RolloutOptions) -> Result<()> {
        let needed = ContextMemory::of(&self.model, &options.of_context());
        match available_memory().filter(|_| !offloads()) {
            Some(free) if needed.total() > free => Err(Error::field(
                "context",
                format!(
                    "{:.1} GB for {} sequences of {} tokens, and {:.1} GB of memory are free; give \
                     a smaller `context`, `max-tokens` or `parallel`",
                    needed.total() as f64 / 1e9,
                    needed.sequences,
                    needed.tokens,
                    free as f64 / 1e9
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The batch, made or made anew where its context is too short.
    fn batch_for(&mut self, prompt: usize, response: usize) -> Result<&mut Batch> {
        let needed = prompt + response;
        self.check_length(prompt, response)?;
        let context = self.options.context.unwrap_or(needed.max(self.reserved));
        let made = self.batch.take();
        let added = made.as_ref().map_or(0, |batch| batch.added);
        let fits = |batch: &Batch| batch.rollout().context().options().context >= context;
        let batch = match made.filter(fits) {
            Some(batch) => batch,
            None => {
                let options = self.rollout_options(context);
                self.check_memory(&options)?;
                let mut batch = Batch::new(Arc::clone(&self.model), &options)?;
                // Runs are counted on.
                batch.added = added;
                batch
            }
        };
        Ok(self.batch.insert(batch))
    }
}
