//! Documents in AWS event streams: one per frame, taken only when the frame's checksum is right.

use super::{Meter, Mode, Place};
use crate::flags;
use crate::frames::Token;
use crate::json::Progress;

impl Meter {
    pub(super) fn frame<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let (token, tail) = self.frames.next(rest);
        match token {
            Token::Other => {}
            Token::Begin => {
                self.reader.begin();
                self.document.begin();
                self.document.kind.extend_from_slice(&self.frames.kind);
                self.place = Place::Document;
                if let Some((reader, envelope)) = &mut self.envelope {
                    reader.begin();
                    envelope.begin();
                }
            }
            Token::Payload(piece) => self.payload(piece),
            Token::End => self.frame_end(),
            Token::Damaged => {
                self.answer.flag(flags::DAMAGED_FRAME);
                self.mode = Mode::Ignore;
                return &[];
            }
        }
        tail
    }

    fn payload(&mut self, piece: &[u8]) {
        if self.place != Place::Document {
            return;
        }
        let progress = match &mut self.envelope {
            Some((reader, envelope)) => reader.feed(piece, envelope),
            None => self.reader.feed(piece, &mut self.document),
        };
        match progress {
            Progress::More => {}
            Progress::Done(_) => self.place = Place::Done(0),
            Progress::Bad => self.place = Place::Junk,
        }
    }

    fn frame_end(&mut self) {
        if self.frames.is_error {
            self.answer.is_failed = true;
        }
        match self.place {
            Place::Done(_) => {
                let document = match &mut self.envelope {
                    Some((_, envelope)) if envelope.is_done => Some(&mut envelope.document),
                    Some(_) => None,
                    None => Some(&mut self.document),
                };
                if let Some(document) = document
                    && self.answer.commit(document)
                {
                    self.found_terminal();
                }
            }
            _ => self.answer.flag(flags::MALFORMED_JSON),
        }
        self.place = Place::Between;
    }
}
