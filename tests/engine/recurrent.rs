//! Recurrent and hybrid models, whose states cannot be cut back: the same bits by every way there is
//! to them, on tiny random files.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use aisp_llama::llama::{
    Attention, CacheType, Context, ContextOptions, LogitsRoute, Model, ModelOptions, Reader, Row,
    SequenceMemory, Token,
};
use aisp_llama::rollout::{Beginning, Candidate, Job, Rollout, RolloutOptions};
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::context::session::LlamaStateSeqFlags;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use tempfile::TempDir;

use crate::common::{gemma3, smollm2};
use crate::exactness::{TOKENS, generate, noise, stock_gaps, tokens};
use crate::tiny::recurrent::{ARCHITECTURES, file};

/// One model of every architecture.
fn models() -> &'static [Arc<Model>] {
    static MODELS: OnceLock<(TempDir, Vec<Arc<Model>>)> = OnceLock::new();
    let made = MODELS.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let load = |architecture: &str| {
            let path = file(architecture).write(folder.path(), &format!("{architecture}.gguf"));
            let options = ModelOptions {
                gpu_layers: Some(0),
                ..ModelOptions::default()
            };
            Arc::new(Model::load(&path, &options).unwrap())
        };
        let models = ARCHITECTURES.map(load).to_vec();
        (folder, models)
    });
    &made.1
}

/// On one thread: these models are too small for two.
fn rollout(model: &Arc<Model>, parallel: usize, logits: LogitsRoute) -> Rollout {
    let options = RolloutOptions {
        parallel,
        context: 256,
        threads: 1,
        logits,
        ..RolloutOptions::default()
    };
    Rollout::new(Arc::clone(model), &options).unwrap()
}

fn prompts() -> Vec<Vec<Token>> {
    let text = |seed: usize, length: usize| {
        (0..length)
            .map(|i| ((i * 37 + seed * 11) % 256) as Token)
            .collect()
    };
    vec![
        text(1, 23),
        text(2, 9),
        text(3, 70),
        text(4, 1),
        text(5, 150),
    ]
}

#[test]
fn greedy_is_stock_llama_cpp() {
    for model in models() {
        assert!(model.is_recurrent(), "{}", model.architecture());
        let greedy = tokens(generate(
            &mut rollout(model, 8, LogitsRoute::Rows),
            &prompts(),
            &[None],
            TOKENS,
        ));
        for (prompt, found) in prompts().iter().zip(&greedy) {
            let named = format!("{} {}", model.architecture(), prompt.len());
            let ended = found.last().is_some_and(|&token| model.is_end(token));
            assert!(ended || found.len() == TOKENS, "{named}: {found:?}");
            // Rows in groups have other last bits than single ones; they decide where two tokens of
            // a random model are as probable.
            let gaps = stock_gaps(model, prompt, found);
            assert!(gaps.iter().all(|gap| *gap < 1e-4), "{named}: {gaps:?}");
        }
    }
}

#[test]
fn candidates_are_the_same_by_every_route_and_in_every_batch() {
    for model in models() {
        let steers: Vec<_> = (0..5).map(|c| Some(noise(model, 0.4, c))).collect();
        let run = |parallel, route| {
            let mut rollout = rollout(model, parallel, route);
            // Twice in the same slots.
            let first = generate(&mut rollout, &prompts(), &steers, 16);
            let second = generate(&mut rollout, &prompts(), &steers, 16);
            assert_eq!(
                tokens(first),
                tokens(second.clone()),
                "{}",
                model.architecture()
            );
            tokens(second)
        };
        let expected = run(8, LogitsRoute::Graph);
        assert!(expected[0] != expected[1], "noise does something");
        for (parallel, route) in [
            (8, LogitsRoute::Recompute),
            (8, LogitsRoute::Rows),
            (12, LogitsRoute::Graph),
            (40, LogitsRoute::Graph),
        ] {
            let arch = model.architecture();
            assert!(
                run(parallel, route) == expected,
                "{arch} {parallel} {route:?}"
            );
        }
    }
}

fn context(model: &Arc<Model>, sequences: usize) -> Context {
    let options = ContextOptions {
        sequences,
        context: 128,
        threads: 1,
        logits: LogitsRoute::Graph,
        ..ContextOptions::default()
    };
    Context::new(Arc::clone(model), &options).unwrap()
}

