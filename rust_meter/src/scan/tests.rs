//! Bodies are read strictly and in one way only (fault rows B01 to B11, B14); facts are those the hold
//! needs.
use super::*;
use proptest::prelude::*;

const DEPTH: usize = 128;

pub fn read(format: Format, body: &str) -> Scan {
    scan(body.as_bytes(), format, DEPTH).unwrap()
}

pub fn chat(members: &str) -> Scan {
    read(Format::Chat, &format!(r#"{{"model":"m",{members}}}"#))
}

fn refused(format: Format, body: &[u8]) -> (&'static str, String) {
    match scan(body, format, DEPTH) {
        Ok(scan) => panic!("accepted: {:?} as {scan:?}", String::from_utf8_lossy(body)),
        Err(error) => (error.code, error.field),
    }
}

pub fn code(members: &str) -> &'static str {
    refused(Format::Chat, format!(r#"{{"model":"m",{members}}}"#).as_bytes()).0
}

#[test]
fn b01_encodings() {
    for body in [&b"{\"model\":\"\xff\"}"[..], b"\xfe\xff{\"model\":\"m\"}", b"{\x00\"model\":\"\xc0\x80\"}"]
    {
        assert_eq!(refused(Format::Chat, body).0, "utf8");
    }
    for text in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\ud83d\u0041", r"\ud83d\n"] {
        assert_eq!(code(&format!(r#""x":"{text}""#)), "utf8", "{text}");
    }
    assert_eq!(refused(Format::Chat, b"\xef\xbb\xbf{\"model\":\"m\"}").0, "json");
    assert_eq!(refused(Format::Chat, b"{\x00\"\x00m\x00").0, "json");
    assert_eq!(chat(r#""x":"\ud83d\ude00""#).model, "m");
}

#[test]
fn b02_grammar() {
    for body in [
        "",
        " ",
        "{",
        "}",
        "{}}",
        r#"{"model":"m"} x"#,
        r#"{"model":"m"}{}"#,
        r#"{"model":"m",}"#,
        r#"{"model" "m"}"#,
        r#"{model:"m"}"#,
        r#"{'model':'m'}"#,
        r#"{"model":"m"/*c*/}"#,
        "{\"model\":\"m\"}//c",
        r#"{"model":"m","a":NaN}"#,
        r#"{"model":"m","a":Infinity}"#,
        r#"{"model":"m","a":-}"#,
        r#"{"model":"m","a":01}"#,
        r#"{"model":"m","a":1.}"#,
        r#"{"model":"m","a":.5}"#,
        r#"{"model":"m","a":1e}"#,
        r#"{"model":"m","a":+1}"#,
        r#"{"model":"m","a":0x1}"#,
        r#"{"model":"m","a":tru}"#,
        r#"{"model":"m","a":nul}"#,
        r#"{"model":"m","a":[1,]}"#,
        r#"{"model":"m","a":[1 2]}"#,
        r#"{"model":"m","a":[}"#,
        r#"{"model":"m","a":]}"#,
        r#"{"model":"m","a":"x}"#,
        r#"{"model":"m","a":"\x"}"#,
        r#"{"model":"m","a":"\u12"}"#,
        r#"{"model":"m","a":"\u12g4"}"#,
        "{\"model\":\"m\",\"a\":\"\n\"}",
        "{\"model\":\"m\",\"a\":\"\u{0}\"}",
        r#"{"model":"m","a":"\"#,
        r#"{"model":"m",,"a":1}"#,
        r#"{"model":"m" "a":1}"#,
        "{\"model\":\"m\",\u{a0}\"a\":1}",
    ] {
        assert_eq!(refused(Format::Chat, body.as_bytes()).0, "json", "{body}");
    }
    assert_eq!(code(r#""a":1e999"#), "range");
    assert_eq!(code(&format!(r#""a":{}"#, "9".repeat(10_000))), "limit");
    assert_eq!(code(&format!(r#""a":{}"#, "9".repeat(400))), "range");
    chat(r#""a":-0.0,"b":1e308,"c":[ ],"d":{ },"e":[null,true,false,"",{"":[]}] "#);
    read(Format::Chat, " \t\r\n{ \"model\" : \"m\" } \n");
}

#[test]
fn b03_depth_and_size() {
    let nested = |depth: usize| format!(r#"{{"model":"m","a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(scan(nested(127).as_bytes(), Format::Chat, DEPTH).is_ok());
    assert_eq!(refused(Format::Chat, nested(128).as_bytes()).0, "depth");
    assert_eq!(refused(Format::Chat, "[".repeat(1_000_000).as_bytes()).0, "type");
    assert_eq!(refused(Format::Chat, format!(r#"{{"a":{}"#, "[".repeat(1_000_000)).as_bytes()).0, "depth");
    let keys: String = (0..100_000).map(|key| format!(r#","k{key}":0"#)).collect();
    assert!(scan(format!(r#"{{"model":"m"{keys}}}"#).as_bytes(), Format::Chat, DEPTH).is_ok());
}

#[test]
fn b04_duplicates() {
    for twice in [
        r#""model":"n""#,
        r#""stream":true,"stream":true"#,
        r#""n":1,"n":1"#,
        r#""max_tokens":1,"max_tokens":1"#,
        r#""stream_options":{"include_usage":true,"include_usage":true}"#,
        r#""stream_options":{},"stream_options":{}"#,
        r#""mod\u0065l":"n""#,
        r#""service_tier":"flex","service_tier":"flex""#,
        r#""messages":[],"messages":[]"#,
        r#""messages":[{"content":"a","content":"b"}]"#,
        r#""tools":[{"type":"function","type":"web_search"}]"#,
    ] {
        assert_eq!(code(twice), "duplicate_key", "{twice}");
    }
    assert_eq!(
        refused(Format::Chat, br#"{"model":"m","messages":[{},{"content":[{"type":"a","type":"b"}]}]}"#).1,
        "messages[1].content[0].type"
    );
    chat(
        r#""x":1,"x":2,"metadata":{"model":"a","model":"b"},
        "tools":[{"type":"function","function":{"n":1,"n":2}}]"#,
    );
}

#[test]
fn b05_spellings() {
    assert_eq!(read(Format::Chat, r#"{"mode\u006c":"m"}"#).model, "m");
    assert_eq!(
        read(Format::Chat, r#"{"\u006dodel":"\u006d\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"}"#).model,
        "m\"\\/\u{8}\u{c}\n\r\tä😀"
    );
    for key in ["Model", "MODEL", "Max_Tokens", "STREAM", "stream_Options"] {
        assert_eq!(code(&format!(r#""{key}":"n""#)), "duplicate_key", "{key}");
    }
    for key in ["model ", " model", "mode\u{200b}l", "modеl"] {
        assert_eq!(refused(Format::Chat, format!(r#"{{"{key}":"m"}}"#).as_bytes()).0, "missing", "{key}");
    }
    assert_eq!(chat(&format!(r#""{}":1"#, "k".repeat(100_000))).model, "m");
}

#[test]
fn b06_limits() {
    for bad in ["-1", "0", "-0", "2147483648", "9223372036854775808", "99999999999999999999999999"] {
        assert_eq!(code(&format!(r#""max_tokens":{bad}"#)), "range", "{bad}");
    }
    for bad in ["1.5", "1.0", "1e2", "\"100\"", "true", "[]", "{}"] {
        assert_eq!(code(&format!(r#""max_tokens":{bad}"#)), "type", "{bad}");
        assert_eq!(code(&format!(r#""n":{bad}"#)), "type", "{bad}");
    }
    assert_eq!(code(r#""max_tokens":5,"max_completion_tokens":6"#), "range");
    assert_eq!(chat(r#""max_tokens":5,"max_completion_tokens":5"#).output_limit, Some(5));
    assert_eq!(chat(r#""max_completion_tokens":2147483647"#).output_limit, Some(2_147_483_647));
    assert_eq!(chat(r#""max_tokens":null"#).output_limit, None);
    assert_eq!(chat(r#""max_output_tokens":7"#).output_limit, None);
    assert_eq!(read(Format::Responses, r#"{"model":"m","max_output_tokens":7}"#).output_limit, Some(7));
    assert_eq!(read(Format::Messages, r#"{"model":"m","max_tokens":7}"#).output_limit, Some(7));
    assert_eq!(read(Format::Embeddings, r#"{"model":"m","max_tokens":7}"#).output_limit, None);
}

#[test]
fn b08_stream() {
    for bad in ["\"true\"", "1", "null", "[]", "{}"] {
        assert_eq!(code(&format!(r#""stream":{bad}"#)), "type", "{bad}");
    }
    assert!(chat(r#""stream":true"#).stream);
    assert!(!chat(r#""stream":false"#).stream);
    assert_eq!(code(r#""stream_options":[]"#), "type");
    assert_eq!(code(r#""stream_options":true"#), "type");
    assert_eq!(code(r#""stream_options":{"include_usage":"true"}"#), "type");
    assert_eq!(code(r#""stream_options":{"include_usage":{}}"#), "type");
}

#[test]
fn b09_model() {
    assert_eq!(refused(Format::Chat, b"{}"), ("missing", "model".to_owned()));
    assert_eq!(refused(Format::Chat, br#"{"model":""}"#), ("missing", "model".to_owned()));
    assert_eq!(refused(Format::Chat, br#"{"model":null}"#), ("type", "model".to_owned()));
    assert_eq!(refused(Format::Chat, br#"{"model":["m"]}"#), ("type", "model".to_owned()));
    for body in ["[]", "null", "\"model\"", "1"] {
        assert_eq!(refused(Format::Chat, body.as_bytes()).0, "type");
    }
    let named = |length: usize| format!(r#"{{"model":"{}"}}"#, "x".repeat(length));
    assert_eq!(read(Format::Chat, &named(256)).model.len(), 256);
    assert_eq!(refused(Format::Chat, named(257).as_bytes()).0, "limit");
    assert_eq!(refused(Format::Chat, named(10_240).as_bytes()).0, "limit");
    let escaped = format!(r#"{{"model":"{}"}}"#, r"\u0078".repeat(256));
    assert_eq!(read(Format::Chat, &escaped).model.len(), 256);
}

#[test]
fn edits_change_what_they_say_and_nothing_else() {
    let edit = |body: &str, model: Option<&str>, usage: bool| {
        let facts = read(Format::Chat, body);
        String::from_utf8(edited(&facts, body.as_bytes(), model, usage).unwrap()).unwrap()
    };
    let body = r#" { "model" : "m" , "stream":true } "#;
    assert_eq!(edit(body, None, false), body);
    assert_eq!(edit(body, Some("a\"\\\u{1}ä"), false), r#" { "model" : "a\"\\\u0001ä" , "stream":true } "#);
    assert_eq!(
        edit(body, None, true),
        r#" {"stream_options":{"include_usage":true}, "model" : "m" , "stream":true } "#
    );
    for (options, after) in [
        ("null", r#"{"include_usage":true}"#),
        ("{ }", r#"{"include_usage":true }"#),
        (r#"{ "x":1}"#, r#"{"include_usage":true, "x":1}"#),
        (r#"{"include_usage":false}"#, r#"{"include_usage":true}"#),
        (r#"{"x":1,"include_usage":null}"#, r#"{"x":1,"include_usage":true}"#),
        (r#"{"include_usage":true}"#, r#"{"include_usage":true}"#),
    ] {
        let before = format!(r#"{{"stream_options":{options},"model":"m"}}"#);
        assert_eq!(edit(&before, Some("n"), true), format!(r#"{{"stream_options":{after},"model":"n"}}"#));
        let before = format!(r#"{{"model":"m","stream_options":{options}}}"#);
        assert_eq!(edit(&before, Some("n"), true), format!(r#"{{"model":"n","stream_options":{after}}}"#));
    }
    assert_eq!(edited(&read(Format::Chat, body), b"{}", None, true), None);
}

#[test]
fn error_paths_name_only_fields_that_are_read() {
    assert_eq!(
        refused(Format::Chat, br#"{"model":"m","stream_options":{"include_usage":1}}"#).1,
        "stream_options.include_usage"
    );
    assert_eq!(refused(Format::Chat, br#"{"model":"m","secret prompt":[{"a":1,}]}"#).1, "");
    assert_eq!(
        refused(Format::Chat, br#"{"model":"m","tools":[{"type":"x"},{"type":1,"type":2}]}"#).1,
        "tools[1].type"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_answered(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&data, Format::Chat, DEPTH);
    }

    #[test]
    fn any_json_like_text_is_answered_and_edits_scan_again(text in r#"[\[\]{},:"\\a-z0-9. -]{0,60}"#) {
        let body = format!(r#"{{"model":"m","x":[{text}],"stream_options":{{}}}}"#);
        if let Ok(facts) = scan(body.as_bytes(), Format::Chat, DEPTH) {
            let after = edited(&facts, body.as_bytes(), Some("n"), true).unwrap();
            let again = scan(&after, Format::Chat, DEPTH).unwrap();
            prop_assert_eq!((again.model.as_str(), again.include_usage), ("n", Some(true)));
        }
    }
}
