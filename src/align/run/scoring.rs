//! The iteration of a run that is being scored. Where its rewards score elsewhere, the run waits, and
//! those beside it go on.

use std::time::Instant;

use super::Run;
use crate::align::events::EventKind;
use crate::align::parts;
use crate::align::record::ScoredCandidate;
use crate::align::rewards::{Asked, RunRewards, beside, samples};
use crate::align::share::{Heard, Part, SentAnswer, Share};
use crate::error::{Error, Result};
use crate::method::Outcome;
use crate::reward::{Answer, RewardPart, Scores};
use crate::rollout::{Candidate, End};

/// Candidates with what is asked about their texts.
pub(super) struct Scoring {
    candidates: Vec<(usize, Candidate)>,
    /// Those that had no score yet, each once.
    texts: Vec<String>,
    /// Which of them are scored here, where the others are elsewhere.
    own: Option<Vec<usize>>,
    /// What the reward is the sum of.
    parts: Vec<RewardPart>,
    scores: Asked,
    held_out: Option<Asked>,
    /// Seconds of each, and when they were asked.
    seconds: (f64, f64),
    asked: Instant,
}

impl Scoring {
    /// What the reward says here, as it travels.
    fn sent(&self) -> std::result::Result<Vec<(usize, SentAnswer)>, String> {
        match &self.scores {
            Asked::There(Ok(scores)) => {
                let own = self.own.iter().flatten().copied();
                Ok(own.zip(scores.iter().map(SentAnswer::from)).collect())
            }
            Asked::There(Err(Error::Reward(reason))) => Err(reason.clone()),
            Asked::There(Err(error)) => Err(error.to_string()),
            Asked::Pending(..) => Err("the scores are not there yet".into()),
        }
    }

    /// Puts what others say beside what is said here; why it does not go together. Where the reward has
    /// failed here, there are no scores.
    fn join(&mut self, parts: Vec<Part>) -> std::result::Result<(), String> {
        let Asked::There(Ok(own)) = &mut self.scores else {
            return Ok(());
        };
        let mut all: Vec<Option<Answer>> = self.texts.iter().map(|_| None).collect();
        for (number, answer) in self.own.iter().flatten().zip(own.drain(..)) {
            all[*number] = Some(answer);
        }
        for part in parts {
            match part {
                Part::Scores(Ok(scores)) => {
                    for (number, answer) in scores {
                        let place = all.get_mut(number).filter(|place| place.is_none());
                        *place.ok_or("a score of no text")? = Some(answer.into());
                    }
                }
                // Where the run was begun the reward may still be there.
                Part::Scores(Err(reason)) => return Err(format!("its reward failed: {reason}")),
                Part::Candidates(_) => return Err("candidates, where scores were due".into()),
            }
        }
        let all: Option<Scores> = all.into_iter().collect();
        self.scores = Asked::There(Ok(all.ok_or("a text has no score")?));
        Ok(())
    }
}

impl Run {
    /// Takes out of the candidates of an iteration what its method gave up, and answers with those
    /// that are to be scored: not what a stop has cut short, unless there is nothing else.
    pub(super) fn wanted(
        &mut self,
        candidates: Vec<Option<Candidate>>,
        tell: &mut dyn FnMut(EventKind),
    ) -> Vec<(usize, Candidate)> {
        let finished = |c: &Candidate| c.end != End::Stopped;
        let whole = candidates.iter().flatten().any(finished) || self.open.has_whole();
        let any = whole || self.tally.best().is_some();
        let there = candidates.into_iter().enumerate();
        let used = there
            .filter_map(|(i, c)| Some((i, c?)))
            .filter(|(_, c)| finished(c) || !any);
        let (given_up, used): (Vec<_>, Vec<_>) = used.partition(|(_, c)| c.end == End::GivenUp);
        for (index, candidate) in &given_up {
            let scored = ScoredCandidate::new(self.iterations.len(), *index, candidate);
            tell(EventKind::CandidateScored(scored.clone()));
            self.tally.give_up(scored);
        }
        used
    }

