//! Waypost: a reverse proxy and load balancer whose decisions are made by WebAssembly plugins.
//!
//! The modules follow a request: a [`server`] listens, a `shard` accepts, a `connection` reads, `proxy` forwards: it
//! finds the `route`, asks the `policy`, edits the `headers` and tries the backends of an `upstream`. `plugin` is the
//! only place that knows how a policy is run, `config` the only one that knows how a configuration is written, and
//! `snapshot` holds everything that a request may see. `control` makes the next snapshot while the server runs, for
//! `admin` and for itself.

#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod admin;
pub mod bench;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod control;
pub mod inspect;
pub mod server;
pub mod status;

mod answer;
mod body;
mod built_in;
mod connection;
mod demo;
mod error;
mod flight;
mod headers;
mod http1;
mod plugin;
mod policy;
mod proxy;
mod route;
mod shard;
mod snapshot;
mod timer;
mod tunnel;
mod upstream;

pub use self::server::Server;
pub use self::snapshot::{BuildError, PolicyError};
pub use self::upstream::BackendId;
