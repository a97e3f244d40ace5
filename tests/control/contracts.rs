//! What an update promises whatever the reward.

use super::*;

#[test]
fn the_update_regenerates_exactly_what_perturb_added() {
    let mut aisp = controller(options(3, 5, 0.9, LambdaRule::Fixed(0.4)));
    aisp.set_mean(some_mean(3, 5, 1.0, 1)).unwrap();
    let alone = [entry(6, 0.1, 3)];
    let v = perturbation(&aisp, 2, 6);
    let mut row = [1.5, -2.0, 0.25, 3.0, 0.0];
    let before = row;
    aisp.perturb(2, 6, 1, &mut row);
    for ((after, before), v) in row.iter().zip(before).zip(v.row(1)) {
        assert_eq!(*after, before + v);
    }
    aisp.update(2, &alone);
    assert_eq!(
        aisp.mean(),
        v,
        "the only candidate is the new mean, bit for bit"
    );
}

#[test]
fn rows_from_the_horizon_on_are_left_as_they_are() {
    let mut aisp = controller(options(3, 5, 0.9, LambdaRule::Fixed(0.4)));
    aisp.set_mean(some_mean(3, 5, 1.0, 1)).unwrap();
    for position in [3, 4, 1 << 40, usize::MAX] {
        let mut row = [0.1, 0.2, 0.3, 0.4, 0.5];
        aisp.perturb(0, 0, position, &mut row);
        assert_eq!(row, [0.1, 0.2, 0.3, 0.4, 0.5]);
    }
}

#[test]
fn the_order_of_the_candidates_does_not_change_the_mean_by_a_bit() {
    for rule in [LambdaRule::Fixed(0.3), LambdaRule::Ess(0.4)] {
        let start = || {
            let mut aisp = controller(options(4, 6, 0.9, rule));
            aisp.set_mean(some_mean(4, 6, 0.5, 2)).unwrap();
            aisp
        };
        let (mut one, mut two) = (start(), start());
        let mut scored = score(&one, 0, 17, |v| f64::from(v.sum()));
        let first = one.update(0, &scored);
        scored.reverse();
        scored.swap(2, 9);
        assert_eq!(two.update(0, &scored), first);
        assert_eq!(one.mean(), two.mean());
    }
}

#[test]
fn rejected_rewards_never_reach_the_mean() {
    for (rule, mask) in [
        (LambdaRule::Fixed(0.3), true),
        (LambdaRule::Ess(0.5), false),
    ] {
        let start = || {
            let mut aisp = controller(WeightedOptions {
                mask_past_end: mask,
                ..options(3, 4, 0.9, rule)
            });
            aisp.set_mean(some_mean(3, 4, 0.5, 3)).unwrap();
            aisp
        };
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let (mut clean, mut dirty, mut hopeless) = (start(), start(), start());
        let scored = score(&clean, 0, 9, |v| f64::from(v.sum()));
        let mut mixed = scored.clone();
        mixed.extend((9..15).map(|i| entry(i, bad[i as usize % 3], 3)));
        let expected = clean.update(0, &scored);
        let found = dirty.update(0, &mixed);
        assert_eq!(dirty.mean(), clean.mean());
        assert_eq!(
            found,
            UpdateReport {
                rejected: 6,
                ..expected
            }
        );

        let before = hopeless.mean().to_owned();
        assert_eq!(hopeless.update(0, &mixed[9..]).rejected, 6);
        assert_eq!(hopeless.update(0, &[]).ess, 0.0);
        assert_eq!(
            hopeless.mean(),
            before,
            "without a valid candidate the mean stays"
        );
    }
}

#[test]
fn a_row_is_averaged_over_the_candidates_that_reached_it() {
    let mut aisp = controller(options(4, 3, 1.0, LambdaRule::Fixed(1.0)));
    aisp.set_mean(some_mean(4, 3, 1.0, 5)).unwrap();
    let before = aisp.mean().to_owned();
    let lengths = [1, 3, 2, 0, 3];
    let scored = with_lengths(&[2.0; 5], &lengths);
    let drawn: Vec<_> = (0..5).map(|i| wide(&perturbation(&aisp, 0, i))).collect();
    aisp.update(0, &scored);
    for t in 0..3 {
        let alive: Vec<_> = (0..5).filter(|&i| lengths[i] > t).collect();
        for j in 0..3 {
            let mean = alive.iter().map(|&i| drawn[i][[t, j]]).sum::<f64>() / alive.len() as f64;
            assert!((f64::from(aisp.mean()[[t, j]]) - mean).abs() < 1e-6);
        }
    }
    assert_eq!(aisp.mean().row(3), before.row(3), "nobody got there");
}