/// The bits of the logits of `sequence` at every token of `text` behind `prompt`.
fn bits(context: &mut Context, sequence: usize, prompt: &[Token], text: &[Token]) -> Vec<u32> {
    context.hold(sequence, prompt).unwrap();
    let count = context.options().sequences;
    let mut bits = Vec::new();
    for (i, &token) in text.iter().enumerate() {
        let rows: Vec<Row> = (0..count)
            .map(|s| match s == sequence {
                true => Row {
                    token,
                    position: prompt.len() + i,
                },
                false => context.idle_row(s).unwrap(),
            })
            .collect();
        context.step(&rows, None, false).unwrap();
        bits.extend(
            context
                .logits(sequence)
                .unwrap()
                .iter()
                .map(|l| l.to_bits()),
        );
    }
    bits
}

#[test]
fn a_state_has_the_same_bits_whatever_went_before() {
    for model in models() {
        let arch = model.architecture();
        let prompts = prompts();
        let text: Vec<Token> = (0..12).map(|i| 3 + 17 * i).collect();
        let expected = bits(&mut context(model, 8), 0, &prompts[0], &text);
        let mut one = context(model, 16);
        for sequence in [3, 0, 15, 3] {
            assert!(
                bits(&mut one, sequence, &prompts[0], &text) == expected,
                "{arch} {sequence}"
            );
            bits(&mut one, sequence, &prompts[1], &text[..5]);
        }
        // A prompt that is held is not decoded again, and what was decoded behind it is none.
        assert_eq!(one.hold(4, &prompts[1]).unwrap(), 0, "{arch}");
        assert_eq!(one.hold(3, &prompts[1]).unwrap(), 0, "{arch}");
        let longer = [&prompts[1][..], &text[..5]].concat();
        assert_eq!(one.hold(4, &longer).unwrap(), longer.len(), "{arch}");
        assert!(!one.cuts());
        assert!(one.rewind(4, 3).is_err(), "{arch} is cut back");
    }
}

