//! `waypost run` and `waypost proxy`: serve until told to stop, then let what is under way finish.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use super::loaded::Loaded;
use super::signals::{Asked, Signals};
use super::{block_on, counted};
use crate::admin::{self, AdminGuard};
use crate::config;
use crate::control::Control;
use crate::server::Server;
use crate::status::Status;

pub(super) fn run(loaded: Loaded) -> Result<ExitCode, Failure> {
    block_on(async {
        // First, so that no signal finds the program without an answer.
        let mut signals = Signals::new()?;
        let started = tokio::select! {
            started = Server::start_from(loaded.file.clone(), loaded.config.clone()) => started,
            signal = signals.stop() => {
                tracing::info!("{signal} before the start was over");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let mut server = started.map_err(|error| Failure::start(&error, &loaded))?;
        let file = loaded.file.as_deref();
        let admin = admin::serve(&loaded.config.admin, server.control(), file)
            .await
            .map_err(|error| Failure::admin(&error, &loaded))?;
        announce(&server.status(), &loaded.config.admin, &admin);
        let signal = loop {
            match signals.next().await {
                Asked::Stop(signal) => break signal,
                // Beside this, as a signal to stop must not wait for it.
                Asked::Reload => drop(tokio::spawn(reload(server.control(), loaded.file.clone()))),
            }
        };
        let grace = loaded.config.shutdown_grace;
        let ended = drain(&mut server, grace, signal, &mut signals).await;
        // Until here, so that the status can be asked for.
        drop(admin);
        Ok(ended)
    })
}

async fn reload(control: Control, file: Option<PathBuf>) {
    let result = control.reload().await;
    match &result {
        Ok(_) => admin::audit("SIGHUP", "reload", &result),
        Err(error) => {
            let message = admin::message(error, file.as_deref());
            tracing::error!(target: "audit", "audit: reload by SIGHUP: refused, all stays as it was:\n{message}");
        }
    }
}

fn announce(status: &Status, admin: &config::Admin, guard: &AdminGuard) {
    for address in &status.listeners {
        tracing::info!("listening on {address}");
    }
    for upstream in &status.upstreams {
        let servers = counted(upstream.backends.len(), "server");
        let policy = &upstream.policy;
        tracing::info!("upstream {}: {servers}, policy {policy}", upstream.name);
    }
    if let Some(path) = &admin.socket {
        tracing::info!("admin socket {}", path.display());
    }
    if let Some(address) = guard.tcp_address() {
        tracing::info!("admin at http://{address}");
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
