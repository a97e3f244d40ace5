//! The rows of the page.

use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use aisp_llama::llama::{Model, ModelOptions, Token, plain_decoding};
use aisp_llama::method::Rounds;
use aisp_llama::reward::{Classifier, ClassifierOptions};
use aisp_llama::{AlignOptions, Aligner, Alignment, EngineOptions, Prompt, Stop, default_threads};

use crate::{common, others};

/// Times that two things are run in turn; fewer where one of them takes a minute.
pub const TURNS: usize = 5;
pub const FEW: usize = 3;

/// The model of most rows.
pub const SMOLLM: &str = "SmolLM2-135M-Instruct.Q4_0.gguf";
/// Tokens of a response beside plain decoding.
pub const LENGTH: usize = 128;

/// One row.
pub struct RowOf {
    pub name: &'static str,
    pub what: &'static str,
    pub first: &'static str,
    pub second: &'static str,
    pub run: fn() -> Measured,
}

/// Ratios of the first to the second, and a word on them.
pub struct Measured {
    pub ratios: Vec<f64>,
    pub note: String,
}

pub const ROWS: &[RowOf] = &[
    RowOf {
        name: "plain",
        what: "tokens a second, 16 sequences of 128 tokens, no rewards",
        first: "`aisp`, first iteration",
        second: "llama.cpp's own batched decoding",
        run: || against_plain("aisp:steer=0", 16),
    },
    RowOf {
        name: "batched-bench",
        what: "tokens a second, 16 sequences of 128 tokens, no rewards",
        first: "`aisp`, first iteration",
        second: "llama.cpp's `batched-bench`",
        run: others::against_batched_bench,
    },
    RowOf {
        name: "noise",
        what: "the same under Gaussian noise",
        first: "`search:start=noise`",
        second: "llama.cpp's own batched decoding",
        run: || against_plain("search:start=noise", 16),
    },
    RowOf {
        name: "alone",
        what: "tokens a second of one greedy answer of 128 tokens",
        first: "`greedy`",
        second: "llama.cpp's own loop of single rows",
        run: || against_plain("greedy", 1),
    },
    RowOf {
        name: "wide",
        what: "tokens a second of one iteration of 64 tokens",
        first: "64 candidates",
        second: "16 candidates",
        run: wide,
    },
    RowOf {
        name: "tree-24",
        what: "candidates a second of the default run, 24 tokens, SmolLM2",
        first: "prefixes shared",
        second: "`--no-share-prefixes`",
        run: || tree(smollm(), 24, true, TURNS),
    },
    RowOf {
        name: "tree-128",
        what: "the same with 128 tokens",
        first: "prefixes shared",
        second: "`--no-share-prefixes`",
        run: || tree(smollm(), 128, true, FEW),
    },
    RowOf {
        name: "gemma-24",
        what: "the same with 24 tokens, Gemma 3 270M, no chat template",
        first: "prefixes shared",
        second: "`--no-share-prefixes`",
        run: || tree(gemma(), 24, false, FEW),
    },
    RowOf {
        name: "gemma-128",
        what: "the same with 128 tokens, Gemma 3 270M, no chat template",
        first: "prefixes shared",
        second: "`--no-share-prefixes`",
        run: || tree(gemma(), 128, false, FEW),
    },
    RowOf {
        name: "best-of-n",
        what: "tokens of candidates a second, those had from others among them, 16 × 8, 64 tokens, rewards included",
        first: "the default",
        second: "`best-of-n:temp=1:top-p=1`",
        run: best_of_n,
    },
    RowOf {
        name: "pytorch",
        what: "256 samples of 64 tokens by AISP, no rewards",
        first: "`aisp:preset=paper`",
        second: "PyTorch and transformers in bfloat16, the weights of the same file",
        run: others::against_pytorch,
    },
    RowOf {
        name: "prompts",
        what: "8 prompts, 16 × 4, 24 tokens",
        first: "side by side",
        second: "one after the other",
        run: prompts,
    },
    RowOf {
        name: "busy",
        what: "tokens a second of two iterations of 24 tokens",
        first: "beside a busy process",
        second: "on an idle machine",
        run: busy,
    },
];

fn load(name: &str) -> Arc<Model> {
    let options = ModelOptions {
        gpu_layers: Some(0),
        ..ModelOptions::default()
    };
    Arc::new(Model::load(&common::path(name), &options).unwrap())
}

pub fn smollm() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| load(SMOLLM)))
}

fn gemma() -> Arc<Model> {
    common::gemma3()
}

