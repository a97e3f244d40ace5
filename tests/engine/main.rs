//! The engine on the real models: exact against stock llama.cpp, against itself by the
//! other route, and whatever the batching.

#[path = "../common/mod.rs"]
mod common;
#[allow(unused_imports)]
#[path = "../../src/gguf/testing.rs"]
mod testing;
#[path = "../common/tiny/mod.rs"]
mod tiny;

// For `testing`.
use aisp_llama::gguf::{Gguf, GgufError, TensorType};

mod ahead;
mod aligner;
mod alone;
mod attention;
mod batch;
mod drawn;
mod exactness;
mod grammars;
mod groups;
mod prefixes;
mod recurrent;
mod reward;
mod sequences;
mod stops;
mod templates;
mod text;
mod thinking;
