//! Many runs on one rollout: nobody's answer depends on who else is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aisp_llama::llama::{Model, Token};
use aisp_llama::method::{Facts, Method, Outcome, Proposal, Rounds, Telemetry};
use aisp_llama::reward::{FnReward, Judge, JudgeOptions, Reward, Sample, Scores};
use aisp_llama::rollout::{Ask, RolloutOptions, Steer, TokenChoice};
use aisp_llama::{
    AlignOptions, Aligner, Alignment, Batch, EngineOptions, Error, Event, EventKind, Prompt,
    Result, Rewards, RunId, RunRewards, Stop,
};
use serde_json::Value;

use crate::common::{gemma3, smollm2};

/// A prompt with the method that answers it.
struct Task {
    prompt: &'static str,
    method: &'static str,
    seed: u64,
}

const TASKS: [Task; 4] = [
    Task {
        prompt: "Once upon a time there was a lost dog, and",
        method: "search",
        seed: 3,
    },
    Task {
        prompt: "The capital of France",
        method: "best-of-n:temp=1",
        seed: 3,
    },
    Task {
        prompt: "In the middle of the night the old sailor heard a sound and",
        method: "aisp:preset=paper",
        seed: 5,
    },
    Task {
        prompt: "My favourite colour is",
        method: "args:guided=3",
        seed: 0,
    },
];

impl Task {
    fn options(&self) -> AlignOptions {
        let args = self.method.starts_with("args");
        AlignOptions {
            method: self.method.parse().unwrap(),
            rounds: Rounds {
                samples: if args { 2 } else { 11 },
                iterations: if args { 1 } else { 3 },
                seed: self.seed,
                max_tokens: 10,
            },
            ..AlignOptions::default()
        }
    }

    fn add(&self, batch: &mut Batch, model: &Model, facts: &Facts) -> RunId {
        let options = self.options();
        let tokens = model.tokenize(self.prompt, true, true);
        let rounds = options.rounds.on(&tokens);
        let method = options.method.build(&rounds, facts).unwrap();
        batch
            .add(
                Prompt::Raw(self.prompt.into()),
                tokens,
                options,
                method,
                Stop::new(),
            )
            .unwrap()
    }

    /// What the run says alone, in a context of another size and with other neighbours: none. It says
    /// the same whenever it is asked, and is asked once.
    fn alone(&self, model: &Arc<Model>) -> Value {
        static SAID: Mutex<BTreeMap<(String, &str), Value>> = Mutex::new(BTreeMap::new());
        let place = (model.architecture().to_owned(), self.prompt);
        let mut said = SAID.lock().unwrap();
        said.entry(place)
            .or_insert_with(|| self.ask_alone(model))
            .clone()
    }

    fn ask_alone(&self, model: &Arc<Model>) -> Value {
        let mut aligner = Aligner::new(Arc::clone(model), EngineOptions::default()).unwrap();
        let prompt = Prompt::Raw(self.prompt.into());
        let (options, stop) = (self.options(), Stop::new());
        let found = aligner.align(
            &prompt,
            &mut letters(self.seed),
            &options,
            &stop,
            &mut |_| {},
        );
        timeless(&found.unwrap())
    }
}

/// Another reward for another seed.
fn letters(seed: u64) -> impl Reward {
    let letter = ['e', 'a', 'o', 't', 'i', 's'][seed as usize];
    FnReward::new(letter.to_string(), move |_, response: &str| {
        response.matches(letter).count() as f64 / response.len().max(1) as f64
    })
}

/// The rewards of the runs by their numbers.
struct ByRun(Vec<Box<dyn Reward>>);

impl ByRun {
    fn of_tasks() -> Self {
        Self(
            TASKS
                .iter()
                .map(|task| Box::new(letters(task.seed)) as Box<dyn Reward>)
                .collect(),
        )
    }
}

impl Rewards for ByRun {
    fn of(&mut self, run: RunId) -> RunRewards<'_> {
        RunRewards {
            reward: self.0[run.0 as usize].as_mut(),
            held_out: None,
        }
    }
}

