//! Answers as they are sent: OpenAI's objects, with llama-server's `timings` and our `aisp` beside.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::asks::{Ask, Shape};
use super::engine::News;
use super::failure::Failure;
use super::watch::{Seat, Watch};
use crate::align::{Alignment, EventKind, ScoredCandidate};
use crate::error::{Error, Result as Outcome};
use crate::llama::Model;
use crate::rollout::End;

/// What stands where OpenAI has the version of its servers.
pub(super) const FINGERPRINT: &str = concat!("aisp-llama-", env!("CARGO_PKG_VERSION"));

/// A request that is over, with what there is to say of it.
pub(super) struct Finished {
    /// The answers, the best first.
    pub(super) choices: Vec<ScoredCandidate>,
    /// What the model thought before them.
    pub(super) reasoning: Option<String>,
    /// Tokens of everything that was generated.
    tokens: usize,
    /// The run; a plain answer without a text has none.
    run: Option<Alignment>,
    /// Seconds to the first token, and from there on.
    seconds: (f64, f64),
}

/// Waits for the end of a request.
pub(super) async fn finished(
    ask: &Ask,
    watch: &Watch,
    news: &mut UnboundedReceiver<News>,
) -> Result<Finished, Failure> {
    let mut end = Ending::default();
    loop {
        let next = news.recv().await.ok_or_else(gone)?;
        if let Some(result) = end.take(next) {
            return end.finish(ask, watch, result);
        }
    }
}

/// The engine is not there any more.
pub(super) fn gone() -> Failure {
    Failure::internal("the engine has ended")
}

/// What is kept of the news for the end.
#[derive(Default)]
pub(super) struct Ending {
    candidates: Vec<ScoredCandidate>,
    reasoning: Option<String>,
}

impl Ending {
    /// Takes news; how the request came out, where that was the end.
    pub(super) fn take(&mut self, news: News) -> Option<Outcome<Alignment>> {
        match news {
            News::Done(result) => return Some(*result),
            News::Event(kind) => {
                if let EventKind::CandidateScored(candidate) = *kind {
                    self.candidates.push(candidate);
                }
            }
            News::Reasoning(text) => self.reasoning = Some(text),
            News::Text(_) => {}
        }
        None
    }

    pub(super) fn finish(
        mut self,
        ask: &Ask,
        watch: &Watch,
        result: Outcome<Alignment>,
    ) -> Result<Finished, Failure> {
        let run = match result {
            Ok(run) => Some(run),
            // An answer without a text is one, where nobody looks for another.
            Err(Error::Run(_) | Error::Unscored(_)) if !self.candidates.is_empty() => None,
            Err(error) => return Err(error.into()),
        };
        let choices = match ask.is_plain() {
            true => {
                self.candidates.sort_by_key(|candidate| candidate.candidate);
                self.candidates
            }
            false => run
                .as_ref()
                .map_or(Vec::new(), |run| best(run, ask.choices)),
        };
        let generated = || choices.iter().map(|c| c.tokens).sum();
        let tokens = run.as_ref().map_or_else(generated, |run| {
            run.usage.generated_tokens + run.usage.reasoning_tokens
        });
        let first = watch
            .first
            .get()
            .map_or(0.0, |at: &Instant| at.elapsed().as_secs_f64());
        let whole = run.as_ref().map_or(first, |run| run.timings.total_seconds);
        Ok(Finished {
            reasoning: match &run {
                Some(run) => run.reasoning.clone(),
                None => self.reasoning,
            },
            choices,
            tokens,
            run,
            seconds: ((whole - first).max(0.0), first),
        })
    }
}

/// The answers to several prompts as one: their choices one behind the other.
pub(super) fn joined(bodies: Vec<Value>) -> Value {
    let mut bodies = bodies.into_iter();
    let mut all = bodies.next().unwrap_or_default();
    for body in bodies {
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            let of = |body: &Value| body["usage"][count].as_u64().unwrap_or(0);
            all["usage"][count] = (of(&all) + of(&body)).into();
        }
        let details = |body: &Value| {
            let details = &body["usage"]["completion_tokens_details"];
            details["reasoning_tokens"].as_u64().unwrap_or(0)
        };
        let both = details(&all) + details(&body);
        all["usage"]["completion_tokens_details"]["reasoning_tokens"] = both.into();
        let known = all["choices"].as_array().map_or(0, Vec::len);
        let more = body["choices"].as_array().cloned().unwrap_or_default();
        for (index, mut choice) in more.into_iter().enumerate() {
            choice["index"] = (known + index).into();
            if let Some(choices) = all["choices"].as_array_mut() {
                choices.push(choice);
            }
        }
    }
    all
}

/// The `count` best candidates of different texts: the answer, then the others by their place.
fn best(run: &Alignment, count: usize) -> Vec<ScoredCandidate> {
    let is_answer = |c: &&ScoredCandidate| c.text == run.response && c.reward == Some(run.reward);
    let answer = run.candidates.iter().find(is_answer);
    let others = run.candidates.iter().filter(|c| c.reward.is_some());
    let mut choices: Vec<ScoredCandidate> = Vec::new();
    for candidate in answer.into_iter().chain(others) {
        if choices.len() < count && choices.iter().all(|c| c.text != candidate.text) {
            choices.push(candidate.clone());
        }
    }
    choices
}

/// Which answer it is. Of plain ones each has its place, whether those before it were finished or not.
pub(super) fn index_of(ask: &Ask, place: usize, choice: &ScoredCandidate) -> usize {
    match ask.is_plain() {
        true => choice.candidate,
        false => place,
    }
}

