//! Chunked coding: cuts change nothing, and what comes out re-framed decodes to the same body.
#![no_main]

use farebox_meter::normal::CacheSemantics;
use farebox_meter::pipe::{BROKEN, END, Fed, Options, Pipe};
use farebox_meter::transfer::CHUNKED;
use libfuzzer_sys::fuzz_target;

fn run(chunked_out: bool, pieces: &[&[u8]]) -> (Vec<u8>, u8) {
    let options = Options {
        wire_format: "chat",
        framing: CHUNKED,
        chunked_out,
        strip_usage: false,
        content_encoding: "",
        cache_semantics: CacheSemantics::Auto,
        inflated_bytes_max: 1 << 20,
        event_bytes_max: 1 << 20,
    };
    let Ok(mut pipe) = Pipe::new(&options) else { return (Vec::new(), 0) };
    let (mut out, mut states) = (Vec::new(), 0);
    for piece in pieces {
        match pipe.feed(piece) {
            Fed::Same => out.extend_from_slice(piece),
            Fed::Bytes(bytes) => out.extend_from_slice(bytes),
            Fed::Split { now, held, state } => {
                out.extend_from_slice(now);
                out.extend_from_slice(held);
                states |= state & (END | BROKEN);
            }
        }
    }
    (out, states)
}

fuzz_target!(|data: &[u8]| {
    let Some((&at, wire)) = data.split_first() else { return };
    let (one, two) = wire.split_at(usize::from(at).min(wire.len()));
    let (body, states) = run(false, &[wire]);
    assert!(body.len() <= wire.len());
    assert_eq!(run(false, &[one, two]), (body.clone(), states));
    assert_eq!(run(false, &wire.chunks(1).collect::<Vec<_>>()), (body.clone(), states));
    for pieces in [vec![wire], vec![one, two]] {
        let (framed, _) = run(true, &pieces);
        assert_eq!(run(false, &[&framed, b"0\r\n\r\n"]), (body.clone(), END));
    }
});
