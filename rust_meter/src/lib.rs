//! The compiled meter of Farebox: request head and scan, response head, body pipe, usage reading, exact prices.
//!
//! Nothing here does I/O, keeps global state, recurses over input, panics on input or holds money as a float.
//! `py` is the only part that knows Python; without the feature `python` the crate is plain Rust.
//!
//! # The way of a body
//! `pipe` takes what the socket gave. `transfer` finds the body's bytes in it, `inflate` decodes compressed
//! ones for the meter only, `usage` finds the JSON documents in them (`sse` lines, AWS `frames`, bare JSON),
//! `json` reads each document along its format's `tree` into a `document`, `answer` puts the documents
//! together, `formats` and `normal` say what the numbers mean, `reading` is the result. What reaches the
//! client are the upstream's bytes; the only change ever made is the removal of an injected usage event.
//!
//! # Grammar accepted
//! - Chunked coding: 1 to 16 hexadecimal digits, optional extension of visible characters, CRLF; trailers of
//!   visible characters, each line ended by CRLF. Nothing else.
//! - Events: lines ended by LF, CR or CRLF, mixed and split anywhere; a byte order mark at the very start;
//!   a last event without its blank line counts. Each `data` line that begins a new JSON document begins a
//!   new document, also without a blank line between, and documents may be glued on one line.
//! - JSON: RFC 8259 along the format's paths. Control and non-UTF-8 bytes inside strings are let through, a
//!   bare word may stand where a literal may, and inside values nobody asked for only strings and the number
//!   of brackets are checked. A malformed document leaves no trace but a flag.
//! - Counts: non-negative integers, also written as `12.0`, `1.2e1` or `"12"`; fractions round up; what is
//!   negative, not finite or of another type is not reported. Everything odd raises a flag.
//!
//! # Limits
//! JSON depth: none (unfollowed values are skipped by counting; followed ones are as deep as the tree, at
//! most ten). Kept of one document: names of 256 bytes, numbers and keys of 256 bytes, a raw usage object of
//! 4 KiB, eight other models, 64 containers. Withheld of a stream: 64 KiB of one event, only while usage is
//! to be removed. Frames: 17 MiB with 128 KiB of headers, of which only the headers are kept. Chunk
//! extensions 1 KiB, trailers 8 KiB. Decompressed bytes: the caller's limit.
//!
//! # Guarantees
//! The reading does not depend on how the body was cut into pieces. Time is linear in the body's length,
//! memory bounded by the limits above. The same document gives the same reading in every framing. Duplicate
//! members: the last one stands, and is flagged. In a compressed body the terminal event is only placed to
//! the feed it came in, and usage is never removed.
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        reason = "a test fails by panicking"
    )
)]

#[cfg(feature = "python")]
mod py;

#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod pipe_tests;
#[cfg(test)]
mod settled_tests;

pub mod answer;
mod base64;
pub mod document;
pub mod fields;
pub mod flags;
pub mod formats;
mod frames;
mod inflate;
mod iterations;
pub mod json;
mod marks;
pub mod normal;
pub mod pipe;
pub mod plain;
pub mod reading;
pub mod sse;
pub mod transfer;
pub mod tree;
pub mod usage;

pub mod head;
pub mod head_facts;
pub mod journal;
pub mod money;
pub mod packed;
pub mod price;
pub mod request;
pub mod scan;
pub mod settled;
pub mod settlement;
pub mod unfinished;
