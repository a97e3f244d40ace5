//! Jobs by themselves: all of them from their beginning to their end.

use std::ops::ControlFlow;

use super::Rollout;
use crate::error::Result;
use crate::llama::Token;
use crate::rollout::{Candidate, Job, JobId, Progress};

impl Rollout {
    /// Generates a candidate for every job, where no others are submitted; results are in the
    /// order of the jobs, and the same however many run at once. Nothing has a reward meanwhile.
    ///
    /// `observe` is called after every step; when it breaks, the candidates being written
    /// are returned as they are ([`End::Stopped`](crate::rollout::End::Stopped)) and those not begun as `None`.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit), [`step`](Self::step) and of any one job.
    pub fn run(
        &mut self,
        jobs: &[Job],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Option<Candidate>>> {
        let mut ids = Vec::with_capacity(jobs.len());
        let done = self.run_submitted(jobs, &mut ids, observe);
        // Those that are done are not here any more.
        ids.into_iter().for_each(|id| drop(self.cancel(id)));
        done
    }

    fn run_submitted(
        &mut self,
        jobs: &[Job],
        ids: &mut Vec<JobId>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Option<Candidate>>> {
        for job in jobs {
            ids.push(self.submit(job.clone())?);
        }
        let mut done: Vec<Option<Candidate>> = ids.iter().map(|_| None).collect();
        let mut progress = Progress::default();
        let mut unscored = |_, texts: &[Vec<Token>]| Ok(vec![None; texts.len()]);
        while progress.finished < ids.len() {
            for written in self.step(&mut unscored)? {
                progress.count(&written);
                let index = ids.iter().position(|&id| id == written.job);
                if let (Some(index), Some(candidate)) = (index, written.done) {
                    done[index] = Some(candidate?);
                }
            }
            if observe(progress).is_break() {
                for (id, done) in ids.iter().zip(&mut done) {
                    *done = done.take().or_else(|| self.cancel(*id));
                }
                break;
            }
        }
        Ok(done)
    }
}
