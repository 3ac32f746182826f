//! A settle record of the journal, read back: only in the very form in which `settlement` and Python write it.
//!
//! `Settlement.decode` of `farebox/base/records.py` and the checks of `farebox/writer/batch.py` are the
//! reference, and a property test holds both equal. The whole record is checked, so that whoever reads it later
//! finds no fault; only what booking asks for is handed out. Whatever is odd is `None` and theirs to judge:
//! white space, fields of another number or type, numbers beyond what a store can add up, other models' counts,
//! a reason for quarantine, unusual escapes.

use memchr::memchr2;

/// No amount, count or time of a record is greater.
const LARGEST: u64 = 1 << 62;

/// A part of the charge: lot, pool and pico-USD.
pub type Take<'a> = (&'a str, &'a str, u64);

/// What booking asks for of a record; `others` and `quarantine` are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the record")]
pub struct Settled<'a> {
    pub exchange: &'a str,
    pub user: &'a str,
    pub wallet: &'a str,
    pub model: &'a str,
    pub counts: Vec<(&'a str, u64)>,
    pub input_total: u64,
    pub amount_pico: u64,
    pub takes: Vec<Take<'a>>,
    pub ended_ms: u64,
    charge: ChargeParts<'a>,
    sums: Sums,
}

/// What one exchange adds to the rollups, in the order of `Sums` in `farebox/store/rollups.py`.
pub type Sums = [u64; 15];

/// The other fields of the charge block, as they stand in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChargeParts<'a> {
    model_and_format: &'a str,
    version_to_counts: &'a str,
    variant: &'a str,
    free: bool,
}

impl<'a> Settled<'a> {
    /// A record in its plain form.
    pub fn read(record: &'a str) -> Option<Self> {
        if record.bytes().fold(u8::MAX, u8::min) < b' ' {
            return None;
        }
        let mut at = Cursor { rest: record };
        at.exactly("[")?;
        let exchange = at.text()?;
        let user = at.next(Cursor::text)?;
        let wallet = at.next(Cursor::text)?;
        let _key = at.next(Cursor::text)?;
        let (model_and_format, model) = at.next(|at| {
            at.span(|at| {
                let model = at.text()?;
                let _wire_format = at.next(Cursor::text)?;
                Some(model)
            })
        })?;
        let (version_to_counts, (evidence, counts)) = at.next(|at| {
            at.span(|at| {
                let _price_version = at.number()?;
                let _multiplier = at.next(Cursor::text)?;
                let evidence = at.next(Cursor::text)?;
                let _flags = at.next(|at| at.list("[", "]", Cursor::text))?;
                Some((evidence, at.next(|at| at.list("{", "}", Cursor::count))?))
            })
        })?;
        at.exactly(",{}")?;
        let input_total = at.next(Cursor::number)?;
        let variant = at.next(Cursor::text)?;
        let amount_pico = at.next(Cursor::number)?;
        let takes = at.next(|at| at.list("[", "]", Cursor::take))?;
        at.exactly(",\"\"")?;
        let outcome = at.next(Cursor::text)?;
        let status = at.next(Cursor::number)?;
        let _upstream = at.next(Cursor::text)?;
        at.next(Cursor::escaped_text)?;
        at.next(Cursor::escaped_text)?;
        let _stream = at.next(Cursor::truth)?;
        let started_ms = at.next(Cursor::number)?;
        let first_byte_ms = at.next(Cursor::number)?;
        let ended_ms = at.next(Cursor::number)?;
        at.next(Cursor::escaped_text)?;
        let free = at.next(Cursor::truth)?;
        at.exactly("]")?;
        let is_sound = at.rest.is_empty() && !has_doubles(&counts);
        let charge = ChargeParts { model_and_format, version_to_counts, variant, free };
        let output_tokens = count_of(&counts, "output");
        let sums = [
            1,
            u64::from(!(200..300).contains(&status)),
            u64::from(matches!(outcome, "cut" | "client_gone_cut" | "upstream_broke")),
            u64::from(evidence == "partial"),
            u64::from(evidence == "estimated"),
            0,
            count_of(&counts, "input"),
            output_tokens,
            count_of(&counts, "cache_write_5m").saturating_add(count_of(&counts, "cache_write_1h")),
            count_of(&counts, "cache_read"),
            input_total.saturating_add(output_tokens),
            amount_pico,
            ended_ms.saturating_sub(started_ms),
            if first_byte_ms == 0 { 0 } else { first_byte_ms.saturating_sub(started_ms) },
            u64::from(first_byte_ms != 0),
        ];
        is_sound.then_some(Self {
            exchange,
            user,
            wallet,
            model,
            counts,
            input_total,
            amount_pico,
            takes,
            ended_ms,
            charge,
            sums,
        })
    }

    /// Its output tokens.
    pub fn output_tokens(&self) -> u64 {
        count_of(&self.counts, "output")
    }

