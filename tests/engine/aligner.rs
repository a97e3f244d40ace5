//! The loop: budgets, stops, failing rewards, and that it does what it is for.

use std::sync::atomic::{AtomicUsize, Ordering};

use aisp_llama::llama::Message;
use aisp_llama::method::Rounds;
use aisp_llama::reward::{FnReward, Reward, Sample, SampleError, Score, Scores};
use aisp_llama::rollout::End;
use aisp_llama::{
    AlignOptions, Aligner, Alignment, Budget, EngineOptions, Error, EventKind, Prompt, Result,
    Stop, StopReason,
};

use crate::common::smollm2;

fn chat(text: &str) -> Prompt {
    Prompt::Chat(vec![Message::new("user", text)])
}

fn options(method: &str) -> AlignOptions {
    AlignOptions {
        method: method.parse().unwrap(),
        rounds: Rounds {
            samples: 8,
            iterations: 3,
            max_tokens: 12,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    }
}

fn aligner() -> Aligner {
    Aligner::new(smollm2(), EngineOptions::default()).unwrap()
}

/// Shorter texts are better.
fn brevity() -> impl Reward {
    FnReward::new("brevity", |_, response| -(response.len() as f64))
}

fn align(mut reward: impl Reward, options: &AlignOptions) -> Result<Alignment> {
    let prompt = chat("Say something.");
    aligner().align(&prompt, &mut reward, options, &Stop::new(), &mut |_| {})
}

#[test]
fn the_budget_is_counted_the_same_way_for_every_method() {
    for (method, candidates) in [("search", 24), ("best-of-n", 24), ("greedy", 1)] {
        let mut tokens = 0;
        let mut scored = 0;
        let alignment = aligner()
            .align(
                &chat("Say something."),
                &mut brevity(),
                &options(method),
                &Stop::new(),
                &mut |event| {
                    if let EventKind::CandidateScored(candidate) = &event.kind {
                        tokens += candidate.tokens - candidate.known;
                        scored += 1;
                    }
                },
            )
            .unwrap();
        assert_eq!(alignment.usage.candidates, candidates, "{method:?}");
        // A text that comes again has the reward that it had.
        let new = alignment.candidates.iter().filter(|c| !c.repeat);
        assert_eq!(alignment.usage.reward_calls, new.count());
        assert_eq!(
            (alignment.usage.generated_tokens, scored),
            (tokens, candidates)
        );
        assert_eq!(alignment.stop, StopReason::Completed);
    }
}

#[test]
fn limits_end_the_run_after_the_iteration_that_reaches_them() {
    let limits = [
        Budget {
            candidates: Some(9),
            ..Budget::default()
        },
        Budget {
            reward_calls: Some(16),
            ..Budget::default()
        },
    ];
    for budget in limits {
        let alignment = align(
            brevity(),
            &AlignOptions {
                budget,
                ..options("best-of-n")
            },
        )
        .unwrap();
        assert_eq!(alignment.stop, StopReason::Budget, "{budget:?}");
        assert_eq!(alignment.iterations.len(), 2, "{budget:?}");
    }
}

#[test]
fn a_limit_of_tokens_pays_for_candidates_in_their_order_whatever_is_batched() {
    for method in ["search", "best-of-n"] {
        tokens_pay_in_order(method);
    }
}

fn tokens_pay_in_order(method: &str) {
    let run = |parallel: usize, limit: Option<usize>| {
        let engine = EngineOptions {
            parallel,
            ..EngineOptions::default()
        };
        let options = AlignOptions {
            budget: Budget {
                generated_tokens: limit,
                ..Budget::default()
            },
            ..options(method)
        };
        let mut aligner = Aligner::new(smollm2(), engine).unwrap();
        let prompt = chat("Say something.");
        let run = aligner.align(&prompt, &mut brevity(), &options, &Stop::new(), &mut |_| {});
        let mut alignment = run.unwrap();
        alignment
            .candidates
            .sort_by_key(|c| (c.iteration, c.candidate));
        // What the first candidates cost is known when all of them are there.
        let all = alignment.candidates.iter_mut();
        all.for_each(|candidate| candidate.too_dear = false);
        alignment
    };
    let whole = run(8, None).candidates;
    for limit in [1, 40, 100, 130] {
        let alignment = run(16, Some(limit));
        assert_eq!(alignment.stop, StopReason::Budget);
        let found = &alignment.candidates;
        if limit > 1 {
            // Those that fit, and not one more.
            let tokens: Vec<usize> = whole.iter().map(|c| c.tokens - c.known).collect();
            assert_eq!(found[..], whole[..found.len()], "{limit}");
            assert_eq!(alignment.usage.candidates, found.len());
            let used = alignment.usage.generated_tokens;
            assert_eq!(used, tokens[..found.len()].iter().sum::<usize>());
            assert!(
                used <= limit && used + tokens[found.len()] > limit,
                "{limit}: {used}"
            );
        } else {
            // Cut short, as there is nothing else to answer with.
            assert_eq!(
                (found.len(), found[0].candidate, found[0].tokens),
                (1, 0, 1)
            );
        }
        let alone = run(1, Some(limit));
        assert_eq!(alone.candidates, *found, "{limit}");
        assert_eq!(alone.usage, alignment.usage);
    }
}

#[test]
fn args_ends_when_it_can_no_longer_be_guided() {
    let of = |iterations, calls| {
        let mut options = options("args:guided=3");
        (options.rounds.samples, options.rounds.iterations) = (1, iterations);
        options.budget.reward_calls = calls;
        align(brevity(), &options).unwrap()
    };
    let (one, greedy) = (of(1, None), of(1, Some(1)));
    let cost = one.usage.reward_calls;
    // The second response is not whole when the calls run out.
    let two = of(8, Some(cost + 7));
    assert_eq!(two.stop, StopReason::Budget);
    assert_eq!(two.candidates, one.candidates);
    assert_eq!(two.iterations.len(), 1);
    assert_eq!(two.usage.candidates, 2);
    assert!(two.usage.reward_calls <= cost + 7);
    assert!(two.usage.generated_tokens > one.usage.generated_tokens);
    // The first one has to be, and is the only one.
    let cut = of(8, Some(cost - 7));
    assert_eq!(cut.stop, StopReason::Budget);
    assert_eq!((cut.candidates.len(), cut.usage.candidates), (1, 1));
    assert!(cut.usage.reward_calls <= cost - 7);
    // Without any guidance it is what the model says by itself.
    assert_eq!(greedy.usage.reward_calls, 1);
    assert_eq!(
        greedy.response,
        align(brevity(), &options("greedy")).unwrap().response
    );
}

#[test]
fn a_run_ends_when_nothing_better_comes_and_says_what_that_saves() {
    // A reward that says nothing is never beaten.
    let options = AlignOptions {
        patience: Some(2),
        rounds: Rounds {
            iterations: 9,
            ..options("best-of-n:temp=1").rounds
        },
        ..options("best-of-n:temp=1")
    };
    let flat = || FnReward::new("flat", |_, _| 1.0);
    let ended = align(flat(), &options).unwrap();
    assert_eq!(ended.stop, StopReason::Patience);
    assert_eq!(ended.iterations.len(), 3);
    let tokens: usize = ended.iterations.iter().map(|i| i.tokens).sum();
    assert_eq!(ended.tokens_saved, Some(tokens * 6 / 3));
    let patient = AlignOptions {
        patience: None,
        ..options.clone()
    };
    let whole = align(flat(), &patient).unwrap();
    assert_eq!(
        (whole.stop, whole.tokens_saved),
        (StopReason::Completed, None)
    );
    let none = AlignOptions {
        patience: Some(0),
        ..options
    };
    let message = align(flat(), &none).unwrap_err().to_string();
    assert!(message.contains("patience"), "{message}");
}

#[test]
fn bad_beginnings_are_given_up_where_the_reward_reads_them() {
    let options = |method: &str| AlignOptions {
        method: method.parse().unwrap(),
        rounds: Rounds {
            samples: 16,
            iterations: 3,
            max_tokens: 24,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    };
    let all_fresh = "search:elites=0:steer=0:early-rejection=auto";
    // A reward that the first letters decide.
    let start = || {
        FnReward::new("start", |_, response| {
            let start: String = response.trim_start().chars().take(4).collect();
            start.bytes().map(f64::from).sum()
        })
    };
    let found = align(start(), &options(all_fresh)).unwrap();
    let given_up = |a: &Alignment| {
        let candidates = a.candidates.iter();
        candidates.filter(|c| c.end == End::GivenUp).count()
    };
    assert!(found.iterations[0].telemetry.prefix_correlation.unwrap() > 0.9);
    assert!(found.usage.given_up > 10, "{:?}", found.usage);
    assert_eq!(found.usage.given_up, given_up(&found));
    assert!(found.usage.candidates > 48);
    for candidate in found.candidates.iter().filter(|c| c.end == End::GivenUp) {
        assert!(candidate.reward.is_none() && candidate.error.is_none());
        assert_eq!((candidate.tokens, candidate.iteration > 0), (6, true));
    }
    // Many are as good as the worst that is kept, and are kept as well: no more tokens than twice
    // as many as whole candidates take.
    assert!(found.usage.generated_tokens < 2 * 48 * 24);
    // Whatever is decoded beside it.
    let engine = EngineOptions {
        parallel: 8,
        ..EngineOptions::default()
    };
    let mut few = Aligner::new(smollm2(), engine).unwrap();
    let (prompt, stop) = (chat("Say something."), Stop::new());
    let again = few.align(
        &prompt,
        &mut start(),
        &options(all_fresh),
        &stop,
        &mut |_| {},
    );
    assert_eq!(again.unwrap().response, found.response);
}

#[test]
fn the_best_so_far_never_falls_and_is_the_answer() {
    let alignment = align(brevity(), &options("search")).unwrap();
    let best: Vec<f64> = alignment
        .iterations
        .iter()
        .map(|i| i.best_reward.unwrap())
        .collect();
    assert!(best.windows(2).all(|w| w[1] >= w[0]), "{best:?}");
    assert_eq!(alignment.reward, best[2]);
    assert_eq!(alignment.reward, -(alignment.response.len() as f64));
}

#[test]
fn aisp_moves_the_mean_reward_towards_what_scores_well() {
    // The share of the letter e has nothing to do with what the model would say.
    let reward = FnReward::new("e", |_, response: &str| {
        response.matches('e').count() as f64 / response.len().max(1) as f64
    });
    let alignment = align(
        reward,
        &AlignOptions {
            rounds: Rounds {
                samples: 16,
                iterations: 10,
                max_tokens: 16,
                ..Rounds::default()
            },
            ..AlignOptions::default()
        },
    )
    .unwrap();
    let means: Vec<f64> = alignment
        .iterations
        .iter()
        .map(|i| i.mean_reward.unwrap())
        .collect();
    let late = means[7..].iter().sum::<f64>() / 3.0;
    assert!(late > means[0], "{means:?}");
}

#[test]
fn nan_and_infinite_rewards_are_counted_and_never_win() {
    let calls = AtomicUsize::new(0);
    let broken = FnReward::new("broken", move |_, response: &str| {
        match calls.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            _ => response.len() as f64,
        }
    });
    let alignment = align(broken, &options("search")).unwrap();
    let without = alignment.candidates.iter().filter(|c| c.reward.is_none());
    assert_eq!(alignment.usage.unscored, without.count());
    assert!(alignment.usage.unscored >= 12, "{:?}", alignment.usage);
    assert_eq!(alignment.reward, alignment.response.len() as f64);
    for iteration in &alignment.iterations {
        assert!(iteration.mean_reward.unwrap().is_finite());
        assert!(iteration.telemetry.u_norm.unwrap().is_finite());
    }
}

#[test]
fn a_reward_that_never_works_ends_with_the_reason() {
    let nan = FnReward::new("nan", |_, _| f64::NAN);
    let error = align(nan, &options("search")).unwrap_err();
    assert!(matches!(error, Error::Unscored(_)), "{error}");
    assert!(error.to_string().contains("NaN"), "{error}");
}

/// Fails as a whole after some samples, or for single ones.
struct Failing {
    fatal: bool,
}

impl Reward for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        if self.fatal {
            return Err(Error::Reward("the judge has left".into()));
        }
        Ok(samples
            .iter()
            .enumerate()
            .map(|(i, _)| match i {
                0 => Ok(Score {
                    reward: 1.0,
                    tokens: 3,
                    ..Score::default()
                }),
                _ => Err(SampleError::TooLong {
                    tokens: 9,
                    limit: 5,
                }),
            })
            .collect())
    }
}

