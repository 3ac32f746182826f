//! Events: lines cut anywhere say the same, every byte is consumed, and no line is made up or lost.
#![no_main]

use farebox_meter::sse::{Lines, Token};
use libfuzzer_sys::fuzz_target;

/// Data lines, blank lines and comments in order; pieces of one line are joined.
fn lines(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
    let (mut cutter, mut found, mut line, mut consumed) = (Lines::default(), Vec::new(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        let mut idle = 0;
        while !rest.is_empty() {
            let (token, tail) = cutter.next(rest);
            idle = if tail.len() == rest.len() { idle + 1 } else { 0 };
            assert!(idle < 4, "no progress");
            consumed += rest.len() - tail.len();
            match token {
                Token::Data(part) => line.extend_from_slice(part),
                Token::DataEnd => found.push(std::mem::take(&mut line)),
                Token::Blank => found.push(b"\n".to_vec()),
                Token::Line(true) => found.push(b"\n:".to_vec()),
                Token::ErrorField => found.push(b"\nerror".to_vec()),
                Token::Line(false) | Token::Other | Token::LateFeed => {}
            }
            rest = tail;
        }
    }
    found.push(line);
    (found, consumed)
}

fuzz_target!(|data: &[u8]| {
    let Some((&at, body)) = data.split_first() else { return };
    let (one, two) = body.split_at(usize::from(at).min(body.len()));
    let (whole, consumed) = lines(&[body]);
    assert_eq!(consumed, body.len());
    assert_eq!(lines(&[one, two]).0, whole);
    assert_eq!(lines(&body.chunks(1).collect::<Vec<_>>()).0, whole);
});
