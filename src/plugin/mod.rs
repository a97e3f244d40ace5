//! The C interface: AISP for programs that run a llama.cpp of their own.
//!
//! The host keeps its model, its context and its decoding loop. This library proposes the
//! perturbations of each candidate, learns from their rewards, and says which answer was best.
//! There is no llama.cpp inside: what is needed of the host's, the header
//! `aisp_llama_glue.h` hands over, compiled by the host against its own `llama.h`.
//!
//! Every function may be called with anything: what is wrong becomes a status and a message
//! ([`aisp_last_error`]), never a crash. A handle's first failure is its last call, but for
//! [`aisp_last_error`] and [`aisp_free`]. Panics do not leave the library; what is thrown by a function
//! of the host's must not come in ([`aisp_host`]). Counts are looked at before anything is allocated for
//! them.

// The names are those of C.
#![allow(non_camel_case_types)]

mod create;
mod handles;
#[cfg(sampler_types)]
mod layout;
mod session;
mod types;

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::sync::LazyLock;

use crate::control::{SamplerSettings, SearchSettings, prompt_seed};
use create::create;
use handles::Handles;
use session::{Failure, Session};
pub use types::*;

impl Failure {
    fn status(&self) -> aisp_status {
        match self {
            Self::Argument(_) => aisp_status::AISP_BAD_ARGUMENT,
            Self::Order(_) => aisp_status::AISP_BAD_ORDER,
            Self::Model(_) => aisp_status::AISP_BAD_MODEL,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Argument(message) | Self::Order(message) | Self::Model(message) => message,
        }
    }
}

/// Most output rows of one decode.
const MAX_ROWS: usize = 1 << 20;

/// Every run that was created and not freed.
static RUNS: LazyLock<Handles<Session>> = LazyLock::new(Handles::default);

fn status(result: Result<(), aisp_status>) -> aisp_status {
    result.err().unwrap_or(aisp_status::AISP_OK)
}

fn argument<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Argument(message.into()))
}

/// Version of this library, such as "0.1.0". Static; any thread.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Fills in the defaults. `model_path` becomes NULL and `horizon` 0: set both. `size` is
/// sizeof(aisp_options): another one, of another version's header, is an error, and nothing is
/// written.
///
/// # Safety
/// `options` is NULL or points to `size` bytes. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_options_init(options: *mut aisp_options, size: usize) -> aisp_status {
    status(handles::guarded(|| {
        if options.is_null() || size != size_of::<aisp_options>() {
            return argument(
                "aisp_options_init: options is NULL, or size is not that of this version's \
                 aisp_options",
            );
        }
        let search = SearchSettings::default();
        let sampler = SamplerSettings::default();
        let defaults = aisp_options {
            size: size_of::<aisp_options>(),
            model_path: std::ptr::null(),
            tier: aisp_tier::AISP_TIER_EXACT as c_int,
            method: aisp_method::AISP_METHOD_SEARCH as c_int,
            samples: 16,
            iterations: 8,
            horizon: 0,
            seed: 0,
            sigma: -1.0,
            logit_sd: search.noise.logit_sd,
            steer: search.steer,
            elites: search.elites as u32,
            fresh: search.fresh,
            lambda: 0.0,
            ess: sampler.ess,
            alpha: sampler.alpha,
            mask_past_end: c_int::from(!sampler.unmasked),
            null_candidate: c_int::from(search.noise.null_candidate),
        };
        // SAFETY: not NULL, and as large as it should be.
        unsafe { options.write(defaults) };
        Ok(())
    }))
}

/// The seed for a prompt, from that of several runs and the prompt's tokens: with one for each prompt
/// the runs are independent draws. `aisp-llama run` does the same.
///
/// # Safety
/// `tokens` points to `count` numbers; it is not kept. NULL is no tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_prompt_seed(seed: u64, tokens: *const i32, count: usize) -> u64 {
    // More than can be in memory are none either.
    if tokens.is_null() || count > isize::MAX as usize / size_of::<i32>() {
        return prompt_seed(seed, &[]);
    }
    // SAFETY: the caller gives `count` numbers.
    prompt_seed(seed, unsafe { std::slice::from_raw_parts(tokens, count) })
}

