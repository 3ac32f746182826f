//! The normal form: what every wire format's counts are turned into.
//!
//! The rules for formats whose prompt count includes the cache stand here, because several formats share
//! them; each rule that had to be applied raises a flag. All sums saturate.

use crate::fields::Fields;
use crate::flags::{self, Flags};
use crate::tree::Field;

/// Whether prompt counts include cached tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSemantics {
    /// The numbers decide: more cached than prompt tokens means they exclude each other.
    #[default]
    Auto,
    /// They always include them; more cached than prompt tokens is clamped.
    Inclusive,
    /// They never include them.
    Exclusive,
}

/// Kinds a price may stand for; disjoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Kind {
    Input,
    CacheRead,
    CacheWrite5m,
    CacheWrite1h,
    Output,
    AudioInput,
    AudioOutput,
    ImageInput,
    ImageOutput,
    WebSearch,
    FileSearch,
    CodeInterpreter,
    Image,
    Second,
}

/// Names of the kinds, in their order.
pub const KIND_NAMES: [&str; 14] = [
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
    "web_search",
    "file_search",
    "code_interpreter",
    "image",
    "second",
];

/// Counts by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; 14]);

impl Counts {
    /// Add to a kind, saturating.
    pub fn add(&mut self, kind: Kind, value: u64) {
        if let Some(slot) = self.0.get_mut(kind as usize) {
            *slot = slot.saturating_add(value);
        }
    }

    /// Add all kinds of another.
    pub fn add_all(&mut self, other: &Self) {
        for (slot, value) in self.0.iter_mut().zip(other.0) {
            *slot = slot.saturating_add(value);
        }
    }

    /// The kinds above zero, by name.
    pub fn above_zero(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        KIND_NAMES.iter().copied().zip(self.0).filter(|(_, value)| *value > 0)
    }
}

/// Work of another model inside one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherUsage {
    /// That model.
    pub model: Vec<u8>,
    /// The type of its inferences.
    pub kind: Vec<u8>,
    /// Its totals.
    pub totals: Totals,
}

/// Token totals in the field's words; `None` is "not reported".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct Totals {
    pub input_total: u64,
    pub uncached_input: u64,
    pub output: u64,
    pub cache_read: Option<u64>,
    pub cache_write: Option<u64>,
    pub cache_write_5m: Option<u64>,
    pub cache_write_1h: Option<u64>,
    pub reasoning: Option<u64>,
    pub tool_use_prompt: Option<u64>,
    pub audio_input: u64,
    pub audio_output: u64,
    pub image_input: u64,
    pub image_output: u64,
    /// Prompt tokens of one inference: chooses the context tier.
    pub inference_input: u64,
    pub others: Vec<OtherUsage>,
}

impl Totals {
    /// The disjoint kinds. Audio and image tokens leave the uncached input and the output.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let audio_input = self.audio_input.min(self.uncached_input);
        let image_input = self.image_input.min(self.uncached_input.saturating_sub(audio_input));
        let audio_output = self.audio_output.min(self.output);
        let image_output = self.image_output.min(self.output.saturating_sub(audio_output));
        let write_1h = self.cache_write_1h.unwrap_or(0).min(self.cache_write.unwrap_or(u64::MAX));
        let write = self.cache_write.unwrap_or(self.cache_write_5m.unwrap_or(0).saturating_add(write_1h));
        counts.add(Kind::Input, self.uncached_input.saturating_sub(audio_input).saturating_sub(image_input));
        counts.add(Kind::AudioInput, audio_input);
        counts.add(Kind::ImageInput, image_input);
        counts.add(Kind::CacheRead, self.cache_read.unwrap_or(0));
        counts.add(Kind::CacheWrite1h, write_1h);
        counts.add(Kind::CacheWrite5m, write.saturating_sub(write_1h));
        counts.add(Kind::Output, self.output.saturating_sub(audio_output).saturating_sub(image_output));
        counts.add(Kind::AudioOutput, audio_output);
        counts.add(Kind::ImageOutput, image_output);
        counts
    }

    /// Add another model's work; a model named twice is summed.
    pub fn add_other(&mut self, other: OtherUsage) {
        match self.others.iter_mut().find(|known| known.model == other.model) {
            Some(known) => known.totals.add(other.totals),
            None => self.others.push(other),
        }
    }

    /// Add the totals of a further message of the same answer.
    pub fn add(&mut self, other: Self) {
        let sum = |one: u64, two: u64| one.saturating_add(two);
        self.input_total = sum(self.input_total, other.input_total);
        self.uncached_input = sum(self.uncached_input, other.uncached_input);
        self.output = sum(self.output, other.output);
        self.cache_read = sum_reported(self.cache_read, other.cache_read);
        self.cache_write = sum_reported(self.cache_write, other.cache_write);
        self.cache_write_5m = sum_reported(self.cache_write_5m, other.cache_write_5m);
        self.cache_write_1h = sum_reported(self.cache_write_1h, other.cache_write_1h);
        self.reasoning = sum_reported(self.reasoning, other.reasoning);
        self.inference_input = self.inference_input.max(other.inference_input);
        other.others.into_iter().for_each(|further| self.add_other(further));
    }
}

/// A sum that is reported where one part is.
pub fn sum_reported(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    match (one, two) {
        (None, None) => None,
        _ => Some(one.unwrap_or(0).saturating_add(two.unwrap_or(0))),
    }
}

