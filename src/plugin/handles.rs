//! Handles that cannot be misused: numbers instead of addresses, an error state instead of
//! undefined behaviour.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, PoisonError, TryLockError};
// The unit tests go through every interleaving of two threads; the tests of the C interface use
// the real ones.
#[cfg(test)]
use loom::sync::{Arc, Mutex, RwLock, atomic::AtomicUsize};
#[cfg(not(test))]
use std::sync::{Arc, Mutex, RwLock, atomic::AtomicUsize};

use super::session::Failure;
use super::{aisp, aisp_status};

/// Sessions by their handles. A handle is a number that never comes back, not an address: one
/// that was freed, or never was a handle, is told from a live one without looking behind it.
pub(super) struct Handles<S> {
    next: AtomicUsize,
    entries: RwLock<BTreeMap<usize, Arc<Entry<S>>>>,
}

/// A session, and why it can no longer be used.
struct Entry<S> {
    session: Mutex<S>,
    failed: OnceLock<CString>,
}

thread_local! {
    /// What went wrong last on this thread without a handle to keep it.
    static LAST: RefCell<CString> = RefCell::default();
}

fn text(message: &str) -> CString {
    CString::new(message.replace('\0', " ")).unwrap_or_default()
}

/// A thread that ends, and has destructors of its own, may have lost the place already: then nobody is
/// told.
fn say(message: &str) {
    let _ = LAST.try_with(|last| last.replace(text(message)));
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

impl<S> Default for Handles<S> {
    fn default() -> Self {
        Self {
            next: AtomicUsize::new(1),
            entries: RwLock::new(BTreeMap::new()),
        }
    }
}

impl<S> Handles<S> {
    /// Makes a handle.
    pub(super) fn insert(&self, session: S) -> *mut aisp {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry {
            session: Mutex::new(session),
            failed: OnceLock::new(),
        });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(id, entry);
        std::ptr::without_provenance_mut(id)
    }

    fn entry(&self, handle: *const aisp) -> Option<Arc<Entry<S>>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&handle.addr()).cloned()
    }

    /// Forgets a handle; a call in progress on another thread ends as it would have.
    pub(super) fn remove(&self, handle: *mut aisp) -> Result<(), aisp_status> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let removed = entries.remove(&handle.addr());
        drop(entries);
        removed.map(drop).ok_or_else(no_handle)
    }

    /// Runs a call on a session. Its first failure is the session's last call.
    pub(super) fn on<T>(
        &self,
        handle: *const aisp,
        run: impl FnOnce(&mut S) -> Result<T, Failure>,
    ) -> Result<T, aisp_status> {
        let entry = self.entry(handle).ok_or_else(no_handle)?;
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
    pub(super) fn last_error(&self, handle: *const aisp) -> *const c_char {
        const NOTHING: &CStr = c"";
        match self.entry(handle) {
            Some(entry) => entry.failed.get().map_or(NOTHING.as_ptr(), |e| e.as_ptr()),
            None => LAST
                .try_with(|last| last.borrow().as_ptr())
                .unwrap_or(NOTHING.as_ptr()),
        }
    }
}

