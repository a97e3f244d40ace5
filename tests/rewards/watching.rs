//! The held-out reward: it watches, is reported, and can end a run.

use aisp_llama::llama::Message;
use aisp_llama::method::Rounds;
use aisp_llama::reward::{FnReward, Reward, Sample, Scores};
use aisp_llama::{
    AlignOptions, Aligner, Alignment, EngineOptions, Error, EventKind, Prompt, Result, Rewards,
    RunRewards, Stop, StopReason,
};

use crate::common::smollm2;

fn letters(letter: char, sign: f64) -> impl Reward {
    FnReward::new(letter.to_string(), move |_, response: &str| {
        sign * response.matches(letter).count() as f64 / response.len().max(1) as f64
    })
}

fn options() -> AlignOptions {
    AlignOptions {
        rounds: Rounds {
            samples: 8,
            iterations: 2,
            max_tokens: 12,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    }
}

fn align(rewards: &mut dyn Rewards, options: &AlignOptions) -> Result<Alignment> {
    let mut aligner = Aligner::new(smollm2(), EngineOptions::default()).unwrap();
    aligner.align(&prompt(), rewards, options, &Stop::new(), &mut |_| {})
}

fn prompt() -> Prompt {
    Prompt::Chat(vec![Message::new("user", "Say something.")])
}

#[test]
fn it_is_reported_and_changes_nothing() {
    let without = align(&mut letters('e', 1.0), &options()).unwrap();
    let mut both = RunRewards {
        reward: &mut letters('e', 1.0),
        held_out: Some(&mut letters('o', 1.0)),
    };
    let with = align(&mut both, &options()).unwrap();
    assert_eq!(without.response, with.response);
    assert_eq!(
        (without.held_out, without.names.held_out_model),
        (None, None)
    );
    assert_eq!(with.names.held_out_model.as_deref(), Some("o"));
    for candidate in &with.candidates {
        let share = candidate.text.matches('o').count() as f64 / candidate.text.len() as f64;
        assert_eq!(candidate.held_out, Some(share));
    }
    assert_eq!(with.held_out, with.candidates[0].held_out);
    let last = &with.iterations[1];
    assert_eq!(last.held_out_best, with.held_out);
    let of_last: Vec<f64> = with
        .candidates
        .iter()
        .filter(|c| c.iteration == 1 && !c.repeat)
        .map(|c| c.held_out.unwrap())
        .collect();
    let mean = of_last.iter().sum::<f64>() / of_last.len() as f64;
    assert!((last.held_out_mean.unwrap() - mean).abs() < 1e-12);
}

#[test]
fn a_run_ends_when_it_falls_while_the_reward_rises() {
    // The second judge is the opposite of the first: any progress is over-optimisation.
    let options = AlignOptions {
        rounds: Rounds {
            samples: 16,
            iterations: 30,
            max_tokens: 12,
            ..Rounds::default()
        },
        stop_on_divergence: true,
        ..AlignOptions::default()
    };
    let mut both = RunRewards {
        reward: &mut letters('e', 1.0),
        held_out: Some(&mut letters('e', -1.0)),
    };
    let found = align(&mut both, &options).unwrap();
    assert_eq!(found.stop, StopReason::Divergence);
    let first = &found.iterations[0];
    let last = found.iterations.last().unwrap();
    assert!(last.mean_reward > first.mean_reward && last.held_out_mean < first.held_out_mean);
}

#[test]
fn stopping_needs_something_to_watch() {
    let options = AlignOptions {
        stop_on_divergence: true,
        ..options()
    };
    let error = align(&mut letters('e', 1.0), &options).unwrap_err();
    assert!(matches!(error, Error::Field { .. }));
    assert!(error.to_string().contains("held-out-reward"), "{error}");
}

#[test]
fn a_failing_one_is_told_and_the_run_goes_on() {
    struct Broken;
    impl Reward for Broken {
        fn name(&self) -> String {
            "broken".into()
        }
        fn score(&mut self, _: &[Sample<'_>]) -> Result<Scores> {
            Err(Error::Reward("out of order".into()))
        }
    }
    let mut told = 0;
    let mut both = RunRewards {
        reward: &mut letters('e', 1.0),
        held_out: Some(&mut Broken),
    };
    let mut aligner = Aligner::new(smollm2(), EngineOptions::default()).unwrap();
    let found = aligner
        .align(
            &prompt(),
            &mut both,
            &options(),
            &Stop::new(),
            &mut |event| {
                if let EventKind::HeldOutFailed { reason } = &event.kind {
                    assert!(reason.contains("out of order"));
                    told += 1;
                }
            },
        )
        .unwrap();
    assert_eq!(told, 1);
    assert_eq!((found.held_out, found.iterations.len()), (None, 2));
}