    /// Asks about the texts of `candidates` that have no score yet.
    pub(super) fn ask_for(
        &mut self,
        rewards: &mut RunRewards<'_>,
        candidates: Vec<(usize, Candidate)>,
    ) {
        let texts = self.tally.unknown(&candidates);
        let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
        let samples = samples(&self.prompt, texts.iter().map(String::as_str));
        let elites = self.tally.elites();
        let rewarded = beside(&self.prompt, &elites, |elite| Some(elite.reward));
        let begun = Instant::now();
        // What only compares has to see all of them.
        let share = self.share.as_ref().filter(|_| !rewards.reward.compares());
        let own = share.map(|share| (0..samples.len()).filter(|&i| share.has(i)).collect());
        let scores = match &own {
            None => Asked::of(&mut *rewards.reward, &samples, &rewarded),
            Some(own) => {
                let own: &Vec<usize> = own;
                let samples: Vec<_> = own.iter().map(|&i| samples[i]).collect();
                Asked::of(&mut *rewards.reward, &samples, &rewarded)
            }
        };
        let asked = Instant::now();
        let wanted = !samples.is_empty() && !self.held_out_failed && !scores.has_failed();
        // One process watches.
        let watches = self.share.as_ref().is_none_or(Share::leads);
        let held_out = rewards.held_out.as_mut().filter(|_| wanted && watches);
        let held_out = held_out.map(|reward| {
            let watched = beside(&self.prompt, &elites, |elite| elite.held_out);
            Asked::of(&mut **reward, &samples, &watched)
        });
        self.scoring = Some(Scoring {
            candidates,
            texts,
            own,
            parts: rewards.reward.parts(),
            scores,
            held_out,
            seconds: ((asked - begun).as_secs_f64(), asked.elapsed().as_secs_f64()),
            asked: begun,
        });
    }

    /// Whether an iteration waits for its scores.
    pub(in crate::align) fn is_scoring(&self) -> bool {
        self.scoring.is_some()
    }

    /// Closes the iteration that waits for its scores, where they are there.
    pub(in crate::align) fn score(
        &mut self,
        rewards: &mut RunRewards<'_>,
        tell: &mut dyn FnMut(EventKind),
    ) -> Result<()> {
        let Some(mut scoring) = self.scoring.take() else {
            return Ok(());
        };
        // An answer that is there does not wait for better ones beyond its time.
        let late = self.is_late() && self.tally.best().is_some();
        if scoring.scores.becomes_there(&self.stop, late) {
            scoring.seconds.0 = scoring.asked.elapsed().as_secs_f64();
        }
        let held_out = scoring.held_out.as_mut();
        if held_out.is_some_and(|asked| asked.becomes_there(&self.stop, late)) {
            scoring.seconds.1 = scoring.asked.elapsed().as_secs_f64();
        }
        if scoring.own.is_some() && scoring.scores.is_there() {
            match self.exchange(&mut scoring)? {
                Heard::Nothing => {
                    self.scoring = Some(scoring);
                    return Ok(());
                }
                Heard::Parts(_) => scoring.own = None,
                Heard::Alone(reason) if self.share.is_some() => {
                    self.go_alone(reason, tell);
                    self.ask_for(rewards, scoring.candidates);
                    return self.score(rewards, tell);
                }
                // The run is over: what is scored here is what there is.
                Heard::Alone(_) => self.keep_own(&mut scoring),
            }
        }
        let mut all = std::iter::once(&scoring.scores).chain(&scoring.held_out);
        if !all.all(Asked::is_there) {
            self.scoring = Some(scoring);
            return Ok(());
        }
        self.close_scored(scoring, tell)
    }

