//! `ai-semble-data-processor`: tables in, tables out. Everything is in the library.

fn main() {}
