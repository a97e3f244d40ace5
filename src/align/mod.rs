//! The front of the library: one prompt in, one aligned answer out.
//!
//! An [`Aligner`] owns a generator and a reward. [`Aligner::align`] drives a
//! [`Method`](crate::method::Method): proposals become candidates in one batch, candidates
//! get rewards, rewards go back to the method, until it is done, a [`Budget`] is spent or a
//! [`Stop`] comes. The best response seen is the answer. Everything that happens on the way
//! is told as an [`Event`]; progress bars, traces and plots are readers of those.

mod divergence;
mod run;
mod scorer;
mod surprise;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::events::{Alignment, Event, ModelNames, Usage};
use crate::llama::{ChatTemplate, LogitsRoute, Message, Model, Token};
use crate::method::{Method, MethodKind, MethodOptions, ModelFacts, Sigma, Update, build};
use crate::output::OutputRows;
use crate::reward::Reward;
use crate::rollout::{Job, PromptId, Rollout, RolloutOptions};
use run::Run;
use scorer::{RewardScorer, SharedReward, lock};

/// What the model is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text that the model continues; special tokens written in it are special tokens.
    Raw(String),
    /// A conversation, rendered with the chat template.
    Chat(Vec<Message>),
}

impl Prompt {
    /// A conversation of one message, behind a system prompt where there is one.
    #[must_use]
    pub fn user(system: Option<&str>, text: impl Into<String>) -> Self {
        let mut messages: Vec<Message> = system
            .map(|text| Message::new("system", text))
            .into_iter()
            .collect();
        messages.push(Message::new("user", text));
        Self::Chat(messages)
    }

    /// The text that the reward sees as the prompt, and that reports show: the raw text, or
    /// the last user message.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Raw(text) => text,
            Self::Chat(messages) => messages
                .iter()
                .rev()
                .find(|m| m.role == "user")
                .map_or("", |m| &m.content),
        }
    }
}

/// Limits of one run, counted the same way for every method. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Generated candidates.
    pub candidates: Option<usize>,
    /// Tokens generated.
    pub generated_tokens: Option<usize>,
    /// Candidates scored.
    pub reward_calls: Option<usize>,
    /// Tokens read by the reward model.
    pub reward_tokens: Option<usize>,
    /// Wall-clock seconds; stops in the middle of an iteration (`--time-limit`).
    pub seconds: Option<f64>,
}

impl Budget {
    fn is_spent(&self, usage: &Usage) -> bool {
        let over = |limit: Option<usize>, used: usize| limit.is_some_and(|limit| used >= limit);
        over(self.candidates, usage.candidates)
            || over(self.generated_tokens, usage.generated_tokens)
            || over(self.reward_calls, usage.reward_calls)
            || over(self.reward_tokens, usage.reward_tokens)
    }
}

/// A request to stop, given from another thread or a signal handler. The best response so
/// far is still the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// No request yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop after the step it is in.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run was asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How an [`Aligner`] runs its generator.
#[derive(Clone, Debug)]
pub struct AlignerOptions {
    /// Candidates side by side, 1 to 256 (default 16). Results do not depend on it.
    pub parallel: usize,
    /// Tokens that prompt and response may take together; `None` makes room for the prompt
    /// and the longest response.
    pub context: Option<usize>,
    /// CPU threads (default: the physical cores available).
    pub threads: usize,
    /// The way to the perturbed logits.
    pub logits: LogitsRoute,
    /// A chat template instead of the one in the file.
    pub chat_template: Option<String>,
}

impl Default for AlignerOptions {
    fn default() -> Self {
        Self {
            parallel: 16,
            context: None,
            threads: default_threads(),
            logits: LogitsRoute::default(),
            chat_template: None,
        }
    }
}

/// Physical cores that this process may use; more threads only wait for each other.
#[must_use]
pub fn default_threads() -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, available)
}

/// What one call of [`Aligner::align`] does.
#[derive(Clone, Debug, Default)]
pub struct AlignOptions {
    /// The method.
    pub method: MethodKind,
    /// Its options.
    pub options: MethodOptions,
    /// Limits besides samples and iterations.
    pub budget: Budget,
    /// Ends the run once a response has at least this reward.
    pub target_reward: Option<f64>,
    /// Ends the run once, since some earlier iteration, the mean reward has risen and the
    /// mean held-out reward has fallen, both by more than two standard errors.
    pub stop_on_divergence: bool,
}

