//! The tests that look at the whole: layering, house rules, and the product run end to end.

mod layering;
mod tidy;
