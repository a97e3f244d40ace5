//! Noise is a function of its place alone.

use super::*;

#[test]
fn noise_does_not_depend_on_the_order_of_calls() {
    let keys: Vec<_> = (0..200).map(|i| key(3, i % 3, i / 7, i)).collect();
    let draw = |k: &NoiseKey| (normals(*k, &mut [0.0; 65]).to_vec(), k.uniform());
    let forwards: Vec<_> = keys.iter().map(draw).collect();
    let mut backwards: Vec<_> = keys.iter().rev().map(draw).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    for (key, (row, _)) in keys.iter().zip(&forwards) {
        assert_eq!(
            normals(*key, &mut [0.0; 9]),
            &row[..9],
            "a shorter row is a prefix"
        );
    }
}

#[test]
fn noise_is_standard_normal() {
    let mut all = vec![0.0f32; 1_000_000];
    for (position, row) in all.chunks_mut(500).enumerate() {
        key(1, 0, position as u32 % 16, position as u32 / 16).standard_normal(row);
    }
    let n = all.len() as f64;
    let moment = |p: i32| all.iter().map(|&x| f64::from(x).powi(p)).sum::<f64>() / n;
    // Variances of x, x², x³ and x⁴ are 1, 2, 15 and 96.
    for (power, expected, variance) in
        [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
    {
        let error = (variance / n as f64).sqrt();
        let found = moment(power);
        assert!(
            (found - expected).abs() < 5.0 * error,
            "moment {power} is {found}"
        );
    }
}

#[test]
fn noise_of_neighbouring_keys_is_uncorrelated() {
    const N: usize = 100_000;
    let base = key(5, 2, 3, 4);
    let mut first = vec![0.0; N];
    base.standard_normal(&mut first);
    let neighbours = [
        NoiseKey { seed: 6, ..base },
        NoiseKey {
            seed: 5 + (1 << 32),
            ..base
        },
        NoiseKey {
            iteration: 3,
            ..base
        },
        NoiseKey {
            candidate: 4,
            ..base
        },
        NoiseKey {
            position: 5,
            ..base
        },
        key(5, 3, 2, 4),
        key(5, 2, 4, 3),
        key(2, 5, 3, 4),
    ];
    let bound = 5.0 / (N as f64).sqrt();
    let mut other = vec![0.0; N];
    for neighbour in neighbours {
        neighbour.standard_normal(&mut other);
        for lag in [0, 1] {
            let products = first
                .iter()
                .zip(&other[lag..])
                .map(|(a, b)| f64::from(a * b));
            let correlation = products.sum::<f64>() / N as f64;
            assert!(
                correlation.abs() < bound,
                "{neighbour:?}, lag {lag}: {correlation}"
            );
        }
    }
}

#[test]
fn uniforms_fill_the_unit_interval_independently_of_the_normals() {
    let n = 40_000;
    let keys: Vec<_> = (0..n).map(|i| key(11, 1, i % 8, i / 8)).collect();
    let uniforms: Vec<f64> = keys.iter().map(NoiseKey::uniform).collect();
    assert!(uniforms.iter().all(|u| (0.0..1.0).contains(u)));
    let mut counts = [0.0f64; 20];
    uniforms
        .iter()
        .for_each(|u| counts[(u * 20.0) as usize] += 1.0);
    let expected = f64::from(n) / 20.0;
    let chi2: f64 = counts
        .iter()
        .map(|c| (c - expected).powi(2) / expected)
        .sum();
    assert!(
        chi2 < 19.0 + 5.0 * 38f64.sqrt(),
        "chi² of 20 bins is {chi2}"
    );
    let product = |(k, u): (&NoiseKey, &f64)| f64::from(normals(*k, &mut [0.0])[0]) * (u - 0.5);
    let (mean, error) =
        mean_and_error(&keys.iter().zip(&uniforms).map(product).collect::<Vec<_>>());
    assert!(mean.abs() < 5.0 * error, "covariance {mean} ± {error}");
}

#[test]
fn noise_stays_what_it_was_in_earlier_releases() {
    let mut row = [0.0; 4];
    let found = normals(key(42, 1, 2, 3), &mut row);
    assert_eq!(found, [0.5042904, -0.5006053, 0.8269792, 1.4862279]);
    // Also what ChaCha8 written from its definition gives.
    assert_eq!(key(42, 1, 2, 3).uniform(), 0.4441216823360278);
}

#[test]
fn calibrated_sigma_meets_the_target_over_the_vocabulary() {
    assert!((GUMBEL_SD - std::f64::consts::PI / 6f64.sqrt()).abs() < 1e-15);
    let row_norms = [0.5f64, 2.0, 3.0, 0.25];
    let rms = (row_norms.iter().map(|w| w * w).sum::<f64>() / 4.0).sqrt();
    let sigma = calibrated_sigma(0.8 * GUMBEL_SD, rms);
    let mean_variance = row_norms.iter().map(|w| (sigma * w).powi(2)).sum::<f64>() / 4.0;
    assert!((mean_variance.sqrt() - 0.8 * GUMBEL_SD).abs() < 1e-12);
}