/// What is known of an answer.
pub(super) fn told(ask: &Ask, choice: &ScoredCandidate) -> Value {
    match ask.is_plain() {
        true => json!({"price": choice.price}),
        false => json!({
            "reward": choice.reward,
            "held_out": choice.held_out,
            "price": choice.price,
            "iteration": choice.iteration,
            "candidate": choice.candidate,
        }),
    }
}

/// Why an answer ended, in OpenAI's words.
pub(super) fn finish_reason(end: End) -> &'static str {
    match end {
        End::Length | End::Stopped => "length",
        End::EndOfTurn | End::StopText | End::Stuck | End::GivenUp => "stop",
    }
}

impl Finished {
    /// What it took: all tokens that were generated, and how many of those are no part of an answer.
    pub(super) fn usage(&self, ask: &Ask) -> Value {
        let prompt = ask.prompt.opened.tokens.len();
        let answers: usize = self.choices.iter().map(|choice| choice.tokens).sum();
        let completion = self.tokens.max(answers);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": completion - answers},
        })
    }

    /// How fast it was, as llama-server tells it.
    pub(super) fn timings(&self, ask: &Ask) -> Value {
        let (prompt, predicted) = self.seconds;
        let read = ask.prompt.opened.tokens.len();
        let rate = |tokens: usize, seconds: f64| tokens as f64 / seconds.max(1e-9);
        json!({
            "cache_n": 0,
            "prompt_n": read,
            "prompt_ms": prompt * 1e3,
            "prompt_per_second": rate(read, prompt),
            "predicted_n": self.tokens,
            "predicted_ms": predicted * 1e3,
            "predicted_per_second": rate(self.tokens, predicted),
        })
    }

    /// The run as `--json` prints it; nothing of a plain answer.
    pub(super) fn aisp(&self, ask: &Ask) -> Option<Value> {
        let run = self.run.as_ref().filter(|_| !ask.is_plain())?;
        let mut shown = run.clone();
        shown.candidates.truncate(ask.shown);
        serde_json::to_value(shown).ok()
    }

    /// The tokens of a choice with how probable they are, where that is wanted.
    pub(super) fn logprobs(
        &self,
        ask: &Ask,
        watch: &Watch,
        model: &Model,
        index: usize,
    ) -> Option<Vec<Value>> {
        ask.logprobs?;
        let choice = self.choices.get(index)?;
        let seat: Seat = (choice.iteration, choice.candidate);
        Some(watch.entries(model, seat, 0))
    }

    /// The object of `/v1/chat/completions` and `/v1/completions`.
    pub(super) fn body(&self, ask: &Ask, watch: &Watch, model: &Arc<Model>) -> Value {
        let choices = self.choices.iter().enumerate().map(|(place, choice)| {
            let entries = self.logprobs(ask, watch, model, place);
            let mut one = json!({
                "index": index_of(ask, place, choice),
                "finish_reason": finish_reason(choice.end),
                "logprobs": entries.map(|entries| json!({"content": entries})),
            });
            let reasoning = self.reasoning_of(choice);
            match ask.shape {
                Shape::Chat => {
                    one["message"] = json!({"role": "assistant", "content": choice.text});
                    if let Some(reasoning) = reasoning {
                        one["message"]["reasoning_content"] = reasoning.into();
                    }
                }
                Shape::Text | Shape::Native => one["text"] = choice.text.clone().into(),
            }
            one["aisp"] = told(ask, choice);
            one
        });
        let mut body = json!({
            "id": ask.id,
            "object": match ask.shape {
                Shape::Chat => "chat.completion",
                Shape::Text | Shape::Native => "text_completion",
            },
            "created": ask.created,
            "model": ask.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices.collect::<Vec<_>>(),
            "usage": self.usage(ask),
            "timings": self.timings(ask),
        });
        if let Some(aisp) = self.aisp(ask) {
            body["aisp"] = aisp;
        }
        body
    }

    /// What was thought before a choice.
    pub(super) fn reasoning_of(&self, choice: &ScoredCandidate) -> Option<String> {
        choice.reasoning.clone().or_else(|| self.reasoning.clone())
    }

    /// llama-server's own object of `/completion`.
    pub(super) fn native(&self, ask: &Ask, watch: &Watch, model: &Model, index: usize) -> Value {
        let rounds = &ask.options.rounds;
        let empty = (String::new(), 0, End::Stopped);
        let first = self.choices.first();
        let (text, tokens, end) = first.map_or(empty, |c| (c.text.clone(), c.tokens, c.end));
        let mut body = json!({
            "index": index,
            "content": text,
            "tokens": [],
            "stop": true,
            "model": ask.model,
            "tokens_predicted": tokens,
            "tokens_evaluated": ask.prompt.opened.tokens.len(),
            "tokens_cached": 0,
            "truncated": false,
            "has_new_line": text.contains('\n'),
            "prompt": ask.prompt.seen.text(),
            "generation_settings": {
                "seed": rounds.seed,
                "n_predict": rounds.max_tokens,
                "stop": ask.options.form.stop,
                "sampling": ask.options.method.all(),
            },
            "stop_type": match end {
                End::EndOfTurn | End::Stuck | End::GivenUp => "eos",
                End::StopText => "word",
                End::Length | End::Stopped => "limit",
            },
            "stopping_word": "",
            "timings": self.timings(ask),
        });
        if let Some(entries) = self.logprobs(ask, watch, model, 0) {
            body["completion_probabilities"] = entries.into();
        }
        body
    }
}
