//! Adam, which trains the value network.
//!
//! Source: Kingma & Ba 2015.

use ndarray::{Array1, Array2};

use super::value::{Layer, ValueNetwork};

/// Adam with its usual β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸, in the middle of a training.
#[derive(Clone, Debug)]
pub struct Adam {
    rate: f64,
    steps: i32,
    first: Vec<Layer>,
    second: Vec<Layer>,
}

impl Adam {
    pub(super) fn new(network: &ValueNetwork, rate: f64) -> Self {
        let zeros = |l: &Layer| Layer {
            weight: Array2::zeros(l.weight.dim()),
            bias: Array1::zeros(l.bias.dim()),
        };
        let moments: Vec<Layer> = network.layers.iter().map(zeros).collect();
        Self {
            rate,
            steps: 0,
            first: moments.clone(),
            second: moments,
        }
    }

    pub(super) fn step(&mut self, network: &mut ValueNetwork, gradient: &[Layer]) {
        self.steps += 1;
        let correct = |beta: f64| (1.0 - beta.powi(self.steps)) as f32;
        let (one, two) = (correct(0.9), correct(0.999));
        let rate = self.rate as f32;
        let update = |x: &mut f32, m: &mut f32, v: &mut f32, g: f32| {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            *x -= rate * (*m / one) / ((*v / two).sqrt() + 1e-8);
        };
        for (index, layer) in network.layers.iter_mut().enumerate() {
            let (first, second) = (&mut self.first[index], &mut self.second[index]);
            ndarray::Zip::from(&mut layer.weight)
                .and(&mut first.weight)
                .and(&mut second.weight)
                .and(&gradient[index].weight)
                .for_each(|x, m, v, &g| update(x, m, v, g));
            ndarray::Zip::from(&mut layer.bias)
                .and(&mut first.bias)
                .and(&mut second.bias)
                .and(&gradient[index].bias)
                .for_each(|x, m, v, &g| update(x, m, v, g));
        }
    }
}
