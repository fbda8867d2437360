//! Load and origins in one thread: clients of the proxy and the servers behind it do the same system calls as the
//! proxy itself, so they had better do nothing else.
//!
//! Sockets are level-triggered and read once per event. Everything that is sent has been made before.

mod client;
mod origin;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::histogram::Histogram;
use crate::traffic::Traffic;
use client::Client;
use origin::Origin;

/// Read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// Taken from the kernel at once.
const EVENTS: usize = 256;
/// Requests that are due within this time are sent together: a load that wakes for each of them would do little else.
const TICK: Duration = Duration::from_micros(50);
/// A request without an answer for so long has failed.
const STALLED: Duration = Duration::from_secs(2);
/// Connections that are accepted, or made, before anything else happens.
const BATCH: usize = 64;

/// What happened since the last [`Engine::reset`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) responses: u64,
    /// Bytes of bodies, or of messages, that came back.
    pub(crate) body_bytes: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// From when a request was sent, or due, to the last byte of its response.
    pub(crate) latency: Histogram,
}

/// The clients of a proxy and the origins behind it.
pub(crate) struct Engine {
    slots: Vec<Slot>,
    free: Vec<usize>,
    shared: Shared,
    schedule: Option<Schedule>,
    idle_to_open: usize,
}

/// What the connections have in common.
struct Shared {
    epoll: OwnedFd,
    proxy: SocketAddr,
    traffic: Traffic,
    buffer: Box<[u8]>,
    counts: Counts,
    /// Connections from the proxy since the beginning.
    upstream_connections: u64,
    /// Required fields that did not arrive at an origin.
    missing: Vec<String>,
}

/// A place for a connection. Events that were meant for the one before it have another generation.
#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

enum Connection {
    Listener(Socket),
    Origin(Box<Origin>),
    Client(Box<Client>),
}

/// What becomes of a connection after an event.
enum Next {
    Keep,
    /// The response is complete.
    Answered,
    /// Nothing was lost.
    Close,
    Fail(String),
}

/// When requests are due.
struct Schedule {
    interval: Duration,
    next: Instant,
    /// Due, but no connection was free.
    late: VecDeque<Instant>,
    ready: Vec<usize>,
    /// How many connections may be opened, where each carries only one request.
    vacancies: usize,
}

impl Engine {
    /// Origins that listen on every loopback address, at a port that [`port`](Self::port) tells.
    pub(crate) fn new(traffic: Traffic) -> anyhow::Result<Engine> {
        let listener = listener().context("cannot listen for the proxy's connections")?;
        let port = listener
            .local_addr()?
            .as_socket()
            .context("not an IP socket")?
            .port();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut engine = Engine {
            slots: Vec::new(),
            free: Vec::new(),
            schedule: None,
            idle_to_open: traffic.idle,
            shared: Shared {
                epoll,
                // The port of the origins until `connect` names the proxy.
                proxy: SocketAddr::from(([127, 0, 0, 1], port)),
                traffic,
                buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
                counts: Counts::default(),
                upstream_connections: 0,
                missing: Vec::new(),
            },
        };
        let slot = engine.vacant();
        engine.shared.watch(&listener, engine.token(slot))?;
        engine.put(slot, Connection::Listener(listener));
        Ok(engine)
    }

    /// Where the origins listen.
    pub(crate) fn port(&self) -> u16 {
        self.shared.proxy.port()
    }

    /// Waits until a first request through the proxy is answered as it should be.
    pub(crate) fn wait_for(
        &mut self,
        proxy: SocketAddr,
        patience: Duration,
        mut is_alive: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        self.shared.proxy = proxy;
        let give_up = Instant::now() + patience;
        loop {
            let slot = self.open_client(Instant::now())?;
            if let Some(client) = self.client(slot) {
                client.retire();
            }
            let attempt = Instant::now() + Duration::from_millis(500);
            while self.client(slot).is_some() && Instant::now() < attempt {
                self.turn(Instant::now() + Duration::from_millis(1))?;
                if self.shared.counts.responses > 0 {
                    self.close(slot);
                    self.reset();
                    self.shared.missing.clear();
                    return Ok(());
                }
            }
            self.close(slot);
            if Instant::now() > give_up || !is_alive() {
                let why = self.shared.counts.first_error.take();
                anyhow::bail!("no answer: {}", why.as_deref().unwrap_or("nothing at all"));
            }
            self.reset();
            self.turn(Instant::now() + Duration::from_millis(1))?;
        }
    }

