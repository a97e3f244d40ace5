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
mod parts;
mod patience;
mod record;
mod request;
mod rewards;
mod room;
mod run;
mod session;
mod share;
mod tally;
mod think;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use batch::{Batch, Ended};
pub use events::{Event, EventKind, RunId};
pub use parts::ScaledPart;
#[cfg(feature = "server")]
pub(crate) use parts::check as check_parts;
pub use record::{
    Alignment, IterationStats, ModelNames, ScoredCandidate, StopReason, Timings, Usage,
};
pub use request::{AlignOptions, Budget, Prompt};
pub use rewards::{Rewards, RunRewards};
pub use session::{Request, Session, Told, Wrap};
pub use share::{Heard, Link, Part, SentAnswer, SentCandidate, Share};
use think::{Answers, Search, Thought, Thoughts};
pub use think::{Opened, ReasoningOptions};

use crate::error::{Error, Result};
use crate::llama::{Attention, ChatOptions, LogitsRoute, Model, Token};
use crate::method::{Facts, Method, Rounds};
use crate::rollout::Work;
use crate::stop::Stop;

/// How often it looks for what it cannot go on without.
const LOOK: Duration = Duration::from_millis(1);

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
    /// Whether candidates go on from what others have decoded (default true). Results do not depend on
    /// it, the work and the memory do: as many more sequences as `parallel` are held (three times as
    /// many at most in [`Aligner::align_all`]), 256 in all, or as a fourth of the free memory has room
    /// for, and about 16 MiB a run at most of what the model said.
    pub share_prefixes: bool,
    /// The way to the perturbed logits.
    pub logits: LogitsRoute,
    /// How conversations are rendered.
    pub chat: ChatOptions,
    /// Reasoning before a search, where the model thinks.
    pub reasoning: ReasoningOptions,
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
            reasoning: ReasoningOptions::default(),
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
    side_by_side: usize,
    /// Those of the last prompt.
    thoughts: Option<Thoughts>,
    recruit: Option<Box<Recruit>>,
}

/// Finds other processes for a search: for the answer to a prompt, behind these tokens, of these
/// options. What they leave to this process is the answer.
pub type Recruit = dyn FnMut(&Prompt, &[Token], &AlignOptions) -> Result<Share> + Send;

impl Aligner {
    /// Takes a generator.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that cannot generate here.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Self> {
        model.check_generator()?;
        options.reasoning.validate()?;
        Ok(Self {
            facts: Facts::new(Arc::clone(&model)),
            model,
            options,
            batch: None,
            reserved: 0,
            side_by_side: 1,
            thoughts: None,
            recruit: None,
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
        let opened = self.open(prompt)?;
        let length = opened.tokens.len() + self.reasoning_tokens(&opened);
        let max_tokens = self.longest(length, max_tokens)?;
        self.check_length(length, max_tokens)?;
        self.reserved = self.reserved.max(length + max_tokens);
        Ok(())
    }

    /// Has [`align`](Self::align) share each search with other processes, which `recruit` finds.
    pub fn share_by(&mut self, recruit: Box<Recruit>) {
        self.recruit = Some(recruit);
    }

    /// Tokens of a prompt as the model sees them, reasoning left out.
    ///
    /// # Errors
    /// [`Error::Model`] for a conversation without a chat template, [`Error::Field`] when
    /// the template refuses it.
    pub fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        Ok(self.open(prompt)?.tokens)
    }

    fn open(&self, prompt: &Prompt) -> Result<Opened> {
        Opened::new(&self.model, &self.options.chat, prompt)
    }

    /// Most tokens of a response behind so many of a prompt.
    fn longest(&self, prompt: usize, max_tokens: usize) -> Result<usize> {
        if max_tokens != Rounds::TO_THE_END {
            return Ok(max_tokens);
        }
        let trained = self.model.trained_context();
        let context = self.options.context.unwrap_or(trained);
        match context.checked_sub(prompt).filter(|&left| left > 0) {
            Some(left) => Ok(left),
            None => Err(Error::field(
                "context",
                format!("{prompt} prompt tokens leave no room in {context}; give a larger one"),
            )),
        }
    }

