//! What others may know of the engine: who is where, and what it has done so far.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::engine::QUEUE;
use crate::align::{Alignment, RunId};

/// Upper bounds of the histogram of searches, in seconds.
const BOUNDS: [f64; 9] = [0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 540.0];

/// What was done since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    plain: u64,
    searched: u64,
    failed: u64,
    pub(super) cancelled: u64,
    prompt_tokens: u64,
    tokens: u64,
    generation_seconds: f64,
    candidates: u64,
    unscored: u64,
    reward_seconds: f64,
    search_seconds: f64,
    /// Searches at most as long as each of the bounds.
    searches: [u64; BOUNDS.len()],
}

impl Counters {
    /// Counts a request that is over.
    pub(super) fn finish(&mut self, plain: bool, prompt: usize, done: Option<&Alignment>) {
        self.prompt_tokens += prompt as u64;
        let Some(done) = done else {
            self.failed += 1;
            return;
        };
        self.tokens += (done.usage.generated_tokens + done.usage.reasoning_tokens) as u64;
        self.generation_seconds += done.timings.generation_seconds;
        if plain {
            self.plain += 1;
            return;
        }
        self.searched += 1;
        self.candidates += done.usage.candidates as u64;
        self.unscored += done.usage.unscored as u64;
        self.reward_seconds += done.timings.reward_seconds + done.timings.held_out_seconds;
        self.search_seconds += done.timings.total_seconds;
        for (bound, count) in BOUNDS.iter().zip(&mut self.searches) {
            *count += u64::from(done.timings.total_seconds <= *bound);
        }
    }
}

/// The state of the engine as of its last step.
#[derive(Default)]
pub(super) struct Status {
    queued: AtomicUsize,
    active: AtomicUsize,
    draining: AtomicBool,
    places: Mutex<Vec<Option<RunId>>>,
    counters: Mutex<Counters>,
}

impl Status {
    /// Takes so many places in the queue, where they are free.
    pub(super) fn enter_queue(&self, count: usize) -> bool {
        let free = |queued: usize| Some(queued + count).filter(|&all| all <= QUEUE);
        let order = Ordering::Relaxed;
        self.queued.fetch_update(order, order, free).is_ok()
    }

    /// So many have left the queue.
    pub(super) fn left_queue(&self, count: usize) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
    }

    /// From here on nothing new is begun.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn publish(&self, places: Vec<Option<RunId>>, active: usize) {
        self.active.store(active, Ordering::Relaxed);
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    fn places(&self) -> Vec<Option<RunId>> {
        self.places
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Places that are free.
    pub(super) fn free(&self) -> usize {
        self.places().iter().filter(|place| place.is_none()).count()
    }

    /// The places as llama-server lists them.
    pub(super) fn slots(&self, context: usize) -> Value {
        let places = self.places().into_iter().enumerate();
        let slots = places.map(|(id, place)| {
            json!({
                "id": id,
                "n_ctx": context,
                "is_processing": place.is_some(),
                "id_task": place.map_or(-1, |run| i64::try_from(run.0).unwrap_or(-1)),
            })
        });
        slots.collect()
    }

    /// All of it in the text form of Prometheus; llama.cpp's names for what it has too.
    pub(super) fn metrics(&self) -> String {
        let counters = self
            .counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let places = self.places();
        let busy = places.iter().flatten().count();
        let queued = self.queued.load(Ordering::Relaxed);
        let active = self.active.load(Ordering::Relaxed);
        let c = &counters;
        let rate = c.tokens as f64 / c.generation_seconds.max(1e-9);
        let mut out = String::new();
        let mut metric = |kind: &str, name: &str, help: &str, value: f64| {
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        };
        let all: [(&str, &str, &str, f64); 16] = [
            (
                "counter",
                "llamacpp:prompt_tokens_total",
                "Tokens of prompts.",
                c.prompt_tokens as f64,
            ),
            (
                "counter",
                "llamacpp:tokens_predicted_total",
                "Tokens generated.",
                c.tokens as f64,
            ),
            (
                "counter",
                "llamacpp:tokens_predicted_seconds_total",
                "Seconds of generation.",
                c.generation_seconds,
            ),
            (
                "gauge",
                "llamacpp:predicted_tokens_seconds",
                "Tokens generated in a second.",
                rate,
            ),
            (
                "gauge",
                "llamacpp:requests_processing",
                "Requests that are being answered.",
                active as f64,
            ),
            (
                "gauge",
                "llamacpp:requests_deferred",
                "Requests that wait.",
                queued as f64,
            ),
            (
                "counter",
                "aisp_plain_total",
                "Plain answers.",
                c.plain as f64,
            ),
            (
                "counter",
                "aisp_searches_total",
                "Searches that came to an answer.",
                c.searched as f64,
            ),
            (
                "counter",
                "aisp_failed_total",
                "Requests without an answer.",
                c.failed as f64,
            ),
            (
                "counter",
                "aisp_cancelled_total",
                "Requests whose client left.",
                c.cancelled as f64,
            ),
            (
                "counter",
                "aisp_candidates_total",
                "Candidates of searches.",
                c.candidates as f64,
            ),
            (
                "counter",
                "aisp_unscored_total",
                "Candidates without a reward.",
                c.unscored as f64,
            ),
            (
                "counter",
                "aisp_reward_seconds_total",
                "Seconds of scoring.",
                c.reward_seconds,
            ),
            ("gauge", "aisp_queue", "Requests that wait.", queued as f64),
            (
                "gauge",
                "aisp_slots",
                "Places in the batch.",
                places.len() as f64,
            ),
            ("gauge", "aisp_slots_busy", "Those that write.", busy as f64),
        ];
        for (kind, name, help, value) in all {
            metric(kind, name, help, value);
        }
        let name = "aisp_search_seconds";
        let _ = write!(
            out,
            "# HELP {name} Seconds of searches.\n# TYPE {name} histogram\n"
        );
        for (bound, count) in BOUNDS.iter().zip(c.searches) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", c.searched);
        let _ = writeln!(
            out,
            "{name}_sum {}\n{name}_count {}",
            c.search_seconds, c.searched
        );
        out
    }
}