    /// Opens the connections that the traffic asks for.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.schedule = self.shared.traffic.rate.map(|rate| Schedule {
            interval: Duration::from_secs_f64(1.0 / rate),
            next: now,
            late: VecDeque::new(),
            ready: Vec::new(),
            vacancies: 0,
        });
        // The idle ones first, a few at a time, or the proxy's queue overflows.
        let give_up = now + Duration::from_secs(60);
        while self.idle_to_open > 0 {
            let batch = self.idle_to_open.min(BATCH);
            let before = self.shared.counts.responses;
            for _ in 0..batch {
                let slot = self.open_client(Instant::now())?;
                if let Some(client) = self.client(slot) {
                    client.retire();
                }
            }
            while self.shared.counts.responses < before + batch as u64 {
                self.turn(Instant::now() + Duration::from_millis(10))?;
                let failed = self.shared.counts.errors > 0 || Instant::now() > give_up;
                anyhow::ensure!(
                    !failed,
                    "idle connections: {:?}",
                    self.shared.counts.first_error
                );
            }
            self.idle_to_open -= batch;
        }
        for _ in 0..self.shared.traffic.connections {
            self.open_client(now)?;
        }
        Ok(())
    }

    /// Lets traffic flow for a while.
    pub(crate) fn run(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.send_due()?;
            let wake = match &self.schedule {
                Some(schedule) => (schedule.next + TICK).min(end),
                None => end,
            };
            self.turn(wake)?;
        }
        Ok(())
    }

    /// Begins to count anew.
    pub(crate) fn reset(&mut self) {
        let latency = &mut self.shared.counts.latency;
        latency.clear();
        self.shared.counts = Counts {
            latency: std::mem::take(latency),
            ..Counts::default()
        };
    }

    /// What happened since the last reset; requests that nobody answers count as errors.
    pub(crate) fn counts(&mut self) -> Counts {
        let stalled = self.slots.iter().filter(|slot| match &slot.connection {
            Some(Connection::Client(client)) => client.waits_longer_than(STALLED),
            _ => false,
        });
        let stalled = stalled.count() as u64;
        if stalled > 0 {
            self.shared.counts.errors += stalled;
            let message = format!("{stalled} requests without an answer for {STALLED:?}");
            self.shared.counts.first_error.get_or_insert(message);
        }
        self.shared.counts.clone()
    }

    /// Connections from the proxy to the origins since the beginning.
    pub(crate) fn upstream_connections(&self) -> u64 {
        self.shared.upstream_connections
    }

    /// Required fields that did not arrive at an origin.
    pub(crate) fn missing(&self) -> &[String] {
        &self.shared.missing
    }

    /// Handles what has happened, or waits for it until `wake`.
    fn turn(&mut self, wake: Instant) -> anyhow::Result<()> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; EVENTS];
        let wait = wake.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs())?,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let count = match epoll::wait(&self.shared.epoll, &mut events, Some(&timeout)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error).context("epoll"),
        };
        for event in events.get(..count).unwrap_or_default() {
            let token = event.data.u64();
            let (slot, generation) = ((token & 0xffff_ffff) as usize, (token >> 32) as u32);
            if self
                .slots
                .get(slot)
                .is_some_and(|slot| slot.generation == generation)
            {
                self.handle(slot)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, slot: usize) -> anyhow::Result<()> {
        let token = self.token(slot);
        let Some(connection) = self
            .slots
            .get_mut(slot)
            .and_then(|slot| slot.connection.as_mut())
        else {
            return Ok(());
        };
        match connection {
            Connection::Listener(_) => self.accept(slot),
            Connection::Origin(origin) => {
                match origin.advance(&mut self.shared, token) {
                    Next::Keep | Next::Answered => {}
                    Next::Close => self.close(slot),
                    Next::Fail(why) => self.fail(slot, &format!("origin: {why}")),
                }
                Ok(())
            }
            Connection::Client(client) => {
                let retired = client.is_retired();
                match client.advance(&mut self.shared, token) {
                    Next::Answered if !retired => return self.next_request(slot),
                    Next::Keep | Next::Answered => {}
                    Next::Close => self.fail(slot, "client: closed between two requests"),
                    Next::Fail(why) => self.fail(slot, &format!("client: {why}")),
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, slot: usize) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            let Some(Connection::Listener(listener)) = self.connection(slot) else {
                return Ok(());
            };
            let (socket, _) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            let slot = self.vacant();
            self.shared.watch(&socket, self.token(slot))?;
            self.shared.upstream_connections += 1;
            self.put(
                slot,
                Connection::Origin(Box::new(Origin::new(socket.into()))),
            );
        }
        Ok(())
    }

    /// The connection of a client has had its response: what now?
    fn next_request(&mut self, slot: usize) -> anyhow::Result<()> {
        let ended = self.client(slot).is_none_or(|client| client.ended());
        if ended || !self.shared.traffic.reuse {
            self.close(slot);
            let due = match &mut self.schedule {
                None => Some(Instant::now()),
                Some(schedule) => schedule.late.pop_front(),
            };
            return match (due, &mut self.schedule) {
                (Some(due), _) => self.open_client(due).map(|_| ()),
                (None, Some(schedule)) => {
                    schedule.vacancies += 1;
                    Ok(())
                }
                (None, None) => Ok(()),
            };
        }
        let due = match &mut self.schedule {
            None => Instant::now(),
            Some(schedule) => match schedule.late.pop_front() {
                Some(due) => due,
                None => {
                    schedule.ready.push(slot);
                    return Ok(());
                }
            },
        };
        self.send(slot, due);
        Ok(())
    }

    fn send(&mut self, slot: usize, due: Instant) {
        let token = self.token(slot);
        let connection = self
            .slots
            .get_mut(slot)
            .and_then(|slot| slot.connection.as_mut());
        if let Some(Connection::Client(client)) = connection
            && let Next::Fail(why) = client.send(&self.shared, token, due)
        {
            self.fail(slot, &format!("client: {why}"));
        }
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        loop {
            let Some(schedule) = self
                .schedule
                .as_mut()
                .filter(|schedule| schedule.next <= now)
            else {
                return Ok(());
            };
            let due = schedule.next;
            schedule.next += schedule.interval;
            if let Some(slot) = schedule.ready.pop() {
                self.send(slot, due);
            } else if schedule.vacancies > 0 {
                schedule.vacancies -= 1;
                self.open_client(due)?;
            } else {
                schedule.late.push_back(due);
            }
        }
    }

    fn open_client(&mut self, due: Instant) -> anyhow::Result<usize> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.shared.proxy.into()) {
            Ok(()) => {}
            // Over the loopback interface it stands by now, or else writing will say so.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => {
                self.shared.fail(format!("client: connect: {error}"));
            }
        }
        let slot = self.vacant();
        self.shared.watch(&socket, self.token(slot))?;
        self.put(
            slot,
            Connection::Client(Box::new(Client::new(socket.into()))),
        );
        self.send(slot, due);
        Ok(slot)
    }

    fn client(&mut self, slot: usize) -> Option<&mut Client> {
        match self.connection(slot)? {
            Connection::Client(client) => Some(client),
            _ => None,
        }
    }

    fn connection(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.connection.as_mut()
    }

    fn vacant(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        })
    }

    fn token(&self, slot: usize) -> u64 {
        let generation = self.slots.get(slot).map_or(0, |slot| slot.generation);
        u64::from(generation) << 32 | slot as u64
    }

    fn put(&mut self, slot: usize, connection: Connection) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.connection = Some(connection);
        }
    }

    /// A connection that failed is not replaced: the round is void anyhow.
    fn fail(&mut self, slot: usize, why: &str) {
        self.shared.fail(why.to_owned());
        self.close(slot);
    }

    fn close(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot)
            && place.connection.take().is_some()
        {
            place.generation += 1;
            self.free.push(slot);
        }
    }
}

