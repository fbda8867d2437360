//! What follows a protocol switch: bytes in both directions, until both ends are done or nothing moves.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::flight::Flight;

/// One end of a tunnel and what it had sent before the tunnel began.
pub(crate) struct End {
    pub(crate) stream: TcpStream,
    pub(crate) early: Vec<u8>,
}

/// A backend that has switched protocols, waiting for its client.
pub(crate) struct Tunnel {
    pub(crate) link: End,
    /// In flight for as long as the tunnel is open.
    pub(crate) flight: Flight,
    pub(crate) idle_timeout: Duration,
}

impl Tunnel {
    /// Carries bytes until both ends have closed, one breaks, or nothing moves for `idle_timeout`. A half-close is
    /// passed on.
    ///
    /// # Errors
    /// What broke either end, or that nothing moved.
    pub(crate) async fn run(mut self, client: End) -> io::Result<()> {
        let End { stream, early } = self.link;
        let moved = Rc::new(Cell::new(Instant::now()));
        let mut to_client = Watched {
            stream: client.stream,
            moved: moved.clone(),
        };
        let mut to_backend = Watched {
            stream,
            moved: moved.clone(),
        };
        let carry = async {
            to_backend.write_all(&client.early).await?;
            to_client.write_all(&early).await?;
            let (_, received) = copy_bidirectional(&mut to_client, &mut to_backend).await?;
            self.flight.bytes = received + early.len() as u64;
            Ok(())
        };
        let idle = async {
            loop {
                let deadline = moved.get() + self.idle_timeout;
                if deadline <= Instant::now() {
                    return;
                }
                sleep_until(deadline).await;
            }
        };
        tokio::select! {
            carried = carry => carried,
            () = idle => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A stream that notes when bytes last moved over it.
struct Watched {
    stream: TcpStream,
    moved: Rc<Cell<Instant>>,
}

impl Watched {
    fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        if poll.is_ready() {
            self.moved.set(Instant::now());
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(poll)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
