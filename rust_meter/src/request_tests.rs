//! H05 to H12, H22, H23: only what cannot be read in two ways is read here, and only listed headers go up.
use super::*;
use proptest::prelude::*;

const USUAL: &str = "POST /v1/messages?beta=true HTTP/1.1\r\nHost: farebox:8004\r\n\
Content-Type: application/json\r\nauthorization: Bearer sk-1\r\nAccept: */*\r\n\
Cookie: a=b\r\nContent-Length: 5\r\n\r\n";

fn with(lines: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

#[test]
fn a_usual_head_is_read() {
    let data = format!("{USUAL}hello");
    let expected = Request {
        is_post: true,
        path: "/v1/messages",
        query: "beta=true",
        key: None,
        is_json: true,
        keep_alive: true,
        lines: b"Accept: */*\r\nAnthropic-Version: 2023-06-01\r\n".to_vec(),
        length: USUAL.len(),
        body_length: 5,
    };
    assert_eq!(parse_request(data.as_bytes()), Some(expected));
    assert!((0..USUAL.len()).all(|end| parse_request(&data.as_bytes()[..end]).is_none()));
}

#[test]
fn a06_one_well_formed_key_is_found() {
    for (lines, key) in [
        ("Authorization: Bearer sk-1\r\n", Some("sk-1")),
        ("AUTHORIZATION: bearer sk-1\r\n", Some("sk-1")),
        ("X-Api-Key: sk-1\r\n", Some("sk-1")),
        ("api-key: sk-1\r\n", Some("sk-1")),
        ("x-goog-api-key: sk-1\r\n", Some("sk-1")),
        ("", None),
        ("Authorization: sk-1\r\n", None),
        ("Authorization: Basic sk-1\r\n", None),
        ("Authorization: Bearer  sk-1\r\n", None),
        ("Authorization: Bearer a b\r\n", None),
        ("X-Api-Key: a b\r\n", None),
        ("X-Api-Key: sk-1\r\nX-Api-Key: sk-1\r\n", None),
        ("Authorization: Bearer sk-1\r\nX-Api-Key: sk-2\r\n", None),
    ] {
        let data = with(lines);
        let request = parse_request(data.as_bytes());
        assert_eq!(request.expect("plain").key, key, "{lines:?}");
    }
    let long = with(&format!("X-Api-Key: {}\r\n", "k".repeat(257)));
    assert_eq!(parse_request(long.as_bytes()).expect("plain").key, None);
}

#[test]
fn what_is_odd_is_left_to_the_general_parser() {
    for lines in [
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 1000000000000000\r\n",
        "Content-Length : 1\r\n",
        " Content-Length: 1\r\n",
        "X: a\r\n b\r\n",
        "X: a\rb\r\n",
        "X: a\n",
        "X: a\0\r\n",
        "X: \u{e4}\r\n",
        "X: a\tb\r\n",
        "X\r\n",
        ": a\r\n",
        "X(: a\r\n",
        "Host: h\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Connection: keep-alive, x\r\n",
        "Connection: close\r\nConnection: close\r\n",
        "Proxy-Connection: close\r\n",
        "Content-Encoding: gzip\r\n",
        "Content-Type: a\r\nContent-Type: b\r\n",
    ] {
        assert_eq!(parse_request(with(lines).as_bytes()), None, "{lines:?}");
    }
    for line in [
        "PUT / HTTP/1.1",
        "post / HTTP/1.1",
        "POST / HTTP/1.0",
        "POST / http/1.1",
        "POST  / HTTP/1.1",
        "POST /  HTTP/1.1",
        "POST * HTTP/1.1",
        "POST http://h/ HTTP/1.1",
        "POST //h HTTP/1.1",
        "POST /# HTTP/1.1",
        "POST /\u{e4} HTTP/1.1",
        "POST /a b HTTP/1.1",
        "POST /",
        "",
        "\r\nPOST / HTTP/1.1",
    ] {
        assert_eq!(parse_request(format!("{line}\r\nHost: h\r\n\r\n").as_bytes()), None, "{line:?}");
    }
    for host in ["", "a b", "h/x", "h@x"] {
        assert_eq!(parse_request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()), None);
    }
    assert_eq!(parse_request(b"GET / HTTP/1.1\r\n\r\n"), None);
    assert_eq!(parse_request(with(&"X: a\r\n".repeat(64)).as_bytes()), None);
    assert_eq!(parse_request(with(&format!("X: {}\r\n", "a".repeat(8000))).as_bytes()), None);
    assert!(parse_request(with(&"X: a\r\n".repeat(63)).as_bytes()).is_some());
}

#[test]
fn h22_h23_only_listed_headers_go_up() {
    let data = with(
        "accept: text/event-stream\r\nAccept-Encoding: gzip\r\nX-Forwarded-For: 1.2.3.4\r\n\
OpenAI-Organization: o\r\nopenai-beta: a\r\nANTHROPIC-BETA: one\r\nAnthropic-Beta: two\r\nCookie: c\r\n\
anthropic-version: 2024-01-01\r\nUser-Agent: u\r\ntraceparent: 00-0a-0b-01\r\n",
    );
    let lines = parse_request(data.as_bytes()).expect("plain").lines;
    assert_eq!(
        String::from_utf8(lines).expect("ASCII"),
        "Accept: text/event-stream\r\nOpenAI-Beta: a\r\nAnthropic-Beta: one\r\nAnthropic-Beta: two\r\n\
Anthropic-Version: 2024-01-01\r\nTraceparent: 00-0a-0b-01\r\n"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_head_or_left_alone(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(parse_request(&data), None);
    }

    #[test]
    fn what_follows_a_head_changes_nothing(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut data = USUAL.as_bytes().to_vec();
        data.extend_from_slice(&body);
        prop_assert_eq!(parse_request(&data), parse_request(USUAL.as_bytes()));
    }
}