#[test]
fn late_rows_are_normalised_even_where_all_weights_vanish() {
    let mut aisp = controller(options(2, 3, 1.0, LambdaRule::Fixed(1.0)));
    let scored = [entry(0, 1e6, 1), entry(1, 3f64.ln(), 2), entry(2, 0.0, 2)];
    let drawn: Vec<_> = (0..3).map(|i| wide(&perturbation(&aisp, 0, i))).collect();
    aisp.update(0, &scored);
    for j in 0..3 {
        assert_eq!(f64::from(aisp.mean()[[0, j]]), drawn[0][[0, j]]);
        let late = 0.75 * drawn[1][[1, j]] + 0.25 * drawn[2][[1, j]];
        assert!((f64::from(aisp.mean()[[1, j]]) - late).abs() < 1e-6);
    }
}

#[test]
fn noise_past_the_end_matters_only_without_the_mask() {
    let lengths = [2, 4, 1, 3];
    let run = |mask: bool, past_end: f32| {
        let mut aisp = controller(WeightedOptions {
            mask_past_end: mask,
            ..options(4, 3, 0.5, LambdaRule::Fixed(0.5))
        });
        aisp.set_mean(some_mean(4, 3, 0.5, 6)).unwrap();
        let rewards = [0.3, 0.1, 0.9, 0.4];
        let scored = with_lengths(&rewards, &lengths);
        let report = aisp.update_with(&scored, |candidate, position, row| {
            key(1, 0, candidate, position as u32).standard_normal(row);
            if position >= lengths[candidate as usize] {
                row.fill(past_end);
            }
        });
        (aisp.mean().to_owned(), report)
    };
    assert_eq!(run(true, 0.0), run(true, 5.0));
    assert_ne!(run(false, 0.0), run(false, 5.0));
}

#[test]
fn the_null_candidate_is_the_mean_itself() {
    let plain = options(3, 4, 0.9, LambdaRule::Fixed(0.4));
    let mut with = controller(WeightedOptions {
        null_candidate: true,
        ..plain.clone()
    });
    let mut without = controller(plain);
    let mean = some_mean(3, 4, 1.0, 8);
    with.set_mean(mean.clone()).unwrap();
    without.set_mean(mean.clone()).unwrap();
    assert_eq!(perturbation(&with, 3, 0), mean);
    assert_ne!(perturbation(&without, 3, 0), mean);
    assert_eq!(perturbation(&with, 3, 1), perturbation(&without, 3, 1));
    with.update(3, &with_rewards(&[1.0], 3));
    assert_eq!(with.mean(), mean);
}

#[test]
fn without_noise_perturb_adds_the_mean_and_the_mean_stays() {
    let mut aisp = controller(WeightedOptions {
        sigma: 0.0,
        ..options(2, 3, 0.5, LambdaRule::Ess(0.5))
    });
    assert_eq!(perturbation(&aisp, 0, 3), Array2::<f32>::zeros((2, 3)));
    let report = aisp.update(0, &with_rewards(&[1.0, 2.0, 3.0], 2));
    assert_eq!((report.kl, report.u_norm), (0.0, 0.0));
    let mean = some_mean(2, 3, 1.0, 1);
    aisp.set_mean(mean.clone()).unwrap();
    assert_eq!(perturbation(&aisp, 0, 3), mean);
    let report = aisp.update(0, &with_rewards(&[1.0, 2.0, 3.0], 2));
    assert_eq!(
        (aisp.mean(), report.u_norm, report.kl),
        (mean.view(), 0.0, f64::INFINITY)
    );
    assert!(
        (report.ess - 1.5).abs() < 1e-6,
        "the weights are still reported"
    );
}

