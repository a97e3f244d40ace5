//! `run --prompts`: many prompts in, a folder of answers out.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aisp_llama::compare::{FileId, Folder, read_prompts};
use aisp_llama::gguf::Gguf;
use aisp_llama::llama::{ChatOptions, Model};
use aisp_llama::report::Trace;
use aisp_llama::{
    AlignOptions, Aligner, Alignment, EngineOptions, Error, Event, EventKind, Prompt, Result,
    RunRewards, StopReason,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::output::{self, INTERRUPTED};
use super::run::{self, RunArgs};
use super::{progress, setup, workbench};

/// The file with the answers.
const ANSWERS: &str = "answers.jsonl";

/// A line of it: an answer, or why there is none.
#[derive(Serialize)]
struct Line<'a> {
    /// Which prompt, from 0.
    index: usize,
    #[serde(flatten)]
    of: LineOf<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum LineOf<'a> {
    Answer(&'a Alignment),
    Failure { prompt: &'a str, error: String },
}

/// What a line that is there says of its prompt.
#[derive(Deserialize)]
struct Done {
    index: usize,
    prompt: String,
    error: Option<String>,
}

/// Answers the prompts of the file `prompts` that have no answer yet in the folder `into`; the answer
/// is the exit code.
pub fn run(
    args: &RunArgs,
    prompts: &Path,
    into: &Path,
    options: &AlignOptions,
    engine: EngineOptions,
) -> anyhow::Result<u8> {
    let texts = read_prompts(prompts)?;
    let path = setup::model_path(&args.model)?;
    let settings = settings(args, options, &engine.chat, &path)?;
    let (mut folder, lines) = Folder::open(into, ANSWERS, &settings)?;
    let mut missing = vec![true; texts.len()];
    let mut failed = 0;
    for line in lines {
        let number = line.number;
        let done: Done = folder.read(line)?;
        if texts.get(done.index) != Some(&done.prompt) {
            let reason = format!("the answer of index {} is to another prompt", done.index);
            return Err(folder.refuse(number, &reason).into());
        }
        if !std::mem::take(&mut missing[done.index]) {
            let reason = format!("the answer of index {} stands there twice", done.index);
            return Err(folder.refuse(number, &reason).into());
        }
        failed += usize::from(done.error.is_some());
    }
    let shard = args.shard.unwrap_or_default();
    let mine: Vec<usize> = (0..texts.len()).filter(|&i| shard.has(i)).collect();
    let total = mine.len();
    let wanted: Vec<usize> = mine.into_iter().filter(|&i| missing[i]).collect();
    let mut count = total - wanted.len();
    if count > 0 {
        output::note(&format!("{count} of {total} are there"));
    }
    let mut interrupted = false;
    if !wanted.is_empty() {
        let mut trace = args.trace.as_deref().map(Trace::create).transpose()?;
        let model = Arc::new(Model::load(&path, &args.model.options())?);
        model.check_generator()?;
        let load = &args.model.load;
        let chat = engine.chat.clone();
        let mut reward = setup::load_reward(&args.reward, load, &chat, Some(Arc::clone(&model)))?;
        let mut held_out = setup::load_held_out(&args.held_out, load, &chat, &model)?;
        run::announce(&model, reward.as_ref(), options);
        let mut rewards = RunRewards::new(reward.as_mut(), &mut held_out);
        let options = AlignOptions {
            form: args.form.form(&model)?,
            ..options.clone()
        };
        let mut aligner = Aligner::new(model, engine)?;
        let asked: Vec<Prompt> = wanted
            .iter()
            .map(|&i| args.chat.prompt(texts[i].clone()))
            .collect();
        let started = Instant::now();
        let stop = setup::stop_on_interrupt();
        let mut done = |number: usize, result: Result<Alignment>| {
            let index = wanted[number];
            let of = match result.and_then(Alignment::whole) {
                // What was cut short is begun again.
                Ok(run) if run.stop == StopReason::Interrupted => return Ok(()),
                Ok(mut run) => {
                    run.candidates.truncate(args.candidates);
                    Ok(run)
                }
                Err(_) if setup::is_interrupted() => return Ok(()),
                Err(error) if is_its_own(&error) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            count += 1;
            failed += usize::from(of.is_err());
            let told = match &of {
                Ok(run) => output::summary(run),
                Err(error) => format!("failed: {error}"),
            };
            output::note(&format!(
                "{count}/{total}  prompt {}  {told}  {:.1} s",
                index + 1,
                started.elapsed().as_secs_f64()
            ));
            let of = match &of {
                Ok(run) => LineOf::Answer(run),
                Err(error) => LineOf::Failure {
                    prompt: &texts[index],
                    error: error.clone(),
                },
            };
            folder.append(&Line { index, of })
        };
        let mut parts_told = false;
        let mut observe = |event: &Event| {
            // Those of the first prompt stand for all.
            if let EventKind::RewardParts { parts, decisive } = &event.kind
                && !std::mem::replace(&mut parts_told, true)
                && let Some(line) = progress::told(parts, *decisive)
            {
                output::note(&line);
            }
            if let Some(trace) = &mut trace {
                trace.write(event);
            }
        };
        let all = aligner.align_all(
            &asked,
            &mut rewards,
            &options,
            &stop,
            &mut observe,
            &mut done,
        );
        let traced = trace.map_or(Ok(()), Trace::finish);
        all?;
        traced?;
        interrupted = stop.is_requested() && count < total;
    }
    if interrupted {
        return Ok(INTERRUPTED);
    }
    if failed > 0 {
        output::note(&format!(
            "failed: {failed} of {}; the `error` in {} says why, and is tried again once its line is \
             deleted",
            texts.len(),
            into.join(ANSWERS).display()
        ));
        return Ok(1);
    }
    Ok(0)
}

/// Whether the error says something of one prompt, and nothing of the others.
fn is_its_own(error: &Error) -> bool {
    match error {
        Error::Run(_) | Error::Unscored(_) => true,
        Error::Field { field, .. } => field == "prompt" || field == "context",
        _ => false,
    }
}

/// Everything that determines the answers but the prompts, which every answer has beside it.
fn settings(
    args: &RunArgs,
    options: &AlignOptions,
    chat: &ChatOptions,
    model: &Path,
) -> Result<Value> {
    let methods = std::slice::from_ref(&options.method);
    let (files, mut details) =
        workbench::files_and_options(&args.reward, &args.held_out, methods, model)?;
    details.extend(args.model.details());
    details.extend(
        args.reward_scale
            .then(|| "divided by their deviations".into()),
    );
    let header = Gguf::open(model).map_err(Error::gguf(model))?;
    let rounds = &options.rounds;
    Ok(json!({
        "build": output::build(),
        "cpu": output::cpu(),
        "model": FileId::of(model)?,
        "gpu_layers": args.model.load.gpu_layers(),
        "files": files,
        "reward_details": details,
        "system_prompt": args.chat.system_prompt,
        "chat": !args.chat.no_chat,
        "chat_template": chat.template,
        "chat_template_kwargs": chat.variables,
        "think": args.chat.think,
        "reasoning_budget": args.chat.reasoning_budget,
        "reasonings": args.chat.reasonings,
        "form": args.form.settings()?,
        "date": args.chat.date_told(chat, &header),
        "method": options.method,
        "samples": rounds.samples,
        "iterations": rounds.iterations,
        "seed": rounds.seed,
        "max_tokens": rounds.max_tokens,
        "time_limit": options.budget.seconds,
        "target_reward": options.target_reward,
        "patience": options.patience,
        "stop_on_divergence": options.stop_on_divergence,
        "logits": args.route.logits,
        "threads": args.model.load.threads(),
    }))
}
