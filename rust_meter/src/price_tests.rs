//! Golden charges are exact; any sum agrees with a big-integer oracle; what has no price is named, never
//! free.
use super::*;
use proptest::prelude::*;

fn texts(lines: &[(&str, &str)]) -> LineTexts {
    lines.iter().map(|(kind, text)| ((*kind).to_owned(), (*text).to_owned())).collect()
}

fn plain(lines: &[(&str, &str)], multiplier: &str) -> Price {
    Price::new(&texts(lines), multiplier, &[], &[]).unwrap()
}

fn amount(price: &Price, counts: &[(&str, u64)], total: u64, variant: Option<&str>) -> i128 {
    let charge = price.charge(counts, total, variant).unwrap();
    assert_eq!(charge.missing, Vec::<String>::new());
    charge.amount_pico
}

#[test]
fn golden_charges() {
    let sonnet = [("input", "3"), ("output", "15"), ("cache_write_5m", "3.75"), ("cache_read", "0.3")];
    let counts = [("input", 1200), ("output", 800), ("cache_write_5m", 2000), ("cache_read", 10_000)];
    assert_eq!(amount(&plain(&sonnet, "1.05"), &counts, 13_200, None), 27_405_000_000);
    let opus = [("input", "5"), ("output", "25")];
    assert_eq!(
        amount(&plain(&opus, "1.15"), &[("input", 1000), ("output", 500)], 1000, None),
        20_125_000_000
    );
    let haiku = [("input", "1"), ("output", "5")];
    let million = [("input", 1_000_000), ("output", 1_000_000)];
    assert_eq!(amount(&plain(&haiku, "1.1"), &million, 1_000_000, None), 6_600_000_000_000);
    let other = [("input", "3.30"), ("output", "16.50"), ("cache_write_5m", "4.13"), ("cache_read", "0.33")];
    let counts = [("input", 0), ("output", 1048), ("cache_write_5m", 1558), ("cache_read", 62_745)];
    assert_eq!(amount(&plain(&other, "1.05"), &counts, 64_303, None), 46_654_009_500);
}

#[test]
fn lines_show_counts_prices_and_exact_amounts_in_the_order_of_the_kinds() {
    let price = plain(&[("output", "16.50"), ("input", "0.0833333333333333333"), ("call", "0.01")], "1.050");
    let charge = price.charge(&[("call", 1), ("output", 3), ("input", 7)], 7, None).unwrap();
    let lines: Vec<_> = charge
        .lines
        .iter()
        .map(|(kind, count, text, exact)| (*kind, *count, text.as_str(), exact.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            ("input", 7, "0.0833333333333333333", "0.0000005833333333333333331"),
            ("output", 3, "16.50", "0.0000495"),
            ("call", 1, "0.01", "0.01"),
        ]
    );
    assert_eq!((charge.multiplier.as_str(), charge.tier), ("1.050", -1));
}

#[test]
fn a_kind_without_a_price_is_named_and_nothing_is_charged() {
    let price = plain(&[("input", "3"), ("output", "0")], "1");
    let charge =
        price.charge(&[("input", 5), ("output", 5), ("cache_read", 1), ("zebra", 2)], 6, None).unwrap();
    assert_eq!((charge.missing, charge.amount_pico), (vec!["cache_read".to_owned(), "zebra".to_owned()], 0));
    assert_eq!(amount(&price, &[("output", 5), ("cache_read", 0)], 0, None), 0);
}

#[test]
fn tiers_are_chosen_once_strict_or_inclusive() {
    let tiers = [
        (200_000, false, texts(&[("input", "6")])),
        (400_000, true, texts(&[("input", "7"), ("output", "9")])),
    ];
    let price = Price::new(&texts(&[("input", "3"), ("output", "15")]), "1", &tiers, &[]).unwrap();
    let both = [("input", 1_000_000), ("output", 1_000_000)];
    let at = |total| {
        let charge = price.charge(&both, total, None).unwrap();
        (charge.amount_pico / 10_i128.pow(12), charge.tier)
    };
    assert_eq!(at(200_000), (18, -1));
    assert_eq!(at(200_001), (21, 0));
    assert_eq!(at(399_999), (21, 0));
    assert_eq!(at(400_000), (16, 1));
}

#[test]
fn variants_replace_lines_and_need_their_own_in_a_tier() {
    let tiers = [(200_000, false, texts(&[("input", "6")]))];
    let base = texts(&[("input", "3"), ("output", "15")]);
    let variants =
        [("batch".to_owned(), texts(&[("input", "1.5")])), ("priority".to_owned(), texts(&[("input", "9")]))];
    let price = Price::new(&base, "1", &tiers, &variants).unwrap();
    let one = [("input", 1_000_000)];
    assert_eq!(amount(&price, &one, 5, Some("batch")), 1_500_000_000_000);
    assert_eq!(amount(&price, &one, 5, Some("default")), 3_000_000_000_000);
    assert_eq!(amount(&price, &one, 200_001, Some("default")), 6_000_000_000_000);
    assert_eq!(price.charge(&one, 200_001, Some("batch")).unwrap().missing, ["input"]);
    let tiered = [variants[0].clone(), ("batch@200000".to_owned(), texts(&[("input", "3.5")]))];
    let price = Price::new(&base, "1", &tiers, &tiered).unwrap();
    assert_eq!(amount(&price, &one, 200_001, Some("batch")), 3_500_000_000_000);
    assert_eq!(amount(&price, &one, 5, Some("batch@200000")), 3_000_000_000_000);
}

