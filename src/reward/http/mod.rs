//! A server as the reward: one that scores texts, or a chat model that is asked for a number.
//!
//! | `api` | posted | read |
//! |---|---|---|
//! | `rerank` (llama-server, vLLM, Jina, Cohere) | `query`, `documents`, once for each prompt | `results` or `data`: `index`, `relevance_score` or `score` |
//! | `tei` (text-embeddings-inference) | `query`, `texts` | a list: `index`, `score` |
//! | `classify` (vLLM, SGLang) | `messages`, or `input` and `text` | `data` or a list: `probs` or `embedding` |
//! | `pooling` (vLLM) | `messages`, or `input` | `data`: `data`, of several rows the last |
//! | `chat` (all with an OpenAI-like API) | a question for each response | the first number in the reply, reasoning left out, or what is expected there by its `logprobs` |
//!
//! vLLM and TEI are asked for scores as the head gives them, without a sigmoid.

mod chat;
mod client;
mod lists;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use self::chat::Question;
use self::client::{Client, Failure};
use super::options::Options;
use super::process::spawn_thread;
use super::{
    Answer, Reward, RewardKind, RewardLoader, RewardOption, RewardSource, RewardText, Sample,
    SampleError, Score, Scores, given_up,
};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Its place among the kinds.
pub(super) const KIND: RewardKind = RewardKind {
    name: "http",
    form: "http:URL",
    about: "a server: a reranker or classifier, or a chat model that is asked for a number",
    terms: &[],
    options: &[
        RewardOption::new(
            "api",
            "rerank|tei|classify|pooling|chat",
            "what the server understands [default: rerank]",
        ),
        RewardOption::new("model", "NAME", "the model, for a server that has several"),
        RewardOption::new(
            "key-env",
            "NAME|none",
            "the environment variable with the bearer token [default: OPENAI_API_KEY for a chat server \
             on this machine or by https, if it is set]",
        ),
        RewardOption::new("parallel", "N", "requests at once [default: 1]"),
        RewardOption::new(
            "text",
            "TEXT",
            "what a classifier or pooler is given: {response}, {prompt}\\n{response}, or chat for a \
             conversation [default: chat]",
        ),
        RewardOption::new(
            "class",
            "N",
            "which of several numbers is the reward, from 0 [default: there is one]",
        ),
        RewardOption::new(
            "question",
            "TEXT",
            "what a chat model is asked, with {response} and, if wanted, {prompt} [default: a whole \
             number on the scale]",
        ),
        RewardOption::new(
            "scale",
            "A..B",
            "the numbers that answer, 0 to 10 at most [default: 1..10 without a question, else any]",
        ),
        RewardOption::new(
            "logprobs",
            "N",
            "likeliest tokens that a chat server is asked for, for an expected number on a scale; 0 \
             for none [default: 20]",
        ),
        RewardOption::new(
            "max-tokens",
            "N",
            "most tokens of a chat model's reply, reasoning included [default: 8]",
        ),
        RewardOption::new(
            "timeout",
            "SECONDS",
            "most time for one attempt [default: 30]",
        ),
        RewardOption::new(
            "retries",
            "N",
            "further attempts after a failed connection, a timeout, 429 and 5xx [default: 2]",
        ),
    ],
    parse,
};

fn parse(text: &str) -> Result<Arc<dyn RewardSource>> {
    let (url, mut options) = Options::parse(&KIND, text)?;
    let defaults = HttpOptions::default();
    let api = options.take("api", |text| {
        let api = HttpApi::ALL.iter().find(|api| api.name() == text);
        api.copied().ok_or_else(|| {
            let names: Vec<&str> = HttpApi::ALL.iter().map(HttpApi::name).collect();
            format!("none of {}", names.join(", "))
        })
    })?;
    let parsed = HttpOptions {
        url,
        api: api.unwrap_or(defaults.api),
        model: options.text("model"),
        key_env: options.text("key-env"),
        parallel: options.number("parallel")?.unwrap_or(defaults.parallel),
        text: options.reward_text()?.unwrap_or(defaults.text),
        class: options.number("class")?,
        question: options.line_breaks("question"),
        scale: options.scale()?,
        logprobs: options.number("logprobs")?.unwrap_or(defaults.logprobs),
        timeout: options.seconds("timeout")?.unwrap_or(defaults.timeout),
        retries: options.number("retries")?.unwrap_or(defaults.retries),
        max_tokens: options.number("max-tokens")?.unwrap_or(defaults.max_tokens),
        ..defaults
    };
    options.finish()?;
    Ok(Arc::new(parsed))
}

