//! Tiny random Qwen3 files: which way a file goes, told by its header.

use std::path::PathBuf;
use std::sync::Arc;

use aisp_llama::llama::{Model, ModelOptions};
use aisp_llama::reward::{Reward, RewardLoader, RewardSpec, Sample};
use tempfile::TempDir;

use crate::stepwise::surprise;
use crate::testing::{Builder, array, build, text};
use crate::{embedding, rewards};

const WIDTH: u64 = 64;
const VOCABULARY: u64 = 258;

/// The 256 bytes as GPT-2 writes them, one merge, and an end of text.
fn tokens() -> Vec<String> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 256;
    let mut tokens: Vec<String> = (0..256)
        .map(|byte| {
            let point = if printable(byte) {
                byte
            } else {
                shifted += 1;
                shifted - 1
            };
            char::from_u32(point).unwrap().to_string()
        })
        .collect();
    tokens.push("th".into());
    tokens.push("<|endoftext|>".into());
    tokens
}

fn strings(values: &[String]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(text).collect();
    array(8, values.len() as u64, &raw)
}

/// A Qwen3 of one layer, with a head of `labels` outputs where asked for.
fn qwen3(architecture: &str, head: Option<(&str, u64)>) -> Builder {
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let epsilon = 1e-6_f32.to_le_bytes();
    let mut builder = build()
        .str("general.architecture", architecture)
        .u32(&key("block_count"), 1)
        .u32(&key("context_length"), 256)
        .u32(&key("embedding_length"), WIDTH as u32)
        .u32(&key("feed_forward_length"), WIDTH as u32)
        .u32(&key("attention.head_count"), 2)
        .u32(&key("attention.head_count_kv"), 1)
        .u32(&key("attention.key_length"), 32)
        .u32(&key("attention.value_length"), 32)
        .u32(&key("rope.dimension_count"), 32)
        .pair(key("attention.layer_norm_rms_epsilon"), 6, epsilon)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "qwen2")
        .pair("tokenizer.ggml.tokens", 9, strings(&tokens()))
        .pair("tokenizer.ggml.merges", 9, strings(&["t h".into()]))
        .u32("tokenizer.ggml.eos_token_id", 257);
    if head.is_some() {
        builder = builder.u32(&key("pooling_type"), 4);
        if let Some((_, labels)) = head {
            let names: Vec<String> = (0..labels).map(|i| format!("label{i}")).collect();
            builder = builder.pair(key("classifier.output_labels"), 9, strings(&names));
        }
    }
    let mut tensors: Vec<(String, Vec<u64>)> = vec![
        ("token_embd.weight".into(), vec![WIDTH, VOCABULARY]),
        ("output_norm.weight".into(), vec![WIDTH]),
    ];
    let mut block = vec![
        ("attn_norm", vec![WIDTH]),
        ("attn_q", vec![WIDTH, WIDTH]),
        ("attn_k", vec![WIDTH, 32]),
        ("attn_v", vec![WIDTH, 32]),
        ("attn_output", vec![WIDTH, WIDTH]),
        ("ffn_norm", vec![WIDTH]),
        ("ffn_gate", vec![WIDTH, WIDTH]),
        ("ffn_up", vec![WIDTH, WIDTH]),
        ("ffn_down", vec![WIDTH, WIDTH]),
    ];
    if architecture == "qwen3" {
        block.push(("attn_q_norm", vec![32]));
        block.push(("attn_k_norm", vec![32]));
    }
    for (name, dims) in block {
        tensors.push((format!("blk.0.{name}.weight"), dims));
    }
    if let Some((name, labels)) = head {
        tensors.push((name.into(), vec![WIDTH, labels]));
    }
    for (name, dims) in tensors {
        builder = builder.tensor(&name, &dims, 0);
    }
    builder
}

/// The file with pseudo-random weights of standard deviation 0.3.
fn write(folder: &TempDir, name: &str, builder: &Builder) -> PathBuf {
    let mut bytes = builder.header();
    bytes.resize(bytes.len().next_multiple_of(builder.alignment as usize), 0);
    let mut state = 1_u64;
    for _ in 0..builder.data_bytes / 4 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        let uniform = (state >> 40) as f32 / (1_u64 << 24) as f32;
        bytes.extend(((uniform - 0.5) * 1.04).to_le_bytes());
    }
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn load(spec: &str) -> aisp_llama::Result<Box<dyn Reward>> {
    let spec = match spec.split_once(':') {
        Some(_) => RewardSpec::parse(spec)?,
        None => RewardSpec::parse_file(spec)?,
    };
    RewardLoader::new(None, ModelOptions::default(), 1).load(&[spec])
}

