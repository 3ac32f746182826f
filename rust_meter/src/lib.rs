//! The compiled meter of Farebox.

#[cfg(feature = "python")]
mod py;
