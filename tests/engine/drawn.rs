//! Tokens drawn from perturbed logits: what their ratio is, and that what is forbidden has no chance.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use aisp_llama::Result;
use aisp_llama::llama::{LogitsRoute, Model, Token};
use aisp_llama::rollout::{Ask, Candidate, Job, Rollout, RolloutOptions, Steer, TokenChoice};

use crate::common::{gemma3, smollm2};

const ROUTES: [LogitsRoute; 3] = [
    LogitsRoute::Rows,
    LogitsRoute::Graph,
    LogitsRoute::Recompute,
];

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

/// The first logits that a push and a floor leave, with and without the push, and what is drawn.
fn first(model: &Arc<Model>, logits: LogitsRoute, floor: f32) -> ([Vec<f32>; 2], [Candidate; 2]) {
    let options = RolloutOptions {
        parallel: 8,
        context: 64,
        logits,
        ..RolloutOptions::default()
    };
    let mut rollout = Rollout::new(Arc::clone(model), &options).unwrap();
    let tokens = model.tokenize("The film is", true, true);
    let prompt = rollout.add_prompt(tokens).unwrap();
    let steers = [0.0, 4.0].map(|push| {
        Arc::new(Pushed {
            push,
            floor,
            logits: Mutex::default(),
        })
    });
    let jobs = steers.each_ref().map(|steer| Job {
        steer: Some(steer.clone()),
        choice: TokenChoice::PLAIN,
        ..Job::new(prompt, 6)
    });
    let done = rollout
        .run(&jobs, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let logits = steers.each_ref().map(|s| s.logits.lock().unwrap().clone());
    (logits, [0, 1].map(|i: usize| done[i].clone().unwrap()))
}

#[test]
fn the_ratio_of_a_drawn_token_is_that_of_its_probabilities() {
    let model = smollm2();
    for floor in [0.0, 0.05] {
        for route in ROUTES {
            let ([own, moved], [plain, pushed]) = first(&model, route, floor);
            // Without a perturbation p is q.
            assert!(plain.nats.iter().all(|t| t.log_ratio == 0.0));
            assert!(pushed.nats.iter().any(|t| t.log_ratio.abs() > 0.1));
            // What the first token was drawn from, and what the model itself says there.
            let first = pushed.tokens[0];
            let expected = log_softmax(&own, first) - log_softmax(&moved, first);
            let found = f64::from(pushed.nats[0].log_ratio);
            assert!(
                (found - expected).abs() < 1e-3,
                "{route:?}, {floor}: {found} {expected}"
            );
            assert!(moved[first as usize].is_finite());
        }
    }
}

#[test]
fn all_routes_allow_the_same_tokens_and_move_them_alike() {
    for model in [smollm2(), gemma3()] {
        let [rows, graph, recomputed] = ROUTES.map(|route| first(&model, route, 0.05).0);
        let allowed = |logits: &[f32]| -> Vec<usize> {
            (0..logits.len())
                .filter(|&i| logits[i].is_finite())
                .collect()
        };
        let few = allowed(&rows[0]);
        assert!((2..1000).contains(&few.len()), "{}", few.len());
        for logits in [&rows, &graph, &recomputed].into_iter().flatten() {
            assert_eq!(allowed(logits), few);
        }
        assert!(rows[0] == graph[0] && graph == recomputed);
        // The graph rounds z + v to eight bits, the rows do not.
        let (mut moved, mut apart) = (0_f32, 0_f32);
        for &i in &few {
            moved = moved.max((graph[1][i] - graph[0][i]).abs());
            apart = apart.max((graph[1][i] - rows[1][i]).abs());
        }
        println!("{}: moved {moved}, apart {apart}", model.architecture());
        assert!(moved > 0.1 && apart < 0.05 * moved, "{moved} {apart}");
        assert!(apart > 0.0, "two ways, not one");
    }
}
