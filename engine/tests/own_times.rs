//! What does a row give whose events have times of their own (rule 2.4.11)?

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::borrow::Cow;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::epoch::Epoch;
use talkmeter_engine::mapping::versions::Versions;
use talkmeter_engine::mapping::{Class, Column, Mapping, Refusal, Value};

const NOW: Instant = Instant(1_000_000);

fn columns() -> Vec<Column> {
    let column = |(name, class): (&str, Class)| Column { name: name.into(), class, type_name: name.into() };
    let columns = [
        ("tenant_id", Class::Text),
        ("conversation_id", Class::Text),
        ("id", Class::Integer { smallest: i64::MIN, largest: i64::MAX }),
        ("created_at", Class::Timestamptz),
        ("updated_at", Class::Timestamptz),
        ("local_time", Class::Timestamp),
        ("ticks", Class::Integer { smallest: i64::MIN, largest: i64::MAX }),
        ("sender", Class::Text),
    ];
    columns.map(column).into()
}

fn check(kinds: Json) -> Result<Mapping, String> {
    Mapping::check(&json!({"kinds": kinds}), &columns()).map_err(|flaw| flaw.message)
}

/// A question at the time of the row, with its answer at that of its last change.
fn question_and_answer() -> Json {
    json!([{"kind": ["customer_message", {"ai_reply": {"occurred_at": "updated_at"}}]}])
}

fn versions(kinds: Json) -> Versions {
    Versions::of(check(kinds).expect("a mapping"), Instant::BEGINNING, Vec::new())
}

