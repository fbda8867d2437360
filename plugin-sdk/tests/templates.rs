//! What `waypost plugin new` begins with, and its tests.

#[path = "../../host/templates/balance.rs"]
pub mod balance;
#[path = "../../host/templates/headers.rs"]
pub mod headers;
#[path = "../../host/templates/sticky.rs"]
pub mod sticky;
