use super::*;

#[test]
fn advantages_leave_one_out() {
    assert_eq!(advantages(&[1.0, 2.0, 6.0]), [-3.0, -1.5, 4.5]);
    assert_eq!(advantages(&[5.0]), [0.0]);
    assert!(advantages(&[0.3, 0.7, -2.0]).iter().sum::<f64>().abs() < 1e-12);
}

impl Matrix for Array2<f32> {
    fn shape(&self) -> (usize, usize) {
        self.dim()
    }

    fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        Ok(x.dot(&self.t()))
    }

    fn transposed(&self, p: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        Ok(p.dot(self))
    }
}

const WIDTH: usize = 3;
const HORIZON: usize = 2;

fn matrix() -> Array2<f32> {
    Array2::from_shape_fn((5, WIDTH), |(i, j)| ((i * 3 + j) as f32 * 1.7).sin())
}

fn misvo(settings: &MisvoSettings) -> Misvo {
    let rounds = Rounds {
        max_tokens: HORIZON,
        ..Rounds::default()
    };
    Misvo::new(Arc::new(matrix()), settings, &rounds)
}

/// Three responses, the second of one token, the last without a usable reward.
fn outcomes(z: &Array2<f32>) -> [Outcome<'_>; 4] {
    let z = z.as_slice().unwrap();
    let outcome = |candidate, reward, tokens, row: usize| Outcome {
        candidate,
        reward,
        tokens,
        nats: &[],
        pre_logits: &z[row * WIDTH..(row + tokens.len()) * WIDTH],
    };
    [
        outcome(0, 1.0, &[4, 0], 0),
        outcome(1, 2.5, &[2], 2),
        outcome(2, -0.5, &[1, 3], 3),
        outcome(3, f64::NAN, &[1, 1], 5),
    ]
}

fn pre_logits() -> Array2<f32> {
    Array2::from_shape_fn((7, WIDTH), |(i, j)| ((i * 5 + j * 2) as f32 * 0.9).cos())
}

/// Position t of response i: z, token and advantage, by the formulas alone.
fn places(z: &Array2<f32>) -> Vec<(usize, Array1<f32>, usize, f32)> {
    let a = [0.0, 2.25, -2.25];
    [
        (0, 0, 4, a[0]),
        (1, 1, 0, a[0]),
        (0, 2, 2, a[1]),
        (0, 3, 1, a[2]),
        (1, 4, 3, a[2]),
    ]
    .into_iter()
    .map(|(t, row, token, a)| (t, z.row(row).to_owned(), token, a))
    .collect()
}

fn probabilities(w: &Array2<f32>, x: &Array1<f32>) -> Array1<f32> {
    let mut p = w.dot(x);
    softmax(p.as_slice_mut());
    p
}

#[test]
fn two_updates_follow_the_formulas() {
    let (step, lambda) = (0.3_f32, 0.7_f32);
    let mut method = misvo(&MisvoSettings {
        step: f64::from(step),
        lambda: f64::from(lambda),
        ..MisvoSettings::default()
    });
    let (w, z) = (matrix(), pre_logits());
    let mut u = Array2::<f32>::zeros((HORIZON, WIDTH));
    for _ in 0..2 {
        method.observe(&outcomes(&z)).unwrap();
        let mut next = u.clone();
        for (t, z, token, advantage) in places(&z) {
            let mut score = -probabilities(&w, &(&z + &u.row(t)));
            score[token] += 1.0;
            let g = w.t().dot(&score) * (advantage / 3.0);
            // The metric is that of the unsteered rollouts.
            let p = probabilities(&w, &z);
            let v = w.dot(&u.row(t));
            let f = w.t().dot(&(&p * &v - &p * p.dot(&v))) / 3.0;
            next.row_mut(t).scaled_add(step, &(g - f * lambda));
        }
        u = next;
        let apart = (&*method.mean - &u).mapv(f32::abs).sum();
        assert!(apart < 1e-5, "{apart}: {:?} {u:?}", method.mean);
    }
    assert!(
        u.iter().all(|u| u.abs() > 1e-3),
        "nothing was tested: {u:?}"
    );
}

#[test]
fn an_absurd_reward_leaves_the_mean_where_it_was() {
    let z = pre_logits();
    let mut all = outcomes(&z);
    all[0].reward = -1e300;
    let mut method = misvo(&MisvoSettings::default());
    method.observe(&all).unwrap();
    assert!(method.mean.iter().all(|u| *u == 0.0));
}

#[test]
fn a_step_is_given_up_when_the_run_is_to_stop() {
    let z = pre_logits();
    let mut method = misvo(&MisvoSettings::default());
    let stop = Stop::new();
    method.stops_with(&stop);
    method.observe(&outcomes(&z)).unwrap();
    let before = Arc::clone(&method.mean);
    assert!(before.iter().any(|u| *u != 0.0));
    stop.request();
    method.observe(&outcomes(&z)).unwrap();
    assert_eq!(method.mean, before);
}
