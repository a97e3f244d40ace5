//! Tokens that a model draws, and the pre-logits they are drawn from.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use aisp_llama::llama::{ChatOptions, ChatTemplate, Message, Model, Token};
use aisp_llama::ndarray::{Array1, Array2, Axis};
use aisp_llama::rollout::{Job, Rollout, RolloutOptions, SamplingOptions, Steer, TokenChoice};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Responses to each prompt, and their tokens.
const RESPONSES: usize = 8;
const LENGTH: usize = 48;
/// Positions that a token needs to be a group.
pub const FREQUENT: usize = 100;

/// Chance for one response.
struct Draw(Vec<f64>);

impl Steer for Draw {
    fn uniform(&self, position: usize) -> f64 {
        self.0[position]
    }
}

/// Tokens drawn at temperature 1 and the pre-logits [n, d] they were drawn from, each once.
pub fn generate(
    model: &Arc<Model>,
    prompts: &[String],
) -> anyhow::Result<(Vec<Token>, Array2<f64>)> {
    let chat = model.gguf().str("tokenizer.chat_template");
    let chat = chat
        .map(|_| ChatTemplate::new(model, &ChatOptions::default()))
        .transpose()?;
    let options = RolloutOptions {
        parallel: 32,
        context: 256,
        threads: 1,
        ..RolloutOptions::default()
    };
    let mut rollout = Rollout::new(Arc::clone(model), &options)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut jobs = Vec::new();
    for prompt in prompts {
        let tokens = match &chat {
            Some(chat) => chat.tokenize(model, &[Message::new("user", prompt)], true)?,
            None => model.tokenize(&format!("{prompt}\n"), true, false),
        };
        let prompt = rollout.add_prompt(tokens)?;
        for _ in 0..RESPONSES {
            let chance = (0..LENGTH).map(|_| rng.random()).collect();
            jobs.push(Job {
                steer: Some(Arc::new(Draw(chance))),
                choice: TokenChoice::Sample(SamplingOptions {
                    temperature: 1.0,
                    top_k: 0,
                    top_p: 1.0,
                    min_p: 0.0,
                }),
                keep_pre_logits: true,
                ..Job::new(prompt, LENGTH)
            });
        }
    }
    let (mut tokens, mut z) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let done = rollout.run(&jobs, &mut |_| ControlFlow::Continue(()))?;
    for (job, candidate) in done.into_iter().enumerate() {
        let Some(candidate) = candidate else { continue };
        let rows = candidate.pre_logits.chunks(model.width());
        for (i, row) in rows.enumerate() {
            // Responses that begin alike have the same pre-logits there.
            if seen.insert((job / RESPONSES, candidate.tokens[..i].to_vec())) {
                tokens.push(candidate.tokens[i]);
                z.extend(row.iter().map(|&z| f64::from(z)));
            }
        }
    }
    let shape = (tokens.len(), model.width());
    Ok((tokens, Array2::from_shape_vec(shape, z)?))
}

/// The positions of frequent tokens, token by token.
pub struct Frequent {
    /// Each with its count.
    pub texts: Vec<String>,
    pub sizes: Vec<usize>,
    /// [n, d].
    pub z: Array2<f64>,
    /// Their rows of W, as columns [d, groups].
    pub head: Array2<f64>,
}

impl Frequent {
    pub fn new(model: &Model, tokens: &[Token], z: &Array2<f64>) -> anyhow::Result<Self> {
        let mut positions = BTreeMap::<Token, Vec<usize>>::new();
        for (i, &token) in tokens.iter().enumerate() {
            positions.entry(token).or_default().push(i);
        }
        positions.retain(|_, at| at.len() >= FREQUENT);
        let mut of_all: Vec<(Token, Vec<usize>)> = positions.into_iter().collect();
        of_all.sort_by_key(|(_, at)| std::cmp::Reverse(at.len()));
        let rows = model.output_rows()?;
        let mut head = Array2::zeros((z.ncols(), of_all.len()));
        let mut row = vec![0.0; z.ncols()];
        for ((token, _), mut column) in of_all.iter().zip(head.columns_mut()) {
            rows.row(*token, &mut row)?;
            column.assign(&row.iter().map(|&w| f64::from(w)).collect::<Array1<f64>>());
        }
        let at: Vec<usize> = of_all.iter().flat_map(|(_, at)| at.clone()).collect();
        Ok(Self {
            texts: of_all
                .iter()
                .map(|(token, at)| {
                    let piece = model.piece(*token, true);
                    let text = String::from_utf8_lossy(&piece).escape_debug().to_string();
                    format!("`{text}` {}", at.len())
                })
                .collect(),
            sizes: of_all.iter().map(|(_, at)| at.len()).collect(),
            z: z.select(Axis(0), &at),
            head,
        })
    }
}
