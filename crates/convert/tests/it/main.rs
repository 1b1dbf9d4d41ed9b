//! Conversion from outside: files as their programs write them, files that lie, and real files
//! that were damaged. Nothing may panic, and nothing may become larger than the limits say.

#[cfg(test)]
mod graphs;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod real;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod torch;
