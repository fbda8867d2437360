//! Memory for bytes on their way. It belongs to the shard and is lent out only while there is something in it, so that
//! a connection without a request costs next to nothing.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Fields;

/// What is read at once; a head that is longer makes its buffer grow. Beside 64 KiB, a quarter of the time for bodies of
/// 64 KiB and 1 MiB is saved, and nothing is lost for small ones; twice as much saves no more.
const BUFFER_BYTES: usize = 256 * 1024;
/// How many of them wait for their next use.
const SPARE_INPUTS_MAX: usize = 64;
/// How much memory of each other kind does.
const SPARE_MAX: usize = 128;
/// What has grown beyond this is not kept.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// A shard's spare memory.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    inputs: RefCell<Vec<Vec<u8>>>,
    outputs: RefCell<Vec<Vec<u8>>>,
    fields: RefCell<Vec<Fields>>,
}

/// Bytes that were read and not used yet.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Lent by [`Buffers`], or empty.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// A connection, and what it has said that nobody has used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) input: Input,
}

impl Buffers {
    fn take_input(&self) -> Vec<u8> {
        let spare = self.inputs.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    fn give_input(&self, bytes: Vec<u8>) {
        let mut inputs = self.inputs.borrow_mut();
        if bytes.len() == BUFFER_BYTES && inputs.len() < SPARE_INPUTS_MAX {
            inputs.push(bytes);
        }
    }

    /// An empty buffer to write into.
    pub(crate) fn take_output(&self) -> Vec<u8> {
        self.outputs.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_output(&self, mut bytes: Vec<u8>) {
        let mut outputs = self.outputs.borrow_mut();
        if bytes.capacity() <= SPARE_BYTES_MAX && outputs.len() < SPARE_MAX {
            bytes.clear();
            outputs.push(bytes);
        }
    }

    pub(super) fn take_fields(&self) -> Fields {
        self.fields.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_fields(&self, mut fields: Fields) {
        let mut spare = self.fields.borrow_mut();
        if fields.capacity() <= SPARE_BYTES_MAX && spare.len() < SPARE_MAX {
            fields.clear();
            spare.push(fields);
        }
    }
}

impl Input {
    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes have been used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// What is left is of no use to anybody.
    pub(crate) fn clear(&mut self) {
        self.start = self.end;
    }

    /// Gives the memory back where nothing is left in it.
    pub(crate) fn release(&mut self, buffers: &Buffers) {
        if self.is_empty() && !self.bytes.is_empty() {
            buffers.give_input(std::mem::take(&mut self.bytes));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads what has come, behind what is there already; 0 is the end. Memory is taken only where bytes have come.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if self.is_empty() {
            if self.bytes.is_empty() {
                self.bytes = buffers.take_input();
            }
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        let space = self.bytes.get_mut(self.end..).unwrap_or_default();
        let mut space = ReadBuf::new(space);
        let polled = Pin::new(stream).poll_read(cx, &mut space);
        let count = space.filled().len();
        self.end += count;
        if self.is_empty() {
            self.release(buffers);
        }
        ready!(polled)?;
        Poll::Ready(Ok(count))
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        Wire {
            stream,
            input: Input::default(),
        }
    }

    /// As [`Input::poll_fill`].
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        self.input.poll_fill(cx, &mut self.stream, buffers)
    }

    /// Ready once the other side has closed or broken the connection. What it says is kept; behind that nothing is
    /// looked for.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<()> {
        if !self.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_fill(cx, buffers)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }
}

/// Writes until all is written; `written` keeps count over several polls, `moved` is set where something was taken.
pub(crate) fn poll_write(
    cx: &mut Context<'_>,
    stream: &mut TcpStream,
    bytes: &[u8],
    written: &mut usize,
    moved: &mut bool,
) -> Poll<io::Result<()>> {
    while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
        let count = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *written += count;
        *moved = true;
    }
    Poll::Ready(Ok(()))
}

/// As [`poll_write`] for what is left of `first`, with what of `second` goes along; says how much of `second` did.
pub(crate) fn poll_write_both(
    cx: &mut Context<'_>,
    stream: &mut TcpStream,
    first: &[u8],
    second: &[u8],
    written: &mut usize,
) -> Poll<io::Result<usize>> {
    let rest = first.get(*written..).unwrap_or_default();
    let slices = [IoSlice::new(rest), IoSlice::new(second)];
    let count = ready!(Pin::new(stream).poll_write_vectored(cx, &slices))?;
    if count == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    let of_first = count.min(rest.len());
    *written += of_first;
    Poll::Ready(Ok(count - of_first))
}
