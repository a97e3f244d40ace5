//! The sampler on rewards of the noise itself, whose targets have closed forms, and what it
//! promises whatever the reward. Errors are those of a mean over seeds; estimates of ratios are
//! compared before their logarithm, where they have no bias.

use std::f64::consts::LN_2;

use aisp_llama::control::{
    Move, NoiseKey, Smc, SmcOptions, SmcParticle, SmcProposal, SmcReport, SmcTrial, Trajectory,
};

use super::mean_and_error;

const SIGMA: f64 = 0.5;
const HORIZON: usize = 3;
const WIDTH: usize = 2;
const ENTRIES: usize = HORIZON * WIDTH;
const SAMPLES: u32 = 1_000;
const ITERATIONS: usize = 8;
const SEEDS: u64 = 20;

fn options(seed: u64) -> SmcOptions {
    SmcOptions::new(HORIZON, WIDTH, SIGMA, seed)
}

/// V `[τ·d]`.
fn noise(trajectory: &Trajectory) -> [f64; ENTRIES] {
    let mut v = [0.0; ENTRIES];
    for (position, out) in v.chunks_mut(WIDTH).enumerate() {
        let mut row = [0.0; WIDTH];
        let no_row = |_, _: &mut [f32]| Err(());
        assert_eq!(
            trajectory.perturb(&[0; HORIZON][..position], no_row, &mut row),
            Ok(true)
        );
        out.iter_mut().zip(row).for_each(|(o, x)| *o = f64::from(x));
    }
    v
}

fn trial(candidate: u32, reward: f64) -> SmcTrial {
    SmcTrial {
        candidate,
        reward,
        length: HORIZON,
        log_ratio: 0.0,
    }
}

fn score(proposals: &[SmcProposal], reward: impl Fn(&[f64]) -> f64) -> Vec<SmcTrial> {
    let pairs = proposals.iter().zip(0..);
    pairs
        .map(|(p, candidate)| trial(candidate, reward(&noise(&p.trajectory))))
        .collect()
}

fn run(options: SmcOptions, reward: impl Fn(&[f64]) -> f64) -> (Smc, Vec<SmcReport>) {
    let mut smc = Smc::new(options).unwrap();
    let reports = (0..ITERATIONS)
        .map(|_| {
            let proposals = smc.propose(SAMPLES);
            smc.update(score(&proposals, &reward))
        })
        .collect();
    (smc, reports)
}

/// E[f(V)] over the population.
fn average(population: &[SmcParticle], f: impl Fn(&[f64]) -> f64) -> f64 {
    let terms = population
        .iter()
        .map(|p| p.weight * f(&noise(&p.trajectory)));
    terms.sum()
}

fn assert_near(values: &[f64], expected: f64, largest_error: f64) {
    let (mean, error) = mean_and_error(values);
    assert!(
        (mean - expected).abs() <= 5.0 * error && error <= largest_error,
        "{mean} ± {error} is not {expected}"
    );
}

const A: [f64; ENTRIES] = [1.5, -1.0, 0.5, 0.0, 2.0, -0.5];

fn linear(v: &[f64]) -> f64 {
    v.iter().zip(A).map(|(v, a)| v * a).sum()
}

#[test]
fn a_linear_reward_shifts_the_noise_by_sigma_squared_a_over_lambda() {
    let lambda = 0.7;
    for moves in [Move::Cut, Move::Window] {
        let mut means = vec![Vec::new(); ENTRIES];
        let mut ratios = Vec::new();
        let squares: f64 = A.iter().map(|a| a * a).sum();
        let log_z = SIGMA * SIGMA * squares / (2.0 * lambda * lambda);
        for seed in 0..SEEDS {
            let options = SmcOptions {
                lambda,
                moves,
                window: 1,
                ..options(seed)
            };
            let (smc, reports) = run(options, linear);
            let last = reports.last().unwrap();
            assert_eq!(last.lambda, lambda);
            ratios.push((last.log_z - log_z).exp());
            let population = smc.population();
            for (entry, means) in means.iter_mut().enumerate() {
                means.push(average(&population, |v| v[entry]));
            }
        }
        assert_near(&ratios, 1.0, 0.06);
        for (means, a) in means.iter().zip(A) {
            assert_near(means, SIGMA * SIGMA * a / lambda, 0.02);
        }
    }
}