#[test]
fn unusable_prices_are_refused() {
    let refused =
        |lines: &[(&str, &str)], multiplier: &str| Price::new(&texts(lines), multiplier, &[], &[]).is_err();
    assert!(refused(&[("zebra", "1")], "1"));
    assert!(refused(&[("input", "-1")], "1"));
    assert!(refused(&[("input", "1"), ("input", "2")], "1"));
    assert!(refused(&[("input", "1")], "-1"));
    assert!(refused(&[("input", "1")], ""));
    assert!(refused(&[("input", "0.0000000000000000000000001")], "1"));
    assert!(refused(&[("second", "999999999999"), ("input", "0.000000000000000000000001")], "1"));
    let tier = |threshold| (threshold, false, texts(&[]));
    assert!(Price::new(&texts(&[]), "1", &[tier(5), tier(5)], &[]).is_err());
    let lost = [("batch@7".to_owned(), texts(&[]))];
    assert!(Price::new(&texts(&[]), "1", &[tier(5)], &lost).is_err());
    let alone = [("batch@5".to_owned(), texts(&[]))];
    assert!(Price::new(&texts(&[]), "1", &[tier(5)], &alone).is_err());
}

#[test]
fn overflow_is_an_error() {
    let price = plain(&[("second", "999999999999"), ("input", "0.00000000000001")], "1000");
    assert!(price.charge(&[("second", u64::MAX)], 0, None).is_err());
    let price = plain(&[("second", "999999999999")], "999999999999.999999999999");
    assert!(price.charge(&[("second", u64::MAX)], 0, None).is_err());
}

/// A natural number of any size, base 10^9, least digit first: slow, obvious and unlike the code under
/// test.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Big(Vec<u32>);

impl Big {
    const BASE: u64 = 1_000_000_000;

    fn from(text: &str) -> Self {
        text.bytes()
            .fold(Self(vec![0]), |big, digit| big.times(10).plus(&Self(vec![u32::from(digit - b'0')])))
    }

    fn times(&self, factor: u64) -> Self {
        let mut digits = Vec::new();
        let mut carry = 0_u128;
        for digit in &self.0 {
            carry += u128::from(*digit) * u128::from(factor);
            digits.push((carry % u128::from(Self::BASE)) as u32);
            carry /= u128::from(Self::BASE);
        }
        while carry > 0 {
            digits.push((carry % u128::from(Self::BASE)) as u32);
            carry /= u128::from(Self::BASE);
        }
        Self(digits)
    }

    fn plus(&self, other: &Self) -> Self {
        let mut digits = Vec::new();
        let mut carry = 0_u64;
        for index in 0..self.0.len().max(other.0.len()) {
            carry +=
                u64::from(*self.0.get(index).unwrap_or(&0)) + u64::from(*other.0.get(index).unwrap_or(&0));
            digits.push((carry % Self::BASE) as u32);
            carry /= Self::BASE;
        }
        digits.push(carry as u32);
        Self(digits)
    }

    fn text(&self) -> String {
        let digits: String = self.0.iter().rev().map(|digit| format!("{digit:09}")).collect();
        digits.trim_start_matches('0').to_owned()
    }
}

/// Digits of `units` / 10^`places` rounded half to even to 12 places, worked on the decimal text.
fn oracle_round(units: &Big, places: usize) -> String {
    let text = format!("{:0>width$}", units.text(), width = places + 1);
    let padded = format!("{text}{}", "0".repeat(12_usize.saturating_sub(places)));
    let cut = places.saturating_sub(12);
    let (kept, rest) = padded.split_at(padded.len() - cut);
    let half = format!("5{}", "0".repeat(cut.saturating_sub(1)));
    let odd = kept.ends_with(['1', '3', '5', '7', '9']);
    let up = cut > 0 && (rest > half.as_str() || (rest == half && odd));
    let rounded = Big::from(kept).plus(&Big(vec![u32::from(up)]));
    let text = rounded.text();
    if text.is_empty() { "0".to_owned() } else { text }
}

fn decimal_text() -> impl Strategy<Value = (String, String, usize)> {
    ("(0|[1-9][0-9]{0,3})", "[0-9]{0,9}").prop_map(|(whole, fraction)| {
        let point = if fraction.is_empty() { "" } else { "." };
        (format!("{whole}{point}{fraction}"), format!("{whole}{fraction}"), fraction.len())
    })
}

proptest! {
    #[test]
    fn any_charge_agrees_with_the_oracle(
        parts in proptest::collection::vec((decimal_text(), 0_u64..2_000_000_000), 1..15),
        factor in decimal_text(),
    ) {
        let priced = || parts.iter().zip(KINDS);
        let lines: LineTexts =
            priced().map(|(((text, _, _), _), (kind, _))| (kind.to_owned(), text.clone())).collect();
        let counts: Vec<(&str, u64)> = priced().map(|((_, count), (kind, _))| (kind, *count)).collect();
        let places = 15_usize;
        let sum = priced().fold(Big(vec![0]), |sum, (((_, digits, own), count), (_, per_million))| {
            let zeros = places - own - if per_million { 6 } else { 0 };
            sum.plus(&Big::from(digits).times(10_u64.pow(zeros as u32)).times(*count))
        });
        let factor_digits: u64 = factor.1.parse().unwrap();
        let expected = oracle_round(&sum.times(factor_digits), places + factor.2);
        let price = Price::new(&lines, &factor.0, &[], &[]).unwrap();
        match price.charge(&counts, 0, None) {
            Ok(charge) => prop_assert_eq!(charge.amount_pico.to_string(), expected),
            // 10^38 is where i128 ends: 4+9 digits of price, 10 of count, 13 of factor, 15 places may pass
            // it.
            Err(_) => prop_assert!(sum.times(factor_digits).text().len() >= 38),
        }
    }
}
