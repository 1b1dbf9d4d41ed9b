//! Output that must fit a JSON schema, a regular expression or a grammar: which tokens may come
//! next, by llguidance.
//!
//! A request's form is compiled once, away from the model thread and under limits of size, depth,
//! work and time; the model thread then asks for a mask before each choice, whose work is bounded
//! too. It must not know requests, logits of more than one row, or channels.

mod calls;
mod compile;
mod schema;
#[cfg(test)]
mod tests;
mod track;

pub use calls::{CallWriting, Calls, Function};
pub use compile::{Constraints, Form, FormError, Vocabulary};
pub use schema::SchemaError;
pub use track::{Constraint, ConstraintLost};
