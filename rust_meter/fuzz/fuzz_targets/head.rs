//! Any bytes are a head, an incomplete head or a refusal; more bytes behind a head never change it.
#![no_main]

use farebox_meter::head::parse_head;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for no_body in [false, true] {
        let Ok(Some(head)) = parse_head(data, no_body, 65_536, 256) else { continue };
        assert!(head.length <= data.len() && (100..600).contains(&head.status));
        let alone = parse_head(&data[..head.length], no_body, 65_536, 256);
        assert_eq!(alone, Ok(Some(head.clone())));
        assert_eq!(parse_head(&data[..head.length - 1], no_body, 65_536, 256), Ok(None));
        for (name, value) in head.headers() {
            assert!(!name.is_empty() && !name.iter().any(u8::is_ascii_uppercase));
            assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
    }
});