fn reward() -> Classifier {
    let options = ClassifierOptions {
        threads: default_threads(),
        ..ClassifierOptions::default()
    };
    Classifier::load(&common::path(common::REWARD), &options).unwrap()
}

/// Ratios of what `first` and `second` say, asked in turn; once more in front, to warm up.
pub fn in_turn(
    turns: usize,
    mut first: impl FnMut() -> f64,
    mut second: impl FnMut() -> f64,
) -> Vec<f64> {
    let _ = (first(), second());
    (0..turns).map(|_| first() / second()).collect()
}

pub fn measured(ratios: Vec<f64>) -> Measured {
    Measured {
        ratios,
        note: String::new(),
    }
}

/// A model with its options and reward, for whole runs.
pub struct Bench {
    aligner: Aligner,
    reward: Classifier,
    pub options: AlignOptions,
}

impl Bench {
    pub fn new(model: Arc<Model>, method: &str, rounds: Rounds, engine: EngineOptions) -> Self {
        Self {
            aligner: Aligner::new(model, engine).unwrap(),
            reward: reward(),
            options: AlignOptions {
                method: method.parse().unwrap(),
                rounds,
                ..AlignOptions::default()
            },
        }
    }

    pub fn run(&mut self, prompt: &Prompt) -> Alignment {
        let Self {
            aligner,
            reward,
            options,
        } = self;
        aligner
            .align(prompt, reward, options, &Stop::new(), &mut |_| {})
            .unwrap()
    }
}

pub fn rounds(samples: usize, iterations: usize, max_tokens: usize) -> Rounds {
    Rounds {
        samples,
        iterations,
        max_tokens,
        seed: 1,
    }
}

pub fn review(chat: bool) -> Prompt {
    let text = "Write one sentence reviewing a movie about a lost dog.";
    match chat {
        true => Prompt::user(None, text),
        false => Prompt::Raw(text.into()),
    }
}

/// A prompt behind which hardly any response ends early.
pub const STORY: &str = "Chapter 1. It was a dark and stormy night, and";

/// New tokens a second of one iteration, generation alone.
pub fn generation(bench: &mut Bench, prompt: &Prompt) -> f64 {
    let run = bench.run(prompt);
    run.usage.generated_tokens as f64 / run.timings.generation_seconds
}

/// One iteration of responses that are all as long as they may be, as llama.cpp's are.
pub fn to_the_end(method: &str, samples: usize) -> Bench {
    let rounds = rounds(samples, 1, LENGTH);
    let engine = EngineOptions {
        share_prefixes: false,
        ..EngineOptions::default()
    };
    let mut bench = Bench::new(smollm(), method, rounds, engine);
    bench.options.form.ignore_end = true;
    bench
}

fn against_plain(method: &str, samples: usize) -> Measured {
    let model = smollm();
    let tokens: Vec<Token> = model.tokenize(STORY, true, true);
    let mut bench = to_the_end(method, samples);
    let prompt = Prompt::Raw(STORY.into());
    measured(in_turn(
        TURNS,
        || generation(&mut bench, &prompt),
        || {
            let threads = default_threads();
            let spent = plain_decoding(&model, &tokens, samples, LENGTH, threads).unwrap();
            (samples * LENGTH) as f64 / spent.as_secs_f64()
        },
    ))
}

fn wide() -> Measured {
    let bench = |samples| {
        let engine = EngineOptions {
            parallel: samples,
            ..EngineOptions::default()
        };
        Bench::new(
            smollm(),
            "search:start=noise",
            rounds(samples, 1, 64),
            engine,
        )
    };
    let (mut many, mut few) = (bench(64), bench(16));
    let prompt = Prompt::Raw(STORY.into());
    measured(in_turn(
        TURNS,
        || generation(&mut many, &prompt),
        || generation(&mut few, &prompt),
    ))
}

