//! Prices of one model, compiled once, and the charge they make of usage counts.
//!
//! `charge = round_half_even(sum(count * price) * multiplier)`, in pico-USD, rounded once. A kind that
//! occurs and has no price line is named, never priced at zero; a line may say "0".

use crate::money::{Decimal, MoneyError, PICO_PLACES, format_units, round_to_pico};

/// Every kind of usage that can be priced, in the order in which charges list them. The flag: priced per
/// million.
pub const KINDS: [(&str, bool); 15] = [
    ("input", true),
    ("cache_read", true),
    ("cache_write_5m", true),
    ("cache_write_1h", true),
    ("output", true),
    ("audio_input", true),
    ("audio_output", true),
    ("image_input", true),
    ("image_output", true),
    ("web_search", false),
    ("file_search", false),
    ("code_interpreter", false),
    ("image", false),
    ("second", false),
    ("call", false),
];
/// Kinds known; a count of an unknown kind is named as missing.
const KIND_COUNT: usize = KINDS.len();
/// Digits after the point that "per million" adds.
const MILLION_PLACES: u32 = 6;
/// Separates a variant's name from the tier threshold it belongs to.
const TIER_MARK: char = '@';

/// Price lines as configured: kind and decimal text.
pub type LineTexts = Vec<(String, String)>;

/// A context tier as configured: threshold in prompt tokens, whether reaching it is enough, its lines.
pub type TierTexts = (u64, bool, LineTexts);

/// Why prices cannot be used or a charge cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceError(pub String);

impl From<MoneyError> for PriceError {
    fn from(error: MoneyError) -> Self {
        Self(error.0)
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, PriceError> {
    Err(PriceError(message.into()))
}

#[derive(Debug, Clone)]
struct Line {
    text: String,
    price: Decimal,
    /// The price as an integer at the places of its set.
    units: i128,
}

/// One complete set of lines, all at the same number of decimal places (USD per single unit of the kind).
#[derive(Debug, Clone, Default)]
struct Lines {
    by_kind: [Option<Line>; KIND_COUNT],
    places: u32,
}

impl Lines {
    /// These lines with those of `texts` in their place.
    fn replaced_by(&self, texts: &LineTexts) -> Result<Self, PriceError> {
        let mut lines = self.clone();
        for (position, (name, text)) in texts.iter().enumerate() {
            let Some(index) = kind_index(name) else {
                return refuse(format!("no such kind of usage: {name:?}"));
            };
            if texts.iter().skip(position.saturating_add(1)).any(|(other, _)| other == name) {
                return refuse(format!("two prices for {name:?}"));
            }
            let price =
                Decimal::parse_price(text).map_err(|error| PriceError(format!("{name}: {}", error.0)))?;
            if let Some(slot) = lines.by_kind.get_mut(index) {
                *slot = Some(Line { text: text.clone(), price, units: 0 });
            }
        }
        lines.align()?;
        Ok(lines)
    }

    /// Bring every line to the places of the finest one.
    fn align(&mut self) -> Result<(), PriceError> {
        let places_of = |(line, (_, per_million)): (&Option<Line>, &(&str, bool))| {
            line.as_ref()
                .map(|line| line.price.places.saturating_add(if *per_million { MILLION_PLACES } else { 0 }))
        };
        self.places = self.by_kind.iter().zip(&KINDS).filter_map(places_of).max().unwrap_or(0);
        for (line, (name, per_million)) in self.by_kind.iter_mut().zip(&KINDS) {
            let Some(line) = line else { continue };
            let own = self.places.saturating_sub(if *per_million { MILLION_PLACES } else { 0 });
            let Some(units) = line.price.units_at(own) else {
                return refuse(format!(
                    "{name}: {} is too large beside a price with so many decimals",
                    line.text
                ));
            };
            line.units = units;
        }
        Ok(())
    }
}

fn kind_index(name: &str) -> Option<usize> {
    KINDS.iter().position(|(kind, _)| *kind == name)
}

#[derive(Debug, Clone)]
struct Tier {
    threshold: u64,
    inclusive: bool,
    lines: Lines,
}

impl Tier {
    fn reached(&self, input_total: u64) -> bool {
        input_total > self.threshold || (self.inclusive && input_total == self.threshold)
    }
}

/// Compiled, immutable prices of one model.
#[derive(Debug, Clone)]
pub struct Price {
    base: Lines,
    tiers: Vec<Tier>,
    /// Name (`batch`), or name and threshold of the tier it belongs to (`batch@200000`), and its lines.
    variants: Vec<(String, Lines)>,
    multiplier: Decimal,
    multiplier_text: String,
}

/// One line of a charge: kind, count, unit price as configured, exact amount in USD before the multiplier.
pub type ChargeLine = (&'static str, u64, String, String);

/// Priced usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The charge in pico-USD, rounded once; 0 when a price is missing.
    pub amount_pico: i128,
    /// What it is made of, in the order of `KINDS`.
    pub lines: Vec<ChargeLine>,
    /// The multiplier as configured.
    pub multiplier: String,
    /// Index of the context tier, -1 for the base lines.
    pub tier: i64,
    /// Kinds that occurred and have no price.
    pub missing: Vec<String>,
}

/// One kind of usage at its price, as configured; `units` is its amount at the places of the whole.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct PricedLine<'a> {
    pub kind: &'static str,
    pub count: u64,
    pub price: &'a str,
    pub units: i128,
}

/// A `Charge` whose lines are still numbers.
#[derive(Debug, Clone)]
pub struct Priced<'a> {
    /// The charge in pico-USD, rounded once; 0 when a price is missing.
    pub amount_pico: i128,
    /// What it is made of, in the order of `KINDS`.
    pub lines: Vec<PricedLine<'a>>,
    /// Decimal places of the lines' `units`, in USD before the multiplier.
    pub places: u32,
    /// Index of the context tier, -1 for the base lines.
    pub tier: i64,
    /// Kinds that occurred and have no price.
    pub missing: Vec<String>,
}

