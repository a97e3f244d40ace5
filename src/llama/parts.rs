//! Split models: a header and a part of the tensors in each of several files.
//!
//! Source: `llama_split_path` and the loader of splits in llama.cpp's `src/llama-model-loader.cpp`.

use std::path::{Path, PathBuf};

use crate::gguf::{Gguf, Value};

/// How many files the model is in.
pub(super) fn count(gguf: &Gguf) -> u16 {
    match gguf.get("split.count") {
        Some(Value::U16(count)) => (*count).max(1),
        // llama.cpp refuses another type.
        _ => 1,
    }
}

/// The files of the model behind the first one, `path`, whose header is `gguf`.
///
/// # Errors
/// Where it is not the first one, in words.
pub(super) fn others(path: &Path, gguf: &Gguf) -> Result<Vec<PathBuf>, String> {
    let parts = count(gguf);
    if parts == 1 {
        return Ok(Vec::new());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = gguf.u64("split.no").unwrap_or(0);
    let end = |part: u64| format!("-{part:05}-of-{parts:05}.gguf");
    let Some(stem) = name.strip_suffix(&end(number + 1)) else {
        return Err(format!(
            "part {} of a split model of {parts}, and not called …{}; give it its name again",
            number + 1,
            end(number + 1)
        ));
    };
    if number != 0 {
        return Err(format!(
            "part {} of a split model; give the first, {stem}{}",
            number + 1,
            end(1)
        ));
    }
    Ok((2..=u64::from(parts))
        .map(|part| path.with_file_name(format!("{stem}{}", end(part))))
        .collect())
}

/// Checks the headers of the other parts.
///
/// # Errors
/// The first that is missing, no sound GGUF, or another one than it should be, in words.
pub(super) fn check(path: &Path, gguf: &Gguf) -> Result<(), String> {
    for (part, other) in (1..).zip(others(path, gguf)?) {
        let name = other.file_name().unwrap_or_default().to_string_lossy();
        let part: u16 = part;
        let header = Gguf::open(&other).map_err(|cause| format!("its part {name}: {cause}"))?;
        // llama.cpp reads the number without a look at its type.
        if header.get("split.no") != Some(&Value::U16(part)) {
            return Err(format!("its part {name}: split.no: not {part}"));
        }
        if let Some(fault) = header.fault() {
            return Err(format!("its part {name}: {fault}"));
        }
    }
    Ok(())
}
