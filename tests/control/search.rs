//! The search, on a toy of an output matrix without a model: 40 tokens, the one with the largest
//! noise product is chosen.

use aisp_llama::control::{
    Cost, Cut, NoiseKey, PriceGuard, PriceRule, Search, SearchOptions, Start, TokenNats,
    Trajectory, Trial,
};

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
    SearchOptions {
        start: Start::Noise,
        ..SearchOptions::new(HORIZON, WIDTH, 0.5, 3)
    }
}

/// v behind `tokens`.
fn perturbation(trajectory: &Trajectory, w: &[[f32; WIDTH]], tokens: &[i32]) -> [f32; WIDTH] {
    let mut v = [0.0; WIDTH];
    let row_of = |token: i32, row: &mut [f32]| {
        row.copy_from_slice(&w[token as usize]);
        Ok::<(), ()>(())
    };
    assert_eq!(trajectory.perturb(tokens, row_of, &mut v), Ok(true));
    v
}

fn tokens(trajectory: &Trajectory, w: &[[f32; WIDTH]]) -> Vec<i32> {
    let mut tokens = Vec::new();
    for _ in 0..HORIZON {
        let v = perturbation(trajectory, w, &tokens);
        let logit = |row: &[f32; WIDTH]| row.iter().zip(&v).map(|(a, b)| a * b).sum::<f32>();
        let best = (0..VOCABULARY).max_by(|&a, &b| logit(&w[a]).total_cmp(&logit(&w[b])));
        tokens.push(best.unwrap() as i32);
    }
    tokens
}