impl Price {
    /// Compile prices. Tiers ascend strictly; a variant's tier mark names an existing threshold.
    pub fn new(
        lines: &LineTexts,
        multiplier: &str,
        tiers: &[TierTexts],
        variants: &[(String, LineTexts)],
    ) -> Result<Self, PriceError> {
        let base = Lines::default().replaced_by(lines)?;
        let multiplier_text = multiplier.to_owned();
        let multiplier = Decimal::parse_price(multiplier)
            .map_err(|error| PriceError(format!("multiplier: {}", error.0)))?;
        let mut compiled: Vec<Tier> = Vec::with_capacity(tiers.len());
        for (threshold, inclusive, texts) in tiers {
            if compiled.last().is_some_and(|before| before.threshold >= *threshold) {
                return refuse("tiers must have rising thresholds");
            }
            let lines = base.replaced_by(texts)?;
            compiled.push(Tier { threshold: *threshold, inclusive: *inclusive, lines });
        }
        let variants = compile_variants(&base, &compiled, variants)?;
        Ok(Self { base, tiers: compiled, variants, multiplier, multiplier_text })
    }

    /// The lines that price a request, and the index of its tier.
    ///
    /// A variant with lines of its own needs lines of its own in the tier too; without them nothing is
    /// priced there, because neither the tier's plain lines nor the variant's short-context lines would be
    /// right.
    fn lines_for(&self, input_total: u64, variant: Option<&str>) -> (Option<&Lines>, i64) {
        let reached = self.tiers.iter().enumerate().rev().find(|(_, tier)| tier.reached(input_total));
        let named = |name: &str| self.variants.iter().find(|(own, _)| own == name).map(|(_, lines)| lines);
        let own =
            variant.filter(|name| !name.contains(TIER_MARK)).and_then(|name| Some((name, named(name)?)));
        match (reached, own) {
            (None, own) => (Some(own.map_or(&self.base, |(_, lines)| lines)), -1),
            (Some((index, tier)), None) => (Some(&tier.lines), i64::try_from(index).unwrap_or(i64::MAX)),
            (Some((index, tier)), Some((name, _))) => (
                named(&format!("{name}{TIER_MARK}{}", tier.threshold)),
                i64::try_from(index).unwrap_or(i64::MAX),
            ),
        }
    }

