//! The admin socket: an HTTP/1 server for those who run the proxy, apart from every port that clients reach.
//!
//! | Request | What it does |
//! |---|---|
//! | `GET /status` | what the server is doing, as JSON, or as text for `Accept: text/plain` |
//! | `POST /reload` | reads the configuration again |
//! | `POST /policies/NAME` | new code for a policy: the body is a `.wasm` file |
//! | `POST /policies/NAME/rollback` | back to the code before |
//! | `POST /upstreams/NAME/backends/BACKEND` | `{"state": "drain"}`, `"down"` or `"ready"`, or `{"weight": 5}` |
//!
//! An answer is `{"changes": [...]}` or `{"error": "...", "help": "..."}`. Every change is a line of the log with the
//! target `audit`. The `endpoint` of a request says what is asked, `access` whether over TCP it may be, `answer` what
//! is said back.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::access::Access;
use self::answer::Answer;
use self::endpoint::{Change, Endpoint};
use self::socket::SocketFile;
use crate::config;
use crate::control::{Control, ControlError, Report};
use crate::status::Status;

mod access;
mod answer;
mod body;
mod endpoint;
pub(crate) mod path;
mod socket;
pub(crate) mod token;

pub(crate) use self::answer::message;
pub(crate) use self::body::CODE_BYTES_MAX;
pub(crate) use self::token::TokenError;

/// Connections at the same time, for the socket and for TCP each. People and scripts need a few.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request, which callers send at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the head of a request; hyper takes nothing less than 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// For a connection with its one request: policies take their time to compile, but no caller may stay for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Until the next try where no connection can be accepted, as when all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the admin socket cannot be served.
#[derive(Debug)]
pub enum AdminError {
    /// The directory in which the socket is to be is not there.
    Directory {
        /// Of the socket, as configured.
        path: PathBuf,
        /// What is wrong with the directory.
        problem: String,
    },
    /// The socket cannot be made; says why.
    Socket {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: Option<&'static str>,
    },
    /// The address cannot be listened on.
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The token cannot be used.
    Token(TokenError),
}

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdminError::Directory { path, problem } | AdminError::Socket { path, problem, .. } => {
                write!(f, "admin socket {}: {problem}", path.display())
            }
            AdminError::Listen { address, error } => {
                write!(f, "cannot listen on {address} for [admin.tcp]: {error}")
            }
            AdminError::Token(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AdminError {}

/// What keeps the admin socket open. Dropping it ends its connections and removes the socket file; what was begun is
/// still done.
#[derive(Debug)]
pub struct AdminGuard {
    /// The listeners and, in them, their connections.
    tasks: JoinSet<()>,
    _socket: Option<SocketFile>,
    tcp: Option<SocketAddr>,
}

impl AdminGuard {
    /// Where it listens for TCP, with the real port where 0 was configured.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }
}

/// What the requests are about. A trait so that tests can do without a server.
trait Target: Clone + Send + Sync + 'static {
    fn status(&self) -> Status;
    fn change(&self, change: Change) -> impl Future<Output = Result<Report, ControlError>> + Send;
}

impl Target for Control {
    fn status(&self) -> Status {
        Control::status(self)
    }

    async fn change(&self, change: Change) -> Result<Report, ControlError> {
        match change {
            Change::Reload => self.reload().await,
            Change::Push { policy, code } => self.push(&policy, code).await,
            Change::Rollback { policy } => self.rollback(&policy).await,
            Change::Backend {
                upstream,
                backend,
                change,
            } => self.set_backend(&upstream, &backend, change).await,
        }
    }
}

/// Opens what is configured, from within a tokio runtime, on which it then runs. Nothing where nothing is configured.
/// `file` is what [`Control::reload`] reads; errors point into it.
///
/// # Errors
/// The first thing that cannot be opened; nothing stays open then.
pub async fn serve(
    admin: &config::Admin,
    control: Control,
    file: Option<&Path>,
) -> Result<AdminGuard, AdminError> {
    open(admin, control, file).await
}

/// What [`serve`] would find wrong without opening anything.
///
/// # Errors
/// The first thing that stands in the way.
pub fn check(admin: &config::Admin) -> Result<(), AdminError> {
    if let Some(path) = &admin.socket {
        socket::check_directory(path)?;
    }
    if let Some(tcp) = &admin.tcp {
        token::read(&tcp.token_file).map_err(AdminError::Token)?;
    }
    Ok(())
}

