//! The command line of `aisp-llama`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    wait_asleep();
    cli::main(std::env::args_os())
}

/// Has threads that wait for each other sleep, unless the environment says otherwise.
///
/// By default those of OpenMP spin: no gain that could be told on an idle machine, and half of the
/// speed lost beside one busy process on two cores. The runtime reads the environment when it is
/// loaded, before `main`, so the program takes its own place with the variable set.
///
/// Source: `OMP_WAIT_POLICY` in the manual of GNU libgomp.
#[cfg(target_os = "linux")]
fn wait_asleep() {
    use std::os::unix::process::CommandExt;

    const POLICY: &str = "OMP_WAIT_POLICY";
    let mut arguments = std::env::args_os();
    if std::env::var_os(POLICY).is_none()
        && let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next())
    {
        // One that comes meanwhile waits until it is known what to do.
        let _ = cli::endings().thread_block();
        let mut again = std::process::Command::new(program);
        again.arg0(name).args(arguments).env(POLICY, "passive");
        // Comes back only where that is not possible; then threads spin.
        let _ = again.exec();
    }
}
