//! What can be wrong with a GGUF file: each message says what, where, and what to do about it.

use std::io;

/// Why a file could not be read as GGUF.
///
/// Messages do not name the file; they are written to stand after `PATH: `.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Nothing has this path.
    #[error("no such file; check the path and its spelling")]
    Missing,

    /// The path is a symbolic link whose target does not exist.
    #[error(
        "a symbolic link to a file that does not exist; download the model again or correct the link"
    )]
    DanglingLink,

    /// The path is a directory.
    #[error("a directory, not a file; name the .gguf file inside it")]
    Directory,

    /// The path is a pipe, a socket or a device.
    #[error("not a regular file; save the model to disk and name that file")]
    NotAFile,

    /// The file has no bytes.
    #[error("an empty file (0 bytes), so no magic at byte 0; download it again")]
    Empty,

    /// A Git LFS pointer stands where the model should be.
    #[error(
        "a Git LFS pointer at byte 0, not the model itself; run `git lfs pull` in its repository"
    )]
    LfsPointer,

    /// The file starts with something other than `GGUF`.
    #[error("not a GGUF file: the magic at byte 0 is {found}, not \"GGUF\"; {advice}")]
    NotGguf {
        /// The first bytes, printable.
        found: String,
        /// What the file looks like, if recognised, and what to do.
        advice: &'static str,
    },

    /// A GGUF file written for a big-endian machine.
    #[error(
        "a big-endian GGUF file (by the format version at byte 4); \
         get the little-endian file or convert it with gguf_convert_endian.py"
    )]
    BigEndian,

    /// A format version other than 2 and 3.
    #[error(
        "format version {version} at byte 4 is not supported (2 and 3 are); {}",
        version_advice(*.version)
    )]
    Version {
        /// The version found.
        version: u32,
    },

    /// The file ends before the header does.
    #[error(
        "truncated: the file ends inside {field} at byte {offset} \
         ({need} bytes needed, {have} left); download it again"
    )]
    Truncated {
        /// What was being read.
        field: String,
        /// Where it starts, in bytes from the start of the file.
        offset: u64,
        /// Bytes it takes, at least.
        need: u64,
        /// Bytes left in the file.
        have: u64,
    },

    /// A field whose content is impossible, not supported, or above a cap.
    #[error(
        "{field} at byte {offset} cannot be used: {reason}; \
         download the file again, or convert the model again with a current llama.cpp"
    )]
    Corrupt {
        /// What was being read.
        field: String,
        /// Where it starts, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor type that this version cannot size.
    #[error(
        "the type of tensor {tensor} at byte {offset} is {kind}, which this version does not \
         support; update this program or use a file quantised to another type"
    )]
    TensorTypeUnsupported {
        /// The tensor, quoted.
        tensor: String,
        /// Where the type stands, in bytes from the start of the file.
        offset: u64,
        /// The type's name, or `type N`.
        kind: String,
    },

    /// The header is whole, but the file ends before the tensor data does.
    #[error(
        "truncated: the data of tensor {tensor} (at byte {offset}) runs past the end of the file; \
         {need} bytes are needed in all, the file has {have}; download it again"
    )]
    TensorDataTruncated {
        /// The first tensor whose data is cut, quoted.
        tensor: String,
        /// Where its data starts, in bytes from the start of the file.
        offset: u64,
        /// Bytes the file needs for all its tensors.
        need: u64,
        /// Bytes the file has.
        have: u64,
    },

    /// The operating system could not read the file.
    #[error("cannot read the file at byte {offset}: {cause}; {}", io_advice(.cause))]
    Io {
        /// How far reading had come, in bytes from the start of the file.
        offset: u64,
        /// What the operating system said. It is part of the message, hence not a `source`.
        cause: io::Error,
    },
}

fn version_advice(version: u32) -> &'static str {
    match version {
        0 => "the file is damaged: download it again",
        1 => "convert the model again with a current llama.cpp",
        _ => "update this program, or convert the model again with an older llama.cpp",
    }
}

fn io_advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "make the file readable for this user",
        _ => "check the disk or the network mount and try again",
    }
}
