//! The theory on a real model: what λ does to the weights of real rewards, and what the
//! objective of AISP costs. Prints a table and draws `docs/theory.svg`.
//!
//! ```text
//! cargo run --release --example theory -- MODEL.gguf REWARD.gguf OUTPUT.svg
//! ```

use std::path::Path;
use std::sync::Arc;

use aisp_llama::control::{LambdaRule, importance_weights};
use aisp_llama::llama::{Message, Model, ModelOptions};
use aisp_llama::method::Rounds;
use aisp_llama::report::chart::{Panel, RGBColor, Series, draw};
use aisp_llama::reward::{Classifier, ClassifierOptions};
use aisp_llama::{AlignOptions, Aligner, Alignment, EngineOptions, Prompt, Stop, default_threads};

const PROMPT: &str = "Write one sentence reviewing a movie about a lost dog.";
const GREEN: RGBColor = RGBColor(0x2f, 0x8f, 0x4e);
const BLUE: RGBColor = RGBColor(0x4c, 0x78, 0xa8);
const ORANGE: RGBColor = RGBColor(0xf5, 0x85, 0x18);
const GREY: RGBColor = RGBColor(0x72, 0x6a, 0x5f);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, reward, output] = arguments.as_slice() else {
        anyhow::bail!("usage: theory MODEL.gguf REWARD.gguf OUTPUT.svg");
    };
    let model = Arc::new(Model::load(Path::new(model), &ModelOptions::default())?);
    let options = ClassifierOptions {
        threads: default_threads(),
        ..ClassifierOptions::default()
    };
    let mut reward = Classifier::load(Path::new(reward), &options)?;
    let mut aligner = Aligner::new(model, EngineOptions::default())?;

    // Candidates of P: Gaussian noise of mean zero.
    let drawn = align(&mut aligner, &mut reward, 512, 1)?;
    let rewards: Vec<f64> = drawn.candidates.iter().filter_map(|c| c.reward).collect();
    let lambdas: Vec<f64> = (-10..=10)
        .map(|i| 10_f64.powf(f64::from(i) / 5.0))
        .collect();
    let points: Vec<Tilted> = lambdas.iter().map(|&l| Tilted::at(&rewards, l)).collect();
    println!("## {} candidates of P\n", rewards.len());
    println!("| λ | E_q*[r] | KL(q*‖P) | −J at q* | F | ESS |\n|---|---|---|---|---|---|");
    for (lambda, t) in lambdas.iter().zip(&points).step_by(2) {
        let objective = t.reward - lambda * t.kl;
        println!(
            "| {lambda:.3} | {:.3} | {:.3} | {objective:.3} | {:.3} | {:.1} |",
            t.reward, t.kl, t.free_energy, t.ess
        );
    }

    // Gaussians: what the paper's controller does to −J, at the λ that it is given.
    let moved = align(&mut aligner, &mut reward, 64, 8)?;
    let lambda = 0.3;
    let bound = Tilted::at(&rewards, lambda).free_energy;
    println!("\n## Gaussians Q_U by the weights of λ = {lambda}, F = {bound:.3}\n");
    println!("| iteration | mean reward | KL(Q_U‖P) | −J |\n|---|---|---|---|");
    let mut kl = 0.0;
    for stats in &moved.iterations {
        let mean = stats.mean_reward.unwrap_or(f64::NAN);
        let objective = mean - lambda * kl;
        println!(
            "| {} | {mean:.3} | {kl:.0} | {objective:.1} |",
            stats.index + 1
        );
        // Telemetry is that of the mean after the update.
        kl = stats.telemetry.kl.unwrap_or(0.0);
    }
    std::fs::write(output, plot(&rewards, &lambdas, &points)?)?;
    Ok(())
}

/// AISP by weights with the paper's λ.
fn align(
    aligner: &mut Aligner,
    reward: &mut Classifier,
    samples: usize,
    iterations: usize,
) -> anyhow::Result<Alignment> {
    let options = AlignOptions {
        method: "aisp:update=weights:lambda=0.3".parse()?,
        rounds: Rounds {
            samples,
            iterations,
            max_tokens: 24,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    };
    let prompt = Prompt::Chat(vec![Message::new("user", PROMPT)]);
    Ok(aligner.align(&prompt, reward, &options, &Stop::new(), &mut |_| {})?)
}

/// q* ∝ exp(r/λ)·P on the candidates that stand for P.
struct Tilted {
    /// E_q*[r].
    reward: f64,
    /// KL(q*‖P) in nats.
    kl: f64,
    /// λ·log E_P[exp(r/λ)].
    free_energy: f64,
    /// In candidates.
    ess: f64,
}

impl Tilted {
    fn at(rewards: &[f64], lambda: f64) -> Self {
        let count = rewards.len() as f64;
        let penalties = vec![0.0; rewards.len()];
        let weights = importance_weights(rewards, &penalties, LambdaRule::Fixed(lambda));
        let pairs = || weights.weights().into_iter().zip(rewards);
        let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = rewards.iter().map(|r| ((r - best) / lambda).exp()).sum();
        Self {
            reward: pairs().map(|(w, r)| w * r).sum(),
            kl: pairs()
                .filter(|(w, _)| *w > 0.0)
                .map(|(w, _)| w * (w * count).ln())
                .sum(),
            free_energy: best + lambda * (sum / count).ln(),
            ess: weights.ess,
        }
    }
}

fn plot(rewards: &[f64], lambdas: &[f64], points: &[Tilted]) -> aisp_llama::Result<String> {
    let series = |name: &str, color, width, values: Vec<f64>| Series {
        name: name.into(),
        color,
        width,
        points: lambdas.iter().map(|l| l.log10()).zip(values).collect(),
    };
    let all = |value: fn(&Tilted) -> f64| points.iter().map(value).collect::<Vec<f64>>();
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |value: f64| vec![value; lambdas.len()];
    let panel = |y_name, series| Panel {
        x_name: "log10 of λ",
        y_name,
        x_range: None,
        y_range: None,
        series,
    };
    draw(
        &format!("{} candidates of the unsteered noise", rewards.len()),
        &[
            panel(
                "reward",
                vec![
                    series("best of n", GREY, 1, level(best)),
                    series("mean", GREY, 1, level(mean)),
                    series("E[r] under q*", GREEN, 2, all(|t| t.reward)),
                    series("free energy F", ORANGE, 2, all(|t| t.free_energy)),
                ],
            ),
            panel("ESS", vec![series("", BLUE, 2, all(|t| t.ess))]),
            panel("KL(q*‖P), nats", vec![series("", BLUE, 2, all(|t| t.kl))]),
        ],
    )
}
