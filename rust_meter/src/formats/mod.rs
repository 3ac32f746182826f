//! Wire formats: where each keeps its usage, when it is over, and what its numbers mean.

pub mod bedrock;
pub mod cohere;
pub mod gemini;
pub mod media;
pub mod messages;
pub mod openai;
pub mod responses;

use crate::tree::Node;

/// How usage statements of a format follow each other and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Chat, legacy completions.
    Chat,
    /// Embeddings: no output.
    Embeddings,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Messages,
    /// Bedrock InvokeModel: the model's own body, in frames when streamed.
    Invoke,
    /// Bedrock Converse.
    Converse,
    /// Gemini generateContent.
    Generate,
    /// Gemini Interactions.
    Interactions,
    /// Cohere v2 chat.
    Cohere,
    /// Images.
    Images,
    /// Transcriptions.
    Transcriptions,
}

/// One wire format.
#[derive(Debug)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// Its documents' paths.
    pub root: &'static Node,
    /// Its meaning.
    pub family: Family,
}

const FORMATS: [Format; 12] = [
    Format { name: "chat", root: &openai::CHAT, family: Family::Chat },
    Format { name: "completions", root: &openai::CHAT, family: Family::Chat },
    Format { name: "embeddings", root: &openai::EMBEDDINGS, family: Family::Embeddings },
    Format { name: "responses", root: &responses::ROOT, family: Family::Responses },
    Format { name: "messages", root: &messages::ROOT, family: Family::Messages },
    Format { name: "invoke", root: &bedrock::INVOKE, family: Family::Invoke },
    Format { name: "converse", root: &bedrock::CONVERSE, family: Family::Converse },
    Format { name: "generate", root: &gemini::GENERATE, family: Family::Generate },
    Format { name: "interactions", root: &gemini::INTERACTIONS, family: Family::Interactions },
    Format { name: "cohere-chat", root: &cohere::ROOT, family: Family::Cohere },
    Format { name: "images", root: &media::IMAGES, family: Family::Images },
    Format { name: "transcriptions", root: &media::TRANSCRIPTIONS, family: Family::Transcriptions },
];
static ALL: [Format; 12] = FORMATS;

impl Format {
    /// The format of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|format| format.name == name)
    }
}
