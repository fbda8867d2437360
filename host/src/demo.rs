//! `waypost demo`: sample origins, the real proxy in front of them, requests, and a table of what happens.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::load::Tally;
use self::origins::Origins;
use self::screen::Screen;
use crate::cli::block_on;
use crate::cli::failure::Failure;
use crate::cli::loaded::Loaded;
use crate::cli::settings::Settings;
use crate::cli::signals::Signals;
use crate::config::Config;
use crate::server::Server;

mod load;
mod origins;
mod screen;
mod table;

/// Between two tables on a terminal, where each takes the place of the last.
const LIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Between two tables elsewhere.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);
/// For requests that are under way at the end; the origins take milliseconds.
const GRACE: Duration = Duration::from_secs(1);

/// What `waypost demo` is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Who decides: round-robin, least-conn, consistent-hash, sticky-cookie, header-canary, rotation, or a .wasm file
    /// [default: round-robin]
    #[arg(long, value_name = "NAME|FILE")]
    policy: Option<String>,

    /// What the policy is told, as the JSON of a `config` table
    #[arg(long, value_name = "JSON")]
    config: Option<Settings>,

    /// The port to listen on, on 127.0.0.1 [default: a free one]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    port: u16,

    /// Send this many requests, check every response, print the table and exit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "idle")]
    requests: Option<u64>,

    /// Send no requests of its own
    #[arg(long)]
    idle: bool,
}

/// Runs the demo until it is told to stop or its requests are done.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block_on(async {
        let mut signals = Signals::new()?;
        let origins = Origins::start().map_err(|error| {
            Failure::runtime(format!("cannot start the sample origins: {error}"), None)
        })?;
        let loaded = configure(arguments, &origins)?;
        let mut server = Server::start(loaded.config.clone())
            .await
            .map_err(|error| Failure::start(&error, &loaded))?;
        let mut screen = Screen::new(io::stdout(), is_terminal());
        let ended = match arguments.requests {
            Some(requests) => send(requests, &server, &origins, &mut screen, &mut signals).await,
            None => show(arguments.idle, &server, &origins, &mut screen, &mut signals).await,
        };
        server.shutdown(GRACE).await;
        match ended {
            // Whoever read the output has seen enough, as with `waypost demo | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::runtime(format!("cannot print: {error}"), None)),
            Ok(ended) => ended.map(|()| ExitCode::SUCCESS),
        }
    })
}

fn is_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn configure(arguments: &Arguments, origins: &Origins) -> Result<Loaded, Failure> {
    let from = format!("127.0.0.1:{}", arguments.port);
    let to: Vec<String> = origins
        .all()
        .map(|origin| origin.address.to_string())
        .collect();
    let mut config = Config::for_proxy(&from, &to, arguments.policy.as_deref())?;
    if let Some(settings) = &arguments.config {
        settings.apply_to_all(&mut config);
    }
    for upstream in &mut config.upstreams {
        upstream.name = "demo".to_owned();
        for (server, origin) in upstream.servers.iter_mut().zip(origins.all()) {
            server.name = origin.name.to_owned();
        }
    }
    Ok(Loaded { config, file: None })
}

/// The demo as people watch it: until a signal comes.
async fn show(
    idle: bool,
    server: &Server,
    origins: &Origins,
    screen: &mut Screen<impl io::Write>,
    signals: &mut Signals,
) -> io::Result<Result<(), Failure>> {
    let address = listening_on(server);
    screen.print(&introduction(address, origins, idle))?;
    let traffic = (!idle).then(|| load::trickle(address));
    watch(server, screen, signals.stop()).await?;
    drop(traffic);
    screen.finish("Stopped.\n")?;
    Ok(Ok(()))
}

/// The demo as scripts run it: until so many requests are answered.
async fn send(
    requests: u64,
    server: &Server,
    origins: &Origins,
    screen: &mut Screen<impl io::Write>,
    signals: &mut Signals,
) -> io::Result<Result<(), Failure>> {
    let address = listening_on(server);
    screen.print(&format!(
        "Sending {requests} requests through http://{address} over {} connections.\n\n{}\n",
        load::CONNECTIONS,
        origin_list(origins)
    ))?;
    let mut driver = load::drive(address, requests);
    let done = async {
        tokio::select! {
            tally = driver.finish() => Some(tally),
            _ = signals.stop() => None,
        }
    };
    let tally = if screen.is_live() {
        watch(server, screen, done).await?
    } else {
        done.await
    };
    screen.draw(&table::render(&server.status()))?;
    let Some(tally) = tally else {
        return Ok(Err(Failure::runtime(
            "stopped before all requests were sent",
            None,
        )));
    };
    screen.finish(&format!("{}\n", summary(&tally)))?;
    Ok(match &tally.first_failure {
        None => Ok(()),
        Some(first) => Err(Failure::runtime(
            format!(
                "{} of {requests} requests failed; the first: {first}",
                tally.failed
            ),
            None,
        )),
    })
}

/// Draws the table again and again until `until` is over, and returns what that returns.
async fn watch<T>(
    server: &Server,
    screen: &mut Screen<impl io::Write>,
    until: impl Future<Output = T>,
) -> io::Result<T> {
    let (first, interval) = if screen.is_live() {
        (Duration::ZERO, LIVE_INTERVAL)
    } else {
        (PLAIN_INTERVAL, PLAIN_INTERVAL)
    };
    let mut ticks = interval_at(Instant::now() + first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(until);
    loop {
        tokio::select! {
            result = &mut until => return Ok(result),
            _ = ticks.tick() => screen.draw(&table::render(&server.status()))?,
        }
    }
}

fn listening_on(server: &Server) -> SocketAddr {
    // The configuration of the demo has exactly one listener.
    let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
    server.addresses().first().copied().unwrap_or(unspecified)
}

fn introduction(address: SocketAddr, origins: &Origins, idle: bool) -> String {
    let traffic = if idle {
        "The demo sends nothing by itself.".to_owned()
    } else {
        format!(
            "{} requests a second come from the demo itself; --idle turns them off.",
            load::TRICKLE_PER_SECOND
        )
    };
    format!(
        "\
Waypost listens on http://{address} and balances three sample origins:

{}
Try it from another terminal:

  curl http://{address}/
  curl -i http://{address}/any/path
  curl http://{address}/headers
  for i in 1 2 3 4 5 6; do curl -s http://{address}/; done

/headers answers with the request as an origin gets it.
Another policy: --policy least-conn, or a .wasm file of your own.
{traffic} Ctrl-C ends it.

",
        origin_list(origins)
    )
}

fn origin_list(origins: &Origins) -> String {
    origins
        .all()
        .map(|origin| {
            format!(
                "  {}  {}  answers after {} ms\n",
                origin.name,
                origin.address,
                origin.delay.as_millis()
            )
        })
        .collect()
}

fn summary(tally: &Tally) -> String {
    let seconds = tally.elapsed.as_secs_f64();
    let rate = tally.sent as f64 / seconds.max(f64::MIN_POSITIVE);
    let verdict = match tally.failed {
        0 => "every response as it should be".to_owned(),
        failed => format!("{failed} failed"),
    };
    format!(
        "{} requests in {seconds:.2} s, {rate:.0} a second: {verdict}",
        tally.sent
    )
}
