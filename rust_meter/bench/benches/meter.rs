//! What the compiled meter costs, part by part, without Python: `make micro`, or `cargo bench` here.
//!
//! Inputs are those of an ordinary exchange, and the two long ones that have bars of their own: a prompt of
//! 5 MB and a 2 MB line whose usage stands at its end. What each part must find is asserted once before it is
//! timed, so that a benchmark cannot measure a refusal. Time is the thread's CPU time: a busy machine makes
//! wall time a multiple of it.

use std::hint::black_box;
use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Throughput, criterion_group, criterion_main};
use farebox_meter::head::parse_head;
use farebox_meter::journal::{OPEN, Place, Run, SETTLE, push_frame};
use farebox_meter::normal::{CacheSemantics, Counts, Kind};
use farebox_meter::pipe::{Options, Pipe};
use farebox_meter::price::Price;
use farebox_meter::request::parse_request;
use farebox_meter::scan::{Format, scan};
use farebox_meter::settled::Settled;
use farebox_meter::settlement::{Charged, Facts, Wording, record};
use farebox_meter::transfer::CHUNKED;

/// As the service scans (`base/limits.py`).
const DEPTH_MAX: usize = 128;
const PROMPT_BYTES: usize = 5_000_000;
const LINE_BYTES: usize = 2_000_000;
/// A long answer comes in reads of this size.
const READ_BYTES: usize = 64 * 1024;
/// Events of a stream.
const EVENTS: usize = 100;

const REQUEST_BODY: &str =
    r#"{"model":"m","messages":[{"role":"user","content":"Say hello to me, please."}]}"#;
const ANSWER_BODY: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there."},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}"#;
const EVENT: &str =
    "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]}\n\n";
const USAGE_EVENT: &str = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":9,\"total_tokens\":21}}\n\n";
/// What agents send: escaped line ends and quotes in every line.
const CODE: &str = r#"    async def settle(self, exchange: Exchange) -> Charge:\n        \"\"\"Price the usage and post the hold.\"\"\"\n        charge = self.price_book.charge(usage, exchange.model)  # ünïcode\n"#;

/// CPU time of the thread, written like any time.
struct CpuTime(WallTime);

impl Measurement for CpuTime {
    type Intermediate = ThreadTime;
    type Value = Duration;

    fn start(&self) -> ThreadTime {
        ThreadTime::now()
    }

    fn end(&self, began: ThreadTime) -> Duration {
        began.elapsed()
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        self.0.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self.0.formatter()
    }
}

type Criterion = criterion::Criterion<CpuTime>;

fn measuring() -> Criterion {
    criterion::Criterion::default().with_measurement(CpuTime(WallTime))
}

fn chunk(event: &str) -> String {
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// A pipe of an answer that is read as the service reads it.
fn pipe(wire_format: &str, framing: i64) -> Pipe {
    let options = Options {
        wire_format,
        framing,
        chunked_out: framing == CHUNKED,
        strip_usage: false,
        content_encoding: "",
        cache_semantics: CacheSemantics::Auto,
        inflated_bytes_max: 1 << 30,
        event_bytes_max: 1 << 24,
    };
    Pipe::new(&options).expect("options of an ordinary answer")
}

fn length(body: &str) -> i64 {
    i64::try_from(body.len()).expect("a length")
}

fn requests(criterion: &mut Criterion) {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n\
         Authorization: Bearer sk-{}\r\nContent-Length: {}\r\n\r\n",
        "0".repeat(64),
        REQUEST_BODY.len()
    );
    assert!(parse_request(head.as_bytes()).expect("a plain head").is_json);
    criterion.bench_function("request head", |timed| {
        timed.iter(|| parse_request(black_box(head.as_bytes())));
    });

    let mut group = criterion.benchmark_group("scan of a chat request");
    let prompt = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}},{{"role":"user","content":"Go."}}]}}"#,
        CODE.repeat(PROMPT_BYTES / CODE.len())
    );
    for (size, body, messages) in [("small", REQUEST_BODY, 1), ("5 MB", prompt.as_str(), 2)] {
        let facts = scan(body.as_bytes(), Format::Chat, DEPTH_MAX).expect("a chat request");
        assert_eq!(facts.message_count, messages);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(size, |timed| {
            timed.iter(|| scan(black_box(body.as_bytes()), Format::Chat, DEPTH_MAX));
        });
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: r\r\nContent-Length: {}\r\n\r\n",
        ANSWER_BODY.len()
    );
    assert!(parse_head(head.as_bytes(), false, 65_536, 128).expect("a head").is_some());
    criterion.bench_function("answer head", |timed| {
        timed.iter(|| parse_head(black_box(head.as_bytes()), false, 65_536, 128));
    });

    let whole = || {
        let mut pipe = pipe("chat", length(ANSWER_BODY));
        pipe.feed(black_box(ANSWER_BODY.as_bytes()));
        pipe.reading()
    };
    assert_eq!(whole().totals.expect("usage").output, 9);
    criterion.bench_function("usage of a whole answer", |timed| timed.iter(whole));

    let chunk_of_event = chunk(EVENT);
    let mut stream = pipe("chat", CHUNKED);
    criterion.bench_function("tap of a streamed chunk", |timed| {
        timed.iter(|| {
            black_box(stream.feed(black_box(chunk_of_event.as_bytes())));
        });
    });

    let chunks: Vec<String> = std::iter::repeat_n(EVENT, EVENTS)
        .chain([USAGE_EVENT, "data: [DONE]\n\n"])
        .map(chunk)
        .chain(["0\r\n\r\n".to_owned()])
        .collect();
    let streamed = || {
        let mut pipe = pipe("chat", CHUNKED);
        for one in &chunks {
            black_box(pipe.feed(black_box(one.as_bytes())));
        }
        pipe.reading()
    };
    let reading = streamed();
    assert!(reading.is_complete && reading.is_final);
    criterion.bench_function("tap of a chat stream of 100 chunks", |timed| timed.iter(streamed));
}

