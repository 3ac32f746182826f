//! Any bytes are a plain request or left alone; what is read is never more than what was sent, and bytes behind
//! a head never change it.
#![no_main]

use farebox_meter::request::parse_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(request) = parse_request(data) else { return };
    assert!(request.length <= data.len() && data[..request.length].ends_with(b"\r\n\r\n"));
    let head = &data[..request.length];
    assert_eq!(parse_request(head), Some(request.clone()));
    assert_eq!(parse_request(&head[..head.len() - 1]), None);
    assert!(head.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')));
    assert_eq!(times(head, b"\r\n\r\n"), 1);
    assert!(request.path.starts_with('/') && !request.path.contains('?'));
    assert!(request.lines.is_empty() || request.lines.ends_with(b"\r\n"));
    let lower = head.to_ascii_lowercase();
    assert_eq!(times(&lower, b"\r\ntransfer-encoding:"), 0);
    assert!(times(&lower, b"\r\ncontent-length:") <= 1);
});

fn times(data: &[u8], what: &[u8]) -> usize {
    data.windows(what.len()).filter(|window| *window == what).count()
}
