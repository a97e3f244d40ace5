//! The plot: reward by iteration (mean, maximum, best so far) and effective sample size.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::FontDesc;

use crate::error::{Error, Result};
use crate::events::Alignment;

const SIZE: (u32, u32) = (860, 560);
const BLUE_MEAN: RGBColor = RGBColor(0x4c, 0x78, 0xa8);
const ORANGE_MAX: RGBColor = RGBColor(0xf5, 0x85, 0x18);
const GREEN_BEST: RGBColor = RGBColor(0x2f, 0x8f, 0x4e);
const GREY_ESS: RGBColor = RGBColor(0x70, 0x70, 0x78);

/// One line of the plot: (iteration counted from 1, value).
type Series = Vec<(f64, f64)>;

/// Draws `alignment` as an SVG file at `path`. Methods without weights have no effective
/// sample size; their plot has one panel.
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

fn series(alignment: &Alignment, value: impl Fn(usize) -> Option<f64>) -> Series {
    (0..alignment.iterations.len())
        .filter_map(|i| Some(((i + 1) as f64, value(i)?)))
        .collect()
}

fn draw(alignment: &Alignment) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let stats = &alignment.iterations;
    let rewards = [
        (
            "best so far",
            GREEN_BEST,
            3,
            series(alignment, |i| stats[i].best_reward),
        ),
        (
            "maximum",
            ORANGE_MAX,
            2,
            series(alignment, |i| stats[i].max_reward),
        ),
        (
            "mean",
            BLUE_MEAN,
            2,
            series(alignment, |i| stats[i].mean_reward),
        ),
    ];
    let ess = series(alignment, |i| stats[i].telemetry.ess);
    let values = rewards.iter().flat_map(|r| r.3.iter().map(|p| p.1));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
        (low.min(y), high.max(y))
    });
    if low > high {
        return Err("no iteration has a reward".into());
    }
    let margin = ((high - low) * 0.08).max(0.05);
    let iterations = stats.len() as f64;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let title = format!(
            "{}, {} samples an iteration, seed {}",
            alignment.method, alignment.samples, alignment.seed
        );
        let root = root.titled(&title, font(19))?;
        let (upper, lower) = if ess.is_empty() {
            (root, None)
        } else {
            let (upper, lower) = root.split_vertically((SIZE.1 - 40) * 7 / 10);
            (upper, Some(lower))
        };
        let mut chart = ChartBuilder::on(&upper)
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(58)
            .build_cartesian_2d(0.5..iterations + 0.5, low - margin..high + margin)?;
        mesh(&mut chart, "reward", stats.len())?;
        for (name, color, width, points) in rewards {
            let style = color.stroke_width(width);
            chart
                .draw_series(LineSeries::new(points.clone(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(font(14))
            .draw()?;
        if let Some(lower) = lower {
            let mut chart = ChartBuilder::on(&lower)
                .margin(10)
                .x_label_area_size(34)
                .y_label_area_size(58)
                .build_cartesian_2d(0.5..iterations + 0.5, 0.0..alignment.samples as f64)?;
            mesh(&mut chart, "effective samples", stats.len())?;
            let points = ess.iter().map(|&p| Circle::new(p, 3, GREY_ESS.filled()));
            chart.draw_series(points)?;
            chart.draw_series(LineSeries::new(ess.clone(), GREY_ESS.stroke_width(2)))?;
        }
    }
    Ok(svg)
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
