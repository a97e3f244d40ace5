//! AISP's settings chosen for a model and a reward, one group of settings after the other.

use super::Plan;
use super::rows::{Row, differences};
use super::stats::{mean, standard_deviation};
use crate::error::Result;
use crate::method::MethodSpec;

/// A response set is no worse than the incumbent's where it keeps this share of its diversity:
/// rewards that fall for repetition are not to choose it.
const DIVERSITY_KEPT: f64 = 0.9;

/// Settings that are chosen together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Name of the stage, and of its folder.
    pub name: &'static str,
    /// What is tried beside the settings so far: `NAME=VALUE[:NAME=VALUE]…`.
    pub trials: &'static [&'static str],
}

/// The stages in their order. The last depends on which rule the second one chose.
#[must_use]
pub fn stages(incumbent: &MethodSpec, index: usize) -> Option<Stage> {
    let by_weights = incumbent.all()["update"] == "weights";
    let (name, trials): (_, &[_]) = match index {
        0 => ("1-noise", &["logit-sd=0.5", "logit-sd=0.7", "logit-sd=1.4"]),
        1 => (
            "2-rule",
            &[
                "steer=0",
                "steer=1",
                "steer=3",
                "update=weights:ess=0.125",
                "update=weights:ess=0.25",
                "update=weights:ess=0.5",
            ],
        ),
        2 if by_weights => ("3-schedule", &["alpha=0", "alpha=0.5", "alpha=0.9"]),
        2 => (
            "3-schedule",
            &[
                "elites=2",
                "elites=8",
                "mutation-decay=0.6",
                "mutation-decay=0.9",
            ],
        ),
        _ => return None,
    };
    Some(Stage { name, trials })
}

impl Stage {
    /// `incumbent` first, then with each trial put to its settings.
    ///
    /// # Errors
    /// None for the trials of [`stages`].
    pub fn methods(&self, incumbent: &MethodSpec) -> Result<Vec<MethodSpec>> {
        let trials = self
            .trials
            .iter()
            .map(|trial| format!("{}:{trial}", incumbent.label()).parse());
        std::iter::once(Ok(incumbent.clone()))
            .chain(trials)
            .collect()
    }
}

/// How a method did beside the incumbent.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Mean best reward.
    pub reward: f64,
    /// Mean difference to the incumbent, over prompts.
    pub difference: f64,
    /// Standard error of the difference, over prompts; infinite for fewer than two.
    pub error: f64,
    /// Mean diversity of the best responses.
    pub diversity: f64,
    /// Runs that came to no answer; they are in no mean.
    pub failed: usize,
}

/// What the rows say of every method of `plan`, which is carried out; and the index of the one to
/// keep: the highest difference among those that are better than the first by more than the
/// difference's standard error, keep nine tenths of its diversity, and fail no more often; else the
/// first.
#[must_use]
pub fn verdicts(plan: &Plan, rows: &[Row]) -> (Vec<Verdict>, usize) {
    let cells = plan.prompts.len() * plan.seeds as usize;
    let of = |method: &MethodSpec| -> Vec<&Row> {
        let own = rows.iter().filter(|r| r.method == method.label());
        own.collect()
    };
    let first = of(&plan.methods[0]);
    let verdicts: Vec<Verdict> = plan
        .methods
        .iter()
        .map(|method| {
            let own = of(method);
            let groups = differences(&own, &first, |r| Some(r.reward));
            let differences: Vec<f64> = groups.iter().map(|g| mean(g)).collect();
            let error = standard_deviation(&differences) / (differences.len() as f64).sqrt();
            let all =
                |value: fn(&Row) -> f64| -> Vec<f64> { own.iter().map(|r| value(r)).collect() };
            Verdict {
                reward: mean(&all(|r| r.reward)),
                difference: mean(&differences),
                error: if differences.len() > 1 {
                    error
                } else {
                    f64::INFINITY
                },
                diversity: mean(&all(|r| r.diversity)),
                failed: cells.saturating_sub(own.len()),
            }
        })
        .collect();
    let chosen = (1..verdicts.len())
        .filter(|&i| verdicts[i].difference > verdicts[i].error)
        .filter(|&i| verdicts[i].diversity >= DIVERSITY_KEPT * verdicts[0].diversity)
        .filter(|&i| verdicts[i].failed <= verdicts[0].failed)
        .max_by(|&a, &b| verdicts[a].difference.total_cmp(&verdicts[b].difference));
    (verdicts, chosen.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::Usage;
    use crate::compare::{By, FileId};

    fn plan(methods: &[&str]) -> Plan {
        Plan {
            build: Vec::new(),
            cpu: Vec::new(),
            model: FileId {
                name: String::new(),
                sha256: String::new(),
            },
            embedding: None,
            gpu_layers: None,
            files: Vec::new(),
            reward: String::new(),
            reward_details: Vec::new(),
            held_out: None,
            prompts: vec![String::new(); 4],
            system_prompt: None,
            chat: false,
            methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
            seeds: 1,
            budget: 16.0,
            by: By::Candidates,
            samples: 16,
            max_tokens: 8,
            threads: 1,
        }
    }

    fn rows(plan: &Plan, rewards: &[[f64; 4]], diversity: &[f64]) -> Vec<Row> {
        plan.cells()
            .map(|cell| Row {
                prompt: cell.prompt,
                seed: cell.seed,
                method: plan.methods[cell.method].label().to_owned(),
                response: String::new(),
                reward: rewards[cell.method][cell.prompt],
                held_out: None,
                mean_last: None,
                sd_last: 0.0,
                diversity: diversity[cell.method],
                coherence: None,
                surprise: None,
                price: None,
                kl: None,
                iterations: Vec::new(),
                usage: Usage::default(),
                seconds: 0.0,
            })
            .collect()
    }

    #[test]
    fn a_trial_has_to_be_better_for_sure_and_as_diverse() {
        let plan = plan(&["aisp", "aisp:steer=0.5", "aisp:steer=1.5", "aisp:steer=2"]);
        let rewards = [
            [1.0, 2.0, 3.0, 4.0],
            // Better by 0.5 everywhere.
            [1.5, 2.5, 3.5, 4.5],
            // Better by 0.6 ± 1.
            [4.6, 1.6, 2.6, 3.6],
            // Best of all, and repeats itself.
            [5.0, 6.0, 7.0, 8.0],
        ];
        let rows = rows(&plan, &rewards, &[0.8, 0.75, 0.8, 0.5]);
        let (verdicts, chosen) = verdicts(&plan, &rows);
        assert_eq!(chosen, 1);
        assert_eq!((verdicts[1].difference, verdicts[1].error), (0.5, 0.0));
        assert!((verdicts[2].difference - 0.6).abs() < 1e-12);
        assert!((verdicts[2].error - 1.0).abs() < 1e-12);
        assert_eq!(verdicts[3].diversity, 0.5);
    }

    #[test]
    fn trials_are_put_to_the_settings_so_far() {
        let mut incumbent: MethodSpec = "aisp:logit-sd=0.5".parse().unwrap();
        let rule = stages(&incumbent, 1).unwrap().methods(&incumbent).unwrap();
        assert_eq!(rule.len(), 7);
        assert_eq!(rule[0], incumbent);
        assert_eq!(rule[4].all()["logit-sd"], 0.5);
        assert_eq!(rule[4].all()["ess"], 0.125);
        incumbent = rule[4].clone();
        let schedule = stages(&incumbent, 2).unwrap();
        assert!(schedule.trials.iter().all(|t| t.starts_with("alpha")));
        assert_eq!(stages(&incumbent, 3), None);
    }
}
