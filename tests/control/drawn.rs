//! A population that draws tokens around a learnt mean, on a toy of an output matrix: a language of
//! 40 words, all alike to the model, and texts of six.

use aisp_llama::control::*;

use super::mean_and_error;

const WIDTH: usize = 12;
const HORIZON: usize = 6;
const VOCABULARY: usize = 40;

fn matrix() -> Vec<[f32; WIDTH]> {
    let row = |token: usize| {
        let mut row = [0.0; WIDTH];
        super::key(99, 0, token as u32, 0).standard_normal(&mut row);
        row
    };
    (0..VOCABULARY).map(row).collect()
}

/// The largest logit of W v, log q of every word, and the word that a uniform number draws.
fn draw(w: &[[f32; WIDTH]], v: &[f32; WIDTH], uniform: f64) -> (usize, Vec<f64>) {
    let logit = |row: &[f32; WIDTH]| {
        let products = row.iter().zip(v).map(|(a, b)| f64::from(a * b));
        products.sum::<f64>()
    };
    let logits: Vec<f64> = w.iter().map(logit).collect();
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    let log_q: Vec<f64> = logits.iter().map(|l| l - sum.ln()).collect();
    let mut left = uniform;
    let drawn = log_q.iter().position(|q| {
        left -= q.exp();
        left < 0.0
    });
    (drawn.unwrap_or(VOCABULARY - 1), log_q)
}

fn write(w: &[[f32; WIDTH]], perturbation: &Perturbation, candidate: u32) -> Trial {
    let mut trial = Trial {
        candidate,
        ..Trial::default()
    };
    let log_p = -(VOCABULARY as f64).ln();
    for position in 0..HORIZON {
        assert!(perturbation.draws(position));
        let mut v = [0.0; WIDTH];
        let row_of = |token: i32, row: &mut [f32]| {
            row.copy_from_slice(&w[token as usize]);
            Ok::<(), ()>(())
        };
        let moved = perturbation.perturb(&trial.tokens, row_of, &mut v).unwrap();
        assert_eq!(moved, v != [0.0; WIDTH]);
        let (word, log_q) = draw(w, &v, perturbation.uniform(position));
        trial.nats.push(TokenNats {
            surprise: -log_p as f32,
            entropy: -log_p as f32,
            log_ratio: (log_p - log_q[word]) as f32,
        });
        trial.tokens.push(word as i32);
    }
    trial
}

/// Words along the first coordinate, each as often as it comes.
fn liking(w: &[[f32; WIDTH]], tokens: &[i32]) -> f64 {
    tokens.iter().map(|&t| f64::from(w[t as usize][0])).sum()
}

/// Mean rewards by iteration, and what the last update said.
fn run(settings: &SamplerSettings, samples: u32, seed: u64) -> (Vec<f64>, Telemetry) {
    let w = matrix();
    let spread = || Ok::<f64, ControlError>((WIDTH as f64).sqrt());
    let mut controller = settings.controller(HORIZON, WIDTH, seed, spread).unwrap();
    assert_eq!(controller.looks_at_rows(), settings.steer > 0.0);
    let (mut means, mut last) = (Vec::new(), Telemetry::default());
    for _ in 0..6 {
        let perturbations = controller.propose(samples);
        let trials = (0..).zip(&perturbations).map(|(candidate, perturbation)| {
            let mut trial = write(&w, perturbation, candidate);
            trial.reward = liking(&w, &trial.tokens);
            let sum = |words: &[(i32, f32)]| {
                let mut sum = vec![0.0; WIDTH];
                for (word, weight) in words {
                    let row = &w[*word as usize];
                    sum.iter_mut().zip(row).for_each(|(s, x)| *s += weight * x);
                }
                Ok::<_, ()>(sum)
            };
            controller.with_rows(trial, sum).unwrap()
        });
        let trials: Vec<Trial> = trials.collect();
        means.push(trials.iter().map(|t| t.reward).sum::<f64>() / f64::from(samples));
        last = controller.update(trials);
    }
    (means, last)
}

#[test]
fn what_is_drawn_around_a_learnt_mean_is_weighed_for_it() {
    // log E[exp(r/λ)] of six words, counted out.
    let lambda = 2.0;
    let w = matrix();
    let one: f64 = w.iter().map(|row| (f64::from(row[0]) / lambda).exp()).sum();
    let log_z = HORIZON as f64 * (one / VOCABULARY as f64).ln();
    let settings = SamplerSettings {
        lambda: AutoOr::Number(lambda),
        steer: 0.5,
        ..SamplerSettings::default()
    };
    let mut ratios = Vec::new();
    for seed in 0..30 {
        let (_, last) = run(&settings, 48, seed);
        assert_eq!(last.lambda, Some(lambda));
        assert!(last.r2.unwrap() > 0.3, "{last:?}");
        ratios.push((last.free_energy.unwrap() / lambda - log_z).exp());
    }
    let (ratio, error) = mean_and_error(&ratios);
    assert!(
        (ratio - 1.0).abs() < 5.0 * error && error < 0.1,
        "{ratio} {error}"
    );
}

#[test]
fn a_learnt_mean_proposes_what_the_reward_likes() {
    let steered = SamplerSettings::default();
    let still = SamplerSettings {
        steer: 0.0,
        ..steered.clone()
    };
    let last = |settings: &SamplerSettings| {
        let runs: Vec<f64> = (0..10).map(|seed| run(settings, 16, seed).0[5]).collect();
        mean_and_error(&runs)
    };
    let ((with, error), (without, other)) = (last(&steered), last(&still));
    assert!(
        with - without > 3.0 * error.hypot(other),
        "{with} ± {error}, {without} ± {other}"
    );
}

#[test]
fn settings_that_nothing_reads_are_named() {
    let refused = |settings: SamplerSettings| {
        let spread = || Ok::<f64, ControlError>(1.0);
        let made = settings.controller(HORIZON, WIDTH, 0, spread);
        made.err().unwrap().to_string()
    };
    let noise = NoiseSettings {
        sigma: AutoOr::Number(1.0),
        ..NoiseSettings::default()
    };
    let message = refused(SamplerSettings {
        noise,
        ..SamplerSettings::default()
    });
    assert!(
        message.contains("sigma") && message.contains("gaussian"),
        "{message}"
    );
    let message = refused(SamplerSettings {
        steer: -1.0,
        ..SamplerSettings::default()
    });
    assert!(message.contains("steer"), "{message}");
}