#[test]
fn the_report_describes_the_mean_after_the_update() {
    let mut aisp = controller(options(2, 2, 0.9, LambdaRule::Fixed(0.4)));
    let scored = score(&aisp, 0, 8, |v| f64::from(v.sum()));
    let report = aisp.update(0, &scored);
    let squares = wide(&aisp.mean().to_owned()).mapv(|u| u * u).sum();
    assert!((report.kl - squares / (2.0 * SIGMA * SIGMA)).abs() < 1e-12);
    assert!((report.u_norm - (squares / 4.0).sqrt() / SIGMA).abs() < 1e-12);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["lambda"], 0.4);
}

#[test]
fn impossible_options_are_refused_by_name_and_value() {
    type Change<'a> = &'a dyn Fn(&mut WeightedOptions);
    let good = WeightedOptions::new(4, 8, 0.7, 0);
    assert_eq!((good.alpha, good.lambda), (0.999, LambdaRule::Ess(0.5)));
    assert!(good.mask_past_end && !good.null_candidate);
    let refused = |change: Change| {
        let mut options = good.clone();
        change(&mut options);
        WeightedMean::new(options)
            .expect_err("impossible")
            .to_string()
    };
    let cases: [(Change, &str); 13] = [
        (&|o| o.horizon = 0, "horizon = 0"),
        (&|o| o.horizon = 1 << 32, "horizon = 4294967296"),
        (&|o| o.width = 0, "width = 0"),
        (&|o| o.width = usize::MAX, "width = 18446744073709551615"),
        (&|o| o.sigma = -0.5, "sigma = -0.5"),
        (&|o| o.sigma = f64::NAN, "sigma = NaN"),
        (&|o| o.sigma = f64::INFINITY, "sigma = inf"),
        (&|o| o.alpha = 1.5, "alpha = 1.5"),
        (&|o| o.alpha = f64::NAN, "alpha = NaN"),
        (&|o| o.lambda = LambdaRule::Fixed(0.0), "lambda = 0"),
        (
            &|o| o.lambda = LambdaRule::Fixed(f64::INFINITY),
            "lambda = inf",
        ),
        (&|o| o.lambda = LambdaRule::Ess(1.25), "ess = 1.25"),
        (&|o| o.lambda = LambdaRule::Ess(0.0), "ess = 0"),
    ];
    for (change, start) in cases {
        let message = refused(change);
        assert!(
            message.starts_with(&format!("{start} is not possible: it must be ")),
            "{message}"
        );
    }
}

#[test]
fn a_mean_of_the_wrong_shape_or_not_finite_is_refused() {
    let mut aisp = controller(options(2, 3, 0.9, LambdaRule::Fixed(1.0)));
    let wrong = aisp
        .set_mean(Array2::zeros((3, 2)))
        .unwrap_err()
        .to_string();
    assert_eq!(
        wrong,
        "the mean has 3 rows of width 2, but the controller has horizon 2 and width 3"
    );
    let mut mean = Array2::zeros((2, 3));
    mean[[1, 2]] = f32::NAN;
    let broken = aisp.set_mean(mean).unwrap_err().to_string();
    assert_eq!(
        broken,
        "the mean is NaN at position 1, column 2: it must be finite"
    );
    assert_eq!(aisp.mean(), Array2::<f32>::zeros((2, 3)));
}

#[test]
fn the_mask_does_not_charge_a_candidate_for_its_length() {
    // Equal rewards, a mean of |u_t| = σ√d per row and lengths from 1 to τ: the weights may
    // only differ by the penalty's own noise, not by (1−α)·d nats for every row used.
    let (horizon, width, n) = (64, 256, 16);
    let mut aisp = controller(options(horizon, width, 0.99, LambdaRule::Fixed(1.0)));
    aisp.set_mean(some_mean(horizon, width, SIGMA as f32, 3))
        .unwrap();
    let lengths: Vec<usize> = (0..n).map(|i| 1 + i * (horizon - 1) / (n - 1)).collect();
    let report = aisp.update(0, &with_lengths(&vec![1.0; n], &lengths));
    // The penalty's noise has sd up to (1−α)√(dτ) ≈ 1.3 nats; by length it would be 164.
    assert!(report.ess > 2.0, "{}", report.ess);
}
