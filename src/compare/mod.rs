//! Methods compared: the same prompts, seeds and budgets on one engine.
//!
//! A [`Plan`] is run row by row into a folder: `settings.json` says what the rows are rows of,
//! `results.jsonl` has one for each prompt × seed × method. A row is written once, whole, when its
//! run is done, so that a comparison can be killed at any moment and goes on where it stood. A run
//! that comes to no answer leaves a row with its error ([`Failure`]), and the others go on.
//! `summary.md` and the plots are made from the rows.

mod folder;
mod metrics;
mod plots;
mod rows;
mod shard;
mod stats;
mod summary;
mod tuning;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use folder::{Folder, Line};
pub use metrics::{Coherence, diversity, is_degenerate};
pub use plots::write_plots;
pub use rows::{Checkpoint, Failure, Row, Store};
pub use shard::{Shard, merge};
pub use stats::{Interval, paired_t};
pub use summary::summary;
pub use tuning::{CHECK, CHECK_SEEDS, Stage, Verdict, is_confirmed, stages, verdicts};

use crate::align::{
    AlignOptions, Aligner, Alignment, Budget, EventKind, Prompt, Rewards, StopReason,
};
use crate::error::{Error, Result};
use crate::llama::Think;
pub use crate::math::{mean, standard_deviation};
use crate::method::{MethodSpec, Rounds};
use crate::stop::Stop;
use crate::text;
use rows::Name;

/// The file with the rows of a comparison.
const RESULTS: &str = "results.jsonl";

/// What is equal for all methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Candidates generated.
    Candidates,
    /// Tokens generated.
    Tokens,
    /// Wall-clock seconds of a run, models loaded.
    Seconds,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Candidates => "candidates",
            Self::Tokens => "tokens",
            Self::Seconds => "seconds",
        })
    }
}

/// A comparison: everything that determines its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What the program was built of: its version, that of llama.cpp, the computer it is for.
    pub build: Vec<String>,
    /// What llama.cpp found on this computer: another CPU rounds differently.
    pub cpu: Vec<String>,
    /// The generator.
    pub model: FileId,
    /// The model that embeds for coherence, where it is another one.
    pub embedding: Option<FileId>,
    /// Layers on the GPU, where that is given.
    pub gpu_layers: Option<i32>,
    /// The reward, as summaries call it.
    pub reward: String,
    /// What else determines it, and the held-out reward: options.
    pub reward_details: Vec<String>,
    /// Files of the rewards, and of the methods' settings.
    pub files: Vec<FileId>,
    /// The held-out reward, as summaries call it.
    pub held_out: Option<String>,
    /// The prompts.
    pub prompts: Vec<String>,
    /// The system prompt.
    pub system_prompt: Option<String>,
    /// Whether prompts go through the chat template.
    pub chat: bool,
    /// A template instead of the one in the file.
    pub chat_template: Option<String>,
    /// What templates see beside what they always do.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub chat_template_kwargs: serde_json::Map<String, serde_json::Value>,
    /// Whether the model thinks, where that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
    /// Most tokens of reasoning, where that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_budget: Option<i32>,
    /// Reasonings of a run, where that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasonings: Option<usize>,
    /// The date in the prompts, where the template tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The methods, the first of which the others are compared with.
    pub methods: Vec<MethodSpec>,
    /// The first seed.
    pub first_seed: u64,
    /// How many seeds there are from that on.
    pub seeds: u64,
    /// Candidates, tokens or seconds of a run.
    pub budget: f64,
    /// Which of them.
    pub by: By,
    /// Candidates of one iteration.
    pub samples: usize,
    /// Most tokens of a response.
    pub max_tokens: usize,
    /// CPU threads.
    pub threads: usize,
}

