//! Frames of the journal, to bytes: the layout is defined, and read, in `farebox/journal/frames.py`.

use flate2::Crc;

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
    payload: &[u8],
) -> Option<u32> {
    let start = out.len();
    out.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&place.journal.to_le_bytes());
    out.extend_from_slice(&pos.to_le_bytes());
    out.extend_from_slice(&place.synced_pos.to_le_bytes());
    out.extend_from_slice(&before_crc.to_le_bytes());
    let mut checked = Crc::new();
    checked.update(out.get(start..)?);
    checked.update(payload);
    let crc = checked.sum();
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
    Some(crc)
}