/// Batches in a row without any answer that end the run.
const MAX_FAILED: usize = 3;

impl RewardSource for HttpOptions {
    fn load(&self, loader: &mut RewardLoader) -> Result<Box<dyn Reward>> {
        let reward = HttpReward::stopping(self.clone(), loader.stop.clone())?;
        Ok(Box::new(reward))
    }
}

/// What the server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpApi {
    /// Scores documents against a query; `/rerank` where the URL has no path.
    Rerank,
    /// The same of Hugging Face's text-embeddings-inference; `/rerank`.
    Tei,
    /// Gives numbers to a text or a conversation; `/classify`.
    Classify,
    /// Gives what a pooler makes of a text or a conversation; `/pooling`.
    Pooling,
    /// Answers a question in words; `/v1/chat/completions`.
    Chat,
}

impl HttpApi {
    const ALL: [Self; 5] = [
        Self::Rerank,
        Self::Tei,
        Self::Classify,
        Self::Pooling,
        Self::Chat,
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Rerank => "rerank",
            Self::Tei => "tei",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Chat => "chat",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Rerank | Self::Tei => "/rerank",
            Self::Classify => "/classify",
            Self::Pooling => "/pooling",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// `http://` or `https://`, host, port, and path; see [`HttpApi`] for the default path. A
    /// server on another machine is asked through the proxy that `HTTPS_PROXY`, `HTTP_PROXY` or
    /// `ALL_PROXY` names, unless `NO_PROXY` does; messages about failures say so.
    pub url: String,
    /// What the server understands; [`HttpApi::Rerank`].
    pub api: HttpApi,
    /// The model, for a server that has several.
    pub model: Option<String>,
    /// Name of the environment variable that holds the bearer token, or `none`. Where none is named,
    /// a [chat](HttpApi::Chat) server on this machine, or by `https://`, gets that of
    /// `OPENAI_API_KEY`, if it is set.
    pub key_env: Option<String>,
    /// Requests at once; 1. The scores do not depend on it.
    pub parallel: usize,
    /// What [`HttpApi::Classify`] and [`HttpApi::Pooling`] are given: a text, or a conversation, which
    /// the server puts into the model's template ([`RewardText::Chat`], the default).
    pub text: RewardText,
    /// Which of several numbers is the reward, from 0; without it there may be one alone.
    pub class: Option<usize>,
    /// The question for a chat model, with `{response}` and, if wanted, `{prompt}`, both of
    /// which are put between lines of `=` signs; `None` asks for a whole number on the scale.
    pub question: Option<String>,
    /// The numbers that answer the question, from 0 to at most 10; `None` is 1 to 10 without a
    /// question of one's own, and any number with one.
    pub scale: Option<RangeInclusive<u32>>,
    /// How many of the likeliest tokens a chat server is asked for at each place (`top_logprobs`), to
    /// make an expectation of a number on a scale; 20, and 0 is none. A server that does not know them,
    /// or refuses them in its first answer, is asked for the number alone.
    pub logprobs: usize,
    /// Most time for one attempt at a request, from the connection to the last byte; 30 s.
    pub timeout: Duration,
    /// Further attempts after a failed connection, a timeout, or one of the HTTP statuses
    /// 429 and 5xx; 2. The pauses grow from 250 ms up, or are as long as the server says
    /// (`Retry-After`), at most 10 s.
    pub retries: usize,
    /// Most tokens of a chat model's reply, its reasoning included; 8. What is longer is no answer.
    pub max_tokens: usize,
    /// Longest answer that is read; 1 MiB.
    pub max_response_bytes: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            api: HttpApi::Rerank,
            model: None,
            key_env: None,
            parallel: 1,
            text: RewardText::Chat,
            class: None,
            question: None,
            scale: None,
            logprobs: 20,
            timeout: Duration::from_secs(30),
            retries: 2,
            max_tokens: 8,
            max_response_bytes: 1 << 20,
        }
    }
}

