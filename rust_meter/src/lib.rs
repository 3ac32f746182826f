//! The compiled meter of Farebox.

#[cfg(feature = "python")]
mod py;

pub mod head;
pub mod money;
pub mod price;
pub mod scan;
