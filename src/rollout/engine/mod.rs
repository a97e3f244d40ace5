//! The batch that is kept full.
//!
//! Slot i is sequence i of the context, and what it holds the context knows
//! ([`Context::hold`], with the rules of bit-exactness in `llama/sequences.rs`): the first job on
//! a prompt decodes it, later ones cut back to it or copy it. The prompt's last token is decoded
//! as the first row of every candidate, so that the first response token is perturbed per
//! candidate like any other, unless what the model says there is known already (`tree.rs`). Steps have rows in fours ([`Model::step_rows`]); slots without a candidate fill them
//! up. Jobs that are decoded [alone](Job::alone) stand at the other end and have steps of
//! their own; where a group reaches them, the row that they fill it up with is cut off again. A
//! recurrent state cannot be cut back: there they wait for each other.

mod all;
mod choose;
mod options;
mod places;
mod shifts;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use self::choose::Pen;
pub use self::options::RolloutOptions;
use self::shifts::Shifts;
use self::tree::{Place, Tree, recalls};
use crate::error::{Error, Result};
use crate::llama::{
    Context, GrammarState, LogitsRoute, MAX_SEQUENCES, Model, Row, RowsEdit, Token,
};
use crate::math::Softmax;
use crate::rollout::{Candidate, End, Form, Job, JobId, PromptId, TokenNats, Written};

/// What a rollout has decoded so far, prompts left out, and what it has written without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Steps.
    pub steps: usize,
    /// Rows of all steps.
    pub rows: usize,
    /// Those that were to say a new token.
    pub written: usize,
    /// Those that only decoded again what a job [begins](Job::beginning) with, or has of others. The
    /// rest filled steps up.
    pub again: usize,
    /// Tokens that were written without a row: what the model says behind the text so far was known.
    pub ahead: usize,
}

/// A context with its slots, prompts and jobs.
pub struct Rollout {
    context: Context,
    prompts: HashMap<PromptId, (Arc<[Token]>, Arc<Form>)>,
    /// What was said behind them, where candidates go on from what others have written.
    trees: HashMap<PromptId, Tree>,
    /// Tokens written in places for each prompt, and those that its jobs in slots may write yet; a new prompt
    /// begins with as many as the one that has the fewest.
    served: HashMap<PromptId, usize>,
    /// Jobs without a slot, in their order.
    waiting: VecDeque<Live>,
    slots: Vec<Option<Live>>,
    /// Prompts and jobs so far.
    numbered: u64,
    work: Work,
    pen: Pen,
    perturbation: Vec<f32>,
    rows: Vec<Row>,
    /// The model's own logits, where some tokens are forbidden, or not known.
    own_allowed: Vec<f32>,
    /// What the model itself says, by rows of the last step.
    softmaxes: Vec<(usize, Softmax)>,
    /// Parked sequences in use, the latest last.
    uses: Vec<usize>,
    /// Whether any job so far had a [beginning](Job::beginning), or one was found: until then nothing
    /// is parked.
    continued: bool,
}

/// A candidate that is being written, or waits for it.
struct Live {
    id: JobId,
    job: Job,
    prompt: Arc<[Token]>,
    form: Arc<Form>,
    /// Where it stands in the form's grammar.
    grammar: Option<GrammarState>,
    tokens: Vec<Token>,
    nats: Vec<TokenNats>,
    /// Rows so far: row i says token i.
    decoded: usize,
    pre_logits: Vec<f32>,
    /// Whether the row of its next token is perturbed.
    perturbed: bool,
    /// Whether what the graph says in that row is known to be what the model itself says.
    plain: bool,
    /// Where what it has written stands in its prompt's tree; `None` where that
    /// is not asked, or the tree is full.
    place: Option<Place>,
    /// The perturbation `[d]` that is added to the logits which the floor allows; empty where there
    /// is none, or it is in the graph.
    shift: Vec<f32>,
    /// Why its next token has no perturbation, where there was to be one.
    failed: Option<Error>,
}

