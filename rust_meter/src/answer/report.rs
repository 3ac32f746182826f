//! From what was gathered to the reading: totals, kinds, anomalies.

use super::Answer;
use crate::document::ToolCalls;
use crate::flags::{self, Flags};
use crate::formats::{Family, bedrock, cohere, gemini, messages};
use crate::normal::{Counts, Kind, Totals, inclusive};
use crate::reading::Reading;
use crate::tree::Field;

/// Text of so many bytes per output token is not plausible.
const BYTES_PER_TOKEN_MAX: u64 = 64;

impl Answer {
    fn raw(&self) -> Vec<u8> {
        if !matches!(self.family, Family::Messages | Family::Invoke) {
            return self.usage.raw.clone();
        }
        if !self.has_usage {
            return self.metrics.raw.clone();
        }
        let stated = self.raws.iter().chain(std::iter::once(&self.raw_latest)).filter(|raw| !raw.is_empty());
        let stated: Vec<&[u8]> = stated.map(Vec::as_slice).collect();
        match stated.as_slice() {
            [] => Vec::new(),
            [one] => one.to_vec(),
            several => [b"[".as_slice(), &several.join(&b','), b"]"].concat(),
        }
    }

    fn totals(&self, flags: &mut Flags) -> Option<Totals> {
        if !self.has_usage {
            return self.metrics.present.then(|| messages::totals(&self.metrics, flags));
        }
        let fields = &self.usage.fields;
        let mut totals = match self.family {
            Family::Messages => messages::totals(&self.usage, flags),
            Family::Invoke => bedrock::invoke(&self.usage, flags),
            Family::Converse => bedrock::converse(fields),
            Family::Generate => gemini::totals(&self.usage, true, flags),
            Family::Interactions => gemini::totals(&self.usage, false, flags),
            Family::Cohere => cohere::totals(fields, flags),
            _ => inclusive(fields, self.semantics, flags),
        };
        if self.family == Family::Embeddings {
            totals.output = fields.or_zero(Field::Output);
        }
        if let Some(earlier) = &self.earlier {
            let mut sum = earlier.clone();
            sum.add(totals);
            totals = sum;
        }
        Some(totals)
    }

    fn add_tools(&self, counts: &mut Counts) {
        let searches = self.usage.fields.greatest(&[Field::WebSearch, Field::WebSearchDetails]);
        let tools = if self.tools == ToolCalls::default() { &self.tool_items } else { &self.tools };
        counts.add(Kind::WebSearch, searches.unwrap_or(0).max(tools.web_search));
        counts.add(Kind::WebSearch, self.earlier_web_searches);
        counts.add(Kind::FileSearch, tools.file_search);
        counts.add(Kind::CodeInterpreter, tools.sessions());
    }

    /// The usage as known now.
    pub fn reading(&self) -> Reading {
        let mut flags = self.flags;
        let totals = self.totals(&mut flags);
        let is_complete = self.is_complete || (self.is_ended && self.is_closed);
        let mut counts = Counts::default();
        if let Some(totals) = &totals {
            counts = totals.counts();
            let floor = self.output_bytes.checked_div(BYTES_PER_TOKEN_MAX).unwrap_or(0);
            flags.raise_if(is_complete && totals.output < floor, flags::OUTPUT_IMPLAUSIBLE);
        } else {
            counts.add(Kind::Second, self.seconds.unwrap_or(0));
            flags.raise_if(self.seconds.is_some(), flags::DURATION_BILLED);
            flags.raise_if(self.has_cost, flags::COST_ONLY);
            if self.family == Family::Images && !self.is_failed {
                counts.add(Kind::Image, self.images);
            }
        }
        self.add_tools(&mut counts);
        let is_lost = self.had_output && self.usage.fields.get(Field::Output).is_none();
        flags.raise_if(is_lost && self.family == Family::Generate, flags::CANDIDATES_LOST);
        flags.raise_if(self.metrics_disagree(), flags::METRICS_DISAGREE);
        flags.raise_if(self.usage.raw_dropped, flags::RAW_DROPPED);
        Reading {
            is_final: totals.is_some() && (self.is_final || (is_complete && self.family != Family::Messages)),
            input_total: totals.as_ref().map_or(0, |totals| totals.inference_input),
            totals,
            counts,
            is_complete,
            is_failed: self.is_failed,
            flags: flags.names(),
            model: text(&self.model),
            response_id: text(&self.id),
            service_tier: text(&self.tier),
            speed: text(&self.speed),
            inference_geo: text(&self.geo),
            raw: self.raw(),
            output_bytes: self.output_bytes,
        }
    }

    fn metrics_disagree(&self) -> bool {
        let (metrics, usage) = (&self.metrics.fields, &self.usage.fields);
        self.metrics.present
            && self.has_usage
            && [Field::Input, Field::Output].iter().any(|&field| metrics.get(field) != usage.get(field))
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}
