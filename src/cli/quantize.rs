//! `quantize`: a model in fewer bits, by llama.cpp.

use std::path::PathBuf;

use aisp_llama::llama::{QuantizeOptions, WEIGHT_TYPES, quantize};
use aisp_llama::{Error, default_threads};

use super::output;

#[derive(Debug, clap::Args)]
pub struct QuantizeArgs {
    /// The model, in F32, F16 or BF16
    #[arg(value_name = "IN.gguf")]
    pub from: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    pub into: PathBuf,
    #[arg(value_name = "TYPE", help = types(), ignore_case = true, value_parser = clap::builder::PossibleValuesParser::new(WEIGHT_TYPES.map(|(name, _)| name)), hide_possible_values = true)]
    pub to: String,
    /// CPU threads [default: the physical cores]
    #[arg(short, long)]
    pub threads: Option<usize>,
    /// Quantise again what is quantised already, which loses more
    #[arg(long)]
    pub allow_requantize: bool,
    /// Keep the output matrix as it is
    #[arg(long)]
    pub leave_output_tensor: bool,
    /// Give all matrices the same type
    #[arg(long)]
    pub pure: bool,
}

fn types() -> String {
    let names = WEIGHT_TYPES.map(|(name, _)| name).join(", ");
    format!("What most weights become: {names}")
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &QuantizeArgs) -> anyhow::Result<u8> {
    let (from, into) = (&args.from, &args.into);
    let same = into
        .canonicalize()
        .is_ok_and(|into| from.canonicalize().is_ok_and(|from| from == into));
    if same {
        let reason = format!(
            "{}: the file that is read; name another one",
            into.display()
        );
        return Err(Error::field("into", reason).into());
    }
    // Written beside it, so that no half of a model has its name.
    let mut part = into.clone().into_os_string();
    part.push(".partial");
    let part = PathBuf::from(part);
    let options = QuantizeOptions {
        to: args.to.to_uppercase(),
        threads: args.threads.unwrap_or_else(default_threads),
        again: args.allow_requantize,
        keep_output: args.leave_output_tensor,
        pure: args.pure,
    };
    let written = quantize(from, &part, &options)
        .and_then(|()| std::fs::rename(&part, into).map_err(Error::io(into)));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&part);
        return Err(error.into());
    }
    let megabytes = |path: &PathBuf| {
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        format!("{:.1} MB", bytes as f64 / 1e6)
    };
    output::note(&format!(
        "{}: {}, of {}",
        into.display(),
        megabytes(into),
        megabytes(from)
    ));
    Ok(0)
}
