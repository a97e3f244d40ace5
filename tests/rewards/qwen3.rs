//! Tiny random Qwen3 files: which way a file goes, told by its header.

use std::sync::Arc;

use aisp_llama::llama::{Model, ModelOptions};
use aisp_llama::reward::{Reward, RewardLoader, RewardSpec, Sample};
use tempfile::TempDir;

use crate::stepwise::surprise;
use crate::tiny::{Fill, Tiny, VOCABULARY};
use crate::{embedding, rewards};

const WIDTH: u64 = 64;

/// A Qwen3 of one layer, with a head of `labels` outputs where asked for.
fn qwen3(architecture: &str, head: Option<(&str, u64)>) -> Tiny {
    let mut tiny = Tiny::new(architecture)
        .number("block_count", 1)
        .number("context_length", 256)
        .number("embedding_length", WIDTH)
        .number("feed_forward_length", WIDTH)
        .number("attention.head_count", 2)
        .number("attention.head_count_kv", 1)
        .number("attention.key_length", 32)
        .number("attention.value_length", 32)
        .number("rope.dimension_count", 32)
        .fraction("attention.layer_norm_rms_epsilon", 1e-6);
    if let Some((_, labels)) = head {
        let names: Vec<String> = (0..labels).map(|i| format!("label{i}")).collect();
        tiny = tiny
            .number("pooling_type", 4)
            .texts("classifier.output_labels", &names);
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
        tiny = tiny.tensor(&name, &dims, Fill::Random(0.3));
    }
    tiny
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
    let path = qwen3("qwen3", Some(("cls.output.weight", 1))).write(folder.path(), "one.gguf");
    let file = path.to_str().unwrap();
    let samples =
        ["good", "bad", "something quite different"].map(|response| Sample::new("p", response));
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
    let path = qwen3("qwen3", None).write(folder.path(), "none.gguf");
    let file = path.to_str().unwrap();
    refused(file, &["none.gguf", "head:", "judge:", "a reward model"]);
    refused(&format!("head:{file}"), &["score.weight"]);
    refused(&format!("classifier:{file}"), &["cls.output.weight"]);
}

#[test]
fn a_head_of_several_labels_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = qwen3("qwen3", Some(("cls.output.weight", 3))).write(folder.path(), "three.gguf");
    let file = path.to_str().unwrap();
    refused(file, &["three.gguf", "3 outputs"]);
    refused(&format!("head:{file}"), &["3 outputs"]);
}

#[test]
fn a_head_inside_a_file_that_llama_cpp_cannot_load_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = qwen3("llama", Some(("score.weight", 1))).write(folder.path(), "llama.gguf");
    refused(
        path.to_str().unwrap(),
        &["llama.gguf", "score.weight", "head="],
    );
}

#[test]
fn a_likelihood_is_minus_the_surprise_of_the_model() {
    let folder = TempDir::new().unwrap();
    let path = qwen3("qwen3", None).write(folder.path(), "tiny.gguf");
    let options = ModelOptions {
        gpu_layers: Some(0),
        ..ModelOptions::default()
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
        let score = rewards(&mut likelihood, &[Sample::new(prompt, response)])[0];
        let tokens = model.tokenize(prompt, true, true);
        largest = largest.max((score + surprise(&model, tokens, response)).abs());
    }
    println!("likelihood: largest difference to the surprise {largest:e}");
    // Flash attention adds up in half precision.
    assert!(largest < 1e-3, "{largest}");
}
