//! Updates whose result is known in closed form.

use super::*;

/// a of the linear reward Σ a_t·v_t, [τ, d] = [2, 3].
fn slope() -> Array2<f64> {
    ndarray::array![[0.9, -0.4, 0.0], [0.3, 0.7, -1.1]]
}

#[test]
fn linear_reward_with_exact_sampling_finds_the_optimum_from_any_mean() {
    let (a, lambda, n) = (slope(), 0.8, 30_000);
    let optimum = &a * (SIGMA * SIGMA / lambda);
    for (seed, scale) in [(0, 0.0), (1, 0.3), (2, 0.5), (3, 0.5)] {
        let mut aisp = controller(options(2, 3, 0.0, LambdaRule::Fixed(lambda)));
        let start = some_mean(2, 3, scale, seed);
        aisp.set_mean(start.clone()).unwrap();
        let tilt = &a / lambda - wide(&start) / (SIGMA * SIGMA);
        let scored = score(&aisp, 0, n, |v| dot(&a, v));
        aisp.update(0, &scored);
        assert_within(
            &wide(&aisp.mean().to_owned()),
            &optimum,
            &(tilted_error(&tilt, n) * 5.0),
        );
    }
}

#[test]
fn linear_reward_follows_the_recursion_to_its_fixed_point() {
    let (a, lambda, alpha, n) = (slope(), 1.5, 0.6, 20_000);
    let step = &a * (SIGMA * SIGMA / lambda);
    let fixed_point = &step / (1.0 - alpha);
    let mut aisp = controller(options(2, 3, alpha, LambdaRule::Fixed(lambda)));
    let mut exact = Array2::<f64>::zeros((2, 3));
    let mut tolerance = Array2::<f64>::zeros((2, 3));
    for iteration in 0..12 {
        let before = wide(&aisp.mean().to_owned());
        let tilt = &a / lambda - &before * ((1.0 - alpha) / (SIGMA * SIGMA));
        let error = tilted_error(&tilt, n) * 5.0;
        let scored = score(&aisp, iteration, n, |v| dot(&a, v));
        aisp.update(iteration, &scored);

        let after = wide(&aisp.mean().to_owned());
        assert_within(&after, &(before * alpha + &step), &error);
        exact = exact * alpha + &step;
        tolerance = tolerance * alpha + error;
        assert_within(&after, &exact, &tolerance);
    }
    let distance = (&fixed_point * alpha.powi(12)).mapv(f64::abs);
    assert_within(
        &wide(&aisp.mean().to_owned()),
        &fixed_point,
        &(tolerance + distance),
    );
}

#[test]
fn at_the_fixed_point_of_a_linear_reward_all_candidates_weigh_the_same() {
    let (a, lambda, alpha) = (slope(), 1.5, 0.6);
    let mut aisp = controller(options(2, 3, alpha, LambdaRule::Fixed(lambda)));
    let fixed_point = &a * (SIGMA * SIGMA / (lambda * (1.0 - alpha)));
    aisp.set_mean(fixed_point.mapv(|x| x as f32)).unwrap();
    let scored = score(&aisp, 0, 50, |v| dot(&a, v));
    assert!((aisp.update(0, &scored).ess - 50.0).abs() < 1e-6);
}

#[test]
fn vanishing_lambda_moves_the_mean_to_the_pick_of_best_of_n() {
    let mut options = options(3, 4, 0.999, LambdaRule::Fixed(1e-12));
    options.null_candidate = true;
    let mut aisp = controller(options);
    let scored = score(&aisp, 0, 16, |v| f64::from(v.sum().sin()));
    let best = scored
        .iter()
        .max_by(|a, b| a.reward.total_cmp(&b.reward))
        .unwrap();
    let pick = perturbation(&aisp, 0, best.candidate);
    let report = aisp.update(0, &scored);
    assert_eq!((aisp.mean(), report.ess), (pick.view(), 1.0));
    // The null candidate of the next iteration is that very pick, bit for bit.
    assert_eq!(perturbation(&aisp, 1, 0), pick);
}

#[test]
fn infinite_lambda_without_penalty_gives_the_plain_mean() {
    for (lambda, reward) in [(1e30, 1.0), (0.1, 0.0)] {
        let mut aisp = controller(options(2, 3, 1.0, LambdaRule::Fixed(lambda)));
        aisp.set_mean(some_mean(2, 3, 1.0, 4)).unwrap();
        let scored = score(&aisp, 5, 8, |v| reward * f64::from(v[[0, 0]]));
        let sum = (0..8).fold(Array2::zeros((2, 3)), |sum, i| {
            sum + wide(&perturbation(&aisp, 5, i))
        });
        let report = aisp.update(5, &scored);
        assert_within(
            &wide(&aisp.mean().to_owned()),
            &(sum / 8.0),
            &Array2::from_elem((2, 3), 1e-6),
        );
        assert!((report.ess - 8.0).abs() < 1e-9);
    }
}

/// r(v) = −½ Σ c (v − m)², whose q* is a Gaussian: everything about it is known.
struct Quadratic {
    curvature: Array1<f64>,
    peak: Array1<f64>,
    lambda: f64,
}

impl Quadratic {
    const SIGMA2: f64 = SIGMA * SIGMA;

    fn new() -> Self {
        Self {
            curvature: ndarray::array![1.0, 3.0, 0.2, 2.0],
            peak: ndarray::array![0.5, -0.4, 1.0, 0.0],
            lambda: 0.7,
        }
    }

    fn terms(&self) -> impl Iterator<Item = (f64, f64)> {
        self.curvature
            .iter()
            .copied()
            .zip(self.peak.iter().copied())
    }