/// Starts a run. Answers NULL on failure; aisp_last_error(NULL) on the same thread says why.
///
/// Reads the output matrix of `model_path` once where sigma follows from logit_sd. Nothing that
/// is passed in is kept, but for the functions of `host`.
///
/// # Safety
/// `options` and `host` are NULL or point to their structures, `model_path` is NULL or a string
/// that ends in NUL. The handle is the caller's to free with aisp_free. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_create(
    options: *const aisp_options,
    host: *const aisp_host,
) -> *mut aisp {
    let made = handles::guarded(|| {
        if options.is_null() || host.is_null() {
            return argument("aisp_create: options or host is NULL");
        }
        // SAFETY: not NULL, and `size` stands first in both.
        let sizes = unsafe { (*options.cast::<usize>(), *host.cast::<usize>()) };
        if sizes != (size_of::<aisp_options>(), size_of::<aisp_host>()) {
            return argument(
                "aisp_create: size of options or host: call aisp_options_init, and compile \
                 against the header of this version",
            );
        }
        // SAFETY: not NULL, and as large as they should be.
        let (options, host) = unsafe { (*options, *host) };
        if options.model_path.is_null() {
            return argument("aisp_create: model_path is NULL; give the model's GGUF file");
        }
        // SAFETY: a string that ends in NUL.
        let path = unsafe { CStr::from_ptr(options.model_path) };
        let Ok(path) = path.to_str() else {
            return argument("aisp_create: model_path is not UTF-8");
        };
        create(&options, host, Path::new(path))
    });
    made.map_or(std::ptr::null_mut(), |session| RUNS.insert(session))
}

/// Opens the next iteration. Answers its number of candidates, 0 when all iterations are done,
/// or a negative aisp_status. Each of them begins with the prompt's last token, decoded once for
/// each: the logits of the prompt itself are perturbed for nobody.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_begin(handle: *mut aisp) -> i32 {
    RUNS.on(handle, Session::begin)
        .map_or_else(|status| status as i32, |n| n as i32)
}

/// Exact tier: says which candidate each output row of the next decode belongs to, −1 for none.
/// The rows are those that the batch asks logits of, in its order and in one ubatch: with a
/// stream for each sequence, equally many tokens of each, one sequence after the other. A
/// decode that failed may be bound again.
///
/// # Safety
/// `candidates` points to `rows` numbers; it is not kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_bind(
    handle: *mut aisp,
    candidates: *const i32,
    rows: usize,
) -> aisp_status {
    status(RUNS.on(handle, |session| {
        if candidates.is_null() || rows == 0 {
            return argument("aisp_bind: no rows");
        }
        if rows > MAX_ROWS {
            let reason = format!("aisp_bind: {rows} rows; give at most {MAX_ROWS}");
            return argument(reason);
        }
        // SAFETY: the caller gives `rows` numbers.
        session.bind(unsafe { std::slice::from_raw_parts(candidates, rows) })
    }))
}

/// Exact tier, called by the glue: adds v to the pre-logits `rows` [count, width] of the running
/// decode.
///
/// # Safety
/// `rows` points to count · width floats; it is not kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_perturb(
    handle: *mut aisp,
    rows: *mut f32,
    count: usize,
    width: usize,
) -> aisp_status {
    status(RUNS.on(handle, |session| {
        let Some(len) = count
            .checked_mul(width)
            .filter(|&n| n <= isize::MAX as usize / 4)
        else {
            return argument("aisp_perturb: count and width are too large");
        };
        if rows.is_null() || len == 0 {
            return argument("aisp_perturb: no rows");
        }
        // SAFETY: the caller gives that many floats.
        session.perturb(unsafe { std::slice::from_raw_parts_mut(rows, len) }, width)
    }))
}

