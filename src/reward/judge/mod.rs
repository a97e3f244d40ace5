//! Any instruct model as the reward: it is asked a question about (prompt, response), and
//! the reward is read off the logits of its first answer token, not off sampled text.
//!
//! - yes/no: ln p(yes) − ln p(no), in nats; the log-odds of the two answers.
//! - a scale a..b (within 0..10): Σ k·p(k) / Σ p(k) over the whole numbers k of the scale.
//!   Where "10" takes two tokens, p(10) = p("1")·p("0" | "1") and p(1) is the rest of p("1").
//!
//! p is that of an answer in its usual spellings, Yes, yes, YES, with and without a space before it;
//! where the space is a token of its own, p(space)·p(answer | space) is a part of it. A model whose
//! answers are others nearly always is refused when it is loaded. It is asked not to think.
//!
//! With `reason=N` the judge first writes up to N tokens of its own, its most probable ones, of all
//! candidates side by side; where it comes to the marker, or to its end, the marker is put there, and
//! the answer is read behind it in the same way.
//!
//! What the question begins with is the same for all candidates of a prompt and, where it is read,
//! decoded once (see [`Reader`](crate::llama::Reader)); where it is written behind, once for each
//! candidate.

mod answers;
mod asker;
mod reasons;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use self::asker::Asker;
use self::reasons::Reasons;
use super::options::{self, Options};
use super::{
    PROBES, ReadText, Reward, RewardKind, RewardLoader, RewardOption, RewardSource, Sample,
    SampleError, Scores,
};
use crate::error::{Error, Result};
use crate::llama::{Attention, ChatOptions, Model, Placement, Token};

/// What stands before a question about a reply.
pub(super) const REPLY: &str =
    "Here is a request and a reply to it.\n\nRequest:\n{prompt}\n\nReply:\n{response}\n\n";
/// Asked where no question is given and the answer is yes or no.
const YES_NO: &str = "Is this a good reply?";
/// How it is to be answered.
const YES_NO_ANSWER: &str = "Answer {yes} or {no}.";
/// Asked where no question is given and the answer is a number.
const SCALE: &str = "How good is this reply, from {low} (useless) to {high} (perfect)?";
/// How it is to be answered.
const SCALE_ANSWER: &str = "Answer with the number alone.";
/// How any question is to be answered with reasons; the answer follows.
const REASONS: &str = "First say in a few sentences what speaks for the reply and what against it. \
                       Then write \"{marker}\" and ";

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "judge",
    form: "judge:FILE|self",
    about: "any model, or the generator itself, asked about the response",
    terms: &[],
    options: &[
        RewardOption::new(
            "question",
            "TEXT",
            "what it is asked, with {response} and, if wanted, {prompt}; \\n is a line break [default: \
             whether the reply is good, or how good]",
        ),
        RewardOption::new(
            "yes",
            "WORD",
            "the good answer, beside no=WORD [default: Yes]",
        ),
        RewardOption::new(
            "no",
            "WORD",
            "the bad answer; the reward is ln p(yes) − ln p(no) [default: No]",
        ),
        RewardOption::new(
            "scale",
            "A..B",
            "a whole number instead, 0 to 10 at most; the reward is the expected one",
        ),
        RewardOption::new(
            "reason",
            "N",
            "most tokens that it writes before its answer [default: 0]",
        ),
        RewardOption::new(
            "marker",
            "TEXT",
            "what stands between them and the answer [default: the word Verdict:]",
        ),
        options::NGL,
        options::DEV,
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let scale = options.scale()?.map(|scale| Verdict::Scale {
        low: *scale.start(),
        high: *scale.end(),
    });
    let words = (options.text("yes"), options.text("no"));
    let verdict = match (scale, words) {
        (Some(scale), (None, None)) => scale,
        (None, (None, None)) => Verdict::default(),
        (None, (Some(yes), Some(no))) => Verdict::YesNo { yes, no },
        _ => return Err(KIND.refuse("give yes=… and no=… together, or scale=A..B alone")),
    };
    let parsed = JudgeOptions {
        rendering: ChatOptions::default(),
        question: options.line_breaks("question"),
        verdict,
        reason: options.number("reason")?.unwrap_or(0),
        marker: options.line_breaks("marker"),
        threads: 0,
        attention: Attention::default(),
    };
    let placement = options.placement()?;
    options.finish()?;
    let file = (file != "self").then(|| file.into());
    Ok(Arc::new(JudgeSource(file, parsed, placement)))
}

/// A judge by its file; without one the generator judges.
#[derive(Debug)]
struct JudgeSource(Option<PathBuf>, JudgeOptions, Placement);

impl RewardSource for JudgeSource {
    fn files(&self) -> Vec<&Path> {
        self.0.iter().map(PathBuf::as_path).collect()
    }

    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let model = loader.open_or_self(&KIND, self.0.as_deref(), &self.2)?;
        let options = JudgeOptions {
            threads: loader.threads,
            attention: loader.attention,
            rendering: loader.chat.of_any_model(),
            ..self.1.clone()
        };
        Ok(Box::new(Judge::new(model, &options)?))
    }
}

/// Which answers count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Two words; only the first token of each spelling is looked at.
    YesNo {
        /// The good answer.
        yes: String,
        /// The bad answer.
        no: String,
    },
    /// A whole number from `low` to `high`, at most 10.
    Scale {
        /// The worst.
        low: u32,
        /// The best.
        high: u32,
    },
}

impl Default for Verdict {
    fn default() -> Self {
        Self::YesNo {
            yes: "Yes".into(),
            no: "No".into(),
        }
    }
}

