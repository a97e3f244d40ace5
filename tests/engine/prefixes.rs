//! Candidates that begin with what others have written: the same bits, whatever is held and whatever
//! has to be decoded again.

use std::ops::ControlFlow;
use std::sync::Arc;

use aisp_llama::control::{WeightedMean, WeightedOptions};
use aisp_llama::llama::{Model, Token};
use aisp_llama::method::Rounds;
use aisp_llama::reward::FnReward;
use aisp_llama::rollout::{
    Beginning, Candidate, Form, Job, PromptId, Rollout, RolloutOptions, Steer, TokenChoice, Work,
};
use aisp_llama::{AlignOptions, Aligner, EngineOptions, Error, Prompt, Result, Stop};

use crate::common::{gemma3, smollm2};

/// Noise of one candidate, and its chance.
struct Noise {
    weights: WeightedMean,
    candidate: u32,
}

impl Steer for Noise {
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        self.weights.perturb(0, self.candidate, tokens.len(), row);
        Ok(true)
    }

    fn uniform(&self, position: usize) -> f64 {
        (0.17 * f64::from(self.candidate) + 0.37 * position as f64).fract()
    }
}

fn job(model: &Model, prompt: PromptId, candidate: u32, beginning: Beginning) -> Job {
    let options = WeightedOptions::new(64, model.width(), 0.2, 5);
    Job {
        steer: Some(Arc::new(Noise {
            weights: WeightedMean::new(options).unwrap(),
            candidate,
        })),
        choice: TokenChoice::PLAIN,
        beginning,
        // Some end before others.
        ..Job::new(prompt, 6 + candidate as usize % 4 * 2)
    }
}

fn begin(of: &Candidate, length: usize) -> Beginning {
    let pairs = of.tokens.iter().copied().zip(of.nats.iter().copied());
    pairs.take(length).collect()
}

fn rollout(model: &Arc<Model>, parked: usize) -> Rollout {
    let options = RolloutOptions {
        parallel: 8,
        parked,
        context: 64,
        ..RolloutOptions::default()
    };
    Rollout::new(Arc::clone(model), &options).unwrap()
}

fn run(rollout: &mut Rollout, jobs: &[Job]) -> Vec<Candidate> {
    let done = rollout
        .run(jobs, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    done.into_iter().map(Option::unwrap).collect()
}

fn the_same(model: &Arc<Model>, parked: usize) {
    let mut rollout = rollout(model, parked);
    let tokens = model.tokenize("The film about a dog is", true, true);
    let prompt = rollout.add_prompt(tokens).unwrap();
    let other = rollout
        .add_prompt(model.tokenize("A word:", true, true))
        .unwrap();
    // More than there are slots, so that some are overwritten while others are written.
    let jobs: Vec<Job> = (0..12)
        .map(|c| job(model, prompt, c, Beginning::default()))
        .collect();
    let parents = run(&mut rollout, &jobs);
    for round in 0..3 {
        let length =
            |c: u32, parent: &Candidate| (c as usize * 3 + round).min(parent.tokens.len() - 1);
        let mut jobs: Vec<Job> = (0..12)
            .zip(&parents)
            .map(|(c, parent)| job(model, prompt, c, begin(parent, length(c, parent))))
            .collect();
        jobs.insert(3, job(model, other, 30, Beginning::default()));
        let mut children = run(&mut rollout, &jobs);
        children.remove(3);
        for ((c, parent), child) in (0..).zip(&parents).zip(&children) {
            assert_eq!(child.known, length(c, parent));
            let found = (&child.tokens, &child.nats, child.end, &child.text);
            let expected = (&parent.tokens, &parent.nats, parent.end, &parent.text);
            assert_eq!(
                found, expected,
                "{parked} parked, candidate {c}, round {round}"
            );
        }
    }
}

/// Noise of one candidate up to a cut, and of another one from there on, under a floor; every third
/// position has none.
struct Child {
    weights: WeightedMean,
    candidate: u32,
    cut: usize,
}

impl Steer for Child {
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        let redrawn = if tokens.len() < self.cut { 0 } else { 100 };
        let noisy = tokens.len() % 3 != 2;
        if noisy {
            self.weights
                .perturb(0, self.candidate + redrawn, tokens.len(), row);
        }
        Ok(noisy)
    }

    fn uniform(&self, _: usize) -> f64 {
        0.5
    }

    fn floor(&self) -> f32 {
        0.05
    }
}

