//! `waypost run` and `waypost proxy`: serve until told to stop, then let what is under way finish.

use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use super::loaded::Loaded;
use super::signals::Signals;
use super::{block_on, counted};
use crate::server::Server;
use crate::status::Status;

pub(super) fn run(loaded: Loaded) -> Result<ExitCode, Failure> {
    block_on(async {
        // First, so that no signal finds the program without an answer.
        let mut signals = Signals::new()?;
        let started = tokio::select! {
            started = Server::start(loaded.config.clone()) => started,
            signal = signals.stop() => {
                tracing::info!("{signal} before the start was over");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let mut server = started.map_err(|error| Failure::start(&error, &loaded))?;
        announce(&server.status());
        let signal = signals.stop().await;
        Ok(drain(
            &mut server,
            loaded.config.shutdown_grace,
            signal,
            &mut signals,
        )
        .await)
    })
}

fn announce(status: &Status) {
    for address in &status.listeners {
        tracing::info!("listening on {address}");
    }
    for upstream in &status.upstreams {
        let servers = counted(upstream.backends.len(), "server");
        let policy = &upstream.policy;
        tracing::info!("upstream {}: {servers}, policy {policy}", upstream.name);
    }
    tracing::info!("serving on {}", counted(status.shards, "shard"));
}

/// Success where nothing was cut off.
async fn drain(
    server: &mut Server,
    grace: Duration,
    signal: &str,
    signals: &mut Signals,
) -> ExitCode {
    let connections = connections(server);
    tracing::info!(
        "{signal}: draining: {connections}, for {grace:?} at most; a second signal stops at once"
    );
    let ended = tokio::select! {
        ended = server.shutdown(grace) => ended,
        signal = signals.stop() => {
            tracing::warn!("{signal}: stopping at once");
            false
        }
    };
    if ended {
        tracing::info!("stopped: everything under way has ended");
        ExitCode::SUCCESS
    } else {
        let cut = self::connections(server);
        tracing::warn!("stopped: {cut} cut off");
        ExitCode::FAILURE
    }
}

fn connections(server: &Server) -> String {
    let open = usize::try_from(server.status().connections).unwrap_or(usize::MAX);
    counted(open, "connection")
}
