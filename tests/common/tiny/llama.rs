//! A llama of one block.

use super::Fill::{Random, Same};
use super::{Tiny, VOCABULARY};

const WIDTH: u64 = 64;

/// The file.
pub fn file() -> Tiny {
    let mut tiny = Tiny::new("llama")
        .number("block_count", 1)
        .number("context_length", 256)
        .number("embedding_length", WIDTH)
        .number("feed_forward_length", WIDTH)
        .number("attention.head_count", 2)
        .number("attention.head_count_kv", 2)
        .number("rope.dimension_count", WIDTH / 2)
        .fraction("rope.freq_base", 1e4)
        .fraction("attention.layer_norm_rms_epsilon", 1e-5)
        .text(
            "tokenizer.chat_template",
            "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        )
        .tensor("token_embd.weight", &[WIDTH, VOCABULARY], Random(0.5))
        .tensor("output_norm.weight", &[WIDTH], Same(1.0));
    for name in ["attn_norm", "ffn_norm"] {
        tiny = tiny.tensor(&format!("blk.0.{name}.weight"), &[WIDTH], Same(1.0));
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
        tiny = tiny.tensor(&name, &[WIDTH, WIDTH], Random(0.1));
    }
    tiny
}
