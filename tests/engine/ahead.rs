//! Iterations that are begun before the last is scored: nothing but the time tells.

use aisp_llama::method::{Facts, Method, Outcome, Proposal, Ranked, Rounds, Telemetry};
use aisp_llama::reward::{FnReward, Reward};
use aisp_llama::rollout::Price;
use aisp_llama::{
    AlignOptions, Aligner, Alignment, Budget, EngineOptions, EventKind, Prompt, Result, RunRewards,
    Stop, StopReason,
};
use serde_json::Value;

use crate::common::smollm2;

/// A method that is made to wait for its outcomes.
struct Waiting(Box<dyn Method>);

impl Method for Waiting {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn shape(&self) -> (usize, usize) {
        self.0.shape()
    }

    fn propose(&mut self) -> Vec<Proposal> {
        self.0.propose()
    }

    fn observe(&mut self, outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        self.0.observe(outcomes)
    }

    fn worth(&self, reward: f64, price: Option<&Price>) -> f64 {
        self.0.worth(reward, price)
    }

    fn answer(&mut self, candidates: &[Ranked<'_>]) -> usize {
        self.0.answer(candidates)
    }
}

/// A run, and how many steps were decoded for it.
fn align(options: &AlignOptions, waiting: bool) -> (Alignment, usize) {
    let engine = EngineOptions {
        parallel: 8,
        ..EngineOptions::default()
    };
    let mut aligner = Aligner::new(smollm2(), engine).unwrap();
    let facts = Facts::new(smollm2());
    let method = options.method.build(&options.rounds, &facts).unwrap();
    let method = match waiting {
        true => Box::new(Waiting(method)),
        false => method,
    };
    // A second reward, so that the run may watch it.
    let mut reward = FnReward::new("brevity", |_, response| -(response.len() as f64));
    let held_out = FnReward::new("length", |_, response| response.len() as f64);
    let mut held_out: Option<Box<dyn Reward>> = Some(Box::new(held_out));
    let mut rewards = RunRewards::new(&mut reward, &mut held_out);
    let prompt = Prompt::user(None, "Say something.");
    let mut steps = 0;
    let mut count =
        |kind: &EventKind| steps += usize::from(matches!(kind, EventKind::Progress { .. }));
    let stop = Stop::new();
    let found = aligner.align_by(
        &prompt,
        &mut rewards,
        options,
        method,
        &stop,
        &mut |event| {
            count(&event.kind);
        },
    );
    (found.unwrap(), steps)
}

fn options(method: &str) -> AlignOptions {
    AlignOptions {
        method: method.parse().unwrap(),
        rounds: Rounds {
            samples: 6,
            iterations: 4,
            max_tokens: 10,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    }
}

/// A run as JSON without what the clock said, and without its usage.
fn timeless(alignment: &Alignment) -> Value {
    let mut json = serde_json::to_value(alignment).unwrap();
    for clock in ["timings", "usage"] {
        json.as_object_mut().unwrap().remove(clock).unwrap();
    }
    for iteration in json["iterations"].as_array_mut().unwrap() {
        let iteration = iteration.as_object_mut().unwrap();
        iteration.remove("seconds").unwrap();
    }
    json
}

#[test]
fn a_method_that_does_not_wait_says_the_same_in_fewer_steps() {
    for method in ["best-of-n:temp=1.5", "soft-best-of-n:temp=1.5"] {
        let (ahead, few) = align(&options(method), false);
        let (waited, many) = align(&options(method), true);
        assert_eq!(timeless(&ahead), timeless(&waited), "{method}");
        assert_eq!(ahead.usage, waited.usage);
        assert!(few < many, "{method}: {few} steps, {many} with waiting");
    }
}

#[test]
fn a_run_that_ends_early_has_the_answer_that_it_has_with_waiting() {
    let of = |change: &dyn Fn(&mut AlignOptions)| {
        let mut options = options("best-of-n:temp=1.5");
        change(&mut options);
        let ends = [false, true].map(|waiting| align(&options, waiting).0);
        assert_eq!(timeless(&ends[0]), timeless(&ends[1]));
        ends
    };
    // What will be spent is known: nothing is begun in vain.
    for (candidates, reward_calls) in [(Some(14), None), (None, Some(18))] {
        let [ahead, waited] = of(&|options| {
            options.budget = Budget {
                candidates,
                reward_calls,
                ..Budget::default()
            };
        });
        assert_eq!(ahead.stop, StopReason::Budget);
        assert_eq!(ahead.usage, waited.usage);
    }
    // What a response will be worth is not: what is thrown away has been generated all the same.
    let second = align(&options("best-of-n:temp=1.5"), true).0.iterations[1].best_reward;
    let [ahead, waited] = of(&|options| options.target_reward = second);
    assert_eq!(ahead.stop, StopReason::TargetReward);
    assert!(ahead.usage.generated_tokens > waited.usage.generated_tokens);
    assert!(ahead.usage.candidates > waited.usage.candidates);
    assert_eq!(ahead.usage.reward_calls, waited.usage.reward_calls);
    of(&|options| options.stop_on_divergence = true);
    // Nothing is begun ahead where tokens are to be paid for in the order of the candidates.
    let [ahead, waited] = of(&|options| options.budget.generated_tokens = Some(100));
    assert_eq!(ahead.stop, StopReason::Budget);
    assert_eq!(ahead.usage, waited.usage);
}
