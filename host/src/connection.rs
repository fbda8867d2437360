//! A client's connection: one task that reads requests, has each forwarded, and keeps the deadlines.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::headers::Client;
use crate::proxy;
use crate::shard::{Shard, Ticket};
use crate::timer::Timer;
use crate::tunnel::{End, Tunnel};
use crate::upstream::connect::BUFFER_BYTES_MIN;

/// What every part of a connection's task shares.
pub(crate) struct Connection {
    pub(crate) shard: Rc<Shard>,
    pub(crate) client: Client,
    pub(crate) timer: Rc<Timer>,
    phase: Cell<Phase>,
    /// The client may still be sending what nobody will read: the close must not cut off our answer.
    lingers: Cell<bool>,
    /// What the connection becomes once the client has its 101.
    tunnel: RefCell<Option<Tunnel>>,
}

/// Where the connection is between two requests.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing of a next request has come since then.
    Idle(Instant),
    /// The first byte of a request head came then.
    Head(Instant),
    /// A request is being answered.
    Exchange,
}

/// Marks the time in which a request is answered; the connection is idle again when it is dropped.
pub(crate) struct ExchangeGuard(Rc<Connection>);

/// Serves a client until either side is done.
pub(crate) async fn serve(ticket: &Ticket, shard: Rc<Shard>, stream: TcpStream, peer: SocketAddr) {
    // Small responses must not wait for the client's acknowledgements. Where it fails the connection is gone already.
    let _ = stream.set_nodelay(true);
    let view = shard.view();
    let trusted = view.snapshot.config.forwarded.trusts(peer.ip());
    let limits = view.snapshot.config.limits;
    drop(view);
    let connection = Rc::new(Connection {
        shard: shard.clone(),
        client: Client::new(peer.ip(), trusted),
        timer: Rc::new(Timer::new()),
        phase: Cell::new(Phase::Idle(Instant::now())),
        lingers: Cell::new(false),
        tunnel: RefCell::default(),
    });
    let io = ClientIo {
        stream: TokioIo::new(stream),
        connection: connection.clone(),
        linger_until: None,
        stalled: None,
    };
    let service = service_fn({
        let connection = connection.clone();
        move |request| proxy::forward(connection.clone(), request)
    });
    let mut server = http1::Builder::new()
        .max_buf_size(limits.head.max(BUFFER_BYTES_MIN))
        .max_header_size(limits.head)
        .max_headers(limits.fields)
        .half_close(false)
        .serve_connection(io, service);
    let (mut registered, mut told) = (false, false);
    let ended = poll_fn(|cx| {
        if !std::mem::replace(&mut registered, true) {
            ticket.wake_on_drain(cx);
        }
        if shard.is_draining() && !std::mem::replace(&mut told, true) {
            Pin::new(&mut server).graceful_shutdown();
        }
        Pin::new(&mut server).poll(cx)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
    if let Some(tunnel) = connection.tunnel.take() {
        let parts = server.into_parts();
        let client = End {
            stream: parts.io.stream.into_inner(),
            early: parts.read_buf,
        };
        if let Err(error) = tunnel.run(client).await {
            tracing::debug!(%peer, %error, "tunnel ended early");
        }
    }
}

impl Connection {
    pub(crate) fn begin_exchange(self: &Rc<Self>) -> ExchangeGuard {
        self.phase.set(Phase::Exchange);
        self.lingers.set(false);
        ExchangeGuard(self.clone())
    }

    /// Has the close wait for the client to take what was sent last (RFC 9112, 9.6).
    pub(crate) fn linger(&self) {
        self.lingers.set(true);
    }

    /// Has the connection become a tunnel after the response that is now given to the client.
    pub(crate) fn switch_to(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(tunnel));
    }

    /// When the client has to have sent something, and what becomes of it otherwise.
    fn read_deadline(&self) -> Option<(Instant, Overdue)> {
        let timeouts = self.shard.view().snapshot.config.timeouts;
        match self.phase.get() {
            Phase::Idle(since) => Some((since + timeouts.idle, Overdue::Close)),
            Phase::Head(since) => Some((since + timeouts.request_head, Overdue::Tell)),
            Phase::Exchange => None,
        }
    }
}

enum Overdue {
    Close,
    Tell,
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Idle(Instant::now()));
    }
}

/// A client's socket, with the deadlines that hyper does not keep.
struct ClientIo {
    stream: TokioIo<TcpStream>,
    connection: Rc<Connection>,
    linger_until: Option<Instant>,
    /// Since when the client has taken nothing of what is to be written.
    stalled: Option<Instant>,
}

impl ClientIo {
    /// Ends a write that makes no progress: a client that does not read holds a backend's connection as well.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        let timeout = self
            .connection
            .shard
            .view()
            .snapshot
            .config
            .timeouts
            .response;
        ready!(self.connection.timer.poll(cx, since + timeout));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and throws away until the client has closed its side, so that the system does not reset the connection
    /// under an answer that is still on its way.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        const LINGER: Duration = Duration::from_secs(2);
        let until = *self
            .linger_until
            .get_or_insert_with(|| Instant::now() + LINGER);
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.connection.timer.poll(cx, until),
            }
            // A client that never stops sending keeps this loop ready.
            if Instant::now() >= until {
                return Poll::Ready(());
            }
        }
    }
}

/// The answer to a head that does not come; there is no request for hyper to answer.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

impl hyper::rt::Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            if let Phase::Idle(_) = self.connection.phase.get() {
                self.connection.phase.set(Phase::Head(Instant::now()));
            }
            return read;
        }
        let Some((deadline, overdue)) = self.connection.read_deadline() else {
            return Poll::Pending;
        };
        ready!(self.connection.timer.poll(cx, deadline));
        if let Overdue::Tell = overdue {
            // All or nothing: a client that takes no hundred bytes now is not listening.
            let _ = self.stream.inner().try_write(REQUEST_TIMEOUT);
        }
        // To hyper this is the client closing its side.
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch_write(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_until.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.connection.lingers.get() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch_write(cx, written)
    }
}
