//! Properties of the whole pipe: cutting changes nothing, bytes stay, broken framing never passes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::normal::CacheSemantics;
use crate::pipe::{BROKEN, END, Fed, Options, Pipe};
use crate::reading::Reading;
use crate::transfer::{CHUNKED, UNTIL_CLOSE};

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

/// Pieces of bodies, well formed and not, that meet in any order.
const PARTS: [&str; 34] = [
    "data: ",
    "data:",
    "data",
    "event: message_stop\n",
    ": note\n",
    "error: {}\n",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\u{feff}",
    "[DONE]",
    "{\"type\":\"message_stop\"}",
    "{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}",
    "{\"choices\":[{\"delta\":{\"content\":\"h\\u00e9\\ud83d\\ude00\\n\"}}],\"usage\":null}",
    "{\"choices\":[{\"finish_reason\":\"stop\",\
     \"usage\":{\"prompt_tokens\":\"3\",\"completion_tokens\":1.5}}]}",
    "{\"type\":\"message_start\",\
     \"message\":{\"id\":\"a\",\"usage\":{\"input_tokens\":9,\"cache_creation_input_tokens\":3}}}",
    "{\"type\":\"message_start\",\"message\":{\"id\":\"b\",\"usage\":{\"input_tokens\":4}}}",
    "{\"type\":\"message_delta\",\
     \"usage\":{\"output_tokens\":8,\"iterations\":[{\"type\":\"compaction\",\"input_tokens\":2}]}}",
    "{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}",
    "{\"usageMetadata\":{\"promptTokenCount\":4,\
     \"promptTokensDetails\":[{\"modality\":\"AUDIO\",\"tokenCount\":2}]}}",
    "{\"bytes\":\"eyJ0eXBlIjoibWVzc2FnZV9zdG9wIn0=\"}",
    "{\"usage\":{\"prompt_tokens\":",
    "{\"us\\u0061ge\":{\"prompt_tokens\":-1,\"prompt_tokens\":1e3}}",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    "12",
    " ",
    "\u{1F600}",
];

/// How documents of a stream may begin: some to be kept and taken over, some not (a list, a usage object), some
/// cut at a colon that is none of JSON's.
const BEGINNINGS: [&str; 13] = [
    r#"{"id":"chatcmpl-1","model":"m-1","service_tier":"default","choices":[{"index":0,"delta":{"content":"#,
    r#"{"id":"one","id":"two","model":"m","error":{"a":1},"choices":[{"finish_reason":"stop","delta":{"text":"#,
    r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"x":1,"usage":"#,
    r#"{"object":"chat.completion.chunk","m\u006fdel":"m","id":"gen:"#,
    r#"{"object":"chat.completion.chunk","created":1,"x:"#,
    r#"{"choices":[{"delta":{"content":"the ratio is 1:1, then \"usage\":"#,
    r#"{"object":"chat.completion.chunk","choices":[{"delta":{"content":"\ud83d 1:"#,
    r#"{"usage":{"prompt_tokens":3,"completion_tokens":4},"choices":[{"delta":{"content":"#,
    r#"{"object":"chat.completion.chunk","skipped":[{"usage":{"prompt_tokens":9}},{"a:b":"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"#,
    r#"{"type":"response.output_item.done","item":{"type":"web_search_call","action":{"type":"#,
    r#"{"type":"response.output_text.delta","item_id":"msg_1","content_index":0,"delta":"#,
    r#"{"type":"message_start","message":{"id":"msg_1","usage":{"iterations":[{"input_tokens":"#,
];

/// What may follow such a beginning.
const ENDINGS: [&str; 14] = [
    r#""word "},"logprobs":null,"finish_reason":null}]}"#,
    r#""other"},"finish_reason":"stop"}],"usage":null}"#,
    r#""\ude00"},"id":"another","model":"m-2","error":""}]}"#,
    r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#,
    r#"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#,
    r#"one"}"#,
    r#"two","choices":[]}"#,
    r#"\ude00"}}]}"#,
    r#"7}]}}"#,
    r#"7}}]}]}"#,
    r#""search"}}}"#,
    r#""a"}}"#,
    r#""a"}"#,
    r#""cut"#,
];

fn events() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let document = (any::<Index>(), select(&ENDINGS[..]));
    (vec(select(&BEGINNINGS[..]), 1..3), vec(document, 2..9)).prop_map(|(beginnings, documents)| {
        let event = |(place, ending): (Index, &str)| {
            format!("data: {}{ending}\n\n", place.get(&beginnings)).into_bytes()
        };
        documents.into_iter().map(event).collect()
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    vec(select(&PARTS[..]), 0..24).prop_map(|parts| parts.concat().into_bytes())
}

fn cut(body: &[u8], at: &[Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = at.iter().map(|index| index.index(body.len() + 1)).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| body[pair[0]..pair[1]].to_vec()).collect()
}

fn options(wire_format: &str, framing: i64, chunked_out: bool, strip_usage: bool) -> Options<'_> {
    Options {
        wire_format,
        framing,
        chunked_out,
        strip_usage,
        content_encoding: "",
        cache_semantics: CacheSemantics::Auto,
        inflated_bytes_max: 1 << 20,
        event_bytes_max: 1 << 20,
    }
}