/// The values of a row of which some differ from those of a good one.
fn row(versions: &Versions, cells: &[(&str, Value<'static>)]) -> Vec<Value<'static>> {
    let text = |text| Value::Text(Cow::Borrowed(text));
    let good = [
        ("tenant_id", text("acme")),
        ("conversation_id", text("c")),
        ("id", Value::Integer(7)),
        ("created_at", at(10)),
        ("updated_at", at(20)),
    ];
    let columns = columns();
    let value = |index: &usize| {
        let mut cells = cells.iter().chain(&good).filter(|(name, _)| *name == columns[*index].name);
        cells.next().map_or(Value::Null, |(_, value)| value.clone())
    };
    versions.newest().columns.iter().map(value).collect()
}

fn at(micros: i64) -> Value<'static> {
    Value::Time(Some(Instant(micros)))
}

/// Of each event of a row, or of the row as a whole: which it is, its kinds, its time, and why it is refused.
type Told = (Option<u16>, Vec<Kind>, Option<i64>, Option<Refusal>);

fn told(kinds: Json, cells: &[(&str, Value<'static>)]) -> Vec<Told> {
    let versions = versions(kinds);
    let row = row(&versions, cells);
    let readings = versions.readings(&row, NOW);
    let told = readings
        .iter()
        .map(|reading| (reading.event, reading.kinds.to_vec(), reading.at.map(|at| at.0), reading.refusal));
    told.collect()
}

#[test]
fn each_event_has_the_time_of_its_own_column() {
    let asked = (Some(0), vec![Kind::CustomerMessage], Some(10), None);
    assert_eq!(told(question_and_answer(), &[]), [asked, (Some(2), vec![Kind::AiReply], Some(20), None)]);
}

#[test]
fn an_event_without_its_time_is_refused_and_the_others_count() {
    let asked = (Some(0), vec![Kind::CustomerMessage], Some(10), None);
    let unanswered = (Some(2), vec![Kind::AiReply], None, Some(Refusal::NullKey));
    assert_eq!(told(question_and_answer(), &[("updated_at", Value::Null)]), [asked, unanswered]);
    let unasked = (Some(0), vec![Kind::CustomerMessage], None, Some(Refusal::NullKey));
    let answered = (Some(2), vec![Kind::AiReply], Some(20), None);
    assert_eq!(told(question_and_answer(), &[("created_at", Value::Null)]), [unasked, answered]);
}

#[test]
fn each_event_is_refused_for_its_own_time() {
    let refusal = |value| told(question_and_answer(), &[("updated_at", value)])[1].3;
    assert_eq!(refusal(Value::Time(None)), Some(Refusal::TimeOutOfRange));
    assert_eq!(refusal(at(NOW.0 + 1)), Some(Refusal::Future));
    assert_eq!(refusal(at(NOW.0)), None);
}

#[test]
fn a_row_without_a_key_is_refused_as_a_whole() {
    let readings = told(question_and_answer(), &[("tenant_id", Value::Null)]);
    assert_eq!(readings, [(None, vec![Kind::CustomerMessage], Some(10), Some(Refusal::NullKey))]);
}

#[test]
fn a_row_all_of_whose_events_have_times_of_their_own_needs_none_itself() {
    let kinds = json!([{"kind": [
        {"customer_message": {"occurred_at": "created_at"}}, {"ai_reply": {"occurred_at": "updated_at"}},
    ]}]);
    let own = [(Some(1), vec![Kind::CustomerMessage], None, Some(Refusal::NullKey))];
    let readings = told(kinds, &[("created_at", Value::Null)]);
    assert_eq!(readings[0], (Some(0), vec![], None, None));
    assert_eq!(readings[1..2], own);
    assert_eq!(readings[2], (Some(2), vec![Kind::AiReply], Some(20), None));
}

/// What is in a column of a time.
fn any_time() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![Just(Value::Null), Just(Value::Time(None)), (0..2 * NOW.0).prop_map(at),]
}

proptest! {
    /// Each event is what it would be if its column were that of the row, whatever the others are.
    #[test]
    fn an_event_is_refused_and_placed_by_its_own_time_alone(created in any_time(), updated in any_time()) {
        let cells = [("created_at", created), ("updated_at", updated)];
        let readings = told(question_and_answer(), &cells);
        let wanted = [("customer_message", "created_at"), ("ai_reply", "updated_at")];
        for (reading, (kind, column)) in readings.iter().zip(wanted) {
            let alone = json!({"occurred_at": column, "kinds": [{"kind": kind}]});
            let alone = Mapping::check(&alone, &columns()).expect("a mapping");
            let alone = Versions::of(alone, Instant::BEGINNING, Vec::new());
            let row = row(&alone, &cells);
            let wanted = alone.read(&row, NOW);
            prop_assert_eq!(&reading.1, &wanted.kinds.to_vec());
            prop_assert_eq!((reading.2, reading.3), (wanted.at.map(|at| at.0), wanted.refusal));
        }
    }
}

#[test]
fn at_one_instant_the_events_of_a_row_come_in_the_order_of_its_rule() {
    let kinds = json!([{"kind": [{"customer_message": {"occurred_at": "updated_at"}}, "ai_reply"]}]);
    let versions = versions(kinds);
    let row = row(&versions, &[("updated_at", at(10))]);
    let readings = versions.readings(&row, NOW);
    let [reply, question] = [&readings.row, &readings.own[0]].map(|reading| reading.place(1, 0));
    assert!(question < reply);
    assert_eq!((reply.event(), question.event()), (0, 1));
}

#[test]
fn the_time_columns_are_those_of_the_row_and_of_its_events_each_once() {
    let ticks = json!({"column": "ticks", "epoch": "seconds"});
    let kinds = json!([
        {"when": {"sender": "a"}, "kind": ["note", {"ai_reply": {"occurred_at": ticks}}]},
        {"kind": ["note", {"ai_reply": {"occurred_at": "created_at"}}, {"error": {"occurred_at": "updated_at"}}]},
    ]);
    let times = check(kinds).expect("a mapping").time_columns();
    assert_eq!(times, [(3, None), (6, Some(Epoch::Seconds)), (4, None)]);
}

#[test]
fn a_zone_is_needed_if_any_time_has_none_and_refused_if_all_have() {
    let of = |time: &str, zone: Option<&str>| {
        let mut mapping = json!({"kinds": [{"kind": ["note", {"ai_reply": {"occurred_at": time}}]}]});
        zone.into_iter().for_each(|zone| mapping["timezone"] = zone.into());
        Mapping::check(&mapping, &columns()).map(drop).map_err(|flaw| flaw.message)
    };
    let needed = r#""occurred_at" of "ai_reply" in rule 1 of "kinds" needs a "timezone""#;
    assert_eq!(of("local_time", None), Err(needed.to_owned()));
    assert_eq!(of("local_time", Some("UTC")), Ok(()));
    assert_eq!(of("updated_at", Some("UTC")), Err(r#""timezone" does not apply"#.to_owned()));
}

#[test]
fn what_is_wrong_with_a_time_of_an_event_is_said() {
    let of = |kind: Json| check(json!([{"kind": ["note", kind]}])).map(drop).expect_err("a flaw");
    let object = r#""kind" of rule 1 of "kinds" holds an object that is not a kind with its time"#;
    assert_eq!(of(json!({})), object);
    assert_eq!(of(json!({"ai_reply": "updated_at"})), object);
    assert_eq!(of(json!({"ai_reply": {}})), r#""ai_reply" in rule 1 of "kinds" has no "occurred_at""#);
    assert_eq!(of(json!({"reply": {"occurred_at": "updated_at"}})), r#"unknown kind "reply" in rule 1 of "kinds""#);
    assert_eq!(of(json!({"ignore": {"occurred_at": "updated_at"}})), r#""ignore" in rule 1 of "kinds" has a time"#);
    let missing = r#"column "nowhere" of "occurred_at" of "ai_reply" in rule 1 of "kinds" does not exist"#;
    assert_eq!(of(json!({"ai_reply": {"occurred_at": "nowhere"}})), missing);
    let text = r#"column "sender" cannot be "occurred_at" of "ai_reply" in rule 1 of "kinds""#;
    assert_eq!(of(json!({"ai_reply": {"occurred_at": "sender"}})), text);
}
