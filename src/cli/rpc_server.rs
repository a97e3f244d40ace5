//! `rpc-server`: this machine's devices for a model that another machine runs, by llama.cpp's RPC.

use aisp_llama::default_threads;
use aisp_llama::llama::serve_devices;

use super::output;

#[derive(Debug, clap::Args)]
pub struct RpcServerArgs {
    /// Address to listen at; whoever reaches it can use memory and processor, and read what is computed
    #[arg(short = 'H', long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port
    #[arg(short, long, default_value_t = 50052)]
    pub port: u16,
    /// CPU threads, where there is no other device [default: the physical cores]
    #[arg(short, long)]
    pub threads: Option<usize>,
}

/// Runs the command; the answer is the exit code.
pub fn run(args: &RpcServerArgs) -> anyhow::Result<u8> {
    let endpoint = format!("{}:{}", args.host, args.port);
    output::note(&format!(
        "{endpoint} · for trusted networks alone: whoever asks is served"
    ));
    serve_devices(&endpoint, args.threads.unwrap_or_else(default_threads))?;
    Ok(0)
}
