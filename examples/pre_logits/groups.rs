//! Groups as Gaussians of one covariance, and the head that follows from them.

use aisp_llama::ndarray::{Array2, Axis, s};
use aisp_llama::report::chart::{Panel, RGBColor};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::linear::{cholesky, eigen, quantile, ranges, solve, sorted};
use crate::{GREY, SHUFFLES, line};

/// Vectors in groups, one group after the other.
pub struct Groups {
    pub sizes: Vec<usize>,
    /// As columns [k, groups].
    means: Array2<f64>,
    /// y without its group's mean.
    residuals: Array2<f64>,
    /// S [k, k], pooled over the groups.
    pooled: Array2<f64>,
}

impl Groups {
    pub fn new(y: Array2<f64>, sizes: &[usize]) -> Self {
        let mut means = Array2::zeros((y.ncols(), sizes.len()));
        let mut residuals = y;
        for (g, range) in ranges(sizes).enumerate() {
            let mut own = residuals.slice_mut(s![range, ..]);
            let mean = own.mean_axis(Axis(0)).unwrap_or_default();
            own -= &mean;
            means.column_mut(g).assign(&mean);
        }
        let pooled = residuals.t().dot(&residuals) / (residuals.nrows() - sizes.len()) as f64;
        Self {
            sizes: sizes.to_vec(),
            means,
            residuals,
            pooled,
        }
    }

    /// Residuals by S^-½: the pooled covariance becomes I.
    pub fn whitened(&self) -> Array2<f64> {
        let (values, vectors) = eigen(&self.pooled);
        self.residuals.dot(&(vectors / values.mapv(f64::sqrt)))
    }

    /// Of every two tokens, how S⁻¹(m_a − m_b) agrees with W_a − W_b.
    pub fn directions(&self, head: &Array2<f64>, rng: &mut ChaCha8Rng) -> Directions {
        let mut names: Vec<usize> = (0..self.sizes.len()).collect();
        let lda = solve(&self.pooled, &self.means);
        let (correlations, cosines) = self.agreement(&lda, head, &names);
        let mut shuffled = Vec::new();
        for _ in 0..SHUFFLES {
            names.shuffle(rng);
            shuffled.extend(self.agreement(&lda, head, &names).0);
        }
        names.sort_unstable();
        let anew = self.drawn_anew(rng);
        let (ceiling, _) = anew.agreement(&solve(&anew.pooled, &anew.means), &lda, &names);
        Directions {
            correlations: sorted(correlations),
            shuffled: sorted(shuffled),
            ceiling: sorted(ceiling),
            cosines: sorted(cosines),
        }
    }

    /// As many normal numbers with the means and the covariance of these groups.
    fn drawn_anew(&self, rng: &mut ChaCha8Rng) -> Self {
        let factor = cholesky(&self.pooled);
        let shape = self.residuals.raw_dim();
        let normal = Array2::from_shape_simple_fn(shape, || rng.sample(StandardNormal));
        let mut y = normal.dot(&factor.t());
        for (g, range) in ranges(&self.sizes).enumerate() {
            let mut own = y.slice_mut(s![range, ..]);
            own += &self.means.column(g);
        }
        Self::new(y, &self.sizes)
    }

    /// Of every two groups a and b: the difference of their columns of `lda`, S⁻¹m, and that of the
    /// columns of `head` that `names` gives them; the correlation of the scores that these two
    /// directions give to positions, within groups, and the cosine.
    fn agreement(
        &self,
        lda: &Array2<f64>,
        head: &Array2<f64>,
        names: &[usize],
    ) -> (Vec<f64>, Vec<f64>) {
        let head = head.select(Axis(1), names);
        let within = self.pooled.dot(&head);
        let of = |x: &Array2<f64>, y: &Array2<f64>| {
            let products = x.t().dot(y);
            move |a, b| products[[a, a]] - products[[a, b]] - products[[b, a]] + products[[b, b]]
        };
        let (joint, own, spread) = (
            of(&self.means, &head),
            of(lda, &self.means),
            of(&head, &within),
        );
        let (dot, left, right) = (of(lda, &head), of(lda, lda), of(&head, &head));
        (0..names.len())
            .flat_map(|a| (a + 1..names.len()).map(move |b| (a, b)))
            .map(|(a, b)| {
                let correlation = joint(a, b) / (own(a, b) * spread(a, b)).sqrt();
                (correlation, dot(a, b) / (left(a, b) * right(a, b)).sqrt())
            })
            .unzip()
    }
}

/// Sorted, over all pairs of tokens.
pub struct Directions {
    /// Of the two scores of a position, within groups.
    correlations: Vec<f64>,
    /// The same with the rows of W given to other tokens.
    shuffled: Vec<f64>,
    /// The same of normal numbers with these means and S, and the head that follows from those.
    ceiling: Vec<f64>,
    cosines: Vec<f64>,
}

impl Directions {
    pub fn print(&self) {
        println!("| S⁻¹(m_a − m_b) and W_a − W_b | 5 % | 50 % | 95 % |\n|---|---|---|---|");
        for (name, values) in [
            ("correlation of the scores", &self.correlations),
            ("the same, W's rows shuffled", &self.shuffled),
            ("the same, Gaussians of the same means and S", &self.ceiling),
            ("cosine", &self.cosines),
        ] {
            let [low, middle, high] = [0.05, 0.5, 0.95].map(|p| quantile(values, p));
            println!("| {name} | {low:.2} | {middle:.2} | {high:.2} |");
        }
        println!();
    }

    pub fn plot(&self, color: RGBColor, panels: &mut [Panel]) {
        for (color, values) in [(GREY, &self.shuffled), (color, &self.correlations)] {
            let points = (0..=50).map(|i| f64::from(i) / 50.0);
            let points = points.map(|p| (p, quantile(values, p)));
            panels[2]
                .series
                .push(line(String::new(), color, points.collect()));
        }
    }
}