    /// Searches for the response to `prompt` that the reward likes best.
    ///
    /// `rewards` is a [`Reward`](crate::reward::Reward), or one with a held-out one
    /// ([`RunRewards`]). `observe` is told everything that happens. A request on `stop`, and a
    /// limit of time, end the run after the decoding step it is in; finished candidates are still
    /// scored.
    ///
    /// Where the model [thinks](crate::llama::Think), it does so first, and the search is for the
    /// answer behind that; with several [reasonings](ReasoningOptions::count) there is one behind
    /// each.
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
        let count = self.options.reasoning.count;
        self.search(prompt, rewards, options, count, None, stop, observe)
    }

    /// [`align`](Self::align) with a method of the caller's own in place of that of `options`, behind
    /// one reasoning at most.
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
        self.search(prompt, rewards, options, 1, Some(method), stop, observe)
    }

    #[allow(clippy::too_many_arguments)] // those of `align` and `align_by`
    fn search(
        &mut self,
        prompt: &Prompt,
        rewards: &mut dyn Rewards,
        options: &AlignOptions,
        reasonings: usize,
        mut method: Option<Box<dyn Method>>,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        check_scale(options, reasonings)?;
        let opened = self.open(prompt)?;
        let longest = opened.tokens.len() + self.reasoning_tokens(&opened);
        let mut options = opened.options(options);
        options.rounds.max_tokens = self.longest(longest, options.rounds.max_tokens)?;
        let prompts = std::slice::from_ref(&opened);
        let (thoughts, reasoning_seconds) = self.think(prompts, &options, reasonings, stop)?;
        if let Some(seconds) = &mut options.budget.seconds {
            *seconds = (*seconds - reasoning_seconds).max(f64::MIN_POSITIVE);
        }
        self.batch_for(longest, options.rounds.max_tokens)?;
        let mut searches = VecDeque::new();
        for thought in thoughts.into_iter().flatten() {
            let recruit = self.recruit.as_mut().filter(|_| method.is_none());
            let share = recruit.map(|recruit| recruit(prompt, &thought.tokens, &options));
            searches.push_back(Search {
                number: 0,
                prompt,
                options: options.clone(),
                method: method.take(),
                share: share.transpose()?,
                thought,
            });
        }
        let mut answer = None;
        let mut done = |_, result| {
            answer = Some(result);
            Ok(())
        };
        self.search_all(searches, rewards, stop, observe, &mut done)?;
        let none = || Error::Run("stopped before anything was written".into());
        let mut answer: Alignment = answer.unwrap_or_else(|| Err(none()))?;
        answer.timings.reasoning_seconds = reasoning_seconds;
        answer.timings.total_seconds += reasoning_seconds;
        Ok(answer)
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
        check_scale(options, self.options.reasoning.count)?;
        let mut opened = Vec::new();
        let mut of: Vec<(usize, &Prompt, AlignOptions)> = Vec::new();
        let mut longest = (0, 0);
        for (number, prompt) in prompts.iter().enumerate() {
            let one = self.open(prompt).and_then(|one| {
                let length = one.tokens.len() + self.reasoning_tokens(&one);
                let mut options = one.options(options);
                options.rounds.max_tokens = self.longest(length, options.rounds.max_tokens)?;
                self.check_length(length, options.rounds.max_tokens)?;
                Ok((one, length, options))
            });
            match one {
                Ok((one, length, options)) => {
                    let response = options.rounds.max_tokens;
                    longest = (longest.0.max(length), longest.1.max(response));
                    opened.push(one);
                    of.push((number, prompt, options));
                }
                Err(error) => done(number, Err(error))?,
            }
        }
        if opened.is_empty() {
            return Ok(());
        }
        self.expect(opened.len());
        self.batch_for(longest.0, longest.1)?;
        let mut widest = options.clone();
        widest.rounds.max_tokens = longest.1;
        let count = self.options.reasoning.count;
        let (thoughts, _) = self.think(&opened, &widest, count, stop)?;
        let searches = of.into_iter().zip(thoughts).flat_map(|(of, thoughts)| {
            let (number, prompt, options) = of;
            thoughts.into_iter().map(move |thought| Search {
                number,
                prompt,
                thought,
                options: options.clone(),
                method: None,
                share: None,
            })
        });
        self.search_all(searches.collect(), rewards, stop, observe, done)
    }

    /// Carries out searches, as many of them at a time as keep the batch full, which is long enough
    /// for all of them; after a request on `stop` none but the first is begun. `done` is told the best
    /// answer of those of one number.
    fn search_all(
        &mut self,
        mut waiting: VecDeque<Search<'_>>,
        rewards: &mut dyn Rewards,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
        done: &mut dyn FnMut(usize, Result<Alignment>) -> Result<()>,
    ) -> Result<()> {
        let Self { facts, batch, .. } = self;
        let Some(all) = batch else {
            return Ok(());
        };
        let mut open: HashMap<usize, Answers> = HashMap::new();
        for search in &waiting {
            open.entry(search.number).or_default().missing += 1;
        }
        let mut begun: HashMap<RunId, (usize, Thought)> = HashMap::new();
        let mut any = false;
        let finished = loop {
            // Whoever asks for an answer at once gets the beginning of one.
            if stop.is_requested() && any {
                waiting.clear();
            }
            let mut ended: Vec<(usize, Result<Alignment>)> = Vec::new();
            if (all.is_empty() || all.rollout().free() > 0)
                && let Some(search) = waiting.pop_front()
            {
                let number = search.number;
                any = true;
                match search.begin(all, facts, stop) {
                    Ok((run, thought)) => drop(begun.insert(run, (number, thought))),
                    Err(error) => ended.push((number, Err(error))),
                }
            }
            if all.is_empty() && waiting.is_empty() && ended.is_empty() {
                break Ok(());
            }
            for (run, result) in all.turn(rewards, observe) {
                if let Some((number, thought)) = begun.remove(&run) {
                    ended.push((number, result.map(|answer| thought.of(answer))));
                }
            }
            let told = ended.into_iter().try_for_each(|(number, result)| {
                let answers = open.entry(number).or_default();
                answers.take(result);
                match answers.missing {
                    0 => done(number, std::mem::take(answers).best()),
                    _ => Ok(()),
                }
            });
            if told.is_err() {
                break told;
            }
            if all.waits() {
                std::thread::sleep(LOOK);
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
}

/// The answers behind several reasonings are compared, each from a run with deviations of its own.
fn check_scale(options: &AlignOptions, reasonings: usize) -> Result<()> {
    match options.reward_scale && reasonings > 1 {
        true => Err(Error::field(
            "reward-scale",
            "the searches behind several `reasonings` have deviations of their own each; leave out \
             one of the two",
        )),
        false => Ok(()),
    }
}
