//! The batch that is kept full.
//!
//! Slot i is sequence i of the context. A slot remembers which prompt its sequence starts
//! with: the next job on the same prompt only cuts the sequence back to it, a job on
//! another prompt copies it from a slot that has it, and only the first job on a prompt
//! decodes it. The prompt's last token is decoded as the first row of every candidate, so
//! that the first response token is perturbed per candidate like any other.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::sampling::Chooser;
use super::{Candidate, End, Job, Progress, PromptId};
use crate::error::{Error, Result};
use crate::llama::{
    Context, ContextOptions, LogitsRoute, MAX_SEQUENCES, Model, ROW_GROUP, Row, RowsEdit, Token,
};

/// How a rollout is made.
#[derive(Clone, Debug)]
pub struct RolloutOptions {
    /// Candidates side by side (`--parallel`), 1 to 256; rounded up to a multiple of
    /// [`ROW_GROUP`].
    pub parallel: usize,
    /// Tokens that a prompt and its response may take together.
    pub context: usize,
    /// CPU threads.
    pub threads: usize,
    /// The way to the perturbed logits.
    pub logits: LogitsRoute,
}

/// A context with its slots and prompts.
pub struct Rollout {
    context: Context,
    prompts: Vec<Vec<Token>>,
    /// The prompt that each sequence starts with.
    held: Vec<Option<PromptId>>,
    chooser: Chooser,
    perturbation: Vec<f32>,
    rows: Vec<Row>,
}

/// A candidate being written.
struct Live {
    job: usize,
    tokens: Vec<Token>,
    pre_logits: Vec<f32>,
}

/// Candidates of one run: those being written by slot, those done by job.
struct Run<'a> {
    jobs: &'a [Job],
    next: usize,
    live: Vec<Option<Live>>,
    done: Vec<Option<Candidate>>,
    progress: Progress,
}

