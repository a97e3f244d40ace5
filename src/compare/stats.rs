//! Means, and how sure they are.

use crate::control::NoiseKey;

/// Resamples of a bootstrap.
const RESAMPLES: u32 = 10_000;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// 2.5 % of the resampled means are below.
    pub low: f64,
    /// 2.5 % of the resampled means are above.
    pub high: f64,
}

/// Mean; NaN for no values.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation; 0 for fewer than two values.
#[must_use]
pub fn standard_deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Percentile bootstrap of the mean difference, `groups` being the paired differences of one
/// prompt each. Whole prompts are resampled, as the seeds of one prompt are no independent
/// prompts. The resamples are the same every time. `None` for fewer than two prompts.
#[must_use]
pub fn paired_bootstrap(groups: &[Vec<f64>]) -> Option<Interval> {
    let groups: Vec<(f64, f64)> = groups
        .iter()
        .filter(|g| !g.is_empty())
        .map(|g| (g.iter().sum(), g.len() as f64))
        .collect();
    // One prompt says nothing about others.
    if groups.len() < 2 {
        return None;
    }
    let average = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        let (sum, count) = pairs.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        sum / count
    };
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            average(&mut (0..groups.len()).map(|draw| {
                let key = NoiseKey {
                    seed: 0,
                    iteration: 0,
                    candidate: resample,
                    position: draw as u32,
                };
                groups[(key.uniform() * groups.len() as f64) as usize]
            }))
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((share * f64::from(RESAMPLES)) as usize).min(means.len() - 1)];
    Some(Interval {
        mean: average(&mut groups.iter().copied()),
        low: at(0.025),
        high: at(0.975),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_has_the_width_of_the_normal_one() {
        let groups: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i % 10)]).collect();
        let interval = paired_bootstrap(&groups).unwrap();
        let values: Vec<f64> = groups.concat();
        let error = standard_deviation(&values) / 10.0;
        assert_eq!(interval.mean, 4.5);
        assert!((interval.low - (4.5 - 1.96 * error)).abs() < 0.1 * error);
        assert!((interval.high - (4.5 + 1.96 * error)).abs() < 0.1 * error);
    }

    #[test]
    fn seeds_of_one_prompt_are_one_group() {
        // Ten seeds of each of two prompts say no more than two prompts do.
        let few = paired_bootstrap(&[vec![0.0], vec![1.0]]).unwrap();
        let many = paired_bootstrap(&[vec![0.0; 10], vec![1.0; 10]]).unwrap();
        assert_eq!(few, many);
        assert_eq!((few.low, few.high), (0.0, 1.0));
        assert_eq!(paired_bootstrap(&[vec![]]), None);
        assert_eq!(paired_bootstrap(&[vec![0.4, 0.5], vec![]]), None);
    }
}