fn refused(spec: &str, words: &[&str]) {
    let error = load(spec).err().expect("refused");
    assert!(matches!(error, aisp_llama::Error::Model { .. }), "{error}");
    for word in words {
        assert!(
            error.to_string().contains(word),
            "{word:?} is not in: {error}"
        );
    }
}

#[test]
fn a_qwen3_with_one_label_is_scored_by_its_own_head() {
    let folder = TempDir::new().unwrap();
    let path = write(
        &folder,
        "one.gguf",
        &qwen3("qwen3", Some(("cls.output.weight", 1))),
    );
    let file = path.to_str().unwrap();
    let samples = ["good", "bad", "something quite different"].map(|response| Sample {
        prompt: "p",
        response,
    });
    let found = rewards(load(file).unwrap().as_mut(), &samples);
    assert!(found[0] != found[1] && found[1] != found[2], "{found:?}");
    // The head is the last tensor of the file.
    let bytes = std::fs::read(&path).unwrap();
    let head: Vec<f32> = bytes[bytes.len() - WIDTH as usize * 4..]
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    let model = Arc::new(Model::load(&path, &ModelOptions::default()).unwrap());
    for (sample, found) in samples.iter().zip(&found) {
        let tokens = model.tokenize(&format!("p\n{}", sample.response), true, false);
        let z = embedding(&model, &tokens);
        let by_hand: f64 = z
            .iter()
            .zip(&head)
            .map(|(z, w)| f64::from(*z) * f64::from(*w))
            .sum();
        assert!((by_hand - found).abs() < 1e-3, "{by_hand} {found}");
    }
    refused(&format!("classifier:{file}"), &["soft-max", "head:"]);
}

#[test]
fn a_headless_qwen3_is_refused_with_the_ways_out() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "none.gguf", &qwen3("qwen3", None));
    let file = path.to_str().unwrap();
    refused(file, &["none.gguf", "head:", "judge:", "a reward model"]);
    refused(&format!("head:{file}"), &["score.weight"]);
    refused(&format!("classifier:{file}"), &["cls.output.weight"]);
}

#[test]
fn a_head_of_several_labels_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = write(
        &folder,
        "three.gguf",
        &qwen3("qwen3", Some(("cls.output.weight", 3))),
    );
    let file = path.to_str().unwrap();
    refused(file, &["three.gguf", "3 outputs"]);
    refused(&format!("head:{file}"), &["3 outputs"]);
}

#[test]
fn a_head_inside_a_file_that_llama_cpp_cannot_load_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = write(
        &folder,
        "llama.gguf",
        &qwen3("llama", Some(("score.weight", 1))),
    );
    refused(
        path.to_str().unwrap(),
        &["llama.gguf", "score.weight", "head="],
    );
}

#[test]
fn a_likelihood_is_minus_the_surprise_of_the_model() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "tiny.gguf", &qwen3("qwen3", None));
    let options = ModelOptions {
        gpu_layers: Some(0),
        mmap: true,
    };
    let model = Arc::new(Model::load(&path, &options).unwrap());
    let mut loader = RewardLoader::new(Some(Arc::clone(&model)), options, 1);
    let spec = RewardSpec::parse("likelihood:self").unwrap();
    let mut likelihood = loader.load(&[spec]).unwrap();
    let prompt = "Once upon a time";
    let mut largest = 0.0_f64;
    for response in [
        ", there was",
        "x",
        " a much longer response, of more than eight tokens.",
    ] {
        let score = rewards(&mut likelihood, &[Sample { prompt, response }])[0];
        let tokens = model.tokenize(prompt, true, true);
        largest = largest.max((score + surprise(&model, tokens, response)).abs());
    }
    println!("likelihood: largest difference to the surprise {largest:e}");
    // Flash attention adds up in half precision.
    assert!(largest < 1e-3, "{largest}");
}
