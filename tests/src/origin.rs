//! Backends that follow a script and keep what they were sent.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::message::{Head, Request};
use crate::wait::{until, within};
use crate::wire::{End, Wire};

/// A backend on a port of its own. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    log: Arc<Log>,
    accepting: AbortHandle,
}

#[derive(Debug, Default)]
struct Log {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    panicked: AtomicBool,
}

/// A connection that an origin's script has to deal with. It is closed when this is dropped.
#[derive(Debug)]
pub struct Visit {
    pub wire: Wire,
    /// Which of the origin's connections this is, from 0.
    pub connection: usize,
    log: Arc<Log>,
}

/// Holds an origin's responses back.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Origin {
    /// Has every connection dealt with by `script`.
    pub async fn start<F, S>(script: F) -> Origin
    where
        F: Fn(Visit) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Origin::on(listener, script)
    }

    fn on<F, S>(listener: TcpListener, script: F) -> Origin
    where
        F: Fn(Visit) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("a bound socket");
        let log = Arc::new(Log::default());
        let accepting = tokio::spawn(accept(listener, log.clone(), script)).abort_handle();
        Origin {
            address,
            log,
            accepting,
        }
    }

    /// Answers every request with 200, its own name in `X-Origin`, and the request's body.
    pub async fn echo(name: &'static str) -> Origin {
        Origin::start(move |mut visit: Visit| async move {
            while let Some(request) = visit.request().await {
                visit.answer(name, &request.body).await;
            }
        })
        .await
    }

    /// Answers every request with exactly these bytes, and keeps the connection.
    pub async fn respond(bytes: impl AsRef<[u8]>) -> Origin {
        let bytes: Arc<[u8]> = Arc::from(bytes.as_ref());
        Origin::start(move |mut visit: Visit| {
            let bytes = bytes.clone();
            async move {
                while visit.request().await.is_some() {
                    visit.send(&bytes).await;
                }
            }
        })
        .await
    }

    /// Answers every connection's first request with exactly these bytes, then closes.
    pub async fn respond_and_close(bytes: impl AsRef<[u8]>) -> Origin {
        let bytes: Arc<[u8]> = Arc::from(bytes.as_ref());
        Origin::start(move |mut visit: Visit| {
            let bytes = bytes.clone();
            async move {
                if visit.request().await.is_some() {
                    visit.send(&bytes).await;
                }
            }
        })
        .await
    }

    /// Like [`Origin::echo`], but each answer waits for the gate.
    pub async fn gated(name: &'static str) -> (Origin, Gate) {
        let gate = Gate::shut();
        let held = gate.clone();
        let origin = Origin::start(move |mut visit: Visit| {
            let gate = held.clone();
            async move {
                while let Some(request) = visit.request().await {
                    gate.pass().await;
                    visit.answer(name, &request.body).await;
                }
            }
        })
        .await;
        (origin, gate)
    }

    /// Takes requests and never answers.
    pub async fn silent() -> Origin {
        Origin::start(|mut visit: Visit| async move { while visit.request().await.is_some() {} })
            .await
    }

    /// Takes a request and resets the connection.
    pub async fn resetting() -> Origin {
        Origin::start(|mut visit: Visit| async move {
            visit.request().await;
            visit.reset();
        })
        .await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Connections that the script is not done with.
    pub fn open(&self) -> usize {
        self.log.open.load(Ordering::SeqCst)
    }

    /// What it was sent, in order; a request is in here before it is answered.
    pub fn requests(&self) -> Vec<Request> {
        self.log.requests().clone()
    }

    /// As [`Origin::requests`], and forgets them.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.log.requests())
    }

    pub fn request_count(&self) -> usize {
        self.log.requests().len()
    }

    /// Waits until that many requests have come.
    pub async fn received(&self, count: usize) {
        let what = format!("{count} requests at {}", self.address);
        until(&what, || self.request_count() >= count).await;
    }

    /// The request, if it was the only one.
    pub fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "requests: {requests:?}");
        requests[0].clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
        let panicked = self.log.panicked.load(Ordering::SeqCst);
        assert!(
            !panicked || std::thread::panicking(),
            "an origin's script panicked"
        );
    }
}