impl Live {
    /// The row that its next token comes from.
    fn row(&self) -> Row {
        let last = self.prompt.len() - 1;
        let token = match self.decoded {
            0 => self.prompt[last],
            rows => self.tokens[rows - 1],
        };
        Row {
            token,
            position: last + self.decoded,
        }
    }

    /// Whether the next row says a token that is known already.
    fn catches_up(&self) -> bool {
        self.decoded < self.tokens.len()
    }

    /// What a sequence holds from which the first token that is not known comes next; `None` where
    /// that is the first of all.
    fn before(&self) -> Option<Vec<Token>> {
        let before = self.tokens.len().checked_sub(1)?;
        Some([&self.prompt[..], &self.tokens[..before]].concat())
    }

    fn finish(self, model: &Model, end: End) -> Candidate {
        let reading = self.form.read(model, &self.tokens);
        Candidate {
            text: reading.text,
            reasoning: reading.reasoning,
            unfinished: reading.unfinished,
            known: self.job.beginning.len(),
            tokens: self.tokens,
            nats: self.nats,
            end,
            pre_logits: self.pre_logits,
        }
    }
}

/// Asks for the rewards of what a job has written: see [`Ask`](crate::rollout::Ask).
type AskFor<'a> = dyn FnMut(JobId, &[Vec<Token>]) -> Result<Vec<Option<f64>>> + 'a;

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
        let made = options.of_context();
        let shifts = match options.logits {
            LogitsRoute::Rows => Shifts::of(&model),
            LogitsRoute::Graph | LogitsRoute::Recompute => None,
        };
        let context = Context::new(model, &made)?;
        Ok(Self {
            context,
            prompts: HashMap::new(),
            trees: HashMap::new(),
            served: HashMap::new(),
            waiting: VecDeque::new(),
            slots: (0..made.sequences).map(|_| None).collect(),
            numbered: 0,
            work: Work::default(),
            pen: Pen::new(shifts),
            perturbation: Vec::new(),
            rows: Vec::new(),
            own_allowed: Vec::new(),
            softmaxes: Vec::new(),
            uses: Vec::new(),
            continued: false,
        })
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What it has decoded so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// Places in the batch that nobody has or waits for.
    #[must_use]
    pub fn free(&self) -> usize {
        let free = self.slots.iter().filter(|slot| slot.is_none()).count();
        free.saturating_sub(self.waiting.len())
    }

    /// The places of the batch: whose candidate is written in each.
    pub fn places(&self) -> impl Iterator<Item = Option<JobId>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|l| l.id))
    }

    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Makes a prompt known; it is decoded when the first job needs it.
    ///
    /// # Errors
    /// [`Error::Field`] when it is empty or leaves no room for a response.
    pub fn add_prompt(&mut self, tokens: Vec<Token>) -> Result<PromptId> {
        self.add_prompt_for(tokens, Form::default())
    }

    /// The same with what the responses to it look like.
    ///
    /// # Errors
    /// Those of [`add_prompt`](Self::add_prompt), and [`Error::Field`] for an empty
    /// [`stop`](Form::stop).
    pub fn add_prompt_for(&mut self, tokens: Vec<Token>, form: Form) -> Result<PromptId> {
        if form.stop.iter().any(String::is_empty) {
            return Err(Error::field("stop", "an empty text; it is everywhere"));
        }
        if tokens.is_empty() {
            return Err(Error::field("prompt", "it has no tokens"));
        }
        self.check_room(tokens.len(), 1)?;
        let id = PromptId(self.number());
        let fewest = self.served.values().min().copied().unwrap_or(0);
        self.served.insert(id, fewest);
        self.prompts.insert(id, (tokens.into(), Arc::new(form)));
        if self.has_trees() {
            self.trees.insert(id, Tree::new());
        }
        Ok(id)
    }

    /// Forgets a prompt, and no other. Jobs on it that were submitted go on.
    pub fn forget_prompt(&mut self, prompt: PromptId) {
        self.prompts.remove(&prompt);
        self.trees.remove(&prompt);
        self.served.remove(&prompt);
    }

    /// Whether a prompt and a response of so many tokens fit the context.
    pub(crate) fn check_room(&self, prompt: usize, response: usize) -> Result<()> {
        let context = self.context.options().context;
        if prompt + response <= context {
            return Ok(());
        }
        Err(Error::field(
            "context",
            format!(
                "{prompt} prompt tokens and {response} response tokens exceed the context of \
                 {context}; give a larger one, a shorter `prompt`, or a smaller `max-tokens`"
            ),
        ))
    }

    /// Queues a job, behind those that were submitted before.
    ///
    /// # Errors
    /// [`Error::Field`] for one that cannot fit the context, [`Error::Run`] for a prompt that is
    /// not known.
    pub fn submit(&mut self, job: Job) -> Result<JobId> {
        let (prompt, form) = self.prompts.get(&job.prompt).cloned().ok_or_else(|| {
            Error::Run("a job names a prompt that this rollout does not know".into())
        })?;
        if job.max_tokens == 0 {
            return Err(Error::field("max-tokens", "0; give at least 1"));
        }
        self.check_room(prompt.len(), job.max_tokens)?;
        let known = job.beginning.len();
        if known >= job.max_tokens || known > 0 && (job.alone || job.keep_pre_logits) {
            let reason = format!("a job of {} tokens begins with {known}", job.max_tokens);
            return Err(Error::Run(reason));
        }
        let mut grammar = form.grammar.as_ref().map(|grammar| grammar.start());
        for (token, _) in job.beginning.iter() {
            grammar
                .as_mut()
                .map_or(Ok(()), |grammar| grammar.accept(*token))?;
        }
        self.continued |= known > 0;
        let id = JobId(self.number());
        // Behind those submitted before, but for shorter ones on the same prompt: what takes the
        // longest is begun first, so that fewer wait for it at the end.
        let (of, left) = (job.prompt, job.max_tokens - known);
        let shorter = |live: &&Live| {
            live.job.prompt == of && live.job.max_tokens - live.job.beginning.len() < left
        };
        let behind = self.waiting.iter().rev().take_while(shorter).count();
        let at = self.waiting.len() - behind;
        let tokens: Vec<Token> = job.beginning.iter().map(|known| known.0).collect();
        let tree = self.trees.get_mut(&of);
        let tree = tree.filter(|_| recalls(&job, &form));
        let live = Live {
            id,
            prompt,
            form,
            grammar,
            place: tree.and_then(|tree| tree.place(&tokens)),
            tokens,
            nats: job.beginning.iter().map(|known| known.1).collect(),
            job,
            decoded: 0,
            pre_logits: Vec::new(),
            perturbed: false,
            plain: false,
            shift: Vec::new(),
            failed: None,
        };
        self.waiting.insert(at, live);
        Ok(id)
    }

    /// Takes a job out. The answer is what it has written so far ([`End::Stopped`]); `None` where
    /// nothing was written yet, or it is not here.
    pub fn cancel(&mut self, job: JobId) -> Option<Candidate> {
        self.waiting.retain(|live| live.id != job);
        let this = |slot: &&mut Option<Live>| slot.as_ref().is_some_and(|live| live.id == job);
        let live = self.slots.iter_mut().find(this)?.take()?;
        self.settle(&live);
        Some(live.finish(self.context.model(), End::Stopped))
    }

    /// Writes a token of every job that has a place in the batch, and before it, of those whose turn
    /// it is to get one, the tokens that need no decoding; some are done with these. The answer has an
    /// entry for each token, those of a job in their order. Those whose
    /// [beginning](Job::beginning) is decoded again have none. `ask` is what [`Steer::choose`](crate::rollout::Steer::choose) may ask.
    ///
    /// # Errors
    /// [`Error::Engine`] when llama.cpp fails; all jobs are gone then. What fails for one job
    /// alone is in its entry.
    pub fn step(&mut self, ask: &mut AskFor<'_>) -> Result<Vec<Written>> {
        let mut all = Vec::new();
        let written = self
            .fill(ask, &mut all)
            .and_then(|()| self.write_all(ask, &mut all));
        if written.is_err() {
            self.waiting.clear();
            self.slots.fill_with(|| None);
        }
        written.map(|()| all)
    }

    /// A token of every candidate: those of the groups first.
    fn write_all(&mut self, ask: &mut AskFor<'_>, all: &mut Vec<Written>) -> Result<()> {
        let grouped = |slot: &Option<Live>| slot.as_ref().is_some_and(|live| !live.job.alone);
        if let Some(last) = self.slots.iter().rposition(grouped) {
            let count = self.context.model().step_rows(last + 1);
            self.decode(0..count, false)?;
            self.sum_up(0, count, false)?;
            for slot in 0..count {
                if grouped(&self.slots[slot]) {
                    all.extend(self.write(slot, slot, ask));
                }
            }
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_some() && !grouped(&self.slots[slot]) {
                self.decode(slot..slot + 1, true)?;
                self.sum_up(slot, 1, true)?;
                all.extend(self.write(slot, 0, ask));
            }
        }
        Ok(())
    }

    /// Decodes a row of each of these slots: a whole group, or one that is `alone`.
    fn decode(&mut self, slots: Range<usize>, alone: bool) -> Result<()> {
        let width = self.context.model().width();
        self.work.steps += 1;
        self.work.rows += slots.len();
        self.rows.clear();
        self.perturbation.clear();
        self.perturbation.resize(slots.len() * width, 0.0);
        let mut perturbed = false;
        let mut keep = false;
        let mut edits: Vec<RowsEdit> = Vec::new();
        let mut cut: Vec<(usize, usize)> = Vec::new();
        for (row, slot) in slots.clone().enumerate() {
            let Some(live) = &mut self.slots[slot] else {
                self.rows.push(self.context.idle_row(slot)?);
                continue;
            };
            self.rows.push(live.row());
            if live.job.alone != alone {
                cut.push((slot, live.row().position));
                continue;
            }
            live.shift.clear();
            live.plain = self.pen.shifts.is_some();
            let catches_up = live.catches_up();
            if let Some(steer) = live.job.steer.as_ref().filter(|_| !catches_up) {
                let edit = steer.edit();
                let apart = self.pen.shifts.is_some() && steer.floor() > 0.0 && edit.is_none();
                live.failed = if apart {
                    let steer = Arc::clone(steer);
                    live.shift_by(&*steer, width).err()
                } else {
                    let v = &mut self.perturbation[row * width..(row + 1) * width];
                    let said = steer.perturb(&live.tokens, v);
                    live.perturbed = matches!(said, Ok(true));
                    perturbed |= live.perturbed;
                    live.plain &= !live.perturbed;
                    said.err()
                };
                if let Some(edit) = edit {
                    perturbed = true;
                    live.plain = false;
                    match edits.iter_mut().find(|e| Arc::ptr_eq(&e.1, &edit)) {
                        Some((rows, _)) => rows.push(row),
                        None => edits.push((vec![row], edit)),
                    }
                }
            }
            keep |= live.job.keep_pre_logits;
        }
        let v = perturbed.then_some(self.perturbation.as_slice());
        self.context.set_edits(edits);
        match alone {
            true => self
                .context
                .step_alone(slots.start, self.rows[0], v, keep)?,
            false => self.context.step(&self.rows, v, keep)?,
        }
        self.context.compute_own_logits()?;
        for (slot, position) in cut {
            self.context.rewind(slot, position)?;
        }
        Ok(())
    }
}
