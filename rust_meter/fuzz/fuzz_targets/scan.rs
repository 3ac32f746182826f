//! Any bytes are a scan or a refusal, in any format; what is edited scans again as what was asked for.
#![no_main]

use farebox_meter::scan::{Format, edited, scan};
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 5] =
    [Format::Chat, Format::Completions, Format::Responses, Format::Messages, Format::Embeddings];

fuzz_target!(|data: &[u8]| {
    check(data);
    // Random bytes hardly ever name a model; given one, the rest is explored.
    check(&[b"{\"model\":\"m\",", data, b"}"].concat());
});

fn check(body: &[u8]) {
    for format in FORMATS {
        let Ok(facts) = scan(body, format, 128) else { continue };
        assert_eq!(facts.text_bytes + facts.data_bytes, body.len());
        assert!(facts.choices > 0 && !facts.model.is_empty());
        assert_eq!(edited(&facts, body, None, false).as_deref(), Some(body));
        let changed = edited(&facts, body, Some("other \"model\""), true).expect("the same body");
        let again = scan(&changed, format, 128).expect("an edited body is as good as the first");
        assert_eq!((again.model.as_str(), again.include_usage), ("other \"model\"", Some(true)));
        assert_eq!((again.output_limit, again.choices), (facts.output_limit, facts.choices));
    }
}
