//! Weights and updates against an independent implementation (`scripts/aisp_fixture.py`).

use super::*;

fn numbers(value: &Value) -> Vec<f64> {
    let number = |v: &Value| match v {
        Value::String(text) => text.parse().expect("nan, inf or -inf"),
        Value::Array(_) => panic!("one dimension too many"),
        other => other.as_f64().expect("a number"),
    };
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect()
}

fn matrix(value: &Value) -> Array2<f64> {
    let rows: Vec<_> = value
        .as_array()
        .expect("rows")
        .iter()
        .map(numbers)
        .collect();
    Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).expect("rows of one width")
}

#[track_caller]
fn assert_close(found: f64, expected: &Value, case: &str) {
    let expected = expected.as_f64().expect("a number");
    assert!(
        (found - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
        "{case}: {found} {expected}"
    );
}

#[test]
fn weights_and_updates_agree_with_numpy() {
    let fixture: Value =
        serde_json::from_str(include_str!("../fixtures/aisp_fixture.json")).unwrap();
    let noise: Vec<Array2<f64>> = fixture["noise"]
        .as_array()
        .unwrap()
        .iter()
        .map(matrix)
        .collect();
    let (horizon, width) = noise[0].dim();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let value = case["rule"][1].as_f64().unwrap();
        let rule = match case["rule"][0].as_str().unwrap() {
            "fixed" => LambdaRule::Fixed(value),
            _ => LambdaRule::Ess(value),
        };
        let expected = &case["expected"];
        let rewards = numbers(&case["rewards"]);
        let found = importance_weights(&rewards, &numbers(&expected["penalties"]), rule);
        for (weight, expected) in found
            .weights()
            .iter()
            .zip(expected["weights"].as_array().unwrap())
        {
            assert_close(*weight, expected, name);
        }

        let mut aisp = controller(WeightedOptions {
            sigma: case["sigma"].as_f64().unwrap(),
            mask_past_end: case["mask"].as_bool().unwrap(),
            ..options(horizon, width, case["alpha"].as_f64().unwrap(), rule)
        });
        aisp.set_mean(matrix(&case["mean"]).mapv(|u| u as f32))
            .unwrap();
        let lengths: Vec<usize> = numbers(&case["lengths"])
            .iter()
            .map(|&l| l as usize)
            .collect();
        let scored = with_lengths(&rewards, &lengths);
        let report = aisp.update_with(&scored, |candidate, position, row| {
            for (out, &epsilon) in row.iter_mut().zip(noise[candidate as usize].row(position)) {
                *out = epsilon as f32;
            }
        });
        assert_eq!(
            report.rejected as u64,
            expected["rejected"].as_u64().unwrap(),
            "{name}"
        );
        assert_close(report.ess, &expected["ess"], name);
        assert_close(report.kl, &expected["kl"], name);
        assert_close(report.u_norm, &expected["u_norm"], name);
        if !expected["lambda"].is_null() {
            assert_close(report.lambda, &expected["lambda"], name);
        }
        let rows = expected["mean"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r.as_array().unwrap());
        for (u, expected) in aisp.mean().iter().zip(rows) {
            assert_close(f64::from(*u), expected, name);
        }
    }
}
