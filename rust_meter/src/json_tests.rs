//! The streaming reader gives the answer a whole-document reader gives.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::formats::openai;
use crate::json::{Progress, Reader};
use crate::tree::Field;

const NAMES: [&str; 9] =
    ["usage", "prompt_tokens", "choices", "x_groq", "a", "\u{e9}", "delta", "error", "q\"\\\n"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::String),
        Just(json!("{\"usage\":{\"prompt_tokens\":1}}")),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((proptest::sample::select(&NAMES[..]), inner), 0..6).prop_map(
                |pairs| Value::Object(pairs.into_iter().map(|(key, item)| (key.to_owned(), item)).collect())
            ),
        ]
    })
}

fn read(text: &[u8], piece_bytes: usize) -> (bool, Document) {
    let (mut reader, mut document) = (Reader::new(&openai::CHAT), Document::default());
    reader.begin();
    document.begin();
    let mut is_done = false;
    for piece in text.chunks(piece_bytes) {
        is_done |= matches!(reader.feed(piece, &mut document), Progress::Done(_));
    }
    (is_done, document)
}

proptest! {
    #[test]
    fn same_counts_as_a_whole_document_reader(
        root in value(), top in value(), pretty in any::<bool>(), piece_bytes in 1_usize..40
    ) {
        let mut members = match root { Value::Object(members) => members, _ => Map::new() };
        members.insert("usage".to_owned(), top);
        let document = Value::Object(members);
        let text = if pretty { format!("{document:#}") } else { document.to_string() }.into_bytes();
        let (is_done, read) = read(&text, piece_bytes);
        prop_assert!(is_done);
        let prompt = &document["usage"]["prompt_tokens"];
        let is_text = prompt.as_str().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_text {
            prop_assert_eq!(read.main.fields.get(Field::Input), prompt.as_u64());
        }
        prop_assert_eq!(read.choices, document["choices"].as_array().map(|items| items.len() as u64));
        let error = &document["error"];
        prop_assert_eq!(read.is_error, !(error.is_null() || *error == json!("") || *error == json!(false)));
    }

    #[test]
    fn no_prefix_of_a_document_is_a_document(root in value(), keep in any::<proptest::sample::Index>()) {
        let text = serde_json::to_vec(&json!({"usage": root})).unwrap();
        let (is_done, _) = read(&text[..keep.index(text.len())], 1000);
        prop_assert!(!is_done);
    }
}
