//! The sample origins: tiny servers on a thread of their own, each with a name and a delay.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Names and delays. One is slow, so that policies differ in what they make of it.
const ORIGINS: [(&str, Duration); 3] = [
    ("amber", Duration::from_millis(2)),
    ("birch", Duration::from_millis(2)),
    ("cedar", Duration::from_millis(40)),
];

/// How every answer begins.
pub(super) const GREETING: &str = "hello from ";

/// Running origins; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Origins {
    list: Vec<Origin>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One sample server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) delay: Duration,
}

impl Origins {
    /// Starts them on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// Where there is no free port or no thread.
    pub(super) fn start() -> io::Result<Origins> {
        let mut list = Vec::new();
        let mut sockets = Vec::new();
        for (name, delay) in ORIGINS {
            let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            let origin = Origin {
                name,
                address,
                delay,
            };
            list.push(origin);
            sockets.push((origin, socket));
        }
        // Made here, where an error can still be told.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("waypost-origins".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    for (origin, socket) in sockets {
                        tokio::spawn(serve(origin, socket));
                    }
                    // Dropping the sender tells as much as sending.
                    let _ = stopped.await;
                });
            })?;
        Ok(Origins {
            list,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Origin> {
        self.list.iter()
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Had it panicked, the log would have it.
            let _ = thread.join();
        }
    }
}

async fn serve(origin: Origin, socket: std::net::TcpListener) {
    /// Without descriptors there is nothing to do but wait for some.
    const PAUSE: Duration = Duration::from_millis(50);
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(origin.name, %error, "sample origin cannot listen"),
    };
    let answered = Arc::new(AtomicU64::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(origin, stream, answered.clone()));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn connection(origin: Origin, stream: TcpStream, answered: Arc<AtomicU64>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let number = answered.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            tokio::time::sleep(origin.delay).await;
            Ok::<_, Infallible>(answer(origin.name, number, &request))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A proxy that leaves is no error of the origin.
    let _ = connection.await;
}

fn answer<B>(name: &'static str, number: u64, request: &Request<B>) -> Response<Full<Bytes>> {
    let target = request.uri();
    let mut text = format!(
        "{GREETING}{name}: {} {target}, request {number}\n",
        request.method()
    );
    if target.path() == "/headers" {
        text.push('\n');
        for (field, value) in request.headers() {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{field}: {}",
                String::from_utf8_lossy(value.as_bytes())
            );
        }
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        HeaderName::from_static("x-origin"),
        HeaderValue::from_static(name),
    );
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn body(path: &str) -> String {
        let request = Request::get(path)
            .header("X-Real-IP", "192.0.2.1")
            .body(())
            .unwrap();
        let response = answer("amber", 17, &request);
        assert_eq!(response.headers()["x-origin"], "amber");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_answer_names_its_origin() {
        assert_eq!(
            body("/a?b=c").await,
            "hello from amber: GET /a?b=c, request 17\n"
        );
        assert_eq!(
            body("/headers").await,
            "hello from amber: GET /headers, request 17\n\nx-real-ip: 192.0.2.1\n"
        );
    }
}
