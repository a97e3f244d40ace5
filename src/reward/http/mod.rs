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
mod options;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use serde_json::{Value, json};

use self::chat::Question;
pub(crate) use self::client::{Client, Failure};
pub(super) use self::options::KIND;
pub use self::options::{HttpApi, HttpOptions};
use super::process::spawn_thread;
use super::{Answer, Reward, Sample, SampleError, Score, Scores, given_up};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Batches in a row without any answer that end the run.
const MAX_FAILED: usize = 3;

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
