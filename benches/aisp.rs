//! What an iteration is made of: noise, weights and update, decoding steps, scoring.
//!
//! Needs the models of `make setup`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;

use aisp_llama::control::{
    LambdaRule, NoiseKey, Scored, WeightedMean, WeightedOptions, importance_weights,
};
use aisp_llama::default_threads;
use aisp_llama::llama::{Attention, Context, ContextOptions, LogitsRoute, Reader, Row};
use aisp_llama::method::{Facts, MethodSpec, Rounds};
use aisp_llama::reward::{Classifier, ClassifierOptions, Reward, Sample};
use aisp_llama::rollout::{Job, Rollout, RolloutOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;

fn control(c: &mut Criterion) {
    let mut group = c.benchmark_group("control");
    let mut row = vec![0.0_f32; 576];
    group.throughput(Throughput::Elements(576));
    group.bench_function("noise, one row of 576", |b| {
        let mut position = 0;
        b.iter(|| {
            position += 1;
            let key = NoiseKey {
                seed: 1,
                iteration: 0,
                candidate: 0,
                position,
            };
            key.standard_normal(black_box(&mut row));
        });
    });
    group.throughput(Throughput::Elements(16));
    let rewards: Vec<f64> = (0..16).map(|i| f64::from(i * 7 % 16)).collect();
    for (name, rule) in [
        ("fixed", LambdaRule::Fixed(0.3)),
        ("ess", LambdaRule::Ess(0.25)),
    ] {
        group.bench_function(BenchmarkId::new("weights of 16", name), |b| {
            b.iter(|| importance_weights(black_box(&rewards), &[0.0; 16], rule));
        });
    }
    let scored: Vec<Scored> = (0..16_u32)
        .map(|candidate| Scored {
            candidate,
            reward: f64::from(candidate % 5),
            length: 64,
        })
        .collect();
    group.throughput(Throughput::Elements(16 * 64 * 576));
    group.bench_function("update, 16 candidates, 64 positions, d 576", |b| {
        let mut aisp = WeightedMean::new(WeightedOptions::new(64, 576, 0.3, 1)).unwrap();
        aisp.update(0, &scored);
        b.iter(|| aisp.update(black_box(1), &scored));
    });
    group.finish();
}

fn steps(c: &mut Criterion) {
    let model = common::smollm2();
    let mut group = c.benchmark_group("decode step, 16 sequences");
    group.throughput(Throughput::Elements(16)).sample_size(20);
    for logits in [LogitsRoute::Graph, LogitsRoute::Recompute] {
        let options = ContextOptions {
            sequences: 16,
            context: 256,
            threads: default_threads(),
            logits,
            ..ContextOptions::default()
        };
        // One context for both graph variants: where its memory lies costs more than the hook.
        let mut context = Context::new(Arc::clone(&model), &options).unwrap();
        for sequence in 0..16 {
            context.hold(sequence, &[500; 64]).unwrap();
        }
        let rows = [Row {
            token: 700,
            position: 64,
        }; 16];
        let v = vec![0.1; 16 * model.width()];
        for (name, v) in [("perturbed", Some(v.as_slice())), ("unperturbed", None)] {
            group.bench_function(BenchmarkId::new(name, format!("{logits:?}")), |b| {
                b.iter(|| {
                    for sequence in 0..16 {
                        context.rewind(sequence, 64).unwrap();
                    }
                    context.step(&rows, v, false).unwrap();
                    black_box(context.logits(0).unwrap()[0])
                });
            });
        }
    }
    group.finish();
}

/// Whole iterations of 64 tokens: AISP beside best-of-n, 64 candidates beside 16.
fn iterations(c: &mut Criterion) {
    let model = common::smollm2();
    let prompt = model.tokenize(
        "<|im_start|>user\nTell a story.<|im_end|>\n<|im_start|>assistant\n",
        true,
        true,
    );
    let mut group = c.benchmark_group("iteration, 64 tokens");
    group.sample_size(10);
    for (method, samples) in [("best-of-n", 16), ("aisp", 16), ("aisp", 64)] {
        let options = RolloutOptions {
            parallel: samples,
            context: 128,
            logits: LogitsRoute::Graph,
            ..RolloutOptions::default()
        };
        let mut rollout = Rollout::new(Arc::clone(&model), &options).unwrap();
        let prompt = rollout.add_prompt(prompt.clone()).unwrap();
        let facts = Facts::new(Arc::clone(&model));
        let rounds = Rounds {
            samples,
            max_tokens: 64,
            ..Rounds::default()
        };
        let spec = MethodSpec::named(method).unwrap();
        let proposals = spec.build(&rounds, &facts).unwrap().propose();
        let jobs: Vec<Job> = proposals
            .into_iter()
            .map(|p| Job {
                steer: p.steer,
                choice: p.choice,
                ..Job::new(prompt, 64)
            })
            .collect();
        let mut tokens = 0;
        let mut count = |progress: aisp_llama::rollout::Progress| {
            tokens = progress.tokens;
            ControlFlow::Continue(())
        };
        rollout.run(&jobs, &mut count).unwrap();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(BenchmarkId::new(method, samples), |b| {
            b.iter(|| {
                rollout
                    .run(&jobs, &mut |_| ControlFlow::Continue(()))
                    .unwrap()
            });
        });
    }
    group.finish();
}

fn scoring(c: &mut Criterion) {
    let options = ClassifierOptions {
        threads: default_threads(),
        ..ClassifierOptions::default()
    };
    let mut reward = Classifier::load(&common::path(common::REWARD), &options).unwrap();
    let text = "A warm film about a lost dog that finds its way home across the country.";
    let samples = [Sample::new("", text); 16];
    let mut group = c.benchmark_group("reward");
    group.throughput(Throughput::Elements(16)).sample_size(20);
    group.bench_function("16 responses of 17 tokens", |b| {
        b.iter(|| reward.score(black_box(&samples)).unwrap());
    });
    group.finish();
}

/// Scoring on a shared prompt against llama.cpp's own processing of as many prompt tokens.
fn reading(c: &mut Criterion) {
    let model = common::smollm2();
    let token = |i: i32| 1000 + i * 37 % 40_000;
    let prompt: Vec<i32> = (0..64).map(token).collect();
    let texts: Vec<Vec<i32>> = (0..16)
        .map(|candidate| {
            let own = (0..32).map(|i| token(100 + 32 * candidate + i));
            prompt.iter().copied().chain(own).collect()
        })
        .collect();
    let mut group = c.benchmark_group("reading");
    group.throughput(Throughput::Elements(512)).sample_size(10);
    let mut reader =
        Reader::new(Arc::clone(&model), default_threads(), Attention::default()).unwrap();
    reader.read(&texts, 1, &[]).unwrap();
    group.bench_function("16 responses of 32 tokens on a shared prompt", |b| {
        b.iter(|| {
            let readings = reader.read(black_box(&texts), 1, &[]).unwrap();
            assert_eq!(readings.iter().map(|r| r.decoded).sum::<usize>(), 512);
        });
    });
    let threads = i32::try_from(default_threads()).unwrap();
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(1024))
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let backend = aisp_llama::llama::backend();
    let mut context = model.as_llama_cpp_2().new_context(backend, params).unwrap();
    let mut batch = LlamaBatch::new(512, 1);
    for i in 0..512 {
        batch.add(LlamaToken(token(i)), i, &[0], i == 511).unwrap();
    }
    group.bench_function("a prompt of 512 tokens, llama.cpp", |b| {
        b.iter(|| {
            context.clear_kv_cache();
            context.decode(&mut batch).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, control, steps, iterations, scoring, reading);
criterion_main!(benches);
