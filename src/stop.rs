//! A request to stop, which everything that may take long looks at.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long what has been begun may take once a stop was asked for: a reward that answers still
/// scores what is finished, one that is silent is given up.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// How often a wait looks whether one was asked for.
const LOOK: Duration = Duration::from_millis(20);

/// A request to stop, given from another thread or a signal handler. The best response so
/// far is still the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<OnceLock<Instant>>);

/// Why nothing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The deadline has passed.
    TimedOut,
    /// Nobody is left to send anything.
    Ended,
    /// A stop was asked for, and what was begun then has had its time.
    Stopped,
}

impl Stop {
    /// No request yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop after the step it is in.
    pub fn request(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// Whether the run was asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether it was asked to so long ago that what is still waited for is given up.
    #[must_use]
    pub(crate) fn is_overdue(&self) -> bool {
        self.0.get().is_some_and(|asked| asked.elapsed() >= GRACE)
    }

    /// What comes next, until `deadline`.
    pub(crate) fn receive<T>(
        &self,
        from: &Receiver<T>,
        deadline: Option<Instant>,
    ) -> Result<T, Silence> {
        loop {
            let left = deadline.map_or(LOOK, |d| d.saturating_duration_since(Instant::now()));
            match from.recv_timeout(left.min(LOOK)) {
                Ok(item) => return Ok(item),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
                Err(RecvTimeoutError::Timeout) if left <= LOOK && deadline.is_some() => {
                    return Err(Silence::TimedOut);
                }
                Err(RecvTimeoutError::Timeout) if self.is_overdue() => {
                    return Err(Silence::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_wait_ends_by_what_comes_by_its_deadline_by_the_sender_or_by_a_stop() {
        let stop = Stop::new();
        let (sender, from) = channel();
        let soon = || Some(Instant::now() + Duration::from_millis(30));
        assert_eq!(stop.receive(&from, soon()), Err(Silence::TimedOut));
        sender.send(7).unwrap();
        assert_eq!(stop.receive(&from, None), Ok(7));
        stop.request();
        assert!(!stop.is_overdue());
        assert_eq!(stop.receive(&from, None), Err(Silence::Stopped));
        assert!(stop.is_overdue());
        drop(sender);
        assert_eq!(stop.receive(&from, None), Err(Silence::Ended));
    }
}
