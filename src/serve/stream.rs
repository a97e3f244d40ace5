//! Answers as they come, in the one shape of server-sent events that the usual clients survive: no
//! named events, and a choice in every chunk but that of the usage, which comes only where it is
//! asked for. The search is shown as reasoning, an iteration a line.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::answers::{Ending, FINGERPRINT, Finished, finish_reason, gone, index_of, told};
use super::asks::{Ask, Shape};
use super::deltas::rest;
use super::engine::{Delta, News};
use super::failure::Failure;
use super::watch::{Seat, Watch};
use super::{App, Submitted};
use crate::align::{EventKind, IterationStats};
use crate::error::Result as Outcome;
use crate::llama::Model;
use crate::stop::Stop;

/// Silence after which a comment says that the connection is alive.
const PING: Duration = Duration::from_secs(10);

/// Marks a request as left when it is dropped: its client has gone, or has its answer.
pub(super) struct Leaving {
    pub(super) app: Arc<App>,
    pub(super) id: String,
    pub(super) left: Arc<AtomicBool>,
    pub(super) stop: Stop,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // What is in the middle of something long hears this alone.
        self.stop.request();
        self.left.store(true, Ordering::Relaxed);
        self.app.running().remove(&self.id);
    }
}

/// The body of a stream.
struct Events {
    lines: UnboundedReceiver<Bytes>,
    _leaving: Leaving,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = self.lines.poll_recv(context);
        next.map(|line| line.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Answers with a stream of what becomes of a request.
pub(super) fn respond(ask: Ask, (watch, news, leaving): Submitted) -> Response {
    let (out, lines) = unbounded_channel();
    let model = Arc::clone(&leaving.app.model);
    let writer = Writer {
        told: vec![(0, 0, 0); ask.choices.max(1)],
        best: None,
        iterations: ask.options.rounds.iterations,
        ask,
        watch,
        model,
        out,
    };
    tokio::spawn(writer.write(news));
    let mut response = Response::new(Body::new(Events {
        lines,
        _leaving: leaving,
    }));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A proxy that collects the answer would hide its progress.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Writer {
    ask: Ask,
    watch: Arc<Watch>,
    model: Arc<Model>,
    out: UnboundedSender<Bytes>,
    /// Of each choice: bytes of its text and of its reasoning, and tokens with their probabilities,
    /// that were sent.
    told: Vec<(usize, usize, usize)>,
    /// The best reward so far.
    best: Option<f64>,
    iterations: usize,
}

impl Writer {
    async fn write(mut self, mut news: UnboundedReceiver<News>) {
        if self.ask.shape == Shape::Chat {
            for index in 0..self.first() {
                self.delta(
                    index,
                    json!({"role": "assistant", "content": ""}),
                    None,
                    Map::new(),
                );
            }
        }
        let mut ending = Ending::default();
        let client = self.out.clone();
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(PING, news.recv()) => next,
                () = client.closed() => return,
            };
            let next = match next {
                Ok(Some(next)) => next,
                Ok(None) => return self.fail(&gone()),
                Err(_) => {
                    self.send(": ping\n\n".into());
                    continue;
                }
            };
            self.tell(&next);
            if let Some(result) = ending.take(next) {
                return self.end(ending, result);
            }
        }
    }

    /// Choices that are known from the beginning.
    fn first(&self) -> usize {
        match self.ask.is_plain() {
            true => self.ask.choices,
            false => 1,
        }
    }

    fn tell(&mut self, news: &News) {
        match news {
            News::Text(delta) => self.text(delta),
            News::Reasoning(text) => self.reasoning(0, text, Map::new()),
            News::Done(_) => {}
            News::Event(kind) => {
                if let EventKind::RunStarted { iterations, .. } = **kind {
                    self.iterations = iterations;
                }
                let line = match &**kind {
                    EventKind::IterationDone(stats) => self.line(stats),
                    EventKind::RewardParts {
                        parts,
                        decisive: Some(part),
                    } => {
                        let name = &parts[*part].part.name;
                        format!("{name} decides everything; reward_scale evens the parts out\n")
                    }
                    EventKind::HeldOutFailed { reason } => {
                        format!("the held-out reward failed: {reason}\n")
                    }
                    _ => return,
                };
                let event = serde_json::to_value(kind).unwrap_or_default();
                self.reasoning(0, &line, Map::from_iter([("aisp".into(), event)]));
            }
        }
    }

    /// `3/8  best 1.25  +0.31`, what the iteration has gained last.
    fn line(&mut self, stats: &IterationStats) -> String {
        let mut line = format!("{}/{}", stats.index + 1, self.iterations);
        match stats.best_reward {
            Some(best) => line += &format!("  best {best:.2}"),
            None => line += "  no reward yet",
        }
        if let (Some(best), Some(before)) = (stats.best_reward, self.best) {
            line += &format!("  {:+.2}", best - before);
        }
        if let Some(held_out) = stats.held_out_best {
            line += &format!("  held-out {held_out:.2}");
        }
        self.best = stats.best_reward.or(self.best);
        line + "\n"
    }

    fn text(&mut self, delta: &Delta) {
        let Some(told) = self.told.get_mut(delta.index) else {
            return;
        };
        told.0 += delta.content.len();
        told.1 += delta.reasoning.len();
        if !delta.reasoning.is_empty() {
            self.reasoning(delta.index, &delta.reasoning, Map::new());
        }
        if !delta.content.is_empty() {
            self.content(delta.index, &delta.content, delta.tokens, (0, delta.index));
        }
    }

    fn content(&mut self, index: usize, text: &str, tokens: usize, seat: Seat) {
        let mut of_choice = Map::new();
        if self.ask.logprobs.is_some() {
            let told = &mut self.told[index].2;
            let entries = self.watch.entries(&self.model, seat, *told);
            *told += entries.len();
            of_choice.insert("logprobs".into(), json!({"content": entries}));
        }
        match self.ask.shape {
            Shape::Chat => {
                let delta = json!({"content": text});
                self.choice(index, delta, None, of_choice, Map::new());
            }
            Shape::Text => {
                of_choice.insert("text".into(), text.into());
                self.choice(index, Value::Null, None, of_choice, Map::new());
            }
            Shape::Native => self.event(&json!({
                "index": index,
                "content": text,
                "tokens": [],
                "stop": false,
                "tokens_predicted": tokens,
                "tokens_evaluated": self.ask.prompt.opened.tokens.len(),
            })),
        }
    }

    fn reasoning(&self, index: usize, text: &str, more: Map<String, Value>) {
        match self.ask.shape {
            Shape::Chat => self.delta(index, json!({"reasoning_content": text}), None, more),
            // There is no place for it; what happens is told all the same.
            Shape::Text if !more.is_empty() => self.delta(index, Value::Null, None, more),
            Shape::Text | Shape::Native => {}
        }
    }

    fn end(mut self, ending: Ending, result: Outcome<crate::Alignment>) {
        let finished = match ending.finish(&self.ask, &self.watch, result) {
            Ok(finished) => finished,
            Err(failure) => return self.fail(&failure),
        };
        if self.ask.shape == Shape::Native {
            return self.end_native(&finished);
        }
        for (place, choice) in finished.choices.iter().enumerate() {
            let index = index_of(&self.ask, place, choice);
            let (mut content, mut reasoning, _) = self.told.get(index).copied().unwrap_or_default();
            // What was thought before all answers was told when it came.
            let own = choice.reasoning.as_deref().filter(|_| self.ask.is_plain());
            let thought = rest(own.unwrap_or_default(), &mut reasoning);
            if !thought.is_empty() {
                self.reasoning(index, &thought, Map::new());
            }
            let text = rest(&choice.text, &mut content);
            let seat = (choice.iteration, choice.candidate);
            if !text.is_empty() || self.ask.logprobs.is_some() {
                self.content(index, &text, choice.tokens, seat);
            }
        }
        // Of plain answers some may have been cut short, and are not among the others.
        for index in (0..self.first()).filter(|_| self.ask.is_plain()) {
            if finished
                .choices
                .iter()
                .all(|choice| choice.candidate != index)
            {
                self.delta(index, json!({}), Some("length"), Map::new());
            }
        }
        let last = finished.choices.len().saturating_sub(1);
        for (place, choice) in finished.choices.iter().enumerate() {
            let mut more = Map::new();
            if place == last {
                more.insert("timings".into(), finished.timings(&self.ask));
                more.extend(finished.aisp(&self.ask).map(|run| ("aisp".into(), run)));
            }
            let index = index_of(&self.ask, place, choice);
            let of_choice = Map::from_iter([("aisp".into(), told(&self.ask, choice))]);
            let reason = Some(finish_reason(choice.end));
            self.choice(index, json!({}), reason, of_choice, more);
        }
        if self.ask.usage {
            let mut chunk = self.chunk();
            chunk["choices"] = json!([]);
            chunk["usage"] = finished.usage(&self.ask);
            chunk["timings"] = finished.timings(&self.ask);
            self.event(&chunk);
        }
        self.send("data: [DONE]\n\n".into());
    }

    fn end_native(&self, finished: &Finished) {
        let mut told = self.told.first().copied().unwrap_or_default().0;
        let mut body = finished.native(&self.ask, &self.watch, &self.model, 0);
        let text = finished.choices.first().map_or("", |choice| &choice.text);
        body["content"] = rest(text, &mut told).into();
        self.event(&body);
    }

    fn fail(&self, failure: &Failure) {
        self.event(&failure.body());
    }

    fn chunk(&self) -> Value {
        json!({
            "id": self.ask.id,
            "object": match self.ask.shape {
                Shape::Chat => "chat.completion.chunk",
                Shape::Text | Shape::Native => "text_completion",
            },
            "created": self.ask.created,
            "model": self.ask.model,
            "system_fingerprint": FINGERPRINT,
        })
    }

    /// A chunk with a choice, and `more` beside it.
    fn delta(&self, index: usize, delta: Value, reason: Option<&str>, more: Map<String, Value>) {
        self.choice(index, delta, reason, Map::new(), more);
    }

    /// The same with more in the choice.
    fn choice(
        &self,
        index: usize,
        delta: Value,
        reason: Option<&str>,
        of_choice: Map<String, Value>,
        more: Map<String, Value>,
    ) {
        let mut choice = json!({"index": index, "finish_reason": reason, "logprobs": null});
        match self.ask.shape {
            Shape::Chat => choice["delta"] = delta,
            Shape::Text | Shape::Native => choice["text"] = "".into(),
        }
        if let Value::Object(choice) = &mut choice {
            choice.extend(of_choice);
        }
        let mut chunk = self.chunk();
        chunk["choices"] = json!([choice]);
        if let Value::Object(chunk) = &mut chunk {
            chunk.extend(more);
        }
        self.event(&chunk);
    }

    fn event(&self, value: &Value) {
        self.send(format!("data: {value}\n\n"));
    }

    /// That nobody listens is seen by the engine.
    fn send(&self, line: String) {
        let _ = self.out.send(line.into());
    }
}
