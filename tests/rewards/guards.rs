//! What a prompt or a response writes stays plain text, whatever a tokenizer makes of its markup.

use std::path::Path;
use std::sync::Arc;

use aisp_llama::llama::{Model, ModelOptions, Token};
use aisp_llama::reward::{LinearHead, RewardLoader, RewardSpec, Sample};
use tempfile::TempDir;

use crate::tiny::{Fill, PIECES, Tiny};

const WIDTH: u64 = 32;

/// A Llama of one layer with SentencePiece's vocabulary, and a head beside it.
fn of_pieces(folder: &TempDir) -> std::path::PathBuf {
    let mut tiny = Tiny::of_pieces("llama")
        .number("block_count", 1)
        .number("context_length", 256)
        .number("embedding_length", WIDTH)
        .number("feed_forward_length", WIDTH)
        .number("attention.head_count", 2)
        .number("rope.dimension_count", 16)
        .fraction("attention.layer_norm_rms_epsilon", 1e-6)
        .tensor("token_embd.weight", &[WIDTH, PIECES], Fill::Random(0.3))
        .tensor("output_norm.weight", &[WIDTH], Fill::Same(1.0));
    for name in ["attn_norm", "ffn_norm"] {
        tiny = tiny.tensor(&format!("blk.0.{name}.weight"), &[WIDTH], Fill::Same(1.0));
    }
    for name in [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ] {
        let name = format!("blk.0.{name}.weight");
        tiny = tiny.tensor(&name, &[WIDTH, WIDTH], Fill::Random(0.3));
    }
    let path = tiny.write(folder.path(), "pieces.gguf");
    write_head(&aisp_llama::reward::head_beside(&path));
    path
}

fn write_head(path: &Path) {
    let head = LinearHead {
        weight: (0..WIDTH).map(|i| (i as f32 * 0.7).sin()).collect(),
        ..LinearHead::default()
    };
    head.write_safetensors(path).unwrap();
}

/// What a head of the model reads of a prompt and a response in `text`, and the model itself.
fn read(path: &Path, head: &Path, text: &str, sample: [&str; 2]) -> (Vec<Token>, Arc<Model>) {
    let (model, head) = (path.display(), head.display());
    let spec = RewardSpec::parse(&format!("head:{model};head={head};text={text}")).unwrap();
    let mut loader = RewardLoader::new(None, ModelOptions::default(), 1);
    let reward = loader.load(&[spec]).unwrap();
    let [prompt, response] = sample;
    let read = reward.reads(&Sample::new(prompt, response)).unwrap();
    let model = loader.open(path, &Default::default()).unwrap();
    (read[0].tokens.clone(), model)
}

#[test]
fn two_texts_make_no_special_token_together() {
    let folder = TempDir::new().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/fixtures/rewards/skywork.gguf");
    let head = folder.path().join("head.safetensors");
    write_head(&head);
    for (text, sample, whole) in [
        (
            "{prompt}{response}",
            ["so <|im_", "end|> it"],
            "so <|im_end|> it",
        ),
        (
            "{prompt}end|>{response}",
            ["so <|im_", " it"],
            "so <|im_end|> it",
        ),
        ("<|{response}", ["", "im_end|> it"], "<|im_end|> it"),
    ] {
        let (tokens, model) = read(&path, &head, text, sample);
        assert_eq!(tokens, model.tokenize(whole, true, false), "{text}");
        assert_ne!(tokens, model.tokenize(whole, true, true), "{text}");
    }
}

#[test]
fn pieces_are_those_of_the_text_without_a_guard() {
    let folder = TempDir::new().unwrap();
    let path = of_pieces(&folder);
    let head = aisp_llama::reward::head_beside(&path);
    for response in ["ab</s>cd", "<unk> a", "a<unk>b<s>", "</s>", "a b"] {
        let (tokens, model) = read(&path, &head, "{response}", ["", response]);
        assert_eq!(tokens, model.tokenize(response, true, false), "{response}");
    }
    // The markup's own are special, and what follows them begins a text.
    let (tokens, model) = read(&path, &head, "{prompt}</s>{response}", ["a</s>", "<unk>b"]);
    let mut expected = model.tokenize("a</s>", true, false);
    expected.push(2);
    expected.extend(model.tokenize("<unk>b", false, false));
    assert_eq!(tokens, expected);
}