/// A server that scores responses.
///
/// A response that the server refuses by itself (statuses 400, 408, 413 and 422, as for one that is
/// too long) has no score ([`SampleError`]), and leaves the others theirs; only a server that has
/// never answered anything else ends the run. A server that cannot be reached, or is too busy, costs
/// the batch its scores, and three batches in a row without any answer are an [`Error::Reward`]. So
/// is at once any other refusal (a status below 500 other than 429). Redirects are not followed.
pub struct HttpReward {
    client: Arc<Client>,
    options: HttpOptions,
    question: Question,
    stop: Stop,
    /// Whether the server has ever answered.
    answered: bool,
    /// Batches in a row without any answer.
    failed: usize,
}

/// The samples that one request scores, and what came back.
type Asked = (Vec<usize>, std::result::Result<Vec<u8>, Failure>);

impl HttpReward {
    /// Checks the options; the server is not asked yet.
    ///
    /// # Errors
    /// [`Error::Field`] for an unusable URL, a question without `{response}`, no time, no requests at
    /// once, or a variable without a key.
    pub fn new(options: HttpOptions) -> Result<Self> {
        Self::stopping(options, Stop::new())
    }

    /// The same for a server that is given up, when it is silent, soon after a request on `stop`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn stopping(options: HttpOptions, stop: Stop) -> Result<Self> {
        let question = options.question.clone();
        if question.as_ref().is_some_and(|q| !q.contains("{response}")) {
            return Err(KIND.refuse("the question must contain {response}"));
        }
        if options.parallel == 0 {
            return Err(KIND.refuse("parallel=0: must be at least 1"));
        }
        Ok(Self {
            client: Arc::new(Client::new(&options, options.api.path())?),
            question: Question::new(question, options.scale.clone()),
            options,
            stop,
            answered: false,
            failed: 0,
        })
    }

    fn body(&self, samples: &[Sample<'_>]) -> Value {
        let HttpOptions { api, text, .. } = &self.options;
        let mut body = match api {
            HttpApi::Chat => json!({
                "messages": [{"role": "user", "content": self.question.about(&samples[0])}],
                "temperature": 0,
                "max_tokens": self.options.max_tokens,
            }),
            _ => lists::body(*api, text, samples),
        };
        if let Some(model) = &self.options.model {
            body["model"] = json!(model);
        }
        if self.wants_logprobs() {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(self.options.logprobs);
        }
        body
    }

    fn wants_logprobs(&self) -> bool {
        let HttpOptions { api, logprobs, .. } = self.options;
        api == HttpApi::Chat && logprobs > 0 && self.question.has_scale()
    }

    /// Asks for the samples of each group, several at once. After a failure that the others would
    /// share, they are not asked for.
    fn ask(&self, groups: Vec<Vec<usize>>, samples: &[Sample<'_>]) -> Vec<Asked> {
        let answers: Vec<OnceLock<_>> = groups.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let shared: Mutex<Option<Failure>> = Mutex::new(None);
        let failure = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            while let Some((members, place)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                groups.get(index).zip(answers.get(index))
            } {
                let before = failure().clone();
                let answer = before.map_or_else(
                    || {
                        let own: Vec<Sample<'_>> = members.iter().map(|&i| samples[i]).collect();
                        self.post(self.body(&own))
                    },
                    Err,
                );
                if let Err(now @ (Failure::Down(_) | Failure::Refused(_))) = &answer {
                    failure().get_or_insert_with(|| now.clone());
                }
                let _ = place.set(answer);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.options.parallel.min(groups.len()) {
                scope.spawn(work);
            }
            work();
        });
        let answers = answers.into_iter().filter_map(OnceLock::into_inner);
        groups.into_iter().zip(answers).collect()
    }

    /// Posts on a thread of its own, which is left to itself when the run is to stop.
    fn post(&self, body: Value) -> std::result::Result<Vec<u8>, Failure> {
        let (sender, answer) = sync_channel(1);
        let client = Arc::clone(&self.client);
        spawn_thread("http", move || {
            // Nobody may be waiting for it any more.
            let _ = sender.send(client.post(&body));
        })
        .map_err(|e| Failure::Down(format!("{}: {e}", self.client.shown())))?;
        let silent = |_| Err(Failure::Down("given up".into()));
        self.stop.receive(&answer, None).unwrap_or_else(silent)
    }

    /// Puts what the server said in its place; `Err` is for all samples of the request.
    fn read(
        &self,
        bytes: &[u8],
        members: &[usize],
        answers: &mut [Answer],
    ) -> std::result::Result<(), String> {
        let shown = self.client.shown();
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|_| format!("{shown}: no JSON: {}", self.client.excerpt(bytes)))?;
        let unknown = || format!("{shown}: no scores: {}", self.client.excerpt(bytes));
        let HttpOptions { api, class, .. } = self.options;
        let said = match api {
            HttpApi::Chat => vec![self.number(&value).ok_or_else(unknown)?],
            _ => lists::read(api, &value, members.len(), class).ok_or_else(unknown)?,
        };
        // Where the server counts: a share for each sample.
        let tokens = value["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
        let tokens = usize::try_from(tokens).unwrap_or(0) / members.len().max(1);
        for (&member, said) in members.iter().zip(said) {
            let score = |reward| Score {
                reward,
                tokens,
                ..Score::default()
            };
            answers[member] = said
                .map(score)
                .map_err(|e| SampleError::Other(format!("{shown}: {e}")));
        }
        Ok(())
    }

    /// The number in a chat model's reply; `None` where there is no reply.
    fn number(&self, value: &Value) -> Option<std::result::Result<f64, String>> {
        let choice = &value["choices"][0];
        let reply = chat::answer(choice["message"]["content"].as_str()?);
        let Some(reply) = reply.filter(|_| choice["finish_reason"] != "length") else {
            return Some(Err(format!(
                "the reply was cut off behind {} tokens; give max-tokens=…",
                self.options.max_tokens
            )));
        };
        let number = self.question.number(reply, &choice["logprobs"]);
        Some(number.ok_or_else(|| {
            let reply = self.client.excerpt(reply.as_bytes());
            format!("the reply is no number that was asked for: {reply}")
        }))
    }
}

