//! A value network V(z): from the pre-logits of a token to the reward that the response will get.
//!
//! An MLP with ReLU, trained by Adam on
//!
//! ```text
//! Σ_t (V(z_t) − V(z_{t+1}))² + (V(z_T) − r)²,   T the last token of the response
//! ```
//!
//! so that the reward known at the end spreads to the tokens before it. Pre-logits and rewards are
//! standardised inside.
//!
//! Source: Kong et al. 2024 (RE-Control, arXiv 2406.05954), whose published code takes the first
//! token for T.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::adam::Adam;
use super::noise::NoiseKey;

/// A response to learn from.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// Pre-logits of its tokens `[T, d]`.
    pub pre_logits: Array2<f32>,
    /// Its reward.
    pub reward: f64,
}

/// How a value network is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueOptions {
    /// Width of each hidden layer.
    pub hidden: Vec<usize>,
    /// Passes over the lessons.
    pub epochs: usize,
    /// Responses of one step.
    pub batch: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Seed of the first weights and of the order.
    pub seed: u64,
}

/// One layer: x ↦ x·weight + bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `[in, out]`
    pub weight: Array2<f32>,
    /// `[out]`
    pub bias: Array1<f32>,
}

/// The network.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueNetwork {
    /// Its layers; ReLU between them, the last one has one output.
    pub layers: Vec<Layer>,
    /// Mean of the pre-logits `[d]`.
    pub input_mean: Array1<f32>,
    /// Standard deviation of the pre-logits, one for all columns, so that gradients keep their
    /// direction.
    pub input_scale: f32,
    /// Mean of the rewards.
    pub reward_mean: f32,
    /// Standard deviation of the rewards.
    pub reward_scale: f32,
}

impl ValueNetwork {
    /// A network with small random weights, standardised by the lessons.
    ///
    /// # Panics
    /// If there is no lesson with a token.
    #[must_use]
    pub fn new(lessons: &[Lesson], options: &ValueOptions) -> Self {
        let rows: usize = lessons.iter().map(|l| l.pre_logits.nrows()).sum();
        assert!(rows > 0, "lessons with tokens");
        let width = lessons[0].pre_logits.ncols();
        let mut input_mean = Array1::<f32>::zeros(width);
        for lesson in lessons {
            input_mean += &lesson.pre_logits.sum_axis(Axis(0));
        }
        input_mean /= rows as f32;
        let squares: f32 = lessons
            .iter()
            .flat_map(|l| l.pre_logits.rows())
            .map(|z| (&z - &input_mean).mapv(|x| x * x).sum())
            .sum();
        let rewards = lessons.iter().map(|l| l.reward);
        let reward_mean = rewards.clone().sum::<f64>() / lessons.len() as f64;
        let variance = rewards.map(|r| (r - reward_mean).powi(2)).sum::<f64>();
        let deviation = (variance / lessons.len() as f64).sqrt();
        let mut sizes = vec![width];
        sizes.extend(&options.hidden);
        sizes.push(1);
        let layers = sizes.windows(2).enumerate().map(|(index, size)| {
            let mut weight = vec![0.0; size[0] * size[1]];
            let key = key(options.seed, u32::MAX, index);
            key.standard_normal(&mut weight);
            let scale = (2.0 / size[0] as f32).sqrt();
            weight.iter_mut().for_each(|w| *w *= scale);
            Layer {
                weight: Array2::from_shape_vec((size[0], size[1]), weight)
                    .unwrap_or_else(|_| Array2::zeros((size[0], size[1]))),
                bias: Array1::zeros(size[1]),
            }
        });
        Self {
            layers: layers.collect(),
            input_mean,
            input_scale: (squares / (rows * width) as f32)
                .sqrt()
                .max(f32::MIN_POSITIVE),
            reward_mean: reward_mean as f32,
            reward_scale: if deviation > 0.0 {
                deviation as f32
            } else {
                1.0
            },
        }
    }

    /// Width d of the pre-logits.
    #[must_use]
    pub fn width(&self) -> usize {
        self.input_mean.len()
    }

    /// V `[n]`, in reward units, of pre-logits `[n, d]`.
    #[must_use]
    pub fn values(&self, pre_logits: ArrayView2<'_, f32>) -> Array1<f32> {
        let outputs = self.forward(self.standardised(pre_logits));
        outputs[self.layers.len()]
            .column(0)
            .mapv(|v| v * self.reward_scale + self.reward_mean)
    }

    /// ∇V `[n, d]`, in reward units by pre-logit units, at pre-logits `[n, d]`.
    #[must_use]
    pub fn gradients(&self, pre_logits: ArrayView2<'_, f32>) -> Array2<f32> {
        let outputs = self.forward(self.standardised(pre_logits));
        let top = Array1::ones(pre_logits.nrows());
        let mut signal = self.backward(&outputs, top.view(), None);
        signal *= self.reward_scale / self.input_scale;
        signal
    }