impl Rollout {
    /// Makes the context for `model`.
    ///
    /// # Errors
    /// Those of [`Context::new`], and [`Error::Field`] for `parallel` out of range.
    pub fn new(model: Arc<Model>, options: &RolloutOptions) -> Result<Self> {
        if !(1..=MAX_SEQUENCES).contains(&options.parallel) {
            return Err(Error::field(
                "parallel",
                format!("{} is not between 1 and {MAX_SEQUENCES}", options.parallel),
            ));
        }
        let sequences = options.parallel.next_multiple_of(ROW_GROUP);
        let context = Context::new(
            model,
            &ContextOptions {
                sequences,
                context: options.context,
                threads: options.threads,
                logits: options.logits,
            },
        )?;
        Ok(Self {
            context,
            prompts: Vec::new(),
            held: vec![None; sequences],
            chooser: Chooser::default(),
            perturbation: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Makes a prompt known; it is decoded when the first job needs it.
    ///
    /// # Errors
    /// [`Error::Field`] when it is empty or leaves no room for a response.
    pub fn add_prompt(&mut self, tokens: Vec<Token>) -> Result<PromptId> {
        if tokens.is_empty() {
            return Err(Error::field("prompt", "the prompt has no tokens"));
        }
        let context = self.context.options().context;
        if tokens.len() >= context {
            return Err(Error::field(
                "context",
                format!(
                    "the prompt has {} tokens and the context {context}; \
                     shorten the prompt or give a larger -c",
                    tokens.len()
                ),
            ));
        }
        self.prompts.push(tokens);
        Ok(PromptId(self.prompts.len() - 1))
    }

    /// Forgets all prompts.
    pub fn clear_prompts(&mut self) {
        self.prompts.clear();
        self.held.fill(None);
    }

    /// Generates a candidate for every job; results are in the order of the jobs, and the
    /// same however many run at once.
    ///
    /// `observe` is called after every step; when it breaks, the candidates being written
    /// are returned as they are ([`End::Stopped`]) and those not begun as `None`.
    ///
    /// # Errors
    /// [`Error::Field`] for a job that cannot fit the context, [`Error::Engine`] when
    /// llama.cpp fails.
    pub fn run(
        &mut self,
        jobs: &[Job],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Option<Candidate>>> {
        for job in jobs {
            self.check(job)?;
        }
        let mut run = Run {
            jobs,
            next: 0,
            live: self.held.iter().map(|_| None).collect(),
            done: jobs.iter().map(|_| None).collect(),
            progress: Progress::default(),
        };
        loop {
            self.fill(&mut run)?;
            let Some(last) = run.live.iter().rposition(Option::is_some) else {
                return Ok(run.done);
            };
            self.step(&mut run, (last + 1).next_multiple_of(ROW_GROUP))?;
            if observe(run.progress).is_break() {
                for live in run.live.iter_mut().filter_map(Option::take) {
                    let candidate = self.finish(&live.tokens, live.pre_logits, End::Stopped);
                    run.done[live.job] = Some(candidate);
                }
                return Ok(run.done);
            }
        }
    }

    fn check(&self, job: &Job) -> Result<()> {
        let prompt = self.prompts.get(job.prompt.0).ok_or_else(|| {
            Error::Run("a job names a prompt that this rollout does not know".into())
        })?;
        if job.max_tokens == 0 {
            return Err(Error::field("max-tokens", "0 tokens; give at least 1"));
        }
        let context = self.context.options().context;
        if prompt.len() + job.max_tokens > context {
            return Err(Error::field(
                "context",
                format!(
                    "{} prompt tokens and {} response tokens exceed the context of {context}; \
                     give a larger -c or a smaller -n",
                    prompt.len(),
                    job.max_tokens
                ),
            ));
        }
        Ok(())
    }

    /// Gives jobs to free slots; with none left, moves the last candidates to the front so
    /// that fewer rows are decoded.
    fn fill(&mut self, run: &mut Run) -> Result<()> {
        for slot in 0..run.live.len() {
            if run.live[slot].is_none() && run.next < run.jobs.len() {
                self.start(slot, run.jobs[run.next].prompt)?;
                run.live[slot] = Some(Live {
                    job: run.next,
                    tokens: Vec::new(),
                    pre_logits: Vec::new(),
                });
                run.next += 1;
            }
        }
        let count = run.live.iter().flatten().count();
        let enough = count.next_multiple_of(ROW_GROUP);
        for from in enough..run.live.len() {
            if run.live[from].is_some()
                && let Some(to) = run.live.iter().position(Option::is_none)
            {
                self.context.copy_sequence(from, to)?;
                self.held[to] = self.held[from];
                run.live.swap(from, to);
            }
        }
        Ok(())
    }

    /// Makes the sequence of `slot` hold `prompt` without its last token.
    fn start(&mut self, slot: usize, prompt: PromptId) -> Result<()> {
        let shared = self.prompts[prompt.0].len() - 1;
        if self.held[slot] != Some(prompt) {
            match self.held.iter().position(|&h| h == Some(prompt)) {
                Some(from) => self.context.copy_sequence(from, slot)?,
                None => {
                    self.held[slot] = None;
                    self.context
                        .prefill(slot, &self.prompts[prompt.0][..shared])?;
                }
            }
            self.held[slot] = Some(prompt);
        }
        self.context.truncate(slot, shared)
    }

    fn step(&mut self, run: &mut Run, count: usize) -> Result<()> {
        let width = self.context.model().width();
        self.rows.clear();
        self.perturbation.clear();
        self.perturbation.resize(count * width, 0.0);
        let mut perturbed = false;
        let mut keep = false;
        let mut edits: Vec<RowsEdit> = Vec::new();
        for slot in 0..count {
            let row = match &run.live[slot] {
                Some(live) => {
                    let job = &run.jobs[live.job];
                    let v = &mut self.perturbation[slot * width..(slot + 1) * width];
                    if let Some(steer) = &job.steer {
                        perturbed |= steer.perturb(live.tokens.len(), v);
                        if let Some(edit) = steer.edit() {
                            perturbed = true;
                            match edits.iter_mut().find(|e| Arc::ptr_eq(&e.1, &edit)) {
                                Some((rows, _)) => rows.push(slot),
                                None => edits.push((vec![slot], edit)),
                            }
                        }
                    }
                    keep |= job.keep_pre_logits;
                    let prompt = &self.prompts[job.prompt.0];
                    Row {
                        token: *live.tokens.last().unwrap_or(&prompt[prompt.len() - 1]),
                        position: prompt.len() - 1 + live.tokens.len(),
                    }
                }
                None => self.filler(slot)?,
            };
            self.rows.push(row);
        }
        let v = perturbed.then_some(self.perturbation.as_slice());
        self.context.set_edits(edits);
        self.context.step(&self.rows, v, keep)?;
        for slot in 0..count {
            let Some(live) = &mut run.live[slot] else {
                continue;
            };
            let job = &run.jobs[live.job];
            let logits = self.context.logits(slot)?;
            if logits.iter().any(|logit| logit.is_nan()) {
                return Err(Error::Run(format!(
                    "the logits of token {} are NaN; what moves them is too strong: lower --step, \
                     --steer or the noise, or check the model with `aisp-llama inspect`",
                    live.tokens.len()
                )));
            }
            let chosen = match &job.steer {
                Some(steer) => steer.choose(&live.tokens, logits)?,
                None => None,
            };
            let token = chosen.unwrap_or_else(|| {
                let uniform = match &job.steer {
                    Some(steer) => steer.uniform(live.tokens.len()),
                    None => 0.0,
                };
                self.chooser.choose(&job.choice, logits, uniform)
            });
            live.tokens.push(token);
            if job.keep_pre_logits {
                let z = &self.context.pre_logits()[slot * width..(slot + 1) * width];
                live.pre_logits.extend_from_slice(z);
            }
            run.progress.tokens += 1;
            let end = if self.context.model().is_end(token) {
                End::EndOfTurn
            } else if live.tokens.len() == job.max_tokens {
                End::Length
            } else {
                continue;
            };
            run.progress.finished += 1;
            if let Some(live) = run.live[slot].take() {
                run.done[live.job] = Some(self.finish(&live.tokens, live.pre_logits, end));
            }
        }
        Ok(())
    }

    /// A row for a slot without a candidate, which fills up a group of rows: the last token
    /// of the prompt it holds, again and again.
    fn filler(&mut self, slot: usize) -> Result<Row> {
        let (token, position) = match self.held[slot] {
            Some(prompt) => {
                let prompt = &self.prompts[prompt.0];
                (prompt[prompt.len() - 1], prompt.len() - 1)
            }
            None => (0, 0),
        };
        self.context.truncate(slot, position)?;
        Ok(Row { token, position })
    }

    fn finish(&self, tokens: &[Token], pre_logits: Vec<f32>, end: End) -> Candidate {
        Candidate {
            tokens: tokens.to_vec(),
            text: self.context.model().text(tokens),
            end,
            pre_logits,
        }
    }
}
