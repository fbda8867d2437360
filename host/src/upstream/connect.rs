//! A connection to a backend, and one exchange at a time over it.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::Backend;
use crate::body::RequestBody;
use crate::config::Limits;

/// A connection driven by whoever polls it: no task of its own, no lock, no wake-up between tasks.
pub(crate) struct Link {
    sender: SendRequest<RequestBody>,
    connection: Connection<BackendIo, RequestBody>,
    /// The connection has come to its end and must not be polled again.
    done: bool,
    /// It has carried an exchange before.
    pub(crate) reused: bool,
    verify: Rc<Cell<bool>>,
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
    limits: &Limits,
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
    Link::open(stream, limits)
        .await
        .map_err(|error| ConnectError::Io(io::Error::other(error)))
}

impl Link {
    async fn open(stream: TcpStream, limits: &Limits) -> hyper::Result<Link> {
        let verify = Rc::new(Cell::new(false));
        let io = BackendIo {
            stream: TokioIo::new(stream),
            verify: verify.clone(),
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(limits.head.max(BUFFER_BYTES_MIN))
            .max_header_size(limits.head)
            .max_headers(limits.fields)
            .handshake(io)
            .await?;
        Ok(Link {
            sender,
            connection,
            done: false,
            reused: false,
            verify,
        })
    }

    /// Sends a request and waits for the response head. Cancelling closes the connection.
    ///
    /// `late` is polled while the backend is silent and ends the wait when it is ready.
    pub(crate) async fn send<L>(
        &mut self,
        request: Request<RequestBody>,
        mut late: impl FnMut(&mut Context<'_>) -> Poll<L>,
    ) -> Result<hyper::Result<Response<Incoming>>, L> {
        let mut response = pin!(self.sender.send_request(request));
        let (connection, done) = (&mut self.connection, &mut self.done);
        poll_fn(|cx| {
            // The connection first: the response comes out of it.
            if !*done && connection.poll_without_shutdown(cx).is_ready() {
                *done = true;
            }
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            late(cx).map(Err)
        })
        .await
    }

    /// Moves the exchange on: the request's body out, the response's body in.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        // An error also reaches whoever waits for the response or its body; there it is told.
        if !self.done && self.connection.poll_without_shutdown(cx).is_ready() {
            self.done = true;
        }
    }

    /// Whether the connection is open, idle, and may carry another exchange.
    ///
    /// With `verify` the socket itself is asked; otherwise only what the reactor knows is looked at. Asking costs a
    /// system call, and is worth it where a request could not be sent again.
    pub(crate) fn is_idle(&mut self, cx: &mut Context<'_>, verify: bool) -> bool {
        self.verify.set(verify);
        self.drive(cx);
        self.verify.set(false);
        !self.done && self.sender.is_ready()
    }

    /// Takes the socket out once the backend has switched protocols, with what it has sent already.
    pub(crate) async fn into_tunnel(mut self) -> hyper::Result<(TcpStream, Bytes)> {
        if !self.done {
            poll_fn(|cx| self.connection.poll_without_shutdown(cx)).await?;
        }
        let parts = self.connection.into_parts();
        Ok((parts.io.stream.into_inner(), parts.read_buf))
    }
}

/// The smallest buffer hyper takes.
pub(crate) const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// A backend's socket, which can be looked at before it is used again.
struct BackendIo {
    stream: TokioIo<TcpStream>,
    verify: Rc<Cell<bool>>,
}

impl hyper::rt::Read for BackendIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.verify.get() {
            let mut byte = [MaybeUninit::uninit()];
            match SockRef::from(self.stream.inner()).peek(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Closed, broken, or talking out of turn.
                Ok(_) | Err(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for BackendIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
