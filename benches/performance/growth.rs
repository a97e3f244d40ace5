//! How the cost grows, and a model of it.

use std::fmt::Write as _;
use std::time::Instant;

use aisp_llama::report::chart::{Panel, RGBColor, Series, draw};
use aisp_llama::{EngineOptions, Prompt};

use crate::rows::{Bench, SMOLLM, STORY, all_of, generation, review, reviews, rounds, smollm};

/// Times that everything is run in turn; the medians count.
const TURNS: usize = 3;

/// Candidates side by side and tokens of each; the first ones fit the model, the others test it.
const FITTED: [(usize, usize); 5] = [(4, 32), (16, 32), (64, 32), (4, 192), (16, 192)];
const TESTED: [(usize, usize); 5] = [(8, 64), (32, 64), (64, 64), (8, 160), (16, 96)];

/// Seconds of a step of r rows behind d tokens each: step + r·(row + d·position). The weights are read
/// once a step; a row is multiplied with all of them, and attends to all tokens before it.
struct Cost {
    step: f64,
    row: f64,
    position: f64,
}

impl Cost {
    /// What the three are multiplied by for a whole iteration behind `prompt` tokens.
    fn counts(prompt: usize, (samples, tokens): (usize, usize)) -> [f64; 3] {
        let rows = (samples * tokens) as f64;
        let depth = prompt as f64 + (tokens as f64 - 1.0) / 2.0;
        [tokens as f64, rows, rows * depth]
    }

    /// Seconds of an iteration.
    fn seconds(&self, prompt: usize, at: (usize, usize)) -> f64 {
        let [steps, rows, positions] = Self::counts(prompt, at);
        steps * self.step + rows * self.row + positions * self.position
    }

    /// The least sum of squared relative errors; what would cost less than nothing costs nothing.
    fn fit(prompt: usize, measured: &[((usize, usize), f64)]) -> Self {
        let mut free = [true; 3];
        loop {
            let solved = least_squares(prompt, measured, free);
            match (0..3).find(|&i| solved[i] < 0.0) {
                Some(negative) => free[negative] = false,
                None => {
                    let [step, row, position] = solved;
                    return Self {
                        step,
                        row,
                        position,
                    };
                }
            }
        }
    }
}

/// The numbers by which [`Cost::counts`] comes nearest to the seconds; 0 where not `free`.
fn least_squares(prompt: usize, measured: &[((usize, usize), f64)], free: [bool; 3]) -> [f64; 3] {
    let mut equations = [[0.0; 4]; 3];
    for &(at, seconds) in measured {
        let counts = Cost::counts(prompt, at).map(|c| c / seconds);
        for (i, equation) in equations.iter_mut().enumerate() {
            for (value, other) in equation.iter_mut().zip(counts) {
                *value += counts[i] * other;
            }
            equation[3] += counts[i];
        }
    }
    for i in (0..3).filter(|&i| !free[i]) {
        equations[i] = [0.0; 4];
        equations[i][i] = 1.0;
    }
    // Gauss and Jordan; positive definite, so that no pivot is 0.
    for i in 0..3 {
        let pivot = equations[i].map(|v| v / equations[i][i]);
        equations[i] = pivot;
        for j in (0..3).filter(|&j| j != i) {
            let factor = equations[j][i];
            for (value, other) in equations[j].iter_mut().zip(pivot) {
                *value -= factor * other;
            }
        }
    }
    equations.map(|e| e[3])
}

/// A machine as its maker describes it.
struct Machine {
    name: &'static str,
    /// Bytes a second from memory.
    bandwidth: f64,
    /// Multiplications and additions a second that a matrix product reaches.
    arithmetic: f64,
}

const MACHINES: [Machine; 3] = [
    Machine {
        name: "a laptop: 100 GB/s, 1 Tflop/s",
        bandwidth: 1e11,
        arithmetic: 1e12,
    },
    Machine {
        name: "a server of 32 cores: 300 GB/s, 4 Tflop/s",
        bandwidth: 3e11,
        arithmetic: 4e12,
    },
    Machine {
        name: "a GPU: 1,000 GB/s, 60 Tflop/s",
        bandwidth: 1e12,
        arithmetic: 6e13,
    },
];

/// The models of the predictions: bytes and parameters.
const MODELS: [(&str, f64, f64); 2] = [
    ("135M at 5.4 bits", 9.2e7, 1.35e8),
    ("8B at 4.5 bits", 4.5e9, 8e9),
];

