//! `bench`: what aligned generation costs with a model, in llama-bench's manners.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use aisp_llama::control::NoiseKey;
use aisp_llama::llama::{
    Context, ContextOptions, LogitsRoute, Model, Row, Token, plain_decoding, step_rows,
};
use aisp_llama::method::{MethodSpec, Rounds};
use aisp_llama::ndarray::ArrayView2;
use aisp_llama::reward::{Reward, Sample};
use aisp_llama::{
    AlignOptions, Aligner, Alignment, EngineOptions, Error, Prompt, Result, RunRewards,
};
use serde::Serialize;

use super::flags::{ModelArgs, RewardArgs, SamplesArgs};
use super::output::{self, INTERRUPTED};
use super::{setup, values};

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub samples: SamplesArgs,
    /// Iterations of a whole run
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Method")]
    pub iterations: usize,
    /// Methods with their settings, METHOD[:NAME=VALUE]…, between commas, for whole runs
    #[arg(
        long,
        value_name = "A,B,…",
        value_delimiter = ',',
        default_value = "best-of-n:temp=1:top-p=1,search,aisp",
        value_parser = values::reason(values::method_with_settings),
        help_heading = "Method"
    )]
    pub methods: Vec<MethodSpec>,
    /// Tokens of a response, none ends before
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 64,
        help_heading = "Generation"
    )]
    pub n_gen: usize,
    /// Times that everything is measured, in turn, after a first time that does not count
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 5,
        help_heading = "Output"
    )]
    pub repetitions: usize,
    /// As a Markdown table, CSV, or an object a line
    #[arg(
        short,
        long,
        default_value = "md",
        value_parser = values::one_of([("md", Form::Markdown), ("csv", Form::Csv), ("jsonl", Form::Jsonl)]),
        help_heading = "Output"
    )]
    pub output: Form,
}

/// How measurements are printed.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Markdown,
    Csv,
    Jsonl,
}

/// A prompt behind which a model writes on and on.
const PROMPT: &str = "Chapter 1. It was a dark and stormy night, and";

/// The test that the others are compared with.
const PLAIN: &str = "plain";

/// What is measured.
struct Test {
    name: String,
    unit: &'static str,
    /// Whether it is a rate of tokens, which has a ratio to plain decoding.
    rate: bool,
    found: Vec<f64>,
}