/// A run as JSON, without what the clock said.
fn timeless(alignment: &Alignment) -> Value {
    let mut json = serde_json::to_value(alignment).unwrap();
    json.as_object_mut().unwrap().remove("timings").unwrap();
    for iteration in json["iterations"].as_array_mut().unwrap() {
        iteration
            .as_object_mut()
            .unwrap()
            .remove("seconds")
            .unwrap();
    }
    json
}

fn batch(model: &Arc<Model>, parallel: usize) -> Batch {
    let options = RolloutOptions {
        parallel,
        context: 96,
        ..RolloutOptions::default()
    };
    Batch::new(Arc::clone(model), &options).unwrap()
}

/// Turns until nobody is left.
fn finish(batch: &mut Batch, rewards: &mut dyn Rewards) -> Vec<(RunId, Result<Alignment>)> {
    let mut all = Vec::new();
    while !batch.is_empty() {
        all.extend(batch.turn(rewards, &mut |_| {}));
    }
    all.sort_by_key(|(id, _)| *id);
    all
}

#[test]
fn runs_that_share_a_batch_say_what_they_say_alone() {
    for (model, widths) in [(smollm2(), &[8, 24][..]), (gemma3(), &[24])] {
        let facts = Facts::new(Arc::clone(&model));
        let alone: Vec<Value> = TASKS.iter().map(|task| task.alone(&model)).collect();
        for &parallel in widths {
            let mut batch = batch(&model, parallel);
            for task in &TASKS {
                task.add(&mut batch, &model, &facts);
            }
            let found = finish(&mut batch, &mut ByRun::of_tasks());
            assert_eq!(found.len(), TASKS.len());
            for ((id, found), alone) in found.iter().zip(&alone) {
                let place = format!("{}, {parallel} side by side, {id:?}", model.architecture());
                assert_eq!(&timeless(found.as_ref().unwrap()), alone, "{place}");
            }
        }
    }
}

#[test]
fn a_run_that_is_cancelled_half_way_changes_nobody() {
    // In the first iteration, and in the second one.
    for (model, when) in [(smollm2(), &[4, 17][..]), (gemma3(), &[17])] {
        let facts = Facts::new(Arc::clone(&model));
        let alone = TASKS[0].alone(&model);
        for &turns in when {
            let mut batch = batch(&model, 16);
            let kept = TASKS[0].add(&mut batch, &model, &facts);
            let other = TASKS[1].add(&mut batch, &model, &facts);
            let mut rewards = ByRun::of_tasks();
            for _ in 0..turns {
                assert!(batch.turn(&mut rewards, &mut |_| {}).is_empty());
            }
            batch.cancel(other);
            let found = finish(&mut batch, &mut rewards);
            let [(id, found)] = found.as_slice() else {
                panic!("{} runs were left", found.len());
            };
            assert_eq!(*id, kept);
            assert_eq!(timeless(found.as_ref().unwrap()), alone, "{turns} turns");
        }
    }
}

#[test]
fn a_run_may_come_while_others_are_under_way() {
    let model = smollm2();
    let facts = Facts::new(Arc::clone(&model));
    let mut batch = batch(&model, 8);
    let mut rewards = ByRun::of_tasks();
    TASKS[0].add(&mut batch, &model, &facts);
    for _ in 0..5 {
        batch.turn(&mut rewards, &mut |_| {});
    }
    TASKS[1].add(&mut batch, &model, &facts);
    for ((_, found), task) in finish(&mut batch, &mut rewards).iter().zip(&TASKS) {
        assert_eq!(timeless(found.as_ref().unwrap()), task.alone(&model));
    }
}

/// Fails as a whole.
struct Broken;

impl Reward for Broken {
    fn name(&self) -> String {
        "broken".into()
    }

