//! Candidates that are decoded in steps of their own, beside others and by themselves.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use aisp_llama::Result;
use aisp_llama::llama::{Model, Token};
use aisp_llama::rollout::{
    Ask, Candidate, Job, PromptId, Rollout, RolloutOptions, SamplingOptions, Steer, TokenChoice,
};

use crate::common::{gemma3, smollm2};

/// Draws, pushes the pre-logits a little, and keeps the logits that it is shown.
struct Recorder {
    uniform: f64,
    push: f32,
    logits: Mutex<Vec<Vec<u32>>>,
}

impl Steer for Recorder {
    fn perturb(&self, tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        row[tokens.len()] += self.push;
        Ok(self.push != 0.0)
    }

    fn uniform(&self, position: usize) -> f64 {
        (self.uniform + 0.37 * position as f64).fract()
    }

    fn choose(
        &self,
        _tokens: &[Token],
        logits: &[f32],
        _ask: &mut Ask<'_>,
    ) -> aisp_llama::Result<Option<Token>> {
        let bits = logits.iter().map(|x| x.to_bits()).collect();
        self.logits.lock().unwrap().push(bits);
        Ok(None)
    }
}

/// What candidate `number` is shown: its logits at every position, bit by bit; and what it is.
type Shown = (Vec<Vec<u32>>, Candidate);

fn job(prompt: PromptId, number: usize, alone: bool) -> (Job, Arc<Recorder>) {
    let recorder = Arc::new(Recorder {
        uniform: 0.1 * number as f64,
        push: if number.is_multiple_of(2) { 0.0 } else { 3.0 },
        logits: Mutex::default(),
    });
    let job = Job {
        steer: Some(recorder.clone()),
        choice: TokenChoice::Sample(SamplingOptions::default()),
        keep_pre_logits: number.is_multiple_of(3),
        alone,
        // Some end before others.
        ..Job::new(prompt, 4 + number % 3 * 2)
    };
    (job, recorder)
}

/// The candidates with these numbers, those of `alone` in steps of their own.
fn shown(model: &Arc<Model>, parallel: usize, numbers: &[usize], alone: &[usize]) -> Vec<Shown> {
    let options = RolloutOptions {
        parallel,
        context: 96,
        ..RolloutOptions::default()
    };
    let mut rollout = Rollout::new(Arc::clone(model), &options).unwrap();
    let prompts = ["The sailor heard a sound and", "My favourite colour is"];
    let prompts = prompts.map(|text| {
        let tokens = model.tokenize(text, true, true);
        rollout.add_prompt(tokens).unwrap()
    });
    let job = |&n: &usize| job(prompts[n % 2], n, alone.contains(&n));
    let (jobs, recorders): (Vec<Job>, Vec<_>) = numbers.iter().map(job).unzip();
    let mut go_on = |_| ControlFlow::Continue(());
    let done = rollout.run(&jobs, &mut go_on).unwrap();
    let take = |recorder: Arc<Recorder>| recorder.logits.lock().unwrap().clone();
    let logits = recorders.into_iter().map(take);
    logits.zip(done.into_iter().flatten()).collect()
}

#[test]
fn alone_is_alone_whoever_else_is_there() {
    for model in [smollm2(), gemma3()] {
        // More than there is room for, with both kinds in one group.
        let (numbers, alone): (Vec<usize>, _) = ((0..10).collect(), [2, 3, 9]);
        let by_itself: Vec<Shown> = numbers
            .iter()
            .flat_map(|&number| shown(&model, 8, &[number], &alone))
            .collect();
        for parallel in [8, 16] {
            let together = shown(&model, parallel, &numbers, &alone);
            for (number, together) in together.iter().enumerate() {
                let place = format!("{number} of {parallel}, {}", model.architecture());
                let steps = 4 + number % 3 * 2;
                assert_eq!(together.0.len(), steps, "candidate {place}");
                assert_eq!(together.1.nats.len(), steps, "candidate {place}");
                // Not by assert_eq!, which would print them.
                assert!(by_itself[number] == *together, "candidate {place}");
            }
        }
    }
}

#[test]
fn alone_says_what_a_group_says() {
    // Nearly: the numbers differ in the last bits, and eight-bit activations make more of that.
    let model = smollm2();
    let logits = |shown: Vec<Shown>| -> Vec<f32> {
        let first = shown[0].0[0].iter();
        first.map(|&bits| f32::from_bits(bits)).collect()
    };
    let alone = logits(shown(&model, 8, &[1], &[1]));
    let grouped = logits(shown(&model, 8, &[1], &[]));
    let largest = grouped.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let differ = alone.iter().zip(&grouped).map(|(a, b)| (a - b).abs());
    let differ = differ.fold(0.0, f32::max);
    assert!(differ < 0.03 * largest, "{differ} of {largest}");
}
