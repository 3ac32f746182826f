//! Frames of the journal, to bytes and back: the layout is defined in `farebox/journal/frames.py`.

use std::borrow::Cow;

use flate2::Crc;

use crate::packed::{push_packed, unpack};

/// Bytes before each payload.
pub const OVERHEAD_BYTES: usize = 37;

/// What every frame of one write has in common.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The journal's number.
    pub journal: u64,
    /// Last position known synced.
    pub synced_pos: u64,
}

/// Append one frame; its CRC is returned, for the next one. `None`: the payload is longer than a frame may say.
pub fn push_frame(
    out: &mut Vec<u8>,
    place: Place,
    kind: u8,
    pos: u64,
    before_crc: u32,
    record: &[u8],
) -> Option<u32> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    out.extend_from_slice(&place.journal.to_le_bytes());
    out.extend_from_slice(&pos.to_le_bytes());
    out.extend_from_slice(&place.synced_pos.to_le_bytes());
    out.extend_from_slice(&before_crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    if kind == SETTLE {
        push_packed(out, record);
    } else {
        out.extend_from_slice(record);
    }
    let (head, payload) = out.get_mut(start..)?.split_first_chunk_mut::<OVERHEAD_BYTES>()?;
    let (fields, own_crc) = head.split_last_chunk_mut::<4>()?;
    *fields.first_chunk_mut::<4>()? = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let mut checked = Crc::new();
    checked.update(fields);
    checked.update(payload);
    let crc = checked.sum();
    *own_crc = crc.to_le_bytes();
    Some(crc)
}

/// A record with its position, where it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// One of the kinds below, or one of a later version.
    pub kind: u8,
    /// Its position.
    pub pos: u64,
    /// Its record; a settle record is packed.
    pub payload: &'a [u8],
}

/// An exchange begins.
pub const OPEN: u8 = 2;
/// Its first byte leaves.
pub const SENT: u8 = 3;
/// How much output it has.
pub const PROGRESS: u8 = 4;
/// It ends with a charge.
pub const SETTLE: u8 = 5;
/// It ends without one.
pub const VOID: u8 = 6;
/// An exchange begins, and its first byte leaves.
pub const OPEN_SENT: u8 = 7;

impl<'a> Frame<'a> {
    /// Whether an exchange begins with it.
    pub fn is_beginning(&self) -> bool {
        matches!(self.kind, OPEN | OPEN_SENT)
    }

    /// Whether it ends an exchange.
    pub fn is_end(&self) -> bool {
        matches!(self.kind, SETTLE | VOID)
    }

    /// What it says.
    pub fn record(&self) -> Cow<'a, [u8]> {
        if self.kind == SETTLE { unpack(self.payload) } else { Cow::Borrowed(self.payload) }
    }

    /// The exchange that a payload begins with (`exchange_of` in Python); `None`: it names none.
    pub fn exchange(&self) -> Option<&'a [u8]> {
        let behind = self.payload.get(2..)?;
        let end = memchr::memchr(b'"', behind)?;
        behind.get(..end).filter(|name| !name.is_empty())
    }
}

/// The frames that follow each other without a gap from the start of some bytes. What stops it is for the
/// caller to ask: damage, the end of what is written, a position that skips to another epoch.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    rest: &'a [u8],
    journal: u64,
    /// CRC of the last frame.
    pub crc: u32,
    /// Its position.
    pub pos: u64,
    /// The highest position that one of them knows synced.
    pub synced_pos: u64,
}

impl<'a> Run<'a> {
    /// Frames of `journal` in `data` that follow the one with this CRC and position.
    pub fn new(data: &'a [u8], journal: u64, before_crc: u32, last_pos: u64) -> Self {
        Self { rest: data, journal, crc: before_crc, pos: last_pos, synced_pos: 0 }
    }

    /// The bytes behind the last frame.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Run<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (head, rest) = self.rest.split_first_chunk::<OVERHEAD_BYTES>()?;
        let (length, fields) = number::<4>(head)?;
        let (&kind, fields) = fields.split_first()?;
        let (owner, fields) = number::<8>(fields)?;
        let (pos, fields) = number::<8>(fields)?;
        let (synced_pos, fields) = number::<8>(fields)?;
        let (before_crc, fields) = number::<4>(fields)?;
        let (crc, _) = number::<4>(fields)?;
        if owner != self.journal || before_crc != u64::from(self.crc) || Some(pos) != self.pos.checked_add(1)
        {
            return None;
        }
        let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let mut checked = Crc::new();
        checked.update(head.get(..OVERHEAD_BYTES.saturating_sub(4))?);
        checked.update(payload);
        if u64::from(checked.sum()) != crc {
            return None;
        }
        (self.rest, self.crc, self.pos) = (rest, checked.sum(), pos);
        self.synced_pos = self.synced_pos.max(synced_pos);
        Some(Frame { kind, pos, payload })
    }
}

/// A little-endian number of `N` bytes, and what follows it.
fn number<const N: usize>(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    let mut wide = [0; 8];
    wide.get_mut(..N)?.copy_from_slice(number);
    Some((u64::from_le_bytes(wide), rest))
}
