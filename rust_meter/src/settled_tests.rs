//! What `settlement` writes, `settled` reads; what it would not write is left to Python.

use crate::journal::{Frame, Place, Run, push_frame};
use crate::normal::Counts;
use crate::settled::{Settled, lots_text};
use crate::settlement::{Charged, Facts, Take, Wording, record};

fn written(takes: Vec<Take<'_>>, raw_usage: &str) -> String {
    let wording = Wording {
        wallet: "openhands".into(),
        model: "gpt-5.1".into(),
        wire_format: "chat".into(),
        price_version: 3,
        multiplier: "1.05".into(),
        upstream: "openai".into(),
        free: false,
        upstream_model_characters_max: 100,
    };
    let charged = Charged {
        amount_pico: 7,
        counts: Counts::default(),
        input_total: 40,
        flags: vec!["duplicate_key"],
        upstream_model: "gpt \"5.1\"".into(),
        raw_usage: raw_usage.into(),
        used: String::new(),
    };
    let facts = Facts {
        exchange: "e1",
        user: "user-1",
        key: "5e5e",
        takes,
        outcome: "completed",
        status: 200,
        upstream_request: "req\n1",
        stream: true,
        started_ms: 1,
        first_byte_ms: 2,
        ended_ms: 3,
    };
    String::from_utf8(record(&wording, &charged, &facts)).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let record = written(vec![("l1", "creditsNew", 7)], "{\"input\":40,\t\"output\":9}");
    let settled = Settled::read(&record).unwrap();
    assert_eq!((settled.exchange, settled.user, settled.wallet), ("e1", "user-1", "openhands"));
    assert_eq!((settled.input_total, settled.amount_pico, settled.ended_ms), (40, 7, 3));
    assert_eq!(settled.sums(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 7, 2, 1, 1]);
    let take = settled.only_take().unwrap();
    assert_eq!(lots_text(take), r#"[["l1","creditsNew",-7]]"#);
    let charge = r#"["gpt-5.1","chat","",3,"1.05","exact",["duplicate_key"],{},{},40,7,false]"#;
    assert_eq!(settled.charge_text(), charge);
    assert_eq!(settled.output_tokens(), 0);
}

#[test]
fn output_tokens_are_those_of_the_counts() {
    let record = written(vec![], "").replacen("{}", r#"{"input":1,"output":9}"#, 1);
    assert_eq!(Settled::read(&record).unwrap().output_tokens(), 9);
}

#[test]
fn one_lot_pays_only_when_it_pays_all() {
    for takes in [vec![], vec![("l1", "credits", 6)], vec![("l1", "credits", 3), ("l2", "credits", 4)]] {
        assert_eq!(Settled::read(&written(takes, "")).unwrap().only_take(), None);
    }
}

#[test]
fn a_record_cut_or_lengthened_anywhere_is_odd() {
    let record = written(vec![("l1", "credits", 7)], "{\"a\":\"\u{1}\u{e9}\"}");
    assert!(Settled::read(&record).is_some());
    for (at, _) in record.char_indices() {
        assert_eq!(record.get(..at).and_then(Settled::read), None);
        let (before, behind) = record.split_at(at);
        assert_eq!(Settled::read(&format!("{before}\n{behind}")), None);
    }
    assert_eq!(Settled::read(&(record.clone() + " ")), None);
}

#[test]
fn a_run_ends_where_a_frame_does_not_follow() {
    let place = Place { journal: 9, synced_pos: 3 };
    let mut data = Vec::new();
    let first = push_frame(&mut data, place, 5, 8, 1, b"[\"e1\"]").unwrap();
    let whole = data.len();
    push_frame(&mut data, place, 6, 10, first, b"[]").unwrap();
    let mut run = Run::new(&data, 9, 1, 7);
    let frame = Frame { kind: 5, pos: 8, payload: b"[\"e1\"]" };
    assert_eq!(run.next(), Some(frame));
    assert_eq!(frame.exchange(), Some(&b"e1"[..]));
    assert_eq!(run.next(), None);
    assert_eq!((run.crc, run.pos, run.rest()), (first, 8, &data[whole..]));
    assert_eq!(Run::new(&data, 9, 2, 7).next(), None);
    assert_eq!(Run::new(&data, 8, 1, 7).next(), None);
    assert_eq!(Run::new(&data[..whole - 1], 9, 1, 7).next(), None);
}