impl Reward for HttpReward {
    fn name(&self) -> String {
        self.client.shown().to_owned()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        let empty = SampleError::Other("http: an empty response has nothing to score".into());
        let mut answers: Vec<Answer> = vec![Err(empty); samples.len()];
        let mut waiting = match self.options.api {
            HttpApi::Chat => (0..samples.len()).map(|i| vec![i]).collect(),
            api => lists::groups(api, &self.options.text, samples),
        };
        let (mut answered, mut unfit, mut failed) = (false, None, None);
        while !waiting.is_empty() {
            // Until the server has answered something, what it refuses may be the fault of all
            // requests: they go one by one.
            let rest = match self.answered {
                true => Vec::new(),
                false => waiting.split_off(1),
            };
            let asked = std::mem::replace(&mut waiting, rest);
            for (mut members, answer) in self.ask(asked, samples) {
                let reason = match answer {
                    Ok(bytes) => {
                        (answered, self.answered) = (true, true);
                        match self.read(&bytes, &members, &mut answers) {
                            Ok(()) => continue,
                            Err(reason) => reason,
                        }
                    }
                    Err(Failure::Refused(reason)) => return Err(Error::Reward(reason)),
                    Err(Failure::Unfit(_)) if !self.answered && self.wants_logprobs() => {
                        self.options.logprobs = 0;
                        waiting.insert(0, members);
                        continue;
                    }
                    Err(Failure::Unfit(_)) if members.len() > 1 => {
                        waiting.extend(members.into_iter().map(|member| vec![member]));
                        continue;
                    }
                    Err(Failure::Unfit(reason)) => unfit.insert(reason).clone(),
                    Err(failure) => {
                        if let Failure::Down(_) = failure {
                            // Asking on would cost a timeout for each of them.
                            members.extend(waiting.drain(..).flatten());
                        }
                        failed.insert(failure).to_string()
                    }
                };
                for member in members {
                    answers[member] = Err(SampleError::Other(reason.clone()));
                }
            }
        }
        if failed.is_some() && self.stop.is_overdue() {
            return Err(given_up());
        }
        if let Some(reason) = unfit.filter(|_| !self.answered) {
            return Err(Error::Reward(reason));
        }
        self.failed = match &failed {
            Some(_) if !answered => self.failed + 1,
            _ => 0,
        };
        match failed {
            Some(failure) if self.failed >= MAX_FAILED => Err(Error::Reward(format!(
                "{failure} ({} batches in a row without an answer)",
                self.failed
            ))),
            _ => Ok(answers),
        }
    }
}