#[test]
fn failures_of_a_sample_are_counted_and_failures_of_the_reward_end_the_run() {
    let alignment = align(Failing { fatal: false }, &options("search")).unwrap();
    assert_eq!(alignment.usage.unscored, 21);
    assert_eq!(alignment.usage.reward_tokens, 9);
    let error = align(Failing { fatal: true }, &options("search")).unwrap_err();
    assert!(matches!(error, Error::Reward(_)));
    assert!(error.to_string().contains("the judge has left"));
}

#[test]
fn candidates_that_are_all_empty_are_an_error_with_a_remedy() {
    let prompt = Prompt::Raw(
        "<|im_start|>user\nWhat is the capital of France? Answer briefly.<|im_end|>\n\
         <|im_start|>assistant\nThe capital of France is Paris."
            .into(),
    );
    let mut options = options("greedy");
    options.rounds.max_tokens = 1;
    let error = aligner()
        .align(&prompt, &mut brevity(), &options, &Stop::new(), &mut |_| {})
        .unwrap_err();
    assert!(matches!(error, Error::Run(_)), "{error}");
    assert!(error.to_string().contains("empty"), "{error}");
    assert!(error.to_string().contains("chat-template"), "{error}");
}

#[test]
fn a_request_to_stop_keeps_what_is_there() {
    for steps in [3, 15] {
        let stop = Stop::new();
        let mut seen = 0;
        let alignment = aligner()
            .align(
                &chat("Say something."),
                &mut brevity(),
                &options("search"),
                &stop,
                &mut |event| {
                    if matches!(event.kind, EventKind::Progress { .. }) {
                        seen += 1;
                        if seen == steps {
                            stop.request();
                        }
                    }
                },
            )
            .unwrap();
        assert_eq!(alignment.stop, StopReason::Interrupted);
        assert!(!alignment.response.is_empty());
        // Every candidate that was begun is counted.
        assert_eq!(alignment.usage.candidates, 8 * alignment.iterations.len());
    }
}

#[test]
fn one_aligner_answers_many_prompts_as_if_each_were_alone() {
    let options = options("search");
    let mut shared = aligner();
    for text in [
        "Say something.",
        "Name a river that flows through several countries.",
        "Hi",
    ] {
        let prompt = chat(text);
        let together = shared
            .align(&prompt, &mut brevity(), &options, &Stop::new(), &mut |_| {})
            .unwrap();
        let alone = aligner()
            .align(&prompt, &mut brevity(), &options, &Stop::new(), &mut |_| {})
            .unwrap();
        assert_eq!(together.candidates, alone.candidates, "{text}");
    }
}