const CACHED: [Field; 6] = [
    Field::Cached,
    Field::CachedSingular,
    Field::CachedTop,
    Field::CachedHit,
    Field::CachedNum,
    Field::CacheRead,
];
const WRITTEN: [Field; 4] = [Field::Write, Field::WriteCreation, Field::WriteInput, Field::CacheWrite];

/// Totals of a format whose prompt count should include cached and written tokens (OpenAI's family).
pub fn inclusive(fields: &Fields, semantics: CacheSemantics, flags: &mut Flags) -> Totals {
    flags.raise_if(fields.disagree(&CACHED) || fields.disagree(&WRITTEN), flags::ALIASES_DISAGREE);
    let total = fields.get(Field::Total);
    let output_stated = fields.get(Field::Output);
    let prompt_stated = fields.get(Field::Input);
    let completion =
        output_stated.unwrap_or_else(|| total.unwrap_or(0).saturating_sub(prompt_stated.unwrap_or(u64::MAX)));
    let prompt = prompt_stated.unwrap_or_else(|| total.unwrap_or(0).saturating_sub(completion));
    let mut totals = Totals {
        cache_read: fields.greatest(&CACHED),
        cache_write: fields.greatest(&WRITTEN),
        cache_write_5m: fields.get(Field::Write5m),
        cache_write_1h: fields.get(Field::Write1h),
        reasoning: fields.greatest(&[Field::Reasoning, Field::ReasoningSingular]),
        audio_input: fields.or_zero(Field::AudioInput),
        audio_output: fields.or_zero(Field::AudioOutput),
        image_input: fields.or_zero(Field::ImageInput),
        image_output: fields.or_zero(Field::ImageOutput),
        output: completion,
        input_total: prompt,
        ..Totals::default()
    };
    if totals.cache_write.is_none() {
        totals.cache_write = sum_reported(totals.cache_write_5m, totals.cache_write_1h);
    }
    let stands_apart = total.is_some_and(|total| explain_total(&mut totals, total, flags));
    split_cache(&mut totals, semantics, stands_apart, flags);
    totals.inference_input = totals.input_total;
    totals
}

/// What a total above prompt and completion stands for; true when it proves that the cache stands beside the
/// prompt.
fn explain_total(totals: &mut Totals, total: u64, flags: &mut Flags) -> bool {
    let parts = totals.input_total.saturating_add(totals.output);
    let reasoning = totals.reasoning.unwrap_or(0);
    let cache = totals.cache_read.unwrap_or(0).saturating_add(totals.cache_write.unwrap_or(0));
    flags.raise_if(reasoning > totals.output && total == parts, flags::REASONING_EXCEEDS);
    let excess = total.saturating_sub(parts);
    if excess == 0 {
        return false;
    }
    let stands_apart = excess == cache || (cache > 0 && excess == cache.saturating_add(reasoning));
    if excess == reasoning || (stands_apart && excess != cache) {
        totals.output = totals.output.saturating_add(reasoning);
        flags.raise(flags::REASONING_EXCLUDED);
    } else if !stands_apart && excess == totals.audio_input {
        totals.input_total = totals.input_total.saturating_add(excess);
        flags.raise(flags::AUDIO_EXCLUDED);
    } else if !stands_apart {
        totals.output = totals.output.saturating_add(excess);
        flags.raise(flags::HIDDEN_OUTPUT);
    }
    stands_apart && excess != reasoning
}

/// Take cached and written tokens out of the prompt, or find that they never were in it.
fn split_cache(totals: &mut Totals, semantics: CacheSemantics, stands_apart: bool, flags: &mut Flags) {
    let prompt = totals.input_total;
    let (cached, written) = (totals.cache_read.unwrap_or(0), totals.cache_write.unwrap_or(0));
    let exceeds = cached > prompt || written > prompt;
    let is_exclusive = match semantics {
        CacheSemantics::Exclusive => true,
        CacheSemantics::Auto => exceeds || stands_apart,
        CacheSemantics::Inclusive => false,
    };
    if is_exclusive {
        flags.raise_if(exceeds || stands_apart, flags::CACHED_EXCLUSIVE);
        totals.uncached_input = prompt;
        totals.input_total = prompt.saturating_add(cached).saturating_add(written);
        return;
    }
    if exceeds {
        flags.raise(flags::CACHED_CLAMPED);
        flags.raise(flags::CACHED_EXCLUSIVE);
        totals.cache_read = totals.cache_read.map(|value| value.min(prompt));
        totals.cache_write = totals.cache_write.map(|value| value.min(prompt));
    }
    let (cached, written) = (cached.min(prompt), written.min(prompt));
    let is_overlap = cached.saturating_add(written) > prompt;
    flags.raise_if(is_overlap, flags::CACHE_OVERLAP);
    let subset = if is_overlap { cached.max(written) } else { cached.saturating_add(written) };
    totals.uncached_input = prompt.saturating_sub(subset);
}

/// Totals of a format whose prompt count stands beside the cache (Anthropic, Bedrock).
pub fn exclusive(fields: &Fields, cache_read: Option<u64>, cache_write: Option<u64>) -> Totals {
    let input = fields.or_zero(Field::Input);
    let input_total = input.saturating_add(cache_read.unwrap_or(0)).saturating_add(cache_write.unwrap_or(0));
    Totals {
        input_total,
        uncached_input: input,
        output: fields.or_zero(Field::Output),
        cache_read,
        cache_write,
        cache_write_5m: fields.get(Field::Write5m),
        cache_write_1h: fields.get(Field::Write1h),
        reasoning: fields.get(Field::Reasoning),
        inference_input: input_total,
        ..Totals::default()
    }
}
