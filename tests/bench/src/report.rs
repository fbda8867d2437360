//! What has been measured, as a table, as JSON and as a chart.

mod chart;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::round::Sample;
use crate::row::{Figure, Row};
use crate::statistics::{Spread, ratios};

/// Everything.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) machine: String,
    /// Names and versions of those that took part.
    pub(crate) versions: Vec<(String, String)>,
    /// Names of those that did not, and why.
    pub(crate) absent: Vec<(String, String)>,
    pub(crate) rows: Vec<Measured>,
}

/// One row.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) figure: Figure,
    pub(crate) growth: bool,
    /// How long each round was.
    pub(crate) seconds: f64,
    /// Requests a second, where they were sent at a rate.
    pub(crate) rate: Option<f64>,
    /// The first one is what the others are compared with.
    pub(crate) contenders: Vec<Contender>,
}

/// One contender of a row.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Contender {
    pub(crate) label: String,
    /// Of the row's figure: the first contender's to this one's, or in a row about growth this one's to that of the
    /// smallest of its kind.
    pub(crate) ratio: Option<Spread>,
    pub(crate) cpu_microseconds_per_response: Option<Spread>,
    pub(crate) samples: Vec<Sample>,
}

/// What grows, without how large it is: `waypost (new)` for `waypost 1000 (new)`.
fn without_size(label: &str) -> String {
    let words = label
        .split(' ')
        .filter(|word| word.parse::<usize>().is_err());
    words.collect::<Vec<_>>().join(" ")
}

impl Measured {
    pub(crate) fn new(
        row: &Row,
        seconds: f64,
        rate: Option<f64>,
        samples: Vec<(String, Vec<Sample>)>,
    ) -> Measured {
        let figures = |samples: &[Sample]| -> Vec<Option<f64>> {
            let valid = |sample: &Sample| {
                sample.void.is_none().then_some(match row.figure {
                    Figure::CpuPerResponse => sample.cpu_microseconds_per_response,
                    Figure::P99 => sample.p99_microseconds,
                })
            };
            samples.iter().map(valid).collect()
        };
        let all: Vec<(String, Vec<Option<f64>>)> = samples
            .iter()
            .map(|(label, samples)| (without_size(label), figures(samples)))
            .collect();
        let base = |kind: Option<&str>| {
            let mut like = all
                .iter()
                .filter(|(of, _)| kind.is_none_or(|kind| of == kind));
            like.next().map_or(&[][..], |(_, figures)| figures)
        };
        let contender = |(label, samples): (String, Vec<Sample>)| {
            let these = figures(&samples);
            let ratios = match row.is_growth() {
                true => ratios(&these, base(Some(&without_size(&label)))),
                false => ratios(base(None), &these),
            };
            let mut contender = Contender {
                label,
                ratio: Spread::of(ratios),
                cpu_microseconds_per_response: None,
                samples,
            };
            contender.cpu_microseconds_per_response =
                contender.spread(|sample| sample.cpu_microseconds_per_response);
            contender
        };
        Measured {
            name: row.name.to_owned(),
            about: row.about.to_owned(),
            figure: row.figure,
            growth: row.is_growth(),
            seconds,
            rate,
            contenders: samples.into_iter().map(contender).collect(),
        }
    }

    /// A table in Markdown.
    pub(crate) fn table(&self) -> String {
        let first = self
            .contenders
            .first()
            .map_or("", |contender| &contender.label);
        let what = match self.figure {
            Figure::CpuPerResponse => "CPU",
            Figure::P99 => "p99",
        };
        let ratio = match self.growth {
            true => format!("{what} / that of its first line"),
            false => format!("{what} of {first} / this"),
        };
        let rate = self
            .rate
            .map_or_else(String::new, |rate| format!(", {rate:.0} requests a second"));
        let seconds = self.seconds;
        let mut text = format!(
            "### `{}`: {}{rate}; rounds of {seconds} s\n\n",
            self.name, self.about
        );
        let _ = writeln!(
            text,
            "| | {ratio} | CPU us / response | its processes alone | responses / s | p50 us | p99 us | p99.9 us \
             | upstream connections | MiB | start ms | rounds |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        );
        for contender in &self.contenders {
            let _ = writeln!(text, "{}", contender.line());
        }
        let voids: Vec<String> = self.contenders.iter().flat_map(Contender::voids).collect();
        if !voids.is_empty() {
            let _ = writeln!(text, "\nVoid: {}.", voids.join("; "));
        }
        text
    }
}

impl Contender {
    fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let valid = self.samples.iter().filter(|sample| sample.void.is_none());
        Spread::of(valid.map(figure))
    }

