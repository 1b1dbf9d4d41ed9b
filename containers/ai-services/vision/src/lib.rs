//! The vision service: pictures in, classes, vectors, boxes, faces and text out.
//!
//! The way of a request: [`grpc`] (checks, limits) -> [`analyze`] (a picture is decoded and
//! prepared off the threads that carry calls) -> batcher (permit, queue) -> [`serving`] (pictures
//! of one size and model are one batch) -> [`models`] on [`compute`] -> [`analyze`] (answers, the
//! second stage of reading text, drawing). Networks of a model hub are in [`hub`]. See
//! docs/vision.md.

pub mod analyze;
pub mod annotate;
pub mod catalog;
pub mod compute;
pub mod config;
pub mod grpc;
pub mod host;
pub mod hub;
pub mod label_vectors;
pub mod models;
pub mod picture;
pub mod service;
pub mod serving;
pub mod warmup;
pub mod weights_file;
