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
/// Threads that wait for each other soon sleep. As long as OpenMP has them spin by default, up to half
/// of the speed is lost beside one busy process on two cores; where they slept at once, an idle virtual
/// machine lost a third of the speed of steps of 16 rows, and three quarters of that of single rows. The
/// number of spins is measured: fewer cost an idle machine, more a busy one. And no debugger is started
/// to print where llama.cpp ended the process.
///
/// Source: `OMP_WAIT_POLICY` and `GOMP_SPINCOUNT` in the manual of GNU libgomp, where the second is
/// what counts; other runtimes know the first. `GGML_NO_BACKTRACE` in ggml's `ggml.cpp`.
#[cfg(unix)]
fn prepare() {
    use std::os::unix::process::CommandExt;

    const WAITING: [(&str, &str); 2] = [("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "500")];
    const ENDING: [(&str, &str); 1] = [("GGML_NO_BACKTRACE", "1")];
    let unset = |settings: &[(&str, &str)]| {
        let mut names = settings.iter().map(|(name, _)| name);
        names.all(|name| std::env::var_os(name).is_none())
    };
    // Who says anything of how threads wait has said all of it.
    let missing: Vec<_> = [&WAITING[..], &ENDING[..]]
        .into_iter()
        .filter(|settings| unset(settings))
        .flatten()
        .copied()
        .collect();
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