    /// What it adds to the rollups.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The lot that pays the whole charge alone, where there is one and a charge.
    pub fn only_take(&self) -> Option<Take<'a>> {
        match self.takes.as_slice() {
            [take] if take.2 == self.amount_pico && take.2 > 0 => Some(*take),
            _ => None,
        }
    }

    /// The charge block as the SQLite store keeps it: an array in the order of `CHARGE_MEMBERS`.
    pub fn charge_text(&self) -> String {
        let ChargeParts { model_and_format, version_to_counts, variant, free } = self.charge;
        let mut out = String::with_capacity(192);
        for part in ["[", model_and_format, ",\"", variant, "\",", version_to_counts, ",{},"] {
            out.push_str(part);
        }
        push_number(&mut out, self.input_total);
        out.push(',');
        push_number(&mut out, self.amount_pico);
        out.push_str(if free { ",true]" } else { ",false]" });
        out
    }
}

/// What a ledger row says of the one lot that pays: `[["lot","pool",-7]]`.
pub fn lots_text(take: Take<'_>) -> String {
    let mut out = String::with_capacity(64);
    for part in ["[[\"", take.0, "\",\"", take.1, "\",-"] {
        out.push_str(part);
    }
    push_number(&mut out, take.2);
    out.push_str("]]");
    out
}

fn push_number(out: &mut String, number: u64) {
    use std::fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = write!(out, "{number}");
}

fn count_of(counts: &[(&str, u64)], kind: &str) -> u64 {
    counts.iter().find(|(one, _)| *one == kind).map_or(0, |(_, count)| *count)
}

fn has_doubles(counts: &[(&str, u64)]) -> bool {
    counts.iter().enumerate().any(|(index, (kind, _))| counts.iter().take(index).any(|(one, _)| one == kind))
}

/// A place in a record. Every step is taken as a whole, or the record is odd.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn is_at(&self, text: &str) -> bool {
        self.rest.starts_with(text)
    }

    fn exactly(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// The next member of an array.
    fn next<T>(&mut self, member: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.exactly(",")?;
        member(self)
    }

    /// What some steps find, and the text they pass over.
    fn span<T>(&mut self, steps: impl FnOnce(&mut Self) -> Option<T>) -> Option<(&'a str, T)> {
        let from = self.rest;
        let found = steps(self)?;
        Some((from.get(..from.len().checked_sub(self.rest.len())?)?, found))
    }

    /// A string without escapes.
    fn text(&mut self) -> Option<&'a str> {
        self.exactly("\"")?;
        let end = memchr2(b'"', b'\\', self.rest.as_bytes())?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.strip_prefix('"')?;
        Some(text)
    }

    /// A string whose escapes are those that both writers use.
    fn escaped_text(&mut self) -> Option<()> {
        self.exactly("\"")?;
        loop {
            let stop = memchr2(b'"', b'\\', self.rest.as_bytes())?;
            let rest = self.rest.get(stop..)?;
            if let Some(behind) = rest.strip_prefix('"') {
                self.rest = behind;
                return Some(());
            }
            let escape_bytes = match rest.as_bytes().get(1)? {
                b'"' | b'\\' | b'n' | b'r' | b't' | b'b' | b'f' => 2,
                b'u' if is_control(rest.get(2..6)?.as_bytes()) => 6,
                _ => return None,
            };
            self.rest = rest.get(escape_bytes..)?;
        }
    }

    fn truth(&mut self) -> Option<bool> {
        let value = self.is_at("t");
        self.exactly(if value { "true" } else { "false" })?;
        Some(value)
    }

    /// A number as both writers write it, at most `LARGEST`.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        let mut digits = 0_usize;
        for byte in self.rest.bytes() {
            let Some(digit) = byte.checked_sub(b'0').filter(|digit| *digit < 10) else { break };
            number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
            digits = digits.saturating_add(1);
        }
        let is_usual = digits == 1 || (digits > 1 && !self.is_at("0"));
        self.rest = self.rest.get(digits..)?;
        (is_usual && number <= LARGEST).then_some(number)
    }

    fn list<T>(&mut self, begin: &str, end: &str, member: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut members = Vec::new();
        self.exactly(begin)?;
        if !self.is_at(end) {
            members.push(member(self)?);
        }
        while !self.is_at(end) {
            members.push(self.next(&member)?);
        }
        self.exactly(end)?;
        Some(members)
    }

    fn count(&mut self) -> Option<(&'a str, u64)> {
        let kind = self.text()?;
        self.exactly(":")?;
        Some((kind, self.number()?))
    }

    fn take(&mut self) -> Option<Take<'a>> {
        self.exactly("[")?;
        let lot = self.text()?;
        let pool = self.next(Cursor::text)?;
        let amount_pico = self.next(Cursor::number)?;
        self.exactly("]")?;
        Some((lot, pool, amount_pico))
    }
}

/// Whether four digits of an escape name a control character.
fn is_control(digits: &[u8]) -> bool {
    matches!(digits, [b'0', b'0', b'0' | b'1', last] if last.is_ascii_hexdigit())
}