#[test]
fn an_infinite_floor_keeps_the_population_with_the_model() {
    let (mut means, mut squares) = (Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let options = SmcOptions {
            lambda: f64::INFINITY,
            ..options(seed)
        };
        let (smc, reports) = run(options, linear);
        for report in &reports[1..] {
            assert_eq!(
                (report.lambda, report.log_z, report.kl),
                (f64::INFINITY, 0.0, 0.0)
            );
            assert_eq!(report.acceptance, Some(1.0));
        }
        let last = reports.last().unwrap();
        assert_eq!(last.particles, SAMPLES as usize * ITERATIONS);
        assert_eq!(last.distinct, last.particles, "every move is accepted");
        assert!((last.ess - last.particles as f64).abs() < 1e-6);
        let population = smc.population();
        assert!((last.free_energy - average(&population, linear)).abs() < 1e-9);
        let entries = ENTRIES as f64;
        means.push(average(&population, |v| v.iter().sum::<f64>() / entries));
        squares.push(average(&population, |v| {
            v.iter().map(|v| v * v).sum::<f64>() / entries
        }));
    }
    assert_near(&means, 0.0, 0.005);
    assert_near(&squares, SIGMA * SIGMA, 0.005);
}

#[test]
fn one_iteration_at_lambda_zero_is_best_of_n() {
    let mut smc = Smc::new(SmcOptions {
        ess: 1e-6,
        ..options(4)
    })
    .unwrap();
    let proposals = smc.propose(32);
    assert!(proposals.iter().all(|p| p.cut == 0 && p.parent.is_none()));
    let trials = score(&proposals, linear);
    let best = trials.iter().max_by(|a, b| a.reward.total_cmp(&b.reward));
    let best = best.unwrap().candidate;
    let report = smc.update(trials);
    assert!(report.lambda < 1e-6 && (report.ess - 1.0).abs() < 1e-9);
    assert_eq!(report.distinct, 1);
    let next = smc.propose(32);
    assert!(next.iter().all(|p| p.parent == Some((0, best))));
}

#[test]
fn without_a_floor_the_population_climbs_and_stays_one() {
    let (smc, reports) = run(options(5), |v| (linear(v) * 2.0).round());
    assert!(reports.windows(2).all(|r| r[1].lambda <= r[0].lambda));
    let population = smc.population();
    let mean: f64 = population.iter().map(|p| p.weight * p.reward).sum();
    // Two standard deviations of the prior's rewards.
    assert!(mean > 3.5, "{mean}");
    // Copies do not count, and one candidate is no sample.
    assert!(reports.iter().all(|r| r.ess > 1.999), "{reports:?}");
    assert!(
        reports
            .iter()
            .all(|r| r.log_z.is_finite() && r.free_energy.is_finite())
    );
}

#[test]
fn the_free_energy_bounds_every_gaussian() {
    // r = −k|v − b|²/2, with a closed form for E over N(U, σ²I) and for the free energy.
    let (k, b, lambda) = (2.0, 0.5, 0.5);
    let reward = |v: &[f64]| -0.5 * k * v.iter().map(|v| (v - b).powi(2)).sum::<f64>();
    let stiffness = 1.0 + k * SIGMA * SIGMA / lambda;
    let log_z = -0.5 * ENTRIES as f64 * (stiffness.ln() + k * b * b / (lambda * stiffness));
    let mut ratios = Vec::new();
    let mut free = Vec::new();
    for seed in 0..SEEDS {
        let options = SmcOptions {
            lambda,
            ..options(seed)
        };
        let (_, reports) = run(options, reward);
        let last = reports.last().unwrap();
        assert_eq!(last.lambda, lambda);
        ratios.push((last.log_z - log_z).exp());
        free.push(last.free_energy);
    }
    assert_near(&ratios, 1.0, 0.1);
    let (free, error) = mean_and_error(&free);
    for step in 0..20 {
        // The same mean in all entries; −J is largest at b(1 − 1/stiffness).
        let u = b * f64::from(step) / 19.0;
        let reward = -0.5 * k * ((u - b).powi(2) + SIGMA * SIGMA);
        let price = lambda * u * u / (2.0 * SIGMA * SIGMA);
        let bound = ENTRIES as f64 * (reward - price);
        assert!(free >= bound - 5.0 * error, "{free} {bound} at {u}");
    }
}

