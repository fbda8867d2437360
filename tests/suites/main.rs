//! The end-to-end suites: one binary, one file per theme.

mod admin; // a running server asked and told things, through its admin socket
mod authoring; // policies as they are written: crates, builds, mistakes
mod balancing; // who gets a request: shares over shards and connections, states, routes
mod commands;
mod conformance; // what the suite for policies says of the shipped ones, of wrong ones, and of the host // the program itself: what it says, how it ends
mod containment; // policies that misbehave: refused, or contained
mod endings; // SIGTERM and SIGKILL under load
mod fields; // header fields: what is taken off, put on and passed through; `Expect`
mod forwarding; // messages on their way: framing, streaming, order, connections kept and closed
mod lifecycle; // drain, crash and replacement of shards
mod node; // real applications: Express, `cluster`, WebSockets
mod policies; // keys, cookies, canaries: the policies for more than shares
#[cfg(target_os = "linux")]
mod pressure; // readers that are slow: back-pressure in both directions
mod quarantine; // policies that keep failing: taken out, and tried again
mod reload; // another configuration while traffic flows: in one step, or not at all
mod retries; // failed attempts: who is tried next, who is left out
mod soak; // a thousand swaps under load, with figures
mod statuses; // every answer that is the proxy's own
mod swap; // another version of a policy while traffic flows: nothing dropped, nothing forgotten
mod upgrades; // tunnels, and what must not become one

mod guests; // policies to try it with
mod process; // programs that a test starts
