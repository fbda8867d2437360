//! Bodies on their way through: streamed piece by piece, never collected.
//!
//! A [`Pump`] carries one body in one direction: it reads only when what it has read before is written, so that a slow
//! reader stops the sender. What is small goes out together with its head; what is large is written from the buffer it
//! was read into. An [`Upload`] is the pump towards a backend with what the rest of the proxy has to know of it.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::http1::buffer::{self, Input};
use crate::http1::framing::{Piece, write_chunk_size};
use crate::http1::{Buffers, Decoder, Fields, Framing, Name, Wire, fields, head};

/// Pieces up to this size are copied behind what is to be written before them: one system call less.
const COPY_MAX: usize = 16 * 1024;
/// How much of a body that nobody wants is read in one go, to keep its connection.
const DISCARD_MAX: u64 = 256 * 1024;

/// Carries a body from one connection to another.
#[derive(Debug)]
pub(crate) struct Pump {
    decoder: Decoder,
    pub(crate) shape: Shape,
    /// What is to be written before anything else: a head, chunks.
    pub(crate) out: Vec<u8>,
    written: usize,
    /// Bytes at the beginning of the input that are to be written from there.
    direct: usize,
    /// Content that may still come.
    allowance: u64,
    fault: Option<Fault>,
    /// The content so far.
    pub(crate) content: u64,
    /// Something has moved since this was last asked for.
    moved: bool,
}

/// How a body is framed for its receiver.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Shape {
    /// Without anything around it.
    #[default]
    Plain,
    /// In chunks, and behind them the trailers that may go on.
    Chunked(Declared),
}

/// The trailers that a head has announced, in lower case. Others go no further: a recipient could take them for more
/// than they are (RFC 9110, 6.5.1).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Declared(Vec<Vec<u8>>);

/// Why a body does not go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    TooLarge,
    /// The sender has left, or its framing is broken.
    Broken,
    /// The receiver takes no more.
    Refused,
}

/// Whom a pump waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waits {
    Sender,
    Receiver,
}

impl Declared {
    pub(crate) fn by(fields: &Fields) -> Declared {
        /// What a trailer must not change: framing, routing, credentials, and how the content is read.
        const NEVER: [&str; 8] = [
            "age",
            "cache-control",
            "content-encoding",
            "content-range",
            "content-type",
            "range",
            "set-cookie",
            "www-authenticate",
        ];
        if !fields.has(Name::Trailer) {
            return Declared::default();
        }
        let names = fields.elements(Name::Trailer);
        let allowed = names.filter(|name| {
            Name::of(name) == Name::Other
                && !NEVER
                    .iter()
                    .any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
        });
        Declared(allowed.map(<[u8]>::to_ascii_lowercase).collect())
    }

    fn write(&self, trailers: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        // Also those that go no further have to be well-formed.
        let fields = head::trailers(trailers).map_err(|_| Fault::Broken)?;
        for (name, value) in fields.iter() {
            if self.0.contains(&name.to_ascii_lowercase()) {
                fields::write_line(out, name, value);
            }
        }
        Ok(())
    }
}

impl Pump {
    pub(crate) fn new(framing: Framing, shape: Shape, out: Vec<u8>) -> Pump {
        Pump {
            decoder: Decoder::new(framing),
            shape,
            out,
            written: 0,
            direct: 0,
            allowance: u64::MAX,
            fault: None,
            content: 0,
            moved: false,
        }
    }

    /// The whole body has been read.
    pub(crate) fn is_read(&self) -> bool {
        self.decoder.is_done() && self.fault.is_none()
    }