fn tree(model: Arc<Model>, max_tokens: usize, chat: bool, turns: usize) -> Measured {
    let bench = |share_prefixes| {
        let engine = EngineOptions {
            share_prefixes,
            ..EngineOptions::default()
        };
        Bench::new(
            Arc::clone(&model),
            "search",
            rounds(16, 8, max_tokens),
            engine,
        )
    };
    let (mut shared, mut again) = (bench(true), bench(false));
    let prompt = review(chat);
    let mut texts = [String::new(), String::new()];
    let mut share = 0.0;
    let rate = |bench: &mut Bench, text: &mut String, share: &mut f64| {
        let begun = Instant::now();
        let run = bench.run(&prompt);
        let seconds = begun.elapsed().as_secs_f64();
        *share = run.timings.reward_seconds / run.timings.total_seconds;
        text.clone_from(&run.response);
        run.usage.candidates as f64 / seconds
    };
    let [own, other] = &mut texts;
    let mut ignored = 0.0;
    let ratios = in_turn(
        turns,
        || rate(&mut shared, own, &mut share),
        || rate(&mut again, other, &mut ignored),
    );
    assert_eq!(texts[0], texts[1], "the text does not depend on it");
    let (with, without) = (shared.aligner.work(), again.aligner.work());
    let filled = (with.rows - with.written - with.again) as f64 / with.rows as f64;
    Measured {
        ratios,
        note: format!(
            "; {:.2} of the rows, {:.0} % of which only fill steps up; {:.0} % of the time is the reward's",
            with.rows as f64 / without.rows as f64,
            100.0 * filled,
            100.0 * share
        ),
    }
}

/// Tokens of all candidates a second, those that were known beforehand among them.
fn best_of_n() -> Measured {
    let bench = |method| {
        let engine = EngineOptions::default();
        Bench::new(smollm(), method, rounds(16, 8, 64), engine)
    };
    let (mut own, mut other) = (bench("search"), bench("best-of-n:temp=1:top-p=1"));
    let prompt = review(true);
    let rate = |bench: &mut Bench| {
        let begun = Instant::now();
        let run = bench.run(&prompt);
        let tokens: usize = run.candidates.iter().map(|c| c.tokens).sum();
        tokens as f64 / begun.elapsed().as_secs_f64()
    };
    measured(in_turn(FEW, || rate(&mut own), || rate(&mut other)))
}

/// Prompts of one kind.
pub fn reviews() -> Vec<Prompt> {
    let of = |subject: &str| {
        let text = format!("Write one sentence reviewing a movie about {subject}.");
        Prompt::user(None, text)
    };
    let subjects = [
        "a lost dog",
        "a heist",
        "a rock band",
        "two sisters",
        "a ghost ship",
        "a chess champion",
        "a wedding",
        "a long winter",
    ];
    subjects.map(of).into()
}

/// The answers to all prompts, side by side.
pub fn all_of(bench: &mut Bench, prompts: &[Prompt]) -> Vec<String> {
    let Bench {
        aligner,
        reward,
        options,
    } = bench;
    let mut answers = vec![String::new(); prompts.len()];
    let mut done = |number: usize, run: aisp_llama::Result<Alignment>| {
        answers[number] = run?.response;
        Ok(())
    };
    let (stop, mut observe) = (Stop::new(), |_: &_| {});
    aligner
        .align_all(prompts, reward, options, &stop, &mut observe, &mut done)
        .unwrap();
    answers
}

fn prompts() -> Measured {
    let prompts = reviews();
    let bench = || {
        let engine = EngineOptions::default();
        Bench::new(smollm(), "search", rounds(16, 4, 24), engine)
    };
    let (mut all, mut each) = (bench(), bench());
    let (mut side_by_side, mut one_by_one) = (Vec::new(), Vec::new());
    let ratios = in_turn(
        FEW,
        || {
            let begun = Instant::now();
            side_by_side = all_of(&mut all, &prompts);
            1.0 / begun.elapsed().as_secs_f64()
        },
        || {
            let begun = Instant::now();
            one_by_one = prompts.iter().map(|p| each.run(p).response).collect();
            1.0 / begun.elapsed().as_secs_f64()
        },
    );
    assert_eq!(side_by_side, one_by_one);
    let (all, each) = (all.aligner.work(), each.aligner.work());
    Measured {
        ratios,
        note: format!("; {:.2} of the rows", all.rows as f64 / each.rows as f64),
    }
}

/// A process that does nothing but take a processor; it ends with this.
struct Busy(Child);

impl Busy {
    fn new() -> Self {
        let mut shell = Command::new("sh");
        Self(shell.args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn busy() -> Measured {
    let engine = EngineOptions::default();
    let bench = Bench::new(smollm(), "search:start=noise", rounds(16, 2, 24), engine);
    let bench = std::cell::RefCell::new(bench);
    let prompt = Prompt::Raw(STORY.into());
    measured(in_turn(
        TURNS,
        || {
            let _busy = Busy::new();
            generation(&mut bench.borrow_mut(), &prompt)
        },
        || generation(&mut bench.borrow_mut(), &prompt),
    ))
}
