//! Whether groups look like Gaussians of one covariance.

use aisp_llama::ndarray::{Array2, ArrayView2, Axis, s};
use aisp_llama::report::chart::{Panel, RGBColor};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::groups::Groups;
use crate::linear::{chi_squared, eigen, quantile, ranges, sorted};
use crate::{GREY, SHUFFLES, line};

const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// What the groups look like, S being I.
pub struct Shape {
    /// Squared distances from the own mean, sorted.
    distances: Vec<f64>,
    covariances: Covariances,
    /// The same with the residuals dealt to other groups.
    shuffled: Vec<Covariances>,
    /// And both with normal numbers in their place.
    normal_distances: Vec<f64>,
    normal: Covariances,
}

/// Squared distances from the own mean under S, sorted.
fn distances(groups: &Groups) -> Vec<f64> {
    let x = groups.whitened();
    let own = ranges(&groups.sizes).flat_map(|range| {
        // A mean of n values is nearer to each of them than the true one.
        let n = range.len() as f64;
        let x = &x;
        range.map(move |i| x.row(i).dot(&x.row(i)) * n / (n - 1.0))
    });
    sorted(own.collect())
}

/// Covariances of groups, S being I.
struct Covariances {
    /// Root mean square of log λ over the eigenvalues λ, of each group, sorted.
    distances: Vec<f64>,
    /// Mean of λ, of each group, sorted.
    scales: Vec<f64>,
    /// Box's M.
    box_m: f64,
}

impl Covariances {
    fn of(x: ArrayView2<'_, f64>, sizes: &[usize]) -> Self {
        let groups = Groups::new(x.to_owned(), sizes);
        let x = groups.whitened();
        let (mut distances, mut scales, mut box_m) = (Vec::new(), Vec::new(), 0.0);
        for range in ranges(sizes) {
            let degrees = (range.len() - 1) as f64;
            let own = x.slice(s![range, ..]);
            let (values, _) = eigen(&(own.t().dot(&own) / degrees));
            let logs = values.mapv(f64::ln);
            distances.push((&logs * &logs).mean().unwrap_or_default().sqrt());
            scales.push(values.mean().unwrap_or_default());
            box_m -= degrees * logs.sum();
        }
        Self {
            distances: sorted(distances),
            scales: sorted(scales),
            box_m,
        }
    }
}

impl Shape {
    pub fn of(groups: &Groups, k: usize, rng: &mut ChaCha8Rng) -> Self {
        let x = groups.whitened();
        let sizes = &groups.sizes;
        let mut order: Vec<usize> = (0..x.nrows()).collect();
        let shuffled = (0..SHUFFLES)
            .map(|_| {
                order.shuffle(rng);
                Covariances::of(x.select(Axis(0), &order).view(), sizes)
            })
            .collect();
        let normal = Array2::from_shape_simple_fn((x.nrows(), k), || rng.sample(StandardNormal));
        Self {
            distances: distances(groups),
            covariances: Covariances::of(x.view(), sizes),
            shuffled,
            normal_distances: distances(&Groups::new(normal.clone(), sizes)),
            normal: Covariances::of(normal.view(), sizes),
        }
    }

    pub fn print(&self, k: usize) {
        println!(
            "| squared distance from the group's mean | {} |",
            QUANTILES.map(|p| format!("{:.0} %", 100.0 * p)).join(" | ")
        );
        println!("|---|{}", "---|".repeat(QUANTILES.len()));
        let normal = QUANTILES.map(|p| format!("{:.1}", quantile(&self.normal_distances, p)));
        let found = QUANTILES.map(|p| format!("{:.1}", quantile(&self.distances, p)));
        let expected = QUANTILES.map(|p| format!("{:.1}", chi_squared(k, p)));
        println!("| pre-logits | {} |", found.join(" | "));
        println!("| normal numbers | {} |", normal.join(" | "));
        println!("| χ² of {k} | {} |\n", expected.join(" | "));
        println!(
            "| a group's covariance by S | distance, median | largest | scale, smallest | largest | Box's M |\n|---|---|---|---|---|---|"
        );
        for (name, all) in [
            ("pre-logits", std::slice::from_ref(&self.covariances)),
            ("dealt to other groups, mean", &self.shuffled),
            ("normal numbers", std::slice::from_ref(&self.normal)),
        ] {
            let mean = |value: fn(&Covariances) -> f64| {
                all.iter().map(value).sum::<f64>() / all.len() as f64
            };
            println!(
                "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
                mean(|c| quantile(&c.distances, 0.5)),
                mean(|c| quantile(&c.distances, 1.0)),
                mean(|c| quantile(&c.scales, 0.0)),
                mean(|c| quantile(&c.scales, 1.0)),
                mean(|c| c.box_m)
            );
        }
        let as_far = self
            .shuffled
            .iter()
            .filter(|s| s.box_m >= self.covariances.box_m)
            .count();
        println!("\nOf {SHUFFLES} deals, {as_far} have Box's M at least as large.\n");
    }

    pub fn plot(&self, name: &str, color: RGBColor, k: usize, panels: &mut [Panel]) {
        let quantiles = |of: &dyn Fn(f64) -> f64| {
            let ps = (1..100).map(|i| f64::from(i) / 100.0);
            ps.map(|p| (chi_squared(k, p), of(p))).collect()
        };
        if panels[0].series.is_empty() {
            let same = quantiles(&|p| chi_squared(k, p));
            panels[0]
                .series
                .push(line("Gaussians of one covariance".into(), GREY, same));
        }
        let found = quantiles(&|p| quantile(&self.distances, p));
        panels[0].series.push(line(name.into(), color, found));
        for (color, distances) in [
            (GREY, &self.shuffled[0].distances),
            (color, &self.covariances.distances),
        ] {
            let points = distances.iter().enumerate();
            let points = points.map(|(i, &d)| ((i + 1) as f64, d));
            panels[1]
                .series
                .push(line(String::new(), color, points.collect()));
        }
    }
}
