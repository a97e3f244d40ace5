//! The plot: reward by iteration (mean, maximum, best so far), held-out reward where there
//! is one, and how much of the reward the mean's direction explains, or the effective sample
//! size of the weights.

use std::path::Path;

use plotters::style::RGBColor;

use super::chart::{Panel, Series, draw};
use crate::align::{Alignment, IterationStats};
use crate::error::{Error, Result};
use crate::save::save;

const BLUE_MEAN: RGBColor = RGBColor(0x4c, 0x78, 0xa8);
const ORANGE_MAX: RGBColor = RGBColor(0xf5, 0x85, 0x18);
const GREEN_BEST: RGBColor = RGBColor(0x2f, 0x8f, 0x4e);
const GREY: RGBColor = RGBColor(0x70, 0x70, 0x78);

/// Draws `alignment` as an SVG file at `path`. A held-out reward has a panel of its own, as
/// its unit is another; methods without weights have no effective sample size to draw.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written, [`Error::Run`] when there is nothing to
/// draw.
pub fn write_plot(alignment: &Alignment, path: &Path) -> Result<()> {
    let panels = panels(alignment);
    if panels.first().is_none_or(|p| p.y_name != "reward") {
        return Err(Error::Run(
            "nothing to draw: no iteration has a reward".into(),
        ));
    }
    let title = format!(
        "{}, {} samples an iteration, seed {}",
        alignment.method, alignment.samples, alignment.seed
    );
    let svg = draw(&title, &panels)?;
    save(path, svg)
}

fn panels(alignment: &Alignment) -> Vec<Panel> {
    let line = |name: &str, color, width, value: &dyn Fn(&IterationStats) -> Option<f64>| {
        let stats = alignment.iterations.iter().enumerate();
        Series {
            name: name.to_owned(),
            color,
            width,
            points: stats
                .filter_map(|(i, s)| Some(((i + 1) as f64, value(s)?)))
                .collect(),
        }
    };
    // A population may hold more than one iteration.
    let sizes = alignment.iterations.iter().filter_map(|s| s.telemetry.ess);
    let most = sizes.fold(alignment.samples as f64, f64::max);
    let x_range = Some((0.5, alignment.iterations.len() as f64 + 0.5));
    let panels = [
        Panel {
            x_name: "iteration",
            y_name: "reward",
            x_range,
            y_range: None,
            series: vec![
                line("best so far", GREEN_BEST, 3, &|s| s.best_reward),
                line("maximum", ORANGE_MAX, 2, &|s| s.max_reward),
                line("mean", BLUE_MEAN, 2, &|s| s.mean_reward),
            ],
        },
        Panel {
            x_name: "iteration",
            y_name: "held-out reward",
            x_range,
            y_range: None,
            series: vec![
                line("of the best so far", GREEN_BEST, 3, &|s| s.held_out_best),
                line("mean", BLUE_MEAN, 2, &|s| s.held_out_mean),
            ],
        },
        Panel {
            x_name: "iteration",
            y_name: "explained share",
            x_range,
            y_range: Some((0.0, 1.0)),
            series: vec![line("", GREY, 2, &|s| s.telemetry.r2)],
        },
        Panel {
            x_name: "iteration",
            y_name: "effective samples",
            x_range,
            y_range: Some((0.0, most)),
            series: vec![line("", GREY, 2, &|s| s.telemetry.ess)],
        },
    ];
    panels
        .into_iter()
        .filter(|p| p.series.iter().any(|s| !s.points.is_empty()))
        .collect()
}
