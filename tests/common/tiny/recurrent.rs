//! Recurrent and hybrid models: tensors and keys as llama.cpp's `src/models/` asks for them.

use super::Fill::{Random, Same};
use super::{Fill, Tiny, VOCABULARY};

/// The architectures that can be made here.
pub const ARCHITECTURES: [&str; 8] = [
    "mamba",
    "mamba2",
    "rwkv7",
    "lfm2",
    "qwen35",
    "granitehybrid",
    "falcon-h1",
    "nemotron_h",
];

const WIDTH: u64 = 64;
const INNER: u64 = 2 * WIDTH;
const LAYERS: u64 = 4;
const FEED: u64 = 128;
/// Heads, those of keys and values, and the width of each.
const HEADS: (u64, u64, u64) = (4, 2, 16);
/// State, groups, heads and convolution of Mamba 2.
const SSM: (u64, u64, u64, u64) = (16, 2, 4, 4);

/// Tensors of one block: name, sizes, content.
type Block = Vec<(&'static str, Vec<u64>, Fill)>;

/// A file of `architecture`.
pub fn file(architecture: &str) -> Tiny {
    let (heads, heads_kv, head) = HEADS;
    let mut tiny = Tiny::new(architecture)
        .number("block_count", LAYERS)
        .number("context_length", 512)
        .number("embedding_length", WIDTH)
        .fraction("attention.layer_norm_rms_epsilon", 1e-5);
    tiny = match architecture {
        "mamba" | "mamba2" => tiny
            .number("feed_forward_length", 0)
            .number("attention.head_count", 0),
        "rwkv7" => tiny
            .number("feed_forward_length", FEED)
            .number("attention.head_count", 0),
        // No layer of it has two parts.
        "nemotron_h" => tiny
            .numbers("feed_forward_length", &[0, FEED as i32, 0, 0])
            .number("attention.head_count", heads),
        _ => tiny
            .number("feed_forward_length", FEED)
            .number("attention.head_count", heads),
    };
    if !matches!(architecture, "mamba" | "mamba2" | "rwkv7") {
        tiny = tiny
            .number("attention.key_length", head)
            .number("attention.value_length", head)
            .number("rope.dimension_count", head)
            .fraction("rope.freq_base", 1e4);
    }
    tiny = match architecture {
        "lfm2" | "granitehybrid" => {
            tiny.numbers("attention.head_count_kv", &[0, 0, heads_kv as i32, 0])
        }
        "nemotron_h" => tiny
            .numbers("attention.head_count_kv", &[0, 0, heads_kv as i32, 0])
            .fraction("attention.layer_norm_epsilon", 1e-5),
        "qwen35" | "falcon-h1" => tiny.number("attention.head_count_kv", heads_kv),
        _ => tiny,
    };
    tiny = match architecture {
        "lfm2" => tiny.number("shortconv.l_cache", 3),
        "rwkv7" => tiny
            .fraction("attention.layer_norm_epsilon", 1e-5)
            .number("wkv.head_size", 64)
            .number("attention.decay_lora_rank", 8)
            .number("attention.iclr_lora_rank", 8)
            .number("attention.value_residual_mix_lora_rank", 8)
            .number("attention.gate_lora_rank", 8)
            .number("token_shift_count", 2),
        "mamba" => ssm(tiny, INNER, None, 8),
        "qwen35" => ssm(tiny, SSM.0 * SSM.2, Some(SSM.1), SSM.2)
            .numbers("rope.dimension_sections", &[4, 2, 2, 0])
            .number("full_attention_interval", 4),
        _ => ssm(tiny, INNER, Some(SSM.1), SSM.2),
    };
    tiny = tiny.tensor("token_embd.weight", &[WIDTH, VOCABULARY], Random(0.5));
    tiny = match architecture {
        "lfm2" => tiny.tensor("token_embd_norm.weight", &[WIDTH], Same(1.0)),
        _ => tiny.tensor("output_norm.weight", &[WIDTH], Same(1.0)),
    };
    if architecture == "rwkv7" {
        tiny = tiny
            .tensor("token_embd_norm.weight", &[WIDTH], Same(1.0))
            .tensor("token_embd_norm.bias", &[WIDTH], Same(0.0))
            .tensor("output_norm.bias", &[WIDTH], Same(0.0))
            .tensor("output.weight", &[WIDTH, VOCABULARY], Random(0.5));
    }
    for layer in 0..LAYERS {
        for (name, dims, fill) in block(architecture, layer) {
            tiny = tiny.tensor(&format!("blk.{layer}.{name}"), &dims, fill);
        }
    }
    tiny
}

/// The sizes of a state space model with an inner one of `inner` channels.
fn ssm(tiny: Tiny, inner: u64, groups: Option<u64>, rank: u64) -> Tiny {
    let tiny = tiny
        .number("ssm.conv_kernel", SSM.3)
        .number("ssm.inner_size", inner)
        .number("ssm.state_size", SSM.0)
        .number("ssm.time_step_rank", rank);
    match groups {
        Some(groups) => tiny.number("ssm.group_count", groups),
        None => tiny,
    }
}

fn block(architecture: &str, layer: u64) -> Block {
    let mut block = vec![("attn_norm.weight", vec![WIDTH], Same(1.0))];
    match architecture {
        "mamba" => block.extend(mamba()),
        "mamba2" => block.extend(mamba2()),
        "rwkv7" => block.extend(rwkv7()),
        "lfm2" => {
            block.extend(feed_forward("ffn_norm.weight"));
            block.extend(match layer {
                2 => [attention(1), norms()].concat(),
                _ => short_convolution(),
            });
        }
        "qwen35" => {
            block.extend(feed_forward("post_attention_norm.weight"));
            block.extend(match layer {
                3 => [attention(2), norms()].concat(),
                _ => delta_net(),
            });
        }
        "granitehybrid" => {
            block.extend(feed_forward("ffn_norm.weight"));
            block.extend(if layer == 2 { attention(1) } else { mamba2() });
        }
        "falcon-h1" => {
            block.extend(feed_forward("ffn_norm"));
            block.extend(attention(1));
            block.extend(mamba2());
        }
        "nemotron_h" => block.extend(match layer {
            1 => vec![
                ("ffn_up.weight", vec![WIDTH, FEED], Random(0.08)),
                ("ffn_down.weight", vec![FEED, WIDTH], Random(0.08)),
            ],
            2 => attention(1),
            _ => mamba2(),
        }),
        other => panic!("no tiny {other}"),
    }
    block
}

fn feed_forward(norm: &'static str) -> Block {
    vec![
        (norm, vec![WIDTH], Same(1.0)),
        ("ffn_gate.weight", vec![WIDTH, FEED], Random(0.08)),
        ("ffn_up.weight", vec![WIDTH, FEED], Random(0.08)),
        ("ffn_down.weight", vec![FEED, WIDTH], Random(0.08)),
    ]
}

/// With queries of so many parts.
fn attention(parts: u64) -> Block {
    let (heads, heads_kv, head) = HEADS;
    vec![
        (
            "attn_q.weight",
            vec![WIDTH, parts * heads * head],
            Random(0.2),
        ),
        ("attn_k.weight", vec![WIDTH, heads_kv * head], Random(0.2)),
        ("attn_v.weight", vec![WIDTH, heads_kv * head], Random(0.2)),
        ("attn_output.weight", vec![heads * head, WIDTH], Random(0.2)),
    ]
}

/// Of queries and keys.
fn norms() -> Block {
    vec![
        ("attn_q_norm.weight", vec![HEADS.2], Same(1.0)),
        ("attn_k_norm.weight", vec![HEADS.2], Same(1.0)),
    ]
}

fn short_convolution() -> Block {
    vec![
        ("shortconv.conv.weight", vec![3, WIDTH], Random(0.5)),
        (
            "shortconv.in_proj.weight",
            vec![WIDTH, 3 * WIDTH],
            Random(0.2),
        ),
        ("shortconv.out_proj.weight", vec![WIDTH, WIDTH], Random(0.2)),
    ]
}

fn mamba() -> Block {
    let (state, rank, convolution) = (SSM.0, 8, SSM.3);
    vec![
        ("ssm_in.weight", vec![WIDTH, 2 * INNER], Random(0.2)),
        ("ssm_conv1d.weight", vec![convolution, INNER], Random(0.4)),
        ("ssm_conv1d.bias", vec![INNER], Random(0.08)),
        ("ssm_x.weight", vec![INNER, rank + 2 * state], Random(0.2)),
        ("ssm_dt.weight", vec![rank, INNER], Random(0.2)),
        ("ssm_dt.bias", vec![INNER], Random(0.08)),
        ("ssm_a", vec![state, INNER], Same(-1.0)),
        ("ssm_d", vec![INNER], Same(1.0)),
        ("ssm_out.weight", vec![INNER, WIDTH], Random(0.2)),
    ]
}

fn mamba2() -> Block {
    let (state, groups, heads, convolution) = SSM;
    let channels = INNER + 2 * groups * state;
    vec![
        (
            "ssm_in.weight",
            vec![WIDTH, INNER + channels + heads],
            Random(0.2),
        ),
        (
            "ssm_conv1d.weight",
            vec![convolution, channels],
            Random(0.4),
        ),
        ("ssm_conv1d.bias", vec![channels], Random(0.08)),
        ("ssm_dt.bias", vec![heads], Random(0.08)),
        ("ssm_a", vec![1, heads], Same(-1.0)),
        ("ssm_d", vec![1, heads], Same(1.0)),
        ("ssm_norm.weight", vec![INNER / groups, groups], Same(1.0)),
        ("ssm_out.weight", vec![INNER, WIDTH], Random(0.2)),
    ]
}

fn delta_net() -> Block {
    let (state, groups, heads, convolution) = SSM;
    let (keys, values) = (state * groups, state * heads);
    let channels = 2 * keys + values;
    vec![
        ("attn_qkv.weight", vec![WIDTH, channels], Random(0.2)),
        ("attn_gate.weight", vec![WIDTH, values], Random(0.2)),
        (
            "ssm_conv1d.weight",
            vec![convolution, channels],
            Random(0.4),
        ),
        ("ssm_dt.bias", vec![heads], Random(0.08)),
        ("ssm_a", vec![heads], Same(-0.7)),
        ("ssm_beta.weight", vec![WIDTH, heads], Random(0.2)),
        ("ssm_alpha.weight", vec![WIDTH, heads], Random(0.2)),
        ("ssm_norm.weight", vec![state], Same(1.0)),
        ("ssm_out.weight", vec![values, WIDTH], Random(0.2)),
    ]
}

fn rwkv7() -> Block {
    let rank = 8;
    let mut block: Block = vec![
        ("attn_norm.bias", vec![WIDTH], Same(0.0)),
        ("attn_norm_2.weight", vec![WIDTH], Same(1.0)),
        ("attn_norm_2.bias", vec![WIDTH], Same(0.0)),
        (
            "time_mix_lerp_fused.weight",
            vec![WIDTH, 1, 1, 6],
            Random(0.3),
        ),
        ("time_mix_ln.weight", vec![WIDTH], Same(1.0)),
        ("time_mix_ln.bias", vec![WIDTH], Same(0.0)),
        ("channel_mix_lerp_k.weight", vec![WIDTH, 1, 1], Random(0.3)),
        ("channel_mix_key.weight", vec![WIDTH, FEED], Random(0.1)),
        ("channel_mix_value.weight", vec![FEED, WIDTH], Random(0.1)),
    ];
    for name in [
        "time_mix_w0.weight",
        "time_mix_a0.weight",
        "time_mix_v0.weight",
        "time_mix_k_k.weight",
        "time_mix_k_a.weight",
        "time_mix_r_k.weight",
    ] {
        block.push((name, vec![WIDTH], Random(0.3)));
    }
    for (down, up) in [
        ("time_mix_w1.weight", "time_mix_w2.weight"),
        ("time_mix_a1.weight", "time_mix_a2.weight"),
        ("time_mix_v1.weight", "time_mix_v2.weight"),
        ("time_mix_g1.weight", "time_mix_g2.weight"),
    ] {
        block.push((down, vec![WIDTH, rank], Random(0.2)));
        block.push((up, vec![rank, WIDTH], Random(0.2)));
    }
    for name in [
        "time_mix_key.weight",
        "time_mix_value.weight",
        "time_mix_receptance.weight",
        "time_mix_output.weight",
    ] {
        block.push((name, vec![WIDTH, WIDTH], Random(0.2)));
    }
    block
}
