//! A connection to the proxy: one request at a time, and a look at each response.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use super::{Next, Outgoing, Shared, Written};
use crate::http::ResponseReader;
use crate::traffic::COMPARED_BYTES_MAX;

/// One connection of the load.
pub(super) struct Client {
    stream: TcpStream,
    reader: ResponseReader,
    outgoing: Outgoing,
    /// When the request under way was due.
    due: Option<Instant>,
    /// It has one request, and then stays open for nothing.
    retired: bool,
    switched: bool,
    /// Of a message that has not come back entirely.
    received: usize,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Client {
        Client {
            stream,
            reader: ResponseReader::default(),
            outgoing: Outgoing::default(),
            due: None,
            retired: false,
            switched: false,
            received: 0,
        }
    }

    /// Sends no request after the one under way.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether the proxy has said that it closes the connection.
    pub(super) fn ended(&self) -> bool {
        self.reader.closes()
    }

    pub(super) fn waits_longer_than(&self, limit: Duration) -> bool {
        self.due.is_some_and(|due| due.elapsed() > limit)
    }

    /// Sends a request.
    pub(super) fn send(&mut self, shared: &Shared, token: u64, due: Instant) -> Next {
        self.due = Some(due);
        self.outgoing.left = self.outbound(shared).len();
        outcome(self.write(shared, token))
    }

    /// Goes on with writing, and reads what there is of the response.
    pub(super) fn advance(&mut self, shared: &mut Shared, token: u64) -> Next {
        if self.outgoing.left > 0 {
            match self.write(shared, token) {
                Ok(Next::Keep) if self.outgoing.left == 0 => return Next::Keep,
                Ok(_) => {}
                Err(error) => return Next::Fail(error.to_string()),
            }
        }
        let next = outcome(self.read(shared));
        if let Next::Answered = next
            && let Some(due) = self.due.take()
        {
            shared.counts.responses += 1;
            shared.counts.latency.record(due.elapsed());
        }
        next
    }

    fn outbound<'a>(&self, shared: &'a Shared) -> &'a [u8] {
        let exchange = &shared.traffic.exchange;
        match &exchange.message {
            Some(message) if self.switched => message,
            _ => &exchange.request,
        }
    }

    fn write(&mut self, shared: &Shared, token: u64) -> io::Result<Next> {
        let bytes = self.outbound(shared);
        match self
            .outgoing
            .write(&self.stream, bytes, &shared.epoll, token)?
        {
            Written::All | Written::Part => Ok(Next::Keep),
        }
    }

    fn read(&mut self, shared: &mut Shared) -> io::Result<Next> {
        let exchange = &shared.traffic.exchange;
        let passes_over =
            self.reader.body_left().is_some() && exchange.response_body > COMPARED_BYTES_MAX;
        let count = if passes_over {
            // The kernel drops the bytes instead of copying them.
            recv(&self.stream, &mut *shared.buffer, RecvFlags::TRUNC)?.1
        } else {
            self.stream.read(&mut shared.buffer)?
        };
        if count == 0 {
            return Ok(match self.due {
                Some(_) => Next::Fail("closed before the response was complete".to_owned()),
                None => Next::Close,
            });
        }
        if self.due.is_none() {
            return Ok(Next::Fail("bytes that nobody asked for".to_owned()));
        }
        let bytes = shared.buffer.get(..count).unwrap_or_default();
        if let Some(message) = exchange.message.as_ref().filter(|_| self.switched) {
            if message.get(self.received..self.received + count) != Some(bytes) {
                return Ok(Next::Fail("another message".to_owned()));
            }
            shared.counts.body_bytes += count as u64;
            self.received = (self.received + count) % message.len();
            return Ok(if self.received == 0 {
                Next::Answered
            } else {
                Next::Keep
            });
        }
        let taken = if passes_over {
            self.reader.skip(count)
        } else {
            self.reader.take(bytes, &exchange.expected())
        };
        match taken {
            Ok(true) => {
                shared.counts.body_bytes += exchange.response_body as u64;
                self.switched = exchange.message.is_some();
                Ok(Next::Answered)
            }
            Ok(false) => Ok(Next::Keep),
            Err(fault) => Ok(Next::Fail(format!("{fault:?} in a response"))),
        }
    }
}

fn outcome(result: io::Result<Next>) -> Next {
    match result {
        Ok(next) => next,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Keep,
        Err(error) => Next::Fail(error.to_string()),
    }
}
