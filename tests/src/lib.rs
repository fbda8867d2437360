//! The harness of the end-to-end tests: a proxy in this process, backends and clients on real sockets.
//!
//! A test starts some [`Origin`]s (backends that do exactly what a script says and keep what they were sent), puts a
//! [`Proxy`] in front of them, configured by the text that a user would write, and talks to it as a [`Client`] that
//! sees every byte.
//!
//! ```ignore
//! let origin = Origin::echo("a").await;
//! let proxy = Proxy::before(&[&origin]).await;
//! let mut client = Client::connect(&proxy).await;
//! assert_eq!(client.get("/").await.status(), 200);
//! assert_eq!(origin.requests()[0].target(), "/");
//! ```
//!
//! Nothing here sleeps to let something happen: [`until`] waits for a condition, [`within`] bounds every wait, and
//! what takes longer than [`PATIENCE`] fails the test with a word on what it waited for.

mod client;
mod message;
mod origin;
mod proxy;
mod wait;
mod wire;

pub use self::client::Client;
pub use self::message::{Framing, Head, Request, Response};
pub use self::origin::{Gate, Origin, Refusing, Unreachable, Visit};
pub use self::proxy::{Proxy, servers};
pub use self::wait::{PATIENCE, settled, until, within};
pub use self::wire::{End, Reader, Wire};
