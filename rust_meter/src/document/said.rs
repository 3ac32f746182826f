//! What a document has said so far, to be said again by another that begins with the same bytes.

use super::{Document, Item, Target, ToolCalls};
use crate::flags::Flags;

/// Names and sums of a document that has not come to anything larger yet.
#[derive(Debug)]
pub struct Said {
    names: [Vec<u8>; 7],
    is_finish: bool,
    is_error: bool,
    choices: Option<u64>,
    output_bytes: u64,
    repeat_bytes: u64,
    flags: Flags,
}

impl Document {
    /// What it has said since it began; `None` where that is or may become more than names and sums: a usage
    /// object, a list, a text of which only a part was read.
    pub fn said(&self) -> Option<Said> {
        // Every field is named, so that none is forgotten.
        let Self {
            kind,
            id,
            model,
            tier,
            speed,
            geo,
            status,
            main,
            inner,
            aside,
            metrics,
            is_finish,
            is_error,
            choices,
            data,
            tools,
            output_bytes,
            repeat_bytes,
            flags,
            scratch,
            target,
            pairs,
            label,
            count,
            item: Item { kind: item_kind, action, container },
        } = self;
        let is_more = [main, inner, aside, metrics].iter().any(|statement| statement.present)
            || [scratch, label, item_kind, action, container].iter().any(|text| !text.is_empty())
            || (*data, *target, *pairs, *count) != (0, Target::None, None, None)
            || *tools != ToolCalls::default();
        (!is_more).then(|| Said {
            names: [kind, id, model, tier, speed, geo, status].map(Clone::clone),
            is_finish: *is_finish,
            is_error: *is_error,
            choices: *choices,
            output_bytes: *output_bytes,
            repeat_bytes: *repeat_bytes,
            flags: *flags,
        })
    }

    /// Begin with what was said.
    pub fn begin_with(&mut self, said: &Said) {
        self.begin();
        let Said { names, is_finish, is_error, choices, output_bytes, repeat_bytes, flags } = said;
        for (slot, name) in self.names_mut().into_iter().zip(names).filter(|(_, name)| !name.is_empty()) {
            slot.extend_from_slice(name);
        }
        self.is_finish = *is_finish;
        self.is_error = *is_error;
        self.choices = *choices;
        self.output_bytes = *output_bytes;
        self.repeat_bytes = *repeat_bytes;
        self.flags = *flags;
    }
}
