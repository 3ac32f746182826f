//! The request fields that are read: their names, and what the value after each means where it stands.
//!
//! Sources: the published request schemas of OpenAI (chat, completions, responses, embeddings) and
//! Anthropic (messages), and fields of gateways that change price or destination (fault rows B11, B12).

/// Request format of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI legacy completions.
    Completions,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// OpenAI embeddings.
    Embeddings,
}

impl Format {
    /// The format called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "chat" => Some(Self::Chat),
            "completions" => Some(Self::Completions),
            "responses" => Some(Self::Responses),
            "messages" => Some(Self::Messages),
            "embeddings" => Some(Self::Embeddings),
            _ => None,
        }
    }
}

macro_rules! keys {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// Every key that is read anywhere. Fewer than 64: frames keep one bit for each to find duplicates.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each variant is its key")]
        pub enum Key { $($variant),+ }

        impl Key {
            /// The key spelled exactly so.
            pub fn named(name: &[u8]) -> Option<Self> {
                const NAMES: &[(&str, Key)] = &[$(($name, Key::$variant)),+];
                const _: () = assert!(NAMES.len() <= 64);
                match std::str::from_utf8(name).ok()? { $($name => Some(Self::$variant),)+ _ => None }
            }

            /// Its spelling.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

keys! {
    Model = "model", Stream = "stream", StreamOptions = "stream_options",
    IncludeUsage = "include_usage", MaxTokens = "max_tokens",
    MaxCompletionTokens = "max_completion_tokens", MaxOutputTokens = "max_output_tokens", N = "n",
    BestOf = "best_of", ServiceTier = "service_tier", Speed = "speed",
    InferenceGeo = "inference_geo", Background = "background", Fallbacks = "fallbacks",
    Models = "models", Route = "route", Provider = "provider", Plugins = "plugins",
    ApiBase = "api_base", BaseUrl = "base_url", CustomProvider = "custom_llm_provider",
    UserConfig = "user_config", ExtraHeaders = "extra_headers",
    SearchParameters = "search_parameters", Deferred = "deferred",
    CacheRetention = "prompt_cache_retention", CacheOptions = "prompt_cache_options", Ttl = "ttl",
    Modalities = "modalities", Messages = "messages", Input = "input", Prompt = "prompt",
    System = "system", Tools = "tools", Tool = "tool", McpServers = "mcp_servers",
    WebSearchOptions = "web_search_options", PreviousResponse = "previous_response_id",
    Conversation = "conversation", Container = "container", Thread = "thread", Type = "type",
    Content = "content", Output = "output", ImageUrl = "image_url", VideoUrl = "video_url",
    InputAudio = "input_audio", File = "file", FileData = "file_data", FileId = "file_id",
    FileUrl = "file_url", Source = "source", Data = "data", Url = "url", Result = "result",
    Audio = "audio",
}

/// What a container is, hence which of its members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The request object.
    Root,
    /// `stream_options`.
    StreamOptions,
    /// `prompt_cache_options`.
    CacheOptions,
    /// The array of messages, input items, prompts or embedding inputs.
    Turns,
    /// An array of content parts.
    Parts,
    /// A message, an input item or a content part: they nest and share their fields.
    Part,
    /// The object of `image_url`, `input_audio`, `video_url` or `file`.
    Media,
    /// Anthropic's `source`.
    Source,
    /// An array of tools.
    Tools,
    /// One tool.
    Tool,
    /// `mcp_servers`.
    McpServers,
    /// `modalities`.
    Modalities,
    /// Nothing in it is read.
    Opaque,
}

/// What the next value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The whole body.
    Body,
    /// An element of an array, by the array's place.
    Element(Place),
    /// A member that is read, by its object's place.
    Member(Place, Key),
    /// Not read.
    Skip,
}

/// Whether `key` is read in an object at `place`.
pub fn is_read(place: Place, key: Key, format: Format) -> bool {
    match place {
        Place::Root => root_reads(key, format),
        Place::StreamOptions => key == Key::IncludeUsage,
        Place::CacheOptions => key == Key::Ttl,
        Place::Part => matches!(
            key,
            Key::Type
                | Key::Content
                | Key::Output
                | Key::ImageUrl
                | Key::VideoUrl
                | Key::InputAudio
                | Key::File
                | Key::FileData
                | Key::FileId
                | Key::FileUrl
                | Key::Source
                | Key::Result
                | Key::Audio
                | Key::Tools
                | Key::Tool
        ),
        Place::Media => matches!(key, Key::Url | Key::Data | Key::FileData | Key::FileId | Key::FileUrl),
        Place::Source => matches!(key, Key::Type | Key::Data | Key::Url | Key::FileId | Key::Content),
        Place::Tool => matches!(key, Key::Type | Key::Tools),
        Place::Turns
        | Place::Parts
        | Place::Tools
        | Place::McpServers
        | Place::Modalities
        | Place::Opaque => false,
    }
}

fn root_reads(key: Key, format: Format) -> bool {
    match key {
        Key::MaxTokens => matches!(format, Format::Chat | Format::Completions | Format::Messages),
        Key::MaxCompletionTokens => format == Format::Chat,
        Key::MaxOutputTokens => format == Format::Responses,
        Key::N => matches!(format, Format::Chat | Format::Completions),
        Key::BestOf => format == Format::Completions,
        Key::Messages => matches!(format, Format::Chat | Format::Messages),
        Key::Input => matches!(format, Format::Responses | Format::Embeddings),
        Key::Prompt => matches!(format, Format::Completions | Format::Responses),
        Key::PreviousResponse | Key::Conversation => format == Format::Responses,
        Key::Container | Key::Thread | Key::System | Key::McpServers => format == Format::Messages,
        Key::Model | Key::Stream | Key::StreamOptions | Key::Tools | Key::WebSearchOptions => true,
        Key::CacheOptions | Key::Modalities => true,
        other => price_field(other),
    }
}

/// Fields of the request object that change the price or the way of serving, whatever the format.
pub fn price_field(key: Key) -> bool {
    matches!(
        key,
        Key::ServiceTier
            | Key::Speed
            | Key::InferenceGeo
            | Key::Background
            | Key::Fallbacks
            | Key::Models
            | Key::Route
            | Key::Provider
            | Key::Plugins
            | Key::ApiBase
            | Key::BaseUrl
            | Key::CustomProvider
            | Key::UserConfig
            | Key::ExtraHeaders
            | Key::SearchParameters
            | Key::Deferred
            | Key::CacheRetention
    )
}

/// Tools the client runs itself; every other type of tool runs at the upstream.
pub fn runs_at_client(tool: &str) -> bool {
    const EXACT: [&str; 8] = [
        "function",
        "custom",
        "namespace",
        "local_shell",
        "apply_patch",
        "computer",
        "computer_use_preview",
        "",
    ];
    const DATED: [&str; 6] =
        ["bash_", "text_editor_", "computer_", "memory_", "browser_toolset_", "computer_toolset_"];
    EXACT.contains(&tool) || DATED.iter().any(|prefix| tool.starts_with(prefix))
}
