//! A client's connection: one task that reads requests, has each forwarded, and keeps the deadlines.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answer::Terms;
use crate::body::Upload;
use crate::config::Limits;
use crate::error::ProxyError;
use crate::headers::Client;
use crate::http1::head::{self, HeadLimits, Search};
use crate::http1::{HeadError, RequestHead, Wire, buffer};
use crate::proxy;
use crate::shard::{Shard, Ticket};
use crate::timer::Timer;
use crate::tunnel::{End, Tunnel};

/// How long a connection may be without a request while the shard drains. Who has just been answered may have sent the
/// next request before it can see that the connection closes: it is answered, and told then (RFC 9112, 9.5).
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// A client's connection and what its task waits with.
pub(crate) struct Connection {
    pub(crate) shard: Rc<Shard>,
    pub(crate) client: Client,
    pub(crate) timer: Timer,
    pub(crate) wire: Wire,
    /// What was configured when the client came.
    limits: HeadLimits,
    /// Since when there is no request.
    pub(crate) idle_since: Instant,
}

/// What becomes of a connection after a request.
pub(crate) enum After {
    /// It carries the next one.
    Next,
    /// All that was to be said is said.
    Close,
    /// The same, and the client may still be sending what nobody will read: the close must not cut off our answer.
    Linger,
    /// Something is missing that no framing shows the client.
    Reset,
    Tunnel(Box<Tunnel>),
}

/// What comes of waiting for a request.
enum Next {
    Request(RequestHead),
    /// What came was none.
    Refused(ProxyError),
    /// The client has left, or may not go on.
    Nothing,
}

/// Serves a client until either side is done.
pub(crate) async fn serve(ticket: &Ticket, shard: Rc<Shard>, stream: TcpStream, peer: SocketAddr) {
    // Small responses must not wait for the client's acknowledgements. Where it fails the connection is gone already.
    let _ = stream.set_nodelay(true);
    let view = shard.view();
    let config = &view.snapshot.config;
    let (trusted, limits) = (
        config.forwarded.trusts(peer.ip()),
        head_limits(&config.limits),
    );
    drop(view);
    let mut connection = Connection {
        shard,
        client: Client::new(peer.ip(), trusted),
        timer: Timer::new(),
        wire: Wire::new(stream),
        limits,
        idle_since: Instant::now(),
    };
    poll_fn(|cx| {
        ticket.wake_on_drain(cx);
        Poll::Ready(())
    })
    .await;
    match connection.run().await {
        After::Next | After::Close => {}
        After::Linger => connection.linger().await,
        After::Reset => {
            // Where it fails the client has noticed by itself.
            let _ = SockRef::from(&connection.wire.stream).set_linger(Some(Duration::ZERO));
        }
        After::Tunnel(tunnel) => {
            let client = End {
                early: connection.wire.input.data().to_vec(),
                stream: connection.wire.stream,
            };
            if let Err(error) = tunnel.run(client).await {
                tracing::debug!(%peer, %error, "tunnel ended early");
            }
        }
    }
}

impl Connection {
    async fn run(&mut self) -> After {
        loop {
            let mut wait = Wait::default();
            let next = poll_fn(|cx| self.poll_next(cx, &mut wait)).await;
            let after = match next {
                Next::Request(head) => proxy::forward(self, head).await,
                Next::Refused(error) => self.refuse(error, Terms::NONE, None).await,
                Next::Nothing => After::Close,
            };
            match after {
                After::Next => self.wire.input.release(&self.shard.buffers),
                after => return after,
            }
        }
    }

    /// Reads up to the end of a head.
    fn poll_next(&mut self, cx: &mut Context<'_>, wait: &mut Wait) -> Poll<Next> {
        loop {
            if let Some(next) = self.next_in_buffer(wait) {
                return Poll::Ready(next);
            }
            let Poll::Ready(read) = self.wire.poll_fill(cx, &self.shard.buffers) else {
                break;
            };
            if !matches!(read, Ok(count) if count > 0) {
                return Poll::Ready(Next::Nothing);
            }
        }
        let begun = !self.wire.input.is_empty();
        let timeouts = self.shard.view().snapshot.config.timeouts;
        if !begun {
            let idle = if self.shard.is_draining() {
                timeouts.idle.min(DRAIN_IDLE)
            } else {
                timeouts.idle
            };
            ready!(self.timer.poll(cx, self.idle_since + idle));
            return Poll::Ready(Next::Nothing);
        }
        let since = *wait.begun.get_or_insert_with(Instant::now);
        ready!(self.timer.poll(cx, since + timeouts.request_head));
        Poll::Ready(Next::Refused(ProxyError::HeadTimeout))
    }

