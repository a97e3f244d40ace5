use crate::gguf::testing::{Builder, array, build, text};

/// A model that nothing is wrong with.
fn sound() -> Builder {
    build()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 128)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .pair(
            "llama.attention.layer_norm_rms_epsilon",
            6,
            1e-5f32.to_le_bytes(),
        )
        .str("llama.rope.scaling.type", "yarn")
        .tensor("token_embd.weight", &[256, 3], 14)
        .tensor("output_norm.weight", &[256], 0)
        .tensor("blk.0.attn_q.weight", &[256, 2], 8)
        .tensor("blk.0.attn_q.bias", &[2], 0)
        .tensor("blk.0.ffn_gate_inp_shexp.weight", &[256], 1)
        .tensor("blk.0.ssm_alpha.weight", &[256, 2], 8)
        .tensor("blk.0.ssm_a", &[1, 2], 0)
        .tensor("blk.0.ffn_gate_tid2eid.weight", &[2, 2], 26)
}

fn tokens(list: &[&[u8]]) -> Vec<u8> {
    let raw: Vec<u8> = list.iter().flat_map(text).collect();
    array(8, list.len() as u64, &raw)
}

fn vocabulary(model: &str, list: &[&[u8]]) -> Builder {
    sound()
        .str("tokenizer.ggml.model", model)
        .pair("tokenizer.ggml.tokens", 9, tokens(list))
}

/// A byte-level vocabulary of SentencePiece.
fn bytes() -> Vec<Vec<u8>> {
    (0..=255u8)
        .map(|byte| format!("<0x{byte:02X}>").into_bytes())
        .collect()
}

fn assert_fault(file: &Builder, words: &str) {
    let fault = file.read().unwrap().fault().unwrap_or_default();
    assert!(fault.contains(words), "{words:?} is not in {fault:?}");
}

#[test]
fn a_sound_file_has_none() {
    assert_eq!(sound().read().unwrap().fault(), None);
    let all = bytes();
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    assert_eq!(vocabulary("llama", &all).read().unwrap().fault(), None);
    // Empty ones get names of their own; what was no UTF-8 may have been two texts.
    let odd: [&[u8]; 6] = [b"a", b"", b"", b"\xff", b"\xfe", b"b"];
    assert_eq!(vocabulary("gpt2", &odd).read().unwrap().fault(), None);
    let experts = sound()
        .u32("llama.expert_count", 8)
        .u32("llama.expert_used_count", 2);
    assert_eq!(experts.read().unwrap().fault(), None);
}

#[test]
fn numbers_out_of_range_are_named_with_their_range() {
    let file = || build().str("general.architecture", "llama");
    for (key, value, words) in [
        ("block_count", 0, "0; must be from 1 to 512"),
        ("block_count", 600, "600; must be"),
        ("context_length", 0, "must be from 1 to 2147483647"),
        ("context_length", 1 << 31, "2147483648; must be"),
        ("expert_count", 2000, "must be from 0 to 1024"),
        ("expert_count", 8, "expert_used_count: 0, of 8 experts"),
        ("expert_used_count", 4, "expert_used_count: 4, of 0 experts"),
        (
            "expert_group_count",
            2,
            "expert_group_count: 2, 0 of them used, of 0",
        ),
    ] {
        assert_fault(&file().u32(&format!("llama.{key}"), value), words);
    }
    assert_fault(
        &sound().u32("llama.nextn_predict_layers", 5),
        "nextn_predict_layers: 5; there are 2 blocks",
    );
}

#[test]
fn heads_that_cannot_be_shared_are_named() {
    let file = build()
        .str("general.architecture", "llama")
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 3);
    assert_fault(&file, "head_count_kv: 3; 4 heads cannot share them");
}

#[test]
fn an_epsilon_is_no_negative_number() {
    for value in [-1.0, f32::NAN, f32::INFINITY] {
        let key = "llama.attention.layer_norm_epsilon";
        assert_fault(
            &sound().pair(key, 6, value.to_le_bytes()),
            "must be 0 or more",
        );
    }
}

#[test]
fn an_unknown_rope_scaling_is_named() {
    let file = build()
        .str("general.architecture", "llama")
        .str("llama.rope.scaling.type", "spiral");
    assert_fault(&file, "\"spiral\"; must be one of none, linear");
}

#[test]
fn a_small_alignment_is_refused() {
    for alignment in [1, 8, 16] {
        let file = Builder {
            alignment: u64::from(alignment),
            ..build()
        };
        let file = file
            .u32("general.alignment", alignment)
            .tensor("t", &[1], 0);
        assert_fault(&file, "must be at least 32");
    }
}

#[test]
fn vocabularies_that_cannot_read_are_refused() {
    const CASES: &[(&str, &[&[u8]], &str)] = &[
        (
            "gpt2",
            &[b"a", b"b", b"a"],
            "token 2, \"a\", is there twice",
        ),
        (
            "gpt2",
            &[b"a\0b", b"a\0c"],
            "token 1, \"a\", is there twice",
        ),
        ("no_vocab", &[b"a"], "without a vocabulary"),
        ("llama", &[b"a", b"b", b"c"], "no token for the byte 0x00"),
        ("bert", &[b"a"], "add_bos_token: true"),
    ];
    for (model, list, words) in CASES {
        assert_fault(&vocabulary(model, list), words);
    }
    let file = vocabulary("gpt2", &[b"a"]).pair("tokenizer.ggml.add_eos_token", 7, [1]);
    assert_fault(&file, "add_eos_token: true");
}

#[test]
fn tensors_have_the_types_of_what_is_done_with_them() {
    for (name, dims, kind, words) in [
        ("blk.0.attn_norm.weight", &[256][..], 1, "F16; must be F32"),
        ("blk.0.attn_norm.weight", &[256], 8, "Q8_0; must be F32"),
        ("blk.0.attn_k.bias", &[256], 30, "BF16; must be F32"),
        ("rope_freqs.weight", &[32], 1, "must be F32"),
        ("blk.0.ssm_conv1d.weight", &[4, 256], 1, "must be F32"),
        ("blk.0.ssm_d", &[1, 4], 1, "must be F32"),
        ("blk.0.attn_k.weight", &[256, 2], 9, "Q8_1, which nothing"),
        ("blk.0.attn_k.weight", &[256, 2], 15, "Q8_K, which nothing"),
        ("output.weight", &[256, 2], 24, "I8, which nothing"),
        ("output.weight", &[256, 2], 28, "F64, which nothing"),
    ] {
        assert_fault(&sound().tensor(name, dims, kind), words);
    }
}
