//! Bodies on their way through: streamed piece by piece, never collected, with a deadline for each piece.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::connection::ExchangeGuard;
use crate::flight::Flight;
use crate::shard::Shard;
use crate::timer::Timer;
use crate::upstream::connect::Link;
use crate::upstream::{Ending, Failure};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === towards the backend ===

/// What is sent to a backend.
pub(crate) enum RequestBody {
    Empty,
    Streamed(Box<Upload>),
}

/// A client's body on its way to a backend.
pub(crate) struct Upload {
    body: Incoming,
    /// Bytes that may still come.
    allowance: u64,
    report: Rc<UploadReport>,
    timer: Rc<Timer>,
    timeout: Duration,
    go_ahead: Option<GoAhead>,
}

/// What the proxy wants to know of a body that hyper is sending.
#[derive(Debug)]
pub(crate) struct UploadReport {
    fault: Cell<Option<UploadFault>>,
    progress: Cell<Instant>,
    finished: Cell<bool>,
}

/// Why a client's body could not be forwarded to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UploadFault {
    /// Larger than allowed.
    TooLarge,
    /// Nothing came for too long.
    Timeout,
    /// The client left, or its framing broke.
    Broken,
}

/// Holds a body back until the backend says 100 (RFC 9110, 10.1.1) or has had its time to.
struct GoAhead {
    said: Arc<AtomicBool>,
    /// A backend that knows nothing of the expectation would wait forever.
    by: Instant,
}

/// How long a client's `Expect: 100-continue` waits for the backend's word.
const GO_AHEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// The two ends of an upload: what hyper sends and what the proxy watches.
pub(crate) fn upload(
    body: Incoming,
    limit: Option<u64>,
    timer: Rc<Timer>,
    timeout: Duration,
    expects: Option<Arc<AtomicBool>>,
) -> (RequestBody, Rc<UploadReport>) {
    let report = Rc::new(UploadReport {
        fault: Cell::new(None),
        progress: Cell::new(Instant::now()),
        finished: Cell::new(body.is_end_stream()),
    });
    if body.is_end_stream() {
        return (RequestBody::Empty, report);
    }
    let go_ahead = expects.map(|said| GoAhead {
        said,
        by: Instant::now() + GO_AHEAD_TIMEOUT,
    });
    let allowance = limit.unwrap_or(u64::MAX);
    let upload = Upload {
        body,
        allowance,
        report: report.clone(),
        timer,
        timeout,
        go_ahead,
    };
    (RequestBody::Streamed(Box::new(upload)), report)
}

impl UploadReport {
    pub(crate) fn fault(&self) -> Option<UploadFault> {
        self.fault.get()
    }

    /// When a piece last went out, the end of the body included.
    pub(crate) fn progress(&self) -> Instant {
        self.progress.get()
    }

    /// Nothing more will be read from the client for this request.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    fn fail(&self, fault: UploadFault) -> BoxError {
        self.fault.set(Some(fault));
        match fault {
            UploadFault::TooLarge => "request body over its limit".into(),
            UploadFault::Timeout => "request body timed out".into(),
            UploadFault::Broken => "request body broke off".into(),
        }
    }
}

impl Upload {
    fn poll_go_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(go_ahead) = &self.go_ahead {
            if !go_ahead.said.load(Ordering::Relaxed) {
                ready!(self.timer.poll(cx, go_ahead.by));
            }
            self.go_ahead = None;
            self.report.progress.set(Instant::now());
        }
        Poll::Ready(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.poll_go_ahead(cx));
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(
                self.timer
                    .poll(cx, self.report.progress.get() + self.timeout)
            );
            return Poll::Ready(Some(Err(self.report.fail(UploadFault::Timeout))));
        };
        self.report.progress.set(Instant::now());
        let frame = match frame {
            None => {
                self.report.finished.set(true);
                return Poll::Ready(None);
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(self.report.fail(UploadFault::Broken)))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.allowance.checked_sub(bytes) {
            Some(rest) => self.allowance = rest,
            None => return Poll::Ready(Some(Err(self.report.fail(UploadFault::TooLarge)))),
        }
        self.report.finished.set(self.body.is_end_stream());
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Streamed(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streamed(upload) => upload.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streamed(upload) => upload.body.size_hint(),
        }
    }
}

// === towards the client ===

/// What is sent to a client. While it lives, the exchange does.
pub(crate) struct ResponseBody {
    content: Content,
    _exchange: ExchangeGuard,
}

enum Content {
    /// Of our own making, or none.
    Own(Bytes),
    Streamed(Box<Download>),
}

/// A backend's body on its way to a client.
pub(crate) struct Download {
    pub(crate) body: Incoming,
    /// Given back to the pool at the end of the body.
    pub(crate) link: Option<Link>,
    pub(crate) flight: Flight,
    pub(crate) shard: Rc<Shard>,
    pub(crate) timer: Rc<Timer>,
    pub(crate) timeout: Duration,
    pub(crate) progress: Instant,
    /// What broke the body off, told with the next poll.
    pub(crate) broken: Option<hyper::Error>,
}

impl ResponseBody {
    pub(crate) fn own(content: Bytes, exchange: ExchangeGuard) -> ResponseBody {
        ResponseBody {
            content: Content::Own(content),
            _exchange: exchange,
        }
    }

    pub(crate) fn streamed(download: Download, exchange: ExchangeGuard) -> ResponseBody {
        ResponseBody {
            content: Content::Streamed(Box::new(download)),
            _exchange: exchange,
        }
    }
}

impl Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error.into())));
        }
        // The body asks, the connection reads, the body has it: in this order nothing waits for another task.
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() {
            if let Some(link) = &mut self.link {
                link.drive(cx);
            }
            frame = Pin::new(&mut self.body).poll_frame(cx);
        }
        let Poll::Ready(frame) = frame else {
            ready!(self.timer.poll(cx, self.progress + self.timeout));
            self.fail(Failure::Timeout);
            return Poll::Ready(Some(Err("response body timed out".into())));
        };
        self.progress = Instant::now();
        match frame {
            None => {
                self.finish(cx);
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                self.flight.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.body.is_end_stream() {
                    self.finish(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.fail(Failure::Reset);
                // An error makes hyper drop what it has not written. A pause first: the client gets what there was.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Gives the connection back at once where the response has no body.
    pub(crate) fn finish_if_empty(&mut self, cx: &mut Context<'_>) {
        if self.body.is_end_stream() {
            self.finish(cx);
        }
    }

    /// The whole body has come: the connection can carry the next exchange.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = self.link.take() {
            self.flight.release(cx, &self.shard, link);
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.link = None;
        self.flight.end(Ending::Failed(failure));
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().content {
            Content::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(download) => download.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_empty(),
            Content::Streamed(download) => download.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(download) => download.body.size_hint(),
        }
    }
}
