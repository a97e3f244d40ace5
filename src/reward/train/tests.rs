use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::fit::{Loss, Problem};
use super::lbfgs::{Stopping, minimise};
use super::{
    Dataset, Example, LinearHead, Objective, Preference, TrainOptions, TrainReport, train,
};
use crate::error::{Error, Result};

struct Normal(ChaCha8Rng);

impl Normal {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn draw(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    fn features(&mut self, n: usize, d: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((n, d), || self.draw() as f32)
    }
}

/// Ratings of responses of equal length, five to a group.
fn ratings(scores: impl Iterator<Item = f64>) -> Dataset {
    Dataset::Ratings(
        scores
            .enumerate()
            .map(|(i, score)| Example {
                prompt: String::new(),
                messages: Vec::new(),
                response: format!("{i:06}"),
                score,
                group: format!("g{}", i / 5),
            })
            .collect(),
    )
}

fn label(positive: bool) -> f64 {
    f64::from(u8::from(positive))
}

fn defaults(dataset: &Dataset, features: &Array2<f32>) -> Result<(LinearHead, TrainReport)> {
    train(dataset, features, &TrainOptions::default())
}

fn reason(result: Result<(LinearHead, TrainReport)>) -> String {
    match result.unwrap_err() {
        error @ Error::Field { .. } => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn ridge_solves_the_normal_equations() {
    // Two features; z is standardised, and (ZᵀZ/n + λI) w = Zᵀy/n with y in its own unit.
    let rows: [[f64; 2]; 5] = [
        [1.0, 10.0],
        [2.0, 14.0],
        [3.0, 11.0],
        [5.0, 19.0],
        [9.0, 12.0],
    ];
    let y = [3.0, 4.0, 1.0, 7.0, 20.0];
    let lambda = 0.3;
    let mean = |f: &dyn Fn(usize) -> f64| (0..5).map(f).sum::<f64>() / 5.0;
    let c = [0, 1].map(|j| mean(&|i| rows[i][j]));
    let s = [0, 1].map(|j| mean(&|i| (rows[i][j] - c[j]).powi(2)).sqrt());
    let z = |i: usize, j: usize| (rows[i][j] - c[j]) / s[j];
    let (a, b) = (1.0 + lambda, mean(&|i| z(i, 0) * z(i, 1)));
    let r = [0, 1].map(|j| mean(&|i| z(i, j) * y[i]));
    let det = a * a - b * b;
    let w = [(a * r[0] - b * r[1]) / det, (a * r[1] - b * r[0]) / det];
    let expected = [w[0] / s[0], w[1] / s[1]];
    let bias = mean(&|i| y[i]) - expected[0] * c[0] - expected[1] * c[1];

    let raw = rows.as_flattened().iter().map(|&x| x as f32).collect();
    let fitted = Problem::new(raw, y.to_vec(), Loss::Squared, true).fit(lambda);
    for (found, expected) in fitted.weight.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    assert!((fitted.bias - bias).abs() < 1e-5);
}

#[test]
fn logistic_regression_of_one_feature_has_the_known_odds() {
    // Of x = 0 one in four is positive, of x = 1 three in four: log-odds ∓ log 3.
    let x = vec![0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    let y = vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0];
    let fitted = Problem::new(x, y, Loss::Logistic, true).fit(1e-12);
    assert!((fitted.bias + 3f64.ln()).abs() < 1e-5, "{fitted:?}");
    assert!((fitted.weight[0] - 2.0 * 3f64.ln()).abs() < 1e-5);
}

#[test]
fn the_gradient_is_that_of_the_value_and_vanishes_at_the_fit() {
    let mut normal = Normal::new(1);
    let (n, d, lambda) = (60, 11, 0.05);
    let features = normal.features(n, d).mapv(|x| 3.0 * x + 7.0);
    let raw = features.into_iter().collect::<Vec<f32>>();
    for loss in [Loss::Squared, Loss::Logistic] {
        let targets = (0..n).map(|_| label(normal.draw() > 0.3)).collect();
        let problem = Problem::new(raw.clone(), targets, loss, true);
        let rows: Vec<usize> = (0..n).collect();
        let mut gradient = vec![0.0; d + 1];
        let x: Vec<f64> = (0..=d).map(|_| normal.draw()).collect();
        problem.value(&rows, lambda, &x, &mut gradient);
        for j in 0..=d {
            let at = |step: f64| {
                let mut x = x.clone();
                x[j] += step;
                problem.value(&rows, lambda, &x, &mut vec![0.0; d + 1])
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (slope - gradient[j]).abs() < 1e-6,
                "{slope} {}",
                gradient[j]
            );
        }
        // The fit, put back onto standardised features.
        if loss == Loss::Logistic {
            let fitted = problem.fit(lambda);
            let x = problem.standardised(&fitted);
            problem.value(&rows, lambda, &x, &mut gradient);
            assert!(gradient.iter().all(|g| g.abs() < 1e-7), "{gradient:?}");
        }
    }
}

#[test]
fn the_solver_stops_where_the_value_is_flat_to_machine_precision() {
    // The value is 1 plus something far below an f64's precision around the minimum.
    let mut calls = 0;
    let mut x = [3e-3, -2e-3];
    let stopping = Stopping {
        gradient: 1e-13,
        steps: 1000,
    };
    minimise(&mut x, stopping, |x, g| {
        calls += 1;
        (g[0], g[1]) = (100.0 * x[0], 0.25 * x[1]);
        1.0 + 50.0 * x[0] * x[0] + 0.125 * x[1] * x[1]
    });
    assert!(x.iter().all(|x| x.abs() < 1e-12), "{x:?}");
    assert!(calls < 50, "{calls}");
}

#[test]
fn scale_and_place_of_the_features_do_not_change_the_scores() {
    let mut normal = Normal::new(2);
    let (n, d) = (80, 5);
    let plain: Vec<f32> = normal.features(n, d).into_iter().collect();
    let targets: Vec<f64> = (0..n).map(|i| label(plain[i * d] > 0.0)).collect();
    // Powers of two and integers: exact in f32.
    let plain: Vec<f32> = plain.iter().map(|x| (x * 256.0).round() / 256.0).collect();
    let moved: Vec<f32> = plain.iter().map(|x| x * 1024.0 + 512.0).collect();
    let fit =
        |raw: &[f32]| Problem::new(raw.to_vec(), targets.clone(), Loss::Logistic, true).fit(0.01);
    let (a, b) = (fit(&plain), fit(&moved));
    for (x, y) in plain.chunks(d).zip(moved.chunks(d)) {
        let score = |row: &[f32], f: &super::fit::Linear| {
            let products = row.iter().zip(&f.weight).map(|(&x, w)| f64::from(x) * w);
            products.sum::<f64>() + f.bias
        };
        assert!((score(x, &a) - score(y, &b)).abs() < 1e-6);
    }
}

#[test]
fn a_feature_that_never_changes_has_no_weight() {
    let mut normal = Normal::new(3);
    let mut features = normal.features(200, 3);
    features.column_mut(1).fill(0.1);
    let dataset = ratings((0..200).map(|i| f64::from(features[[i, 0]]) * 4.0 + 100.0));
    let (head, report) = defaults(&dataset, &features).unwrap();
    assert_eq!(report.objective, Objective::Ridge);
    assert_eq!(head.weight[1], 0.0);
    assert!(report.r_squared.unwrap() > 0.99 && report.pearson.unwrap() > 0.99);
    assert!((head.score(&[1.0, 0.1, 0.0]) - 104.0).abs() < 0.5);
    assert!(report.better_than_chance && report.better_than_length);
}

#[test]
fn bradley_terry_recovers_a_planted_direction() {
    let mut normal = Normal::new(4);
    let (pairs, d) = (600, 8);
    let mut features = normal.features(2 * pairs, d);
    let planted: Vec<f64> = (0..d).map(|_| normal.draw()).collect();
    let mut preferences = Vec::new();
    for i in 0..pairs {
        let value = |row: usize| -> f64 {
            let both = features.row(row).into_iter().zip(&planted);
            both.map(|(&x, w)| f64::from(x) * w).sum()
        };
        if value(2 * i) < value(2 * i + 1) {
            for j in 0..d {
                features.swap([2 * i, j], [2 * i + 1, j]);
            }
        }
        preferences.push(Preference {
            prompt: format!("p{}", i / 3),
            messages: Vec::new(),
            chosen: format!("chosen  {i}"),
            rejected: format!("rejected{i}"),
            group: format!("p{}", i / 3),
        });
    }
    let (head, report) = defaults(&Dataset::Preferences(preferences), &features).unwrap();
    assert_eq!(report.objective, Objective::BradleyTerry);
    assert_eq!(head.bias, 0.0);
    let along: f64 = head
        .weight
        .iter()
        .zip(&planted)
        .map(|(&a, b)| f64::from(a) * b)
        .sum();
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let lengths =
        norm(&mut head.weight.iter().map(|&w| f64::from(w))) * norm(&mut planted.iter().copied());
    assert!(along / lengths > 0.98, "{}", along / lengths);
    assert!(report.accuracy.value > 0.9 && report.better_than_chance);
    assert_eq!(
        (report.majority_accuracy, report.length_accuracy.value),
        (0.5, 0.5)
    );
}

#[test]
fn noise_is_not_called_better_than_chance() {
    let mut called = 0;
    for seed in 0..20 {
        let mut normal = Normal::new(100 + seed);
        let features = normal.features(500, 20);
        let dataset = ratings((0..500).map(|_| label(normal.draw() > 0.0)));
        let (_, report) = defaults(&dataset, &features).unwrap();
        called += usize::from(report.better_than_chance);
        assert_eq!(
            report
                .to_string()
                .contains("not shown to be better than chance"),
            !report.better_than_chance
        );
    }
    // At two standard errors one in forty is expected.
    assert!(called <= 2, "{called} of 20");
}

#[test]
fn a_planted_signal_is_found_and_reported() {
    let mut normal = Normal::new(5);
    let features = normal.features(1000, 16);
    let dataset =
        ratings((0..1000).map(|i| label(f64::from(features[[i, 3]]) + 0.5 * normal.draw() > 0.0)));
    let (head, report) = defaults(&dataset, &features).unwrap();
    assert_eq!(report.objective, Objective::Logistic);
    assert!(
        report.better_than_chance && report.better_than_length,
        "{report}"
    );
    assert!(report.auc.unwrap() > 0.9 && report.log_loss.unwrap() < 0.5);
    assert!(head.weight[3] > 5.0 * head.weight[0].abs());
    assert_eq!(report.training.groups + report.held_out.groups, 200);
    assert_eq!(report.held_out.groups, 40);
    assert!(
        report
            .to_string()
            .ends_with("than the response's length alone\n")
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["objective"], "logistic");
    assert_eq!(json["held_out"]["examples"], 200);
}

#[test]
fn a_label_that_is_the_length_does_not_pass_for_more() {
    let mut normal = Normal::new(6);
    let (mut features, mut examples) = (normal.features(600, 4), Vec::new());
    for i in 0..600 {
        let length = (40.0 + normal.draw() * 7.0) as usize;
        features[[i, 0]] = length as f32;
        examples.push(Example {
            prompt: String::new(),
            messages: Vec::new(),
            response: format!("{i:0length$}"),
            score: label(length < 40),
            group: format!("{i}"),
        });
    }
    let (_, report) = defaults(&Dataset::Ratings(examples), &features).unwrap();
    assert!(report.better_than_chance && !report.better_than_length);
    assert_eq!(report.length_accuracy.value, 1.0);
    assert!(
        report
            .verdict()
            .contains("not shown to be better than the response's length")
    );
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let features = Normal::new(7).features(100, 3);
    let constant = ratings((0..100).map(|_| 3.0));
    assert!(reason(defaults(&constant, &features)).contains("all scores are equal"));
    let graded = ratings((0..100).map(|i| f64::from(i % 3)));
    let with = |objective| TrainOptions {
        objective,
        ..TrainOptions::default()
    };
    let logistic = train(&graded, &features, &with(Objective::Logistic));
    assert!(reason(logistic).starts_with("objective: logistic; the data have 3 different"));
    let pairs = train(&graded, &features, &with(Objective::BradleyTerry));
    assert!(reason(pairs).starts_with("objective: bradley-terry; the data are ratings"));
    let few = ratings((0..40).map(|i| f64::from(i % 3)));
    let few_features = Normal::new(7).features(40, 3);
    assert!(reason(defaults(&few, &few_features)).contains("examples in 2 groups are held out"));
    for (held_out, folds, field) in [
        (0.0, 8, "held-out"),
        (f64::NAN, 8, "held-out"),
        (0.2, 1, "folds"),
    ] {
        let options = TrainOptions {
            held_out,
            folds,
            ..TrainOptions::default()
        };
        assert!(reason(train(&graded, &features, &options)).starts_with(field));
    }
    let mut broken = features.clone();
    broken[[4, 1]] = f32::NAN;
    assert!(matches!(defaults(&graded, &broken), Err(Error::Run(_))));
    assert!(matches!(
        defaults(&graded, &few_features),
        Err(Error::Run(_))
    ));
}

#[test]
fn objectives_are_written_as_they_are_read() {
    for name in ["auto", "ridge", "logistic", "bradley-terry"] {
        let objective: Objective = name.parse().unwrap();
        assert_eq!(objective.to_string(), name);
        assert_eq!(serde_json::to_value(objective).unwrap(), name);
    }
    assert!("bt".parse::<Objective>().is_err());
}
