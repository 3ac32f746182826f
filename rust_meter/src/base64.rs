//! Base64, decoded in pieces (Bedrock wraps its model's documents in it).

/// The decoder's few bits of state.
#[derive(Debug, Default)]
pub struct Decoder {
    bits: u32,
    count: u8,
}

impl Decoder {
    /// Begin a new text.
    pub fn begin(&mut self) {
        self.bits = 0;
        self.count = 0;
    }

    /// Decode a piece into `out`; padding and other characters end nothing and add nothing.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for &byte in piece {
            let value = match byte {
                b'A'..=b'Z' => byte.wrapping_sub(b'A'),
                b'a'..=b'z' => byte.wrapping_sub(b'a').wrapping_add(26),
                b'0'..=b'9' => byte.wrapping_sub(b'0').wrapping_add(52),
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => continue,
            };
            self.bits = self.bits.wrapping_shl(6) | u32::from(value);
            self.count = self.count.saturating_add(6);
            if self.count >= 8 {
                self.count = self.count.saturating_sub(8);
                out.push(u8::try_from(self.bits.wrapping_shr(u32::from(self.count)) & 0xFF).unwrap_or(0));
            }
        }
    }
}