    fn score(&mut self, _samples: &[Sample<'_>]) -> Result<Scores> {
        Err(Error::Reward("the judge has left".into()))
    }
}

#[test]
fn a_reward_that_fails_ends_its_run_alone() {
    let model = smollm2();
    let facts = Facts::new(Arc::clone(&model));
    let mut batch = batch(&model, 16);
    let mut rewards = ByRun::of_tasks();
    rewards.0[1] = Box::new(Broken);
    TASKS[0].add(&mut batch, &model, &facts);
    TASKS[1].add(&mut batch, &model, &facts);
    let found = finish(&mut batch, &mut rewards);
    assert!(matches!(&found[1].1, Err(Error::Reward(reason)) if reason.contains("has left")));
    let found = timeless(found[0].1.as_ref().unwrap());
    assert_eq!(found, TASKS[0].alone(&model));
}

#[test]
fn a_judge_that_runs_share_tells_each_what_it_tells_it_alone() {
    let model = smollm2();
    let facts = Facts::new(Arc::clone(&model));
    let judge = || {
        let options = JudgeOptions {
            threads: aisp_llama::default_threads(),
            ..JudgeOptions::default()
        };
        Judge::new(Arc::clone(&model), &options).unwrap()
    };
    let mut batch = batch(&model, 16);
    for task in &TASKS[..2] {
        task.add(&mut batch, &model, &facts);
    }
    for ((_, found), task) in finish(&mut batch, &mut judge()).iter().zip(&TASKS) {
        let mut aligner = Aligner::new(Arc::clone(&model), EngineOptions::default()).unwrap();
        let prompt = Prompt::Raw(task.prompt.into());
        let (options, stop) = (task.options(), Stop::new());
        let alone = aligner.align(&prompt, &mut judge(), &options, &stop, &mut |_| {});
        // What it had to read anew is another matter.
        assert_eq!(
            found.as_ref().unwrap().candidates,
            alone.unwrap().candidates
        );
    }
}

/// A method of a caller's own, none of whose candidates gets a second token.
struct Hopeless;

struct Fails;

impl Steer for Fails {
    fn uniform(&self, _position: usize) -> f64 {
        0.0
    }

    fn choose(
        &self,
        tokens: &[Token],
        _logits: &[f32],
        _ask: &mut Ask<'_>,
    ) -> Result<Option<Token>> {
        match tokens.len() {
            0 => Ok(None),
            _ => Err(Error::Run("nothing comes to mind".into())),
        }
    }
}

impl Method for Hopeless {
    fn name(&self) -> &'static str {
        "hopeless"
    }

    fn shape(&self) -> (usize, usize) {
        (3, 1)
    }

    fn propose(&mut self) -> Vec<Proposal> {
        let proposal = Proposal {
            steer: Some(Arc::new(Fails)),
            choice: TokenChoice::Argmax,
            ..Proposal::default()
        };
        vec![proposal; 3]
    }

    fn observe(&mut self, _outcomes: &[Outcome<'_>]) -> Result<Telemetry> {
        Ok(Telemetry::default())
    }
}

#[test]
fn candidates_that_fail_end_their_run_once_and_alone() {
    let model = smollm2();
    let facts = Facts::new(Arc::clone(&model));
    let mut batch = batch(&model, 16);
    TASKS[0].add(&mut batch, &model, &facts);
    let (options, tokens) = (TASKS[1].options(), model.tokenize("Hello", true, true));
    let method = Box::new(Hopeless);
    let hopeless = batch.add(
        Prompt::Raw("Hello".into()),
        tokens,
        options,
        method,
        Stop::new(),
    );
    let found = finish(&mut batch, &mut ByRun::of_tasks());
    let [(_, kept), (id, failed)] = found.as_slice() else {
        panic!("{} ends of two runs", found.len());
    };
    assert_eq!(*id, hopeless.unwrap());
    assert!(matches!(failed, Err(Error::Run(reason)) if reason.contains("nothing comes")));
    assert_eq!(timeless(kept.as_ref().unwrap()), TASKS[0].alone(&model));
}

#[test]
fn events_say_which_run_they_are_of() {
    let model = smollm2();
    let facts = Facts::new(Arc::clone(&model));
    let mut batch = batch(&model, 16);
    let ids = [0, 1].map(|i: usize| TASKS[i].add(&mut batch, &model, &facts));
    let mut finished = Vec::new();
    let mut scored = [0; 2];
    let mut observe = |event: &Event| match &event.kind {
        EventKind::CandidateScored(_) => scored[event.run.0 as usize] += 1,
        EventKind::RunFinished { .. } => finished.push(event.run),
        _ => {}
    };
    let mut rewards = ByRun::of_tasks();
    while !batch.is_empty() {
        batch.turn(&mut rewards, &mut observe);
    }
    assert_eq!(scored, [33, 33]);
    finished.sort();
    assert_eq!(finished, ids);
}
