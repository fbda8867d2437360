//! Bars of CPU per response, one group for each row that compares peers.

use std::fmt::Write as _;

use crate::statistics::Spread;

use super::{Contender, Measured};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 190.0;
const FIGURES: f64 = 90.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEADING: f64 = 34.0;

/// A chart as a file of its own.
pub(super) fn svg(rows: &[Measured]) -> String {
    let height: f64 = rows
        .iter()
        .map(|row| HEADING + STEP * row.contenders.len() as f64)
        .sum::<f64>()
        + 16.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0.0;
    for row in rows {
        let _ = writeln!(
            text,
            "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}: {}, CPU us per response</text>",
            top + 22.0,
            escaped(&row.name),
            escaped(&row.about)
        );
        top += HEADING;
        let longest = row
            .contenders
            .iter()
            .filter_map(cost)
            .map(|cost| cost.high)
            .fold(0.0, f64::max);
        for contender in &row.contenders {
            bar(&mut text, top, contender, longest);
            top += STEP;
        }
    }
    text + "</svg>\n"
}

fn cost(contender: &Contender) -> Option<Spread> {
    contender.cpu_microseconds_per_response
}

fn bar(text: &mut String, top: f64, contender: &Contender, longest: f64) {
    let middle = top + BAR / 2.0;
    let label = escaped(&contender.label);
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
        LABELS - 8.0,
        middle + 4.0
    );
    let Some(cost) = cost(contender) else {
        let _ = writeln!(
            text,
            "<text x=\"{LABELS}\" y=\"{}\" fill=\"#888888\">void</text>",
            middle + 4.0
        );
        return;
    };
    let place =
        |figure: f64| LABELS + (WIDTH - LABELS - FIGURES) * figure / longest.max(f64::MIN_POSITIVE);
    let colour = match contender.label.split([' ', '-']).next() {
        Some("waypost") => "#2f6fb0",
        Some("relay") => "#b9b9b9",
        _ => "#8fa3b5",
    };
    let _ = writeln!(
        text,
        "<rect x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
         <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#222222\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{:.1}</text>",
        place(cost.median) - LABELS,
        place(cost.low),
        place(cost.high),
        place(cost.high) + 8.0,
        middle + 4.0,
        cost.median
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::measured;
    use super::*;

    #[test]
    fn every_contender_has_a_bar_or_is_void() {
        let chart = svg(&[measured("1k")]);
        assert_eq!(chart.matches("<rect x=").count(), 2);
        assert_eq!(chart.matches(">void<").count(), 1);
        assert!(chart.contains("&lt;broken&gt;") && !chart.contains("<broken>"));
        assert!(chart.contains(">20.0</text>"));
    }
}
