//! Content decoding for the meter: gzip and deflate, bounded; the relayed bytes stay as they came.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::usage::Meter;

/// The meter behind a limit on decoded bytes.
#[derive(Debug)]
pub struct Bounded {
    /// The meter.
    pub meter: Meter,
    left: u64,
    /// The limit was crossed.
    pub is_over: bool,
}

impl Bounded {
    fn new(meter: Meter, bytes_max: u64) -> Self {
        Self { meter, left: bytes_max, is_over: false }
    }
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(length) else {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.left = left;
        self.meter.feed(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A decoder in front of the meter.
#[derive(Debug)]
enum Decoder {
    Gzip(MultiGzDecoder<Bounded>),
    Zlib(ZlibDecoder<Bounded>),
    Deflate(DeflateDecoder<Bounded>),
    /// `deflate` before its first byte tells zlib from raw.
    Undecided(Option<Bounded>),
}

/// Decodes a body for its meter.
#[derive(Debug)]
pub struct Inflate {
    decoder: Decoder,
    is_stopped: bool,
}

impl Inflate {
    /// A decoder for `encoding` (gzip or deflate); `None` for any other.
    pub fn new(encoding: &str, meter: Meter, bytes_max: u64) -> Option<Self> {
        let bounded = Bounded::new(meter, bytes_max);
        let decoder = match encoding {
            "gzip" | "x-gzip" => Decoder::Gzip(MultiGzDecoder::new(bounded)),
            "deflate" => Decoder::Undecided(Some(bounded)),
            _ => return None,
        };
        Some(Self { decoder, is_stopped: false })
    }

    /// Decode the next bytes into the meter. What cannot be decoded ends metering and is flagged.
    pub fn feed(&mut self, data: &[u8]) {
        if self.is_stopped || data.is_empty() {
            return;
        }
        self.decide(data);
        let outcome = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Decoder::Zlib(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Decoder::Deflate(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Decoder::Undecided(_) => Ok(()),
        };
        if outcome.is_err() {
            self.is_stopped = true;
            if let Some(bounded) = self.bounded_mut() {
                bounded.meter.answer.flag(crate::flags::UNDECODABLE);
            }
        }
    }

    /// zlib's first byte names method 8; RFC 9110 means zlib, but raw deflate occurs too.
    fn decide(&mut self, data: &[u8]) {
        let Decoder::Undecided(bounded) = &mut self.decoder else { return };
        let Some(bounded) = bounded.take() else { return };
        let is_zlib = data.first().is_some_and(|byte| byte & 0x0F == 8 && byte & 0x80 == 0);
        self.decoder = if is_zlib {
            Decoder::Zlib(ZlibDecoder::new(bounded))
        } else {
            Decoder::Deflate(DeflateDecoder::new(bounded))
        };
    }

    /// The meter, and whether the limit was crossed.
    pub fn bounded(&self) -> Option<&Bounded> {
        match &self.decoder {
            Decoder::Gzip(decoder) => Some(decoder.get_ref()),
            Decoder::Zlib(decoder) => Some(decoder.get_ref()),
            Decoder::Deflate(decoder) => Some(decoder.get_ref()),
            Decoder::Undecided(bounded) => bounded.as_ref(),
        }
    }

    /// The same, to be changed.
    pub fn bounded_mut(&mut self) -> Option<&mut Bounded> {
        match &mut self.decoder {
            Decoder::Gzip(decoder) => Some(decoder.get_mut()),
            Decoder::Zlib(decoder) => Some(decoder.get_mut()),
            Decoder::Deflate(decoder) => Some(decoder.get_mut()),
            Decoder::Undecided(bounded) => bounded.as_mut(),
        }
    }
}
