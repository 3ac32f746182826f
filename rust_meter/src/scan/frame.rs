//! Open containers while a body is walked: what each is, which of its keys stood, what it turned out to
//! hold.

use super::keys::{Key, Place};

/// How the value being read was reached from its container.
#[derive(Debug, Clone, Copy)]
pub enum Label {
    /// A member that is read.
    Key(Key),
    /// An element.
    Index(u64),
    /// A member that is not read.
    Other,
}

/// One open container.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What it is.
    pub place: Place,
    /// `[` rather than `{`.
    pub is_array: bool,
    /// The child being read.
    pub label: Label,
    /// Number of the next element.
    pub next_index: u64,
    seen: u64,
    /// What it turned out to be.
    pub marks: Marks,
}

impl Frame {
    /// A container just opened.
    pub fn new(place: Place, is_array: bool) -> Self {
        Self { place, is_array, label: Label::Other, next_index: 0, seen: 0, marks: Marks::default() }
    }

    /// Note that `key` stands in this object; false if it did already.
    pub fn first_time(&mut self, key: Key) -> bool {
        let bit = 1_u64.wrapping_shl(u32::from(key as u8));
        let first = self.seen & bit == 0;
        self.seen |= bit;
        first
    }
}

/// What an object of the prompt turned out to be, known when it closes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// Holds an image.
    pub image: bool,
    /// Holds audio.
    pub audio: bool,
    /// Holds a document or another file.
    pub file: bool,
    /// Refers to content by URL.
    pub remote: bool,
    /// Its type says it is base64.
    pub base64: bool,
    /// Its type was read and names a kind of part other than a file.
    pub not_file: bool,
    /// Length of `data`, which is inline media only where the type says so.
    pub data: usize,
}

impl Marks {
    /// Note what a part says it is.
    pub fn note_type(&mut self, kind: &[u8]) {
        match kind {
            b"image" | b"image_url" | b"input_image" | b"computer_screenshot" | b"image_generation_call" => {
                self.image = true;
                self.not_file = true;
                self.base64 = kind == b"image_generation_call";
            }
            b"input_audio" | b"audio" => {
                self.audio = true;
                self.not_file = true;
            }
            b"file" | b"input_file" | b"document" | b"container_upload" | b"video_url" | b"input_video" => {
                self.file = true;
            }
            _ => {}
        }
    }
}
