//! Tokens drawn from perturbed logits: what their ratio is, and that what is forbidden has no chance.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use aisp_llama::Result;
use aisp_llama::llama::{LogitsRoute, Token};
use aisp_llama::rollout::{Ask, Beginning, Job, Rollout, RolloutOptions, Steer, TokenChoice};

use crate::common::smollm2;

/// Pushes one pre-logit, and keeps the first logits that it is shown.
struct Pushed {
    push: f32,
    floor: f32,
    logits: Mutex<Vec<f32>>,
}

impl Steer for Pushed {
    fn perturb(&self, _tokens: &[Token], row: &mut [f32]) -> Result<bool> {
        row[5] += self.push;
        Ok(self.push != 0.0)
    }

    fn uniform(&self, position: usize) -> f64 {
        (0.3 + 0.37 * position as f64).fract()
    }

    fn floor(&self) -> f32 {
        self.floor
    }

    fn choose(
        &self,
        tokens: &[Token],
        logits: &[f32],
        _ask: &mut Ask<'_>,
    ) -> Result<Option<Token>> {
        if tokens.is_empty() {
            self.logits.lock().unwrap().clone_from(&logits.to_vec());
        }
        Ok(None)
    }
}

fn log_softmax(logits: &[f32], token: Token) -> f64 {
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    f64::from(logits[token as usize] - top) - sum.ln()
}

#[test]
fn the_ratio_of_a_drawn_token_is_that_of_its_probabilities() {
    let model = smollm2();
    let options = RolloutOptions {
        parallel: 8,
        parked: 0,
        context: 64,
        threads: 2,
        logits: LogitsRoute::Graph,
    };
    let mut rollout = Rollout::new(model.clone(), &options).unwrap();
    let tokens = model.tokenize("The film is", true, true);
    let prompt = rollout.add_prompt(tokens).unwrap();
    for floor in [0.0, 0.05] {
        let steers = [0.0, 4.0].map(|push| {
            Arc::new(Pushed {
                push,
                floor,
                logits: Mutex::default(),
            })
        });
        let jobs = steers.each_ref().map(|steer| Job {
            prompt,
            max_tokens: 6,
            steer: Some(steer.clone()),
            choice: TokenChoice::PLAIN,
            beginning: Beginning::default(),
            keep_pre_logits: false,
            alone: false,
        });
        let done = rollout
            .run(&jobs, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let [plain, pushed] = [0, 1].map(|i: usize| done[i].clone().unwrap());
        // Without a perturbation p is q.
        assert!(plain.nats.iter().all(|t| t.log_ratio == 0.0));
        assert!(pushed.nats.iter().any(|t| t.log_ratio.abs() > 0.1));
        // What the first token was drawn from, and what the model itself says there.
        let [own, moved] = steers.each_ref().map(|s| s.logits.lock().unwrap().clone());
        let first = pushed.tokens[0];
        let expected = log_softmax(&own, first) - log_softmax(&moved, first);
        let found = f64::from(pushed.nats[0].log_ratio);
        assert!(
            (found - expected).abs() < 1e-3,
            "{floor}: {found} {expected}"
        );
        // The same tokens are allowed under both.
        let allowed = |logits: &[f32]| logits.iter().filter(|l| l.is_finite()).count();
        assert_eq!(allowed(&own), allowed(&moved));
        assert!(moved[first as usize].is_finite());
    }
}
