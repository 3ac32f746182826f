//! Anthropic's `usage.iterations`: the inferences behind one answer.
//!
//! Recorded answers show that the top-level numbers are the sum of the entries of type `message`. Compaction
//! passes come on top, an advisor or the declined hop before a fallback belongs to another model. The list is
//! folded as it is read, so its length costs no memory.

use crate::fields::Fields;
use crate::flags::{self, Flags};
use crate::tree::Field;

/// Other models kept apart.
const OTHER_MODELS_MAX: usize = 8;
/// Counts an entry may carry.
pub const ENTRY_FIELDS: [Field; 6] =
    [Field::Input, Field::Output, Field::CacheRead, Field::CacheWrite, Field::Write5m, Field::Write1h];

/// Sub-inferences of one other model, summed.
#[derive(Debug, Default, Clone)]
pub struct OtherModel {
    /// The model's name.
    pub model: Vec<u8>,
    /// The entries' type.
    pub kind: Vec<u8>,
    /// Their counts.
    pub counts: Fields,
}

/// The list, folded.
#[derive(Debug, Default, Clone)]
pub struct Iterations {
    /// Sum of the compaction passes.
    pub compaction: Fields,
    /// How many they were.
    pub compactions: u64,
    /// Entries served by other models.
    pub others: Vec<OtherModel>,
    /// Declined hops, other models' work only if a fallback served.
    pub hops: Vec<OtherModel>,
    /// A fallback served.
    pub is_fallback: bool,
    /// The greatest prompt of one inference.
    pub prompt_max: u64,
    /// Oddities.
    pub flags: Flags,
    /// The entry being read.
    pub entry: Fields,
    entry_kind: Vec<u8>,
    entry_model: Vec<u8>,
}

impl Iterations {
    /// An entry begins.
    pub fn begin_entry(&mut self) {
        self.entry.clear();
        self.entry_kind.clear();
        self.entry_model.clear();
    }

    /// The entry's type or model.
    pub fn name_entry(&mut self, is_kind: bool, text: &[u8]) {
        let slot = if is_kind { &mut self.entry_kind } else { &mut self.entry_model };
        slot.clear();
        slot.extend_from_slice(text);
    }

    /// The entry is complete: put it where it belongs.
    pub fn end_entry(&mut self) {
        match self.entry_kind.as_slice() {
            b"compaction" => {
                self.compactions = self.compactions.saturating_add(1);
                add_all(&mut self.compaction, &self.entry);
                self.note_prompt();
            }
            b"advisor_message" => Self::join(
                &mut self.others,
                &mut self.flags,
                &self.entry_model,
                b"advisor_message",
                &self.entry,
            ),
            b"fallback_message" => {
                self.is_fallback = true;
                self.note_prompt();
            }
            b"message" => {
                Self::join(&mut self.hops, &mut self.flags, &self.entry_model, b"message", &self.entry);
                self.note_prompt();
            }
            _ => self.flags.raise(flags::UNKNOWN_ITERATION),
        }
    }

    fn note_prompt(&mut self) {
        let prompt = [Field::Input, Field::CacheRead, Field::CacheWrite]
            .iter()
            .fold(0_u64, |sum, &field| sum.saturating_add(self.entry.or_zero(field)));
        self.prompt_max = self.prompt_max.max(prompt);
    }

    fn join(list: &mut Vec<OtherModel>, flags: &mut Flags, model: &[u8], kind: &[u8], counts: &Fields) {
        if let Some(known) = list.iter_mut().find(|known| known.model == model) {
            add_all(&mut known.counts, counts);
        } else if list.len() < OTHER_MODELS_MAX {
            list.push(OtherModel { model: model.to_vec(), kind: kind.to_vec(), counts: counts.clone() });
        } else {
            flags.raise(flags::OTHER_MODELS_CUT);
        }
    }
}

/// Add every reported field.
pub fn add_all(sum: &mut Fields, entry: &Fields) {
    for field in ENTRY_FIELDS {
        if let Some(value) = entry.get(field) {
            sum.add(field, value);
        }
    }
}