/// A line of the answer.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    threads: usize,
    sequences: usize,
    test: &'a str,
    unit: &'a str,
    median: f64,
    low: f64,
    high: f64,
    repetitions: usize,
    /// Median of the ratios to plain decoding of the same turn.
    ratio_to_plain: Option<f64>,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &BenchArgs) -> anyhow::Result<u8> {
    let (samples, length) = (args.samples.samples, args.n_gen);
    let rounds = Rounds {
        samples,
        iterations: args.iterations,
        max_tokens: length,
        seed: 1,
    };
    rounds.validate()?;
    for method in &args.methods {
        method.validate(&rounds)?;
    }
    if args.repetitions == 0 {
        return Err(Error::field("repetitions", "0; give at least 1").into());
    }
    let load = &args.model.load;
    let path = setup::model_path(&args.model)?;
    let model = Arc::new(Model::load(&path, &args.model.options())?);
    model.check_generator()?;
    let chat = Default::default();
    let reward = setup::load_reward(&args.reward, load, &chat, Some(Arc::clone(&model)))?;
    let threads = load.threads();
    let engine = EngineOptions {
        parallel: samples.min(EngineOptions::default().parallel),
        threads,
        threads_batch: load.threads_batch(),
        attention: load.attention(),
        ..EngineOptions::default()
    };
    let sequences = engine.parallel;
    let mut bench = Bench {
        prompt: model.tokenize(PROMPT, true, true),
        steps: Steps::new(&model, &engine, length)?,
        aligner: Aligner::new(Arc::clone(&model), engine)?,
        model,
        reward,
        rounds,
        threads,
        sequences,
        tests: Vec::new(),
    };
    let stop = setup::stop_on_interrupt();
    for turn in 0..=args.repetitions {
        for method in [None].into_iter().chain(args.methods.iter().map(Some)) {
            if stop.is_requested() {
                return Ok(INTERRUPTED);
            }
            match method {
                None => bench.parts()?,
                Some(method) => bench.whole(method)?,
            }
        }
        output::note(&match turn {
            0 => "warmed up".into(),
            turn => format!("{turn}/{}", args.repetitions),
        });
        if turn == 0 {
            bench.tests.clear();
        }
    }
    if stop.is_requested() {
        return Ok(INTERRUPTED);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lines: Vec<Line<'_>> = bench
        .tests
        .iter()
        .map(|test| bench.line(test, &name))
        .collect();
    output::print_out(shown(&lines, args.output)?.as_bytes())?;
    Ok(0)
}

/// Everything that is measured, loaded.
struct Bench {
    model: Arc<Model>,
    prompt: Vec<Token>,
    steps: Steps,
    aligner: Aligner,
    reward: Box<dyn Reward>,
    rounds: Rounds,
    threads: usize,
    sequences: usize,
    tests: Vec<Test>,
}

impl Bench {
    /// Puts down what a test found this turn.
    fn put(&mut self, name: String, unit: &'static str, rate: bool, value: f64) {
        match self.tests.iter_mut().find(|test| test.name == name) {
            Some(test) => test.found.push(value),
            None => self.tests.push(Test {
                name,
                unit,
                rate,
                found: vec![value],
            }),
        }
    }

    /// What a run is made of, each once.
    fn parts(&mut self) -> Result<()> {
        let (length, sequences) = (self.rounds.max_tokens, self.sequences);
        let tokens = (sequences * length) as f64;
        let spent = plain_decoding(&self.model, &self.prompt, sequences, length, self.threads)?;
        self.put(PLAIN.into(), "tokens/s", true, tokens / spent.as_secs_f64());
        for (name, perturbed) in [("hook", false), ("hook, perturbed", true)] {
            let seconds = self.steps.seconds(&self.prompt, length, perturbed)?;
            let rows = (self.steps.rows * length) as f64;
            self.put(name.into(), "tokens/s", true, rows / seconds);
        }
        let mut row = vec![0.0; self.model.width()];
        let begun = Instant::now();
        for position in 0..1000 {
            let key = NoiseKey {
                seed: 1,
                iteration: 0,
                candidate: 0,
                position,
            };
            key.standard_normal(std::hint::black_box(&mut row));
        }
        let micros = begun.elapsed().as_secs_f64() * 1e6 / 1000.0;
        self.put("noise of a position".into(), "µs", false, micros);
        if let Ok(output) = self.model.output_rows() {
            let view = ArrayView2::from_shape((1, row.len()), &row);
            let view = view.map_err(|e| Error::Run(e.to_string()))?;
            let begun = Instant::now();
            if output.logits(view).is_ok() {
                let millis = begun.elapsed().as_secs_f64() * 1e3;
                self.put(
                    "output matrix × a row, from the file".into(),
                    "ms",
                    false,
                    millis,
                );
            }
        }
        Ok(())
    }

    /// One whole run.
    fn whole(&mut self, method: &MethodSpec) -> Result<()> {
        let mut options = AlignOptions {
            method: method.clone(),
            rounds: self.rounds,
            ..AlignOptions::default()
        };
        options.form.ignore_end = true;
        let (prompt, stop) = (Prompt::Raw(PROMPT.into()), setup::stop_on_interrupt());
        let mut held_out = None;
        let mut rewards = RunRewards::new(self.reward.as_mut(), &mut held_out);
        let run = self
            .aligner
            .align(&prompt, &mut rewards, &options, &stop, &mut |_| {})
            .and_then(Alignment::whole)?;
        let label = method.label();
        let total = run.timings.total_seconds;
        let tokens = run.usage.generated_tokens as f64;
        self.put(label.into(), "tokens/s", true, tokens / total);
        let update = 1e3 * run.timings.control_seconds / run.iterations.len().max(1) as f64;
        self.put(format!("{label}: update"), "ms", false, update);
        let share = 100.0 * run.timings.reward_seconds / total;
        self.put(format!("{label}: reward"), "% of the run", false, share);
        let texts = run.candidates.iter().rev().take(self.rounds.samples);
        let samples: Vec<Sample<'_>> = texts.map(|c| Sample::new(PROMPT, &c.text)).collect();
        let begun = Instant::now();
        self.reward.score(&samples)?;
        let rate = samples.len() as f64 / begun.elapsed().as_secs_f64();
        self.put(
            format!("{label}: scoring its last texts"),
            "texts/s",
            false,
            rate,
        );
        Ok(())
    }

    fn line<'a>(&'a self, test: &'a Test, model: &'a str) -> Line<'a> {
        let plain = self.tests.iter().find(|other| other.name == PLAIN);
        let ratios = plain.filter(|_| test.rate).map(|plain| {
            let pairs = test.found.iter().zip(&plain.found);
            median(pairs.map(|(own, plain)| own / plain).collect())
        });
        Line {
            model,
            threads: self.threads,
            sequences: self.sequences,
            test: &test.name,
            unit: test.unit,
            median: median(test.found.clone()),
            low: test.found.iter().copied().fold(f64::INFINITY, f64::min),
            high: test.found.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            repetitions: test.found.len(),
            ratio_to_plain: ratios,
        }
    }
}

