//! How do the figures look? Two charts as SVG, whose colours the page's style sheet exchanges at night.

use crate::figures::{Day, PastMonth};
use crate::psql::Failure;
use plotters::prelude::*;

const SIZE: (u32, u32) = (840, 280);
const TEXT: RGBColor = RGBColor(0x1c, 0x1c, 0x1e);
const GRID: RGBColor = RGBColor(0xd9, 0xd9, 0xde);
/// Units, or those of the allowance.
const FIRST: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
/// The average, or units of packs.
const SECOND: RGBColor = RGBColor(0xb4, 0x53, 0x09);
/// The allowance, or overage.
const THIRD: RGBColor = RGBColor(0x6b, 0x21, 0xa8);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("a chart could not be drawn: {error}"))
}

fn label_font() -> TextStyle<'static> {
    ("sans-serif", 13).into_font().color(&TEXT)
}

/// Units per day as bars, the average of seven days as a line, and the allowance spread evenly over the month.
pub fn days(days: &[Day], included: Option<i64>) -> Result<String, Failure> {
    let average = |day: &Day| day.average.as_ref()?.parse().ok();
    let even = included.map(|units| units as f64 / days.len() as f64);
    let highest = days.iter().map(|day| day.used as f64).chain(even).fold(1.0, f64::max);
    drawn(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d((0..days.len()).into_segmented(), 0.0..highest * 1.05)
            .map_err(failed)?;
        let name = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(index) | SegmentValue::Exact(index) => {
                days.get(*index).map_or_else(String::new, |day| day.day[5..].to_owned())
            }
            SegmentValue::Last => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(days.len().min(11))
            .x_label_formatter(&name)
            .y_label_formatter(&|units| format!("{units:.0}"))
            .label_style(label_font())
            .draw()
            .map_err(failed)?;
        let bars = days.iter().enumerate().map(|(index, day)| bar(index, 0.0, day.used as f64, FIRST));
        chart.draw_series(bars).map_err(failed)?;
        let averages =
            days.iter().enumerate().filter_map(|(index, day)| Some((SegmentValue::CenterOf(index), average(day)?)));
        chart.draw_series(LineSeries::new(averages, SECOND.stroke_width(3))).map_err(failed)?;
        if let Some(even) = even {
            let level = [SegmentValue::Exact(0), SegmentValue::Last].map(|at| (at, even));
            chart.draw_series(LineSeries::new(level, THIRD.stroke_width(2))).map_err(failed)?;
        }
        Ok(())
    })
}

/// Units per month, one above the other by who paid.
pub fn months(months: &[PastMonth]) -> Result<String, Failure> {
    let highest = months.iter().map(|month| month.used as f64).fold(1.0, f64::max);
    drawn(|root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d((0..months.len()).into_segmented(), 0.0..highest * 1.05)
            .map_err(failed)?;
        let name = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(index) => months.get(*index).map_or_else(String::new, |month| month.period.clone()),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(months.len())
            .x_label_formatter(&name)
            .y_label_formatter(&|units| format!("{units:.0}"))
            .label_style(label_font())
            .draw()
            .map_err(failed)?;
        let stacked = months.iter().enumerate().flat_map(|(index, month)| {
            let (included, packs) = (month.included_used as f64, (month.included_used + month.pack_used) as f64);
            let all = packs + month.overage_units as f64;
            [bar(index, 0.0, included, FIRST), bar(index, included, packs, SECOND), bar(index, packs, all, THIRD)]
        });
        chart.draw_series(stacked).map_err(failed)?;
        Ok(())
    })
}

type Bar = Rectangle<(SegmentValue<usize>, f64)>;

fn bar(index: usize, from: f64, to: f64, color: RGBColor) -> Bar {
    let mut bar =
        Rectangle::new([(SegmentValue::Exact(index), from), (SegmentValue::Exact(index + 1), to)], color.filled());
    bar.set_margin(0, 0, 2, 2);
    bar
}

type Root<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn drawn(draw: impl Fn(&Root) -> Result<(), Failure>) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&root)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}