    /// Leaves out what was to be scored elsewhere.
    fn keep_own(&self, scoring: &mut Scoring) {
        let own = scoring.own.take().unwrap_or_default();
        let texts = std::mem::take(&mut scoring.texts);
        let away: Vec<String> = (0..)
            .zip(texts)
            .filter_map(|(number, text)| match own.contains(&number) {
                true => {
                    scoring.texts.push(text);
                    None
                }
                false => Some(text),
            })
            .collect();
        scoring
            .candidates
            .retain(|(_, candidate)| !away.contains(&candidate.text));
        scoring.held_out = None;
    }

    /// Tells the others what their texts were given here, and puts together what all of them were
    /// given.
    fn exchange(&mut self, scoring: &mut Scoring) -> Result<Heard> {
        let Some(share) = &mut self.share else {
            return Ok(Heard::Alone("the run is over".into()));
        };
        let heard = share.round(|| Part::Scores(scoring.sent()))?;
        let Heard::Parts(parts) = heard else {
            return Ok(heard);
        };
        match scoring.join(parts) {
            Ok(()) => Ok(Heard::Parts(Vec::new())),
            Err(reason) => self.refused(reason),
        }
    }

    fn close_scored(&mut self, scoring: Scoring, tell: &mut dyn FnMut(EventKind)) -> Result<()> {
        let scores = match scoring.scores.scores() {
            Ok(scores) => self.scaled(scores, scoring.parts, tell),
            Err(error) => return self.end_by(error),
        };
        self.timings.reward_seconds += scoring.seconds.0;
        let watched = match scoring.held_out {
            Some(asked) => self.watch(asked, scoring.seconds.1, tell),
            None => Vec::new(),
        };
        let mut watched = watched.into_iter();
        for (text, score) in scoring.texts.iter().zip(scores) {
            self.tally.learn(text, score, watched.next().flatten());
        }
        let mut outcomes = Vec::with_capacity(scoring.candidates.len());
        let mut generated = 0;
        for (index, candidate) in &scoring.candidates {
            let scored = ScoredCandidate::new(self.iterations.len(), *index, candidate);
            let scored = self.tally.count(scored);
            outcomes.push(Outcome {
                candidate: u32::try_from(*index).unwrap_or(u32::MAX),
                reward: scored.reward.unwrap_or(f64::NAN),
                tokens: &candidate.tokens,
                nats: &candidate.nats,
                pre_logits: &candidate.pre_logits,
            });
            generated += candidate.tokens.len() - candidate.known;
            tell(EventKind::CandidateScored(scored.clone()));
        }
        self.observe(&outcomes, generated, tell)
    }

    /// The scores, of which each part is divided by its deviation over the first of them, where that
    /// is asked for.
    fn scaled(
        &mut self,
        mut scores: Scores,
        parts: Vec<RewardPart>,
        tell: &mut dyn FnMut(EventKind),
    ) -> Scores {
        let scale = self.options.reward_scale;
        let parts = self.parts.get_or_insert_with(|| {
            let parts = parts::measure(parts, &scores, scale);
            if !parts.is_empty() {
                tell(EventKind::RewardParts {
                    decisive: parts::decisive(&parts),
                    parts: parts.clone(),
                });
            }
            parts
        });
        for score in scores.iter_mut().flatten().filter(|_| scale) {
            score.reward = parts::scaled(parts, score);
        }
        scores
    }

    /// What the held-out reward says of each text. It only watches: when it fails as a whole the run
    /// goes on without it.
    fn watch(
        &mut self,
        asked: Asked,
        seconds: f64,
        tell: &mut dyn FnMut(EventKind),
    ) -> Vec<Option<f64>> {
        self.timings.held_out_seconds += seconds;
        match asked.scores() {
            Ok(scores) => scores
                .into_iter()
                .map(|score| Some(score.ok()?.reward).filter(|r| r.is_finite()))
                .collect(),
            Err(error) => {
                self.held_out_failed = true;
                let reason = error.to_string();
                tell(EventKind::HeldOutFailed { reason });
                Vec::new()
            }
        }
    }
}