impl AlignOptions {
    /// Candidates of one iteration.
    fn samples(&self) -> usize {
        match self.method.is_single() {
            true => 1,
            false => self.options.samples,
        }
    }
}

/// A generator with a reward.
pub struct Aligner {
    model: Arc<Model>,
    reward: SharedReward,
    held_out: Option<Box<dyn Reward>>,
    options: AlignerOptions,
    rollout: Option<Rollout>,
    reserved: usize,
    output: Option<Arc<OutputRows>>,
    rms_row_norm: Option<f64>,
}

impl Aligner {
    /// Puts a model and a reward together.
    ///
    /// # Errors
    /// [`Error::Model`] for a model that cannot generate here.
    pub fn new(
        model: Arc<Model>,
        reward: Box<dyn Reward>,
        options: AlignerOptions,
    ) -> Result<Self> {
        model.check_generator()?;
        Ok(Self {
            model,
            reward: Arc::new(Mutex::new(reward)),
            held_out: None,
            options,
            rollout: None,
            reserved: 0,
            output: None,
            rms_row_norm: None,
        })
    }

    /// Adds a second reward that only watches: it scores the same candidates, is reported
    /// beside the first, and steers nothing. When it fails as a whole, later iterations
    /// have no held-out reward ([`Event::HeldOutFailed`]).
    #[must_use]
    pub fn with_held_out(mut self, reward: Box<dyn Reward>) -> Self {
        self.held_out = Some(reward);
        self
    }

    /// The generator.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Name of the reward, and of the held-out reward.
    #[must_use]
    pub fn reward_names(&self) -> (String, Option<String>) {
        (
            lock(&self.reward).name(),
            self.held_out.as_ref().map(|r| r.name()),
        )
    }