    /// The loss of the lessons, a token's share, in standardised reward units; and its gradient
    /// by layer.
    #[must_use]
    pub fn loss(&self, lessons: &[&Lesson]) -> (f64, Vec<Layer>) {
        let zeros = |l: &Layer| Layer {
            weight: Array2::zeros(l.weight.dim()),
            bias: Array1::zeros(l.bias.dim()),
        };
        let mut gradient: Vec<Layer> = self.layers.iter().map(zeros).collect();
        let tokens: usize = lessons.iter().map(|l| l.pre_logits.nrows()).sum();
        let views: Vec<_> = lessons.iter().map(|l| l.pre_logits.view()).collect();
        let Ok(all) = ndarray::concatenate(Axis(0), &views) else {
            return (0.0, gradient);
        };
        let outputs = self.forward(self.standardised(all.view()));
        let values = outputs[self.layers.len()].column(0);
        let mut top = Array1::<f32>::zeros(tokens);
        let mut loss = 0.0;
        let share = 1.0 / tokens.max(1) as f32;
        let mut start = 0;
        for lesson in lessons {
            let end = start + lesson.pre_logits.nrows();
            for t in start..end {
                let next = match t + 1 == end {
                    true => (lesson.reward as f32 - self.reward_mean) / self.reward_scale,
                    false => values[t + 1],
                };
                let error = values[t] - next;
                loss += f64::from(error * error * share);
                top[t] += 2.0 * error * share;
                if t + 1 < end {
                    top[t + 1] -= 2.0 * error * share;
                }
            }
            start = end;
        }
        self.backward(&outputs, top.view(), Some(&mut gradient));
        (loss, gradient)
    }

    /// Trains on the lessons; `goes_on` hears the loss of every step, and says whether another one
    /// is wanted.
    pub fn train(
        &mut self,
        lessons: &[Lesson],
        options: &ValueOptions,
        goes_on: &mut dyn FnMut(f64) -> bool,
    ) {
        let mut adam = self.trainer(options.learning_rate);
        self.train_on(lessons, options, &mut adam, goes_on);
    }

    /// Adam, before its first step.
    #[must_use]
    pub fn trainer(&self, learning_rate: f64) -> Adam {
        let count = |l: &Layer| l.weight.len() + l.bias.len();
        Adam::new(self.layers.iter().map(count).sum(), learning_rate)
    }

    /// [`train`](Self::train) that goes on with a trainer that has been at work; whether it came to
    /// the end of its epochs.
    pub fn train_on(
        &mut self,
        lessons: &[Lesson],
        options: &ValueOptions,
        adam: &mut Adam,
        goes_on: &mut dyn FnMut(f64) -> bool,
    ) -> bool {
        for epoch in 0..options.epochs {
            let mut order: Vec<usize> = (0..lessons.len()).collect();
            let place = |i: usize| key(options.seed, epoch as u32, i).uniform();
            order.sort_by(|&a, &b| place(a).total_cmp(&place(b)));
            for part in order.chunks(options.batch.max(1)) {
                let batch: Vec<&Lesson> = part.iter().map(|&i| &lessons[i]).collect();
                let (loss, gradient) = self.loss(&batch);
                adam.step(self.with_gradient(&gradient));
                if !goes_on(loss) {
                    return false;
                }
            }
        }
        true
    }

    /// Every parameter with its gradient.
    fn with_gradient<'a>(
        &'a mut self,
        gradient: &'a [Layer],
    ) -> impl Iterator<Item = (&'a mut f32, f32)> {
        let layers = self.layers.iter_mut().zip(gradient);
        layers.flat_map(|(layer, gradient)| {
            let weights = layer.weight.iter_mut().zip(&gradient.weight);
            let biases = layer.bias.iter_mut().zip(&gradient.bias);
            weights.chain(biases).map(|(x, &g)| (x, g))
        })
    }

    fn standardised(&self, pre_logits: ArrayView2<'_, f32>) -> Array2<f32> {
        (&pre_logits - &self.input_mean) / self.input_scale
    }

    /// The input and the output of every layer, ReLU applied to all but the last.
    fn forward(&self, input: Array2<f32>) -> Vec<Array2<f32>> {
        let mut outputs = vec![input];
        for (index, layer) in self.layers.iter().enumerate() {
            let mut out = outputs[index].dot(&layer.weight) + &layer.bias;
            if index + 1 < self.layers.len() {
                out.mapv_inplace(|x| x.max(0.0));
            }
            outputs.push(out);
        }
        outputs
    }

    /// From the gradient at the output `[n]` to that at the standardised input `[n, d]`, adding
    /// that of the layers where it is wanted.
    fn backward(
        &self,
        outputs: &[Array2<f32>],
        top: ArrayView1<'_, f32>,
        mut gradient: Option<&mut Vec<Layer>>,
    ) -> Array2<f32> {
        let mut signal = top.to_owned().insert_axis(Axis(1));
        for (index, layer) in self.layers.iter().enumerate().rev() {
            if index + 1 < self.layers.len() {
                signal.zip_mut_with(&outputs[index + 1], |s, &out| {
                    if out <= 0.0 {
                        *s = 0.0;
                    }
                });
            }
            if let Some(gradient) = &mut gradient {
                gradient[index].weight += &outputs[index].t().dot(&signal);
                gradient[index].bias += &signal.sum_axis(Axis(0));
            }
            signal = signal.dot(&layer.weight.t());
        }
        signal
    }
}