fn trial(candidate: u32, tokens: Vec<i32>, w: &[[f32; WIDTH]], reward: f64) -> Trial {
    let mut features = vec![0.0; WIDTH];
    for (at, &token) in tokens.iter().enumerate() {
        if tokens[..at].contains(&token) {
            continue;
        }
        for (sum, x) in features.iter_mut().zip(&w[token as usize]) {
            *sum += x;
        }
    }
    Trial {
        candidate,
        reward,
        tokens,
        features,
        ..Trial::default()
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
fn a_mean_pushes_towards_nothing_that_the_response_says_already() {
    let w = matrix();
    let null = SearchOptions {
        elites: 0,
        null_candidate: true,
        ..options()
    };
    let mut search = Search::new(null).unwrap();
    let proposed = search.propose(200);
    let texts: Vec<Vec<i32>> = proposed.iter().map(|t| tokens(t, &w)).collect();
    let trials = (0..).zip(&texts);
    search.update(
        trials
            .map(|(i, t)| trial(i, t.clone(), &w, along_first(t)))
            .collect(),
    );
    // The mean row of what was said, each word of a text once.
    let words = texts.iter().flat_map(|text| {
        let first = |&at: &usize| !text[..at].contains(&text[at]);
        (0..text.len()).filter(first).map(|at| text[at] as usize)
    });
    let words: Vec<usize> = words.collect();
    let centre = |k| words.iter().map(|&t| w[t][k]).sum::<f32>() / words.len() as f32;
    let centre: Vec<f32> = (0..WIDTH).map(centre).collect();
    let push = |v: &[f32; WIDTH], token: i32| -> f32 {
        let terms = (0..WIDTH).map(|k| v[k] * (w[token as usize][k] - centre[k]));
        terms.sum()
    };
    // The mean itself, behind nothing.
    let candidate = &search.propose(1)[0];
    let v = perturbation(candidate, &w, &[]);
    let by_push = |&a: &i32, &b: &i32| push(&v, a).total_cmp(&push(&v, b));
    let most = (0..VOCABULARY as i32).max_by(by_push).unwrap();
    let least = (0..VOCABULARY as i32).min_by(by_push).unwrap();
    assert!(push(&v, most) > 0.5 && push(&v, least) < 0.0);
    let behind = perturbation(candidate, &w, &[most]);
    assert!(push(&behind, most).abs() < 1e-4 * push(&v, most));
    // A word again takes nothing more, and one that it pushes away from takes nothing.
    assert_eq!(perturbation(candidate, &w, &[least]), v);
    assert_eq!(perturbation(candidate, &w, &[least, most]), behind);
    // Whatever was asked before.
    assert_eq!(perturbation(candidate, &w, &[]), v);
    let again = perturbation(candidate, &w, &[most, most]);
    let apart = again.iter().zip(&behind).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-5);
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
    assert!(late > means[0] + 0.25, "{means:?}");
}

/// The first iteration with trials made by `make` of each candidate's number and tokens, and the
/// search after it.
fn after_first(
    options: SearchOptions,
    make: impl Fn(u32, Vec<i32>) -> Trial,
) -> (Vec<Trajectory>, Search) {
    let w = matrix();
    let mut search = Search::new(options).unwrap();
    let first = search.propose(SAMPLES);
    let trials = (0..).zip(&first).map(|(i, t)| make(i, tokens(t, &w)));
    search.update(trials.collect());
    (first, search)
}

/// Positions from the start whose noise is the same.
fn kept(a: &Trajectory, b: &Trajectory) -> usize {
    let same = |&position: &usize| a.uniform(position) == b.uniform(position);
    (0..HORIZON).take_while(same).count()
}

#[test]
fn a_child_keeps_its_elites_noise_up_to_its_cut_and_nothing_behind_it() {
    let w = matrix();
    let options = SearchOptions {
        elites: 1,
        fresh: 0.0,
        steer: 0.0,
        ..options()
    };
    let best = |i, tokens| trial(i, tokens, &w, f64::from(i == 5));
    let (first, mut search) = after_first(options.clone(), best);
    let second = search.propose(600);
    let mut cuts = [0; HORIZON + 1];
    for child in &second {
        let cut = kept(child, &first[5]);
        cuts[cut] += 1;
        assert_eq!(child.redrawn(&first[5]), HORIZON - cut);
    }
    // Evenly over the answer where no entropy is known, and never a copy.
    assert_eq!(cuts[HORIZON], 0);
    assert!(
        cuts[..HORIZON].iter().all(|&n| (70..130).contains(&n)),
        "{cuts:?}"
    );

    // Where it is known, at the tokens that the model was undecided at.
    let undecided = |i, tokens| {
        let entropy = |t| if t == 2 { 3.0 } else { 0.0 };
        Trial {
            nats: (0..HORIZON)
                .map(|t| TokenNats {
                    surprise: 1.0,
                    entropy: entropy(t),
                    ..TokenNats::default()
                })
                .collect(),
            ..trial(i, tokens, &w, f64::from(i == 5))
        }
    };
    let (first, mut search) = after_first(options.clone(), undecided);
    assert!(
        search
            .propose(100)
            .iter()
            .all(|child| kept(child, &first[5]) == 2)
    );
    let even = SearchOptions {
        cut: Cut::Even,
        ..options
    };
    let (first, mut search) = after_first(even, undecided);
    assert!(
        search
            .propose(100)
            .iter()
            .any(|child| kept(child, &first[5]) != 2)
    );
}

#[test]
fn what_is_kept_scales_with_the_length() {
    for horizon in [24, 240] {
        let options = SearchOptions {
            elites: 1,
            fresh: 0.0,
            steer: 0.0,
            ..SearchOptions::new(horizon, WIDTH, 0.5, 3)
        };
        let mut search = Search::new(options).unwrap();
        let first = search.propose(1);
        let alone = Trial {
            tokens: vec![1; horizon],
            ..Trial::default()
        };
        search.update(vec![alone]);
        let children = search.propose(800);
        let share = |t: &Trajectory| 1.0 - t.redrawn(&first[0]) as f64 / horizon as f64;
        let mean = children.iter().map(share).sum::<f64>() / 800.0;
        assert!((mean - 0.5).abs() < 0.05, "{horizon}: {mean}");
    }
}

#[test]
fn a_share_of_the_candidates_is_drawn_anew() {
    let w = matrix();
    let options = SearchOptions {
        elites: 1,
        fresh: 0.25,
        steer: 0.0,
        ..options()
    };
    let best = |i, tokens| trial(i, tokens, &w, f64::from(i == 5));
    let (first, mut search) = after_first(options, best);
    let second = search.propose(SAMPLES);
    assert!(second[..4].iter().all(|t| t.redrawn(&first[5]) == HORIZON));
}

/// A trial that costs so many nats a token.
fn priced(candidate: u32, tokens: Vec<i32>, w: &[[f32; WIDTH]], reward: f64, price: f64) -> Trial {
    Trial {
        cost: Some(Cost {
            nats: price * HORIZON as f64,
            per_token: price,
            surprise: 2.0 + price,
        }),
        ..trial(candidate, tokens, w, reward)
    }
}

#[test]
fn what_is_too_dear_is_no_elite_and_turns_the_mean_down() {
    let w = matrix();
    // Candidate 5 has the best reward and is far dearer than the others.
    let make = |i: u32, tokens| {
        let price = if i == 5 { 5.0 } else { f64::from(i % 3) * 0.1 };
        priced(
            i,
            tokens,
            &w,
            f64::from(i == 5) + 0.01 * f64::from(i),
            price,
        )
    };
    let one = SearchOptions {
        elites: 1,
        fresh: 0.0,
        steer: 0.0,
        ..options()
    };
    let (first, mut search) = after_first(one.clone(), make);
    assert!(
        search
            .propose(50)
            .iter()
            .all(|t| kept(t, &first[15]) > 0 || t.redrawn(&first[15]) == HORIZON)
    );
    assert_eq!(
        search.worth(
            9.0,
            Some(Cost {
                nats: 30.0,
                per_token: 5.0,
                surprise: 7.0
            })
        ),
        f64::NEG_INFINITY
    );
    let free = SearchOptions {
        guard: PriceGuard::new(PriceRule::Off, None).unwrap(),
        ..one
    };
    let (first, mut search) = after_first(free, make);
    let children = search.propose(50);
    assert!(children.iter().any(|t| kept(t, &first[5]) > 0));

    // A mean that makes candidates dear gets shorter; one that does not, does not.
    let length = |price: f64| {
        let mut search = Search::new(SearchOptions {
            elites: 0,
            ..options()
        })
        .unwrap();
        let mut norm = 0.0;
        for iteration in 0..4 {
            let proposed = search.propose(SAMPLES);
            let trials = (0..).zip(&proposed).map(|(i, t)| {
                let tokens = tokens(t, &w);
                let reward = along_first(&tokens);
                let own = f64::from(i % 2) * 0.1;
                priced(i, tokens, &w, reward, own + f64::from(iteration) * price)
            });
            norm = search.update(trials.collect()).u_norm;
        }
        norm
    };
    assert!(
        length(1.0) < 0.5 * length(0.0),
        "{} {}",
        length(1.0),
        length(0.0)
    );
}

#[test]
fn a_repeat_counts_once() {
    let w = matrix();
    let reports = [1, 5].map(|copies| {
        let mut search = Search::new(SearchOptions {
            fresh: 0.0,
            ..options()
        })
        .unwrap();
        let first = search.propose(SAMPLES);
        let texts: Vec<Vec<i32>> = first.iter().map(|t| tokens(t, &w)).collect();
        let trials = |texts: &[Vec<i32>]| -> Vec<Trial> {
            let all = (0..).zip(texts);
            all.map(|(i, t)| trial(i, t.clone(), &w, along_first(t)))
                .collect()
        };
        search.update(trials(&texts));
        let mut report = None;
        for _ in 0..copies {
            // The same texts, whatever is proposed.
            search.propose(SAMPLES);
            report = Some(search.update(trials(&texts)));
        }
        report.unwrap()
    });
    assert_eq!(reports[0], reports[1]);
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
fn a_null_candidate_has_no_noise() {
    let null = SearchOptions {
        null_candidate: true,
        ..options()
    };
    let mut search = Search::new(null).unwrap();
    let row = perturbation(&search.propose(2)[0], &matrix(), &[]);
    assert_eq!(row, [0.0; WIDTH]);
}

#[test]
fn options_out_of_range_are_named() {
    let refused = |field: &str, options: SearchOptions| {
        let error = Search::new(options).err().unwrap().to_string();
        assert!(error.contains(field), "{error}");
    };
    let of = options;
    refused(
        "steer",
        SearchOptions {
            steer: -1.0,
            ..of()
        },
    );
    refused("fresh", SearchOptions { fresh: 1.5, ..of() });
    refused(
        "sigma",
        SearchOptions {
            sigma: -1.0,
            ..of()
        },
    );
    let guard = |rule, limit| PriceGuard::new(rule, limit).unwrap_err().to_string();
    assert!(guard(PriceRule::Weight(-1.0), None).contains("price"));
    assert!(guard(PriceRule::Limit, Some(f64::NAN)).contains("price-limit"));
}