impl Log {
    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept<F, S>(listener: TcpListener, log: Arc<Log>, script: F)
where
    F: Fn(Visit) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut visits = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a listening socket");
        let connection = log.connections.fetch_add(1, Ordering::SeqCst);
        log.open.fetch_add(1, Ordering::SeqCst);
        let over = Over(log.clone());
        let visit = Visit {
            wire: Wire::new(stream),
            connection,
            log: log.clone(),
        };
        let dealt_with = script(visit);
        visits.spawn(async move {
            let _over = over;
            dealt_with.await;
        });
        while visits.try_join_next().is_some() {}
    }
}

/// Takes note of a visit's end.
struct Over(Arc<Log>);

impl Drop for Over {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::SeqCst);
        }
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Visit ===

impl Visit {
    /// The next request with its body; `None` once the other side has closed.
    pub async fn request(&mut self) -> Option<Request> {
        let head = self.patient_head().await?;
        let body = self.wire.reader.body(head.request_framing()).await;
        let request = Request {
            head,
            body: body.bytes,
            chunks: body.chunks,
            whole: body.whole,
            connection: self.connection,
        };
        self.log.requests().push(request.clone());
        Some(request)
    }

    /// The next request's head; its body is left to be read. It is kept as a request without one.
    pub async fn head(&mut self) -> Option<Head> {
        let head = self.patient_head().await?;
        self.log.requests().push(Request {
            head: head.clone(),
            body: Vec::new(),
            chunks: Vec::new(),
            whole: false,
            connection: self.connection,
        });
        Some(head)
    }

    /// A connection may be idle for as long as the test takes.
    async fn patient_head(&mut self) -> Option<Head> {
        self.wire.reader.idle().await;
        self.wire.reader.try_head().await.ok()
    }

    /// Sends bytes as they are. That the other side may be gone is for the test to see.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.try_send(bytes).await;
    }

    /// 200 with a body and the name of who answers.
    pub async fn answer(&mut self, name: &str, body: &[u8]) {
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Origin: {name}\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat()).await;
    }

    /// Waits for the other side to close, taking whatever it still sends.
    pub async fn closed(&mut self) -> End {
        loop {
            self.wire.reader.idle().await;
            if let Err(end) = self.wire.reader.skip().await {
                return end;
            }
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.wire.reset();
    }
}

// === impl Gate ===

impl Gate {
    pub fn shut() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }

    /// Lets that many pass, now or when they come.
    pub fn release(&self, count: usize) {
        self.0.add_permits(count);
    }

    /// Lets everybody pass from now on.
    pub fn open(&self) {
        self.0.close();
    }

    pub async fn pass(&self) {
        // An error is a gate that stands open.
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

// === addresses where nobody answers ===

/// A port that refuses connections and that nobody else gets meanwhile.
#[derive(Debug)]
pub struct Refusing {
    socket: TcpSocket,
}

impl Refusing {
    pub fn new() -> Refusing {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        Refusing { socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Refuses no longer; see [`Origin::echo`].
    pub fn into_echo(self, name: &'static str) -> Origin {
        let listener = self.socket.listen(1024).expect("a bound socket");
        Origin::on(listener, move |mut visit: Visit| async move {
            while let Some(request) = visit.request().await {
                visit.answer(name, &request.body).await;
            }
        })
    }
}

impl Default for Refusing {
    fn default() -> Self {
        Refusing::new()
    }
}

/// A port where connections neither succeed nor fail: as many as may wait to be accepted do, and nobody accepts.
#[derive(Debug)]
pub struct Unreachable {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Unreachable {
    pub async fn new() -> Unreachable {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        // The system lets one more wait than it was told.
        let listener = socket.listen(1).expect("a bound socket");
        let address = listener.local_addr().expect("a bound socket");
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let connected = within("a place in the queue", TcpStream::connect(address)).await;
            waiting.push(connected.expect("a place in the queue"));
        }
        Unreachable {
            listener,
            _waiting: waiting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }
}
