//! Minimises a smooth convex function by the limited-memory BFGS method.
//!
//! Two-loop recursion over the last steps, backtracking until the function falls enough
//! (Armijo). Near the minimum the fall drowns in rounding, but the slope does not: there a step
//! is also taken by its slope (the approximate Wolfe condition).
//!
//! Sources: Nocedal and Wright, *Numerical Optimization*, 2nd edition, algorithms 7.4 and 3.1;
//! Hager and Zhang, *A new conjugate gradient method*, SIAM J. Optim. 16 (2005), equation 4.1.

use std::collections::VecDeque;

/// Steps remembered.
const MEMORY: usize = 10;

/// Halvings of a step before the function counts as flat to machine precision.
const MAX_HALVINGS: usize = 40;

/// Share of the fall that the slope promises which a step must reach.
const SUFFICIENT_FALL: f64 = 1e-4;

/// A rise of the function, relative to its value, that may be rounding.
const ROUNDING: f64 = 1e-12;

/// Where to stop.
#[derive(Clone, Copy)]
pub(in crate::reward) struct Stopping {
    /// Length of the gradient at which to stop.
    pub gradient: f64,
    /// Most steps.
    pub steps: usize,
}

/// A step `s`, the change of the gradient `y` over it, and `1/(s·y)`.
struct Step {
    s: Vec<f64>,
    y: Vec<f64>,
    inverse: f64,
}

/// Moves `x` to a minimum. `function` fills the gradient at its first argument into the second
/// and returns the value; it must be smooth and convex.
pub(in crate::reward) fn minimise(
    x: &mut [f64],
    stopping: Stopping,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
) {
    let mut gradient = vec![0.0; x.len()];
    let mut value = function(x, &mut gradient);
    let mut memory: VecDeque<Step> = VecDeque::new();
    let (mut new_x, mut new_gradient) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for _ in 0..stopping.steps {
        if dot(&gradient, &gradient).sqrt() <= stopping.gradient {
            return;
        }
        let direction = direction(&gradient, &memory);
        let slope = dot(&gradient, &direction);
        // Without a memory the direction is the gradient, whose length says nothing of the step.
        let mut length = match memory.is_empty() {
            true => 1.0 / dot(&gradient, &gradient).sqrt().max(1.0),
            false => 1.0,
        };
        let mut fell = false;
        for _ in 0..MAX_HALVINGS {
            for ((new, x), d) in new_x.iter_mut().zip(x.iter()).zip(&direction) {
                *new = x + length * d;
            }
            let new_value = function(&new_x, &mut new_gradient);
            let falls = new_value <= value + SUFFICIENT_FALL * length * slope;
            let flat = (new_value - value).abs() <= ROUNDING * value.abs();
            let new_slope = dot(&new_gradient, &direction);
            let by_slope = new_slope <= (2.0 * SUFFICIENT_FALL - 1.0) * slope;
            if (flat && by_slope) || (!flat && falls) {
                value = new_value;
                fell = true;
                break;
            }
            length /= 2.0;
        }
        if !fell {
            return;
        }
        let s = difference(&new_x, x);
        let y = difference(&new_gradient, &gradient);
        let curvature = dot(&s, &y);
        if curvature > 1e-14 * dot(&y, &y) {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            let inverse = 1.0 / curvature;
            memory.push_back(Step { s, y, inverse });
        }
        x.copy_from_slice(&new_x);
        gradient.copy_from_slice(&new_gradient);
    }
}

/// The negative gradient times the inverse Hessian that the remembered steps suggest.
fn direction(gradient: &[f64], memory: &VecDeque<Step>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(memory.len());
    for step in memory.iter().rev() {
        let share = step.inverse * dot(&step.s, &q);
        add(&mut q, -share, &step.y);
        shares.push(share);
    }
    if let Some(last) = memory.back() {
        let scale = 1.0 / (last.inverse * dot(&last.y, &last.y));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (step, share) in memory.iter().zip(shares.into_iter().rev()) {
        let other = step.inverse * dot(&step.y, &q);
        add(&mut q, share - other, &step.s);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, of: &[f64]) {
    for (to, of) in to.iter_mut().zip(of) {
        *to += factor * of;
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
