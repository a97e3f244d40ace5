//! Handles that cannot be misused: numbers instead of addresses, an error state instead of
//! undefined behaviour.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock, TryLockError};

use super::session::{Failure, Session};
use super::{aisp, aisp_status};

/// A session, and why it can no longer be used.
struct Entry {
    session: Mutex<Session>,
    failed: OnceLock<CString>,
}

static ENTRIES: LazyLock<RwLock<BTreeMap<usize, Arc<Entry>>>> = LazyLock::new(RwLock::default);

thread_local! {
    /// What went wrong last on this thread without a handle to keep it.
    static LAST: RefCell<CString> = RefCell::default();
}

fn text(message: &str) -> CString {
    CString::new(message.replace('\0', " ")).unwrap_or_default()
}

fn say(message: &str) {
    LAST.with_borrow_mut(|last| *last = text(message));
}

fn panicked(payload: &(dyn Any + Send)) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("internal error: {}", message.unwrap_or("a panic"))
}

/// Runs what needs no handle; a panic becomes the thread's last error.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, aisp_status> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => {
            say(failure.message());
            Err(failure.status())
        }
        Err(payload) => {
            say(&panicked(payload.as_ref()));
            Err(aisp_status::AISP_INTERNAL)
        }
    }
}

/// Makes a handle. It is a number that never comes back, not an address: one that was freed,
/// or never was a handle, is told from a live one without looking behind it.
pub(super) fn insert(session: Session) -> *mut aisp {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let entry = Arc::new(Entry {
        session: Mutex::new(session),
        failed: OnceLock::new(),
    });
    let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    entries.insert(id, entry);
    std::ptr::without_provenance_mut(id)
}

fn entry(handle: *const aisp) -> Option<Arc<Entry>> {
    let entries = ENTRIES.read().unwrap_or_else(PoisonError::into_inner);
    entries.get(&handle.addr()).cloned()
}

/// Forgets a handle; a call in progress on another thread ends as it would have.
pub(super) fn remove(handle: *mut aisp) -> Result<(), aisp_status> {
    let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    let removed = entries.remove(&handle.addr());
    drop(entries);
    removed.map(drop).ok_or_else(no_handle)
}

fn no_handle() -> aisp_status {
    say("no such handle: it is NULL, was freed, or did not come from aisp_create");
    aisp_status::AISP_BAD_HANDLE
}

/// Runs a call on a session. Its first failure is the session's last call.
pub(super) fn on<T>(
    handle: *const aisp,
    run: impl FnOnce(&mut Session) -> Result<T, Failure>,
) -> Result<T, aisp_status> {
    let entry = entry(handle).ok_or_else(no_handle)?;
    if entry.failed.get().is_some() {
        return Err(aisp_status::AISP_FAILED);
    }
    let fail = |status, message: &str| {
        // A failure on another thread may have been first.
        let _ = entry.failed.set(text(message));
        Err(status)
    };
    let mut session = match entry.session.try_lock() {
        Ok(session) => session,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            let reason = "two threads use this handle at once; one run belongs to one thread";
            return fail(aisp_status::AISP_BUSY, reason);
        }
    };
    match catch_unwind(AssertUnwindSafe(|| run(&mut session))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => fail(failure.status(), failure.message()),
        Err(payload) => fail(aisp_status::AISP_INTERNAL, &panicked(payload.as_ref())),
    }
}

/// Why `handle` failed, or what went wrong last on this thread for a handle that is none.
/// Lives until the handle is freed, or until the thread's next error.
pub(super) fn last_error(handle: *const aisp) -> *const c_char {
    const NOTHING: &CStr = c"";
    match entry(handle) {
        Some(entry) => entry.failed.get().map_or(NOTHING.as_ptr(), |e| e.as_ptr()),
        None => LAST.with_borrow(|last| last.as_ptr()),
    }
}
