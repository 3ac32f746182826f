//! Trees of JSON paths: which members of a wire format's documents the meter looks at.
//!
//! A path that is in no tree does not exist for the meter: its value is skipped by bracket counting, so model
//! text, tool arguments or unknown members can never be taken for usage (M8). A tree's depth bounds the
//! reader's stack, whatever the document nests.

/// One place in a document: what to do with a scalar or container there, and where to go on.
#[derive(Debug)]
pub struct Node {
    /// What the document does with the value.
    pub take: Take,
    /// Members followed when the value is an object; at most 64.
    pub keys: &'static [Entry],
    /// Followed for every element when the value is an array.
    pub each: Option<&'static Node>,
    /// The bits (`key_bit`) of these members, by which most others are told at once.
    pub key_bits: u64,
}

impl Node {
    /// The index of the member of that name, where it is followed.
    pub fn index_of(&self, key: &[u8]) -> Option<usize> {
        if self.key_bits & key_bit(key) == 0 {
            return None;
        }
        self.keys.iter().position(|(name, _)| name.as_bytes() == key)
    }
}

/// One of 64 bits, chosen by a key's first byte and its length.
const fn key_bit(key: &[u8]) -> u64 {
    let first = match key.first() {
        Some(first) => *first as usize,
        None => 0,
    };
    1_u64.wrapping_shl(first.wrapping_add(key.len().wrapping_mul(7)) as u32)
}

/// A member name and its node.
pub type Entry = (&'static str, Node);

/// A scalar that is kept.
pub const fn leaf(take: Take) -> Node {
    object(take, &[])
}

/// A token count of a usage object.
pub const fn count(field: Field) -> Node {
    leaf(Take::Count(field))
}

/// An object whose members are followed.
pub const fn object(take: Take, keys: &'static [Entry]) -> Node {
    let mut key_bits = 0;
    let mut rest = keys;
    while let [(name, _), others @ ..] = rest {
        key_bits |= key_bit(name.as_bytes());
        rest = others;
    }
    Node { take, keys, each: None, key_bits }
}

/// An array whose elements are followed.
pub const fn list(take: Take, each: &'static Node) -> Node {
    either(take, &[], each)
}

/// A value that is followed whether it is an object or an array.
pub const fn either(take: Take, keys: &'static [Entry], each: &'static Node) -> Node {
    Node { each: Some(each), ..object(take, keys) }
}

/// What a node's value means to the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Only a step on the way.
    Step,
    /// The document's `type` (or `event_type`).
    Kind,
    /// The response's identifier.
    Id,
    /// The model that served.
    Model,
    /// The service tier that served.
    Tier,
    /// The speed that served.
    Speed,
    /// Where inference ran.
    Geo,
    /// Non-null: the answer has come to its end (`finish_reason`, `stop_reason`).
    Finish,
    /// A response's or interaction's `status`.
    Status,
    /// Non-null: an upstream error.
    Error,
    /// Generated text; its bytes are counted.
    Output,
    /// Generated text that a closing event repeats.
    Repeat,
    /// A usage object.
    Usage(Source),
    /// Bedrock's second statement of the same usage.
    Metrics,
    /// A count inside a usage object.
    Count(Field),
    /// A list of (label, count) pairs; the label chooses the field.
    Pairs(Pairs),
    /// One element of such a list.
    Pair,
    /// The pair's label.
    Label,
    /// The pair's count.
    Number,
    /// Anthropic's list of inferences.
    Iterations,
    /// One inference.
    Iteration,
    /// Its type.
    IterationKind,
    /// Its model.
    IterationModel,
    /// A chat answer's list of choices.
    Choices,
    /// An output item of the Responses format.
    Item,
    /// Its type.
    ItemKind,
    /// What a web search call did.
    ItemAction,
    /// The container a code interpreter call ran in.
    ItemContainer,
    /// A list whose elements are counted (images).
    Data,
    /// Base64 of an inner document (Bedrock InvokeModel streams).
    Bytes,
}

/// Where a usage object stood; of several in one document the first named wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The format's main place.
    Main,
    /// A place inside the message, response or interaction the event carries.
    Inner,
    /// A vendor's second place (`choices[i].usage`, `x_groq.usage`).
    Aside,
}

/// Which list of pairs is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Prompt tokens by modality.
    Prompt,
    /// Output tokens by modality.
    Output,
    /// Cached tokens by modality.
    Cached,
    /// Cache writes by time to live.
    Writes,
}

/// A count a usage object may state. Aliases of one number are fields of their own until they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// Prompt tokens.
    Input,
    /// Output tokens.
    Output,
    /// The sum the upstream states.
    Total,
    /// Cached tokens in the prompt's details.
    Cached,
    /// The same under the singular name of the details.
    CachedSingular,
    /// The same at the top of the usage object.
    CachedTop,
    /// DeepSeek's cache hits.
    CachedHit,
    /// Mistral's name.
    CachedNum,
    /// Anthropic's name, also restated by LiteLLM; Bedrock's name.
    CacheRead,
    /// Bedrock's second name.
    CacheReadCount,
    /// Cache writes in the prompt's details.
    Write,
    /// LiteLLM's mirror of it.
    WriteCreation,
    /// Alibaba's name inside the details.
    WriteInput,
    /// Anthropic's name at the top; Bedrock's name.
    CacheWrite,
    /// Bedrock's second name.
    CacheWriteCount,
    /// Writes that live five minutes.
    Write5m,
    /// Writes that live an hour.
    Write1h,
    /// Reasoning tokens in the output's details.
    Reasoning,
    /// The same under the singular name of the details.
    ReasoningSingular,
    /// Audio tokens of the prompt.
    AudioInput,
    /// Audio tokens of the prompt that were cached.
    AudioCached,
    /// Audio tokens of the output.
    AudioOutput,
    /// Image tokens of the prompt.
    ImageInput,
    /// Image tokens of the prompt that were cached.
    ImageCached,
    /// Image tokens of the output.
    ImageOutput,
    /// Gemini's prompt tokens of tool results.
    ToolPrompt,
    /// Gemini's thinking tokens.
    Thoughts,
    /// Cohere's billable input.
    BilledInput,
    /// Cohere's billable output.
    BilledOutput,
    /// Web searches the upstream ran.
    WebSearch,
    /// OpenRouter's name for them.
    WebSearchDetails,
    /// Audio seconds billed instead of tokens.
    Seconds,
    /// A cost the upstream states; never a token count.
    Cost,
}

impl Field {
    /// This field's bit in a set of fields.
    pub const fn bit(self) -> u64 {
        1_u64.wrapping_shl(self as u32)
    }
}
