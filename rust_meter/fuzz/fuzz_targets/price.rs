//! Any text is an amount, a price or a refusal; a charge is a number or a refusal, and grows with its counts.
#![no_main]

use farebox_meter::money::{format_pico, parse_pico};
use farebox_meter::price::{KINDS, Price};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (String, String, String, u64, u64, u64)| {
    let (input, output, multiplier, first, second, total) = data;
    if let Ok(amount) = parse_pico(&input) {
        assert_eq!(parse_pico(&format_pico(amount)), Ok(amount));
    }
    let line = |index: usize, text: &str| (KINDS[index].0.to_owned(), text.to_owned());
    let base = vec![line(0, &input), line(4, &output)];
    let tiers = [(total / 2, true, vec![line(0, &output)])];
    let Ok(price) = Price::new(&base, &multiplier, &tiers, &[]) else { return };
    let charge = |input_count| price.charge(&[("input", input_count), ("output", second)], total, None);
    let (Ok(less), Ok(more)) = (charge(first / 2), charge(first)) else { return };
    assert!(less.missing.is_empty() && more.missing.is_empty());
    assert!(0 <= less.amount_pico && less.amount_pico <= more.amount_pico);
});