impl Shared {
    fn watch(&self, socket: impl AsFd, token: u64) -> rustix::io::Result<()> {
        epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(token),
            interest(false),
        )
    }

    fn fail(&mut self, why: String) {
        self.counts.errors += 1;
        self.counts.first_error.get_or_insert(why);
    }
}

fn interest(writable: bool) -> epoll::EventFlags {
    if writable {
        epoll::EventFlags::IN | epoll::EventFlags::OUT
    } else {
        epoll::EventFlags::IN
    }
}

/// Listens on all addresses of the loopback interface, and on that interface alone.
fn listener() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.bind_device(Some(b"lo"))?;
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into())?;
    socket.listen(4096)?;
    Ok(socket)
}

/// What is left to be written of something that was made before.
#[derive(Clone, Copy, Debug, Default)]
struct Outgoing {
    left: usize,
    /// Whether we are to be told when there is room for it.
    waits: bool,
}

/// A socket's buffer is full, or everything has been written.
enum Written {
    All,
    Part,
}

impl Outgoing {
    /// Writes the last `left` of these bytes.
    fn write(
        &mut self,
        socket: &std::net::TcpStream,
        bytes: &[u8],
        epoll: &OwnedFd,
        token: u64,
    ) -> io::Result<Written> {
        while self.left > 0 {
            let rest = bytes
                .len()
                .checked_sub(self.left)
                .and_then(|begin| bytes.get(begin..));
            match io::Write::write(&mut &*socket, rest.unwrap_or_default()) {
                Ok(count) => self.left -= count.min(self.left),
                Err(error) if is_pending(&error) => {
                    if !self.waits {
                        self.waits = true;
                        epoll::modify(
                            epoll,
                            socket,
                            epoll::EventData::new_u64(token),
                            interest(true),
                        )?;
                    }
                    return Ok(Written::Part);
                }
                Err(error) => return Err(error),
            }
        }
        if self.waits {
            self.waits = false;
            epoll::modify(
                epoll,
                socket,
                epoll::EventData::new_u64(token),
                interest(false),
            )?;
        }
        Ok(Written::All)
    }
}

