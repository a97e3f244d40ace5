//! A reward on a thread of its own: whoever asks it waits, and nobody else does.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::thread;

use crate::error::{Error, Result};
use crate::reward::{OwnedSample, Pending, Reward, RewardPart, Sample, Scores};

/// The way to a reward; every copy leads to the same one.
#[derive(Clone)]
pub(super) struct Scorer {
    name: String,
    sees: String,
    parts: Vec<RewardPart>,
    compares: bool,
    asks: Sender<Asked>,
}

/// Texts to be scored beside others, and who wants to know.
struct Asked {
    samples: Vec<OwnedSample>,
    elites: Vec<(OwnedSample, f64)>,
    answer: Box<dyn FnOnce(Result<Scores>) + Send>,
    /// Gone with whoever waits for the answer.
    wanted: Weak<()>,
}

/// What somebody holds who waits for scores: without it they are not made.
pub(super) type Waiting = Arc<()>;

impl Scorer {
    /// Gives the reward a thread.
    pub(super) fn new(mut reward: Box<dyn Reward>) -> Self {
        let (asks, asked) = channel::<Asked>();
        let scorer = Self {
            name: reward.name(),
            sees: reward.sees(),
            parts: reward.parts(),
            compares: reward.compares(),
            asks,
        };
        thread::spawn(move || {
            for asked in asked {
                if asked.wanted.strong_count() == 0 {
                    continue;
                }
                let samples: Vec<_> = asked.samples.iter().map(OwnedSample::sample).collect();
                let elites = asked
                    .elites
                    .iter()
                    .map(|(sent, said)| (sent.sample(), *said));
                (asked.answer)(reward.score_beside(&samples, &elites.collect::<Vec<_>>()));
            }
        });
        scorer
    }

    /// Has samples scored beside `elites`; `answer` is called on the reward's thread, where the other end of
    /// `wanted` is still held when their turn comes.
    pub(super) fn ask(
        &self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
        wanted: &Waiting,
        answer: impl FnOnce(Result<Scores>) + Send + 'static,
    ) -> Result<()> {
        let elites = elites.iter();
        let asked = Asked {
            samples: samples.iter().map(OwnedSample::from).collect(),
            elites: elites.map(|(elite, said)| (elite.into(), *said)).collect(),
            answer: Box::new(answer),
            wanted: Arc::downgrade(wanted),
        };
        self.asks.send(asked).map_err(|_| self.gone())
    }

    fn asked(
        &self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Result<(Receiver<Result<Scores>>, Waiting)> {
        let (tell, told) = channel();
        let waiting = Waiting::default();
        self.ask(samples, elites, &waiting, move |scores| {
            drop(tell.send(scores))
        })?;
        Ok((told, waiting))
    }

    fn gone(&self) -> Error {
        Error::Reward(format!("{} has ended its thread", self.name))
    }
}

impl Reward for Scorer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sees(&self) -> String {
        self.sees.clone()
    }

    fn parts(&self) -> Vec<RewardPart> {
        self.parts.clone()
    }

    fn compares(&self) -> bool {
        self.compares
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        self.score_beside(samples, &[])
    }

    fn score_beside(
        &mut self,
        samples: &[Sample<'_>],
        elites: &[(Sample<'_>, f64)],
    ) -> Result<Scores> {
        let (told, _waiting) = self.asked(samples, elites)?;
        told.recv().map_err(|_| self.gone())?
    }

    fn begin(&mut self, samples: &[Sample<'_>], elites: &[(Sample<'_>, f64)]) -> Option<Pending> {
        let told = self.asked(samples, elites);
        let gone = self.clone();
        Some(Box::new(move || match &told {
            Ok((told, _waiting)) => match told.try_recv() {
                Ok(scores) => Some(scores),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(gone.gone())),
            },
            Err(_) => Some(Err(gone.gone())),
        }))
    }
}
