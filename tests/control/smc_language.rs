//! The sampler on a language of two words and an end, where q* can be counted out.
//!
//! A word is chosen by its place's noise: the end below one threshold, `a` up to another, `b`
//! above, both depending on what stands before. So texts differ in length, and the tokens behind
//! a window change with it.

use std::collections::BTreeMap;

use aisp_llama::control::{Move, Smc, SmcOptions, SmcReport, SmcTrial, Trajectory};

use super::mean_and_error;

const SIGMA: f64 = 0.5;
/// Positions with noise; one more has none.
const HORIZON: usize = 4;
const LIMIT: usize = HORIZON + 1;
const END: u8 = 2;
const SAMPLES: u32 = 2_000;
const ITERATIONS: u32 = 8;
const SEEDS: u64 = 20;
/// A floor that takes a few steps to reach.
const LAMBDA: f64 = 0.35;

type Text = Vec<u8>;
/// Texts with their probabilities.
type Law = BTreeMap<Text, f64>;

/// Below the first the text ends, below the second comes `a`; in units of σ.
fn thresholds(before: &[u8]) -> (f64, f64) {
    let end = match before.last() {
        None => -1.3,
        Some(0) => -1.0 + 0.2 * before.len() as f64,
        Some(_) => -0.5,
    };
    (end, end + 0.6 + 0.4 * (before.len() % 2) as f64)
}

fn token(before: &[u8], noise: f64) -> u8 {
    let (end, a) = thresholds(before);
    match noise {
        x if x < end => END,
        x if x < a => 0,
        _ => 1,
    }
}

fn is_over(text: &[u8]) -> bool {
    text.len() == LIMIT || text.last() == Some(&END)
}

/// What the model writes under a perturbation.
fn write(trajectory: &Trajectory) -> Text {
    let mut text = Text::new();
    while !is_over(&text) {
        let mut v = [0.0];
        let no_row = |_, _: &mut [f32]| Err(());
        let tokens = vec![0; text.len()];
        assert!(trajectory.perturb(&tokens, no_row, &mut v).is_ok());
        text.push(token(&text, f64::from(v[0]) / SIGMA));
    }
    text
}

/// Φ, to the last digits: φ(x)·Σ x^(2k+1)/(1·3·5…) from the middle on.
fn normal_below(x: f64) -> f64 {
    if x.is_infinite() {
        return f64::from(x > 0.0);
    }
    let (mut term, mut sum) = (x, x);
    for k in 1..60 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Probability of a token under noise with mean `u`.
fn probability(before: &[u8], next: u8, u: f64) -> f64 {
    if before.len() >= HORIZON {
        return f64::from(token(before, 0.0) == next);
    }
    let (end, a) = thresholds(before);
    let (low, high) = match next {
        END => (f64::NEG_INFINITY, end),
        0 => (end, a),
        _ => (a, f64::INFINITY),
    };
    normal_below(high - u / SIGMA) - normal_below(low - u / SIGMA)
}

/// Continuations of `before`, itself included, with their probabilities given it.
fn continuations(before: &[u8]) -> Law {
    let mut law = Law::new();
    let mut open = vec![(before.to_vec(), 1.0)];
    while let Some((text, p)) = open.pop() {
        if is_over(&text) {
            law.insert(text, p);
            continue;
        }
        for next in [0, 1, END] {
            let mut longer = text.clone();
            longer.push(next);
            open.push((longer, p * probability(&text, next, 0.0)));
        }
    }
    law.retain(|_, p| *p > 0.0);
    law
}

/// q* and log E_P[exp(r/λ)].
fn target(reward: impl Fn(&[u8]) -> f64, lambda: f64) -> (Law, f64) {
    let mut law = continuations(&[]);
    law.iter_mut()
        .for_each(|(text, p)| *p *= (reward(text) / lambda).exp());
    let z: f64 = law.values().sum();
    law.values_mut().for_each(|p| *p /= z);
    (law, z.ln())
}

/// What the tests like: `b`, long texts, and no `aa`.
fn liking(text: &[u8]) -> f64 {
    let count = text.iter().filter(|&&t| t == 1).count() as f64;
    let doubles = text.windows(2).filter(|w| w == &[0, 0]).count() as f64;
    count - 0.6 * text.len() as f64 - 0.8 * doubles
}

/// −log P(y) in nats.
fn surprise(text: &[u8]) -> f64 {
    (0..text.len())
        .map(|t| -probability(&text[..t], text[t], 0.0).ln())
        .sum()
}

fn options(seed: u64) -> SmcOptions {
    SmcOptions {
        lambda: LAMBDA,
        ..SmcOptions::new(HORIZON, 1, SIGMA, seed)
    }
}

/// The population at the end, as texts, and the reports. `mean` is that of each iteration.
fn run(
    options: SmcOptions,
    reward: &dyn Fn(&[u8]) -> f64,
    mean: impl Fn(u32) -> Option<f32>,
) -> (Law, Vec<SmcReport>) {
    let mut smc = Smc::new(options).unwrap();
    let mut reports = Vec::new();
    for iteration in 0..ITERATIONS {
        let u = mean(iteration);
        let proposals = match u {
            Some(u) => smc.propose_around(SAMPLES, &[u]).unwrap(),
            None => smc.propose(SAMPLES),
        };
        let trials = proposals.iter().zip(0..).map(|(proposal, candidate)| {
            let text = write(&proposal.trajectory);
            let used = text.len().min(HORIZON);
            let ratio = |u: f32| -> f64 {
                let of = |t: usize, u: f64| probability(&text[..t], text[t], u).ln();
                (proposal.cut..used)
                    .map(|t| of(t, 0.0) - of(t, f64::from(u)))
                    .sum()
            };
            SmcTrial {
                candidate,
                reward: reward(&text),
                length: text.len(),
                log_ratio: u.map_or(0.0, ratio),
            }
        });
        let trials = trials.collect();
        reports.push(smc.update(trials));
    }
    let mut law = Law::new();
    for particle in smc.population() {
        *law.entry(write(&particle.trajectory)).or_default() += particle.weight;
    }
    (law, reports)
}

/// Holds runs on several seeds against what was counted out: the law of the texts, ẑ, the free
/// energy and KL. Errors are those of a mean over the seeds.
fn assert_exact(
    name: &str,
    reward: &dyn Fn(&[u8]) -> f64,
    change: impl Fn(SmcOptions) -> SmcOptions,
    mean: impl Fn(u32) -> Option<f32>,
) {
    let lambda = change(options(0)).lambda;
    let (expected, log_z) = target(reward, lambda);
    let (mut laws, mut ratios, mut kls) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let (law, reports) = run(change(options(seed)), reward, &mean);
        let last = reports.last().unwrap();
        assert_eq!(last.lambda, lambda, "{name}: the floor is reached");
        assert!((last.free_energy - lambda * last.log_z).abs() < 1e-9);
        laws.push(law);
        ratios.push((last.log_z - log_z).exp());
        kls.push(last.kl);
    }
    let (mut distance, mut allowed) = (0.0, 0.0);
    for (text, q) in &expected {
        let shares: Vec<f64> = laws
            .iter()
            .map(|l| l.get(text).map_or(0.0, |p| *p))
            .collect();
        let (share, error) = mean_and_error(&shares);
        distance += 0.5 * (share - q).abs();
        allowed += error;
    }
    // Without a bias, the mean total variation is 0.4 of the sum of errors.
    assert!(
        distance < allowed && allowed < 0.05,
        "{name}: {distance} {allowed}"
    );
    let (ratio, error) = mean_and_error(&ratios);
    assert!(
        (ratio - 1.0).abs() < 5.0 * error && error < 0.02,
        "{name}: {ratio} {error}"
    );
    let divergence = expected
        .iter()
        .map(|(text, q)| q * (q.ln() + surprise(text)));
    let divergence: f64 = divergence.sum();
    let (kl, error) = mean_and_error(&kls);
    assert!(
        (kl - divergence).abs() < 5.0 * error && error < 0.03,
        "{name}: {kl} {divergence}"
    );
}

