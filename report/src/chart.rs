//! How do the figures look? Two charts as SVG, whose colours the page's style sheet exchanges at night.

use crate::figures::{Day, PastMonth};
use crate::psql::Failure;
use plotters::coord::ranged1d::SegmentedCoord;
use plotters::coord::types::{RangedCoordf64, RangedCoordusize};
use plotters::prelude::*;
use std::error::Error;

const SIZE: (u32, u32) = (840, 280);
const TEXT: RGBColor = RGBColor(0x1c, 0x1c, 0x1e);
const GRID: RGBColor = RGBColor(0xd9, 0xd9, 0xde);
/// Units, or those of the allowance.
const FIRST: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
/// The average, or units of packs.
const SECOND: RGBColor = RGBColor(0xb4, 0x53, 0x09);
/// The allowance, or overage.
const THIRD: RGBColor = RGBColor(0x6b, 0x21, 0xa8);

/// Units per day as bars, the average of seven days as a line, and the allowance spread evenly over the month.
pub fn days(days: &[Day], included: Option<i64>) -> Result<String, Failure> {
    let average = |day: &Day| day.average.as_ref()?.parse().ok();
    let even = included.map(|units| units as f64 / days.len() as f64);
    let highest = days.iter().map(|day| day.used as f64).chain(even).fold(1.0, f64::max);
    // Year and month are in the heading.
    let names: Vec<&str> = days.iter().map(|day| &day.day[5..]).collect();
    drawn(&names, highest, |chart| {
        chart.draw_series(days.iter().enumerate().map(|(index, day)| bar(index, 0.0, day.used as f64, FIRST)))?;
        let averages =
            days.iter().enumerate().filter_map(|(index, day)| Some((SegmentValue::CenterOf(index), average(day)?)));
        chart.draw_series(LineSeries::new(averages, SECOND.stroke_width(3)))?;
        if let Some(even) = even {
            let level = [SegmentValue::Exact(0), SegmentValue::Last].map(|at| (at, even));
            chart.draw_series(LineSeries::new(level, THIRD.stroke_width(2)))?;
        }
        Ok(())
    })
}

/// Units per month, one above the other by who paid.
pub fn months(months: &[PastMonth]) -> Result<String, Failure> {
    let highest = months.iter().map(|month| month.used as f64).fold(1.0, f64::max);
    let names: Vec<&str> = months.iter().map(|month| month.period.as_str()).collect();
    drawn(&names, highest, |chart| {
        let stacked = months.iter().enumerate().flat_map(|(index, month)| {
            let (included, packs) = (month.included_used as f64, (month.included_used + month.pack_used) as f64);
            let all = packs + month.overage_units as f64;
            [bar(index, 0.0, included, FIRST), bar(index, included, packs, SECOND), bar(index, packs, all, THIRD)]
        });
        chart.draw_series(stacked)?;
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

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<SegmentedCoord<RangedCoordusize>, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn Error>>;

/// A chart with a name below each of its segments, as far as there is room, and units from nothing up at its side.
fn drawn(names: &[&str], highest: f64, draw: impl Fn(&mut Chart) -> Drawn) -> Result<String, Failure> {
    let mut svg = String::new();
    on(&mut svg, names, highest, draw).map_err(|error| Failure::new(format!("a chart could not be drawn: {error}")))?;
    Ok(svg)
}

fn on(svg: &mut String, names: &[&str], highest: f64, draw: impl Fn(&mut Chart) -> Drawn) -> Drawn {
    const MOST_NAMES: usize = 12;
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d((0..names.len()).into_segmented(), 0.0..highest * 1.05)?;
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(index) => names.get(*index).map_or_else(String::new, |name| (*name).to_owned()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(names.len().min(MOST_NAMES))
        .x_label_formatter(&name)
        .y_label_formatter(&|units| if units.fract().abs() < 1e-6 { format!("{units:.0}") } else { String::new() })
        .label_style(("sans-serif", 13).into_font().color(&TEXT))
        .draw()?;
    draw(&mut chart)?;
    drop(chart);
    root.present()?;
    Ok(())
}
