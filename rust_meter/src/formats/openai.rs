//! OpenAI chat completions, legacy completions and embeddings, and the vendors that speak them.
//!
//! Usage stands at `usage`, `choices[i].usage` (Moonshot) or `x_groq.usage`; each is a restatement, the last
//! one stands. The prompt count includes cached tokens; where a vendor departs from that, `normal` finds out.

use crate::tree::{Entry, Field, Node, Source, Take, count, leaf, list, object};

const WRITE_DETAILS: &[Entry] = &[
    ("ephemeral_5m_input_tokens", count(Field::Write5m)),
    ("ephemeral_1h_input_tokens", count(Field::Write1h)),
];
const PROMPT_DETAILS: &[Entry] = &[
    ("cached_tokens", count(Field::Cached)),
    ("cache_write_tokens", count(Field::Write)),
    ("cache_creation_tokens", count(Field::WriteCreation)),
    ("cache_creation_input_tokens", count(Field::WriteInput)),
    ("cache_creation_token_details", object(Take::Step, WRITE_DETAILS)),
    ("audio_tokens", count(Field::AudioInput)),
    ("image_tokens", count(Field::ImageInput)),
];
const PROMPT_DETAILS_SINGULAR: &[Entry] = &[("cached_tokens", count(Field::CachedSingular))];
const COMPLETION_DETAILS: &[Entry] = &[
    ("reasoning_tokens", count(Field::Reasoning)),
    ("audio_tokens", count(Field::AudioOutput)),
    ("image_tokens", count(Field::ImageOutput)),
];
const COMPLETION_DETAILS_SINGULAR: &[Entry] = &[("reasoning_tokens", count(Field::ReasoningSingular))];
const SERVER_TOOLS: &[Entry] = &[("web_search_requests", count(Field::WebSearch))];
const SERVER_TOOLS_DETAILS: &[Entry] = &[("web_search_requests", count(Field::WebSearchDetails))];
const USAGE: &[Entry] = &[
    ("prompt_tokens", count(Field::Input)),
    ("completion_tokens", count(Field::Output)),
    ("total_tokens", count(Field::Total)),
    ("prompt_tokens_details", object(Take::Step, PROMPT_DETAILS)),
    ("prompt_token_details", object(Take::Step, PROMPT_DETAILS_SINGULAR)),
    ("completion_tokens_details", object(Take::Step, COMPLETION_DETAILS)),
    ("completion_token_details", object(Take::Step, COMPLETION_DETAILS_SINGULAR)),
    ("cached_tokens", count(Field::CachedTop)),
    ("prompt_cache_hit_tokens", count(Field::CachedHit)),
    ("num_cached_tokens", count(Field::CachedNum)),
    ("cache_read_input_tokens", count(Field::CacheRead)),
    ("cache_creation_input_tokens", count(Field::CacheWrite)),
    ("server_tool_use", object(Take::Step, SERVER_TOOLS)),
    ("server_tool_use_details", object(Take::Step, SERVER_TOOLS_DETAILS)),
    ("service_tier", leaf(Take::Tier)),
    ("speed", leaf(Take::Speed)),
    ("inference_geo", leaf(Take::Geo)),
];

const TEXT_PART: &[Entry] = &[("text", leaf(Take::Output))];
static TEXT_PARTS: Node = object(Take::Step, TEXT_PART);
const CONTENT_PART: &[Entry] = &[("text", leaf(Take::Output)), ("thinking", list(Take::Output, &TEXT_PARTS))];
static CONTENT_PARTS: Node = object(Take::Step, CONTENT_PART);
const FUNCTION: &[Entry] = &[("name", leaf(Take::Output)), ("arguments", leaf(Take::Output))];
const TOOL_CALL: &[Entry] = &[("function", object(Take::Step, FUNCTION))];
static TOOL_CALLS: Node = object(Take::Step, TOOL_CALL);
const AUDIO: &[Entry] = &[("transcript", leaf(Take::Output))];
const MESSAGE: &[Entry] = &[
    ("content", list(Take::Output, &CONTENT_PARTS)),
    ("reasoning_content", leaf(Take::Output)),
    ("reasoning", leaf(Take::Output)),
    ("refusal", leaf(Take::Output)),
    ("tool_calls", list(Take::Step, &TOOL_CALLS)),
    ("function_call", object(Take::Step, FUNCTION)),
    ("audio", object(Take::Step, AUDIO)),
];
const CHOICE: &[Entry] = &[
    ("delta", object(Take::Step, MESSAGE)),
    ("message", object(Take::Step, MESSAGE)),
    ("text", leaf(Take::Output)),
    ("finish_reason", leaf(Take::Finish)),
    ("usage", object(Take::Usage(Source::Aside), USAGE)),
];
static CHOICES: Node = object(Take::Step, CHOICE);
const GROQ: &[Entry] = &[("usage", object(Take::Usage(Source::Aside), USAGE))];
const CHAT_ROOT: &[Entry] = &[
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("choices", list(Take::Choices, &CHOICES)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("x_groq", object(Take::Step, GROQ)),
    ("service_tier", leaf(Take::Tier)),
    ("error", leaf(Take::Error)),
];
/// A chat or completions body or chunk.
pub static CHAT: Node = object(Take::Step, CHAT_ROOT);

const EMBEDDINGS_ROOT: &[Entry] = &[
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("error", leaf(Take::Error)),
];
/// An embeddings body.
pub static EMBEDDINGS: Node = object(Take::Step, EMBEDDINGS_ROOT);
