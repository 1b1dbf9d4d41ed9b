//! Unix sockets between our processes: binding one that nobody else holds, taking connections only
//! from known users, and the client's side.
//!
//! It must not know what is spoken over them.

mod accept;
mod bind;
mod client;

pub use accept::{CONNECTIONS_MAX, Connection, PeerPolicy, connections};
pub use bind::{Bound, Claim, Listener, SocketError, claim};
pub use client::channel;
