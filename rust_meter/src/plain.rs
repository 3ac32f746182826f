//! The common exchange in two steps: what a plain request may cost, what its plain answer does cost.
//!
//! Everything decided here is decided by the general functions in Python too (`meter/estimate.py`,
//! `proxy/admission.py`, `proxy/verdict.py`); they are the reference, and a property test holds both equal.
//! What is not plain is left to them: `None`. The constants come from them as well, in `Terms`.

use crate::money::push_integer;
use crate::normal::Counts;
use crate::price::Price;
use crate::reading::Reading;
use crate::scan::Scan;

/// Upper bounds per token in pico-USD, from `reached_tokens` prompt tokens on; base variant, text only.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// First prompt size they are for.
    pub reached_tokens: u64,
    /// The dearest kind of input.
    pub input_pico: i128,
    /// Output.
    pub output_pico: i128,
}

/// What one wire format makes of a text prompt, in tokens (`InputBound` in Python).
#[derive(Debug, Clone, Copy)]
pub struct InputBound {
    /// Added once.
    pub request_tokens: u64,
    /// Added per message.
    pub message_tokens: u64,
    /// Of the body, no prompt text.
    pub envelope_bytes: u64,
    /// Of each message, no prompt text.
    pub message_bytes: u64,
    /// Bytes of text per token, above 0.
    pub bytes_per_token: u64,
}

/// One model on one wire format: its prices and the constants of the general decisions.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Exact prices; without a fee per call.
    pub price: Price,
    /// The format's bound.
    pub input: InputBound,
    /// The model's context, if stated.
    pub context_tokens: Option<u64>,
    /// Output assumed of a request without a limit; 0 where the format has no output.
    pub assumed_output_tokens: u64,
    /// The model's own limit (0 where the format has no output).
    pub output_tokens_max: Option<u64>,
    /// Output per choice that the first hold of a stream covers.
    pub slice_output_tokens: u64,
    /// For estimates, above 0.
    pub estimate_bytes_per_token: u64,
    /// Bounds for the hold.
    pub rates: Vec<Rate>,
    /// Service tiers that mean the base price.
    pub plain_tiers: Vec<String>,
    /// A greater count is not believed.
    pub count_max: u64,
}

/// Bounds and first hold of a plain request (`Ask` in Python).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct Ask {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub first_output_tokens: u64,
    pub hold_pico: i128,
    pub input_estimate_tokens: u64,
}

/// The exact charge of a plain answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Rounded once.
    pub amount_pico: i128,
    /// What was used at which price: `input=12@1.25 output=5@10`.
    pub used: String,
}

impl Terms {
    /// `ask_of` for a request of text alone, without tools or fields that change the price.
    pub fn ask(&self, scan: &Scan) -> Option<Ask> {
        let media = scan.image_count | scan.audio_count | scan.file_count;
        if media != 0 || scan.tool_count != 0 || scan.server_context {
            return None;
        }
        if !scan.price_fields.is_empty() || !scan.hosted_tools.is_empty() {
            return None;
        }
        let text_bytes = u64::try_from(scan.text_bytes).ok()?;
        let input_tokens = self.input_tokens(text_bytes, scan.message_count)?;
        let output_tokens = self.output_limit(scan).checked_mul(scan.choices)?;
        let first_output_tokens = if scan.stream {
            output_tokens.min(self.slice_output_tokens.checked_mul(scan.choices)?)
        } else {
            output_tokens
        };
        let hold_pico = self.hold_pico(input_tokens, first_output_tokens)?;
        let estimate = text_bytes.checked_add(self.estimate_bytes_per_token.checked_sub(1)?)?;
        let estimate = estimate.checked_div(self.estimate_bytes_per_token)?;
        let input_estimate_tokens = input_tokens.min(estimate);
        Some(Ask { input_tokens, output_tokens, first_output_tokens, hold_pico, input_estimate_tokens })
    }

    fn input_tokens(&self, text_bytes: u64, messages: u64) -> Option<u64> {
        let bound = &self.input;
        let envelope = bound.message_bytes.checked_mul(messages)?.checked_add(bound.envelope_bytes)?;
        let text = text_bytes.saturating_sub(envelope).div_ceil(bound.bytes_per_token.max(1));
        let tokens = bound.message_tokens.checked_mul(messages)?.checked_add(bound.request_tokens)?;
        let tokens = tokens.checked_add(text)?;
        Some(self.context_tokens.map_or(tokens, |context| tokens.min(context)))
    }

    fn output_limit(&self, scan: &Scan) -> u64 {
        let limit = scan.output_limit.map_or(self.assumed_output_tokens, u64::from);
        self.output_tokens_max.map_or(limit, |most| limit.min(most))
    }

    fn hold_pico(&self, input_tokens: u64, output_tokens: u64) -> Option<i128> {
        let mut dearest = 0_i128;
        for rate in self.rates.iter().filter(|rate| rate.reached_tokens <= input_tokens) {
            let input_pico = i128::from(input_tokens).checked_mul(rate.input_pico)?;
            let output_pico = i128::from(output_tokens).checked_mul(rate.output_pico)?;
            dearest = dearest.max(input_pico.checked_add(output_pico)?);
        }
        Some(dearest)
    }

    /// `verdict_of` for an answer with the final usage of one model at the base price, every kind priced.
    pub fn charge(&self, reading: &Reading) -> Option<Charge> {
        let totals = reading.totals.as_ref()?;
        let tier = reading.service_tier.as_deref();
        let is_base = tier.is_none_or(|tier| self.plain_tiers.iter().any(|plain| plain == tier))
            && reading.speed.as_deref().is_none_or(str::is_empty)
            && reading.inference_geo.as_deref().is_none_or(str::is_empty);
        if !reading.is_final
            || !is_base
            || !totals.others.is_empty()
            || !is_believable(reading, self.count_max)
        {
            return None;
        }
        let priced = self.price.priced(reading.counts.above_zero(), reading.input_total, None).ok()?;
        if !priced.missing.is_empty() {
            return None;
        }
        let mut used = Vec::with_capacity(64);
        for line in &priced.lines {
            if !used.is_empty() {
                used.push(b' ');
            }
            used.extend_from_slice(line.kind.as_bytes());
            used.push(b'=');
            push_integer(&mut used, i128::from(line.count));
            used.push(b'@');
            used.extend_from_slice(line.price.as_bytes());
        }
        let used = String::from_utf8(used).ok()?;
        Some(Charge { amount_pico: priced.amount_pico, used })
    }
}

/// No count is beyond belief, and text that was delivered is counted as output.
fn is_believable(reading: &Reading, count_max: u64) -> bool {
    let has_output = |counts: &Counts| counts.above_zero().any(|(kind, _)| kind == "output");
    reading.counts.above_zero().all(|(_, count)| count <= count_max)
        && (reading.output_bytes == 0 || has_output(&reading.counts))
}