    /// Makes the context long enough for `prompt` and a response of `max_tokens`, and for
    /// [`surprise`](Self::surprise) at that response: it may have more tokens when it is read
    /// than when it was written, so there is room for twice as many.
    ///
    /// # Errors
    /// Those of [`tokenize`](Self::tokenize).
    pub fn reserve(&mut self, prompt: &Prompt, max_tokens: usize) -> Result<()> {
        let needed = self.tokenize(prompt)?.len() + 2 * max_tokens;
        self.reserved = self.reserved.max(needed);
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
            Prompt::Chat(messages) => ChatTemplate::new(
                &self.model,
                self.options.chat_template.as_deref(),
            )?
            .tokenize(&self.model, messages, true),
        }
    }

    /// Searches for the response to `prompt` that the reward likes best.
    ///
    /// `observe` is told everything that happens. A request on `stop`, and a limit of time,
    /// end the run after the decoding step it is in; finished candidates are still scored.
    ///
    /// # Errors
    /// [`Error::Field`] for options out of range or a prompt that does not fit,
    /// [`Error::Model`] for a model that cannot be perturbed, [`Error::Reward`] when the
    /// reward fails as a whole or for every candidate, [`Error::Run`] when no candidate has
    /// any text.
    pub fn align(
        &mut self,
        prompt: &Prompt,
        options: &AlignOptions,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        options.options.validate()?;
        let scorer = (options.method == MethodKind::Args).then(|| {
            let calls = options.budget.reward_calls;
            RewardScorer::new(&self.model, &self.reward, prompt.text(), calls)
        });
        let mut facts = self.facts(options)?;
        facts.scorer = scorer.clone().map(|s| s as _);
        let mut method = build(options.method, &options.options, &facts)?;
        self.drive(prompt, options, method.as_mut(), scorer, stop, observe)
    }

    /// [`align`](Self::align) with a method of the caller's own; `options.method` only names it.
    ///
    /// # Errors
    /// Those of [`align`](Self::align).
    pub fn align_by(
        &mut self,
        prompt: &Prompt,
        options: &AlignOptions,
        method: &mut dyn Method,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        options.options.validate()?;
        self.drive(prompt, options, method, None, stop, observe)
    }

    fn drive(
        &mut self,
        prompt: &Prompt,
        options: &AlignOptions,
        method: &mut dyn Method,
        scorer: Option<Arc<RewardScorer>>,
        stop: &Stop,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Alignment> {
        if options.stop_on_divergence && self.held_out.is_none() {
            return Err(Error::field(
                "stop-on-divergence",
                "there is no second reward to watch; give one with --held-out",
            ));
        }
        let held_out_model = self.held_out.as_ref().map(|reward| reward.name());
        let tokens = self.tokenize(prompt)?;
        let prompt_id = self.load_prompt(tokens, options.options.max_tokens)?;
        let mut run = Run::new(prompt.text(), options, stop);
        observe(&Event::RunStarted {
            prompt: prompt.text().to_owned(),
            method: options.method.name(),
            seed: options.options.seed,
            samples: options.samples(),
            iterations: match options.method {
                MethodKind::Greedy => 1,
                MethodKind::Args => options.options.samples * options.options.iterations,
                _ => options.options.iterations,
            },
        });
        loop {
            let iteration_started = Instant::now();
            let proposals = method.propose();
            let keep_pre_logits = method.keeps_pre_logits();
            if proposals.is_empty() {
                break;
            }
            let jobs: Vec<Job> = proposals
                .into_iter()
                .map(|p| Job {
                    prompt: prompt_id,
                    max_tokens: options.options.max_tokens,
                    steer: p.steer,
                    choice: p.choice,
                    keep_pre_logits,
                })
                .collect();
            let candidates = run.generate(self.rollout_mut()?, &jobs, observe)?;
            drop(jobs);
            if let Some(scorer) = &scorer {
                run.guided(scorer.take_usage());
            }
            let outcomes = run.score(
                lock(&self.reward).as_mut(),
                &mut self.held_out,
                &candidates,
                observe,
            )?;
            run.close_iteration(&outcomes, method, iteration_started, observe)?;
            if run.stopped.is_some() {
                break;
            }
        }
        let names = ModelNames {
            model: self.model.path().display().to_string(),
            reward_model: lock(&self.reward).name(),
            held_out_model,
        };
        run.finish(names, method, observe)
    }

    /// What the method needs to know of the model, read when it is first needed.
    fn facts(&mut self, options: &AlignOptions) -> Result<ModelFacts> {
        let kind = options.method;
        let options = &options.options;
        let aisp = kind == MethodKind::Aisp;
        let calibrated = aisp && matches!(options.sigma, Sigma::LogitSd(_));
        let regression = aisp && options.update == Update::Regression && options.steer > 0.0;
        let rows = regression || kind == MethodKind::Misvo;
        if (calibrated || rows) && self.output.is_none() {
            self.output = Some(Arc::new(self.model.output_rows()?));
        }
        if let (true, None, Some(output)) = (calibrated, self.rms_row_norm, &self.output) {
            self.rms_row_norm = Some(output.rms_norm()?);
        }
        Ok(ModelFacts {
            width: self.model.width(),
            rms_row_norm: self.rms_row_norm.unwrap_or(1.0),
            output: self.output.clone(),
            scorer: None,
        })
    }

    fn rollout_mut(&mut self) -> Result<&mut Rollout> {
        self.rollout
            .as_mut()
            .ok_or_else(|| Error::Run("no context was made".into()))
    }

    /// Gives the prompt to the rollout, making or enlarging its context where needed.
    fn load_prompt(&mut self, tokens: Vec<Token>, max_tokens: usize) -> Result<PromptId> {
        let needed = tokens.len() + max_tokens;
        let context = self.options.context.unwrap_or(needed.max(self.reserved));
        let fits = self
            .rollout
            .as_ref()
            .is_some_and(|r| r.context().options().context >= context);
        if !fits {
            let trained = self.model.trained_context();
            if self.options.context.is_none() && trained > 0 && needed > trained {
                return Err(Error::field(
                    "prompt",
                    format!(
                        "{} prompt tokens and {max_tokens} response tokens exceed the {trained} \
                         tokens that the model was trained for; shorten the prompt or give a \
                         smaller -n",
                        tokens.len()
                    ),
                ));
            }
            self.rollout = None;
            self.rollout = Some(Rollout::new(
                Arc::clone(&self.model),
                &RolloutOptions {
                    parallel: self.options.parallel,
                    context,
                    threads: self.options.threads,
                    logits: self.options.logits,
                },
            )?);
        }
        let rollout = self.rollout_mut()?;
        rollout.clear_prompts();
        rollout.add_prompt(tokens)
    }
}