/// Steps of a context with the hook, and nothing else of a run.
struct Steps {
    context: Context,
    rows: usize,
    perturbation: Vec<f32>,
}

impl Steps {
    fn new(model: &Arc<Model>, engine: &EngineOptions, length: usize) -> Result<Self> {
        let rows = model.step_rows(engine.parallel);
        let prompt = model.tokenize(PROMPT, true, true).len();
        let options = ContextOptions {
            sequences: step_rows(rows),
            context: prompt + length,
            threads: engine.threads,
            threads_batch: engine.threads_batch,
            attention: engine.attention,
            logits: LogitsRoute::Graph,
            ..ContextOptions::default()
        };
        Ok(Self {
            context: Context::new(Arc::clone(model), &options)?,
            rows,
            perturbation: vec![0.01; rows * model.width()],
        })
    }

    /// Seconds of `length` steps behind the prompt, with or without a perturbation.
    fn seconds(&mut self, prompt: &[Token], length: usize, perturbed: bool) -> Result<f64> {
        for sequence in 0..self.rows {
            self.context.release(sequence)?;
            self.context.hold(sequence, prompt)?;
        }
        // Not one token in all sequences: rows that are all alike are computed faster than others.
        let mut tokens = prompt.iter().cycle();
        let begun = Instant::now();
        for position in prompt.len()..prompt.len() + length {
            let tokens = tokens.by_ref().take(self.rows);
            let rows: Vec<Row> = tokens.map(|&token| Row { token, position }).collect();
            let v = perturbed.then_some(self.perturbation.as_slice());
            self.context.step(&rows, v, true)?;
            std::hint::black_box(self.context.logits(0)?[0]);
        }
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn shown(lines: &[Line<'_>], form: Form) -> anyhow::Result<String> {
    let mut text = String::new();
    match form {
        Form::Markdown => {
            text.push_str("| model | threads | sequences | test | median | range | ÷ plain |\n");
            text.push_str("|---|---|---|---|---|---|---|\n");
            for line in lines {
                let ratio = line
                    .ratio_to_plain
                    .map_or("–".into(), |r| format!("{r:.2}"));
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {:.2} {} | {:.2} to {:.2} | {ratio} |",
                    line.model,
                    line.threads,
                    line.sequences,
                    line.test,
                    line.median,
                    line.unit,
                    line.low,
                    line.high
                );
            }
        }
        Form::Csv => {
            text.push_str(
                "model,threads,sequences,test,unit,median,low,high,repetitions,ratio_to_plain\n",
            );
            for line in lines {
                let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
                let _ = writeln!(
                    text,
                    "{},{},{},{},{},{},{},{},{},{}",
                    quoted(line.model),
                    line.threads,
                    line.sequences,
                    quoted(line.test),
                    quoted(line.unit),
                    line.median,
                    line.low,
                    line.high,
                    line.repetitions,
                    line.ratio_to_plain.map_or(String::new(), |r| r.to_string())
                );
            }
        }
        Form::Jsonl => {
            for line in lines {
                let _ = writeln!(text, "{}", serde_json::to_string(line)?);
            }
        }
    }
    Ok(text)
}
