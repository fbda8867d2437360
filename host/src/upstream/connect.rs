//! A connection to a backend, and one exchange at a time over it.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Backend, Failure};
use crate::http1::head::{self, HeadLimits, Search};
use crate::http1::{Buffers, HeadError, ResponseHead, Wire};

/// A connection driven by whoever polls it: no task of its own, no lock, no wake-up between tasks.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) wire: Wire,
    /// What was configured when the connection was made.
    limits: HeadLimits,
    search: Search,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Timeout,
    /// Shown in the debug log.
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Timeout => f.write_str("no connection in time"),
            ConnectError::Io(error) => error.fmt(f),
        }
    }
}

/// Connects to the first of a backend's addresses that answers.
pub(crate) async fn connect(
    backend: &Backend,
    limits: HeadLimits,
    timeout: Duration,
) -> Result<Link, ConnectError> {
    let attempt = async {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
        for address in &backend.addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let stream = tokio::time::timeout(timeout, attempt)
        .await
        .map_err(|_| ConnectError::Timeout)?
        .map_err(ConnectError::Io)?;
    stream.set_nodelay(true).map_err(ConnectError::Io)?;
    Ok(Link {
        wire: Wire::new(stream),
        limits,
        search: Search::default(),
    })
}

impl Link {
    /// Whether the connection is open, idle, and may carry another exchange.
    ///
    /// With `verify` the socket itself is asked; otherwise only where the reactor knows of something. Asking costs a
    /// system call, and is worth it where a request could not be sent again.
    pub(crate) fn is_idle(&self, cx: &mut Context<'_>, verify: bool) -> bool {
        let quiet = self.wire.stream.poll_read_ready(cx).is_pending();
        if quiet && !verify {
            return true;
        }
        let mut byte = [MaybeUninit::uninit()];
        // Anything else is closed, broken, or talking out of turn.
        SockRef::from(&self.wire.stream)
            .peek(&mut byte)
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads up to the end of the next response head.
    ///
    /// # Errors
    /// What that says about the backend.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<Result<ResponseHead, Failure>> {
        loop {
            let data = self.wire.input.data();
            let found = match data {
                [] => None,
                data => self.search.find(data, self.limits).map_err(protocol)?,
            };
            if let Some(length) = found {
                self.search = Search::default();
                let head = data.get(..length).unwrap_or_default();
                let head = head::response(head, self.limits, buffers).map_err(protocol);
                self.wire.input.consume(length);
                return Poll::Ready(head);
            }
            match ready!(self.wire.poll_fill(cx, buffers)) {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => return Poll::Ready(Err(Failure::Reset)),
            }
        }
    }
}

fn protocol(error: HeadError) -> Failure {
    tracing::debug!(?error, "a backend's head is not one");
    Failure::Protocol
}
