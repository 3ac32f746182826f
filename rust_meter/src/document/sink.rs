//! How the reader's events fill a document.

use super::{Document, Target};
use crate::flags;
use crate::json::Sink;
use crate::tree::{Node, Source, Take};

/// Names and identifiers are kept to this length.
const TEXT_BYTES_MAX: usize = 256;

impl Sink for Document {
    fn enter(&mut self, node: &'static Node) {
        match node.take {
            Take::Usage(Source::Main) => self.begin_usage(Target::Main),
            Take::Usage(Source::Inner) => self.begin_usage(Target::Inner),
            Take::Usage(Source::Aside) => self.begin_usage(Target::Aside),
            Take::Metrics => self.begin_usage(Target::Metrics),
            Take::Pairs(pairs) => self.pairs = Some(pairs),
            Take::Pair => {
                self.label.clear();
                self.count = None;
            }
            Take::Iterations => {
                let target = self.target;
                if let Some(statement) = self.statement(target) {
                    statement.iterations = Some(Box::default());
                }
            }
            Take::Iteration => {
                let source = self.source();
                self.target = Target::Iteration(source);
                if let Some(iterations) = self.iterations(source) {
                    iterations.begin_entry();
                }
            }
            Take::Item => {
                self.item.kind.clear();
                self.item.action.clear();
                self.item.container.clear();
            }
            Take::Error => self.is_error = true,
            _ => {}
        }
    }

    fn leave(&mut self, node: &'static Node, elements: u64) {
        match node.take {
            Take::Usage(_) | Take::Metrics => {
                let target = std::mem::take(&mut self.target);
                if let Some(statement) = self.statement(target) {
                    statement.is_closed = true;
                }
            }
            Take::Pairs(_) => self.pairs = None,
            Take::Pair => self.take_pair(),
            Take::Iteration => {
                let source = self.source();
                if let Some(iterations) = self.iterations(source) {
                    iterations.end_entry();
                }
                self.target = match source {
                    Source::Main => Target::Main,
                    Source::Inner => Target::Inner,
                    Source::Aside => Target::Aside,
                };
            }
            Take::Item => self.take_item(),
            Take::Choices => self.choices = Some(elements),
            Take::Data => self.data = elements,
            _ => {}
        }
    }

    fn opaque(&mut self, node: &'static Node) {
        match node.take {
            Take::Error => self.is_error = true,
            Take::Finish => self.is_finish = true,
            _ => {}
        }
    }

    fn measures(&self, node: &'static Node) -> bool {
        matches!(node.take, Take::Output | Take::Repeat | Take::Step)
    }

    fn measured(&mut self, node: &'static Node, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match node.take {
            Take::Output => self.output_bytes = self.output_bytes.saturating_add(bytes),
            Take::Repeat => self.repeat_bytes = self.repeat_bytes.saturating_add(bytes),
            _ => {}
        }
    }

    fn text(&mut self, node: &'static Node, piece: &[u8]) {
        match node.take {
            Take::Output | Take::Repeat | Take::Step => self.measured(node, piece.len()),
            _ => {
                let room = TEXT_BYTES_MAX.saturating_sub(self.scratch.len());
                self.scratch.extend_from_slice(piece.get(..room).unwrap_or(piece));
            }
        }
    }

    fn text_end(&mut self, node: &'static Node) {
        match node.take {
            Take::Output | Take::Repeat | Take::Step => return,
            Take::Finish => self.is_finish = true,
            Take::Error => self.is_error |= !self.scratch.is_empty(),
            Take::Count(_) | Take::Number => {
                let text = std::mem::take(&mut self.scratch);
                if !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
                    self.flags.raise(flags::NUMBER_AS_TEXT);
                    self.take_count(node.take, &text, text.len() >= TEXT_BYTES_MAX);
                }
                self.scratch = text;
            }
            Take::IterationKind | Take::IterationModel => {
                let text = std::mem::take(&mut self.scratch);
                let source = self.source();
                if let Some(iterations) = self.iterations(source) {
                    iterations.name_entry(node.take == Take::IterationKind, &text);
                }
                self.scratch = text;
            }
            take => {
                let mut text = std::mem::take(&mut self.scratch);
                if let Some(slot) = self.text_slot(take) {
                    std::mem::swap(slot, &mut text);
                }
                self.scratch = text;
            }
        }
        self.scratch.clear();
    }

    fn word(&mut self, node: &'static Node, word: &[u8], cut: bool) {
        match node.take {
            Take::Count(_) | Take::Number => self.take_count(node.take, word, cut),
            Take::Error if !matches!(word, b"null" | b"false") => self.is_error = true,
            _ => {}
        }
    }

    fn duplicate(&mut self) {
        self.flags.raise(flags::DUPLICATE_KEYS);
    }

    fn captures(&self, node: &'static Node) -> bool {
        matches!(node.take, Take::Usage(_) | Take::Metrics)
    }

    fn captured(&mut self, node: &'static Node, bytes: Option<&[u8]>) {
        let target = match node.take {
            Take::Usage(Source::Main) => Target::Main,
            Take::Usage(Source::Inner) => Target::Inner,
            Take::Usage(Source::Aside) => Target::Aside,
            _ => Target::Metrics,
        };
        if let Some(statement) = self.statement(target) {
            statement.raw_dropped = bytes.is_none();
            statement.raw.extend_from_slice(bytes.unwrap_or_default());
        }
    }
}
