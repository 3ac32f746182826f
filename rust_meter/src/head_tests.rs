//! U22, H08 to H12 on the upstream's side: what is ambiguous is refused; any prefix is incomplete, never
//! wrong.
use super::*;
use proptest::prelude::*;

fn parse(data: &[u8]) -> Result<Option<Head>, HeadError> {
    parse_head(data, false, 65536, 100)
}

fn framing(headers: &str) -> Result<Framing, HeadError> {
    let data = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
    parse(data.as_bytes()).map(|head| head.map_or(Framing::UntilClose, |head| head.framing))
}

#[test]
fn a_usual_head_is_read() {
    let data = b"HTTP/1.1 200 OK\r\nContent-Type:  text/event-stream \r\n\
Transfer-Encoding: Chunked\r\n\r\n5\r\nhello";
    let head = parse(data).ok().flatten();
    let head = head.unwrap();
    let headers: Vec<(&[u8], &[u8])> = head.headers().collect();
    assert_eq!(
        headers,
        [(&b"content-type"[..], &b"text/event-stream"[..]), (b"transfer-encoding", b"Chunked")]
    );
    assert_eq!((head.status, head.minor_version, head.framing), (200, 1, Framing::Chunked));
    assert_eq!((head.keep_alive, head.length), (true, 82));
    assert!((0..82).all(|end| parse(data.get(..end).unwrap_or_default()) == Ok(None)));
}

#[test]
fn h08_content_lengths() {
    assert_eq!(framing("content-length: 5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(framing("content-length: 5\r\nContent-Length:5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(framing(""), Ok(Framing::UntilClose));
    for bad in [
        "",
        "+5",
        "-1",
        "0x10",
        "1_0",
        "5, 5",
        "5, 6",
        "1234567890123456789",
        "٥",
        "5\u{b}",
        "5\u{a0}",
        "5 5",
    ] {
        assert!(framing(&format!("content-length: {bad}\r\n")).is_err(), "{bad:?}");
    }
    assert!(framing("content-length: 5\r\ncontent-length: 6\r\n").is_err());
}

#[test]
fn h09_transfer_codings() {
    for bad in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        ",chunked",
        "chunked;q=1",
        "gzip, chunked",
        "identity",
        "",
        "chunked\u{a0}",
        "\u{b}chunked",
    ] {
        assert!(framing(&format!("transfer-encoding: {bad}\r\n")).is_err(), "{bad:?}");
    }
    assert!(framing("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n").is_err());
    assert!(framing("transfer-encoding: chunked\r\ncontent-length: 5\r\n").is_err());
    assert!(parse(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    assert_eq!(framing("transfer-encoding:\t chunked\t\r\n"), Ok(Framing::Chunked));
}

#[test]
fn h12_lines_and_bytes() {
    for bad in [
        "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \u{0}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \u{1}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \u{7f}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nÄ: b\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/1.1 200 O\u{1}K\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
    ] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(parse(b"HTTP/1.1 200\r\nA: \xff\r\n\r\n").is_ok_and(|head| head.is_some()));
}

#[test]
fn u22_bounds() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(parse(many.as_bytes()), Err(HeadError("too many headers")));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(70_000));
    assert_eq!(parse(long.as_bytes()), Err(HeadError("the head is too long")));
    let exact = b"HTTP/1.1 200 OK\r\n\r\n";
    assert!(parse_head(exact, false, exact.len(), 0).is_ok_and(|head| head.is_some()));
    assert!(parse_head(exact, false, exact.len() - 1, 0).is_err());
}

#[test]
fn bodies_that_cannot_be() {
    for status in ["100", "103", "101", "204", "304"] {
        let data = format!("HTTP/1.1 {status} X\r\ncontent-length: 7\r\n\r\n");
        let head = parse(data.as_bytes()).ok().flatten();
        assert_eq!(head.map(|head| head.framing), Some(Framing::Length(0)), "{status}");
    }
    let head = parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", true, 65536, 100).ok().flatten();
    assert_eq!(head.map(|head| head.framing), Some(Framing::Length(0)));
}

#[test]
fn connections_stay_open_only_when_both_know_the_end() {
    let stays = |text: &str| parse(text.as_bytes()).ok().flatten().is_some_and(|head| head.keep_alive);
    assert!(stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    assert!(stays("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive\r\n\r\n"));
    assert!(!stays("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"));
    assert!(!stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, CLOSE\r\n\r\n"));
    assert!(!stays("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!stays("HTTP/1.1 101 Switching\r\n\r\n"));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
        text.extend_from_slice(&data);
        let _ = parse(&data);
        if let Ok(Some(head)) = parse(&text) {
            prop_assert!(head.length <= text.len());
        }
    }
}
