//! The command line of `aisp-llama`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}

/// Threads that wait for each other sleep, unless the environment says otherwise.
///
/// By default those of OpenMP spin. On an idle machine that gains nothing here; beside one busy
/// process on two cores it halves the speed, and on a loaded machine it leaves a twentieth. The
/// runtime reads the environment when it is loaded, before `main`, so this is what runs before that.
///
/// Source: `OMP_WAIT_POLICY` in the manual of GNU libgomp; `DT_PREINIT_ARRAY` in the ELF gABI.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[used]
#[unsafe(link_section = ".preinit_array")]
static WAIT_ASLEEP: extern "C" fn() = {
    extern "C" fn wait_asleep() {
        unsafe extern "C" {
            fn setenv(
                name: *const std::ffi::c_char,
                value: *const std::ffi::c_char,
                overwrite: std::ffi::c_int,
            ) -> std::ffi::c_int;
        }
        // SAFETY: no thread but this one is there yet; libc copies both strings. What is set
        // already stays.
        unsafe { setenv(c"OMP_WAIT_POLICY".as_ptr(), c"passive".as_ptr(), 0) };
    }
    wait_asleep
};
