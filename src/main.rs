//! The command line of `aisp-llama`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(unix)]
    prepare();
    cli::main(std::env::args_os())
}

/// Sets what libraries read from the environment when they are loaded, before `main`, where it says
/// nothing else; so the program takes its own place once.
///
/// Threads that wait for each other sleep. By default those of OpenMP spin: no gain that could be told
/// on an idle machine, and half of the speed lost beside one busy process on two cores. And no
/// debugger is started to print where llama.cpp ended the process.
///
/// Source: `OMP_WAIT_POLICY` in the manual of GNU libgomp, `GGML_NO_BACKTRACE` in ggml's `ggml.cpp`.
#[cfg(unix)]
fn prepare() {
    use std::os::unix::process::CommandExt;

    const SETTINGS: [(&str, &str); 2] =
        [("OMP_WAIT_POLICY", "passive"), ("GGML_NO_BACKTRACE", "1")];
    let missing = SETTINGS
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none());
    let missing: Vec<_> = missing.collect();
    let mut arguments = std::env::args_os();
    if !missing.is_empty()
        && let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next())
    {
        // One that comes meanwhile waits until it is known what to do.
        let _ = cli::endings().thread_block();
        let mut again = std::process::Command::new(program);
        again.arg0(name).args(arguments).envs(missing);
        // Comes back only where that is not possible; then threads spin.
        let _ = again.exec();
    }
}
