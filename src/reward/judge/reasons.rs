//! What a judge writes before its answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::JudgeOptions;
use crate::error::{Error, Result};
use crate::llama::{Attention, Model, Token};
use crate::rollout::{Form, Job, Rollout, RolloutOptions};

/// The context grows by this many tokens.
const GROWTH: usize = 256;

/// A writer of reasons.
pub(super) struct Reasons {
    model: Arc<Model>,
    threads: usize,
    attention: Attention,
    /// Most tokens.
    most: usize,
    /// Tokens of the line break before the marker, and of the marker.
    close: Vec<Token>,
    form: Form,
    rollout: Option<Rollout>,
}

impl Reasons {
    /// Memory is taken when the first questions come.
    pub(super) fn new(
        model: Arc<Model>,
        most: usize,
        marker: String,
        options: &JudgeOptions,
    ) -> Self {
        Self {
            close: model.tokenize(&format!("\n\n{marker}"), false, false),
            model,
            threads: options.threads,
            attention: options.attention,
            most,
            form: Form {
                stop: vec![marker],
                ..Form::default()
            },
            rollout: None,
        }
    }

    /// Most tokens of what is written, the marker included.
    pub(super) fn longest(&self) -> usize {
        self.most + self.close.len()
    }

    /// The questions with what is written behind them and the marker, in their order, and how many
    /// tokens were read and written for it.
    ///
    /// # Errors
    /// Those of [`Rollout::run`].
    pub(super) fn write(
        &mut self,
        questions: Vec<Vec<Token>>,
    ) -> Result<(Vec<Vec<Token>>, Vec<usize>)> {
        let Some(longest) = questions.iter().map(Vec::len).max() else {
            return Ok((questions, Vec::new()));
        };
        let (most, form) = (self.most, self.form.clone());
        let rollout = self.make_room(longest)?;
        let mut jobs = Vec::with_capacity(questions.len());
        for question in &questions {
            let prompt = rollout.add_prompt_for(question.clone(), form.clone())?;
            jobs.push(Job::new(prompt, most));
        }
        let written = rollout.run(&jobs, &mut |_| ControlFlow::Continue(()));
        jobs.iter()
            .for_each(|job| rollout.forget_prompt(job.prompt));
        let mut counts = Vec::with_capacity(questions.len());
        let mut texts = Vec::with_capacity(questions.len());
        for (mut text, written) in questions.into_iter().zip(written?) {
            let missing = || Error::Engine("a question without reasons".into());
            let written = written.ok_or_else(missing)?;
            counts.push(text.len() + written.tokens.len());
            // The marker is often written in bold, or as a heading.
            let reasons = written.text.trim_end_matches(['*', '#', '_', ' ', '\n']);
            let mut reasons = self.model.tokenize(reasons, false, false);
            reasons.truncate(self.most);
            text.extend(reasons);
            text.extend(&self.close);
            texts.push(text);
        }
        Ok((texts, counts))
    }

    /// A rollout for questions of `longest` tokens, made unless there is one.
    fn make_room(&mut self, longest: usize) -> Result<&mut Rollout> {
        let context = (longest + self.most).next_multiple_of(GROWTH);
        let fits = |made: &Rollout| made.context().options().context >= context;
        let made = match self.rollout.take().filter(fits) {
            Some(made) => made,
            None => {
                let options = RolloutOptions {
                    context,
                    threads: self.threads.max(1),
                    attention: self.attention,
                    ..RolloutOptions::default()
                };
                Rollout::new(Arc::clone(&self.model), &options)?
            }
        };
        Ok(self.rollout.insert(made))
    }
}