    fn reward(&self, v: &Array2<f32>) -> f64 {
        self.terms()
            .zip(v)
            .map(|((c, m), &v)| -0.5 * c * (f64::from(v) - m).powi(2))
            .sum()
    }

    /// λ·log E_P[exp(r/λ)].
    fn free_energy(&self) -> f64 {
        let term = |(c, m): (f64, f64)| {
            let widened = 1.0 + c * Self::SIGMA2 / self.lambda;
            -0.5 * self.lambda * widened.ln() - 0.5 * c * m * m / widened
        };
        self.terms().map(term).sum()
    }

    /// Mean and variance of each coordinate under q*.
    fn optimum(&self) -> Vec<(f64, f64)> {
        let term = |(c, m)| {
            let variance = 1.0 / (1.0 / Self::SIGMA2 + c / self.lambda);
            (m * c / self.lambda * variance, variance)
        };
        self.terms().map(term).collect()
    }
}

#[test]
fn free_energy_bounds_the_objective_of_every_mean() {
    let (quadratic, n) = (Quadratic::new(), 20_000);
    let lambda = quadratic.lambda;
    let mut aisp = controller(options(2, 2, 0.0, LambdaRule::Fixed(lambda)));
    let rewards = |aisp: &WeightedMean, iteration| -> Vec<f64> {
        let scored = score(aisp, iteration, n, |v| quadratic.reward(v));
        scored.iter().map(|s| s.reward).collect()
    };

    let exponentials: Vec<f64> = rewards(&aisp, 0)
        .iter()
        .map(|r| (r / lambda).exp())
        .collect();
    let (mean, error) = mean_and_error(&exponentials);
    let (free_energy, free_error) = (lambda * mean.ln(), lambda * error / mean);
    assert!((free_energy - quadratic.free_energy()).abs() < 5.0 * free_error);

    let best: Vec<f32> = quadratic.optimum().iter().map(|o| o.0 as f32).collect();
    let best = Array2::from_shape_vec((2, 2), best).unwrap();
    let mut means = vec![best, Array2::zeros((2, 2))];
    means.extend((0..20).map(|seed| some_mean(2, 2, 0.1 * seed as f32, seed)));
    for (iteration, mean) in means.into_iter().enumerate() {
        let kl = soft_kl(mean.view(), SIGMA);
        aisp.set_mean(mean).unwrap();
        let (reward, error) = mean_and_error(&rewards(&aisp, 1 + iteration as u32));
        let objective = reward - lambda * kl;
        assert!(
            objective <= free_energy + 5.0 * (free_error + error),
            "{objective} > {free_energy}"
        );
    }
}

#[test]
fn free_energy_is_reached_by_the_optimal_distribution() {
    let quadratic = Quadratic::new();
    let optimum = quadratic.optimum();
    for candidate in 0..100 {
        let mut epsilon = [0.0; 4];
        let epsilon = normals(key(9, 0, candidate, 0), &mut epsilon);
        let draw = |(&e, &(mean, variance)): (&f32, &(f64, f64))| {
            (mean + variance.sqrt() * f64::from(e)) as f32
        };
        let v = Array2::from_shape_vec((1, 4), epsilon.iter().zip(&optimum).map(draw).collect())
            .unwrap();
        // log q*(v) − log p(v); its expectation under q* is KL(q* ‖ P).
        let log_ratio = v.iter().zip(&optimum).map(|(&v, &(mean, variance))| {
            let (v, prior) = (f64::from(v), Quadratic::SIGMA2);
            0.5 * (prior / variance).ln() - 0.5 * (v - mean).powi(2) / variance
                + 0.5 * v * v / prior
        });
        let value = quadratic.reward(&v) - quadratic.lambda * log_ratio.sum::<f64>();
        // F = r − λ·log(q*/p) at every single point.
        assert!((value - quadratic.free_energy()).abs() < 1e-9, "{value}");
    }
}

#[test]
fn free_energy_of_a_linear_reward_is_reached_by_a_gaussian() {
    let (a, lambda, n) = (slope(), 0.8, 20_000);
    let mut aisp = controller(options(2, 3, 0.0, LambdaRule::Fixed(lambda)));
    aisp.set_mean((&a * (SIGMA * SIGMA / lambda)).mapv(|x| x as f32))
        .unwrap();
    let scored = score(&aisp, 0, n, |v| dot(&a, v));
    let (reward, error) = mean_and_error(&scored.iter().map(|s| s.reward).collect::<Vec<_>>());
    let objective = reward - lambda * soft_kl(aisp.mean(), SIGMA);
    let free_energy = SIGMA * SIGMA * a.mapv(|x| x * x).sum() / (2.0 * lambda);
    assert!(
        (objective - free_energy).abs() < 5.0 * error,
        "{objective} {free_energy}"
    );
}

#[test]
fn exact_sampling_finds_the_mean_of_the_optimal_distribution() {
    let (quadratic, n) = (Quadratic::new(), 40_000);
    for (seed, scale) in [(0, 0.0), (1, 0.3)] {
        let rule = LambdaRule::Fixed(quadratic.lambda);
        let mut aisp = controller(options(2, 2, 0.0, rule));
        aisp.set_mean(some_mean(2, 2, scale, seed)).unwrap();
        let scored = score(&aisp, 0, n, |v| quadratic.reward(v));
        let ess = aisp.update(0, &scored).ess;
        assert!(ess > 1000.0);
        for (u, (mean, variance)) in aisp.mean().iter().zip(quadratic.optimum()) {
            // The weighted sum has about `ess` independent terms; doubled, as weight and distance
            // from the mean are not independent.
            let tolerance = 2.0 * 5.0 * (variance / ess).sqrt();
            assert!(
                (f64::from(*u) - mean).abs() < tolerance,
                "{u} {mean} ± {tolerance}"
            );
        }
    }
}
