//! The facts that size a hold: choices, media, context and tools of the upstream, fields that change the
//! price.
use super::tests::{chat, code, read};
use super::*;

#[test]
fn b07_choices() {
    assert_eq!(chat(r#""n":3,"best_of":9"#).choices, 3);
    assert_eq!(chat(r#""n":null"#).choices, 1);
    let completions =
        |members: &str| read(Format::Completions, &format!(r#"{{"model":"m",{members}}}"#)).choices;
    assert_eq!(completions(r#""n":3,"best_of":9,"prompt":"a""#), 9);
    assert_eq!(completions(r#""n":2,"prompt":["a","b","c"]"#), 6);
    assert_eq!(completions(r#""prompt":[1,2,3]"#), 1);
    assert_eq!(completions(r#""n":2,"prompt":[[1,2],[3]]"#), 4);
    assert_eq!(completions(r#""prompt":[]"#), 1);
    assert_eq!(read(Format::Embeddings, r#"{"model":"m","input":["a","b"]}"#).choices, 1);
}

#[test]
fn b11_fields_that_change_price_or_way() {
    let fields = |members: &str| chat(members).price_fields;
    assert_eq!(fields(r#""service_tier":"fl\u0065x""#), [("service_tier", "flex".to_owned())]);
    assert_eq!(fields(r#""service_tier":null,"background":false,"prompt_cache_retention":"in_memory""#), []);
    assert_eq!(fields(r#""background":true"#), [("background", "true".to_owned())]);
    assert_eq!(
        fields(r#""models":["x"],"provider":{"only":[]}"#),
        [("models", "array".to_owned()), ("provider", "object".to_owned())]
    );
    assert_eq!(
        fields(r#""modalities":["audio","text","audio","image"]"#),
        [("modalities", "audio".to_owned())]
    );
    assert_eq!(
        fields(r#""prompt_cache_options":{"ttl":"12h"}"#),
        [("prompt_cache_options.ttl", "12h".to_owned())]
    );
    assert_eq!(
        fields(r#""prompt_cache_options":{"ttl":"30m"},"prompt_cache_retention":"24h""#),
        [("prompt_cache_retention", "24h".to_owned())]
    );
    assert_eq!(
        fields(r#""deferred":1,"route":"x""#),
        [("deferred", "number".to_owned()), ("route", "x".to_owned())]
    );
    assert_eq!(code(r#""service_tier":1"#), "type");
    assert_eq!(code(r#""background":"true""#), "type");
    assert_eq!(code(r#""speed":true"#), "type");
    assert_eq!(code(&format!(r#""service_tier":"{}""#, "x".repeat(200))), "limit");
    let messages =
        read(Format::Messages, r#"{"model":"m","speed":"fast","inference_geo":"us","fallbacks":"default"}"#);
    let names: Vec<&str> = messages.price_fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["speed", "inference_geo", "fallbacks"]);
}

#[test]
fn hosted_tools_are_those_the_upstream_runs() {
    let tools = r#""tools":[{"type":"function","function":{"parameters":{"type":"object"}}},
        {"type":"web_search"},
        {"type":"mcp"},{"type":"web_search"},{"name":"x","input_schema":{"type":"object"}},{"type":"custom"},
        {"type":"namespace","tools":[{"type":"code_interpreter"}]},{"type":"computer_use_preview"}]"#;
    assert_eq!(chat(tools).hosted_tools, ["web_search", "mcp", "code_interpreter"]);
    assert_eq!(chat(r#""web_search_options":{}"#).hosted_tools, ["web_search_options"]);
    assert_eq!(chat(r#""tools":null,"web_search_options":null"#).hosted_tools, Vec::<String>::new());
    let body = r#"{"model":"m","tools":[{"type":"bash_20250124"},{"type":"text_editor_20250728"},
        {"type":"web_fetch_20250910"}],
        "mcp_servers":[{"type":"url"}]}"#;
    assert_eq!(read(Format::Messages, body).hosted_tools, ["web_fetch_20250910", "mcp"]);
    assert_eq!(
        read(Format::Messages, r#"{"model":"m","mcp_servers":[]}"#).hosted_tools,
        Vec::<String>::new()
    );
    let smuggled = r#"{"model":"m","input":[{"type":"additional_tools","tools":[{"type":"file_search"}]}]}"#;
    assert_eq!(read(Format::Responses, smuggled).hosted_tools, ["file_search"]);
    let added = r#"{"model":"m","messages":[{"content":[
        {"type":"tool_addition","tool":{"type":"web_search_20260318"}}]}]}"#;
    assert_eq!(read(Format::Messages, added).hosted_tools, ["web_search_20260318"]);
    let many: String = (0..33).map(|tool| format!(r#"{{"type":"t{tool}"}},"#)).collect();
    assert_eq!(code(&format!(r#""tools":[{}]"#, many.trim_end_matches(','))), "limit");
    assert_eq!(code(r#""tools":{}"#), "type");
}

#[test]
fn context_that_the_body_does_not_show() {
    for body in [
        r#""previous_response_id":"r""#,
        r#""conversation":{"id":"c"}"#,
        r#""prompt":{"id":"p"}"#,
        r#""input":[{"type":"item_reference","id":"i"}]"#,
        r#""input":[{"content":[{"type":"input_file","file_id":"f"}]}]"#,
        r#""input":[{"content":[{"type":"input_file","file_url":"https://x/y.pdf"}]}]"#,
    ] {
        assert!(read(Format::Responses, &format!(r#"{{"model":"m",{body}}}"#)).server_context, "{body}");
    }
    for body in [
        r#""container":"c""#,
        r#""container":{"skills":[]}"#,
        r#""thread":{"type":"create"}"#,
        r#""messages":[{"content":[{"type":"document","source":{"type":"url","url":"https://x/y.pdf"}}]}]"#,
        r#""messages":[{"content":[{"source":{"type":"file","file_id":"f"},"type":"image"}]}]"#,
        r#""messages":[{"content":[{"type":"container_upload","file_id":"f"}]}]"#,
    ] {
        assert!(read(Format::Messages, &format!(r#"{{"model":"m",{body}}}"#)).server_context, "{body}");
    }
    assert!(chat(r#""messages":[{"role":"assistant","audio":{"id":"a"}}]"#).server_context);
    let image = r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]"#;
    assert!(!chat(image).server_context);
    assert!(
        !read(Format::Responses, r#"{"model":"m","previous_response_id":null,"conversation":null}"#)
            .server_context
    );
    assert!(!read(Format::Completions, r#"{"model":"m","prompt":"p"}"#).server_context);
}

#[test]
fn b14_media_of_chat() {
    let url = format!("data:image/png;base64,{}", "A".repeat(100));
    let audio = "B".repeat(50);
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"hi"}},
        {{"type":"image_url","image_url":{{"url":"{url}","detail":"high"}}}},
        {{"type":"image_url","image_url":{{"url":"https://x/y"}}}},
        {{"type":"input_audio","input_audio":{{"data":"{audio}","format":"wav"}}}},
        {{"type":"file","file":{{"filename":"f.pdf","file_data":"data:application/pdf;base64,CC"}}}}]}},
        {{"role":"user","content":"x"}}]}}"#
    );
    let facts = read(Format::Chat, &body);
    assert_eq!((facts.image_count, facts.audio_count, facts.file_count, facts.message_count), (2, 1, 1, 2));
    assert_eq!(facts.data_bytes, url.len() + 50 + 30);
    assert_eq!(facts.text_bytes, body.len() - facts.data_bytes);
}

#[test]
fn b14_media_of_messages() {
    let body = r#"{"model":"m","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[
        {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},
        {"type":"document","source":{"data":"BBBBBB","type":"base64","media_type":"application/pdf"}},
        {"type":"document","source":{"type":"text","media_type":"text/plain","data":"text counts"}},
        {"type":"tool_result","content":[{"type":"image","source":{"type":"base64","data":"CC"}}]},
        {"type":"tool_use","input":{"type":"image","source":{"type":"base64","data":"DDDD"}}},
        {"type":"redacted_thinking","data":"EEEE"},
        {"type":"hologram","source":{"type":"base64","data":"FFFF"}}]}]}"#;
    let facts = read(Format::Messages, body);
    assert_eq!((facts.image_count, facts.file_count, facts.data_bytes), (2, 3, 16));
    assert_eq!((facts.message_count, facts.server_context), (1, false));
}

#[test]
fn b14_media_of_responses() {
    let body = r#"{"model":"m","input":[{"role":"user","content":[
        {"type":"input_image","image_url":"data:image/png;base64,AA"},
        {"type":"input_file","filename":"f","file_data":"BBBB"},{"type":"input_text","text":"t"}]},
        {"type":"computer_call_output","output":{"type":"computer_screenshot","image_url":"data:,CC"}},
        {"type":"image_generation_call","result":"DDDD"},
        {"type":"function_call_output","output":[{"type":"input_image","image_url":"https://x"}]},
        {"type":"function_call_output","output":"plain"}]}"#;
    let facts = read(Format::Responses, body);
    assert_eq!((facts.image_count, facts.file_count, facts.message_count), (4, 1, 5));
    assert_eq!(facts.data_bytes, 24 + 4 + 8 + 4);
    assert_eq!(read(Format::Responses, r#"{"model":"m","input":"hi"}"#).message_count, 1);
    assert_eq!(read(Format::Embeddings, r#"{"model":"m","input":["a",[1,2],"c"]}"#).message_count, 3);
}
