//! The caps that keep a hostile or damaged header from costing more than a read error.
//!
//! Each is far above what published models use and low enough that a header at every cap at once
//! still fits in memory.

/// Most metadata pairs in a file. Published models carry 20 to 60.
pub const MAX_PAIRS: u64 = 65_536;

/// Most tensors in a file. The largest mixtures of experts carry a few thousand.
pub const MAX_TENSORS: u64 = 131_072;

/// Longest metadata key in bytes, as the GGUF specification has it.
pub const MAX_KEY_BYTES: u64 = 65_535;

/// Longest string value in bytes, in an array or alone. Chat templates take kilobytes; a whole
/// `tokenizer.json` kept in a value can take 35 MB.
pub const MAX_STRING_BYTES: u64 = 64 << 20;

/// Most elements in an array. Vocabularies have up to a few hundred thousand.
pub const MAX_ARRAY_LEN: u64 = 16 << 20;

/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
pub const MAX_DIMS: u32 = 4;

/// Longest tensor name in bytes (`GGML_MAX_NAME` less the final zero).
pub const MAX_TENSOR_NAME_BYTES: u64 = 63;

/// Most bytes from the start of the file to the end of the tensor directory. A vocabulary of
/// 262 144 tokens with its merges takes about 16 MB.
pub const MAX_HEADER_BYTES: u64 = 256 << 20;

// String arrays keep their ends in 32 bits.
const _: () = assert!(MAX_HEADER_BYTES <= u32::MAX as u64);