    /// Whether something has moved since this was last asked.
    pub(crate) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Bytes of the input that belong to the body and are not written yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.direct
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Reads until there is something to write or nothing more to come; pending where the sender has to say more.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
        stream: &mut TcpStream,
        buffers: &Buffers,
    ) -> Poll<()> {
        loop {
            let full = self.direct > 0 || self.out.len() - self.written > COPY_MAX;
            if full || self.fault.is_some() || self.decoder.is_done() {
                return Poll::Ready(());
            }
            if input.is_empty() {
                match ready!(input.poll_fill(cx, stream, buffers)) {
                    Ok(count) if count > 0 => self.moved = true,
                    Ok(_) if self.decoder.close() => {
                        self.finish();
                        return Poll::Ready(());
                    }
                    Ok(_) | Err(_) => {
                        self.fault = Some(Fault::Broken);
                        return Poll::Ready(());
                    }
                }
            }
            self.take(input);
        }
    }

    /// Takes the next piece of the input.
    fn take(&mut self, input: &mut Input) {
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let count = match self.decoder.next(input.data()) {
            Ok(Piece::Frame(count)) => {
                input.consume(count);
                0
            }
            Ok(Piece::Content(count)) => count,
            Err(_) => {
                self.fault = Some(Fault::Broken);
                return;
            }
        };
        if count > 0 {
            let Some(allowance) = self.allowance.checked_sub(count as u64) else {
                self.fault = Some(Fault::TooLarge);
                return;
            };
            self.allowance = allowance;
            self.content += count as u64;
            let content = input.data().get(..count).unwrap_or_default();
            match self.shape {
                Shape::Plain if self.out.is_empty() || count > COPY_MAX => self.direct = count,
                Shape::Plain => self.out.extend_from_slice(content),
                Shape::Chunked(_) => {
                    write_chunk_size(&mut self.out, count);
                    self.out.extend_from_slice(content);
                    self.out.extend_from_slice(b"\r\n");
                }
            }
            if self.direct == 0 {
                input.consume(count);
            }
        }
        if self.decoder.is_done() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Shape::Chunked(declared) = &self.shape {
            self.out.extend_from_slice(b"0\r\n");
            if self.decoder.trailers.len() > 2
                && let Err(fault) = declared.write(&self.decoder.trailers, &mut self.out)
            {
                // Without its last line the body does not look complete.
                self.fault = Some(fault);
                return;
            }
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Writes what there is to write.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Input,
        stream: &mut TcpStream,
    ) -> Poll<Result<(), Fault>> {
        let refused = |_| Fault::Refused;
        // A large piece goes along with the head before it, which by itself would wake the receiver for nothing.
        while self.direct > 0 && self.written < self.out.len() {
            let content = input.data().get(..self.direct).unwrap_or_default();
            let (out, written) = (&self.out, &mut self.written);
            let polled = buffer::poll_write_both(cx, stream, out, content, written);
            let count = ready!(polled).map_err(refused)?;
            self.moved = true;
            self.direct -= count;
            input.consume(count);
        }
        let (out, written) = (&self.out, &mut self.written);
        let polled = buffer::poll_write(cx, stream, out, written, &mut self.moved);
        ready!(polled).map_err(refused)?;
        while self.direct > 0 {
            let mut count = 0;
            let content = input.data().get(..self.direct).unwrap_or_default();
            let polled = buffer::poll_write(cx, stream, content, &mut count, &mut self.moved);
            input.consume(count);
            self.direct -= count;
            ready!(polled).map_err(refused)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Carries the body on; while it is pending, `waits` says for whom.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut TcpStream,
        buffers: &Buffers,
        held: bool,
        waits: &mut Waits,
    ) -> Poll<Result<(), Fault>> {
        loop {
            let read = match held {
                true => Poll::Pending,
                false => self.poll_read(cx, &mut from.input, &mut from.stream, buffers),
            };
            *waits = Waits::Receiver;
            ready!(self.poll_write(cx, &mut from.input, to))?;
            if let Some(fault) = self.fault {
                return Poll::Ready(Err(fault));
            }
            if self.decoder.is_done() {
                return Poll::Ready(Ok(()));
            }
            *waits = Waits::Sender;
            ready!(read);
        }
    }

    /// Reads what is there of the body and throws it away; true where that was all of it.
    fn poll_discard(&mut self, cx: &mut Context<'_>, from: &mut Wire, buffers: &Buffers) -> bool {
        self.shape = Shape::Plain;
        let until = self.content + DISCARD_MAX;
        while self.fault.is_none() && self.content < until {
            from.input.consume(std::mem::take(&mut self.direct));
            self.written = self.out.len();
            if self.decoder.is_done() {
                return true;
            }
            if self
                .poll_read(cx, &mut from.input, &mut from.stream, buffers)
                .is_pending()
            {
                return false;
            }
        }
        false
    }
}

/// A client's body on its way to a backend, and the request's head before it.
#[derive(Debug)]
pub(crate) struct Upload {
    pump: Pump,
    /// All is sent, or nothing more will be.
    over: bool,
    /// All has been read from the client.
    whole: bool,
    /// Until when the body is held back for the backend's 100 (RFC 9110, 10.1.1); one that knows nothing of the
    /// expectation would wait forever.
    held_until: Option<Instant>,
    /// When a piece last moved.
    pub(crate) progress: Instant,
    pub(crate) waits: Waits,
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

/// How long a client's `Expect: 100-continue` waits for the backend's word.
const GO_AHEAD_TIMEOUT: Duration = Duration::from_secs(1);

impl Upload {
    pub(crate) fn new(framing: Framing, declared: Declared, now: Instant) -> Upload {
        let shape = match framing {
            Framing::Chunked => Shape::Chunked(declared),
            Framing::Empty | Framing::Length(_) | Framing::UntilClose => Shape::Plain,
        };
        let pump = Pump::new(framing, shape, Vec::new());
        let whole = pump.is_read();
        Upload {
            pump,
            over: false,
            whole,
            held_until: None,
            progress: now,
            waits: Waits::Sender,
        }
    }

    pub(crate) fn limit(&mut self, bytes: Option<u64>) {
        self.pump.allowance = bytes.unwrap_or(u64::MAX);
    }

    /// The body is sent when the backend has asked for it, or some time has passed.
    pub(crate) fn hold(&mut self) {
        if !self.whole {
            self.held_until = Some(self.progress + GO_AHEAD_TIMEOUT);
        }
    }

    /// Until when the body is held back.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    pub(crate) fn release(&mut self, now: Instant) {
        self.held_until = None;
        self.progress = now;
    }

    pub(crate) fn is_chunked(&self) -> bool {
        matches!(self.pump.shape, Shape::Chunked(_))
    }

    /// There is no body, so that nothing is lost where the head is sent again.
    pub(crate) fn is_empty(&self) -> bool {
        self.whole && self.pump.content == 0
    }

    /// Nothing more will be read from the client for this request, because all has been.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Nothing more will be written for this request.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The head that goes before the body.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        self.pump.out.clear();
        self.rewind();
        &mut self.pump.out
    }

    /// Has the head sent again, over another connection.
    pub(crate) fn rewind(&mut self) {
        self.pump.written = 0;
        self.over = false;
    }

    /// Sends what can be sent.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut TcpStream,
        buffers: &Buffers,
    ) -> Poll<Result<(), Fault>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let held = self.held_until.is_some();
        let polled = self.pump.poll(cx, from, to, buffers, held, &mut self.waits);
        self.whole = self.pump.is_read();
        self.over = polled.is_ready();
        polled
    }

    /// Takes note of progress; the time since the last one is what counts against the deadlines.
    pub(crate) fn note_progress(&mut self) {
        if self.pump.has_moved() {
            self.progress = Instant::now();
        }
    }

    /// Reads what is there of the body and throws it away; true where that was all of it.
    pub(crate) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        buffers: &Buffers,
    ) -> bool {
        if !self.whole {
            self.whole = self.pump.poll_discard(cx, from, buffers);
        }
        self.whole
    }

    /// Gives the memory back.
    pub(crate) fn end(self, buffers: &Buffers) {
        buffers.give_output(self.pump.out);
    }

    /// Memory for the head.
    pub(crate) fn take_memory(&mut self, buffers: &Buffers) {
        self.pump.out = buffers.take_output();
    }
}
