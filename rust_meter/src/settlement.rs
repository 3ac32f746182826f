//! The end of a plain exchange in words: its journal record and its log line.
//!
//! A record is the JSON array of `farebox.base.records.Settlement`, field by field; Python's `encode` is the
//! reference, and a property test holds both equal. Nothing is decided here.

use crate::marks::{is_escaped, push_replaced};
use crate::money::{push_integer, push_pico};
use crate::normal::Counts;

/// What all exchanges of one model on one route have in common.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the names are those of the record")]
pub struct Wording {
    pub wallet: String,
    pub model: String,
    pub wire_format: String,
    pub price_version: u64,
    pub multiplier: String,
    pub upstream: String,
    pub free: bool,
    /// So many characters are kept of the name of the serving model.
    pub upstream_model_characters_max: usize,
}

/// What the answer said and what it costs.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the names are those of the record")]
pub struct Charged {
    pub amount_pico: i64,
    pub counts: Counts,
    pub input_total: u64,
    pub flags: Vec<&'static str>,
    pub upstream_model: String,
    pub raw_usage: String,
    /// What was used at which price: `input=12@1.25 output=5@10`.
    pub used: String,
}

/// A part of the charge: lot, pool and pico-USD.
pub type Take<'a> = (&'a str, &'a str, i64);

/// One exchange's own facts.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the names are those of the record")]
pub struct Facts<'a> {
    pub exchange: &'a str,
    pub user: &'a str,
    pub key: &'a str,
    pub takes: Vec<Take<'a>>,
    pub outcome: &'a str,
    pub status: u64,
    pub upstream_request: &'a str,
    pub stream: bool,
    pub started_ms: i64,
    pub first_byte_ms: i64,
    pub ended_ms: i64,
}

/// The record as it stands in the journal.
pub fn record(wording: &Wording, charged: &Charged, facts: &Facts<'_>) -> Vec<u8> {
    let mut out = Array(Vec::with_capacity(512));
    out.text(facts.exchange);
    out.text(facts.user);
    out.text(&wording.wallet);
    out.text(facts.key);
    out.text(&wording.model);
    out.text(&wording.wire_format);
    out.number(i128::from(wording.price_version));
    out.text(&wording.multiplier);
    out.text("exact");
    out.nested(b'[', b']', |inner| charged.flags.iter().for_each(|flag| inner.text(flag)));
    out.nested(b'{', b'}', |inner| {
        for (kind, count) in charged.counts.above_zero() {
            inner.text(kind);
            inner.after_name();
            inner.number(i128::from(count));
        }
    });
    out.nested(b'{', b'}', |_| ());
    out.number(i128::from(charged.input_total));
    out.text("");
    out.number(i128::from(charged.amount_pico));
    out.nested(b'[', b']', |inner| {
        for (lot, pool, amount_pico) in &facts.takes {
            inner.nested(b'[', b']', |take| {
                take.text(lot);
                take.text(pool);
                take.number(i128::from(*amount_pico));
            });
        }
    });
    out.text("");
    out.text(facts.outcome);
    out.number(i128::from(facts.status));
    out.text(&wording.upstream);
    out.text(beginning(&charged.upstream_model, wording.upstream_model_characters_max));
    out.text(facts.upstream_request);
    out.truth(facts.stream);
    out.number(i128::from(facts.started_ms));
    out.number(i128::from(facts.first_byte_ms));
    out.number(i128::from(facts.ended_ms));
    out.text(&charged.raw_usage);
    out.truth(wording.free);
    out.finished()
}

/// The line for people; `remaining_pico` is the wallet's balance, where it is known.
pub fn line(wording: &Wording, charged: &Charged, facts: &Facts<'_>, remaining_pico: Option<i64>) -> String {
    let mut out = Vec::with_capacity(256);
    let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    push(&["settled ", facts.exchange, " user=", facts.user, " model=", &wording.model, " exact "]);
    push(&[facts.outcome, " ", &charged.used, " x", &wording.multiplier, " amount="]);
    push_pico(&mut out, i128::from(charged.amount_pico));
    out.push(b' ');
    for (number, (pool, amount_pico)) in by_pool(&facts.takes).into_iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"" } else { b" " });
        out.extend_from_slice(pool.as_bytes());
        out.push(b'=');
        push_pico(&mut out, amount_pico);
    }
    out.extend_from_slice(b" remaining~");
    match remaining_pico {
        Some(left_pico) => push_pico(&mut out, i128::from(left_pico)),
        None => out.push(b'?'),
    }
    out.push(b'\n');
    String::from_utf8(out).unwrap_or_default()
}

fn by_pool<'a>(takes: &[Take<'a>]) -> Vec<(&'a str, i128)> {
    let mut pools: Vec<(&str, i128)> = Vec::with_capacity(takes.len());
    for (_, pool, amount_pico) in takes {
        let amount_pico = i128::from(*amount_pico);
        match pools.iter_mut().find(|(known, _)| known == pool) {
            // As many amounts of 64 bits as fit in memory stay far below the end of 128.
            Some((_, sum_pico)) => *sum_pico = sum_pico.saturating_add(amount_pico),
            None => pools.push((pool, amount_pico)),
        }
    }
    pools
}

fn beginning(text: &str, characters_max: usize) -> &str {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// JSON being written: members of the innermost bracket, with commas where they belong.
struct Array(Vec<u8>);

impl Array {
    fn separate(&mut self) {
        if !matches!(self.0.last(), Some(b'[' | b'{' | b':')) {
            let mark = if self.0.is_empty() { b'[' } else { b',' };
            self.0.push(mark);
        }
    }

    fn text(&mut self, text: &str) {
        self.separate();
        let out = &mut self.0;
        out.reserve(text.len().saturating_add(text.len() / 4).saturating_add(2));
        out.push(b'"');
        push_replaced(out, text.as_bytes(), is_escaped, |out, here| match here.first() {
            Some(b'"' | b'\\') => {
                out.push(b'\\');
                0
            }
            Some(byte) => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                1
            }
            None => 0,
        });
        out.push(b'"');
    }

    fn after_name(&mut self) {
        self.0.push(b':');
    }

    fn number(&mut self, number: i128) {
        self.separate();
        push_integer(&mut self.0, number);
    }

    fn truth(&mut self, value: bool) {
        self.separate();
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn nested(&mut self, begin: u8, end: u8, members: impl FnOnce(&mut Self)) {
        self.separate();
        self.0.push(begin);
        members(self);
        self.0.push(end);
    }

    fn finished(mut self) -> Vec<u8> {
        self.0.push(b']');
        self.0
    }
}