    fn next_in_buffer(&mut self, wait: &mut Wait) -> Option<Next> {
        // Some clients send an empty line behind a body (RFC 9112, 2.2).
        if !wait.skipped && self.wire.input.data().starts_with(b"\r\n") {
            wait.skipped = true;
            wait.search = Search::default();
            self.wire.input.consume(2);
        }
        let data = self.wire.input.data();
        if data.is_empty() {
            return None;
        }
        let length = match wait.search.find(data, self.limits) {
            Ok(length) => length?,
            Err(error) => return Some(Next::Refused(refusal(error))),
        };
        let text = data.get(..length).unwrap_or_default();
        let head = head::request(text, self.limits, &self.shard.buffers);
        self.wire.input.consume(length);
        Some(match head {
            Ok(head) => Next::Request(head),
            Err(error) => Next::Refused(refusal(error)),
        })
    }

    /// Answers in place of a backend. What is there of the request's body is read, so that the connection can go on.
    pub(crate) async fn refuse(
        &mut self,
        error: ProxyError,
        terms: Terms,
        upload: Option<&mut Upload>,
    ) -> After {
        if error == ProxyError::ClientGone {
            return After::Close;
        }
        let whole = !error.closes() && self.discard(upload).await;
        let keeps = whole && terms.keeps && !self.shard.is_draining();
        let mut out = self.shard.buffers.take_output();
        let dates = &self.shard.dates;
        dates.with(|date| error.write_to(&mut out, terms, keeps, date));
        let written = self.write(&out).await;
        self.shard.buffers.give_output(out);
        match written {
            Err(_) => After::Close,
            Ok(()) if keeps => {
                self.idle_since = Instant::now();
                After::Next
            }
            Ok(()) => self.close(whole),
        }
    }

    /// Closes without cutting off what was said. `whole` where the last request has been read to its end.
    pub(crate) fn close(&self, whole: bool) -> After {
        if whole && self.wire.input.is_empty() {
            After::Close
        } else {
            After::Linger
        }
    }

    /// Reads what is there of a request's body; true where that was all of it.
    pub(crate) async fn discard(&mut self, upload: Option<&mut Upload>) -> bool {
        let Some(upload) = upload else { return false };
        let (wire, buffers) = (&mut self.wire, &self.shard.buffers);
        poll_fn(|cx| Poll::Ready(upload.poll_discard(cx, wire, buffers))).await
    }

    /// Writes all of it to the client, who has to take something from time to time.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut written, mut since) = (0, None);
        poll_fn(|cx| {
            let mut moved = false;
            let stream = &mut self.wire.stream;
            let polled = buffer::poll_write(cx, stream, bytes, &mut written, &mut moved);
            if polled.is_ready() {
                return polled;
            }
            if moved {
                since = None;
            }
            let timeout = self.shard.view().snapshot.config.timeouts.response;
            let since = *since.get_or_insert_with(Instant::now);
            ready!(self.timer.poll(cx, since + timeout));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// Reads and throws away until the client has closed its side, so that the system does not reset the connection
    /// under an answer that is still on its way (RFC 9112, 9.6).
    async fn linger(&mut self) {
        const LINGER: Duration = Duration::from_secs(2);
        let until = Instant::now() + LINGER;
        let mut closed = false;
        poll_fn(|cx| {
            if !closed {
                if ready!(Pin::new(&mut self.wire.stream).poll_shutdown(cx)).is_err() {
                    return Poll::Ready(());
                }
                closed = true;
            }
            loop {
                self.wire.input.clear();
                match self.wire.poll_fill(cx, &self.shard.buffers) {
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.timer.poll(cx, until),
                }
                // A client that never stops sending keeps this loop ready.
                if Instant::now() >= until {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

/// How far the wait for a request has come.
#[derive(Default)]
struct Wait {
    search: Search,
    skipped: bool,
    begun: Option<Instant>,
}

pub(crate) fn head_limits(limits: &Limits) -> HeadLimits {
    HeadLimits {
        bytes: limits.head,
        lines: limits.fields,
    }
}

fn refusal(error: HeadError) -> ProxyError {
    match error {
        HeadError::Malformed(reason) => ProxyError::BadRequest(reason),
        HeadError::LongLine => ProxyError::TargetTooLong,
        HeadError::Large => ProxyError::HeadTooLarge,
    }
}
