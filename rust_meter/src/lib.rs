//! The compiled meter of Farebox.

#[cfg(feature = "python")]
mod py;

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
pub mod normal;
pub mod pipe;
pub mod reading;
pub mod sse;
pub mod transfer;
pub mod tree;
pub mod usage;

pub mod head;
pub mod money;
pub mod price;
pub mod scan;
