//! Weights of candidates.

use super::*;

/// Rewards and penalties whose sums with whole numbers are exact.
fn candidates() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    let value = |range: i32| (-range..range).prop_map(|k| f64::from(k) / 1024.0);
    (2usize..40).prop_flat_map(move |n| {
        (
            prop::collection::vec(value(8 * 1024), n),
            prop::collection::vec(value(2 * 1024), n),
        )
    })
}

fn rule() -> impl Strategy<Value = LambdaRule> {
    prop_oneof![
        (0.01..10.0).prop_map(LambdaRule::Fixed),
        (0.05..1.0).prop_map(LambdaRule::Ess),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn weights_sum_to_one_and_ess_is_theirs((rewards, penalties) in candidates(), rule in rule()) {
        let found = importance_weights(&rewards, &penalties, rule);
        let weights = found.weights();
        prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let ess = 1.0 / weights.iter().map(|w| w * w).sum::<f64>();
        prop_assert!((found.ess - ess).abs() < 1e-9 * ess);
        prop_assert_eq!(found.rejected, 0);
    }

    #[test]
    fn a_constant_added_to_all_rewards_changes_nothing(
        (rewards, penalties) in candidates(), rule in rule(), shift in -1000i32..1000,
    ) {
        let shifted: Vec<f64> = rewards.iter().map(|r| r + f64::from(shift)).collect();
        prop_assert_eq!(
            importance_weights(&shifted, &penalties, rule),
            importance_weights(&rewards, &penalties, rule)
        );
    }

    #[test]
    fn permuting_the_candidates_permutes_the_weights(
        (rewards, penalties) in candidates(), rule in rule(), turn in 0usize..40,
    ) {
        let turned = |values: &[f64]| {
            let mut values = values.to_vec();
            values.reverse();
            values.rotate_left(turn % rewards.len());
            values
        };
        let plain = importance_weights(&rewards, &penalties, rule);
        let permuted = importance_weights(&turned(&rewards), &turned(&penalties), rule);
        for (found, expected) in permuted.weights().iter().zip(turned(&plain.weights())) {
            prop_assert!((found - expected).abs() < 1e-9, "{} {}", found, expected);
        }
    }

    #[test]
    fn ess_rule_hits_its_target_at_any_scale_of_reward(
        jitter in prop::collection::vec(-0.4..0.4, 4usize..40), fraction in 0.3..=1.0, scale in -9i32..9,
    ) {
        // Different rewards, so that every target from 1 to n can be reached.
        let scale = 10f64.powi(scale);
        let rewards: Vec<f64> =
            jitter.iter().enumerate().map(|(i, j)| scale * (i as f64 + j)).collect();
        let n = rewards.len() as f64;
        let found = importance_weights(&rewards, &vec![0.0; rewards.len()], LambdaRule::Ess(fraction));
        prop_assert!((found.ess - fraction * n).abs() < 1e-6 * n, "{} of {}", found.ess, fraction * n);
        let again = importance_weights(&rewards, &vec![0.0; rewards.len()], LambdaRule::Fixed(found.lambda));
        prop_assert_eq!(again.log_weights, found.log_weights);
    }

    #[test]
    fn no_rewards_however_extreme_make_weights_that_are_not_numbers(
        rewards in prop::collection::vec(any::<f64>(), 0..12), rule in rule(),
    ) {
        let found = importance_weights(&rewards, &vec![0.0; rewards.len()], rule);
        let total: f64 = found.weights().iter().sum();
        let valid = rewards.iter().filter(|r| r.is_finite()).count();
        prop_assert!((total - valid.min(1) as f64).abs() < 1e-9);
        prop_assert!(found.lambda.is_finite() && found.lambda > 0.0);
        prop_assert_eq!(found.rejected, rewards.len() - valid);
    }
}

#[test]
fn vanishing_lambda_gives_all_weight_to_the_best_reward() {
    let rewards = [0.3, 1.0, 0.999, -5.0];
    for lambda in [1e-6, 1e-300, 0.0] {
        let found = importance_weights(&rewards, &[0.0, 2.0, 0.0, 1.0], LambdaRule::Fixed(lambda));
        assert_eq!(found.weights(), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(found.ess, 1.0);
    }
}

#[test]
fn equal_rewards_without_penalty_weigh_the_same() {
    for rule in [LambdaRule::Fixed(0.2), LambdaRule::Ess(0.25)] {
        let found = importance_weights(&[3.0; 5], &[0.0; 5], rule);
        found
            .weights()
            .iter()
            .for_each(|w| assert!((w - 0.2).abs() < 1e-15));
        assert!((found.ess - 5.0).abs() < 1e-12);
    }
    assert_eq!(
        importance_weights(&[3.0; 5], &[0.0; 5], LambdaRule::Ess(0.25)).lambda,
        1.0
    );
    let alone = importance_weights(&[-2.0], &[9.0], LambdaRule::Ess(0.25));
    assert_eq!(
        (alone.weights(), alone.ess, alone.lambda),
        (vec![1.0], 1.0, 1.0)
    );
}

#[test]
fn ess_rule_takes_the_nearest_end_when_the_target_is_out_of_reach() {
    let weights = |rewards: &[f64], penalties: &[f64], fraction| {
        importance_weights(rewards, penalties, LambdaRule::Ess(fraction))
    };
    // Three share the best reward: no λ gets below three.
    let tied = weights(&[1.0, 0.0, 1.0, 0.0, 1.0], &[0.0; 5], 0.2);
    assert!((tied.ess - 3.0).abs() < 1e-12 && tied.lambda <= 1.001e-9);
    // The penalty alone leaves one: no λ gets near four.
    let dominated = weights(&[0.0, 0.1, 0.2, 0.3], &[0.0, 50.0, 50.0, 50.0], 1.0);
    assert!(dominated.ess < 3.0 && dominated.rejected == 0);
    // One disaster stretches the spread a million times; the others are still told apart.
    let outlier = weights(&[0.1, 0.2, 0.3, -1e6], &[0.0; 4], 0.5);
    assert!((outlier.ess - 2.0).abs() < 1e-6 && outlier.lambda < 1.0);
    // The penalty makes the size rise and fall: the smaller of two solutions is taken.
    let hump = weights(&[0.0, 1.0], &[0.0, 3.0], 0.75);
    assert!((hump.ess - 1.5).abs() < 1e-6);
    assert!(hump.lambda < 1.0 / 3.0, "{}", hump.lambda);
}

#[test]
fn penalties_of_any_size_only_count_by_their_differences() {
    for offset in [-1e6, 0.0, 1e6] {
        let penalties = [offset, offset + 2.0];
        let found = importance_weights(&[1.0, 3.0], &penalties, LambdaRule::Fixed(2.0));
        // The scores differ by 3/2 − 1/2 − 2 = −1.
        let first = 1.0 / (1.0 + (-1f64).exp());
        assert!((found.weights()[0] - first).abs() < 1e-9);
        assert!((found.weights()[1] - (1.0 - first)).abs() < 1e-9);
    }
}

#[test]
fn without_a_valid_candidate_all_weights_are_zero() {
    for rewards in [&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY][..], &[]] {
        for rule in [LambdaRule::Fixed(0.3), LambdaRule::Ess(0.5)] {
            let found = importance_weights(rewards, &vec![0.0; rewards.len()], rule);
            assert!(found.weights().iter().all(|&w| w == 0.0));
            assert_eq!((found.ess, found.rejected), (0.0, rewards.len()));
        }
    }
}
