//! What a request costs: Waypost beside its peers and beside a relay that does nothing.
//!
//! A proxy has CPU 0 for itself. Clients and origins are one program on CPU 1, see [`engine`]. What a response costs is
//! what CPU 0 was busy for, whoever kept it busy, over the responses that were counted, each of which was checked.

mod engine;
mod histogram;
mod http;
mod machine;
mod peer;
mod programs;
mod relay;
mod report;
mod round;
mod row;
mod statistics;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use peer::{Peer, Programs};
use report::{Measured, Report};
use round::{Case, Length, Sample};
use row::{Load, Row};

/// What a request costs: Waypost beside its peers and beside a relay that does nothing.
///
/// Needs two CPUs with nothing else to do. Peers are looked for on PATH; those that are not there are named and left
/// out. What is part of this repository is built first.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    internal: Option<Internal>,
    /// Rows to measure, or `all` [default: 1k,edits]
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// Who takes part, the one that the others are compared with first [default: as the row says]
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    peers: Vec<String>,
    /// Every contender is measured so often, in turn
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long it is measured in a round
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// How long it runs before that
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    warm_up: f64,
    /// Requests a second, instead of what the row says
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Write a report there; rows that it has already and that are not measured now stay
    #[arg(long, value_name = "DIRECTORY")]
    report: Option<PathBuf>,
    /// Only list the rows and the peers
    #[arg(long)]
    list: bool,
    /// Only build what is to be measured
    #[arg(long)]
    prepare: bool,
    #[command(flatten)]
    given: programs::Given,
}

#[derive(Subcommand)]
enum Internal {
    /// The null relay.
    #[command(hide = true)]
    Relay {
        listen: SocketAddr,
        servers: Vec<SocketAddr>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Internal::Relay { listen, servers }) = &arguments.internal {
        return relay::run(*listen, servers);
    }
    let rows = chosen_rows(&arguments.rows)?;
    if arguments.list {
        list();
        return Ok(());
    }
    let named: Vec<Peer> = arguments
        .peers
        .iter()
        .map(|name| {
            Peer::named(name).with_context(|| format!("no peer is called `{name}`; see --list"))
        })
        .collect::<anyhow::Result<_>>()?;
    let peers_of = |row: &Row| {
        if named.is_empty() {
            row.default_peers()
        } else {
            named.clone()
        }
    };
    let wanted: Vec<Peer> = rows.iter().flat_map(peers_of).collect();
    let waypost = arguments.given.find(&wanted)?;
    let mut report = Report {
        date: today(),
        machine: machine::class(),
        versions: Vec::new(),
        absent: Vec::new(),
        rows: Vec::new(),
    };
    let present = roll_call(&wanted, &waypost, &mut report);
    if arguments.prepare {
        return Ok(());
    }
    machine::bind(machine::LOAD_CPU)?;
    for row in &rows {
        let peers: Vec<Peer> = peers_of(row)
            .into_iter()
            .filter(|peer| present.contains(peer))
            .collect();
        let measured = measure(row, &row.cases(&waypost, &peers), &arguments)?;
        println!("\n{}", measured.table());
        report.rows.push(measured);
        // After every row: a run may be cut short.
        if let Some(directory) = &arguments.report {
            let mut report = report.clone();
            report.merge(directory)?;
            report.write(directory)?;
        }
    }
    Ok(())
}

fn chosen_rows(names: &[String]) -> anyhow::Result<Vec<Row>> {
    let all = Row::all();
    if names.iter().any(|name| name == "all") {
        return Ok(all);
    }
    if names.is_empty() {
        return Ok(all.into_iter().filter(|row| row.short).collect());
    }
    let row = |name: &String| {
        let found = all.iter().find(|row| row.name == name);
        found
            .cloned()
            .with_context(|| format!("no row is called `{name}`; see --list"))
    };
    names.iter().map(row).collect()
}

fn list() {
    for row in Row::all() {
        println!("{:12} {}", row.name, row.about);
    }
    let names: Vec<&str> = Peer::ALL.iter().map(|(name, _)| *name).collect();
    println!("\npeers: {}", names.join(" "));
}

/// Asks all for their versions. Returns those that are there.
fn roll_call(wanted: &[Peer], waypost: &[(String, Programs)], report: &mut Report) -> Vec<Peer> {
    let programs = waypost
        .first()
        .map(|(_, programs)| programs.clone())
        .unwrap_or_default();
    let mut present = Vec::new();
    for (name, peer) in Peer::ALL {
        if !wanted.contains(&peer) {
            continue;
        }
        match peer.version(&programs) {
            Ok(version) => {
                report.versions.push((name.to_owned(), version));
                present.push(peer);
            }
            Err(error) => {
                println!("{name} is not there and left out: {error:#}");
                report
                    .absent
                    .push((name.to_owned(), error.root_cause().to_string()));
            }
        }
    }
    present
}

/// Measures all contenders of a row in turn, round after round.
fn measure(row: &Row, cases: &[Case], arguments: &Arguments) -> anyhow::Result<Measured> {
    let length = Length {
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        measured: Duration::from_secs_f64(arguments.seconds),
    };
    let mut cases = cases.to_vec();
    let rate = match (arguments.rate, row.load) {
        (Some(rate), _) => Some(rate),
        (None, Load::Closed) => None,
        (None, Load::Share(share)) => {
            let first = cases.first().context("nobody takes part")?;
            Some((first.measure(length)?.responses_per_second * share).round())
        }
    };
    for case in &mut cases {
        case.traffic.rate = rate;
    }
    let mut samples: Vec<(String, Vec<Sample>)> = cases
        .iter()
        .map(|case| (case.label.clone(), Vec::new()))
        .collect();
    for round in 1..=arguments.rounds {
        for (case, (label, samples)) in cases.iter().zip(&mut samples) {
            let sample = case.round(length).unwrap_or_else(|error| Sample {
                void: Some(format!("{error:#}")),
                ..Sample::default()
            });
            println!(
                "{} {round} {label}: {:.2} us, {:.0}/s{}, CPUs {:.0} % and {:.0} %{}",
                row.name,
                sample.cpu_microseconds_per_response,
                sample.responses_per_second,
                if sample.paced.is_some() {
                    " (paced)"
                } else {
                    ""
                },
                sample.proxy_cpu_busy * 100.0,
                sample.load_cpu_busy * 100.0,
                sample
                    .void
                    .as_ref()
                    .map_or_else(String::new, |void| format!("; VOID: {void}")),
            );
            samples.push(sample);
        }
    }
    Ok(Measured::new(row, arguments.seconds, rate, samples))
}

/// The date in UTC.
fn today() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// The date that is so many days after 1970-01-01, in the Gregorian calendar.
fn date(mut days: u64) -> String {
    let leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (789, "1972-02-29"),
            (20_453, "2025-12-31"),
            (20_513, "2026-03-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn rows_are_chosen_by_name() {
        let names = |names: &[&str]| -> anyhow::Result<Vec<&str>> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(chosen_rows(&names)?.iter().map(|row| row.name).collect())
        };
        assert_eq!(names(&["c1", "0"]).unwrap(), ["c1", "0"]);
        assert_eq!(names(&[]).unwrap(), ["1k", "edits"]);
        assert_eq!(names(&["all"]).unwrap().len(), Row::all().len());
        assert!(names(&["2k"]).is_err());
    }

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
