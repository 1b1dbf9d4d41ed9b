//! The client against a real listener that answers as the script says.

mod calls;
mod server;
mod streams;
