//! The document inside an InvokeModel frame: base64 in the member `bytes`, decoded as it comes.

use crate::base64::Decoder;
use crate::document::Document;
use crate::json::{Progress, Reader, Sink};
use crate::tree::{Node, Take};

/// Reads the document inside an InvokeModel frame: base64 in the member `bytes`.
#[derive(Debug)]
pub(super) struct Envelope {
    reader: Reader,
    /// The document inside.
    pub(super) document: Document,
    decoder: Decoder,
    decoded: Vec<u8>,
    /// It is complete.
    pub(super) is_done: bool,
}

impl Envelope {
    /// An envelope whose documents follow `root`.
    pub(super) fn new(root: &'static Node) -> Self {
        Self {
            reader: Reader::new(root),
            document: Document::default(),
            decoder: Decoder::default(),
            decoded: Vec::new(),
            is_done: false,
        }
    }

    /// Make ready for the next frame.
    pub(super) fn begin(&mut self) {
        self.reader.begin();
        self.document.begin();
        self.decoder.begin();
        self.is_done = false;
    }
}

impl Sink for Envelope {
    fn enter(&mut self, _: &'static Node) {}
    fn leave(&mut self, _: &'static Node, _: u64) {}
    fn opaque(&mut self, _: &'static Node) {}
    fn text(&mut self, node: &'static Node, piece: &[u8]) {
        if node.take == Take::Bytes {
            self.decoded.clear();
            self.decoder.feed(piece, &mut self.decoded);
            self.is_done |= matches!(self.reader.feed(&self.decoded, &mut self.document), Progress::Done(_));
        }
    }
    fn measures(&self, _: &'static Node) -> bool {
        false
    }
    fn measured(&mut self, _: &'static Node, _: usize) {}
    fn text_end(&mut self, _: &'static Node) {}
    fn word(&mut self, _: &'static Node, _: &[u8], _: bool) {}
    fn duplicate(&mut self) {}
    fn captures(&self, _: &'static Node) -> bool {
        false
    }
    fn captured(&mut self, _: &'static Node, _: Option<&[u8]>) {}
}
