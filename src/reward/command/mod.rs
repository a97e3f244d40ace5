//! Any program as the reward: it is kept running and talks in lines.
//!
//! For every response of a batch the program gets one line of JSON on its stdin,
//! `{"id":0,"prompt":"…","response":"…"}` with ids from 0 up, and prints one line back. Where the
//! prompt is the end of a conversation, or stands behind a system prompt, the line has
//! `"messages":[{"role":"…","content":"…"},…]` too, all of them up to the response.
//!
//! - `1.5`: the reward of the first response that has none yet;
//! - `{"id":0,"reward":1.5}`: in any order; without `"id"` in order, as above;
//! - `{"id":0,"error":"…"}`: this response cannot be scored.
//!
//! NaN (also `null`, and `NaN` inside the JSON, as Python writes it) is a reward that the
//! caller counts as failed. The program has to flush every line, may not wait for the end of
//! its input, and writes nothing else to stdout; its stderr is free.
//!
//! A program that breaks these rules is killed and started anew, once within the batch. See
//! [`CommandReward`] for what becomes of the responses.

mod session;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::session::{Fault, Session};
use super::options::Options;
use super::{
    Answer, Reward, RewardKind, RewardLoader, RewardOption, RewardSource, Sample, SampleError,
    Score, Scores, given_up, process,
};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "command",
    form: "command:COMMAND",
    about: "any program, which is kept running and talks in lines",
    terms: &[],
    options: &[
        RewardOption::new(
            "timeout",
            "SECONDS",
            "most time for the responses of an iteration, its start included [default: 30]",
        ),
        RewardOption::new(
            "restarts",
            "N",
            "how many iterations in a row may fail before the run does [default: 3]",
        ),
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (command, mut options) = Options::parse(&KIND, text)?;
    let defaults = CommandOptions::default();
    let parsed = CommandOptions {
        command,
        timeout: options.seconds("timeout")?.unwrap_or(defaults.timeout),
        restarts: options.number("restarts")?.unwrap_or(defaults.restarts),
    };
    options.finish()?;
    Ok(Arc::new(parsed))
}

impl RewardSource for CommandOptions {
    fn files(&self) -> Vec<&Path> {
        process::files(&self.command)
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let reward = CommandReward::stopping(self.clone(), loader.stop.clone())?;
        Ok(Box::new(reward))
    }
}

/// How often a batch is tried: a program may crash for reasons that have nothing to do with it.
const ATTEMPTS: usize = 2;

/// How a program is run as a reward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOptions {
    /// The command line, for the system's shell (`sh -c`).
    pub command: String,
    /// Most time for one batch, once for each of its two attempts; 30 s. It includes the
    /// start of the program where it has to be started.
    pub timeout: Duration,
    /// How many batches in a row may fail before the reward fails as a whole; 3, and 0
    /// counts as 1.
    pub restarts: usize,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            command: String::new(),
            timeout: Duration::from_secs(30),
            restarts: 3,
        }
    }
}

/// A program that scores responses, kept running from batch to batch.
///
/// It fails a batch by ending, by taking too long, or by printing what is no answer: it and
/// all it has started are killed, and the responses without an answer are given to a new
/// one. What that leaves open gets a [`SampleError`] with the reason and the last lines of
/// stderr. A program that is not found, or fails too many batches in a row, is an
/// [`Error::Reward`].
///
/// Dropping the reward closes the program's stdin, gives it 200 ms to end, and kills it.
pub struct CommandReward {
    options: CommandOptions,
    session: Option<Session>,
    stop: Stop,
    /// Batches that failed in a row.
    failures: usize,
}

impl CommandReward {
    /// Starts the program.
    ///
    /// # Errors
    /// [`Error::Field`] for an empty command or no time, [`Error::Reward`] where the program
    /// cannot be started.
    pub fn new(options: CommandOptions) -> Result<Self> {
        Self::stopping(options, Stop::new())
    }

    /// The same for a program that is given up, when it is silent, soon after a request on `stop`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn stopping(options: CommandOptions, stop: Stop) -> Result<Self> {
        if options.command.trim().is_empty() {
            return Err(KIND.refuse("it is empty"));
        }
        if options.timeout.is_zero() {
            return Err(KIND.refuse("the timeout must be above 0"));
        }
        let mut reward = Self {
            options,
            session: None,
            stop,
            failures: 0,
        };
        let session = Session::start(&reward.options.command, &reward.stop);
        let mut session = session.map_err(|e| reward.fatal(e.to_string()))?;
        // Better now than after the models were loaded.
        if let Some(fault) = session.missing_program() {
            return Err(reward.fatal(fault.to_string()));
        }
        reward.session = Some(session);
        Ok(reward)
    }

    fn fatal(&self, reason: String) -> Error {
        Error::Reward(format!("command `{}`: {reason}", self.options.command))
    }

    /// Counts a failed batch.
    fn failed(&mut self, reason: &str) -> Result<()> {
        self.failures += 1;
        if self.failures < self.options.restarts.max(1) {
            return Ok(());
        }
        Err(self.fatal(format!(
            "failed {} times in a row, the last: {reason}",
            self.failures
        )))
    }

    /// The running program, or a new one, gets the samples without an answer.
    fn attempt(
        &mut self,
        samples: &[Sample<'_>],
        answers: &mut [Option<Answer>],
    ) -> std::result::Result<(), Fault> {
        let deadline = Instant::now().checked_add(self.options.timeout);
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::start(&self.options.command, &self.stop)
                .map_err(|e| Fault::Failed(format!("cannot start: {e}")))?,
        };
        let Err(fault) = session.ask(samples, answers, deadline) else {
            self.session = Some(session);
            return Ok(());
        };
        if let Fault::TooMany(_) = fault {
            // Nobody can tell which of the lines were meant for what.
            answers.fill_with(|| None);
        }
        Err(fault)
    }
}

impl Reward for CommandReward {
    fn name(&self) -> String {
        self.options.command.clone()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        if let Some(session) = &mut self.session {
            // A batch has succeeded once the next one finds nothing left over: only then may
            // failures be forgotten, or a program with too many lines would go on for ever.
            if let Err(fault) = session.nothing_left_over(Duration::ZERO) {
                self.session = None;
                self.failed(&fault.to_string())?;
            } else {
                self.failures = 0;
            }
        }
        let mut answers = vec![None; samples.len()];
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            if answers.iter().all(Option::is_some) {
                break;
            }
            match self.attempt(samples, &mut answers) {
                Ok(()) => {}
                Err(Fault::NotFound(reason)) => return Err(self.fatal(reason)),
                Err(Fault::Stopped) => return Err(given_up()),
                Err(fault) => last = fault.to_string(),
            }
        }
        if answers.iter().any(Option::is_none) {
            self.failed(&last)?;
        }
        let unanswered = || Err(SampleError::Other(format!("command: {last}")));
        Ok(answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(unanswered))
            .collect())
    }
}
