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
//! What the question begins with is the same for all candidates of a prompt and decoded
//! once (see [`Reader`]).

mod answers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::answers::Answers;
use super::options::{self, Options};
use super::text::fill;
use super::{
    PROBES, ReadText, Reward, RewardKind, RewardLoader, RewardOption, RewardSource, Sample,
    SampleError, Score, Scores,
};
use crate::error::{Error, Result};
use crate::llama::{
    Attention, ChatOptions, ChatTemplate, Message, Model, Placement, Reader, TextReading, Token,
    tokenize_guarded,
};

/// Asked where no question is given and the answer is yes or no.
const YES_NO_QUESTION: &str = "Here is a request and a reply to it.\n\nRequest:\n{prompt}\n\n\
                               Reply:\n{response}\n\nIs this a good reply? Answer {yes} or {no}.";
/// Asked where no question is given and the answer is a number.
const SCALE_QUESTION: &str = "Here is a request and a reply to it.\n\nRequest:\n{prompt}\n\n\
                              Reply:\n{response}\n\nHow good is this reply, from {low} (useless) \
                              to {high} (perfect)? Answer with the number alone.";
/// Follows the question where the model has no chat template.
const RAW_ANSWER: &str = "\nAnswer:";

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
        options::NGL,
        options::DEV,
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (file, mut options) = Options::parse(&KIND, text)?;
    let scale = options.take("scale", |text| {
        let (low, high) = text.split_once("..").unwrap_or_default();
        match (low.parse(), high.parse()) {
            (Ok(low), Ok(high)) if low < high && high <= 10 => Ok(Verdict::Scale { low, high }),
            _ => Err("must be A..B with 0 <= A < B <= 10".into()),
        }
    })?;
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
    /// How its chat template is rendered.
    pub rendering: ChatOptions,
    /// CPU threads; 0 counts as 1.
    pub threads: usize,
    /// How attention is computed.
    pub attention: Attention,
}

/// A model that is asked for its opinion.
pub struct Judge {
    reader: Reader,
    chat: Option<ChatTemplate>,
    question: String,
    answers: Answers,
}

impl Judge {
    /// Lets `model` judge; it may be the generator itself.
    ///
    /// # Errors
    /// [`Error::Field`] for a question without `{response}`, answers that cannot be told apart, or
    /// that the model does not give; [`Error::Model`] for a model that is no decoder.
    pub fn new(model: Arc<Model>, options: &JudgeOptions) -> Result<Self> {
        let template = model.gguf().chat_template().is_some();
        let chat = match template {
            true => Some(ChatTemplate::new(&model, &options.rendering)?),
            false => None,
        };
        let question = question(options)?;
        let answers = Answers::new(&model, &options.verdict)?;
        let reader = Reader::new(model, options.threads, options.attention)?;
        let mut judge = Self {
            reader,
            chat,
            question,
            answers,
        };
        judge.check_answers(&options.verdict)?;
        Ok(judge)
    }

    /// Refuses answers that the model does not give to two simple questions.
    fn check_answers(&mut self, verdict: &Verdict) -> Result<()> {
        let texts: Result<Vec<Vec<Token>>> = PROBES.iter().map(|probe| self.asked(probe)).collect();
        let readings = self.readings(&texts?)?;
        let of = |reading: &TextReading| {
            let probabilities = self.answers.probabilities(&reading.positions);
            probabilities.iter().sum::<f64>()
        };
        let found = readings.iter().map(of).fold(0.0, f64::max);
        match found < answers::LEAST {
            true => Err(answers::unlikely(self.reader.model(), verdict, found)),
            false => Ok(()),
        }
    }

    /// Tokens of a question, with those behind it whose successors are asked for.
    fn asked(&self, sample: &Sample<'_>) -> Result<Vec<Token>> {
        let mut tokens = self.tokenize(sample)?;
        tokens.extend(self.answers.appended());
        Ok(tokens)
    }

    fn readings(&mut self, texts: &[Vec<Token>]) -> Result<Vec<TextReading>> {
        let positions = 1 + self.answers.appended().len();
        self.reader.read(texts, positions, &self.answers.watched())
    }

    /// Tokens up to where the answer begins; prompt and response stay plain text.
    ///
    /// # Errors
    /// Those of the chat template.
    pub fn tokenize(&self, sample: &Sample<'_>) -> Result<Vec<Token>> {
        let (model, prompt) = (self.reader.model(), sample.transcript());
        match &self.chat {
            Some(chat) => {
                let text = fill(&self.question, &prompt, sample.response);
                chat.tokenize(model, &[Message::new("user", text)], true)
            }
            None => tokenize_guarded(model, &[&prompt, sample.response], |texts| {
                Ok(fill(&self.question, &texts[0], &texts[1]) + RAW_ANSWER)
            }),
        }
    }

    fn read(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let limit = self.reader.capacity();
        let mut texts = Vec::with_capacity(samples.len());
        let mut fits = Vec::with_capacity(samples.len());
        for sample in samples {
            let tokens = self.asked(sample)?;
            let count = tokens.len();
            fits.push((count <= limit).then_some(()).ok_or(SampleError::TooLong {
                tokens: count,
                limit,
            }));
            if count <= limit {
                texts.push(tokens);
            }
        }
        let mut readings = self.readings(&texts)?.into_iter();
        fits.into_iter()
            .map(|fits| match fits {
                Ok(()) => {
                    let read = readings
                        .next()
                        .ok_or_else(|| Error::Engine("a text without logits".into()))?;
                    Ok(Ok(Score {
                        reward: self.answers.reward(&read.positions),
                        tokens: read.decoded,
                        ..Score::default()
                    }))
                }
                Err(error) => Ok(Err(error)),
            })
            .collect()
    }
}

fn question(options: &JudgeOptions) -> Result<String> {
    let (default, names): (&str, [(&str, String); 2]) = match &options.verdict {
        Verdict::YesNo { yes, no } => (
            YES_NO_QUESTION,
            [("{yes}", yes.clone()), ("{no}", no.clone())],
        ),
        Verdict::Scale { low, high } => (
            SCALE_QUESTION,
            [("{low}", low.to_string()), ("{high}", high.to_string())],
        ),
    };
    let mut text = options.question.as_deref().unwrap_or(default).to_owned();
    if !text.contains("{response}") {
        return Err(KIND.refuse(format!("the question {text:?} has no {{response}}")));
    }
    for (name, value) in names {
        text = text.replace(name, &value);
    }
    Ok(text)
}

impl Reward for Judge {
    fn name(&self) -> String {
        format!("judge {}", self.reader.model().path().display())
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        self.read(samples).map_err(Error::in_reward)
    }

    fn reads(&self, sample: &Sample<'_>) -> Result<Vec<ReadText>> {
        let tokens = self.asked(sample)?;
        Ok(vec![ReadText::new(self.reader.model(), tokens)])
    }
}