fn child(model: &Model, prompt: PromptId, candidate: u32, beginning: Beginning) -> Job {
    let options = WeightedOptions::new(64, model.width(), 0.2, 5);
    Job {
        steer: Some(Arc::new(Child {
            weights: WeightedMean::new(options).unwrap(),
            candidate,
            cut: match beginning.is_empty() {
                true => usize::MAX,
                false => beginning.len(),
            },
        })),
        beginning,
        ..Job::new(prompt, 16)
    }
}

/// All that is said of candidates, in two generations behind two prompts, and the rollout; among
/// so many `others`, whose noise is in the graph.
fn generations(model: &Arc<Model>, parked: usize, others: u32) -> (Vec<Candidate>, Rollout) {
    let mut rollout = rollout(model, parked);
    let endless = Form {
        ignore_end: true,
        ..Form::default()
    };
    let stopped = Form {
        stop: vec![" the".into()],
        ..Form::default()
    };
    let mut all = Vec::new();
    for form in [endless, stopped] {
        let tokens = model.tokenize("The film about a dog is", true, true);
        let prompt = rollout.add_prompt_for(tokens, form).unwrap();
        let mut among = |jobs: Vec<Job>| {
            let beside = (0..others).map(|c| job(model, prompt, 40 + c, Beginning::default()));
            let jobs: Vec<Job> = beside.chain(jobs).collect();
            run(&mut rollout, &jobs).split_off(others as usize)
        };
        let jobs = (0..12).map(|c| child(model, prompt, c, Beginning::default()));
        let parents = among(jobs.collect());
        let children = (0..).zip(&parents).map(|(c, parent)| {
            let length = (c as usize + 1).min(parent.tokens.len() - 1);
            child(model, prompt, c, begin(parent, length))
        });
        all.extend(among(children.collect()));
        all.extend(parents);
    }
    (all, rollout)
}

fn a_tree_is_the_same(model: &Arc<Model>) {
    let (expected, again) = generations(model, 0, 0);
    assert_eq!(again.work().ahead, 0);
    for parked in [1, 12] {
        let (found, shared) = generations(model, parked, 0);
        assert_eq!(found, expected, "{parked} parked");
        let (work, most) = (shared.work(), again.work());
        assert!(work.ahead > 12, "{work:?}");
        assert!(work.rows < most.rows, "{work:?}, {most:?}");
        assert_eq!(work.written + work.ahead, most.written, "{work:?}");
    }
    for parked in [0, 12] {
        let (found, _) = generations(model, parked, 5);
        assert_eq!(found, expected, "{parked} parked, among others");
    }
}

#[test]
fn what_was_said_before_is_not_decoded_again() {
    a_tree_is_the_same(&smollm2());
    a_tree_is_the_same(&gemma3());
}

/// All that a run says of its candidates but the time, and what was decoded for it.
fn whole_run(method: &str, share_prefixes: bool) -> (String, Work) {
    let engine = EngineOptions {
        share_prefixes,
        ..EngineOptions::default()
    };
    let options = AlignOptions {
        method: method.parse().unwrap(),
        rounds: Rounds {
            samples: 12,
            iterations: 4,
            max_tokens: 20,
            ..Rounds::default()
        },
        ..AlignOptions::default()
    };
    // What the first letters decide, so that beginnings can be given up.
    let mut reward = FnReward::new("start", |_, response: &str| {
        let start = response.trim_start().bytes().take(6);
        start.map(f64::from).sum()
    });
    let mut aligner = Aligner::new(smollm2(), engine).unwrap();
    let prompt = Prompt::Raw("The film about a dog is".into());
    let run = aligner.align(&prompt, &mut reward, &options, &Stop::new(), &mut |_| {});
    let run = run.unwrap();
    let told = (&run.response, &run.candidates, run.usage, run.stop);
    (format!("{told:#?}"), aligner.work())
}

