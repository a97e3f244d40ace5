//! The plot: reward by iteration (mean, maximum, best so far), held-out reward where there
//! is one, and effective sample size.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::FontDesc;

use crate::error::{Error, Result};
use crate::events::{Alignment, IterationStats};

const WIDTH: u32 = 860;
/// Heights of the title, of the first panel and of each further one.
const HEIGHTS: [u32; 3] = [40, 360, 170];
const BLUE_MEAN: RGBColor = RGBColor(0x4c, 0x78, 0xa8);
const ORANGE_MAX: RGBColor = RGBColor(0xf5, 0x85, 0x18);
const GREEN_BEST: RGBColor = RGBColor(0x2f, 0x8f, 0x4e);
const GREY_ESS: RGBColor = RGBColor(0x70, 0x70, 0x78);

/// One line of a panel.
struct Series {
    name: &'static str,
    color: RGBColor,
    width: u32,
    /// (iteration counted from 1, value)
    points: Vec<(f64, f64)>,
}

/// Lines over the same axes.
struct Panel {
    y_name: &'static str,
    /// Where the y axis is fixed; otherwise it follows the values.
    range: Option<(f64, f64)>,
    series: Vec<Series>,
}

/// Draws `alignment` as an SVG file at `path`. A held-out reward has a panel of its own, as
/// its unit is another; methods without weights have no effective sample size to draw.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written, [`Error::Run`] when there is nothing to
/// draw.
pub fn write_plot(alignment: &Alignment, path: &Path) -> Result<()> {
    let svg = draw(alignment).map_err(|e| Error::Run(format!("--plot: {e}")))?;
    std::fs::write(path, svg).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}

fn panels(alignment: &Alignment) -> Vec<Panel> {
    let line = |name, color, width, value: &dyn Fn(&IterationStats) -> Option<f64>| {
        let stats = alignment.iterations.iter().enumerate();
        Series {
            name,
            color,
            width,
            points: stats
                .filter_map(|(i, s)| Some(((i + 1) as f64, value(s)?)))
                .collect(),
        }
    };
    let panels = [
        Panel {
            y_name: "reward",
            range: None,
            series: vec![
                line("best so far", GREEN_BEST, 3, &|s| s.best_reward),
                line("maximum", ORANGE_MAX, 2, &|s| s.max_reward),
                line("mean", BLUE_MEAN, 2, &|s| s.mean_reward),
            ],
        },
        Panel {
            y_name: "held-out reward",
            range: None,
            series: vec![
                line("of the best so far", GREEN_BEST, 3, &|s| s.held_out_best),
                line("mean", BLUE_MEAN, 2, &|s| s.held_out_mean),
            ],
        },
        Panel {
            y_name: "effective samples",
            range: Some((0.0, alignment.samples as f64)),
            series: vec![line("", GREY_ESS, 2, &|s| s.telemetry.ess)],
        },
    ];
    panels
        .into_iter()
        .filter(|p| p.series.iter().any(|s| !s.points.is_empty()))
        .collect()
}

fn draw(alignment: &Alignment) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let panels = panels(alignment);
    if panels.first().is_none_or(|p| p.y_name != "reward") {
        return Err("no iteration has a reward".into());
    }
    let height = HEIGHTS[0] + HEIGHTS[1] + HEIGHTS[2] * (panels.len() as u32 - 1);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let title = format!(
            "{}, {} samples an iteration, seed {}",
            alignment.method, alignment.samples, alignment.seed
        );
        let mut rest = root.titled(&title, font(19))?;
        for (i, panel) in panels.iter().enumerate() {
            let (area, below) = rest.split_vertically(HEIGHTS[if i == 0 { 1 } else { 2 }]);
            panel
                .draw(&area, alignment.iterations.len())
                .map_err(|e| e.to_string())?;
            rest = below;
        }
    }
    Ok(svg)
}

impl Panel {
    /// The y axis: fixed, or around the values.
    fn range(&self) -> (f64, f64) {
        self.range.unwrap_or_else(|| {
            let values = self
                .series
                .iter()
                .flat_map(|s| s.points.iter().map(|p| p.1));
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
                (low.min(y), high.max(y))
            });
            let margin = ((high - low) * 0.08).max(0.05);
            (low - margin, high + margin)
        })
    }

    fn draw<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
        iterations: usize,
    ) -> std::result::Result<(), Box<dyn std::error::Error + 'a>> {
        let (low, high) = self.range();
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(58)
            .build_cartesian_2d(0.5..iterations as f64 + 0.5, low..high)?;
        mesh(&mut chart, self.y_name, iterations)?;
        for series in &self.series {
            let style = series.color.stroke_width(series.width);
            let points = &series.points;
            let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            if !series.name.is_empty() {
                drawn
                    .label(series.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
            }
            let dots = points
                .iter()
                .map(|&p| Circle::new(p, 3, series.color.filled()));
            chart.draw_series(dots)?;
        }
        if self.series.iter().any(|s| !s.name.is_empty()) {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.2))
                .label_font(font(14))
                .draw()?;
        }
        Ok(())
    }
}

fn font(size: u32) -> FontDesc<'static> {
    ("sans-serif", size).into_font()
}

fn mesh<'a, DB: DrawingBackend + 'a>(
    chart: &mut ChartContext<
        'a,
        DB,
        Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
    >,
    y_name: &str,
    iterations: usize,
) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_labels(iterations.min(16))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_labels(6)
        .x_desc("iteration")
        .y_desc(y_name)
        .axis_desc_style(font(14))
        .label_style(font(13))
        .draw()
}
