//! Names of everything odd the meter may say about a body.

/// A set of anomalies; the names are stable, logs and audits carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u64);

macro_rules! flags {
    ($($(#[$meaning:meta])* $name:ident = $bit:literal $text:literal;)*) => {
        $($(#[$meaning])* pub const $name: Flags = Flags(1 << $bit);)*
        const NAMES: &[(Flags, &str)] = &[$(($name, $text)),*];
    };
}

flags! {
    /// Audio tokens stand beside the prompt tokens, not inside them.
    AUDIO_EXCLUDED = 0 "audio_tokens_excluded_from_prompt_tokens";
    /// Cohere's raw token numbers differ from those it bills.
    BILLED_DIFFER = 1 "billed_units_differ_from_tokens";
    /// More was written to the cache than the last split by time to live says.
    BREAKDOWN_STALE = 2 "cache_creation_breakdown_stale";
    /// Cached and written tokens overlap; both are billed.
    CACHE_OVERLAP = 3 "cache_read_write_overlap";
    /// More cached than prompt tokens: the numbers exclude each other.
    CACHED_EXCLUSIVE = 4 "cached_gt_prompt_exclusive_semantics";
    /// Compaction passes were added to the top-level numbers.
    COMPACTION_ADDED = 5 "compaction_iterations_added";
    /// The upstream states a cost and no tokens.
    COST_ONLY = 6 "cost_only_no_tokens";
    /// The upstream bills seconds, not tokens.
    DURATION_BILLED = 7 "duration_billed_no_tokens";
    /// Gemini's last statement omits output tokens that an earlier one had.
    CANDIDATES_LOST = 8 "final_chunk_lost_candidates_count";
    /// Bedrock's metrics differ from the model's own usage.
    METRICS_DISAGREE = 9 "invocation_metrics_disagree";
    /// Another model worked on the answer and is billed apart.
    OTHER_MODELS = 10 "other_model_iterations";
    /// Reasoning tokens stand beside the completion tokens.
    REASONING_EXCLUDED = 11 "reasoning_excluded_from_completion_tokens";
    /// More reasoning than completion tokens; the completion tokens stand.
    REASONING_EXCEEDS = 12 "reasoning_gt_completion";
    /// The answer came from the model the upstream falls back to.
    FALLBACK = 13 "server_side_fallback";
    /// Tool results were counted as further prompt tokens.
    TOOL_PROMPT = 14 "tool_use_prompt_tokens";
    /// A later statement is lower than an earlier one; the later one stands.
    NON_MONOTONIC = 15 "usage_non_monotonic";
    /// The stated total is higher than the parts: the rest is output.
    HIDDEN_OUTPUT = 16 "hidden_output_from_total";
    /// Two names of one number differ; the higher one stands.
    ALIASES_DISAGREE = 17 "aliases_disagree";
    /// Two usage objects of one document differ.
    STATEMENTS_DISAGREE = 18 "usage_objects_disagree";
    /// A member occurs twice in one object; the last one stands.
    DUPLICATE_KEYS = 19 "duplicate_keys";
    /// A count was a string.
    NUMBER_AS_TEXT = 20 "number_as_text";
    /// A count was a fraction and was rounded up.
    NUMBER_FRACTION = 21 "number_fraction";
    /// A count was negative and is not reported.
    NUMBER_NEGATIVE = 22 "number_negative";
    /// A count was beyond 64 bits and stands at their maximum.
    NUMBER_HUGE = 23 "number_huge";
    /// A count was NaN, Infinity or another word and is not reported.
    NUMBER_NOT_FINITE = 24 "number_not_finite";
    /// A document or event is not valid JSON; nothing of it was used.
    MALFORMED_JSON = 25 "malformed_json";
    /// Several JSON documents stood in one line or body.
    GLUED_DOCUMENTS = 26 "glued_documents";
    /// Bytes that are not JSON follow a document.
    TRAILING_BYTES = 27 "trailing_bytes";
    /// The body ended inside an event or document.
    CUT_DOCUMENT = 28 "cut_document";
    /// The body could not be decompressed to its end.
    UNDECODABLE = 29 "undecodable_encoding";
    /// A second message was spliced into the stream; both are billed.
    SPLICED_MESSAGES = 30 "spliced_messages";
    /// The prompt total spans several inferences; it does not choose a tier reliably.
    SPANS_INFERENCES = 31 "input_total_spans_inferences";
    /// A kind of inference the meter does not know; it is not in the counts.
    UNKNOWN_ITERATION = 32 "unknown_iteration_type";
    /// More other models than the meter keeps apart.
    OTHER_MODELS_CUT = 33 "other_models_cut";
    /// The raw usage was too long to keep.
    RAW_DROPPED = 34 "usage_raw_dropped";
    /// Text was seen but the usage states (nearly) no output.
    OUTPUT_IMPLAUSIBLE = 35 "output_below_text";
    /// A binary event frame is damaged; metering stopped there.
    DAMAGED_FRAME = 36 "damaged_frame";
    /// Events followed the terminal event.
    AFTER_TERMINAL = 37 "events_after_terminal";
    /// A usage statement of zeros did not replace an earlier real one.
    ZERO_RESTATED = 38 "zero_restatement_ignored";
    /// More cached than prompt tokens, clamped because the upstream is set to inclusive.
    CACHED_CLAMPED = 39 "cached_clamped_to_prompt";
}

impl Flags {
    /// No anomaly.
    pub const NONE: Self = Self(0);

    /// Add one.
    pub fn raise(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Add one where a condition holds.
    pub fn raise_if(&mut self, condition: bool, other: Self) {
        if condition {
            self.raise(other);
        }
    }

    /// Whether one is among them.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Their names, sorted.
    pub fn names(self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect();
        names.sort_unstable();
        names
    }
}
