//! A reward on a thread of its own: whoever asks it waits, and nobody else does.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use crate::error::{Error, Result};
use crate::reward::{Pending, Reward, Sample, Scores};

/// The way to a reward; every copy leads to the same one.
#[derive(Clone)]
pub(super) struct Scorer {
    name: String,
    asks: Sender<Asked>,
}

/// Texts to be scored, and who wants to know.
struct Asked {
    pairs: Vec<(String, String)>,
    answer: Box<dyn FnOnce(Result<Scores>) + Send>,
}

impl Scorer {
    /// Gives the reward a thread.
    pub(super) fn new(mut reward: Box<dyn Reward>) -> Self {
        let name = reward.name();
        let (asks, asked) = channel::<Asked>();
        thread::spawn(move || {
            for Asked { pairs, answer } in asked {
                let samples = pairs.iter();
                let samples = samples.map(|(prompt, response)| Sample { prompt, response });
                answer(reward.score(&samples.collect::<Vec<_>>()));
            }
        });
        Self { name, asks }
    }

    /// Has pairs of prompt and response scored; `answer` is called on the reward's thread.
    pub(super) fn ask(
        &self,
        pairs: Vec<(String, String)>,
        answer: impl FnOnce(Result<Scores>) + Send + 'static,
    ) -> Result<()> {
        let answer = Box::new(answer);
        let sent = self.asks.send(Asked { pairs, answer });
        sent.map_err(|_| self.gone())
    }

    fn asked(&self, samples: &[Sample<'_>]) -> Result<Receiver<Result<Scores>>> {
        let pairs = samples.iter();
        let pairs = pairs.map(|s| (s.prompt.to_owned(), s.response.to_owned()));
        let (tell, told) = channel();
        self.ask(pairs.collect(), move |scores| drop(tell.send(scores)))?;
        Ok(told)
    }

    fn gone(&self) -> Error {
        Error::Reward(format!("{} has ended its thread", self.name))
    }
}

impl Reward for Scorer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn score(&mut self, samples: &[Sample<'_>]) -> Result<Scores> {
        self.asked(samples)?.recv().map_err(|_| self.gone())?
    }

    fn begin(&mut self, samples: &[Sample<'_>]) -> Option<Pending> {
        let told = self.asked(samples);
        let gone = self.clone();
        Some(Box::new(move || match &told {
            Ok(told) => match told.try_recv() {
                Ok(scores) => Some(scores),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(gone.gone())),
            },
            Err(_) => Some(Err(gone.gone())),
        }))
    }
}
