//! The search, on a toy of an output matrix without a model: 40 tokens, the one with the largest
//! noise product is chosen.

use aisp_llama::control::{NoiseKey, Search, SearchOptions, Trajectory, Trial};

const WIDTH: usize = 12;
const HORIZON: usize = 6;
const VOCABULARY: usize = 40;
const SAMPLES: u32 = 16;

fn matrix() -> Vec<[f32; WIDTH]> {
    let row = |token: usize| {
        let mut row = [0.0; WIDTH];
        NoiseKey {
            seed: 99,
            iteration: 0,
            candidate: token as u32,
            position: 0,
        }
        .standard_normal(&mut row);
        row
    };
    (0..VOCABULARY).map(row).collect()
}

fn options() -> SearchOptions {
    SearchOptions::new(HORIZON, WIDTH, 0.5, 3)
}

fn tokens(trajectory: &Trajectory, w: &[[f32; WIDTH]]) -> Vec<i32> {
    let token = |position| {
        let mut v = [0.0; WIDTH];
        assert!(trajectory.perturb(position, &mut v));
        let logit = |row: &[f32; WIDTH]| row.iter().zip(&v).map(|(a, b)| a * b).sum::<f32>();
        let best = (0..VOCABULARY).max_by(|&a, &b| logit(&w[a]).total_cmp(&logit(&w[b])));
        best.unwrap() as i32
    };
    (0..HORIZON).map(token).collect()
}

fn trial(candidate: u32, tokens: Vec<i32>, w: &[[f32; WIDTH]], reward: f64) -> Trial {
    let mut features = vec![0.0; WIDTH];
    for &token in &tokens {
        for (sum, x) in features.iter_mut().zip(&w[token as usize]) {
            *sum += x;
        }
    }
    Trial {
        candidate,
        reward,
        tokens,
        features,
    }
}

/// Means of the reward by iteration; `reward` is of the tokens.
fn run(
    options: SearchOptions,
    iterations: u32,
    reward: impl Fn(&[i32]) -> f64,
) -> (Vec<f64>, Search) {
    let w = matrix();
    let mut search = Search::new(options).unwrap();
    let mut means = Vec::new();
    for _ in 0..iterations {
        let proposed = search.propose(SAMPLES);
        let trials: Vec<Trial> = proposed
            .iter()
            .enumerate()
            .map(|(i, t)| {
                let tokens = tokens(t, &w);
                let reward = reward(&tokens);
                trial(i as u32, tokens, &w, reward)
            })
            .collect();
        means.push(trials.iter().map(|t| t.reward).sum::<f64>() / f64::from(SAMPLES));
        search.update(trials);
    }
    (means, search)
}

/// What the rewards of the tests like: tokens along the first coordinate.
fn along_first(tokens: &[i32]) -> f64 {
    let w = matrix();
    tokens.iter().map(|&t| f64::from(w[t as usize][0])).sum()
}

#[test]
fn a_reward_along_a_direction_is_found_and_climbed() {
    let steered = SearchOptions {
        elites: 0,
        ..options()
    };
    let (means, search) = run(steered.clone(), 5, along_first);
    let mean = search.mean().unwrap();
    let norm = mean.iter().map(|u| u * u).sum::<f32>().sqrt();
    // The cosine with the reward's own direction.
    assert!(mean[0] / norm > 0.8, "{mean:?}");
    assert!(means[4] > means[0] + 3.0, "{means:?}");
    // |u| = s·σ√d·√R², so never above s·σ√d.
    assert!(
        f64::from(norm) <= steered.steer * 0.5 * (WIDTH as f64).sqrt() * 1.0001,
        "{norm}"
    );

    let still = SearchOptions {
        steer: 0.0,
        ..steered
    };
    let (means, search) = run(still, 5, along_first);
    assert!(search.mean().is_none());
    assert!((means[4] - means[0]).abs() < 3.0, "{means:?}");
}

#[test]
fn elites_climb_where_no_direction_helps() {
    // A reward of places: token ids must rise. No constant direction explains that.
    let rising = |tokens: &[i32]| tokens.windows(2).filter(|p| p[1] > p[0]).count() as f64;
    let only_elites = SearchOptions {
        steer: 0.0,
        ..options()
    };
    let (means, _) = run(only_elites, 12, rising);
    let late = means[8..].iter().sum::<f64>() / 4.0;
    assert!(late > means[0] + 0.7, "{means:?}");
}