fn no_handle() -> aisp_status {
    say("no such handle: it is NULL, was freed, or did not come from aisp_create");
    aisp_status::AISP_BAD_HANDLE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::aisp_status::{AISP_BAD_HANDLE, AISP_BUSY, AISP_FAILED, AISP_INTERNAL};
    use super::*;

    /// Counts its calls. loom fails a test when two threads are in the cell at once, or when
    /// the session is not dropped in the end.
    struct Counter {
        count: UnsafeCell<u32>,
        pauses: bool,
    }

    impl Counter {
        /// Lets the other thread go on in the midst of a call. loom does not by itself: it knows
        /// of nothing in there that the other would see.
        fn pause(&self) {
            if self.pauses {
                thread::yield_now();
            }
        }
    }

    // SAFETY: only for `Handles`, whose lock is what is tested.
    unsafe impl Send for Counter {}

    #[derive(Clone)]
    struct Runs(Arc<Handles<Counter>>, usize);

    impl Runs {
        fn count(&self) -> Result<u32, aisp_status> {
            self.0.on(self.handle(), |counter| {
                counter.pause();
                // SAFETY: the pointer does not leave the closure.
                Ok(counter.count.with_mut(|count| unsafe {
                    *count += 1;
                    *count
                }))
            })
        }

        fn panic(&self) -> Result<u32, aisp_status> {
            self.0.on(self.handle(), |counter| {
                counter.pause();
                panic!("on purpose")
            })
        }

        fn remove(&self) -> Result<u32, aisp_status> {
            self.0.remove(self.handle()).map(|()| 0)
        }

        fn handle(&self) -> *mut aisp {
            std::ptr::without_provenance_mut(self.1)
        }

        fn error(&self) -> String {
            // SAFETY: the entry is there; nothing else frees it.
            let message = unsafe { CStr::from_ptr(self.0.last_error(self.handle())) };
            message.to_str().unwrap().into()
        }
    }

    type Outcome = Result<u32, aisp_status>;

    /// Two threads with a call each on one handle, in every order: all that they may get.
    /// `after` looks at what is left.
    fn interleave(
        a: fn(&Runs) -> Outcome,
        b: fn(&Runs) -> Outcome,
        after: fn(&Runs),
    ) -> BTreeSet<String> {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        for pauses in [false, true] {
            let seen = std::sync::Arc::clone(&seen);
            loom::model(move || {
                let handles = Arc::new(Handles::default());
                let count = UnsafeCell::new(0);
                let handle = handles.insert(Counter { count, pauses }).addr();
                let runs = Runs(handles, handle);
                let other = runs.clone();
                let thread = thread::spawn(move || b(&other));
                let outcome = (a(&runs), thread.join().unwrap());
                seen.lock().unwrap().insert(format!("{outcome:?}"));
                after(&runs);
            });
        }
        std::mem::take(&mut seen.lock().unwrap())
    }

    fn set<const N: usize>(outcomes: [(Outcome, Outcome); N]) -> BTreeSet<String> {
        outcomes.map(|outcome| format!("{outcome:?}")).into()
    }

    #[test]
    fn two_calls_never_meet_in_a_session() {
        let seen = interleave(Runs::count, Runs::count, |runs| {
            if runs.error().is_empty() {
                assert_eq!(runs.count(), Ok(3));
            } else {
                assert!(runs.error().starts_with("two threads"), "{}", runs.error());
                assert_eq!(runs.count(), Err(AISP_FAILED));
            }
        });
        let alone = [(Ok(1), Ok(2)), (Ok(2), Ok(1))];
        let met = [(Ok(1), Err(AISP_BUSY)), (Err(AISP_BUSY), Ok(1))];
        assert_eq!(seen, &set(alone) | &set(met));
    }

    #[test]
    fn a_handle_may_be_freed_under_a_call() {
        let seen = interleave(Runs::count, Runs::remove, |runs| {
            assert_eq!(runs.count(), Err(AISP_BAD_HANDLE));
        });
        assert_eq!(seen, set([(Ok(1), Ok(0)), (Err(AISP_BAD_HANDLE), Ok(0))]));
    }

    #[test]
    fn a_handle_is_freed_once() {
        let seen = interleave(Runs::remove, Runs::remove, |_| {});
        let twice = Err(AISP_BAD_HANDLE);
        assert_eq!(seen, set([(Ok(0), twice), (twice, Ok(0))]));
    }

    #[test]
    fn a_panic_is_the_last_call() {
        let seen = interleave(Runs::panic, Runs::count, |runs| {
            assert!(!runs.error().is_empty());
            assert_eq!(runs.count(), Err(AISP_FAILED));
        });
        let panic = Err(AISP_INTERNAL);
        let first = [(panic, Err(AISP_FAILED)), (panic, Err(AISP_BUSY))];
        let second = [(panic, Ok(1)), (Err(AISP_BUSY), Ok(1))];
        assert_eq!(seen, &set(first) | &set(second));
    }
}
