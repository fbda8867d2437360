//! What a request costs: Waypost beside its peers and beside a relay that does nothing.

mod engine;
mod histogram;
mod http;
mod machine;
mod peer;
mod relay;
mod round;
mod statistics;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use peer::{Peer, Programs};
use round::{Case, Length, Sample};
use statistics::{Spread, ratios};
use traffic::{Exchange, Traffic};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Internal>,
    #[arg(long, value_delimiter = ',', default_value = "waypost,relay,nginx")]
    peers: Vec<String>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 1024)]
    body: usize,
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value = "target/release/waypost")]
    waypost: PathBuf,
}

#[derive(Subcommand)]
enum Internal {
    #[command(hide = true)]
    Relay {
        listen: SocketAddr,
        servers: Vec<SocketAddr>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Internal::Relay { listen, servers }) = &arguments.command {
        return relay::run(*listen, servers);
    }
    machine::bind(machine::LOAD_CPU)?;
    let cases: Vec<Case> = arguments
        .peers
        .iter()
        .filter_map(|name| {
            Some(Case {
                label: name.clone(),
                peer: Peer::named(name)?,
                programs: Programs {
                    waypost: arguments.waypost.clone(),
                    ..Programs::default()
                },
                backends: 4,
                routes: 0,
                traffic: Traffic {
                    connections: arguments.connections,
                    idle: 0,
                    rate: arguments.rate,
                    reuse: true,
                    exchange: Exchange::http(0, arguments.body, true),
                    required: vec![],
                },
            })
        })
        .collect();
    println!("{}", machine::class());
    let length = Length {
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs_f64(arguments.seconds),
    };
    let mut all: Vec<Vec<Option<Sample>>> = vec![vec![]; cases.len()];
    for _ in 0..arguments.rounds {
        for (case, samples) in cases.iter().zip(&mut all) {
            let s = case.measure(length);
            println!("{} {s:?}", case.label);
            samples.push(s.ok());
        }
    }
    let cost = |s: &[Option<Sample>]| -> Vec<Option<f64>> {
        s.iter()
            .map(|s| s.as_ref().map(|s| s.cpu_microseconds_per_response))
            .collect()
    };
    for (case, samples) in cases.iter().zip(&all) {
        println!(
            "{} {:?} base/this {:?}",
            case.label,
            Spread::of(cost(samples).into_iter().flatten()),
            Spread::of(ratios(&cost(&all[0]), &cost(samples)))
        );
    }
    Ok(())
}