/// How a judge asks.
#[derive(Clone, Debug, Default)]
pub struct JudgeOptions {
    /// The question, with `{response}` and, if wanted, `{prompt}`; `None` asks whether (or
    /// how far) the response is a good reply.
    pub question: Option<String>,
    /// Which answers count.
    pub verdict: Verdict,
    /// Most tokens that the judge writes before its answer; 0, the default, asks for the answer at
    /// once.
    pub reason: usize,
    /// What stands between them and the answer; `None` is `Verdict:`.
    pub marker: Option<String>,
    /// How its chat template is rendered.
    pub rendering: ChatOptions,
    /// CPU threads; 0 counts as 1.
    pub threads: usize,
    /// How attention is computed.
    pub attention: Attention,
}

/// A model that is asked for its opinion.
pub struct Judge {
    asker: Asker,
    question: String,
    reasons: Option<Reasons>,
}

impl Judge {
    /// Lets `model` judge; it may be the generator itself.
    ///
    /// # Errors
    /// [`Error::Field`] for a question without `{response}`, answers that cannot be told apart, or
    /// that the model does not give; [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, options: &JudgeOptions) -> Result<Self> {
        let marker = options.marker.clone().unwrap_or_else(|| "Verdict:".into());
        if options.marker.is_some() && options.reason == 0 {
            return Err(KIND.refuse("marker=… stands behind reasons; give reason=N too"));
        }
        if marker.trim().is_empty() {
            return Err(KIND.refuse("marker= is empty; leave it out, or give a text"));
        }
        let question = question(options, &marker)?;
        let reasons = match options.reason {
            0 => None,
            most => Some(Reasons::new(Arc::clone(&model), most, marker, options)),
        };
        let mut judge = Self {
            asker: Asker::new(&KIND, model, options)?,
            question,
            reasons,
        };
        // Answers that the model does not give to two simple questions are refused.
        let probes: Result<Vec<Vec<Token>>> = PROBES.iter().map(|p| judge.tokenize(p)).collect();
        let (probes, _) = judge.reasoned(probes?)?;
        judge.asker.check(&probes)?;
        Ok(judge)
    }

    /// Tokens up to where the answer, or what the judge writes before it, begins; prompt and response
    /// stay plain text.
    ///
    /// # Errors
    /// Those of the chat template.
    pub fn tokenize(&self, sample: &Sample<'_>) -> Result<Vec<Token>> {
        let prompt = sample.transcript();
        let texts = [("{response}", sample.response), ("{prompt}", &*prompt)];
        self.asker.tokenize(&self.question, &texts)
    }

    /// The questions with what the judge writes behind them, and how many tokens it took to write it.
    fn reasoned(&mut self, questions: Vec<Vec<Token>>) -> Result<(Vec<Vec<Token>>, Vec<usize>)> {
        match &mut self.reasons {
            None => {
                let none = vec![0; questions.len()];
                Ok((questions, none))
            }
            Some(reasons) => reasons.write(questions),
        }
    }

    fn read(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let behind = self.reasons.as_ref().map_or(0, Reasons::longest);
        let limit = self.asker.limit().saturating_sub(behind);
        let mut questions = Vec::with_capacity(samples.len());
        let mut fits = Vec::with_capacity(samples.len());
        for sample in samples {
            let question = self.tokenize(sample)?;
            let tokens = question.len();
            let fit = tokens <= limit;
            fits.push(
                fit.then_some(())
                    .ok_or(SampleError::TooLong { tokens, limit }),
            );
            if fit {
                questions.push(question);
            }
        }
        let (questions, written) = self.reasoned(questions)?;
        let scores = self.asker.ask(&questions)?;
        let mut scores = scores.into_iter().zip(written);
        fits.into_iter()
            .map(|fits| match fits {
                Ok(()) => {
                    let missing = || Error::Engine("a text without logits".into());
                    let (mut score, written) = scores.next().ok_or_else(missing)?;
                    score.tokens += written;
                    Ok(Ok(score))
                }
                Err(error) => Ok(Err(error)),
            })
            .collect()
    }
}

fn question(options: &JudgeOptions, marker: &str) -> Result<String> {
    let (asked, answer, names): (&str, &str, [(&str, String); 2]) = match &options.verdict {
        Verdict::YesNo { yes, no } => (
            YES_NO,
            YES_NO_ANSWER,
            [("{yes}", yes.clone()), ("{no}", no.clone())],
        ),
        Verdict::Scale { low, high } => (
            SCALE,
            SCALE_ANSWER,
            [("{low}", low.to_string()), ("{high}", high.to_string())],
        ),
    };
    let mut text = match (&options.question, &options.verdict) {
        (Some(own), _) => own.clone(),
        (None, _) if options.reason == 0 => format!("{REPLY}{asked} {answer}"),
        (None, Verdict::YesNo { .. }) => format!("{REPLY}{asked} {REASONS}{{yes}} or {{no}}."),
        (None, Verdict::Scale { .. }) => format!("{REPLY}{asked} {REASONS}the number."),
    };
    if !text.contains("{response}") {
        return Err(KIND.refuse(format!("the question {text:?} has no {{response}}")));
    }
    for (name, value) in names {
        text = text.replace(name, &value);
    }
    Ok(text.replace("{marker}", marker))
}

impl Reward for Judge {
    fn name(&self) -> String {
        format!("judge {}", self.asker.model().path().display())
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        self.read(samples).map_err(Error::in_reward)
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        let tokens = self.tokenize(sample)?;
        Ok(vec![ReadText::new(self.asker.model(), tokens)])
    }
}
