//! Where the bytes that matter stand in a block of text, as bits.
//!
//! Text with an escape every few bytes costs a search of its own for each where it is walked from one to the
//! next; a block's marks are found together. There are no branches in it, so that the compiler makes vector
//! instructions of it.

/// Whether JSON lets this byte stand in a string only escaped. Told by comparisons, not by `matches!`, of which
/// the compiler makes a table that no vector instruction knows.
pub const fn is_escaped(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 32;

/// The beginning of `rest`, filled up with `padding` where it is shorter than a block.
pub fn block_of(rest: &[u8], padding: u8) -> [u8; BLOCK_BYTES] {
    if let Some(block) = rest.first_chunk() {
        return *block;
    }
    let mut block = [padding; BLOCK_BYTES];
    if let Some(start) = block.get_mut(..rest.len()) {
        start.copy_from_slice(rest);
    }
    block
}

/// Bit i says whether byte i is marked.
pub fn marks(block: &[u8; BLOCK_BYTES], is_marked: impl Fn(u8) -> bool) -> u32 {
    /// Moves the lowest bits of eight bytes side by side into the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let marked = block.map(|byte| u8::from(is_marked(byte)));
    if marked == [0; BLOCK_BYTES] {
        return 0;
    }
    let (eights, _) = marked.as_chunks();
    eights.iter().rev().fold(0, |bits, eight| {
        let [.., gathered] = u64::from_le_bytes(*eight).wrapping_mul(GATHER).to_le_bytes();
        bits.wrapping_shl(8) | u32::from(gathered)
    })
}

/// The marks at index `from` and behind it.
pub fn from(marks: u32, from: usize) -> u32 {
    let gone = u32::try_from(from).ok().and_then(|from| u32::MAX.checked_shl(from)).unwrap_or(0);
    marks & gone
}

/// The index of the first mark; the block's length where there is none.
pub fn first(marks: u32) -> usize {
    usize::try_from(marks.trailing_zeros()).unwrap_or(BLOCK_BYTES)
}

/// Append `text`, stopping at marked bytes only: `replace` is given the text from there on, may append what is to
/// stand for its beginning, and says how many bytes those are. The rest stands as it is. A space is never marked.
pub fn push_replaced(
    out: &mut Vec<u8>,
    text: &[u8],
    is_marked: impl Fn(u8) -> bool,
    replace: impl Fn(&mut Vec<u8>, &[u8]) -> usize,
) {
    let mut rest = text;
    while !rest.is_empty() {
        let mut marked = marks(&block_of(rest, b' '), &is_marked);
        let mut done = 0;
        while marked != 0 {
            let at = first(marked);
            out.extend_from_slice(rest.get(done..at).unwrap_or_default());
            done = at.saturating_add(replace(out, rest.get(at..).unwrap_or_default()));
            marked = from(marked, done.max(at.saturating_add(1)));
        }
        let end = rest.len().min(BLOCK_BYTES).max(done);
        out.extend_from_slice(rest.get(done..end).unwrap_or_default());
        rest = rest.get(end..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    //! Marks say what looking at each byte says.
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_marked_byte_has_its_bit(bytes in proptest::collection::vec(any::<u8>(), 0..40), edge in any::<u8>()) {
            let block = block_of(&bytes, 0);
            let found = marks(&block, |byte| byte < edge);
            for (index, byte) in block.iter().enumerate() {
                prop_assert_eq!(*byte, bytes.get(index).copied().unwrap_or(0));
                prop_assert_eq!(found >> index & 1 == 1, *byte < edge);
                let behind = from(found, index);
                prop_assert_eq!(first(behind), (index..BLOCK_BYTES).find(|at| block[*at] < edge).unwrap_or(BLOCK_BYTES));
            }
            prop_assert_eq!((from(found, BLOCK_BYTES), from(found, usize::MAX)), (0, 0));
        }
    }
}
