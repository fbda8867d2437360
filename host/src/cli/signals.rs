//! Signals: what they ask of the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// The signals that the program heeds. From its making on they no longer end the process.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// To stop, by the signal of this name.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::runtime(format!("cannot take signals: {error}"), None))
        };
        Ok(Signals {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.quit.recv() => Asked::Stop("SIGQUIT"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Waits to be told to stop, and says by which signal.
    pub(crate) async fn stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Asked::Stop(signal) => return signal,
                Asked::Reload => tracing::warn!("SIGHUP: there is nothing to reload now"),
            }
        }
    }
}