fn key(seed: u64, iteration: u32, place: usize) -> NoiseKey {
    NoiseKey {
        seed,
        iteration,
        candidate: place as u32,
        position: u32::MAX,
    }
}

/// Mean squared errors on lessons, in squared reward units.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ValueErrors {
    /// Of V(z_T), at the last token.
    pub last: f64,
    /// Of V(z_t) over all tokens.
    pub all: f64,
    /// Of the constant: the mean reward of the lessons that the network was trained on.
    pub constant: f64,
}

impl ValueErrors {
    /// Those of `network`.
    #[must_use]
    pub fn of(network: &ValueNetwork, lessons: &[Lesson]) -> Self {
        let mut errors = Self {
            last: 0.0,
            all: 0.0,
            constant: 0.0,
        };
        for lesson in lessons.iter().filter(|l| l.pre_logits.nrows() > 0) {
            let values = network.values(lesson.pre_logits.slice(s![.., ..]));
            let squares = values.mapv(|v| (f64::from(v) - lesson.reward).powi(2));
            errors.last += squares[squares.len() - 1];
            errors.all += squares.sum() / squares.len() as f64;
            errors.constant += (f64::from(network.reward_mean) - lesson.reward).powi(2);
        }
        let count = lessons.len().max(1) as f64;
        Self {
            last: errors.last / count,
            all: errors.all / count,
            constant: errors.constant / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ValueOptions {
        ValueOptions {
            hidden: vec![6, 5],
            epochs: 200,
            batch: 4,
            learning_rate: 3e-3,
            seed: 2,
        }
    }

    /// Responses whose reward is a bent function of a column that all their tokens share.
    fn lessons(count: usize) -> Vec<Lesson> {
        let lesson = |i: usize| {
            let tokens = 2 + i % 3;
            let mut values = vec![0.0; tokens * 4];
            key(9, 0, i).standard_normal(&mut values);
            let mut pre_logits = Array2::from_shape_vec((tokens, 4), values).unwrap();
            let shared = pre_logits[(0, 1)];
            pre_logits.column_mut(1).fill(shared);
            Lesson {
                pre_logits,
                reward: f64::from(3.0 + 2.0 * shared.abs()),
            }
        };
        (0..count).map(lesson).collect()
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let lessons = lessons(5);
        let all: Vec<&Lesson> = lessons.iter().collect();
        let network = ValueNetwork::new(&lessons, &options());
        let (_, gradient) = network.loss(&all);
        let step = 1e-2_f32;
        for (layer, slopes) in gradient.iter().enumerate() {
            for entry in 0..4 {
                let shape = network.layers[layer].weight.dim();
                let (i, j) = (entry % shape.0, (entry * 3) % shape.1);
                let moved = |by: f32| {
                    let mut network = network.clone();
                    network.layers[layer].weight[(i, j)] += by;
                    network.loss(&all).0
                };
                let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                let exact = f64::from(slopes.weight[(i, j)]);
                assert!(
                    (slope - exact).abs() < 0.02 * (exact.abs() + 0.05),
                    "{slope} {exact}"
                );
            }
        }
        let z = lessons[0].pre_logits.view();
        let exact = network.gradients(z);
        for column in 0..4 {
            let moved = |by: f32| {
                let mut z = z.to_owned();
                z[(0, column)] += by;
                network.values(z.view())[0]
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let exact = exact[(0, column)];
            assert!(
                (slope - exact).abs() < 0.02 * (exact.abs() + 0.2),
                "{slope} {exact}"
            );
        }
    }

    #[test]
    fn training_ends_when_nobody_wants_another_step() {
        let all = lessons(8);
        let mut network = ValueNetwork::new(&all, &options());
        let mut left = 3;
        let mut adam = network.trainer(1e-3);
        let ended = network.train_on(&all, &options(), &mut adam, &mut |_| {
            left -= 1;
            left > 0
        });
        assert_eq!((ended, left), (false, 0));
    }

    #[test]
    fn training_beats_the_constant_on_lessons_it_has_not_seen() {
        let all = lessons(120);
        let (seen, unseen) = all.split_at(90);
        let mut network = ValueNetwork::new(seen, &options());
        let mut losses = Vec::new();
        let mut keep = |loss| {
            losses.push(loss);
            true
        };
        network.train(seen, &options(), &mut keep);
        let epoch = losses.len() / 200;
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / epoch as f64;
        let (first, last) = (mean(&losses[..epoch]), mean(&losses[199 * epoch..]));
        assert!(last < 0.3 * first, "{first} {last}");
        let errors = ValueErrors::of(&network, unseen);
        assert!(errors.last < 0.3 * errors.constant, "{errors:?}");
    }
}