async fn open<T: Target>(
    admin: &config::Admin,
    target: T,
    file: Option<&Path>,
) -> Result<AdminGuard, AdminError> {
    let mut guard = AdminGuard {
        tasks: JoinSet::new(),
        _socket: None,
        tcp: None,
    };
    let desk = Desk {
        access: None,
        target,
        file: file.map(Arc::from),
    };
    if let Some(tcp) = &admin.tcp {
        let token = token::read(&tcp.token_file).map_err(AdminError::Token)?;
        let refused = |error| AdminError::Listen {
            address: tcp.address,
            error,
        };
        let listener = TcpListener::bind(tcp.address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        guard.tcp = Some(address);
        let desk = Desk {
            access: Some(Arc::new(Access::new(token, address.ip()))),
            ..desk.clone()
        };
        guard.tasks.spawn(accept_tcp(listener, desk));
    }
    if let Some(path) = &admin.socket {
        let (listener, file) = socket::bind(path).await?;
        guard._socket = Some(file);
        guard.tasks.spawn(accept_unix(listener, desk));
    }
    Ok(guard)
}

// === connections ===

async fn accept_unix<T: Target>(listener: UnixListener, desk: Desk<T>) {
    let accept = || async {
        let (stream, _) = listener.accept().await?;
        let who = match stream.peer_cred() {
            Ok(peer) => match peer.pid() {
                Some(pid) => format!("uid {}, pid {pid}", peer.uid()),
                None => format!("uid {}", peer.uid()),
            },
            Err(_) => "somebody".to_owned(),
        };
        Ok((stream, who))
    };
    attend(accept, desk).await;
}

async fn accept_tcp<T: Target>(listener: TcpListener, desk: Desk<T>) {
    let accept = || async {
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer.to_string()))
    };
    attend(accept, desk).await;
}

/// Takes one connection after the other, and answers each in a task of its own. They end with this.
async fn attend<T, S, A, F>(accept: A, desk: Desk<T>)
where
    T: Target,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn() -> F,
    F: Future<Output = io::Result<(S, String)>>,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        // What is done is only forgotten when somebody asks.
        while connections.try_join_next().is_some() {}
        let (stream, who) = match accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let caller = Caller {
            who,
            desk: desk.clone(),
        };
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = caller.serve(stream).await {
                tracing::debug!(%error, "admin connection ended early");
            }
        });
    }
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Desk<T> {
    /// What a caller has to show; `None` where the system has seen to it.
    access: Option<Arc<Access>>,
    target: T,
    /// The configuration that a reload reads.
    file: Option<Arc<Path>>,
}

/// Whoever is at the other end of a connection.
#[derive(Clone)]
struct Caller<T> {
    /// For the audit.
    who: String,
    desk: Desk<T>,
}

impl<T: Target> Caller<T> {
    async fn serve<S>(self, stream: S) -> anyhow::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|request| {
            let caller = self.clone();
            async move { Ok::<_, std::convert::Infallible>(caller.respond(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            // One request each: nobody stays without a reason.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::time::timeout(CONNECTION_TIMEOUT, connection).await??;
        Ok(())
    }

    async fn respond(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = self.answer(request).await.unwrap_or_else(|refused| refused);
        answer.into_response()
    }

    /// In the order in which a request can be wrong; nothing is read from a caller who has not shown the token.
    async fn answer(self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let (head, body) = request.into_parts();
        if let Some(access) = &self.desk.access {
            access.admit(&head.headers, &self.who)?;
        }
        let endpoint = Endpoint::find(&head.method, head.uri.path())?;
        let body = body::read(&head.headers, body, endpoint.body_bytes_max()).await?;
        match endpoint.change(body)? {
            None => Ok(Answer::status(&self.desk.target.status(), &head.headers)),
            Some(change) => self.carry_out(change).await,
        }
    }

    /// In a task of its own: a caller who goes away stops nothing halfway and leaves nothing out of the audit.
    async fn carry_out(self, change: Change) -> Result<Answer, Answer> {
        let what = change.to_string();
        // What is wrong with pushed code stands in no file.
        let file = self.desk.file.filter(|_| change == Change::Reload);
        let work = tokio::spawn(async move {
            let result = self.desk.target.change(change).await;
            audit(&self.who, &what, &result);
            result
        });
        match work.await {
            Ok(Ok(report)) => Ok(Answer::changes(&report)),
            Ok(Err(error)) => Err(Answer::refused(&error, file.as_deref())),
            Err(_) => Err(Answer::broke_down()),
        }
    }
}

/// A line of the log about a change.
pub(crate) fn audit(who: &str, what: &str, result: &Result<Report, ControlError>) {
    match result {
        Ok(report) if report.changes.is_empty() => {
            tracing::info!(target: "audit", "audit: {what} by {who}: nothing has changed");
        }
        Ok(report) => {
            tracing::info!(target: "audit", "audit: {what} by {who}: {}", report.changes.join("; "));
        }
        Err(error) => {
            let reason = answer::first_line(error);
            tracing::warn!(target: "audit", "audit: {what} by {who}: refused: {reason}");
        }
    }
}

#[cfg(test)]
mod tests;
