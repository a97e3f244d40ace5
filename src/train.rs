//! RE-Control's value network: V(z), the reward that a response will have, learnt at every token
//! of the model's own responses.
//!
//! Responses are drawn as best-of-n draws them and scored; whole prompts are held out. The
//! mathematics is in [`crate::control`] ([`ValueNetwork`]); source: arXiv 2406.05954.

use std::sync::mpsc::channel;

use crate::align::{AlignOptions, Aligner, Alignment, Prompt, Rewards, StopReason};
use crate::control::{Lesson, ValueErrors, ValueNetwork, ValueOptions};
use crate::error::{Error, Result};
use crate::method::{Lessons, Rounds};
use crate::rollout::SamplingOptions;
use crate::stop::Stop;

/// How a value network is trained.
#[derive(Clone, Debug)]
pub struct TrainValueOptions {
    /// `samples` are the responses to each prompt; there is one iteration, whatever this says.
    pub rounds: Rounds,
    /// How their tokens are drawn.
    pub sampling: SamplingOptions,
    /// Width of a hidden layer; `None` is that of the pre-logits.
    pub hidden: Option<usize>,
    /// Hidden layers (default 1).
    pub layers: usize,
    /// Passes over the responses (default 30); the one with the smallest error on the prompts
    /// held out for that is kept.
    pub epochs: usize,
    /// Adam's step size (default 3e-4).
    pub learning_rate: f64,
}

impl Default for TrainValueOptions {
    fn default() -> Self {
        Self {
            rounds: Rounds {
                iterations: 1,
                ..Rounds::default()
            },
            sampling: SamplingOptions::default(),
            hidden: None,
            layers: 1,
            epochs: 30,
            learning_rate: 3e-4,
        }
    }
}

impl TrainValueOptions {
    /// Checks everything that can be checked without a model, for so many prompts.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field and its value.
    pub fn validate(&self, prompts: usize) -> Result<()> {
        if prompts < 5 {
            let reason =
                format!("{prompts} prompts; give at least 5, as whole prompts are held out");
            return Err(Error::field("prompts", reason));
        }
        let rate = self.learning_rate;
        if !(rate > 0.0 && rate.is_finite()) {
            let reason = format!("{rate}; give a positive number");
            return Err(Error::field("learning-rate", reason));
        }
        self.rounds.validate()?;
        self.sampling.validate()
    }
}

/// A value network with what it was measured on.
#[derive(Clone, Debug)]
pub struct TrainedValue {
    /// The network.
    pub network: ValueNetwork,
    /// Its errors on the prompts that are held out.
    pub errors: ValueErrors,
    /// Responses learnt from, those that chose the epoch, and those held out.
    pub responses: [usize; 3],
}

/// The prompts in three parts: every fifth is held out and measured once, every fifth chooses
/// the epoch, the others are learnt from.
#[derive(Default)]
struct Parts {
    training: Vec<Lesson>,
    choosing: Vec<Lesson>,
    held_out: Vec<Lesson>,
}

/// Draws responses to `prompts`, and trains a network on their rewards. `told` hears how many
/// prompts are done. `None` when `stop` came before the first pass over the responses was done; later it
/// ends the training, with the best network so far.
///
/// # Errors
/// Those of [`TrainValueOptions::validate`] and [`Aligner::align`].
pub fn train_value(
    aligner: &mut Aligner,
    rewards: &mut dyn Rewards,
    prompts: &[Prompt],
    options: &TrainValueOptions,
    stop: &Stop,
    told: &mut dyn FnMut(usize),
) -> Result<Option<TrainedValue>> {
    options.validate(prompts.len())?;
    let Some(parts) = collect(aligner, rewards, prompts, options, stop, told)? else {
        return Ok(None);
    };
    let width = aligner.model().width();
    let Some(network) = train(&parts, options, width, stop) else {
        return Ok(None);
    };
    Ok(Some(TrainedValue {
        errors: ValueErrors::of(&network, &parts.held_out),
        network,
        responses: [&parts.training, &parts.choosing, &parts.held_out].map(Vec::len),
    }))
}

/// The responses and their pre-logits; nothing when interrupted.
fn collect(
    aligner: &mut Aligner,
    rewards: &mut dyn Rewards,
    prompts: &[Prompt],
    options: &TrainValueOptions,
    stop: &Stop,
    told: &mut dyn FnMut(usize),
) -> Result<Option<Parts>> {
    let run = AlignOptions {
        rounds: Rounds {
            iterations: 1,
            ..options.rounds
        },
        ..AlignOptions::default()
    };
    let mut parts = Parts::default();
    for (index, prompt) in prompts.iter().enumerate() {
        let (sender, lessons) = channel();
        let width = aligner.model().width();
        let method = Lessons::new(&run.rounds, &options.sampling, width, sender);
        let run = aligner
            .align_by(prompt, rewards, &run, Box::new(method), stop, &mut |_| {})
            .and_then(Alignment::whole)
            .map_err(|error| error.in_prompts(index))?;
        if run.stop == StopReason::Interrupted {
            return Ok(None);
        }
        told(index + 1);
        let part = match index % 5 {
            3 => &mut parts.choosing,
            4 => &mut parts.held_out,
            _ => &mut parts.training,
        };
        part.extend(lessons);
    }
    Ok(Some(parts))
}

/// Trains epoch by epoch, until `stop`, and keeps the network of the best one, if there is one.
fn train(
    parts: &Parts,
    options: &TrainValueOptions,
    width: usize,
    stop: &Stop,
) -> Option<ValueNetwork> {
    let hidden = options.hidden.unwrap_or(width).max(1);
    let mut epoch = ValueOptions {
        hidden: vec![hidden; options.layers],
        epochs: 1,
        batch: 16,
        learning_rate: options.learning_rate,
        seed: options.rounds.seed,
    };
    let mut network = ValueNetwork::new(&parts.training, &epoch);
    let mut trainer = network.trainer(options.learning_rate);
    let mut best = (f64::INFINITY, network.clone());
    let mut any = false;
    for _ in 0..options.epochs.max(1) {
        let goes_on = &mut |_| !stop.is_requested();
        if !network.train_on(&parts.training, &epoch, &mut trainer, goes_on) {
            break;
        }
        any = true;
        epoch.seed = epoch.seed.wrapping_add(1);
        let now = ValueErrors::of(&network, &parts.choosing).last;
        if now < best.0 {
            best = (now, network.clone());
        }
    }
    any.then_some(best.1)
}
