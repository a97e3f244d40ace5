//! What leaves the program: stdout, stderr, an exit code, the version.

use std::io::{self, Write};

use aisp_llama::text::printable;
use aisp_llama::{Alignment, llama};

/// Exit code of a run that was interrupted and has printed its best answer.
pub const INTERRUPTED: u8 = 130;

/// Writes to stdout.
pub fn print_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line to stderr, where it is text alone; that nobody reads it is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// What was built: this program, what is inside, for which computer.
pub fn build() -> [String; 3] {
    [
        env!("CARGO_PKG_VERSION").into(),
        format!(
            "llama.cpp {}, ggml {}",
            llama::llama_version(),
            llama::ggml_version()
        ),
        format!(
            "built for {} (target-cpu {})",
            env!("AISP_LLAMA_TARGET"),
            env!("AISP_LLAMA_TARGET_CPU")
        ),
    ]
}

/// What llama.cpp found on this computer, a feature each.
pub fn cpu() -> Vec<String> {
    let features = llama::system_info();
    let features = features.split('|').map(str::trim);
    features
        .filter(|f| !f.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The text behind `--version`.
pub fn version() -> String {
    format!("{}\n{}", build().join("\n"), llama::system_info().trim())
}

/// Shows the `count` best candidates on stderr.
pub fn show_candidates(run: &Alignment, count: usize) {
    for candidate in run.candidates.iter().take(count) {
        let reward = candidate
            .reward
            .map_or("  none".into(), |r| format!("{r:6.3}"));
        let price = candidate
            .price
            .map_or(String::new(), |price| format!("  {:5.2}", price.per_token));
        let text = candidate.text.trim().replace('\n', "\n        ");
        note(&format!("{reward}{price}  {text}"));
    }
}

/// Reward and price of an answer.
pub fn summary(run: &Alignment) -> String {
    let price = run.price.map_or(String::new(), |price| {
        format!(", price {:.2} nats a token", price.per_token)
    });
    format!("reward {:.3}{price}", run.reward)
}
