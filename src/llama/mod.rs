//! The engine: everything that touches llama.cpp, and every `unsafe` line that does.
//!
//! A [`Model`] is a GGUF file in memory. A [`Context`] decodes many sequences of it at
//! once and lets the caller add a perturbation to the pre-logits (the final-norm output
//! that enters the output matrix) before the logits are computed. An [`Encoder`] turns
//! texts into pooled features or classifier scores, a [`Reader`] reads many texts of a
//! decoder on their shared beginning. [`ChatTemplate`] renders the
//! template in the file.
//!
//! Source: `llama.h` and `ggml-backend.h` of the pinned llama.cpp.

mod attention;
mod batch;
mod chat;
mod context;
mod devices;
mod encoder;
mod grammar;
mod hook;
mod isolation;
mod load;
mod log;
mod memory;
mod model;
mod obstacles;
mod output;
mod parts;
pub mod placement;
mod plain;
mod quantize;
mod reader;
mod sequences;

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

use crate::gguf::TensorType;

pub use attention::{Attention, CacheType, FlashAttention};
pub(crate) use chat::tokenize_guarded;
pub use chat::{ChatOptions, ChatTemplate, Message, ReasoningMarkers, Think, Turn};
pub use context::{Context, ContextOptions, LogitsRoute, Row};
pub use devices::serve_devices;
pub use encoder::{Encoder, Pooling};
pub use grammar::{Grammar, GrammarState};
pub use hook::{Edit, RowsEdit};
pub use isolation::{Isolation, try_model};
pub use memory::{ContextMemory, SequenceMemory, available_memory};
pub(crate) use model::row_decoder;
pub use model::{Model, Token};
pub use obstacles::{
    ARCHITECTURES, HEADS, classifier_loss, classifier_obstacle, decoder_obstacle,
    generator_obstacle, has_head, head_inside_obstacle, is_encoder, model_obstacle,
};
pub use placement::{ModelOptions, Placement, SplitMode};
pub use plain::plain_decoding;
pub use quantize::{QuantizeOptions, WEIGHT_TYPES, quantize};
pub use reader::{Reader, Reading, TextLikelihood, TextReading};

/// Sequences that one context can hold (`LLAMA_MAX_SEQ` of the pinned llama.cpp).
pub const MAX_SEQUENCES: usize = 256;

/// Every decode step has a multiple of this many rows, and most models' at least [`LEAST_ROWS`]: see
/// [`Model::step_rows`], and `sequences.rs` for this and the other rules of bit-exactness.
///
/// ggml's CPU kernels change their code path with the number of rows (attention by one, packed
/// weights by groups of four, the other K-quants from eight on), and with it the last bits of their
/// results. In steps of these sizes only, a candidate's logits do not depend on how many others
/// share them; `tests/engine/groups.rs` tries every type of weights. This holds for dense models;
/// in a mixture of experts the rows of one expert still depend on the neighbours.
///
/// Source: `ggml-cpu/repack.cpp`, `ggml-cpu/tiled/tiled.cpp`, `ggml-cpu/ops.cpp`.
pub const ROW_GROUP: usize = 4;

/// The least rows of a decode step that serve whatever the weights are.
pub const LEAST_ROWS: usize = 8;

/// Types of weights whose products have the same bits in steps of [`ROW_GROUP`] rows already, by their
/// numbers in ggml: those that `tests/engine/groups.rs` tries, of the ones that are not unpacked into
/// tiles from [`LEAST_ROWS`] rows on.
///
/// Source: `ggml-cpu/tiled/tiled.cpp`.
pub const ANY_GROUP: [TensorType; 9] = [
    TensorType::F32,
    TensorType(1),  // F16
    TensorType(2),  // Q4_0
    TensorType(3),  // Q4_1
    TensorType(6),  // Q5_0
    TensorType(7),  // Q5_1
    TensorType(8),  // Q8_0
    TensorType(20), // IQ4_NL
    TensorType(30), // BF16
];

/// Whether this build can put layers on a GPU that it found.
#[must_use]
pub fn offloads() -> bool {
    backend();
    // SAFETY: a query without arguments.
    unsafe { sys::llama_supports_gpu_offload() }
}

/// Rows of a decode step that serve for so many candidates of any model; what [`Model::step_rows`] says
/// of one may be fewer.
#[must_use]
pub fn step_rows(candidates: usize) -> usize {
    candidates.next_multiple_of(ROW_GROUP).max(LEAST_ROWS)
}

/// Starts llama.cpp once per process and sends its log to `tracing`. What it ends the process with
/// goes to stderr alone, without the backtrace that a debugger would make.
pub fn backend() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default());
        log::listen();
        #[cfg(feature = "dynamic-backends")]
        devices::load();
        LlamaBackend::init().expect("the backend is initialised here alone, once")
    })
}

fn c_string(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: llama.cpp and ggml return static, NUL-terminated strings here.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// Version of the llama.cpp inside.
#[must_use]
pub fn llama_version() -> String {
    // SAFETY: returns a static string.
    c_string(unsafe { sys::llama_version() })
}

/// Version of the ggml inside.
#[must_use]
pub fn ggml_version() -> String {
    // SAFETY: returns a static string.
    c_string(unsafe { sys::ggml_version() })
}

/// CPU features and back ends that llama.cpp was built with and found.
#[must_use]
pub fn system_info() -> String {
    // What is a library is known once it is loaded.
    #[cfg(feature = "dynamic-backends")]
    backend();
    // SAFETY: returns a static string.
    c_string(unsafe { sys::llama_print_system_info() })
}

/// Whether this build multiplies this quantisation through kernels that are packed for
/// batches on this CPU; `None` off x86 (other layouts, not checked).
///
/// Source: `ggml-cpu/repack.cpp`, `ggml_repack_get_optimal_repack_type`.
#[must_use]
pub fn repacked_on_this_cpu(quantisation: &str) -> Option<bool> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        return None;
    }
    Some(match quantisation {
        "Q4_0" | "Q4_K" | "IQ4_NL" | "MXFP4" => devices::cpu_has(c"AVX2"),
        "Q2_K" => devices::cpu_has(c"AVX512"),
        _ => false,
    })
}
