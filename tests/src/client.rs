//! A client that says exactly what it is told to say.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::message::Response;
use crate::proxy::Proxy;
use crate::wait::within;
use crate::wire::{End, Wire};

/// One connection to a proxy.
#[derive(Debug)]
pub struct Client {
    pub wire: Wire,
}

impl Client {
    pub async fn connect(proxy: &Proxy) -> Client {
        Client::try_connect(proxy)
            .await
            .expect("the proxy takes a connection")
    }

    pub async fn try_connect(proxy: &Proxy) -> io::Result<Client> {
        Client::try_connect_to(proxy.address()).await
    }

    /// For proxies that listen at several addresses.
    pub async fn try_connect_to(address: SocketAddr) -> io::Result<Client> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        let wire = Wire::new(stream);
        Ok(Client { wire })
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes).await;
    }

    /// Sends `GET target`, without waiting for the answer.
    pub async fn send_get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
    }

    /// Sends `GET target` and reads the answer.
    pub async fn get(&mut self, target: &str) -> Response {
        self.send_get(target).await;
        self.response().await
    }

    /// Sends `POST target` with a body and reads the answer.
    pub async fn post(&mut self, target: &str, body: &[u8]) -> Response {
        let length = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat()).await;
        self.response().await
    }

    /// Sends bytes and reads the answer to them.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes).await;
        self.response().await
    }

    /// The next response, which must come and be whole. An interim one (1xx) is a response of its own.
    pub async fn response(&mut self) -> Response {
        let response = self.wire.reader.response(false).await;
        assert!(response.whole, "the body broke off: {response:?}");
        response
    }

    /// The answer to a HEAD: it has no body, whatever its fields say.
    pub async fn response_to_head(&mut self) -> Response {
        self.wire.reader.response(true).await
    }

    /// The next response, whose body must break off.
    pub async fn broken_response(&mut self) -> Response {
        let response = self.wire.reader.response(false).await;
        assert!(!response.whole, "the response looks complete: {response:?}");
        response
    }

    /// Waits for the proxy to close the connection, cleanly and without another byte.
    pub async fn closed(&mut self) {
        let (bytes, end) = self.wire.reader.rest().await;
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!((text.as_ref(), end), ("", End::Closed));
    }

    /// Waits for the connection to end in whatever way, without another byte.
    pub async fn ended(&mut self) -> End {
        let (bytes, end) = self.wire.reader.rest().await;
        assert_eq!(String::from_utf8_lossy(&bytes), "");
        end
    }
}
