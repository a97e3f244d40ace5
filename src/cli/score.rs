//! `score`: prompt/response pairs in, scores out.

use std::path::Path;

use aisp_llama::Error;
use aisp_llama::llama::ChatOptions;
use aisp_llama::reward::{Sample, SampleError, Score};
use aisp_llama::text;
use serde::{Deserialize, Serialize};

use super::flags::{LoadArgs, RewardArgs};
use super::{output, setup};

#[derive(Debug, clap::Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Print a JSON object for every pair instead of a number
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    #[serde(default)]
    prompt: String,
    response: String,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    prompt: &'a str,
    response: &'a str,
    reward: Option<f64>,
    tokens: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &ScoreArgs) -> anyhow::Result<u8> {
    let mut reward = setup::load_reward(&args.reward, &args.load, &ChatOptions::default(), None)?;
    let mut read = 0;
    let mut scored = 0;
    let mut last = String::new();
    // Line by line, so that a reader at the other end of a pipe need not wait.
    for (index, line) in text::lines(std::io::stdin().lock()).enumerate() {
        let line = line.map_err(Error::io(Path::new("stdin")))?;
        if line.trim().is_empty() {
            continue;
        }
        let pair: Pair = serde_json::from_str(&line).map_err(|e| {
            Error::field(
                format!("stdin, line {}", index + 1),
                format!("{e}; every line is {{\"prompt\": \"…\", \"response\": \"…\"}}"),
            )
        })?;
        let sample = Sample {
            prompt: &pair.prompt,
            response: &pair.response,
        };
        read += 1;
        let result = reward.score(&[sample])?.pop();
        let (score, error) = outcome(result);
        match &error {
            None => scored += 1,
            Some(error) => {
                last.clone_from(error);
                output::note(&format!("line {}: no reward: {error}", index + 1));
            }
        }
        if score.is_some_and(|s| s.truncated) {
            output::note(&format!(
                "line {}: too long, its end was not read",
                index + 1
            ));
        }
        let number = score.map(|s| s.reward).filter(|_| error.is_none());
        let mut text = if args.json {
            serde_json::to_string(&Line {
                prompt: &pair.prompt,
                response: &pair.response,
                reward: number,
                tokens: score.map_or(0, |s| s.tokens),
                truncated: score.is_some_and(|s| s.truncated),
                error,
            })?
        } else {
            number.map_or("nan".into(), |n| n.to_string())
        };
        text.push('\n');
        output::print_out(text.as_bytes())?;
    }
    if read > 0 && scored == 0 {
        return Err(Error::Reward(format!(
            "none of the {read} pairs could be scored, the last because: {last}"
        ))
        .into());
    }
    Ok(0)
}

fn outcome(result: Option<Result<Score, SampleError>>) -> (Option<Score>, Option<String>) {
    match result {
        Some(Ok(score)) if score.reward.is_finite() => (Some(score), None),
        Some(Ok(score)) => (Some(score), Some(format!("the reward is {}", score.reward))),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, Some("no score".into())),
    }
}
