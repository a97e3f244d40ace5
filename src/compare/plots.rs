//! The plots of a comparison.

use std::path::Path;

use plotters::style::RGBColor;

use super::rows::{Checkpoint, Row};
use super::{Plan, mean};
use crate::error::Result;
use crate::report::chart::{Panel, Series, draw};
use crate::save::save;

const BOUND: RGBColor = RGBColor(0x88, 0x88, 0x88);

const COLORS: [RGBColor; 8] = [
    RGBColor(0x2f, 0x8f, 0x4e),
    RGBColor(0x4c, 0x78, 0xa8),
    RGBColor(0xf5, 0x85, 0x18),
    RGBColor(0xb2, 0x79, 0xa2),
    RGBColor(0xe4, 0x57, 0x56),
    RGBColor(0x72, 0x6a, 0x5f),
    RGBColor(0x1b, 0x9e, 0xb3),
    RGBColor(0xc9, 0xa2, 0x27),
];

/// Draws into `folder`: `reward-samples.svg`, `reward-tokens.svg`, `reward-seconds.svg` and
/// `reward-price.svg` (best reward against what it cost), `iterations.svg` (mean and best by iteration).
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) when a file cannot be written, [`Error::Run`](crate::Error::Run) when a
/// drawing fails.
pub fn write_plots(plan: &Plan, rows: &[Row], folder: &Path) -> Result<()> {
    let best = |c: &Checkpoint| c.best;
    let average = |c: &Checkpoint| c.mean;
    let panel = |x_name, y_name, x: &X, y: &Y, names: bool, limit: Option<(f64, f64)>| {
        let series = plan.methods.iter().enumerate();
        Panel {
            x_name,
            y_name,
            x_range: limit,
            y_range: None,
            series: series
                .map(|(i, method)| {
                    // The curve of a method that draws its answer would be that of the best.
                    let drawn = method.settings().draws_its_answer();
                    let own = rows.iter().filter(|r| r.method == method.label() && !drawn);
                    let own: Vec<&Row> = own.collect();
                    let points = curve(&own, x, y);
                    Series {
                        name: if names {
                            method.label().to_owned()
                        } else {
                            String::new()
                        },
                        color: COLORS[i % COLORS.len()],
                        width: if points.len() > 1 { 2 } else { 0 },
                        points,
                    }
                })
                .collect(),
        }
    };
    let samples = |_: usize, c: &Checkpoint| Some(c.spent as f64);
    let tokens = |_: usize, c: &Checkpoint| Some(c.tokens as f64);
    let seconds = |_: usize, c: &Checkpoint| Some(c.seconds);
    let iteration = |i: usize, _: &Checkpoint| Some((i + 1) as f64);
    let title = format!("{} prompts × {} seeds", plan.prompts.len(), plan.seeds);
    let drawings: [(&str, Vec<Panel>); 5] = [
        (
            "reward-samples.svg",
            vec![panel("samples", "best reward", &samples, &best, true, None)],
        ),
        (
            "reward-tokens.svg",
            vec![panel("tokens", "best reward", &tokens, &best, true, None)],
        ),
        (
            "reward-seconds.svg",
            vec![panel("seconds", "best reward", &seconds, &best, true, None)],
        ),
        ("reward-price.svg", vec![price(plan, rows)]),
        (
            "iterations.svg",
            vec![
                panel("iteration", "best reward", &iteration, &best, true, None),
                panel(
                    "iteration",
                    "mean reward",
                    &iteration,
                    &average,
                    false,
                    None,
                ),
            ],
        ),
    ];
    for (name, panels) in drawings {
        let path = folder.join(name);
        if panels
            .iter()
            .all(|p| p.series.iter().all(|s| s.points.is_empty()))
        {
            continue;
        }
        save(&path, draw(&title, &panels)?)?;
    }
    Ok(())
}

type X = dyn Fn(usize, &Checkpoint) -> Option<f64>;
type Y = dyn Fn(&Checkpoint) -> Option<f64>;

/// Means over the rows, iteration by iteration, as far as all rows reach.
fn curve(rows: &[&Row], x: &X, y: &Y) -> Vec<(f64, f64)> {
    let shared = rows.iter().map(|r| r.iterations.len()).min().unwrap_or(0);
    let point = |i: usize| {
        let at = |r: &&Row| Some((x(i, &r.iterations[i])?, y(&r.iterations[i])?));
        let (xs, ys): (Vec<f64>, Vec<f64>) = rows.iter().filter_map(at).unzip();
        // A mean over some of the rows would be one of other prompts than the point before it.
        (xs.len() == rows.len()).then(|| (mean(&xs), mean(&ys)))
    };
    (0..shared).filter_map(point).collect()
}

/// Best reward against the price of the answer, iteration by iteration, and beside it what the best
/// of n of the first method's samples can cost at most: log n − (n−1)/n nats more than a sample, where
/// those are drawn.
fn price(plan: &Plan, rows: &[Row]) -> Panel {
    let of = |name: &str| -> Vec<&Row> { rows.iter().filter(|r| r.method == name).collect() };
    let mut series: Vec<Series> = plan
        .methods
        .iter()
        .enumerate()
        .map(|(i, method)| {
            let own = of(method.label());
            let at = |i: usize| {
                let point = |r: &&Row| Some((r.iterations[i].best_price?, r.iterations[i].best?));
                let (xs, ys): (Vec<f64>, Vec<f64>) = own.iter().filter_map(point).unzip();
                (xs.len() == own.len()).then(|| (mean(&xs), mean(&ys)))
            };
            let shared = own.iter().map(|r| r.iterations.len()).min().unwrap_or(0);
            let points: Vec<(f64, f64)> = (0..shared).filter_map(at).collect();
            Series {
                name: method.label().to_owned(),
                color: COLORS[i % COLORS.len()],
                width: if points.len() > 1 { 2 } else { 0 },
                points,
            }
        })
        .collect();
    let first = of(plan.methods[0].label());
    let draws = plan.methods[0].entry().name == "best-of-n";
    let shared = first.iter().map(|r| r.iterations.len()).min().unwrap_or(0);
    let bound = |i: usize| {
        let point = |r: &&Row| {
            let n = r.iterations[i].samples.max(1) as f64;
            let length = r.iterations[i].tokens as f64 / n;
            let own = r.iterations[0].mean_price?;
            Some((
                own + (n.ln() - (n - 1.0) / n) / length,
                r.iterations[i].best?,
            ))
        };
        let (xs, ys): (Vec<f64>, Vec<f64>) = first.iter().filter_map(point).unzip();
        (xs.len() == first.len()).then(|| (mean(&xs), mean(&ys)))
    };
    if draws && shared > 0 {
        series.push(Series {
            name: "the same, at its bound".into(),
            color: BOUND,
            width: 1,
            points: (0..shared).filter_map(bound).collect(),
        });
    }
    Panel {
        x_name: "price of the answer, nats a token",
        y_name: "best reward",
        x_range: None,
        y_range: None,
        series,
    }
}