#[test]
fn the_language_is_a_law_of_texts_of_many_lengths() {
    let law = continuations(&[]);
    assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-12);
    let lengths: std::collections::BTreeSet<_> = law.keys().map(Vec::len).collect();
    assert_eq!(lengths.len(), LIMIT);
}

#[test]
fn cuts_lead_to_the_target() {
    assert_exact("cut", &liking, |o| o, |_| None);
    let chain = |o| SmcOptions { chain: 3, ..o };
    assert_exact("chain", &liking, chain, |_| None);
}

#[test]
fn windows_lead_to_the_target() {
    for window in [1, 2] {
        let windows = |o| SmcOptions {
            moves: Move::Window,
            window,
            ..o
        };
        assert_exact("window", &liking, windows, |_| None);
    }
}

#[test]
fn steered_steps_lead_to_the_target() {
    // Their weights spread more than the rewards.
    let warm = |o| SmcOptions { lambda: 0.7, ..o };
    assert_exact("steered", &liking, warm, |_| Some(-0.15));
    // The mean changes, and Markov moves stand between.
    let chain = |o| SmcOptions {
        chain: 2,
        ..warm(o)
    };
    let mean = |iteration| (iteration % 3 > 0).then_some(0.06 * iteration as f32 - 0.3);
    assert_exact("mixed", &liking, chain, mean);
}

#[test]
fn a_price_is_part_of_the_target() {
    let priced = |text: &[u8]| liking(text) - 0.5 * surprise(text);
    assert_exact("priced", &priced, |o| o, |_| None);
    let warm = |o| SmcOptions { lambda: 0.7, ..o };
    assert_exact("priced steered", &priced, warm, |_| Some(0.15));
}

#[test]
fn where_rewards_say_nothing_the_population_stays_with_the_model() {
    // A constant reward is no reason to change λ, and moves are accepted by L/L' alone.
    let law = continuations(&[]);
    let used = |text: &Text| text.len().min(HORIZON) as f64;
    let mut expected = 0.0;
    for (text, p) in &law {
        for cut in 0..used(text) as usize {
            for (other, q) in continuations(&text[..cut]) {
                expected += p * q * (used(text) / used(&other)).min(1.0) / used(text);
            }
        }
    }
    assert!(expected < 0.9, "{expected}");
    let (mut rates, mut lengths) = (Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let (found, reports) = run(options(seed), &|_| 3.0, |_| None);
        assert!(
            reports
                .iter()
                .all(|r| r.lambda == f64::INFINITY && r.free_energy == 3.0)
        );
        let accepted = reports.iter().filter_map(|r| r.acceptance);
        rates.push(accepted.sum::<f64>() / f64::from(ITERATIONS - 1));
        lengths.push(found.iter().map(|(text, p)| p * used(text)).sum::<f64>());
    }
    let (rate, error) = mean_and_error(&rates);
    assert!(
        (rate - expected).abs() < 5.0 * error && error < 0.002,
        "{rate} {expected}"
    );
    let (length, error) = mean_and_error(&lengths);
    let expected: f64 = law.iter().map(|(text, p)| p * used(text)).sum();
    assert!(
        (length - expected).abs() < 5.0 * error && error < 0.01,
        "{length} {expected}"
    );
}