/// Called by the sampler of `candidate`: makes the logits of `tokens`, in any order and
/// truncated or not, those of the perturbed pre-logits. On the exact tier they are already, and
/// only that is checked.
///
/// # Safety
/// `tokens` points to `count` of them; it is not kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_apply(
    handle: *mut aisp,
    candidate: i32,
    tokens: *mut aisp_token,
    count: usize,
) -> aisp_status {
    status(RUNS.on(handle, |session| {
        if tokens.is_null() || count == 0 {
            return argument("aisp_apply: no tokens");
        }
        session.check_count(count)?;
        // SAFETY: the caller gives `count` tokens.
        session.apply(candidate, unsafe {
            std::slice::from_raw_parts_mut(tokens, count)
        })
    }))
}

/// Called by the sampler of `candidate`: `token` is its next one, the end-of-turn token included.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_accept(handle: *mut aisp, candidate: i32, token: i32) -> aisp_status {
    status(RUNS.on(handle, |session| session.accept(candidate, token)))
}

/// Called by the sampler of `candidate`: forgets its tokens, unless it has its reward already.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_reset(handle: *mut aisp, candidate: i32) -> aisp_status {
    status(RUNS.on(handle, |session| {
        session.reset(candidate);
        Ok(())
    }))
}

/// The reward of a finished candidate, in any units; NAN for one that could not be scored.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_reward(handle: *mut aisp, candidate: i32, reward: f64) -> aisp_status {
    status(RUNS.on(handle, |session| session.reward(candidate, reward)))
}

/// Closes the iteration: learns from the candidates that have a reward, and leaves out the others.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_update(handle: *mut aisp) -> aisp_status {
    status(RUNS.on(handle, Session::update))
}

/// The best candidate of all iterations, the open one included: its tokens, as they were
/// accepted, and its reward. With no reward so far `*count` is 0 and `*reward` NAN.
///
/// # Safety
/// All three point to room for their value. `*tokens` is the library's, and lives until the next
/// aisp_reward or aisp_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_best(
    handle: *const aisp,
    tokens: *mut *const i32,
    count: *mut usize,
    reward: *mut f64,
) -> aisp_status {
    status(RUNS.on(handle, |session| {
        if tokens.is_null() || count.is_null() || reward.is_null() {
            return argument("aisp_best: tokens, count or reward is NULL");
        }
        let best = session.best();
        let found = best.map_or(&[][..], |best| &best.tokens);
        // SAFETY: not NULL, and the caller's.
        unsafe {
            tokens.write(found.as_ptr());
            count.write(found.len());
            reward.write(best.map_or(f64::NAN, |best| best.reward));
        }
        Ok(())
    }))
}

/// What the last update said. Set `report->size` before the call.
///
/// # Safety
/// `report` is NULL or points to an aisp_report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aisp_telemetry(
    handle: *const aisp,
    report: *mut aisp_report,
) -> aisp_status {
    status(RUNS.on(handle, |session| {
        // SAFETY: not NULL, and `size` stands first.
        let right = !report.is_null() && unsafe { (*report).size } == size_of::<aisp_report>();
        if !right {
            return argument("aisp_telemetry: report is NULL, or report->size is not its size");
        }
        let (iterations, mean_reward, telemetry) = session.telemetry();
        let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let found = aisp_report {
            size: size_of::<aisp_report>(),
            iterations,
            best_reward: or_nan(session.best().map(|best| best.reward)),
            mean_reward: or_nan(mean_reward),
            ess: or_nan(telemetry.ess),
            lambda: or_nan(telemetry.lambda),
            sigma: or_nan(telemetry.sigma),
            u_norm: or_nan(telemetry.u_norm),
            kl: or_nan(telemetry.kl),
            r2: or_nan(telemetry.r2),
        };
        // SAFETY: as above.
        unsafe { report.write(found) };
        Ok(())
    }))
}

/// Ends a run. NULL is nothing to free; a second time is AISP_BAD_HANDLE. Samplers made for the
/// handle may be freed before or after.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_free(handle: *mut aisp) -> aisp_status {
    if handle.is_null() {
        return aisp_status::AISP_OK;
    }
    status(RUNS.remove(handle))
}

/// Why the handle failed, "" if it did not; with NULL, or a handle that is none, what went wrong
/// last on this thread. Lives until the handle is freed, or until the thread's next error.
#[unsafe(no_mangle)]
pub extern "C" fn aisp_last_error(handle: *const aisp) -> *const c_char {
    RUNS.last_error(handle)
}