#[test]
fn a_candidate_keeps_its_elites_noise_but_for_the_mutated_positions() {
    let w = matrix();
    let options = SearchOptions {
        elites: 1,
        mutation: 0.3,
        steer: 0.0,
        ..options()
    };
    let mut search = Search::new(options).unwrap();
    let first = search.propose(SAMPLES);
    let trials = first
        .iter()
        .enumerate()
        .map(|(i, t)| trial(i as u32, tokens(t, &w), &w, f64::from(i == 5)))
        .collect();
    assert_eq!(search.update(trials).elites, 1);
    let second = search.propose(200);
    let redrawn: Vec<usize> = second.iter().map(|t| t.redrawn(&first[5])).collect();
    // Never a repetition; on average 0.3 of the positions, and the one forced where none is.
    assert!(redrawn.iter().all(|&n| (1..=HORIZON).contains(&n)));
    let mean = redrawn.iter().sum::<usize>() as f64 / 200.0;
    let expected = 0.3 * HORIZON as f64 + 0.7_f64.powi(HORIZON as i32);
    assert!((mean - expected).abs() < 0.3, "{mean} {expected}");
    let kept = |t: &Trajectory| {
        (0..HORIZON)
            .filter(|&p| t.uniform(p) == first[5].uniform(p))
            .count()
    };
    for (trajectory, redrawn) in second.iter().zip(redrawn) {
        assert_eq!(kept(trajectory), HORIZON - redrawn);
    }
}

#[test]
fn the_order_of_trials_and_a_constant_added_to_the_reward_change_nothing() {
    let w = matrix();
    let proposals = |shift: f64, reversed: bool| {
        let mut search = Search::new(options()).unwrap();
        for _ in 0..2 {
            let proposed = search.propose(SAMPLES);
            let mut trials: Vec<Trial> = proposed
                .iter()
                .enumerate()
                .map(|(i, t)| {
                    let tokens = tokens(t, &w);
                    let reward = along_first(&tokens) + shift;
                    trial(i as u32, tokens, &w, reward)
                })
                .collect();
            if reversed {
                trials.reverse();
            }
            search.update(trials);
        }
        let proposed = search.propose(SAMPLES);
        proposed.iter().map(|t| tokens(t, &w)).collect::<Vec<_>>()
    };
    let plain = proposals(0.0, false);
    assert_eq!(plain, proposals(0.0, true));
    assert_eq!(plain, proposals(64.0, false));
}

#[test]
fn rewards_that_are_no_numbers_are_counted_and_ignored() {
    let w = matrix();
    let mut search = Search::new(options()).unwrap();
    let proposed = search.propose(4);
    let rewards = [f64::NAN, 1.0, f64::INFINITY, 2.0];
    let trials = proposed
        .iter()
        .zip(rewards)
        .enumerate()
        .map(|(i, (t, r))| trial(i as u32, tokens(t, &w), &w, r))
        .collect();
    let report = search.update(trials);
    assert_eq!((report.rejected, report.elites), (2, 2));
    let nothing = search.update(Vec::new());
    assert_eq!((nothing.rejected, nothing.elites), (0, 2));
}

#[test]
fn without_noise_there_is_nothing_to_move() {
    let silent = SearchOptions::new(HORIZON, WIDTH, 0.0, 1);
    let (_, search) = run(silent, 3, along_first);
    assert!(search.mean().is_none());
    let null = SearchOptions {
        null_candidate: true,
        ..options()
    };
    let mut search = Search::new(null).unwrap();
    let mut row = [0.0; WIDTH];
    search.propose(2)[0].perturb(0, &mut row);
    assert_eq!(row, [0.0; WIDTH]);
}

#[test]
fn the_mutation_falls_to_its_floor() {
    let search = Search::new(options()).unwrap();
    let rates: Vec<f64> = (0..20).map(|k| search.mutation(k)).collect();
    assert_eq!((rates[0], rates[1]), (0.4, 0.4));
    assert!(rates.windows(2).all(|r| r[1] <= r[0]));
    assert_eq!(rates[19], 0.08);
    for (field, options) in [
        (
            "steer",
            SearchOptions {
                steer: -1.0,
                ..options()
            },
        ),
        (
            "mutation",
            SearchOptions {
                mutation: 1.5,
                ..options()
            },
        ),
        (
            "mutation-decay",
            SearchOptions {
                mutation_decay: f64::NAN,
                ..options()
            },
        ),
        (
            "sigma",
            SearchOptions {
                sigma: -1.0,
                ..options()
            },
        ),
    ] {
        let error = Search::new(options).err().unwrap().to_string();
        assert!(error.contains(field), "{error}");
    }
}
