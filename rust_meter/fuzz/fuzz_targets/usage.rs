//! The whole pipe: cuts change neither the relayed bytes nor the reading; nothing panics.
#![no_main]

use arbitrary::Arbitrary;
use farebox_meter::normal::CacheSemantics;
use farebox_meter::pipe::{BROKEN, END, Fed, Options, Pipe};
use farebox_meter::reading::Reading;
use farebox_meter::transfer::UNTIL_CLOSE;
use libfuzzer_sys::{arbitrary, fuzz_target};

const FORMATS: [&str; 12] = [
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "invoke",
    "converse",
    "generate",
    "interactions",
    "cohere-chat",
    "images",
    "transcriptions",
];

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    format: u8,
    strip_usage: bool,
    encoding: u8,
    cuts: [u16; 3],
    /// The body comes so many times and once more: its documents begin alike.
    repeats: u8,
    body: &'a [u8],
}

fn run(options: &Options<'_>, pieces: &[&[u8]]) -> (Vec<u8>, Reading) {
    let Ok(mut pipe) = Pipe::new(options) else { return (Vec::new(), Reading::default()) };
    let (mut out, mut states) = (Vec::new(), 0);
    let mut take = |fed: Fed<'_>, piece: &[u8]| match fed {
        Fed::Same => out.extend_from_slice(piece),
        Fed::Bytes(bytes) => out.extend_from_slice(bytes),
        Fed::Split { now, held, state } => {
            out.extend_from_slice(now);
            out.extend_from_slice(held);
            states |= state;
        }
    };
    for piece in pieces {
        take(pipe.feed(piece), piece);
    }
    take(pipe.finish(), &[]);
    assert!(states & (END | BROKEN) != 0);
    (out, pipe.reading())
}

fuzz_target!(|case: Case<'_>| {
    let options = Options {
        wire_format: FORMATS[usize::from(case.format) % FORMATS.len()],
        framing: UNTIL_CLOSE,
        chunked_out: false,
        strip_usage: case.strip_usage,
        content_encoding: ["", "", "", "gzip", "deflate"][usize::from(case.encoding) % 5],
        cache_semantics: CacheSemantics::Auto,
        inflated_bytes_max: 1 << 20,
        event_bytes_max: 1 << 20,
    };
    let body = case.body.repeat(usize::from(case.repeats) % 4 + 1);
    let mut cuts = case.cuts.map(|cut| usize::from(cut) % (body.len() + 1));
    cuts.sort_unstable();
    let pieces = [&body[..cuts[0]], &body[cuts[0]..cuts[1]], &body[cuts[1]..cuts[2]], &body[cuts[2]..]];
    let (whole, reading) = run(&options, &[&body]);
    let (cut, cut_reading) = run(&options, &pieces);
    assert_eq!(whole, cut);
    if options.content_encoding.is_empty() {
        assert_eq!(reading, cut_reading);
    }
    if !case.strip_usage {
        assert_eq!(whole, body);
    }
    // Byte by byte no beginning is taken over from the document before.
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    let (bytewise, bytewise_reading) = run(&options, &bytes);
    assert_eq!(whole, bytewise);
    if options.content_encoding.is_empty() {
        assert_eq!(reading, bytewise_reading);
    }
});