#[test]
fn a_beginning_is_decoded_again() {
    for model in models() {
        let options = RolloutOptions {
            parallel: 8,
            parked: 8,
            context: 64,
            threads: 1,
            ..RolloutOptions::default()
        };
        let mut rollout = Rollout::new(Arc::clone(model), &options).unwrap();
        let prompt = rollout.add_prompt(prompts()[0].clone()).unwrap();
        let job = |c: u32, beginning: Beginning| Job {
            steer: Some(noise(model, 0.4, c)),
            beginning,
            ..Job::new(prompt, 8 + c as usize)
        };
        let mut run = |jobs: &[Job]| -> Vec<Candidate> {
            let done = rollout
                .run(jobs, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            done.into_iter().map(Option::unwrap).collect()
        };
        let parents = run(&(0..12)
            .map(|c| job(c, Beginning::default()))
            .collect::<Vec<_>>());
        let begin = |of: &Candidate, length: usize| -> Beginning {
            let pairs = of.tokens.iter().copied().zip(of.nats.iter().copied());
            pairs.take(length.min(of.tokens.len() - 1)).collect()
        };
        let jobs: Vec<Job> = (0..12)
            .zip(&parents)
            .map(|(c, parent)| job(c, begin(parent, c as usize % 5)))
            .collect();
        assert!(
            tokens(run(&jobs)) == tokens(parents),
            "{}",
            model.architecture()
        );
    }
}

#[test]
fn one_alone_beside_groups_is_written_as_if_it_were_alone() {
    for model in models() {
        let alone = |prompt| Job {
            alone: true,
            ..Job::new(prompt, 20)
        };
        let run = |others: u32| {
            let mut rollout = rollout(model, 8, LogitsRoute::Rows);
            let prompt = rollout.add_prompt(prompts()[0].clone()).unwrap();
            let mut jobs: Vec<Job> = (0..others)
                .map(|c| Job {
                    steer: Some(noise(model, 0.4, c)),
                    ..Job::new(prompt, 10 + c as usize)
                })
                .collect();
            jobs.insert(others as usize / 2, alone(prompt));
            let done = rollout
                .run(&jobs, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            let mut done: Vec<Candidate> = done.into_iter().map(Option::unwrap).collect();
            done.remove(others as usize / 2).tokens
        };
        let expected = run(0);
        for others in [1, 7, 20] {
            assert_eq!(run(others), expected, "{} {others}", model.architecture());
        }
    }
}

#[test]
fn texts_that_are_read_have_the_same_bits_alone_and_among_others() {
    let attention = [smollm2(), gemma3()];
    for model in models().iter().chain(&attention) {
        let arch = model.architecture();
        let text = |seed: usize, length: usize| -> Vec<Token> {
            (0..length)
                .map(|i| match i < 80 {
                    true => (i * 7 % 256) as Token,
                    false => ((i * 37 + seed * 11) % 256) as Token,
                })
                .collect()
        };
        let lengths = [81, 129, 150, 83, 95, 128, 144, 97, 86, 90, 200, 260, 300];
        let lengths = match model.is_recurrent() {
            true => &lengths[..],
            false => &lengths[..4],
        };
        let texts: Vec<Vec<Token>> = lengths
            .iter()
            .enumerate()
            .map(|(i, &l)| text(i, l))
            .collect();
        let from: Vec<usize> = lengths.iter().map(|&l| l / 2).collect();
        let watched = [5, 9, 200];
        let mut reader = Reader::new(Arc::clone(model), 1, Attention::default()).unwrap();
        let together = reader.read(&texts, 2, &watched).unwrap();
        let likely = reader.log_p(&texts, &from).unwrap();
        for i in 0..texts.len() {
            let mut fresh = Reader::new(Arc::clone(model), 1, Attention::default()).unwrap();
            let one = &texts[i..=i];
            let alone = fresh.read(one, 2, &watched).unwrap();
            assert!(alone[0].positions == together[i].positions, "{arch} {i}");
            let again = reader.read(one, 2, &watched).unwrap();
            assert!(
                again[0].positions == together[i].positions,
                "{arch} {i} again"
            );
            let alone = fresh.log_p(one, &from[i..=i]).unwrap();
            assert!(alone[0].log_p == likely[i].log_p, "{arch} {i}");
        }
        if !model.is_recurrent() {
            continue;
        }
        // And they are what the model says when it writes, but for its keys and values in half
        // precision.
        let mut writing = context(model, 8);
        writing.hold(0, &texts[0][..80]).unwrap();
        let row = Row {
            token: texts[0][80],
            position: 80,
        };
        writing.step_alone(0, row, None, true).unwrap();
        let read = &together[0].positions[1].pre_logits;
        let largest = read
            .iter()
            .zip(writing.pre_logits())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("{arch}: largest difference of a pre-logit {largest:e}");
        assert!(largest < 2e-2, "{arch} {largest}");
    }
}

/// What llama.cpp itself writes of a sequence of so many tokens.
fn written(model: &Model, tokens: usize) -> u64 {
    let backend = aisp_llama::llama::backend();
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(256))
        .with_n_threads_batch(1);
    let mut context = model.as_llama_cpp_2().new_context(backend, params).unwrap();
    let mut batch = LlamaBatch::new(256, 1);
    for position in 0..tokens {
        batch
            .add(LlamaToken(7), position as i32, &[0], false)
            .unwrap();
    }
    context.decode(&mut batch).unwrap();
    context.state_seq_get_size_ext(0, LlamaStateSeqFlags::empty()) as u64
}

#[test]
fn the_memory_of_a_sequence_is_what_llama_cpp_keeps() {
    let attention = [smollm2(), gemma3()];
    for model in models().iter().chain(&attention) {
        let arch = model.architecture();
        let expected = SequenceMemory::of(model.gguf(), CacheType::F16, CacheType::F16);
        let (few, many) = (written(model, 10), written(model, 110));
        let token = (many - few) as f64 / 100.0;
        let state = few as f64 - 10.0 * token;
        println!("{arch}: {expected:?}, {token} a token and {state} written");
        // Positions and the like stand beside them.
        let near = |found: f64, expected: u64| {
            let expected = expected as f64;
            (expected..expected + 16.0 + 0.1 * expected).contains(&found)
        };
        assert!(near(token, expected.token), "{arch} {token} {expected:?}");
        assert!(
            state >= expected.state as f64 && state < expected.state as f64 + 1000.0,
            "{arch} {state}"
        );
        assert_eq!(expected.state > 0, model.is_recurrent(), "{arch}");
    }
}
