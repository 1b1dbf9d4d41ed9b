//! The client against a real listener that answers as the script says.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod server;
#[cfg(test)]
mod streams;
mod work;