/// A file by what it is called and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Name without its folder.
    pub name: String,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl FileId {
    /// That of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let mut file = text::regular(path).map_err(Error::io(path))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(Error::io(path))? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        let digest = hash.finalize();
        Ok(Self {
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// Prompts from JSON lines, `{"prompt": "…"}` each; empty lines are passed over.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Field`] naming the line that is no
/// such object, or when there is none.
pub fn read_prompts(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Line {
        prompt: String,
    }
    let text = text::read(path).map_err(Error::io(path))?;
    let wrong = |reason: String| Error::field("prompts", format!("{}: {reason}", path.display()));
    let mut prompts = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|l| !l.1.trim().is_empty()) {
        let parsed: Line = serde_json::from_str(line)
            .map_err(|e| wrong(format!("line {}: {e}; want {{\"prompt\": \"…\"}}", i + 1)))?;
        if parsed.prompt.trim().is_empty() {
            return Err(wrong(format!("line {}: the prompt is empty", i + 1)));
        }
        prompts.push(parsed.prompt);
    }
    match prompts.is_empty() {
        true => Err(wrong("no prompts".into())),
        false => Ok(prompts),
    }
}

/// Place of a row in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Index of the prompt.
    pub prompt: usize,
    /// The seed.
    pub seed: u64,
    /// Index of the method.
    pub method: usize,
}

impl Plan {
    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// [`Error::Field`] with what is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.methods.is_empty() || self.seeds == 0 {
            let field = if self.seeds == 0 { "seeds" } else { "methods" };
            return Err(Error::field(field, "nothing to do; give at least one"));
        }
        let candidates = self.by == By::Candidates;
        let counted = self.by != By::Seconds;
        let whole = !counted || self.budget.fract() == 0.0;
        if !(self.budget > 0.0 && self.budget.is_finite() && whole && self.budget < 1e9) {
            let whole = if counted { "whole " } else { "" };
            let reason = format!("{}; give a positive {whole}number", self.budget);
            return Err(Error::field("budget", reason));
        }
        if candidates && self.samples > 0 {
            let (budget, samples) = (self.budget as usize, self.samples);
            if budget > samples && budget % samples != 0 {
                let reason = format!(
                    "{budget} candidates are no whole number of iterations of {samples}; give {} \
                     or {}, or other `samples`",
                    budget / samples * samples,
                    budget.div_ceil(samples) * samples
                );
                return Err(Error::field("budget", reason));
            }
        }
        let rounds = self.rounds(0);
        rounds.validate()?;
        for (i, method) in self.methods.iter().enumerate() {
            let named =
                |reason: String| Error::field("methods", format!("{}: {reason}", method.label()));
            if let Some(same) = self.methods[..i].iter().find(|other| *other == method) {
                return Err(named(match same.label() == method.label() {
                    true => "twice".into(),
                    false => format!("the same as {}", same.label()),
                }));
            }
            method
                .settings()
                .validate(&rounds)
                .map_err(|error| match error {
                    Error::Field { field, reason } => named(format!("{field}: {reason}")),
                    other => other,
                })?;
        }
        Ok(())
    }

    /// All rows in the order in which they are computed: whatever is missing at the end of a
    /// killed comparison, the methods have about the same rows.
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        let methods = self.methods.len();
        let seeds = self.first_seed..self.first_seed.saturating_add(self.seeds);
        (0..self.prompts.len()).flat_map(move |prompt| {
            seeds.clone().flat_map(move |seed| {
                (0..methods).map(move |method| Cell {
                    prompt,
                    seed,
                    method,
                })
            })
        })
    }

    /// What the row of a cell is known by.
    fn name(&self, cell: Cell) -> Name<'_> {
        (cell.prompt, cell.seed, self.methods[cell.method].label())
    }

    /// The plan of the rows in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] when its settings cannot be read, [`Error::Field`] when they are none of a
    /// comparison.
    pub fn of(folder: &Path) -> Result<Self> {
        let [path, _, _] = files(folder);
        let text = text::read(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("{}: no comparison's: {error}", path.display());
            Error::field("folders", reason)
        })
    }

    /// The error, with where it came up.
    fn in_cell(&self, cell: Cell, error: Error) -> Error {
        let place = place(self.name(cell));
        match error {
            Error::Reward(reason) => Error::Reward(format!("{place}: {reason}")),
            Error::Engine(reason) => Error::Engine(format!("{place}: {reason}")),
            other => other.in_prompts(cell.prompt),
        }
    }

    /// Samples, iterations and length under `seed`.
    fn rounds(&self, seed: u64) -> Rounds {
        let (samples, iterations) = match self.by {
            By::Candidates => {
                let samples = self.samples.min(self.budget as usize);
                (samples, (self.budget as usize).div_ceil(samples.max(1)))
            }
            // The budget ends it.
            By::Tokens | By::Seconds => (self.samples, u32::MAX as usize),
        };
        Rounds {
            samples,
            iterations,
            seed,
            max_tokens: self.max_tokens,
        }
    }

    fn align_options(&self, cell: Cell) -> AlignOptions {
        AlignOptions {
            method: self.methods[cell.method].clone(),
            rounds: self.rounds(cell.seed),
            budget: match self.by {
                // A candidate is scored once; methods that ask more often get fewer of them.
                By::Candidates => Budget {
                    candidates: Some(self.budget as usize),
                    reward_calls: Some(self.budget as usize),
                    ..Budget::default()
                },
                By::Tokens => Budget {
                    generated_tokens: Some(self.budget as usize),
                    ..Budget::default()
                },
                By::Seconds => Budget {
                    seconds: Some(self.budget),
                    ..Budget::default()
                },
            },
            ..AlignOptions::default()
        }
    }

    fn prompt(&self, index: usize) -> Prompt {
        let text = self.prompts[index].clone();
        match self.chat {
            true => Prompt::user(self.system_prompt.as_deref(), text),
            false => Prompt::Raw(text),
        }
    }

    /// Computes the rows that `store` lacks. `done` is told of every new one, and of every run that
    /// comes to no answer, whose row is its [`Failure`].
    ///
    /// Failures are put down once there is a row behind them, or at the end: a reward that is about
    /// to fail as a whole may fail response by response first, and that is no fault of these runs.
    ///
    /// Answers false when `stop` came first; the rows that are whole are kept.
    ///
    /// # Errors
    /// Those of [`Aligner::align`] that are not of one run alone, and [`Error::Io`] when a row cannot
    /// be written.
    pub fn run(
        &self,
        aligner: &mut Aligner,
        rewards: &mut dyn Rewards,
        coherence: &mut Coherence,
        store: &mut Store,
        stop: &Stop,
        done: &mut dyn FnMut(std::result::Result<&Row, &Failure>),
    ) -> Result<bool> {
        // One context for all prompts, so that no result depends on which came before.
        for prompt in 0..self.prompts.len() {
            let reserved = aligner.reserve(&self.prompt(prompt), self.max_tokens);
            reserved.map_err(|error| error.in_prompts(prompt))?;
        }
        let mut failures: Vec<Failure> = Vec::new();
        for cell in self.cells() {
            if !store.lacks(self, cell) {
                continue;
            }
            if stop.is_requested() {
                return Ok(false);
            }
            let prompt = self.prompt(cell.prompt);
            let options = self.align_options(cell);
            let mut failed = None;
            let aligned = aligner.align(&prompt, rewards, &options, stop, &mut |event| {
                if let EventKind::HeldOutFailed { reason } = &event.kind {
                    failed = Some(reason.clone());
                }
            });
            if let Some(reason) = failed.filter(|_| !stop.is_requested()) {
                return Err(Error::Reward(format!("held-out reward: {reason}")));
            }
            let alignment = match aligned.and_then(Alignment::whole) {
                Ok(alignment) => alignment,
                // Whoever stops it is to blame for what failed meanwhile.
                Err(_) if stop.is_requested() => return Ok(false),
                Err(error) => match Failure::of(self, cell, &error) {
                    None => return Err(self.in_cell(cell, error)),
                    Some(failure) => {
                        done(Err(&failure));
                        failures.push(failure);
                        continue;
                    }
                },
            };
            // A run that was cut short is no row of this plan.
            if alignment.stop == StopReason::Interrupted {
                return Ok(false);
            }
            let coherence = coherence.cosine(&alignment.prompt, &alignment.response)?;
            let row = Row::new(self, cell, &alignment, coherence);
            store.add_failures(failures.drain(..))?;
            store.append(&row)?;
            done(Ok(&row));
        }
        store.add_failures(failures.drain(..))?;
        Ok(true)
    }
}

/// Prompt, seed and method of a row, for a reader.
fn place((prompt, seed, method): Name<'_>) -> String {
    format!("prompt {}, seed {seed}, {method}", prompt + 1)
}

/// The files of a comparison in its folder.
#[must_use]
pub fn files(folder: &Path) -> [PathBuf; 3] {
    ["settings.json", RESULTS, "summary.md"].map(|name| folder.join(name))
}
