//! A connection and what is read from it, byte for byte.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::message::{Framing, Head, Response};
use crate::wait::within;

/// One end of a connection. The halves can be used at the same time.
#[derive(Debug)]
pub struct Wire {
    pub reader: Reader,
    pub writer: OwnedWriteHalf,
}

/// The receiving half, with what was received and not yet asked for.
#[derive(Debug)]
pub struct Reader {
    stream: OwnedReadHalf,
    unread: Vec<u8>,
}

/// How the other side ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Closed,
    Reset,
}

/// A body as far as it came.
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) chunks: Vec<u8>,
    pub(crate) whole: bool,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).expect("a connected socket");
        let (stream, writer) = stream.into_split();
        let unread = Vec::new();
        Wire {
            reader: Reader { stream, unread },
            writer,
        }
    }

    /// Writes all of it, or says why not.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(
            "the other side to take what is sent",
            self.writer.write_all(bytes.as_ref()),
        )
        .await
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .expect("the other side takes what is sent");
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) {
        self.writer.shutdown().await.expect("an open connection");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let stream = self
            .reader
            .stream
            .reunite(self.writer)
            .expect("two halves of one connection");
        stream.set_zero_linger().expect("a connected socket");
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.writer.local_addr().expect("a connected socket")
    }
}

impl Reader {
    /// Waits for more bytes.
    async fn fill(&mut self) -> Result<(), End> {
        let mut piece = vec![0; 64 * 1024];
        let read = within("bytes or the end of the connection", async {
            self.stream.read(&mut piece).await
        });
        match read.await {
            Ok(0) => Err(End::Closed),
            Ok(length) => {
                self.unread.extend_from_slice(&piece[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(End::Reset),
            Err(error) => panic!("cannot read: {error}"),
        }
    }

    fn split(&mut self, length: usize) -> Vec<u8> {
        let rest = self.unread.split_off(length);
        std::mem::replace(&mut self.unread, rest)
    }

    /// The next head, or how the connection ended before one. Half a head is a panic.
    pub async fn try_head(&mut self) -> Result<Head, End> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            if let Some(at) = self
                .unread
                .windows(END.len())
                .position(|bytes| bytes == END)
            {
                return Ok(Head::parse(self.split(at + END.len())));
            }
            if let Err(end) = self.fill().await {
                let text = String::from_utf8_lossy(&self.unread);
                assert!(
                    self.unread.is_empty(),
                    "{end:?} in the middle of a head: {text:?}"
                );
                return Err(end);
            }
        }
    }

    pub async fn head(&mut self) -> Head {
        match self.try_head().await {
            Ok(head) => head,
            Err(end) => panic!("expected a head, and the connection ended: {end:?}"),
        }
    }

    /// Exactly `length` bytes.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            if let Err(end) = self.fill().await {
                panic!("{end:?} after {} of {length} bytes", self.unread.len());
            }
        }
        self.split(length)
    }

    /// At least one byte of what comes next; none at the end.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.unread.is_empty() {
            let _ = self.fill().await;
        }
        std::mem::take(&mut self.unread)
    }

    /// Waits, for as long as it takes, until there is something to read or the connection has ended.
    pub async fn idle(&self) {
        if self.unread.is_empty() {
            self.stream.readable().await.expect("an open socket");
        }
    }

    /// Throws away what has come; how the connection ended where nothing will.
    pub async fn skip(&mut self) -> Result<(), End> {
        if self.unread.is_empty() {
            self.fill().await?;
        }
        self.unread.clear();
        Ok(())
    }

    /// All that still comes, and how it ends.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill().await {
                return (std::mem::take(&mut self.unread), end);
            }
        }
    }

    /// A response, whole or not; the answer to a HEAD has no body, whatever its fields say.
    pub async fn response(&mut self, to_head: bool) -> Response {
        let head = self.head().await;
        let framing = head.response_framing(to_head);
        let body = self.body(framing).await;
        Response {
            head,
            body: body.bytes,
            chunks: body.chunks,
            framing,
            whole: body.whole,
        }
    }

    pub(crate) async fn body(&mut self, framing: Framing) -> Body {
        match framing {
            Framing::Length(length) => self.sized(length).await,
            Framing::Chunked => self.chunked().await,
            Framing::UntilClose => {
                let (bytes, end) = self.rest().await;
                Body {
                    bytes,
                    chunks: Vec::new(),
                    whole: end == End::Closed,
                }
            }
        }
    }

    async fn sized(&mut self, length: u64) -> Body {
        let length = usize::try_from(length).expect("a length that fits into memory");
        while self.unread.len() < length && self.fill().await.is_ok() {}
        let whole = self.unread.len() >= length;
        let bytes = self.split(length.min(self.unread.len()));
        Body {
            bytes,
            chunks: Vec::new(),
            whole,
        }
    }

    async fn chunked(&mut self) -> Body {
        let mut body = Body {
            bytes: Vec::new(),
            chunks: Vec::new(),
            whole: false,
        };
        while let Some(line) = self.line(&mut body.chunks).await {
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                // Trailers, if any, and the empty line.
                while let Some(line) = self.line(&mut body.chunks).await {
                    body.whole = line.is_empty();
                    if body.whole {
                        break;
                    }
                }
                break;
            }
            let piece = self.sized(size as u64 + 2).await;
            body.chunks.extend_from_slice(&piece.bytes);
            body.bytes
                .extend_from_slice(&piece.bytes[..piece.bytes.len().min(size)]);
            if !piece.whole {
                break;
            }
            assert_eq!(&piece.bytes[size..], b"\r\n", "the end of a chunk");
        }
        body
    }

    async fn line(&mut self, record: &mut Vec<u8>) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|bytes| bytes == b"\r\n") {
                let line = self.split(at + 2);
                record.extend_from_slice(&line);
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().await.ok()?;
        }
    }
}