/// The page's second half, and its plot.
pub fn page() -> (String, String) {
    let (cost, prompt, measured) = iterations();
    let mut text = String::from("\n## A model of the cost\n\n");
    let _ = writeln!(
        text,
        "A step of r rows behind d tokens each takes step + r·(row + d·position) seconds. Fitted to \
         iterations of {SMOLLM} under Gaussian noise, none of which ends early, with {}: step {:.1} ms, \
         row {:.2} ms, position {:.1} µs. With the others, which it has not seen:\n",
        FITTED.map(|(n, t)| format!("{n} × {t}")).join(", "),
        1e3 * cost.step,
        1e3 * cost.row,
        1e6 * cost.position,
    );
    text.push_str(
        "| candidates × tokens | predicted, tokens/s | measured | predicted ÷ measured − 1 |\n\
         |---|---|---|---|\n",
    );
    for &(at, seconds) in &measured[FITTED.len()..] {
        let tokens = (at.0 * at.1) as f64;
        let predicted = cost.seconds(prompt, at);
        let _ = writeln!(
            text,
            "| {} × {} | {:.1} | {:.1} | {:+.0} % |",
            at.0,
            at.1,
            tokens / predicted,
            tokens / seconds,
            100.0 * (seconds / predicted - 1.0)
        );
    }
    text.push_str(
        "\nWhere memory and arithmetic are all that counts, a step takes bytes ÷ bandwidth + \
         r · 2 · parameters ÷ arithmetic, attention left out. None of this was run:\n\n\
         | machine | model | 1 row, tokens/s | 16 rows | 64 rows |\n|---|---|---|---|---|\n",
    );
    for machine in &MACHINES {
        for (model, bytes, parameters) in MODELS {
            let rate = |rows: f64| {
                let step = bytes / machine.bandwidth + rows * 2.0 * parameters / machine.arithmetic;
                rows / step
            };
            let _ = writeln!(
                text,
                "| {} | {model} | {:.0} | {:.0} | {:.0} |",
                machine.name,
                rate(1.0),
                rate(16.0),
                rate(64.0)
            );
        }
    }
    let wide: Vec<_> = [4, 8, 16, 32, 64]
        .into_iter()
        .map(|n| (n as f64, n as f64 * 48.0 / cost.seconds(prompt, (n, 48))))
        .collect();
    let rates = measured
        .iter()
        .map(|&((n, t), s)| (n as f64, (n * t) as f64 / s));
    let mut panels = vec![Panel {
        x_name: "candidates side by side",
        y_name: "tokens a second",
        x_range: Some((0.0, 68.0)),
        y_range: None,
        series: vec![
            line("the model, 48 tokens", BLUE, wide),
            dots("measured", ORANGE, rates.collect()),
        ],
    }];
    for (x_name, points) in runs() {
        panels.push(Panel {
            x_name,
            y_name: "seconds",
            x_range: Some((0.0, 1.1 * points.last().map_or(1.0, |p| p.0))),
            y_range: None,
            series: vec![line("", BLUE, points)],
        });
    }
    let plot = draw("What generation costs, and how it grows", &panels).unwrap();
    (text, plot)
}

const BLUE: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(255, 127, 14);

fn line(name: &str, color: RGBColor, points: Vec<(f64, f64)>) -> Series {
    Series {
        name: name.into(),
        color,
        width: 2,
        points,
    }
}

fn dots(name: &str, color: RGBColor, points: Vec<(f64, f64)>) -> Series {
    Series {
        width: 0,
        ..line(name, color, points)
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The model fitted to iterations of noise, the prompt's tokens, and the seconds of all iterations.
#[allow(clippy::type_complexity)]
fn iterations() -> (Cost, usize, Vec<((usize, usize), f64)>) {
    let prompt = Prompt::Raw(STORY.into());
    let length = smollm().tokenize(STORY, true, true).len();
    let all: Vec<(usize, usize)> = FITTED.into_iter().chain(TESTED).collect();
    let mut benches: Vec<Bench> = all
        .iter()
        .map(|&(samples, tokens)| {
            let engine = EngineOptions {
                parallel: samples,
                ..EngineOptions::default()
            };
            let rounds = rounds(samples, 1, tokens);
            let mut bench = Bench::new(smollm(), "search:start=noise", rounds, engine);
            bench.options.form.ignore_end = true;
            bench
        })
        .collect();
    let mut seconds = vec![Vec::new(); all.len()];
    for turn in 0..=TURNS {
        for ((bench, &(n, t)), seconds) in benches.iter_mut().zip(&all).zip(&mut seconds) {
            let rate = generation(bench, &prompt);
            // The first turn warms up.
            if turn > 0 {
                seconds.push((n * t) as f64 / rate);
            }
        }
    }
    let measured: Vec<_> = all
        .into_iter()
        .zip(seconds.into_iter().map(median))
        .collect();
    let cost = Cost::fit(length, &measured[..FITTED.len()]);
    (cost, length, measured)
}

/// Seconds of whole runs of the default method, rewards included, by what grows.
fn runs() -> Vec<(&'static str, Vec<(f64, f64)>)> {
    let one = |samples, iterations, tokens| {
        let rounds = rounds(samples, iterations, tokens);
        let mut bench = Bench::new(smollm(), "search", rounds, EngineOptions::default());
        timed(|| {
            bench.run(&review(true));
        })
    };
    let by = |values: &[usize], seconds: &dyn Fn(usize) -> f64| {
        values.iter().map(|&v| (v as f64, seconds(v))).collect()
    };
    vec![
        (
            "samples, 4 iterations of 24 tokens",
            by(&[4, 8, 16, 32], &|samples| one(samples, 4, 24)),
        ),
        (
            "iterations of 16 samples of 24 tokens",
            by(&[1, 2, 4, 8], &|iterations| one(16, iterations, 24)),
        ),
        (
            "tokens at most, 16 × 4",
            by(&[16, 32, 64, 128], &|tokens| one(16, 4, tokens)),
        ),
        (
            "prompts side by side, 16 × 2, 24 tokens",
            by(&[1, 2, 4, 8], &|count| {
                let rounds = rounds(16, 2, 24);
                let mut bench = Bench::new(smollm(), "search", rounds, EngineOptions::default());
                timed(|| {
                    all_of(&mut bench, &reviews()[..count]);
                })
            }),
        ),
    ]
}

/// The median of a few times, the first one left out.
fn timed(mut what: impl FnMut()) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        what();
        begun.elapsed().as_secs_f64()
    };
    let _ = once();
    median((0..TURNS).map(|_| once()).collect())
}
