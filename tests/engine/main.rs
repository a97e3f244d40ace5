//! The engine on the real models: exact against stock llama.cpp, against itself by the
//! other route, and whatever the batching.

#[path = "../common/mod.rs"]
mod common;

mod ahead;
mod aligner;
mod alone;
mod batch;
mod drawn;
mod exactness;
mod groups;
mod prefixes;
mod reward;
mod sequences;
mod templates;
mod text;
