//! Adam, which trains the value network.
//!
//! Source: Kingma & Ba 2015.

/// Adam with its usual β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸, in the middle of a training.
#[derive(Clone, Debug)]
pub struct Adam {
    rate: f32,
    steps: i32,
    /// First and second moment of every parameter.
    moments: Vec<(f32, f32)>,
}

impl Adam {
    /// For `count` parameters, before the first step.
    pub(super) fn new(count: usize, rate: f64) -> Self {
        Self {
            rate: rate as f32,
            steps: 0,
            moments: vec![(0.0, 0.0); count],
        }
    }

    /// One step, from all parameters with their gradients, in the same order every time.
    pub(super) fn step<'a>(&mut self, parameters: impl Iterator<Item = (&'a mut f32, f32)>) {
        self.steps += 1;
        let correct = |beta: f64| (1.0 - beta.powi(self.steps)) as f32;
        let (one, two) = (correct(0.9), correct(0.999));
        for ((x, g), (m, v)) in parameters.zip(&mut self.moments) {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            *x -= self.rate * (*m / one) / ((*v / two).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_down_a_bowl_at_its_rate() {
        // The gradient of (x − 3)²: the first step has the length of the rate.
        let mut x = 0.0;
        let mut adam = Adam::new(1, 0.1);
        for step in 0..400 {
            let gradient = 2.0 * (x - 3.0);
            adam.step(std::iter::once((&mut x, gradient)));
            if step == 0 {
                assert!((x - 0.1_f32).abs() < 1e-4);
            }
        }
        assert!((x - 3.0).abs() < 1e-2);
    }
}
