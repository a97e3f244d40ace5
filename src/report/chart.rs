//! Panels of lines and dots as SVG.

use plotters::prelude::*;
use plotters::style::FontDesc;
pub use plotters::style::RGBColor;

use crate::error::{Error, Result};

/// Width of a drawing in pixels.
const WIDTH: u32 = 860;
/// Heights of the title, of the first panel and of each further one.
const HEIGHTS: [u32; 3] = [40, 360, 170];

/// One line of a panel.
pub struct Series {
    /// What the legend calls it; nothing for no entry.
    pub name: String,
    /// Of line and dots.
    pub color: RGBColor,
    /// Width of the line; 0 for dots alone.
    pub width: u32,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// Lines over the same axes.
pub struct Panel {
    /// What the x axis is called.
    pub x_name: &'static str,
    /// What the y axis is called.
    pub y_name: &'static str,
    /// Where the x axis is fixed; otherwise it follows the values.
    pub x_range: Option<(f64, f64)>,
    /// Where the y axis is fixed; otherwise it follows the values.
    pub y_range: Option<(f64, f64)>,
    /// The lines, the later ones on top.
    pub series: Vec<Series>,
}

/// Draws panels below one another, as the text of an SVG file.
///
/// # Errors
/// [`Error::Run`] when the drawing fails.
pub fn draw(title: &str, panels: &[Panel]) -> Result<String> {
    let failed = |reason: String| Error::Run(format!("the plot {title:?}: {reason}"));
    let height = HEIGHTS[0] + HEIGHTS[1] + HEIGHTS[2] * panels.len().saturating_sub(1) as u32;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| failed(e.to_string()))?;
        let titled = root.titled(title, font(19));
        let mut rest = titled.map_err(|e| failed(e.to_string()))?;
        for (i, panel) in panels.iter().enumerate() {
            let (area, below) = rest.split_vertically(HEIGHTS[if i == 0 { 1 } else { 2 }]);
            panel.draw(&area).map_err(|e| failed(e.to_string()))?;
            rest = below;
        }
    }
    Ok(svg)
}

impl Panel {
    /// An axis: fixed, or around the values.
    fn range(&self, fixed: Option<(f64, f64)>, value: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        fixed.unwrap_or_else(|| {
            let values = self.series.iter().flat_map(|s| s.points.iter().map(&value));
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
                (low.min(y), high.max(y))
            });
            // Without any value, or with some too far apart for numbers, there still is an axis, and
            // it has to end.
            if !(high - low).is_finite() {
                return (0.0, 1.0);
            }
            let margin = ((high - low) * 0.08).max(0.05);
            (low - margin, high + margin)
        })
    }

    fn draw<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    ) -> std::result::Result<(), Box<dyn std::error::Error + 'a>> {
        let (left, right) = self.range(self.x_range, |p| p.0);
        let (low, high) = self.range(self.y_range, |p| p.1);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(58)
            .build_cartesian_2d(left..right, low..high)?;
        mesh(&mut chart, self.x_name, self.y_name, right - left)?;
        for series in &self.series {
            let style = series.color.stroke_width(series.width);
            let points = &series.points;
            let line = points.iter().copied().filter(|_| series.width > 0);
            let drawn = chart.draw_series(LineSeries::new(line, style))?;
            if !series.name.is_empty() {
                drawn
                    .label(series.name.as_str())
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
    x_name: &str,
    y_name: &str,
    x_span: f64,
) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_labels((x_span as usize).clamp(6, 16))
        .x_label_formatter(&move |x| match x_span >= 6.0 {
            true => format!("{x:.0}"),
            false => format!("{x:.1}"),
        })
        .y_labels(6)
        .x_desc(x_name)
        .y_desc(y_name)
        .axis_desc_style(font(14))
        .label_style(font(13))
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_without_a_value_has_axes_that_end() {
        let panel = |points: &[(f64, f64)]| Panel {
            x_name: "x",
            y_name: "y",
            x_range: None,
            y_range: None,
            series: vec![Series {
                name: "a line".into(),
                color: BLACK,
                width: 2,
                points: points.to_vec(),
            }],
        };
        let svg = draw("title", &[panel(&[(0.0, 1.0), (1.0, 2.0)]), panel(&[])]).unwrap();
        assert!(svg.contains("a line"));
    }
}
