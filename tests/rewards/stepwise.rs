//! How surprised a model is by a response, read as it would be written: a token at a time.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use aisp_llama::Result;
use aisp_llama::llama::{Model, Token};
use aisp_llama::rollout::{Ask, Job, Rollout, RolloutOptions, Steer};

/// Goes along a given response and adds up −log p of its tokens.
struct Along {
    tokens: Vec<Token>,
    nats: Mutex<f64>,
}

impl Steer for Along {
    fn uniform(&self, _position: usize) -> f64 {
        0.0
    }

    fn choose(
        &self,
        tokens: &[Token],
        logits: &[f32],
        _ask: &mut Ask<'_>,
    ) -> Result<Option<Token>> {
        let token = self.tokens[tokens.len()];
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        *self.nats.lock().unwrap() += total.ln() - f64::from(logits[token as usize]);
        Ok(Some(token))
    }
}

/// −log p(response | prompt) in nats a token.
pub fn surprise(model: &Arc<Model>, prompt: Vec<Token>, response: &str) -> f64 {
    let tokens = model.tokenize(response, false, false);
    let count = tokens.len();
    let mut rollout = Rollout::new(Arc::clone(model), &RolloutOptions::default()).unwrap();
    let prompt = rollout.add_prompt(prompt).unwrap();
    let along = Arc::new(Along {
        tokens,
        nats: Mutex::new(0.0),
    });
    let job = Job {
        steer: Some(along.clone()),
        alone: true,
        ..Job::new(prompt, count)
    };
    rollout
        .run(&[job], &mut |_| ControlFlow::Continue(()))
        .unwrap();
    *along.nats.lock().unwrap() / count as f64
}