    fn line(&self) -> String {
        let show = |spread: Option<Spread>, digits: usize| {
            spread.map_or_else(
                || "-".to_owned(),
                |spread| format!("{:.digits$}", spread.median),
            )
        };
        let wide = |spread: Option<Spread>, digits: usize| {
            let range =
                |spread: Spread| format!(" ({:.digits$} to {:.digits$})", spread.low, spread.high);
            show(spread, digits) + &spread.map_or_else(String::new, range)
        };
        let valid = self
            .samples
            .iter()
            .filter(|sample| sample.void.is_none())
            .count();
        let cells = [
            self.label.clone(),
            wide(self.ratio, 2),
            wide(self.cpu_microseconds_per_response, 1),
            show(
                self.spread(|sample| sample.process_microseconds_per_response),
                1,
            ),
            show(self.spread(|sample| sample.responses_per_second), 0) + self.paced(),
            show(self.spread(|sample| sample.p50_microseconds), 0),
            show(self.spread(|sample| sample.p99_microseconds), 0),
            show(self.spread(|sample| sample.p999_microseconds), 0),
            show(self.spread(|sample| sample.upstream_connections as f64), 0),
            show(self.spread(|sample| sample.resident_mebibytes), 1),
            show(self.spread(|sample| sample.start_milliseconds), 0),
            format!("{valid} of {}", self.samples.len()),
        ];
        format!("| {} |", cells.join(" | "))
    }

    fn paced(&self) -> &'static str {
        let paced = self
            .samples
            .iter()
            .any(|sample| sample.void.is_none() && sample.paced.is_some());
        if paced { " (paced)" } else { "" }
    }

    /// Why rounds do not count, each reason once.
    fn voids(&self) -> Vec<String> {
        let reasons = self
            .samples
            .iter()
            .filter_map(|sample| sample.void.as_ref());
        let mut reasons: Vec<String> = reasons
            .map(|reason| {
                format!(
                    "{}: {}",
                    self.label,
                    reason.lines().next().unwrap_or_default()
                )
            })
            .collect();
        reasons.dedup();
        reasons
    }
}

