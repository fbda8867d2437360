//! A connection from the proxy: each request on it gets the same response.

use std::io::{self, Read as _};
use std::net::TcpStream;

use super::{Next, Outgoing, Shared, Written};
use crate::http::{Arrived, RequestReader, field};

/// One connection of an origin.
pub(super) struct Origin {
    stream: TcpStream,
    reader: RequestReader,
    outgoing: Outgoing,
    inspected: bool,
    switched: bool,
    /// Of a message that has not arrived entirely.
    received: usize,
}

impl Origin {
    pub(super) fn new(stream: TcpStream) -> Origin {
        Origin {
            stream,
            reader: RequestReader::default(),
            outgoing: Outgoing::default(),
            inspected: false,
            switched: false,
            received: 0,
        }
    }

    /// Goes on with writing or with reading, whatever is due.
    pub(super) fn advance(&mut self, shared: &mut Shared, token: u64) -> Next {
        match self.step(shared, token) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Keep,
            // The proxy has closed a connection of its pool. If it did so too early, the client hears of it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Next::Close,
            Err(error) => Next::Fail(error.to_string()),
        }
    }

    fn step(&mut self, shared: &mut Shared, token: u64) -> io::Result<Next> {
        if self.outgoing.left > 0 {
            return self.write(shared, token);
        }
        let count = self.stream.read(&mut shared.buffer)?;
        if count == 0 {
            return Ok(Next::Close);
        }
        let bytes = shared.buffer.get(..count).unwrap_or_default();
        let exchange = &shared.traffic.exchange;
        if let Some(message) = exchange.message.as_ref().filter(|_| self.switched) {
            self.received += count;
            if self.received > message.len() {
                return Ok(Next::Fail("more than one message".to_owned()));
            }
            if self.received < message.len() {
                return Ok(Next::Keep);
            }
            self.received = 0;
            self.outgoing.left = message.len();
            return self.write(shared, token);
        }
        let (inspect, missing) = (!self.inspected, &mut shared.missing);
        let required = &shared.traffic.required;
        let arrived = self.reader.take(bytes, exchange.request_body, |head| {
            if inspect {
                note_missing(head, required, missing);
            }
        });
        match arrived {
            Ok(Arrived::Part) => Ok(Next::Keep),
            Ok(Arrived::Whole) => {
                self.inspected = true;
                self.outgoing.left = exchange.response.len();
                self.write(shared, token)
            }
            Err(fault) => Ok(Next::Fail(format!("{fault:?} in a request"))),
        }
    }

    fn write(&mut self, shared: &Shared, token: u64) -> io::Result<Next> {
        let exchange = &shared.traffic.exchange;
        let bytes = match &exchange.message {
            Some(message) if self.switched => message,
            _ => &exchange.response,
        };
        if let Written::All = self
            .outgoing
            .write(&self.stream, bytes, &shared.epoll, token)?
        {
            self.switched = exchange.message.is_some();
        }
        Ok(Next::Keep)
    }
}

fn note_missing(head: &[u8], required: &[&'static str], missing: &mut Vec<String>) {
    for name in required {
        let found = field(head, name.as_bytes()).is_some_and(|value| !value.is_empty());
        if !found && !missing.iter().any(|missing| missing == name) {
            missing.push((*name).to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_arrive_is_named_once() {
        let mut missing = Vec::new();
        for _ in 0..2 {
            let head = b"GET / HTTP/1.1\r\nHost: a\r\nVia:\r\n\r\n";
            note_missing(head, &["host", "via", "x-real-ip"], &mut missing);
        }
        assert_eq!(missing, ["via", "x-real-ip"]);
    }
}
