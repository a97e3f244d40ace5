//! `run`: one prompt in, one aligned answer out.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aisp_llama::llama::Model;
use aisp_llama::method::MethodOptions;
use aisp_llama::report::{Trace, write_plot};
use aisp_llama::{
    AlignOptions, Aligner, AlignerOptions, Alignment, Budget, Error, Prompt, Result, Stop,
    StopReason,
};

use super::args::RunArgs;
use super::progress::Progress;
use super::setup;

/// Runs the command; the answer is the exit code.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let started = Instant::now();
    let options = align_options(args)?;
    let prompt = prompt(args)?;
    let path = setup::model_path(args.model.model.as_ref(), "-m", setup::DEFAULT_MODEL)?;
    let stop = Stop::new();
    setup::stop_on_interrupt(&stop)?;
    let mut trace = args.trace.as_deref().map(Trace::create).transpose()?;
    let model = Arc::new(Model::load(&path, &args.model.load.options())?);
    model.check_generator()?;
    let load = &args.model.load;
    let reward = setup::load_reward(&args.reward, load, Some(Arc::clone(&model)))?;
    let mut aligner = Aligner::new(Arc::clone(&model), reward, aligner_options(args))?;
    if let Some(spec) = &args.held_out.held_out {
        aligner = aligner.with_held_out(setup::load_held_out(spec, load, &model)?);
    }
    let load_seconds = started.elapsed().as_secs_f64();
    let mut progress = Progress::new(args.samples);
    let aligned = aligner.align(&prompt, &options, &stop, &mut |event| {
        progress.show(event);
        if let Some(trace) = &mut trace {
            trace.write(event);
        }
    });
    progress.close();
    let traced = trace.map_or(Ok(()), Trace::finish);
    let alignment = aligned?;
    print(args, &alignment, load_seconds)?;
    traced?;
    if let Some(path) = &args.plot {
        write_plot(&alignment, path)?;
    }
    Ok(if alignment.stop == StopReason::Interrupted {
        super::INTERRUPTED
    } else {
        0
    })
}

fn align_options(args: &RunArgs) -> Result<AlignOptions> {
    let mut options = MethodOptions {
        samples: args.samples,
        iterations: args.iterations,
        seed: u64::try_from(args.seed).unwrap_or_else(|_| u64::from(rand::random::<u32>())),
        max_tokens: args.predict,
        ..MethodOptions::default()
    };
    args.settings.settings()?.apply(&mut options);
    options.validate()?;
    let usage = |field: &str, reason: String| Error::Field {
        field: field.into(),
        reason,
    };
    if let Some(limit) = args.time_limit.filter(|l| !l.is_finite() || *l <= 0.0) {
        return Err(usage(
            "--time-limit",
            format!("{limit}; must be a number of seconds above 0"),
        ));
    }
    if args.target_reward.is_some_and(f64::is_nan) {
        return Err(usage("--target-reward", "NaN; must be a number".into()));
    }
    Ok(AlignOptions {
        method: args.method,
        options,
        budget: Budget {
            seconds: args.time_limit,
            ..Budget::default()
        },
        target_reward: args.target_reward,
        stop_on_divergence: args.held_out.stop_on_divergence,
    })
}

fn aligner_options(args: &RunArgs) -> AlignerOptions {
    let defaults = AlignerOptions::default();
    AlignerOptions {
        parallel: args.parallel.unwrap_or(defaults.parallel.min(args.samples)),
        context: args.ctx_size,
        threads: args.model.load.threads(),
        logits: args.logits,
        chat_template: args.chat_template.clone(),
    }
}

fn prompt(args: &RunArgs) -> Result<Prompt> {
    let text = match (&args.prompt, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            let mut text = read(path)?;
            // A file ends with a line break that is not meant for the model.
            if text.ends_with('\n') {
                text.pop();
            }
            text
        }
        (None, None) => String::new(),
    };
    if text.is_empty() {
        return Err(Error::Field {
            field: if args.file.is_some() { "-f" } else { "-p" }.into(),
            reason: "the prompt is empty".into(),
        });
    }
    Ok(match args.no_chat {
        true => Prompt::Raw(text),
        false => Prompt::user(args.system_prompt.as_deref(), text),
    })
}

fn read(path: &Path) -> Result<String> {
    let io = Error::io(&path);
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(io)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(io)
}

fn print(args: &RunArgs, alignment: &Alignment, load_seconds: f64) -> anyhow::Result<()> {
    let best = alignment.candidates.iter().take(args.candidates);
    if args.json {
        let mut shown = alignment.clone();
        shown.candidates.truncate(args.candidates);
        let mut json = serde_json::to_value(shown)?;
        json["timings"]["load_seconds"] = load_seconds.into();
        let mut text = serde_json::to_string_pretty(&json)?;
        text.push('\n');
        super::print_out(text.as_bytes())?;
        return Ok(());
    }
    for candidate in best {
        let reward = candidate
            .reward
            .map_or("  none".into(), |r| format!("{r:6.3}"));
        let text = candidate.text.trim().replace('\n', "\n        ");
        super::note(&format!("{reward}  {text}"));
    }
    let mut answer = alignment.response.clone();
    answer.push('\n');
    Ok(super::print_out(answer.as_bytes())?)
}