/// No room, or no connection yet.
fn is_pending(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay;
    use crate::traffic::Exchange;

    fn traffic(exchange: Exchange) -> Traffic {
        Traffic {
            connections: 3,
            idle: 0,
            rate: None,
            reuse: true,
            exchange,
            required: vec!["host", "x-tenant", "via"],
        }
    }

    /// Sends this through the relay until there are a hundred responses.
    fn relayed(traffic: Traffic) -> (Counts, Engine) {
        let mut engine = Engine::new(traffic).unwrap();
        let origin = SocketAddr::from(([127, 1, 0, 1], engine.port()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        drop(listener);
        // It ends with the tests.
        std::thread::spawn(move || relay::run(proxy, &[origin]));
        engine
            .wait_for(proxy, Duration::from_secs(10), || true)
            .unwrap();
        engine.start().unwrap();
        engine.reset();
        let give_up = Instant::now() + Duration::from_secs(10);
        while engine.shared.counts.responses < 100 && Instant::now() < give_up {
            engine.run(Duration::from_millis(1)).unwrap();
        }
        let counts = engine.counts();
        assert!(counts.responses >= 100, "{counts:?}");
        assert_eq!((counts.errors, counts.first_error.clone()), (0, None));
        (counts, engine)
    }

    #[test]
    fn responses_are_counted_and_what_is_missing_is_named() {
        let (counts, engine) = relayed(traffic(Exchange::http(0, 1000, true)));
        assert_eq!(counts.body_bytes, counts.responses * 1000);
        // One for the first request, which is not counted.
        assert_eq!(engine.upstream_connections(), 3 + 1);
        assert_eq!(engine.missing(), ["via"]);
    }

    #[test]
    fn large_bodies_pass_both_ways() {
        let (counts, _) = relayed(traffic(Exchange::http(0, 1 << 20, true)));
        assert!(counts.body_bytes >= counts.responses << 20);
        relayed(traffic(Exchange::http(64 * 1024, 1, true)));
    }

    #[test]
    fn each_request_may_have_a_connection_of_its_own() {
        let mut traffic = traffic(Exchange::http(0, 10, false));
        traffic.reuse = false;
        let (counts, engine) = relayed(traffic);
        assert!(engine.upstream_connections() >= counts.responses);
    }

    #[test]
    fn connections_are_made_at_a_rate() {
        let mut traffic = traffic(Exchange::http(0, 10, false));
        (traffic.reuse, traffic.rate) = (false, Some(5000.0));
        relayed(traffic);
    }

    #[test]
    fn messages_are_echoed() {
        relayed(traffic(Exchange::web_socket(100)));
    }

    #[test]
    fn requests_are_sent_at_a_rate() {
        let mut traffic = traffic(Exchange::http(0, 10, true));
        traffic.rate = Some(5000.0);
        relayed(traffic);
    }

    #[test]
    fn idle_connections_have_one_request_each() {
        let mut traffic = traffic(Exchange::http(0, 10, true));
        traffic.idle = 100;
        let (_, engine) = relayed(traffic);
        assert_eq!(engine.upstream_connections(), 100 + 3 + 1);
    }
}