/// Everything the client would get, the states seen, and the reading.
fn run(options: &Options<'_>, pieces: &[Vec<u8>]) -> (Vec<u8>, u8, Reading) {
    let mut pipe = Pipe::new(options).unwrap();
    let (mut out, mut states) = (Vec::new(), 0);
    for piece in pieces {
        take(pipe.feed(piece), piece, &mut out, &mut states);
    }
    if states & (END | BROKEN) == 0 {
        take(pipe.finish(), &[], &mut out, &mut states);
    }
    (out, states, pipe.reading())
}

fn take(fed: Fed<'_>, piece: &[u8], out: &mut Vec<u8>, states: &mut u8) {
    match fed {
        Fed::Same => out.extend_from_slice(piece),
        Fed::Bytes(bytes) => out.extend_from_slice(bytes),
        Fed::Split { now, held, state } => {
            out.extend_from_slice(now);
            out.extend_from_slice(held);
            *states |= state;
        }
    }
}

fn chunked(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        wire.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

proptest! {
    #[test]
    fn cutting_changes_neither_bytes_nor_reading(
        body in body(), at in vec(any::<Index>(), 0..12), format in select(&FORMATS[..])
    ) {
        let options = options(format, UNTIL_CLOSE, false, false);
        let (whole, _, reading) = run(&options, std::slice::from_ref(&body));
        let (parts, _, cut_reading) = run(&options, &cut(&body, &at));
        prop_assert_eq!(&whole, &body);
        prop_assert_eq!(&parts, &body);
        prop_assert_eq!(reading, cut_reading);
    }

    #[test]
    fn removal_does_not_depend_on_cuts(body in body(), at in vec(any::<Index>(), 0..12)) {
        let options = options("chat", UNTIL_CLOSE, false, true);
        let (whole, _, reading) = run(&options, std::slice::from_ref(&body));
        let (parts, _, cut_reading) = run(&options, &cut(&body, &at));
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(reading, cut_reading);
    }

    #[test]
    fn chunked_bodies_come_out_as_they_went_in(
        body in body(),
        chunks in vec(any::<Index>(), 0..6),
        at in vec(any::<Index>(), 0..12),
        out in any::<bool>(),
    ) {
        let wire = chunked(&cut(&body, &chunks));
        let (given, states, _) = run(&options("chat", CHUNKED, out, false), &cut(&wire, &at));
        prop_assert!(states & END != 0);
        let plain = options("", CHUNKED, false, false);
        let given = if out { run(&plain, &[given, b"0\r\n\r\n".to_vec()]).0 } else { given };
        prop_assert_eq!(given, body);
    }

    #[test]
    fn a_changed_byte_of_chunk_framing_never_makes_a_longer_body(
        body in vec(any::<u8>(), 1..40), place in any::<Index>(), byte in any::<u8>()
    ) {
        let mut wire = chunked(std::slice::from_ref(&body));
        let index = place.index(wire.len());
        wire[index] = byte;
        let (given, _, _) = run(&options("", CHUNKED, false, false), &[wire.clone()]);
        prop_assert!(given.len() <= wire.len());
        let bytes: Vec<_> = wire.iter().map(|byte| vec![*byte]).collect();
        let (bytewise, _, _) = run(&options("", CHUNKED, false, false), &bytes);
        prop_assert_eq!(given, bytewise);
    }

    #[test]
    fn any_bytes_are_relayed_and_read_without_a_panic(
        body in vec(any::<u8>(), 0..200),
        format in select(&FORMATS[..]),
        encoding in select(&["", "gzip", "deflate"][..]),
    ) {
        let options = Options { content_encoding: encoding, ..options(format, UNTIL_CLOSE, false, false) };
        let (given, _, _) = run(&options, std::slice::from_ref(&body));
        prop_assert_eq!(given, body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn documents_that_begin_alike_are_read_as_if_nothing_were_kept(
        events in events(), format in select(&["chat", "messages", "responses"][..]), strips in any::<bool>()
    ) {
        let options = options(format, UNTIL_CLOSE, false, strips);
        let (given, _, reading) = run(&options, &events);
        // A beginning is taken over only where it stands in one piece.
        let bytes: Vec<_> = events.concat().iter().map(|byte| vec![*byte]).collect();
        let (bytewise, _, bytewise_reading) = run(&options, &bytes);
        prop_assert_eq!(given, bytewise);
        prop_assert_eq!(reading, bytewise_reading);
    }
}
