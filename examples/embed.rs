//! Mean-pooled features of texts as llama.cpp computes them: what reward heads are trained
//! on.
//!
//! ```text
//! cargo run --release --example embed -- -m HEADLESS.gguf < texts.txt > features.f32
//! ```
//!
//! One text a line on stdin; on stdout one row of d little-endian f32 a line.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use aisp_llama::default_threads;
use aisp_llama::llama::{Encoder, Model, ModelOptions, Pooling};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// An encoder without a classification head
    #[arg(short, long)]
    model: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let model = Arc::new(Model::load(&args.model, &ModelOptions::default())?);
    let mut encoder = Encoder::new(Arc::clone(&model), Pooling::Mean, default_threads())?;
    let mut out = BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let tokens = model.tokenize(&line?, true, false);
        for value in encoder.encode(&tokens)? {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    out.flush()?;
    Ok(())
}
