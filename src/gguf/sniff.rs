//! Says what a file that is not GGUF probably is, from its first bytes.

use super::GgufError;

/// How many bytes are looked at.
pub(super) const PREFIX_BYTES: u64 = 64;

/// Longest header a safetensors file may have, in bytes, by its specification.
const SAFETENSORS_MAX_HEADER: u64 = 100_000_000;

/// The error for a file that starts with `start` (at least one byte, not `GGUF`).
pub(super) fn not_gguf(start: &[u8]) -> GgufError {
    if start.starts_with(b"version https://git-lfs") {
        return GgufError::LfsPointer;
    }
    if start.starts_with(b"FUGG") {
        return GgufError::BigEndian;
    }
    let magic = start.get(..4).unwrap_or(start);
    GgufError::NotGguf {
        found: format!("\"{}\"", magic.escape_ascii()),
        advice: advice(start),
    }
}

fn advice(start: &[u8]) -> &'static str {
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let begins = |with: &[&[u8]]| with.iter().any(|w| start.starts_with(w));
    if is_safetensors(start) {
        "it looks like safetensors: convert the model with llama.cpp's convert_hf_to_gguf.py"
    } else if begins(&[b"PK\x03\x04"]) {
        "it looks like a zip archive: unpack it, or if it is a PyTorch checkpoint, \
         convert it with llama.cpp's convert_hf_to_gguf.py"
    } else if [&b"<!doctype"[..], b"<html", b"<?xml"]
        .iter()
        .any(|w| text.starts_with(w))
    {
        "it looks like a web page: download the file itself, not the page about it"
    } else if begins(&[b"lmgg", b"fmgg", b"tjgg", b"algg"]) {
        "it looks like GGML, the format before GGUF: get or convert a newer file of this model"
    } else if begins(&[
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
        b"BZh",
        b"\xfd7zXZ",
        b"7z\xbc\xaf",
    ]) {
        "it looks like a compressed file: unpack it"
    } else if begins(&[b"{", b"["]) {
        "it looks like JSON: name the model's .gguf file"
    } else if start.iter().all(|&byte| byte == 0) {
        "it starts with zeros, as an unfinished download does: download it again"
    } else {
        "name a .gguf file, or convert the model with llama.cpp's convert_hf_to_gguf.py"
    }
}

/// A safetensors file starts with the length of its header (u64) and the header, a JSON object.
fn is_safetensors(start: &[u8]) -> bool {
    match (start.first_chunk::<8>(), start.get(8)) {
        (Some(len), Some(b'{')) => (2..=SAFETENSORS_MAX_HEADER).contains(&u64::from_le_bytes(*len)),
        _ => false,
    }
}