#[test]
fn rewards_that_do_not_depend_on_the_noise_leave_it_alone() {
    // 0 or 1 by chance: at λ = 1/log 2 a 1 weighs twice, so a third of the population is 0. Its
    // moves are all accepted; of the others those to a 0 half of the time.
    let lambda = 1.0 / LN_2;
    let (mut rates, mut means, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let mut smc = Smc::new(SmcOptions {
            lambda,
            ..options(seed)
        })
        .unwrap();
        let mut accepted = Vec::new();
        for iteration in 0..ITERATIONS as u32 {
            let coin = |candidate| NoiseKey {
                seed: seed + 1000,
                iteration,
                candidate,
                position: 0,
            };
            let proposed = smc.propose(SAMPLES).len() as u32;
            let trials = (0..proposed).map(|c| trial(c, coin(c).uniform().round()));
            let report = smc.update(trials.collect());
            accepted.extend(report.acceptance);
        }
        rates.push(accepted.iter().sum::<f64>() / accepted.len() as f64);
        let population = smc.population();
        shares.push(population.iter().map(|p| p.weight * p.reward).sum());
        means.push(average(&population, linear));
    }
    assert_near(&rates, 1.0 / 3.0 + 2.0 / 3.0 * 0.75, 0.01);
    assert_near(&shares, 2.0 / 3.0, 0.01);
    assert_near(&means, 0.0, 0.02);
}

#[test]
fn a_constant_added_to_the_reward_and_the_order_of_trials_change_nothing() {
    let finish = |shift: f64, reversed: bool| {
        let mut smc = Smc::new(options(6)).unwrap();
        let mut last = None;
        for _ in 0..4 {
            let proposals = smc.propose(16);
            let mut trials = score(&proposals, |v| (linear(v) * 64.0).round() / 64.0 + shift);
            if reversed {
                trials.reverse();
            }
            last = Some(smc.update(trials));
        }
        let parents: Vec<_> = smc.propose(16).iter().map(|p| (p.cut, p.parent)).collect();
        (parents, last.unwrap())
    };
    let plain = finish(0.0, false);
    assert_eq!(plain, finish(0.0, true));
    let shifted = finish(1024.0, false);
    assert_eq!(plain.0, shifted.0);
    assert_eq!(plain.1.lambda, shifted.1.lambda);
    let raised = shifted.1.free_energy - plain.1.free_energy;
    assert!((raised - 1024.0).abs() < 1e-9, "{raised}");
}

#[test]
fn rewards_that_are_no_numbers_are_counted_and_weigh_nothing() {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let mut smc = Smc::new(options(7)).unwrap();
    // Nothing valid yet: the next candidates are fresh.
    smc.propose(4);
    let trials = bad.iter().zip(0..).map(|(&r, c)| trial(c, r)).collect();
    let report = smc.update(trials);
    assert_eq!((report.rejected, report.particles, report.ess), (4, 0, 0.0));
    let proposals = smc.propose(8);
    assert!(proposals.iter().all(|p| p.parent.is_none()));
    let mut trials = score(&proposals, linear);
    trials[3].reward = f64::NAN;
    let report = smc.update(trials);
    assert_eq!((report.rejected, report.particles), (1, 7));

    // A move to them is rejected: the particle counts once more.
    let proposals = smc.propose(8);
    assert!(
        proposals
            .iter()
            .all(|p| p.parent.is_some_and(|p| p != (1, 3)))
    );
    let trials = (0..8).map(|c| trial(c, f64::NAN)).collect();
    let report = smc.update(trials);
    assert_eq!(report.acceptance, Some(0.0));
    assert_eq!((report.rejected, report.particles), (8, 16));
    assert!(report.lambda.is_finite() && report.log_z.is_finite());

    // In a weighted step they, and ratios that are no numbers, are nobody.
    smc.propose_around(8, &[0.1, 0.2]).unwrap();
    let trials = (0..8).map(|c| SmcTrial {
        log_ratio: bad[c as usize % 4],
        ..trial(c, 1.0)
    });
    let report = smc.update(trials.collect());
    assert_eq!((report.rejected, report.particles), (8, 8));
}

#[test]
fn a_run_that_was_stopped_goes_on_with_what_it_has() {
    let mut smc = Smc::new(options(8)).unwrap();
    let proposals = smc.propose(8);
    assert_eq!(smc.update(score(&proposals[..5], linear)).particles, 5);
    let proposals = smc.propose(8);
    assert_eq!(proposals.len(), 8, "five are ancestors of eight");
    let mut trials = score(&proposals, linear);
    trials.drain(2..6);
    let report = smc.update(trials);
    assert_eq!(report.particles, 8 + 4);
    assert_eq!(smc.update(Vec::new()).particles, 12);
    assert_eq!(smc.propose(3).len(), 3);
    assert!(smc.propose(0).is_empty());
    assert_eq!(smc.propose(8).len(), 8);
}

