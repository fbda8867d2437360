//! Holds policies to the contract, and to what they promise.

mod balanced;
mod case;
pub mod certificate;
mod consistent;
mod key;
mod law;
mod least_loaded;
mod limits;
pub mod native;
pub mod play;
pub mod random;
pub mod report;
mod rewrites;
mod shrink;
mod state;
mod sticky;
pub mod subject;
pub mod traffic;

pub use case::{CONTRACT, Case, Options, SUITE, cases, run};