/// A `response.completed` line: a long answer repeated, its usage after it.
fn completed_line() -> String {
    let text = r#"He said: \"line one\"\n\tand then ünïcode. "#;
    format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"id\":\"r\",\
         \"status\":\"completed\",\"model\":\"m\",\"output\":[{{\"type\":\"message\",\"content\":[{{\"type\":\
         \"output_text\",\"text\":\"{}\"}}]}}],\"usage\":{{\"input_tokens\":36,\"output_tokens\":87,\
         \"total_tokens\":123}}}}}}\n\n",
        text.repeat(LINE_BYTES / text.len())
    )
}

fn long_lines(criterion: &mut Criterion) {
    let line = completed_line();
    let read = || {
        let mut pipe = pipe("responses", length(&line));
        for part in line.as_bytes().chunks(READ_BYTES) {
            black_box(pipe.feed(black_box(part)));
        }
        pipe.reading()
    };
    assert_eq!(read().totals.expect("usage").output, 87);
    let mut group = criterion.benchmark_group("usage at the end");
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("of a line of 2 MB", |timed| timed.iter(read));
    group.finish();
}

fn prices(criterion: &mut Criterion) {
    let line = |kind: &str, usd: &str| (kind.to_owned(), usd.to_owned());
    let lines = vec![
        line("input", "3"),
        line("output", "15"),
        line("cache_read", "0.3"),
        line("cache_write_5m", "3.75"),
    ];
    let price = Price::new(&lines, "1.05", &[], &[]).expect("prices");
    let counts = [("input", 1200), ("output", 800), ("cache_write_5m", 2000), ("cache_read", 10_000)];
    let charged = || price.priced(black_box(counts).into_iter(), 13_200, None);
    assert_eq!(charged().expect("a charge").amount_pico, 27_405_000_000);
    criterion.bench_function("price of four kinds", |timed| timed.iter(charged));
}

/// The settle record of an ordinary exchange.
fn settle_record() -> Vec<u8> {
    let wording = Wording {
        wallet: "openhands".to_owned(),
        model: "gpt-5.1".to_owned(),
        wire_format: "chat".to_owned(),
        price_version: 1,
        multiplier: "1".to_owned(),
        upstream: "bench-openai".to_owned(),
        free: false,
        upstream_model_characters_max: 128,
    };
    let mut counts = Counts::default();
    counts.add(Kind::Input, 40);
    counts.add(Kind::Output, 9);
    let charged = Charged {
        amount_pico: 140_000_000,
        counts,
        input_total: 40,
        flags: Vec::new(),
        upstream_model: "gpt-5.1-2025-11-13".to_owned(),
        raw_usage: r#"{"prompt_tokens":40,"completion_tokens":9,"total_tokens":49}"#.to_owned(),
        used: "input=40@1.25 output=9@10".to_owned(),
    };
    let key = "5e".repeat(32);
    let facts = Facts {
        exchange: "0199c8f30d4070008a1b2c3d4e5f6071",
        user: "user-1",
        key: &key,
        takes: vec![("lot-1", "creditsNew", 140_000_000)],
        outcome: "completed",
        status: 200,
        upstream_request: "req_0123456789ab",
        stream: false,
        started_ms: 1_760_000_000_000,
        first_byte_ms: 1_760_000_000_002,
        ended_ms: 1_760_000_000_003,
    };
    record(&wording, &charged, &facts)
}

fn journal(criterion: &mut Criterion) {
    criterion.bench_function("settle record in words", |timed| timed.iter(settle_record));

    let settle = settle_record();
    let open = br#"["0199c8f30d4070008a1b2c3d4e5f6071","user-1","openhands"]"#;
    let place = Place { journal: 1, synced_pos: 0 };
    let two_frames = |out: &mut Vec<u8>| {
        let crc = push_frame(out, place, OPEN, 1, 0, black_box(open)).expect("a short payload");
        push_frame(out, place, SETTLE, 2, crc, black_box(&settle)).expect("a short payload")
    };
    criterion.bench_function("journal frames of an exchange, encoded", |timed| {
        timed.iter_batched_ref(|| Vec::with_capacity(2048), two_frames, BatchSize::SmallInput);
    });

    let mut frames = Vec::new();
    two_frames(&mut frames);
    let read_back = || Run::new(black_box(&frames), 1, 0, 0).filter(|frame| frame.is_end()).count();
    assert_eq!(read_back(), 1);
    criterion.bench_function("journal frames of an exchange, decoded", |timed| timed.iter(read_back));

    let text = String::from_utf8(settle).expect("JSON");
    assert!(Settled::read(&text).is_some());
    criterion.bench_function("settle record, read for booking", |timed| {
        timed.iter(|| Settled::read(black_box(&text)));
    });
}

criterion_group! {
    name = parts;
    config = measuring();
    targets = requests, answers, long_lines, prices, journal
}
criterion_main!(parts);
