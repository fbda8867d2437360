//! The floor: a relay that moves bytes between two sockets and looks at none of them.
//!
//! One thread, one connection to an origin for each from a client, four system calls for a request and its response
//! (two reads, two writes) beside the waiting. What a proxy costs more than this, it spends on being a proxy.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::Context as _;
use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

/// Read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// The token of the listener; sockets have their position.
const LISTENER: u64 = u64::MAX;

/// One end of a pair; the other one is its neighbour.
struct End {
    stream: TcpStream,
    /// What the other end sent and this one's socket has not taken.
    pending: Vec<u8>,
    written: usize,
}

/// Relays until the process is stopped, connections in turn to each of the servers.
pub(crate) fn run(listen: SocketAddr, servers: &[SocketAddr]) -> anyhow::Result<()> {
    let listener = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    listener.set_reuse_address(true)?;
    listener.bind(&listen.into()).context("cannot listen")?;
    listener.listen(4096)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let readable = epoll::EventFlags::IN;
    epoll::add(
        &epoll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        readable,
    )?;
    // Places are not used again while their pair may have events left: the pair of a closed one goes with it.
    let mut ends: Vec<Option<End>> = Vec::new();
    let mut turns = servers.iter().cycle();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Vec::with_capacity(256);
    loop {
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (token, flags) = (event.data.u64(), event.flags);
            if token != LISTENER {
                advance(&epoll, &mut ends, token as usize, flags, &mut buffer);
                continue;
            }
            while let Ok((socket, _)) = listener.accept() {
                let server = turns.next().context("no servers")?;
                for stream in [socket.into(), TcpStream::connect(server)?] {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(
                        &epoll,
                        &stream,
                        epoll::EventData::new_u64(ends.len() as u64),
                        readable,
                    )?;
                    ends.push(Some(End {
                        stream,
                        pending: Vec::new(),
                        written: 0,
                    }));
                }
            }
        }
    }
}

fn advance(
    epoll: impl std::os::fd::AsFd + Copy,
    ends: &mut [Option<End>],
    position: usize,
    flags: epoll::EventFlags,
    buffer: &mut [u8],
) {
    let (first, second) = (position & !1, position | 1);
    let Some([one, two]) = ends.get_mut(first..=second) else {
        return;
    };
    let (here, there) = if position == first {
        (&mut *one, &mut *two)
    } else {
        (&mut *two, &mut *one)
    };
    let (Some(this), Some(other)) = (here.as_mut(), there.as_mut()) else {
        return;
    };
    let token = |position: usize| epoll::EventData::new_u64(position as u64);
    let mut step = || -> io::Result<bool> {
        if flags.contains(epoll::EventFlags::OUT) && this.flush()? {
            epoll::modify(epoll, &this.stream, token(position), epoll::EventFlags::IN)?;
            epoll::modify(
                epoll,
                &other.stream,
                token(position ^ 1),
                epoll::EventFlags::IN,
            )?;
        }
        if !flags
            .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            || !other.pending.is_empty()
        {
            return Ok(true);
        }
        let count = this.stream.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if !other.send(bytes)? {
            // Nothing more from here before that is gone.
            epoll::modify(
                epoll,
                &this.stream,
                token(position),
                epoll::EventFlags::empty(),
            )?;
            epoll::modify(
                epoll,
                &other.stream,
                token(position ^ 1),
                epoll::EventFlags::OUT,
            )?;
        }
        Ok(count > 0)
    };
    match step() {
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(false) | Err(_) => (*one, *two) = (None, None),
    }
}

impl End {
    /// Writes what it can and keeps the rest. Returns whether all is written.
    fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let count = match self.stream.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let rest = bytes.get(count..).unwrap_or_default();
        self.pending.extend_from_slice(rest);
        Ok(rest.is_empty())
    }

    fn flush(&mut self) -> io::Result<bool> {
        while let Some(rest) = self
            .pending
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match self.stream.write(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.pending.clear();
        self.written = 0;
        Ok(true)
    }
}
