//! How surprised the model itself would be by a response.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Aligner, Prompt};
use crate::error::Result;
use crate::llama::Token;
use crate::math::normaliser;
use crate::rollout::{Ask, Beginning, Job, Steer, TokenChoice};

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
        let (largest, rest) = normaliser(logits);
        let own = logits.get(token as usize).copied().unwrap_or(largest);
        let nats = f64::from(largest - own) + rest;
        *self.nats.lock().unwrap_or_else(PoisonError::into_inner) += nats;
        Ok(Some(token))
    }
}

impl Aligner {
    /// −log p(response | prompt) by the model without any perturbation or truncation, at
    /// temperature 1, in nats a token; `None` for a response without tokens.
    ///
    /// The response is tokenised as plain text, and its end is not counted.
    ///
    /// # Errors
    /// Those of [`align`](Self::align) for a prompt or response that does not fit.
    pub fn surprise(&mut self, prompt: &Prompt, response: &str) -> Result<Option<f64>> {
        let tokens = self.model.tokenize(response, false, false);
        let count = tokens.len();
        if count == 0 {
            return Ok(None);
        }
        let prompt = self.tokenize(prompt)?;
        let rollout = self.batch_for(prompt.len(), count)?.rollout_mut();
        let prompt = rollout.add_prompt(prompt)?;
        let along = Arc::new(Along {
            tokens,
            nats: Mutex::new(0.0),
        });
        let job = Job {
            prompt,
            max_tokens: count,
            steer: Some(along.clone()),
            choice: TokenChoice::Argmax,
            beginning: Beginning::default(),
            keep_pre_logits: false,
            alone: true,
        };
        let read = rollout.run(&[job], &mut |_| ControlFlow::Continue(()));
        rollout.forget_prompt(prompt);
        read?;
        let nats = *along.nats.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(nats / count as f64))
    }
}