#[test]
fn runs_are_the_same_whatever_is_shared() {
    for method in [
        "search",
        "search:start=noise",
        "search:draw-tokens=true",
        "search:elites=0:steer=0:early-rejection=auto",
        "aisp",
        "aisp:noise=gaussian",
    ] {
        let (found, shared) = whole_run(method, true);
        let (expected, again) = whole_run(method, false);
        assert_eq!(found, expected, "{method}");
        assert_eq!(again.ahead, 0, "{method}");
        assert!(shared.ahead > 0, "{method}: {shared:?}");
        assert!(shared.rows <= again.rows, "{method}: {shared:?}, {again:?}");
    }
}

#[test]
fn a_candidate_that_was_written_before_takes_no_step() {
    let model = smollm2();
    let mut rollout = rollout(&model, 8);
    let tokens = model.tokenize("A word:", true, true);
    let prompt = rollout.add_prompt(tokens.clone()).unwrap();
    let jobs: Vec<Job> = (0..3)
        .map(|c| child(&model, prompt, c, Beginning::default()))
        .collect();
    let first = run(&mut rollout, &jobs);
    let before = rollout.work();
    assert_eq!(run(&mut rollout, &jobs), first);
    let work = rollout.work();
    assert_eq!((work.steps, work.rows), (before.steps, before.rows));
    // What was said behind a prompt is forgotten with it.
    rollout.forget_prompt(prompt);
    let prompt = rollout.add_prompt(tokens).unwrap();
    let jobs: Vec<Job> = (0..3)
        .map(|c| child(&model, prompt, c, Beginning::default()))
        .collect();
    assert_eq!(run(&mut rollout, &jobs), first);
    assert!(rollout.work().rows > work.rows);
}

/// Has no perturbation for its fourth token.
struct Failing {
    floor: f32,
}

impl Steer for Failing {
    fn perturb(&self, tokens: &[Token], _: &mut [f32]) -> Result<bool> {
        match tokens.len() {
            3 => Err(Error::Run("no more noise".into())),
            _ => Ok(false),
        }
    }

    fn uniform(&self, _: usize) -> f64 {
        0.5
    }

    fn floor(&self) -> f32 {
        self.floor
    }
}

#[test]
fn a_perturbation_that_fails_ends_its_own_job_alone() {
    let model = smollm2();
    let mut rollout = rollout(&model, 8);
    let tokens = model.tokenize("The film about a dog is", true, true);
    let prompt = rollout.add_prompt(tokens).unwrap();
    let beside = job(&model, prompt, 0, Beginning::default());
    let expected = run(&mut rollout, std::slice::from_ref(&beside)).remove(0);
    // Under a floor what comes before it is known the second time.
    for floor in [0.0, 0.05, 0.05] {
        let failing = Job {
            steer: Some(Arc::new(Failing { floor })),
            ..Job::new(prompt, 16)
        };
        let lost = rollout.submit(failing).unwrap();
        let kept = rollout.submit(beside.clone()).unwrap();
        let mut done = Vec::new();
        while done.len() < 2 {
            let step = rollout.step(&mut |_, texts| Ok(vec![None; texts.len()]));
            let ended = step.unwrap().into_iter();
            done.extend(ended.filter_map(|written| Some((written.job, written.done?))));
        }
        for (ended, candidate) in done {
            match candidate {
                Ok(candidate) => assert_eq!((ended, &candidate), (kept, &expected)),
                Err(error) => {
                    assert_eq!(ended, lost);
                    assert_eq!(error.to_string(), "no more noise");
                }
            }
        }
    }
}

#[test]
fn a_known_beginning_changes_no_bit() {
    for parked in [0, 2, 16] {
        the_same(&smollm2(), parked);
    }
    the_same(&gemma3(), 8);
}

#[test]
fn a_beginning_that_cannot_be_is_refused() {
    let model = smollm2();
    let mut rollout = rollout(&model, 8);
    let prompt = rollout
        .add_prompt(model.tokenize("The", true, true))
        .unwrap();
    let known: Beginning = (0..6).map(|t| (500 + t, Default::default())).collect();
    let whole = job(&model, prompt, 0, known);
    assert!(rollout.submit(whole.clone()).is_err());
    let longer = Job {
        max_tokens: 8,
        ..whole
    };
    assert!(rollout.submit(longer.clone()).is_ok());
    let alone = Job {
        alone: true,
        ..longer.clone()
    };
    assert!(rollout.submit(alone).is_err());
    let kept = Job {
        keep_pre_logits: true,
        ..longer
    };
    assert!(rollout.submit(kept).is_err());
}
