//! How the documents of a stream begin, read once.
//!
//! The events of a stream repeat their envelope: id, model and so on, up to the text. What reader and document
//! stand at behind such a beginning follows from its bytes alone, because both may be fed in any pieces. So it
//! is kept, and taken over where the next document begins with the very same bytes.

use crate::document::{Document, Said};
use crate::json::{Progress, Reader};

/// A shorter beginning is not worth keeping.
const BYTES_MIN: usize = 32;
/// No more is kept of one.
const BYTES_MAX: usize = 384;
/// Documents of one body from which a beginning is learned.
const LESSONS_MAX: u8 = 8;

/// How documents have begun so far.
#[derive(Debug, Default)]
pub struct Beginning {
    /// Of a document; where `known`, what it has in common with later ones.
    bytes: Vec<u8>,
    known: Option<Box<(Reader, Said)>>,
    lessons: u8,
}

impl Beginning {
    /// Make reader and document ready for the document that begins with `data`; what of `data` is left to be
    /// read.
    pub fn begin<'a>(&mut self, data: &'a [u8], reader: &mut Reader, document: &mut Document) -> &'a [u8] {
        if let Some(known) = &self.known
            && let Some(rest) = data.strip_prefix(self.bytes.as_slice())
        {
            reader.begin_at(&known.0);
            document.begin_with(&known.1);
            return rest;
        }
        reader.begin();
        document.begin();
        // A piece that ends within what is known teaches nothing.
        let is_cut = self.known.is_some() && self.bytes.starts_with(data);
        if self.lessons < LESSONS_MAX && !is_cut {
            self.lessons = self.lessons.saturating_add(1);
            self.learn(data, Reader::new(reader.root()));
        }
        data
    }

    fn learn(&mut self, data: &[u8], mut reader: Reader) {
        self.known = None;
        let common = self.bytes.iter().zip(data).take_while(|(one, other)| one == other).count();
        self.bytes.truncate(common);
        // Values differ, even those that begin alike.
        let length = self.bytes.iter().rposition(|byte| *byte == b':').map_or(0, |at| at.saturating_add(1));
        if length < BYTES_MIN {
            self.bytes.clear();
            self.bytes.extend_from_slice(data.get(..BYTES_MAX).unwrap_or(data));
            return;
        }
        self.bytes.truncate(length);
        let mut document = Document::default();
        if reader.feed(&self.bytes, &mut document) == Progress::More
            && !reader.is_capturing()
            && let Some(said) = document.said()
        {
            // The copy has no room to spare.
            self.known = Some(Box::new((reader.clone(), said)));
        }
    }
}
