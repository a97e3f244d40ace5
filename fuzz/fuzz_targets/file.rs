//! Bytes as the file that a parser wants.

use std::io::Write;

use tempfile::NamedTempFile;

pub fn of(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A safetensors file whose header is the first line: the length in front of it is right, which a
/// fuzzer that changes the header does not keep so.
#[allow(dead_code)] // not every target reads such files
pub fn safetensors(bytes: &[u8]) -> NamedTempFile {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, data) = bytes.split_at(end.unwrap_or(bytes.len()));
    let length = (header.len() as u64).to_le_bytes();
    of(&[&length, header, data.get(1..).unwrap_or_default()].concat())
}
