//! What a run shows on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use aisp_llama::{Event, EventKind, IterationStats, ScaledPart};
use indicatif::{ProgressBar, ProgressStyle};

use super::{output, setup};

/// Shows events.
pub struct Progress {
    bar: Option<ProgressBar>,
    samples: usize,
    iterations: usize,
    /// Rewards and ess of the last iteration.
    last: String,
}

impl Progress {
    /// For iterations of `samples` candidates.
    pub fn new(samples: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            samples,
            iterations: 1,
            last: String::new(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { iterations, .. } => self.iterations = *iterations,
            EventKind::Progress {
                iteration,
                finished,
                tokens,
                seconds,
            } => {
                if let Some(bar) = &self.bar {
                    bar.set_length((self.samples * self.iterations) as u64);
                    bar.set_position((iteration * self.samples + finished) as u64);
                    bar.set_message(format!(
                        "iteration {}/{}{} · {:.0} tokens/s",
                        iteration + 1,
                        self.iterations,
                        self.last,
                        *tokens as f64 / seconds.max(1e-9),
                    ));
                }
            }
            EventKind::CandidateScored(candidate) => {
                if candidate.truncated {
                    self.line(&format!(
                        "candidate {}.{}: too long for the reward, its end was not read",
                        candidate.iteration + 1,
                        candidate.candidate + 1
                    ));
                }
                if let Some(error) = &candidate.error {
                    self.line(&format!(
                        "candidate {}.{} has no reward: {error}",
                        candidate.iteration + 1,
                        candidate.candidate + 1
                    ));
                }
            }
            EventKind::RewardParts { parts, decisive } => {
                if let Some(line) = told(parts, *decisive) {
                    self.line(&line);
                }
            }
            EventKind::IterationDone(stats) => self.iteration(stats),
            EventKind::HeldOutFailed { reason } => self.line(&format!(
                "the held-out reward failed; the run goes on without it: {reason}"
            )),
            EventKind::WorkersLost { reason } => {
                self.line(&format!("the run goes on without its workers: {reason}"))
            }
            EventKind::RunFinished {
                usage,
                timings,
                tokens_saved,
                ..
            } => {
                let saved = tokens_saved.map_or(String::new(), |saved| {
                    format!(", about {saved} tokens saved")
                });
                self.line(&format!(
                    "{} candidates, {} tokens in {:.1} s ({:.0} tokens/s), {} scored in {:.1} s{saved}",
                    usage.candidates,
                    usage.generated_tokens,
                    timings.generation_seconds,
                    timings.tokens_per_second,
                    usage.reward_calls,
                    timings.reward_seconds,
                ));
            }
        }
    }

    fn iteration(&mut self, stats: &IterationStats) {
        let ess = stats
            .telemetry
            .ess
            .map_or(String::new(), |ess| format!(" · ess {ess:.1}"));
        let held_out = stats
            .held_out_mean
            .map_or(String::new(), |mean| format!(" · held out {mean:.3}"));
        let price = stats
            .best_price
            .map_or(String::new(), |price| format!(" (price {price:.2})"));
        self.last = format!(
            " · best {}{price} · mean {}{held_out}{ess}",
            number(stats.best_reward),
            number(stats.mean_reward)
        );
        self.line(&format!(
            "iteration {}/{}{} · {:.0} tokens/s",
            stats.index + 1,
            self.iterations,
            self.last,
            stats.tokens as f64 / stats.seconds.max(1e-9),
        ));
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::note(text),
        }
    }

    /// Removes the bar.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or("none".into(), |v| format!("{v:.3}"))
}

/// What is said of the parts of a reward: what they are divided by, or which of them decides
/// everything.
pub fn told(parts: &[ScaledPart], decisive: Option<usize>) -> Option<String> {
    let name = |part: &ScaledPart| setup::short(&part.part.name);
    let deviates = |part: &ScaledPart| part.part.weight.abs() * part.deviation;
    if parts.iter().any(|part| part.scale != 1.0) {
        let scales = parts.iter().map(|part| match part.deviation {
            0.0 => format!("{} by nothing, as it does not vary", name(part)),
            _ => format!("{} by {:.3}", name(part), part.scale),
        });
        let scales: Vec<String> = scales.collect();
        return Some(format!("rewards are divided: {}", scales.join(", ")));
    }
    let part = &parts[decisive?];
    let all: f64 = parts.iter().map(deviates).sum();
    let own = deviates(part);
    Some(format!(
        "{} decides everything: it moves the reward by {own:.3} from candidate to candidate, all others \
         together by {:.3}; --reward-scale divides each by its deviation, and WEIGHT* weighs it",
        name(part),
        all - own
    ))
}