impl Report {
    /// The whole report in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let pairs = |pairs: &[(String, String)], between: &str| {
            let all: Vec<String> = pairs
                .iter()
                .map(|(name, rest)| format!("{name}{between}{rest}"))
                .collect();
            all.join(", ")
        };
        let mut text = format!(
            "# What a request costs\n\n{}. {}. Rounds are interleaved; figures are medians, in parentheses the lowest and \
             the highest round. CPU is all that the proxy's CPU did, per response. {}.\n",
            self.date,
            self.machine,
            pairs(&self.versions, " ")
        );
        if !self.absent.is_empty() {
            let _ = writeln!(text, "\nNot there: {}.", pairs(&self.absent, ": "));
        }
        let _ = writeln!(text, "\n![chart](report.svg)");
        for row in &self.rows {
            let _ = write!(text, "\n{}", row.table());
        }
        text
    }

    /// Adds the rows, and what goes with them, of a report that was written before, but for those that are here.
    pub(crate) fn merge(&mut self, directory: &Path) -> anyhow::Result<()> {
        let Ok(text) = fs::read_to_string(directory.join("report.json")) else {
            return Ok(());
        };
        let before: Report = serde_json::from_str(&text).context("the report that is there")?;
        let mut rows = before.rows;
        for row in std::mem::take(&mut self.rows) {
            match rows.iter_mut().find(|this| this.name == row.name) {
                Some(place) => *place = row,
                None => rows.push(row),
            }
        }
        let order = Row::all();
        rows.sort_by_key(|row| order.iter().position(|this| this.name == row.name));
        self.rows = rows;
        for version in before.versions {
            if self.versions.iter().all(|(name, _)| *name != version.0) {
                self.versions.push(version);
            }
        }
        self.versions.sort();
        let versions = &self.versions;
        self.absent
            .retain(|(name, _)| versions.iter().all(|(this, _)| this != name));
        Ok(())
    }

    /// Writes `report.md`, `report.json` and `report.svg`.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("report.md"), self.markdown())?;
        fs::write(
            directory.join("report.json"),
            serde_json::to_string_pretty(self)? + "\n",
        )?;
        fs::write(directory.join("report.svg"), chart::svg(&self.rows))?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn sample(cost: f64, void: Option<&str>) -> Sample {
        Sample {
            void: void.map(str::to_owned),
            cpu_microseconds_per_response: cost,
            ..Sample::default()
        }
    }

    pub(crate) fn measured(name: &str) -> Measured {
        let rows = Row::all();
        let row = rows.iter().find(|row| row.name == name).unwrap();
        let samples = vec![
            (
                "waypost".to_owned(),
                vec![
                    sample(10.0, None),
                    sample(12.0, None),
                    sample(99.0, Some("3 errors\nlog")),
                ],
            ),
            (
                "nginx".to_owned(),
                vec![sample(20.0, None), sample(16.0, None), sample(20.0, None)],
            ),
            (
                "<broken>".to_owned(),
                vec![sample(1.0, Some("no responses"))],
            ),
        ];
        Measured::new(row, 4.0, None, samples)
    }

    #[test]
    fn void_rounds_are_in_no_figure() {
        let row = measured("1k");
        let ratio = row.contenders[1].ratio.unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.5, 0.625, 0.75));
        assert_eq!(
            row.contenders[0]
                .cpu_microseconds_per_response
                .unwrap()
                .high,
            12.0
        );
        assert_eq!(row.contenders[2].ratio, None);
    }

    #[test]
    fn growth_is_compared_with_the_smallest() {
        let rows = Row::all();
        let row = rows.iter().find(|row| row.name == "routes").unwrap();
        let costs = |label: &str, costs: [f64; 3]| {
            let samples = costs.map(|cost| sample(cost, None));
            (label.to_owned(), samples.to_vec())
        };
        let mut samples = vec![
            costs("waypost 10", [10.0, 12.0, 99.0]),
            costs("waypost 1000", [20.0, 16.0, 20.0]),
            costs("nginx 10", [30.0, 30.0, 30.0]),
            costs("nginx 1000", [60.0, 45.0, 90.0]),
        ];
        samples[0].1[2].void = Some("3 errors".to_owned());
        let measured = Measured::new(row, 4.0, None, samples);
        let ratio = |at: usize| measured.contenders[at].ratio.unwrap();
        assert_eq!((ratio(1).low, ratio(1).high), (16.0 / 12.0, 2.0));
        // And each with its own.
        assert_eq!((ratio(2).low, ratio(2).high), (1.0, 1.0));
        assert_eq!((ratio(3).low, ratio(3).high), (1.5, 3.0));
    }

    #[test]
    fn the_table_says_what_does_not_count() {
        let table = measured("1k").table();
        assert!(table.contains("CPU of waypost / this"), "{table}");
        assert!(
            table.contains("| nginx | 0.62 (0.50 to 0.75) | 20.0 (16.0 to 20.0) |"),
            "{table}"
        );
        assert!(table.contains("| 2 of 3 |"), "{table}");
        assert!(
            table.contains("Void: waypost: 3 errors; <broken>: no responses."),
            "{table}"
        );
        let widths: Vec<usize> = table
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }

    fn report(row: &str) -> Report {
        Report {
            date: "2026-01-01".to_owned(),
            machine: "2 CPUs".to_owned(),
            versions: vec![("nginx".to_owned(), "1.22".to_owned())],
            absent: vec![("envoy".to_owned(), "not found".to_owned())],
            rows: vec![measured(row)],
        }
    }

    #[test]
    fn a_report_grows_row_by_row() {
        let directory = tempfile::tempdir().unwrap();
        for row in ["64k", "1k", "64k"] {
            let mut report = report(row);
            report.merge(directory.path()).unwrap();
            report.write(directory.path()).unwrap();
        }
        let text = fs::read_to_string(directory.path().join("report.json")).unwrap();
        let report: Report = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["1k", "64k"]);
        assert_eq!(report.versions.len(), 1);
    }

    #[test]
    fn a_report_is_three_files() {
        let directory = tempfile::tempdir().unwrap();
        let report = report("1k");
        report.write(directory.path()).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("report.md").contains("Not there: envoy: not found."));
        let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
        assert_eq!(json["rows"][0]["contenders"][1]["ratio"]["median"], 0.625);
        assert!(read("report.svg").starts_with("<svg"));
    }
}