    /// Price counts (kind, count); a variant without lines uses the base. Errors only on overflow.
    pub fn charge(
        &self,
        counts: &[(&str, u64)],
        input_total: u64,
        variant: Option<&str>,
    ) -> Result<Charge, PriceError> {
        let priced = self.priced(counts.iter().copied(), input_total, variant)?;
        let told = |line: &PricedLine<'_>| {
            (line.kind, line.count, line.price.to_owned(), format_units(line.units, priced.places))
        };
        Ok(Charge {
            amount_pico: priced.amount_pico,
            lines: priced.lines.iter().map(told).collect(),
            multiplier: self.multiplier_text.clone(),
            tier: priced.tier,
            missing: priced.missing,
        })
    }

    /// The same charge, its lines not yet in words.
    pub fn priced<'a>(
        &self,
        counts: impl Iterator<Item = (&'a str, u64)>,
        input_total: u64,
        variant: Option<&str>,
    ) -> Result<Priced<'_>, PriceError> {
        let (lines, tier) = self.lines_for(input_total, variant);
        let mut by_kind = [0_u64; KIND_COUNT];
        let mut missing: Vec<String> = Vec::new();
        for (name, count) in counts.filter(|(_, count)| *count > 0) {
            match kind_index(name).and_then(|index| Some((lines?.by_kind.get(index)?.as_ref()?, index))) {
                Some((_, index)) => by_kind.get_mut(index).into_iter().for_each(|slot| *slot = count),
                None => missing.push(name.to_owned()),
            }
        }
        missing.sort_unstable();
        let (sum, priced_lines) = match lines {
            Some(lines) => sum_lines(lines, &by_kind).ok_or_else(overflow)?,
            None => (0, Vec::new()),
        };
        let places = lines.map_or(0, |lines| lines.places);
        let exact_places = places.saturating_add(self.multiplier.places);
        let amount =
            sum.checked_mul(self.multiplier.units).and_then(|units| round_to_pico(units, exact_places));
        let amount_pico = if missing.is_empty() { amount.ok_or_else(overflow)? } else { 0 };
        Ok(Priced { amount_pico, lines: priced_lines, places, tier, missing })
    }
}

fn overflow() -> PriceError {
    PriceError(format!("the charge does not fit: 10^-{PICO_PLACES} USD in 127 bits"))
}

fn compile_variants(
    base: &Lines,
    tiers: &[Tier],
    variants: &[(String, LineTexts)],
) -> Result<Vec<(String, Lines)>, PriceError> {
    let mut compiled = Vec::with_capacity(variants.len());
    for (name, texts) in variants {
        let under = match name.split_once(TIER_MARK) {
            None => base,
            Some((plain, threshold)) => {
                let tier = tiers.iter().find(|tier| tier.threshold.to_string() == threshold);
                let Some(tier) = tier else {
                    return refuse(format!("variant {name:?} names a tier that does not exist"));
                };
                if !variants.iter().any(|(other, _)| other == plain) {
                    return refuse(format!("variant {name:?} needs {plain:?} too"));
                }
                &tier.lines
            }
        };
        compiled.push((name.clone(), under.replaced_by(texts)?));
    }
    Ok(compiled)
}

/// Sum of count x price at the set's places, and the lines of the charge; None on overflow.
fn sum_lines<'a>(lines: &'a Lines, counts: &[u64; KIND_COUNT]) -> Option<(i128, Vec<PricedLine<'a>>)> {
    let mut sum = 0_i128;
    let mut priced = Vec::with_capacity(counts.iter().filter(|count| **count > 0).count());
    for ((line, (kind, _)), count) in lines.by_kind.iter().zip(&KINDS).zip(counts) {
        let Some(line) = line.as_ref().filter(|_| *count > 0) else {
            continue;
        };
        let units = line.units.checked_mul(i128::from(*count))?;
        sum = sum.checked_add(units)?;
        priced.push(PricedLine { kind, count: *count, price: &line.text, units });
    }
    Some((sum, priced))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#[path = "price_tests.rs"]
mod tests;
