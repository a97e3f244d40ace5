//! What leaves the program: stdout, stderr, an exit code, the version.

use std::io::{self, Write};

use aisp_llama::llama;

/// Exit code of a run that was interrupted and has printed its best answer.
pub const INTERRUPTED: u8 = 130;

/// Writes to stdout.
pub fn print_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line to stderr; that nobody reads it is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The text behind `--version`.
pub fn version() -> String {
    format!(
        "{}\nllama.cpp {}, ggml {}\nbuilt for {} (target-cpu {})\n{}",
        env!("CARGO_PKG_VERSION"),
        llama::llama_version(),
        llama::ggml_version(),
        env!("AISP_LLAMA_TARGET"),
        env!("AISP_LLAMA_TARGET_CPU"),
        llama::system_info().trim(),
    )
}