#[test]
fn a_proposal_keeps_its_parents_noise_outside_of_its_block() {
    for (moves, window) in [(Move::Cut, 1), (Move::Window, 1), (Move::Window, 2)] {
        let mut smc = Smc::new(SmcOptions {
            moves,
            window,
            ..options(9)
        })
        .unwrap();
        let first = smc.propose(40);
        // A text of two tokens: the third position's noise is behind its end.
        let short = |candidate| SmcTrial {
            length: 2,
            ..trial(candidate, f64::from(candidate))
        };
        smc.update((0..40).map(short).collect());
        let mut cuts = [0; HORIZON];
        for proposal in smc.propose(40) {
            let (_, parent) = proposal.parent.unwrap();
            cuts[proposal.cut] += 1;
            let (old, new) = (
                noise(&first[parent as usize].trajectory),
                noise(&proposal.trajectory),
            );
            for position in 0..HORIZON {
                let end = if moves == Move::Cut {
                    HORIZON
                } else {
                    proposal.cut + window
                };
                let block = (proposal.cut..end).contains(&position);
                assert_eq!(old[position * WIDTH] != new[position * WIDTH], block);
            }
        }
        assert!(cuts[0] > 8 && cuts[1] > 8 && cuts[2] == 0, "{cuts:?}");
    }
}

#[test]
fn a_mean_moves_the_new_noise_only() {
    let mut smc = Smc::new(options(10)).unwrap();
    let first = smc.propose(16);
    smc.update(score(&first, |_| 1.0));
    let plain = smc.propose(16);
    let steered = smc.propose_around(16, &[0.25, -0.5]).unwrap();
    for (plain, steered) in plain.iter().zip(&steered) {
        let (old, new) = (noise(&plain.trajectory), noise(&steered.trajectory));
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            let moved = index / WIDTH >= plain.cut;
            let shift = if moved {
                [0.25, -0.5][index % WIDTH]
            } else {
                0.0
            };
            assert!((new - old - shift).abs() < 1e-6);
        }
    }
}

#[test]
fn what_is_out_of_range_is_named() {
    let base = || options(11);
    let wrong = [
        (
            "sigma",
            SmcOptions {
                sigma: -1.0,
                ..base()
            },
        ),
        (
            "lambda",
            SmcOptions {
                lambda: -0.1,
                ..base()
            },
        ),
        (
            "lambda",
            SmcOptions {
                lambda: f64::NAN,
                ..base()
            },
        ),
        ("ess", SmcOptions { ess: 0.0, ..base() }),
        ("chain", SmcOptions { chain: 0, ..base() }),
        (
            "window",
            SmcOptions {
                window: 0,
                ..base()
            },
        ),
    ];
    for (field, options) in wrong {
        let error = Smc::new(options).err().unwrap().to_string();
        assert!(error.contains(field), "{error}");
    }
    let steered = |options, mean: &[f32]| {
        let proposed = Smc::new(options).unwrap().propose_around(4, mean);
        proposed.err().unwrap().to_string()
    };
    let window = SmcOptions {
        moves: Move::Window,
        ..base()
    };
    assert!(steered(window, &[0.0; 2]).contains("move"));
    assert!(
        steered(
            SmcOptions {
                sigma: 0.0,
                ..base()
            },
            &[0.0; 2]
        )
        .contains("sigma")
    );
    assert!(steered(base(), &[0.0, f32::NAN]).contains("column 1"));
}

#[test]
fn copies_of_one_candidate_are_one() {
    // Moves are never accepted: the first candidates are all that there is.
    let mut smc = Smc::new(options(3)).unwrap();
    let first = smc.propose(16);
    let trials = score(&first, |v| v[0]);
    let mut last = smc.update(trials);
    for _ in 0..6 {
        let next = smc.propose(16);
        last = smc.update(score(&next, |_| -1e6));
    }
    assert_eq!(last.acceptance, Some(0.0));
    // Eight of sixteen at first, and as few as there may be at the end.
    assert!((last.ess - 2.0).abs() < 1.0, "{last:?}");
    assert!(last.lambda > 0.05, "{last:?}");
    assert!(last.kl < 16.0_f64.ln(), "{last:?}");
}
