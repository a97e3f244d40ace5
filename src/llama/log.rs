//! What llama.cpp says: the errors of a call that fails become its reason, and the last words before
//! an abort go to stderr.
//!
//! Source: `llama_log_set` in `llama.h`, `ggml_abort` in `ggml.c`.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use crate::text::brief;

/// Most characters of a reason.
const REASON: usize = 400;

thread_local! {
    /// The errors of the call that this thread listens to.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Who hears everything else.
struct Before(sys::ggml_log_callback, *mut c_void);

// SAFETY: the binding's callback and its state are made for any thread, and are never freed.
unsafe impl Send for Before {}
unsafe impl Sync for Before {}

static BEFORE: OnceLock<Before> = OnceLock::new();

/// From here on [`heard`] hears llama.cpp; to be called once, behind the binding's own callback.
pub(super) fn listen() {
    let (mut callback, mut state) = (None, std::ptr::null_mut());
    // SAFETY: the pointers are written to, and what is set lives as long as the process.
    unsafe {
        sys::llama_log_get(&raw mut callback, &raw mut state);
        BEFORE.get_or_init(|| Before(callback, state));
        sys::llama_log_set(Some(hear), std::ptr::null_mut());
        sys::ggml_set_abort_callback(Some(last_words));
    }
}

/// What `call` gives, and the errors that llama.cpp told this thread meanwhile, in one line.
pub(super) fn heard<T>(call: impl FnOnce() -> T) -> (T, String) {
    HEARD.set(Some(Vec::new()));
    let done = call();
    let errors = HEARD.take().unwrap_or_default();
    (done, brief(&errors.join("; "), REASON))
}

unsafe extern "C" fn hear(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level == sys::GGML_LOG_LEVEL_ERROR && !text.is_null() {
        // SAFETY: llama.cpp hands over a text with a NUL behind it.
        let said = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        // At the end of a thread there is nobody to hear it.
        let kept = HEARD.try_with(|heard| match heard.borrow_mut().as_mut() {
            Some(errors) => {
                errors.extend(reason(&said));
                true
            }
            None => false,
        });
        if kept == Ok(true) {
            return;
        }
    }
    if let Some(Before(Some(callback), state)) = BEFORE.get() {
        // SAFETY: what llama.cpp handed over, to whom it would have gone.
        unsafe { callback(level, text, *state) };
    }
}

/// The words behind the names of functions, where they say more than that it failed.
fn reason(said: &str) -> Option<String> {
    let mut words = said.trim();
    while let Some((name, rest)) = words.split_once(": ") {
        let of_code = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !(of_code || name.starts_with("error loading model")) {
            break;
        }
        words = rest.trim_start();
    }
    let more = !words.is_empty() && !words.starts_with("failed to load model");
    more.then(|| words.to_owned())
}

unsafe extern "C" fn last_words(message: *const c_char) {
    if !message.is_null() {
        // SAFETY: ggml hands over a text with a NUL behind it.
        let message = unsafe { CStr::from_ptr(message) }.to_bytes();
        let mut stderr = std::io::stderr();
        let _ = stderr
            .write_all(message)
            .and_then(|()| stderr.write_all(b"\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn a_reason_has_no_names_of_functions() {
        for (said, words) in [
            (
                "llama_model_load: error loading model: error loading model hyperparameters: key not \
                 found in model: llama.context_length\n",
                Some("key not found in model: llama.context_length"),
            ),
            (
                "llama_model_load_from_file_impl: failed to load model\n",
                None,
            ),
            ("gguf_init_from_reader: bad magic\n", Some("bad magic")),
            ("\n", None),
        ] {
            assert_eq!(reason(said).as_deref(), words);
        }
    }
}
