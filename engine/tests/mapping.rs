//! Which events does a row give under a mapping, and which mappings are refused (rules 2, 3.7)?

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value as Json, json};
use std::borrow::Cow;
use talkmeter_engine::event::Kind;
use talkmeter_engine::flaw::{Flaw, FlawKind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Class, Column, LONGEST_KEY, Mapping, Reading, Refusal, Value, json, key};
use talkmeter_engine::order::MessageId;

/// The last instant that is not yet future.
const NOW: Instant = Instant(1_000_000);
/// The types of smallint, where a range is easy to leave.
const SMALLINT: Class = Class::Integer { smallest: -32_768, largest: 32_767 };

/// A table with a column of every class; the first four are the ones that a mapping finds by their names.
fn table() -> Vec<Column> {
    let column = |(name, class, type_name): (&str, Class, &str)| Column {
        name: name.into(),
        class,
        type_name: type_name.into(),
    };
    let columns = [
        ("tenant_id", Class::Text, "text"),
        ("conversation_id", Class::Text, "text"),
        ("id", Class::Integer { smallest: i64::MIN, largest: i64::MAX }, "bigint"),
        ("created_at", Class::Timestamptz, "timestamp with time zone"),
        ("sender", Class::Text, "text"),
        ("code", Class::PaddedText, "character(4)"),
        ("thread", Class::Uuid, "uuid"),
        ("type", SMALLINT, "smallint"),
        ("private", Class::Boolean, "boolean"),
        ("score", Class::Numeric, "numeric"),
        ("state", Class::Enum(vec!["open".into(), "solved".into()]), "state"),
        ("extra", Class::Json, "jsonb"),
        ("local_time", Class::Timestamp, "timestamp without time zone"),
        ("place", Class::Other, "point"),
        ("odd->name", Class::Text, "text"),
        ("ticks", Class::Integer { smallest: i64::MIN, largest: i64::MAX }, "bigint"),
        ("clock", Class::Float, "double precision"),
    ];
    columns.map(column).into()
}

fn check(mapping: Json) -> Result<Mapping, Flaw> {
    Mapping::check(&mapping, &table())
}

fn mapping(mapping: Json) -> Mapping {
    check(mapping).expect("a mapping without flaw")
}

/// What a row says that differs from a good one: acme's message 7 in conversation c1.
type Cells<'a> = [(&'a str, Value<'a>)];

/// The values of a row in the slots of a mapping; a column of which nothing is said is null.
fn row<'a>(mapping: &Mapping, cells: &Cells<'a>) -> Vec<Value<'a>> {
    let good = [
        ("tenant_id", text("acme")),
        ("conversation_id", text("c1")),
        ("id", Value::Integer(7)),
        ("created_at", Value::Time(Some(NOW))),
    ];
    let value = |name: &str| cells.iter().chain(&good).find(|(cell, _)| *cell == name).map(|(_, value)| value.clone());
    let table = table();
    mapping.columns.iter().map(|column| value(&table[*column].name).unwrap_or(Value::Null)).collect()
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn number(text: &str) -> Value<'_> {
    Value::Number(text.parse().expect("a decimal"))
}

/// The events that a row gives by these rules: their names, or `ignore`, or nothing if no rule matches.
fn said(kinds: Json, cells: &Cells) -> String {
    let mapping = mapping(json!({"kinds": kinds}));
    match mapping.apply(&row(&mapping, cells), NOW) {
        None => "ignore".into(),
        Some(reading) => reading.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
    }
}

/// Whether a row satisfies a `when`.
fn matches(when: Json, cells: &Cells) -> bool {
    said(json!([{"when": when, "kind": "note"}]), cells) == "note"
}

/// A mapping that takes every row for a customer's message.
fn catch_all() -> Mapping {
    mapping(json!({"kinds": [{"kind": "customer_message"}]}))
}

fn refusal(mapping: &Mapping, cells: &Cells) -> Option<Refusal> {
    mapping.apply(&row(mapping, cells), NOW).expect("the row is not ignored").refusal
}

fn refused(cells: &Cells) -> Option<Refusal> {
    refusal(&catch_all(), cells)
}

/// A good mapping with the keys of `change` instead of its own.
fn changed(change: Json) -> Json {
    let mut mapping = json!({"kinds": [{"kind": "note"}]});
    for (key, value) in change.as_object().expect("an object") {
        mapping[key] = value.clone();
    }
    mapping
}

/// The flaw of a mapping that is good but for what `change` says.
fn flaw(change: Json) -> Flaw {
    check(changed(change)).expect_err("a flaw")
}

fn flaw_of_kinds(kinds: Json) -> Flaw {
    flaw(json!({"kinds": kinds}))
}

fn flaw_of_when(when: Json) -> Flaw {
    flaw_of_kinds(json!([{"when": when, "kind": "note"}]))
}

fn assert_flaw(flaw: Flaw, kind: FlawKind, message: &str, hint: Option<&str>) {
    assert_eq!((flaw.kind, flaw.message.as_str(), flaw.hint.as_deref()), (kind, message, hint));
}

fn assert_invalid(flaw: Flaw, message: &str, hint: Option<&str>) {
    assert_flaw(flaw, FlawKind::Invalid, message, hint);
}

fn assert_wrong_type(flaw: Flaw, message: &str, hint: &str) {
    assert_flaw(flaw, FlawKind::WrongType, message, Some(hint));
}

// Which rule decides

#[test]
fn the_first_rule_that_matches_decides() {
    let kinds = json!([
        {"when": {"private": true}, "kind": "note"},
        {"when": {"sender": "user"}, "kind": "customer_message"},
        {"when": {"sender": "user"}, "kind": "error"},
    ]);
    assert_eq!(said(kinds.clone(), &[("sender", text("user"))]), "customer_message");
    assert_eq!(said(kinds, &[("sender", text("user")), ("private", Value::Boolean(true))]), "note");
}

#[test]
fn a_last_rule_without_when_catches_all_the_others() {
    let kinds = json!([{"when": {"sender": "user"}, "kind": "customer_message"}, {"kind": "staff_reply"}]);
    assert_eq!(said(kinds.clone(), &[("sender", text("user"))]), "customer_message");
    assert_eq!(said(kinds, &[("sender", text("whoever"))]), "staff_reply");
}

#[test]
fn an_ignored_row_is_nothing_to_the_meter_whatever_else_is_wrong_with_it() {
    let kinds = json!([{"when": {"sender": "cron"}, "kind": "ignore"}]);
    let cells = [("sender", text("cron")), ("tenant_id", Value::Null), ("created_at", Value::Time(None))];
    assert_eq!(said(kinds, &cells), "ignore");
    assert_eq!(said(json!([{"kind": ["ignore"]}]), &[]), "ignore");
}

#[test]
fn an_ignored_row_needs_no_keys_to_be_an_event_no_more() {
    let mapping = mapping(json!({"kinds": [{"kind": "ignore"}]}));
    for key in ["tenant_id", "conversation_id", "id", "created_at"] {
        assert!(mapping.read(&row(&mapping, &[(key, Value::Null)]), NOW).has_keys(), "{key}");
    }
}

#[test]
fn an_ignored_row_is_read_with_its_keys_and_without_kinds_or_refusal() {
    let mapping = mapping(json!({"kinds": [{"kind": "ignore"}]}));
    let row = row(&mapping, &[("tenant_id", Value::Null)]);
    let reading = mapping.read(&row, NOW);
    assert_eq!((reading.ignored, reading.kinds, reading.refusal), (true, [].as_slice(), None));
    assert_eq!((reading.tenant, reading.message), (None, Some(MessageId::Integer(7))));
}

#[test]
fn one_row_can_be_several_events_in_the_order_of_the_rule() {
    let kinds = json!([{"kind": ["customer_message", "ai_reply"]}]);
    assert_eq!(said(kinds, &[]), "customer_message, ai_reply");
}

#[test]
fn every_kind_can_be_given_to_a_row() {
    for kind in Kind::ALL {
        assert_eq!(said(json!([{"kind": kind.name()}]), &[]), kind.name());
    }
}

#[test]
fn several_columns_must_all_match() {
    let when = json!({"sender": "user", "private": false});
    assert!(matches(when.clone(), &[("sender", text("user")), ("private", Value::Boolean(false))]));
    assert!(!matches(when.clone(), &[("sender", text("user")), ("private", Value::Boolean(true))]));
    assert!(!matches(when, &[("sender", text("bot")), ("private", Value::Boolean(false))]));
}

// How a value is compared

#[test]
fn a_list_matches_any_of_its_members_and_null_only_if_it_holds_null() {
    let bots = json!({"sender": ["AgentBot", "Captain"]});
    assert!(matches(bots.clone(), &[("sender", text("Captain"))]));
    assert!(!matches(bots.clone(), &[("sender", text("Contact"))]));
    assert!(!matches(bots, &[("sender", Value::Null)]));
    assert!(matches(json!({"sender": ["AgentBot", null]}), &[("sender", Value::Null)]));
}

#[test]
fn null_is_null_in_a_column_of_every_type() {
    for column in table().iter() {
        let (is_null, is_not) = (json!({column.name.as_str(): null}), json!({column.name.as_str(): {"not": null}}));
        assert!(matches(is_null.clone(), &[(&column.name, Value::Null)]), "{}", column.name);
        assert!(!matches(is_not.clone(), &[(&column.name, Value::Null)]), "{}", column.name);
        assert!(!matches(is_null, &[(&column.name, Value::Present)]), "{}", column.name);
        assert!(matches(is_not, &[(&column.name, Value::Present)]), "{}", column.name);
    }
}

#[test]
fn not_is_whatever_the_same_without_it_is_not() {
    let not = json!({"sender": {"not": ["a", "b"]}});
    for (value, wanted) in [(text("a"), false), (text("b"), false), (text("c"), true), (Value::Null, true)] {
        assert_eq!(matches(not.clone(), &[("sender", value.clone())]), wanted, "{value:?}");
    }
    let not = json!({"sender": {"not": ["a", null]}});
    assert!(!matches(not.clone(), &[("sender", Value::Null)]));
    assert!(matches(not, &[("sender", text("c"))]));
    assert!(!matches(json!({"type": {"not": 7}}), &[("type", Value::Integer(7))]));
}

#[test]
fn not_null_is_there_whatever_it_is_also_at_the_end_of_a_path() {
    let campaign = |extra: Json| json_matches("extra->campaign->id", json!({"not": null}), extra);
    assert!(campaign(json!({"campaign": {"id": 7}})) && campaign(json!({"campaign": {"id": {"a": 1}}})));
    assert!(!campaign(json!({"campaign": {"id": null}})) && !campaign(json!({"campaign": {}})));
}

#[test]
fn an_object_that_is_compared_with_is_not_and_nothing_else() {
    let flaw = flaw_of_when(json!({"sender": {"nto": "a"}}));
    let hint = Some("Known here: not.");
    assert_invalid(flaw, "unknown key \"nto\" in \"sender\" of rule 1 of \"kinds\"", hint);
    let flaw = flaw_of_when(json!({"sender": {}}));
    assert_eq!(flaw.message, "{} of rule 1 of \"kinds\" cannot be compared with \"sender\"");
}

#[test]
fn null_does_not_match_a_value() {
    assert!(!matches(json!({"sender": null}), &[("sender", text(""))]));
    assert!(!matches(json!({"type": null}), &[("type", Value::Integer(0))]));
}

#[test]
fn text_is_compared_as_it_is() {
    for other in ["User", "user ", " user", "use", ""] {
        assert!(!matches(json!({"sender": "user"}), &[("sender", text(other))]), "{other:?}");
    }
    assert!(matches(json!({"sender": ""}), &[("sender", text(""))]));
}

#[test]
fn padded_text_is_compared_without_trailing_blanks() {
    for wanted in ["ab", "ab  "] {
        assert!(matches(json!({"code": wanted}), &[("code", text("ab"))]), "{wanted:?}");
    }
    assert!(!matches(json!({"code": " ab"}), &[("code", text("ab"))]));
}

#[test]
fn a_uuid_is_the_same_however_it_is_written() {
    let canonical = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    for written in [canonical, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}"] {
        assert!(matches(json!({"thread": written}), &[("thread", text(canonical))]), "{written}");
    }
    assert!(!matches(json!({"thread": canonical.replace('1', "2")}), &[("thread", text(canonical))]));
}

#[test]
fn an_integer_is_compared_as_a_number() {
    assert!(matches(json!({"type": 2}), &[("type", Value::Integer(2))]));
    assert!(!matches(json!({"type": 2}), &[("type", Value::Integer(-2))]));
    let largest = json!({"id": i64::MAX});
    assert!(matches(largest.clone(), &[("id", Value::Integer(i64::MAX))]));
    assert!(!matches(largest, &[("id", Value::Integer(i64::MAX - 1))]));
}

#[test]
fn a_numeric_is_compared_by_value_so_trailing_zeros_do_not_matter() {
    assert!(matches(json!({"score": 1}), &[("score", number("1.00"))]));
    assert!(matches(json!({"score": 0.1}), &[("score", number("0.10"))]));
    assert!(!matches(json!({"score": 0.1}), &[("score", number("0.1000000000000000000000000001"))]));
}

#[test]
fn a_boolean_is_compared_as_a_boolean() {
    assert!(matches(json!({"private": true}), &[("private", Value::Boolean(true))]));
    assert!(!matches(json!({"private": true}), &[("private", Value::Boolean(false))]));
    assert!(!matches(json!({"private": false}), &[("private", Value::Null)]));
}

#[test]
fn an_enum_is_compared_by_its_label() {
    assert!(matches(json!({"state": "solved"}), &[("state", text("solved"))]));
    assert!(!matches(json!({"state": "solved"}), &[("state", text("open"))]));
}

// Paths into json

fn json_matches(path: &str, wanted: Json, extra: Json) -> bool {
    let mapping = mapping(json!({"kinds": [{"when": {path: wanted}, "kind": "note"}]}));
    let slot = mapping.asked.iter().position(|asked| !asked.paths.is_empty()).expect("a path is asked for");
    let found = Value::Json(json::at_paths(&extra.to_string(), &mapping.asked[slot]));
    let row = row(&mapping, &[("extra", found)]);
    mapping.apply(&row, NOW).is_some_and(|reading| !reading.kinds.is_empty())
}

#[test]
fn a_path_leads_into_nested_objects_and_arrays() {
    assert!(json_matches("extra->channel", json!("web"), json!({"channel": "web"})));
    assert!(json_matches("extra->a->b->c", json!(true), json!({"a": {"b": {"c": true}}})));
    assert!(json_matches("extra->tags->1", json!("y"), json!({"tags": ["x", "y"]})));
    assert!(!json_matches("extra->channel", json!("web"), json!({"a": {"channel": "web"}})));
}

#[test]
fn what_a_path_does_not_find_is_null() {
    let missing = [json!({}), json!({"a": null}), json!({"a": 5}), json!({"a": []}), json!("a"), json!(null)];
    for extra in missing {
        assert!(json_matches("extra->a->b", json!(null), extra.clone()), "{extra}");
        assert!(!json_matches("extra->a->b", json!(false), extra.clone()), "{extra}");
    }
    assert!(matches(json!({"extra->a": null}), &[("extra", Value::Null)]));
}

#[test]
fn json_null_is_null() {
    assert!(json_matches("extra->a", json!(["x", null]), json!({"a": null})));
    assert!(!json_matches("extra->a", json!(null), json!({"a": ""})));
}

#[test]
fn json_numbers_are_compared_by_value() {
    for same in ["1", "1.0", "1.00", "1e0", "10E-1", "0.1e+1"] {
        let extra: Json = serde_json::from_str(&format!("{{\"n\": {same}}}")).expect("json");
        assert!(json_matches("extra->n", json!(1), extra), "{same}");
    }
    assert!(!json_matches("extra->n", json!(1), json!({"n": 1.5})));
}

#[test]
fn a_json_number_that_is_nearly_another_does_not_equal_it() {
    let nearly: Json = serde_json::from_str("1.0000000000000000000000000000000001").expect("json");
    assert!(!json_matches("extra->n", json!(1), json!({"n": nearly})));
}

#[test]
fn a_json_scalar_equals_none_of_another_type() {
    let scalars =
        [json!("1"), json!(1), json!(true), json!("true"), json!(null), json!("null"), json!(0), json!(false)];
    for (i, wanted) in scalars.iter().enumerate() {
        for (j, found) in scalars.iter().enumerate() {
            assert_eq!(json_matches("extra->a", wanted.clone(), json!({"a": found})), i == j, "{wanted} {found}");
        }
    }
}

#[test]
fn an_object_or_an_array_equals_no_scalar() {
    for found in [json!({}), json!([]), json!(["x"]), json!({"x": "x"})] {
        assert!(!json_matches("extra->a", json!(["x", null, 0, false]), json!({"a": found})), "{found}");
    }
}

#[test]
fn a_string_on_the_way_is_read_as_json() {
    let object = r#"{"a": {"b": [true, "x"]}, "n": 1.0}"#;
    for extra in [json!(object), json!(json!(object).to_string()), json!(format!(" {object}\n"))] {
        assert!(json_matches("extra->a->b->1", json!("x"), extra.clone()), "{extra}");
        assert!(json_matches("extra->n", json!(1), extra.clone()), "{extra}");
        assert!(json_matches("extra->m", json!(null), extra.clone()), "{extra}");
        assert!(json_matches("extra->s->a->b->0", json!(true), json!({"s": extra})), "{extra}");
    }
    assert!(json_matches("extra->s", json!("{}"), json!({"s": "{}"})), "where the path ends it is a text");
    for no_json in ["", "x", "{", "{} {}", "{\"a\": 1} x", "{'a': 1}", "[1", "\"a\""] {
        assert!(json_matches("extra->s->a", json!(null), json!({"s": no_json})), "{no_json}");
    }
}

// Paths into text

/// Whether a text holds the wanted value under `a`.
fn text_matches(text: &str, wanted: Json) -> bool {
    let mapping = mapping(json!({"kinds": [{"when": {"sender->a": wanted}, "kind": "note"}]}));
    let slot = mapping.asked.iter().position(|asked| asked.as_json).expect("a text is read as json");
    let found = Value::Json(json::at_paths_of_any(text, &mapping.asked[slot]));
    let row = row(&mapping, &[("sender", found)]);
    mapping.apply(&row, NOW).is_some_and(|reading| !reading.kinds.is_empty())
}

#[test]
fn a_path_into_text_compares_json_scalars() {
    assert!(text_matches(r#" {"a": "x"} "#, json!("x")) && text_matches(r#"{"a": 1.50}"#, json!(1.5)));
    assert!(text_matches(r#"{"a": 1, "a": true}"#, json!(true)), "the last of equal keys counts");
    assert!(text_matches(r#""{\"a\": 2}""#, json!(2)), "a string in a text");
    assert!(text_matches(r#"{"a": "\u0000"}"#, json!("\0")) && text_matches(r#"{"b": "\u0000\ud83d"}"#, json!(null)));
}

#[test]
fn a_text_that_is_no_json_holds_nothing() {
    for text in
        ["", " ", "a", "null", "5", "\"a\"", "{", "{\"a\": }", "{\"a\": 1", "{\"a\": 1}}", "{\"a\": 1} x", "{a: 1}"]
    {
        assert!(text_matches(text, json!(null)) && !text_matches(text, json!({"not": null})), "{text}");
    }
    for python in [r#"{"a": NaN}"#, r#"{"a": 1, "b": NaN}"#, r#"{"a": 1, "b": Infinity}"#, r#"{'a': 1}"#] {
        assert!(text_matches(python, json!(null)), "{python}");
    }
}

#[test]
fn a_text_is_looked_into_up_to_a_depth_and_a_length() {
    let nested = |levels: usize| format!(r#"{{"b": {}1{}, "a": 1}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(text_matches(&nested(999), json!(1)) && !text_matches(&nested(1_000), json!(1)));
    assert!(text_matches(&"[".repeat(10_000_000), json!(null)));
    let long = |bytes: usize| format!(r#"{{"b": "{}", "a": 1}}"#, "x".repeat(bytes - 17));
    assert!(
        text_matches(&long(json::LONGEST_TEXT), json!(1)) && !text_matches(&long(json::LONGEST_TEXT + 1), json!(1))
    );
    let brackets = format!(r#"{{"b": "{}\"[", "a": 1}}"#, "[".repeat(5_000));
    assert!(text_matches(&brackets, json!(1)), "those of a text do not nest");
}

#[test]
fn a_text_may_be_read_as_it_is_and_as_json() {
    let both =
        mapping(json!({"customer": "sender", "kinds": [{"when": {"sender": "x", "sender->a": 1}, "kind": "note"}]}));
    let forms: Vec<bool> = both.slots().filter(|(column, _)| *column == 4).map(|(_, asked)| asked.as_json).collect();
    assert_eq!(forms, [false, true]);
}

#[test]
fn a_json_column_without_a_path_is_compared_as_a_whole() {
    assert!(json_matches("extra", json!("web"), json!("web")));
    assert!(json_matches("extra", json!(null), json!(null)));
    assert!(!json_matches("extra", json!("web"), json!({"channel": "web"})));
}

#[test]
fn a_column_whose_own_name_holds_an_arrow_is_no_path() {
    assert!(matches(json!({"odd->name": "x"}), &[("odd->name", text("x"))]));
}

// Where keys and times come from

/// Column names in the order in which a mapping reads them.
fn columns_of(mapping: &Mapping) -> Vec<String> {
    mapping.columns.iter().map(|column| table()[*column].name.clone()).collect()
}

#[test]
fn keys_left_out_are_looked_for_under_their_usual_names() {
    assert_eq!(columns_of(&catch_all()), ["tenant_id", "conversation_id", "id", "created_at"]);
}

#[test]
fn keys_and_time_are_read_from_the_columns_that_the_mapping_names() {
    let named = mapping(json!({
        "tenant": "sender", "conversation": "thread", "message_id": "type", "occurred_at": "local_time",
        "timezone": "Europe/Zurich", "kinds": [{"kind": "note"}],
    }));
    assert_eq!(columns_of(&named), ["sender", "thread", "type", "local_time"]);
    assert_eq!((named.columns_of(&named.message_id), named.occurred_at_column()), (vec![7], Some(12)));
    assert_eq!(named.timezone.as_deref(), Some("Europe/Zurich"));
}

// Keys of several columns

fn composite(conversation: Json) -> Mapping {
    mapping(json!({"conversation": conversation, "message_id": ["id", "sender"], "kinds": [{"kind": "note"}]}))
}

fn conversation_of(conversation: Json, cells: &Cells) -> Option<String> {
    let mapping = composite(conversation);
    let row = row(&mapping, cells);
    mapping.read(&row, NOW).conversation.map(|text| text.into_owned())
}

#[test]
fn a_key_of_several_columns_is_their_values_in_order() {
    let mapping = composite(json!(["thread", "type", "conversation_id"]));
    let uuid = "0f6e6f9c-0000-4000-8000-0123456789ab";
    let cells = [("thread", text(uuid)), ("type", Value::Integer(-7)), ("sender", text("a/b%c%2F"))];
    let row = row(&mapping, &cells);
    let reading = mapping.read(&row, NOW);
    assert_eq!(reading.conversation.as_deref(), Some(format!("{uuid}/-7/c1").as_str()));
    assert_eq!(reading.message, Some(MessageId::Text("7/a%2Fb%25c%252F".into())));
    assert_eq!(reading.refusal, None);
}

#[test]
fn a_key_of_several_columns_is_null_if_one_is() {
    let cells = [("sender", text("x")), ("type", Value::Null)];
    let mapping = composite(json!(["conversation_id", "type"]));
    let row = row(&mapping, &cells);
    assert_eq!(mapping.read(&row, NOW).refusal, Some(Refusal::NullKey));
}

#[test]
fn the_first_of_several_columns_is_neither_null_nor_empty() {
    let first = |thread: Value, sender: Value| {
        conversation_of(
            json!({"first_of": ["thread", "sender", "type"]}),
            &[("thread", thread), ("sender", sender), ("type", Value::Integer(0))],
        )
    };
    assert_eq!(first(text("t"), text("s")).as_deref(), Some("t"));
    assert_eq!(first(Value::Null, text("a/b")).as_deref(), Some("a/b"));
    assert_eq!(first(text(""), text("")).as_deref(), Some("0"));
    assert_eq!(conversation_of(json!({"first_of": ["thread", "sender"]}), &[("sender", text(""))]), None);
}

#[test]
fn a_key_of_several_columns_is_too_long_by_what_it_is_as_a_whole() {
    let read = |half: usize| {
        let long = "x".repeat(half);
        let mapping = composite(json!(["conversation_id", "thread"]));
        let row = row(&mapping, &[("conversation_id", text(&long)), ("thread", text(&long)), ("sender", text("s"))]);
        let reading = mapping.read(&row, NOW);
        (reading.refusal, reading.too_long[1], reading.conversation.map(|text| text.len()))
    };
    assert_eq!(read(255), (None, None, Some(511)));
    assert_eq!(read(256), (Some(Refusal::KeyTooLong), Some(513), Some(LONGEST_KEY)));
    assert_eq!(read(600), (Some(Refusal::KeyTooLong), Some(1_201), Some(LONGEST_KEY)));
}

proptest! {
    #[test]
    fn a_key_of_several_columns_says_which_values_made_it(
        values in vec("[a%/25F]{0,5}", 1..4),
        other in vec("[a%/25F]{0,5}", 1..4),
    ) {
        let joined = |values: &[String]| key::joined(values.iter().map(String::as_str));
        prop_assert_eq!(key::parted(&joined(&values), values.len()), Some(values.clone()));
        prop_assert_eq!(joined(&values) == joined(&other), values == other);
        // What is no such key is made of nothing.
        if let Some(parts) = key::parted(&other[0], values.len()) {
            prop_assert_eq!(joined(&parts), other[0].clone());
        }
    }
}

#[test]
fn a_key_is_made_of_two_to_four_columns() {
    let key = |conversation: Json| flaw(json!({"conversation": conversation}));
    let hint = Some("One column is named without a list.");
    for list in [json!(["sender"]), json!([]), json!(["sender", "type", "id", "thread", "tenant_id"])] {
        let place = "\"conversation\" of the mapping is not a list of two to 4 columns";
        assert_flaw(key(list.clone()), FlawKind::Invalid, place, hint);
        let place = "\"first_of\" of \"conversation\" is not a list of two to 4 columns";
        assert_flaw(key(json!({"first_of": list})), FlawKind::Invalid, place, hint);
    }
    assert_flaw(
        key(json!(["sender", "sender"])),
        FlawKind::Invalid,
        "\"conversation\" of the mapping names column \"sender\" twice",
        None,
    );
    assert_flaw(
        key(json!(["sender", 1])),
        FlawKind::Invalid,
        "\"conversation\" of the mapping holds something that is not the name of a column",
        None,
    );
    assert_eq!(key(json!(["sender", "private"])).message, "column \"private\" cannot be \"conversation\"");
    assert_eq!(key(json!(["sender", "nix"])).message, "column \"nix\" of \"conversation\" does not exist");
    assert_eq!(key(json!({"first": []})).message, "unknown key \"first\" in \"conversation\"");
    assert_eq!(
        flaw(json!({"message_id": {"first_of": ["id", "sender"]}})).message,
        "\"message_id\" of the mapping is not the name of a column"
    );
}

#[test]
fn a_column_used_twice_is_read_once() {
    let twice = mapping(json!({"kinds": [
        {"when": {"sender": "user", "conversation_id": "c1"}, "kind": "note"},
        {"when": {"sender": "bot", "extra->a": 1, "extra->b": 1}, "kind": "note"},
    ]}));
    assert_eq!(columns_of(&twice), ["tenant_id", "conversation_id", "id", "created_at", "sender", "extra"]);
}

#[test]
fn columns_of_the_audit_are_named_but_not_needed_to_meter_a_row() {
    let audited = mapping(json!({
        "customer": "thread", "model": "sender", "stage": "state", "safety_passed": "private",
        "kinds": [{"kind": "note"}],
    }));
    assert_eq!(audited.audit.columns(), [Some(6), Some(4), Some(10), Some(8)]);
    assert_eq!(audited.columns, catch_all().columns);
}

#[test]
fn a_row_is_read_with_its_keys_time_and_kinds() {
    let mapping = catch_all();
    let expected = Reading {
        tenant: Some("acme".into()),
        conversation: Some("c1".into()),
        message: Some(MessageId::Integer(7)),
        too_long: [None; 3],
        at: Some(NOW),
        sequence: None,
        ignored: false,
        kinds: &[Kind::CustomerMessage],
        tags: Vec::new(),
        event: None,
        positions: &[],
        excluded: None,
        refusal: None,
    };
    assert_eq!(mapping.apply(&row(&mapping, &[]), NOW), Some(expected));
}

#[test]
fn an_integer_key_is_its_digits_and_a_text_message_id_is_text() {
    let mapping = mapping(json!({"tenant": "type", "message_id": "sender", "kinds": [{"kind": "note"}]}));
    let row = row(&mapping, &[("type", Value::Integer(-42)), ("sender", text("m1"))]);
    let reading = mapping.apply(&row, NOW).expect("a reading");
    assert_eq!((reading.tenant.as_deref(), reading.message), (Some("-42"), Some(MessageId::Text("m1".into()))));
}

/// The instant that a number is, or why it is none.
fn instant_of(epoch: &str, number: Value) -> Result<i64, Refusal> {
    let column = match number {
        Value::Integer(_) => "ticks",
        Value::Float(_) => "clock",
        _ => "score",
    };
    let mapping = mapping(json!({"occurred_at": {"column": column, "epoch": epoch}, "kinds": [{"kind": "note"}]}));
    let row = row(&mapping, &[(column, number)]);
    let reading = mapping.read(&row, Instant::LATEST);
    reading.refusal.map_or_else(|| Ok(reading.at.expect("a time").0), Err)
}

#[test]
fn a_number_counts_from_1970_to_the_nearest_microsecond() {
    let second = 1_772_352_000;
    for (epoch, per_second) in [("seconds", 1), ("milliseconds", 1_000), ("microseconds", 1_000_000)] {
        for value in [
            Value::Integer(second * per_second),
            number(&(second * per_second).to_string()),
            Value::Float((second * per_second) as f64),
        ] {
            assert_eq!(instant_of(epoch, value.clone()), Ok(second * 1_000_000), "{value:?} {epoch}");
        }
    }
    assert_eq!(instant_of("seconds", number("1.0000005")), Ok(1_000_000));
    assert_eq!(instant_of("seconds", number("1.0000015")), Ok(1_000_002));
    assert_eq!(instant_of("seconds", Value::Float(1_772_352_000.25)), Ok(1_772_352_000_250_000));
    assert_eq!(instant_of("milliseconds", Value::Float(-0.5)), Ok(-500));
    assert_eq!(instant_of("seconds", Value::Null), Err(Refusal::NullKey));
}

#[test]
fn a_number_that_no_instant_holds_is_a_time_out_of_range() {
    for value in [
        Value::Integer(i64::MAX),
        Value::Integer(i64::MIN),
        Value::Float(f64::NAN),
        Value::Float(f64::INFINITY),
        Value::Float(f64::NEG_INFINITY),
        Value::Float(1e300),
        number("79228162514264337593543950335"),
        text("NaN"),
    ] {
        for epoch in ["seconds", "milliseconds"] {
            assert_eq!(instant_of(epoch, value.clone()), Err(Refusal::TimeOutOfRange), "{value:?}");
        }
    }
}

#[test]
fn a_constant_tenant_owns_every_row() {
    let mapping = mapping(json!({"tenant": {"constant": "solo"}, "kinds": [{"kind": "note"}]}));
    let row = row(&mapping, &[]);
    assert_eq!(mapping.apply(&row, NOW).and_then(|reading| reading.tenant).as_deref(), Some("solo"));
    assert_eq!(columns_of(&mapping), ["conversation_id", "id", "created_at"]);
}

// Excluded rows

#[test]
fn the_first_excluded_rule_that_matches_says_because() {
    let mapping = mapping(json!({
        "kinds": [{"kind": "note"}],
        "excluded": [
            {"when": {"sender": ["preview", "test"]}, "because": "test"},
            {"when": {"private": true}, "because": "staff"},
        ],
    }));
    let because = |sender, private| {
        let row = row(&mapping, &[("sender", text(sender)), ("private", Value::Boolean(private))]);
        mapping.apply(&row, NOW).and_then(|reading| reading.excluded.map(String::from))
    };
    assert_eq!(because("preview", true).as_deref(), Some("test"));
    assert_eq!(because("user", true).as_deref(), Some("staff"));
    assert_eq!(because("user", false), None);
}

#[test]
fn an_excluded_row_is_an_event_all_the_same() {
    let mapping = mapping(json!({
        "kinds": [{"kind": "ai_reply"}], "excluded": [{"when": {"private": true}, "because": "test"}],
    }));
    let row = row(&mapping, &[("private", Value::Boolean(true))]);
    let reading = mapping.apply(&row, NOW).expect("a reading");
    assert_eq!((reading.kinds, reading.refusal), ([Kind::AiReply].as_slice(), None));
}

// Refusals (rule 3.7)

#[test]
fn a_row_without_a_key_or_a_time_is_refused() {
    for key in ["tenant_id", "conversation_id", "id", "created_at"] {
        assert_eq!(refused(&[(key, Value::Null)]), Some(Refusal::NullKey), "{key}");
    }
}

#[test]
fn a_row_that_no_rule_matches_is_refused() {
    let mapping = mapping(json!({"kinds": [{"when": {"sender": "user"}, "kind": "note"}]}));
    assert_eq!(refusal(&mapping, &[("sender", text("bot"))]), Some(Refusal::NoKind));
}

#[test]
fn a_time_outside_the_years_1_to_9999_is_refused() {
    let at = |at| [("created_at", Value::Time(at))];
    assert_eq!(refused(&at(None)), Some(Refusal::TimeOutOfRange));
    assert_eq!(refused(&at(Some(Instant::EARLIEST.plus(-1)))), Some(Refusal::TimeOutOfRange));
    assert_eq!(refused(&at(Some(Instant::LATEST.plus(1)))), Some(Refusal::TimeOutOfRange));
    assert_eq!(refused(&at(Some(Instant::EARLIEST))), None);
}

#[test]
fn a_time_after_the_last_instant_that_is_not_future_is_refused() {
    assert_eq!(refused(&[("created_at", Value::Time(Some(NOW)))]), None);
    assert_eq!(refused(&[("created_at", Value::Time(Some(NOW.plus(1))))]), Some(Refusal::Future));
}

#[test]
fn a_refused_row_keeps_the_future_time_for_which_it_waits() {
    let mapping = catch_all();
    let row = row(&mapping, &[("created_at", Value::Time(Some(NOW.plus(1))))]);
    assert_eq!(mapping.apply(&row, NOW).and_then(|reading| reading.at), Some(NOW.plus(1)));
}

/// A mapping whose every key is text.
fn text_keys() -> Mapping {
    mapping(json!({"message_id": "sender", "kinds": [{"kind": "note"}]}))
}

#[test]
fn a_key_of_512_bytes_passes_and_one_of_513_is_refused() {
    for key in ["tenant_id", "conversation_id", "sender"] {
        let with_key_of = |bytes| {
            let id = "x".repeat(bytes);
            refusal(&text_keys(), &[(key, text(&id)), ("sender", text("m1"))])
        };
        assert_eq!(with_key_of(512), None, "{key}");
        assert_eq!(with_key_of(513), Some(Refusal::KeyTooLong), "{key}");
    }
}

#[test]
fn the_length_of_a_key_is_counted_in_bytes_not_in_characters() {
    let [passes, fails] = [256, 257].map(|characters| "é".repeat(characters));
    for key in ["tenant_id", "conversation_id", "sender"] {
        let with_key = |id| refusal(&text_keys(), &[(key, text(id)), ("sender", text("m1"))]);
        assert_eq!(with_key(&passes), None, "{key}");
        assert_eq!(with_key(&fails), Some(Refusal::KeyTooLong), "{key}");
    }
}

#[test]
fn of_several_refusals_the_one_that_says_most_is_given() {
    let mapping = mapping(json!({"kinds": [{"when": {"sender": "user"}, "kind": "note"}]}));
    let long = "x".repeat(LONGEST_KEY + 1);
    let future = Value::Time(Some(NOW.plus(1)));
    let mut cells = vec![
        ("id", Value::Null),
        ("sender", text("nobody")),
        ("created_at", Value::Time(None)),
        ("tenant_id", text(&long)),
    ];
    assert_eq!(refusal(&mapping, &cells), Some(Refusal::NullKey));
    cells[0].1 = Value::Integer(7);
    assert_eq!(refusal(&mapping, &cells), Some(Refusal::NoKind));
    cells[1].1 = text("user");
    assert_eq!(refusal(&mapping, &cells), Some(Refusal::TimeOutOfRange));
    cells[2].1 = future;
    assert_eq!(refusal(&mapping, &cells), Some(Refusal::Future));
    cells[2].1 = Value::Time(Some(NOW));
    assert_eq!(refusal(&mapping, &cells), Some(Refusal::KeyTooLong));
}

#[test]
fn refusals_have_the_names_that_quarantine_shows() {
    let all = [Refusal::NullKey, Refusal::NoKind, Refusal::TimeOutOfRange, Refusal::Future, Refusal::KeyTooLong];
    assert_eq!(all.map(Refusal::name), ["null_key", "no_kind", "time_out_of_range", "future", "key_too_long"]);
}

// Flaws: the form of the mapping

#[test]
fn a_mapping_is_an_object() {
    assert_invalid(check(json!([])).expect_err("a flaw"), "the mapping is not a json object", None);
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    assert_invalid(
        flaw(json!({"ocurred_at": "created_at"})),
        "unknown key \"ocurred_at\" in the mapping",
        Some(
            "Perhaps you meant \"occurred_at\". Known here: tenant, conversation, message_id, occurred_at, timezone, \
             order, customer, model, stage, safety_passed, kinds, excluded.",
        ),
    );
    assert_invalid(
        flaw_of_kinds(json!([{"whn": {"sender": "x"}, "kind": "note"}])),
        "unknown key \"whn\" in rule 1 of \"kinds\"",
        Some("Perhaps you meant \"when\". Known here: when, kind, tag."),
    );
    assert_invalid(
        flaw(json!({"excluded": [{"when": {"sender": "x"}, "reason": "test"}]})),
        "unknown key \"reason\" in rule 1 of \"excluded\"",
        Some("Known here: when, because."),
    );
    assert_invalid(
        flaw(json!({"tenant": {"const": "acme"}})),
        "unknown key \"const\" in \"tenant\"",
        Some("Perhaps you meant \"constant\". Known here: constant."),
    );
}

#[test]
fn kinds_is_a_list_of_at_least_one_rule() {
    let hint = "For example: \"kinds\": [{\"when\": {\"sender\": \"user\"}, \"kind\": \"customer_message\"}].";
    for kinds in [json!([]), json!({}), json!(null)] {
        assert_invalid(flaw_of_kinds(kinds), "\"kinds\" of the mapping is not a list of at least one rule", Some(hint));
    }
    let without = check(json!({})).expect_err("a flaw");
    assert_invalid(without, "\"kinds\" of the mapping is not a list of at least one rule", Some(hint));
}

#[test]
fn a_rule_is_an_object() {
    assert_invalid(flaw_of_kinds(json!(["note"])), "rule 1 of \"kinds\" is not a json object", None);
    assert_invalid(flaw(json!({"excluded": [7]})), "rule 1 of \"excluded\" is not a json object", None);
}

#[test]
fn a_rule_after_the_catch_all_can_never_match() {
    let kinds = json!([{"kind": "note"}, {"when": {"sender": "user"}, "kind": "customer_message"}]);
    let flaw = flaw_of_kinds(kinds);
    assert_eq!(flaw.detail.as_deref(), Some("The rule before it has no \"when\", so it matches every row."));
    assert_invalid(flaw, "rule 2 of \"kinds\" can never match", Some("Put the rule without \"when\" last."));
}

#[test]
fn an_unknown_kind_is_named_with_the_one_that_was_meant() {
    let known = "Known here: customer_message, ai_reply, staff_reply, note, system_message, error, close, resolve, \
                 escalate, new_topic, reopen, ignore.";
    assert_invalid(
        flaw_of_kinds(json!([{"kind": "ai_repyl"}])),
        "unknown kind \"ai_repyl\" in rule 1 of \"kinds\"",
        Some(&format!("Perhaps you meant \"ai_reply\". {known}")),
    );
    assert_invalid(
        flaw_of_kinds(json!([{"kind": ["note", "xyz"]}])),
        "unknown kind \"xyz\" in rule 1 of \"kinds\"",
        Some(known),
    );
}

#[test]
fn a_rule_has_a_kind_or_a_list_of_kinds() {
    let message = "rule 1 of \"kinds\" has no \"kind\": the name of a kind, or a list of names";
    for rule in [json!({}), json!({"kind": []}), json!({"kind": 3}), json!({"kind": null})] {
        assert_invalid(flaw_of_kinds(json!([rule])), message, None);
    }
    let mixed = flaw_of_kinds(json!([{"kind": ["note", 3]}]));
    assert_invalid(
        mixed,
        "\"kind\" of rule 1 of \"kinds\" holds something that is neither a string nor an object",
        None,
    );
}

#[test]
fn ignore_does_not_go_with_other_kinds() {
    for kinds in [json!(["ignore", "note"]), json!(["note", "ignore"])] {
        let message = "\"kind\" of rule 1 of \"kinds\" mixes \"ignore\" with other kinds";
        assert_invalid(flaw_of_kinds(json!([{"kind": kinds}])), message, None);
    }
}

#[test]
fn an_empty_when_is_refused() {
    let hint = Some("Leave \"when\" out of the last rule of \"kinds\" to match every row.");
    assert_invalid(flaw_of_when(json!({})), "\"when\" of rule 1 of \"kinds\" is empty", hint);
    let excluded = flaw(json!({"excluded": [{"when": {}, "because": "test"}]}));
    assert_invalid(excluded, "\"when\" of rule 1 of \"excluded\" is empty", hint);
}

#[test]
fn a_when_is_an_object() {
    assert_invalid(flaw_of_when(json!("sender")), "\"when\" of rule 1 of \"kinds\" is not a json object", None);
    assert_invalid(flaw_of_when(json!(null)), "\"when\" of rule 1 of \"kinds\" is not a json object", None);
}

#[test]
fn excluded_is_a_list_of_rules_with_when_and_because() {
    let message = "\"excluded\" of the mapping is not a list of rules";
    assert_invalid(flaw(json!({"excluded": {}})), message, None);
    let message = "rule 1 of \"excluded\" has no \"when\", so it would exclude every row";
    assert_invalid(flaw(json!({"excluded": [{"because": "test"}]})), message, None);
    for rule in [json!({"when": {"private": true}}), json!({"when": {"private": true}, "because": 1})] {
        let hint = "Say in a word why such a row is not billed: it is shown to those who ask.";
        assert_invalid(flaw(json!({"excluded": [rule]})), "rule 1 of \"excluded\" has no \"because\"", Some(hint));
    }
}

#[test]
fn an_empty_list_of_values_is_refused() {
    let flaw = flaw_of_when(json!({"sender": []}));
    assert_invalid(flaw, "\"sender\" of rule 1 of \"kinds\" is compared with an empty list", None);
}

#[test]
fn an_empty_step_of_a_path_is_refused() {
    for path in ["extra->", "extra->a->->b"] {
        let message = format!("the path \"{path}\" of rule 1 of \"kinds\" has an empty step");
        assert_invalid(flaw_of_when(json!({path: 1})), &message, None);
    }
}

// Flaws: columns

const COLUMNS: &str = "Known here: tenant_id, conversation_id, id, created_at, sender, code, thread, type, private, \
                       score, state, extra, local_time, place, odd->name, ticks, clock.";

#[test]
fn an_unknown_column_of_a_rule_is_named_with_the_one_that_was_meant() {
    let hint = format!("Perhaps you meant \"sender\". {COLUMNS}");
    let message = "column \"sendr\" of rule 1 of \"kinds\" does not exist";
    assert_flaw(flaw_of_when(json!({"sendr": "x"})), FlawKind::UnknownColumn, message, Some(&hint));
    assert_flaw(flaw_of_when(json!({"sendr->a": "x"})), FlawKind::UnknownColumn, message, Some(&hint));
    let message = "column \"nothing\" of rule 1 of \"excluded\" does not exist";
    let excluded = flaw(json!({"excluded": [{"when": {"nothing": 1}, "because": "test"}]}));
    assert_flaw(excluded, FlawKind::UnknownColumn, message, Some(COLUMNS));
}

#[test]
fn an_unknown_column_of_a_key_is_named_with_the_one_that_was_meant() {
    for key in ["tenant", "conversation", "message_id", "occurred_at", "customer", "model", "stage", "safety_passed"] {
        let message = format!("column \"sendr\" of \"{key}\" does not exist");
        let hint = format!("Perhaps you meant \"sender\". {COLUMNS}");
        assert_flaw(flaw(json!({key: "sendr"})), FlawKind::UnknownColumn, &message, Some(&hint));
    }
}

#[test]
fn a_key_is_the_name_of_a_column() {
    for key in ["tenant", "conversation", "message_id", "customer"] {
        let message = format!("\"{key}\" of the mapping is not the name of a column");
        assert_invalid(flaw(json!({key: 3})), &message, None);
    }
    let message = "\"occurred_at\" is not the name of a column, nor an object of \"column\" and \"epoch\"";
    let hint = "For example: \"occurred_at\": {\"column\": \"created\", \"epoch\": \"seconds\"}.";
    assert_invalid(flaw(json!({"occurred_at": 3})), message, Some(hint));
}

#[test]
fn a_table_without_created_at_is_told_where_else_its_time_may_be() {
    let flaw_of = |columns: Vec<Column>| {
        let flaw = Mapping::check(&json!({"kinds": [{"kind": "note"}]}), &columns).expect_err("a flaw");
        assert_eq!(flaw.message, "the mapping does not name \"occurred_at\", and there is no column \"created_at\"");
        flaw.hint.expect("a hint")
    };
    let mut columns: Vec<Column> = table().into_iter().filter(|column| column.name != "created_at").collect();
    let named = "Add \"occurred_at\": \"local_time\" to the mapping, if that is the time.";
    assert_eq!(flaw_of(columns.clone()), named);
    columns.retain(|column| column.class != Class::Timestamp);
    let none = flaw_of(columns);
    assert!(none.contains("\"epoch\"") && none.contains("ADD COLUMN created_at"), "{none}");
}

#[test]
fn a_key_left_out_needs_the_column_of_its_usual_name() {
    let keys = [("tenant", "tenant_id"), ("conversation", "conversation_id"), ("message_id", "id")];
    for (key, default) in keys {
        let columns: Vec<Column> = table().into_iter().filter(|column| column.name != default).collect();
        let flaw = Mapping::check(&json!({"kinds": [{"kind": "note"}]}), &columns).expect_err("a flaw");
        let message = format!("the mapping does not name \"{key}\", and there is no column \"{default}\"");
        let hint = format!("Add \"{key}\": \"<column>\" to the mapping.");
        assert_flaw(flaw, FlawKind::UnknownColumn, &message, Some(&hint));
    }
}

#[test]
fn a_constant_tenant_is_a_string_of_at_most_512_bytes() {
    for constant in [json!(7), json!(null), json!("x".repeat(513)), json!("é".repeat(257))] {
        let message = "\"constant\" of \"tenant\" is not a string of at most 512 bytes";
        assert_invalid(flaw(json!({"tenant": {"constant": constant}})), message, None);
    }
    assert!(check(json!({"tenant": {"constant": "é".repeat(256)}, "kinds": [{"kind": "note"}]})).is_ok());
}

#[test]
fn a_constant_tenant_is_said_by_its_constant() {
    let message = "\"constant\" of \"tenant\" is not a string of at most 512 bytes";
    assert_invalid(flaw(json!({"tenant": {}})), message, None);
}

// Flaws: types

#[test]
fn a_key_is_text_uuid_or_an_integer() {
    for column in ["code", "private", "score", "state", "extra", "created_at", "place"] {
        for key in ["tenant", "conversation", "message_id"] {
            let message = format!("column \"{column}\" cannot be \"{key}\"");
            let hint = "A key is text, varchar, uuid or an integer, or a domain over one of these.";
            assert_wrong_type(flaw(json!({key: column})), &message, hint);
        }
    }
}

#[test]
fn a_wrong_type_is_named_in_the_detail() {
    let detail = |flaw: Flaw| flaw.detail.expect("a detail");
    assert_eq!(detail(flaw(json!({"tenant": "place"}))), "It is of type point.");
    assert_eq!(detail(flaw(json!({"occurred_at": "place"}))), "Column \"place\" is of type point.");
    assert_eq!(detail(flaw_of_when(json!({"type": "2"}))), "Column \"type\" is of type smallint.");
}

#[test]
fn a_timestamp_without_zone_needs_a_timezone() {
    let hint = "Add \"timezone\": \"<zone in which the application writes it>\" to the mapping.";
    assert_wrong_type(flaw(json!({"occurred_at": "local_time"})), "\"occurred_at\" needs a \"timezone\"", hint);
}

#[test]
fn a_timezone_does_not_apply_to_a_timestamp_with_zone() {
    let hint = "Leave \"timezone\" out: a timestamp with time zone is an instant already.";
    assert_wrong_type(flaw(json!({"timezone": "UTC"})), "\"timezone\" does not apply", hint);
}

#[test]
fn a_timezone_is_a_string() {
    let flaw = flaw(json!({"occurred_at": "local_time", "timezone": 2}));
    assert_invalid(flaw, "\"timezone\" of the mapping is not a string", None);
}

#[test]
fn a_time_is_a_timestamp() {
    for change in [json!({"occurred_at": "sender"}), json!({"occurred_at": "sender", "timezone": "UTC"})] {
        let hint = "A text is no time. Add a column of type timestamptz that a BEFORE INSERT OR UPDATE trigger of \
                    yours sets from it, and name that.";
        assert_wrong_type(flaw(change), "column \"sender\" cannot be \"occurred_at\"", hint);
    }
    let hint = "A time is timestamptz, timestamp with a \"timezone\" in the mapping, or a number with an \"epoch\".";
    assert_wrong_type(flaw(json!({"occurred_at": "thread"})), "column \"thread\" cannot be \"occurred_at\"", hint);
}

#[test]
fn a_number_that_is_a_time_says_what_it_counts() {
    for column in ["ticks", "score", "clock"] {
        let hint = format!(
            "A number that counts from 1970 is written as \"occurred_at\": {{\"column\": \"{column}\", \"epoch\": \
             \"seconds\"}}; \
             milliseconds and microseconds are known too."
        );
        let message = format!("column \"{column}\" cannot be \"occurred_at\"");
        assert_wrong_type(flaw(json!({"occurred_at": column})), &message, &hint);
    }
    let number = |object: Json| flaw(json!({"occurred_at": object}));
    assert_invalid(
        number(json!({"column": "ticks", "epoch": "millis"})),
        "unknown \"epoch\" \"millis\" of \"occurred_at\"",
        Some("Perhaps you meant \"milliseconds\". Known here: seconds, milliseconds, microseconds."),
    );
    for object in [json!({}), json!({"column": "ticks"}), json!({"epoch": "seconds"}), json!({"column": 1, "epoch": 1})]
    {
        let message = "\"occurred_at\" is not the name of a column, nor an object of \"column\" and \"epoch\"";
        let hint = "For example: \"occurred_at\": {\"column\": \"created\", \"epoch\": \"seconds\"}.";
        assert_invalid(number(object), message, Some(hint));
    }
    let hint = "Only a number counts from 1970: name the column alone.";
    assert_wrong_type(number(json!({"column": "created_at", "epoch": "seconds"})), "\"epoch\" does not apply", hint);
    let zoned = flaw(json!({"occurred_at": {"column": "ticks", "epoch": "seconds"}, "timezone": "UTC"}));
    assert_eq!(zoned.message, "\"timezone\" does not apply");
}

#[test]
fn a_key_is_no_path() {
    let flaw = flaw(json!({"tenant": "extra->tenant"}));
    let hint = "It is a whole column, no path. Keep what the path leads to in a column of its own, for example a \
                generated one.";
    let message = "column \"extra->tenant\" of \"tenant\" does not exist";
    assert_flaw(flaw, FlawKind::UnknownColumn, message, Some(hint));
}

#[test]
fn columns_of_the_audit_have_the_types_that_it_shows() {
    let hint =
        "\"safety_passed\" is boolean; \"customer\", \"model\" and \"stage\" are text, uuid, an integer or an enum.";
    let wrong = [("safety_passed", "sender"), ("customer", "private"), ("model", "extra"), ("stage", "created_at")];
    for (key, column) in wrong {
        let message = format!("column \"{column}\" cannot be \"{key}\"");
        assert_wrong_type(flaw(json!({key: column})), &message, hint);
    }
}

#[test]
fn a_path_leads_only_into_what_may_hold_json() {
    let flaw = flaw_of_when(json!({"thread->a": "x"}));
    let message = "\"thread->a\" of rule 1 of \"kinds\" is a path into a column that holds no json";
    assert_eq!(flaw.detail.as_deref(), Some("Column \"thread\" is of type uuid."));
    assert_flaw(flaw, FlawKind::WrongType, message, Some("A path leads into json, jsonb, and text that holds json."));
}

#[test]
fn a_value_is_of_its_columns_type() {
    let as_string = "Write it as a json string.";
    let as_number = "Write it as a json number, without quotes.";
    let as_boolean = "Write true, false or null, without quotes.";
    let as_uuid = "Write it as a uuid in a json string.";
    let as_integer = "Write a whole number that the column's type can hold.";
    let as_scalar = "Compare with a string, a number, true, false, null, a list of these, or {\"not\": any of these}.";
    let labels = "Perhaps you meant \"solved\". Known here: open, solved.";
    let cases = [
        ("sender", json!(1), as_string),
        ("sender", json!(true), as_string),
        ("code", json!(1), as_string),
        ("thread", json!(1), as_string),
        ("thread", json!("a0eebc99"), as_uuid),
        ("thread", json!("g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), as_uuid),
        ("state", json!(1), as_string),
        ("state", json!("Solved"), labels),
        ("type", json!("2"), as_number),
        ("type", json!(true), as_number),
        ("type", json!(2.5), as_integer),
        ("type", json!(32_768), as_integer),
        ("type", json!(-32_769), as_integer),
        ("id", json!(u64::MAX), as_integer),
        ("score", json!("2.5"), as_number),
        ("score", json!(1e30), "Write a number of at most 28 digits."),
        ("extra", json!(1e30), "Write a number of at most 28 digits."),
        ("private", json!("true"), as_boolean),
        ("private", json!(1), as_boolean),
        ("sender", json!({}), as_scalar),
        ("extra", json!({}), as_scalar),
    ];
    for (column, wanted, hint) in cases {
        let message = format!("{wanted} of rule 1 of \"kinds\" cannot be compared with \"{column}\"");
        assert_wrong_type(flaw_of_when(json!({column: wanted})), &message, hint);
    }
}

#[test]
fn every_member_of_a_list_is_of_its_columns_type() {
    let message = "3 of rule 1 of \"kinds\" cannot be compared with \"sender\"";
    assert_wrong_type(flaw_of_when(json!({"sender": ["x", null, 3]})), message, "Write it as a json string.");
    let message = "[\"y\"] of rule 1 of \"kinds\" cannot be compared with \"sender\"";
    let hint = "Compare with a string, a number, true, false, null, a list of these, or {\"not\": any of these}.";
    assert_wrong_type(flaw_of_when(json!({"sender": ["x", ["y"]]})), message, hint);
}

#[test]
fn the_ends_of_an_integer_types_range_can_be_compared() {
    for end in [-32_768, 32_767] {
        assert!(matches(json!({"type": end}), &[("type", Value::Integer(end))]));
    }
}

#[test]
fn a_column_of_a_time_or_of_another_type_cannot_be_compared_with_a_value() {
    let hint = "A rule compares text, varchar, char, uuid, integers, numeric, boolean, enums and json scalars, and \
                domains over these. Of any other type it can ask for null, or {\"not\": null}.";
    for (column, wanted) in
        [("created_at", json!("today")), ("local_time", json!(1)), ("place", json!("(0,0)")), ("clock", json!(1.5))]
    {
        let message = format!("{wanted} of rule 1 of \"kinds\" cannot be compared with \"{column}\"");
        assert_wrong_type(flaw_of_when(json!({column: wanted})), &message, hint);
    }
}

// Whatever a user writes

/// Json made of the words of a mapping, so that much of it gets far.
fn any_json() -> impl Strategy<Value = Json> {
    const WORDS: [&str; 16] = [
        "tenant",
        "conversation",
        "occurred_at",
        "timezone",
        "kinds",
        "excluded",
        "when",
        "kind",
        "because",
        "constant",
        "sender",
        "extra->a",
        "thread",
        "private",
        "note",
        "ignore",
    ];
    let word = || select(WORDS.to_vec()).prop_map(String::from);
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        word().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    scalar.prop_recursive(4, 40, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            hash_map(word(), inner, 0..4).prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_mapping_stops_the_check_and_none_that_passes_stops_a_row(
        key in select(vec!["tenant", "occurred_at", "kinds", "excluded", "customer"]), value in any_json()
    ) {
        if let Ok(mapping) = check(changed(json!({key: value}))) {
            mapping.apply(&row(&mapping, &[]), NOW);
        }
    }
}

#[test]
fn a_key_that_is_too_long_is_cut_at_a_character_and_its_length_is_told() {
    let mapping = text_keys();
    let (long, longer) = ("é".repeat(300) + "x", format!("x{}", "é".repeat(400)));
    let row = row(&mapping, &[("tenant_id", text(&long)), ("conversation_id", text(&longer)), ("sender", text("m1"))]);
    let reading = mapping.apply(&row, NOW).expect("the row is not ignored");
    assert_eq!(reading.refusal, Some(Refusal::KeyTooLong));
    assert_eq!(reading.tenant.as_deref(), Some(&long[..512]));
    assert_eq!(reading.conversation.as_deref(), Some(&longer[..511]));
    let said = r#""tenant" has 601 bytes. "conversation" has 801 bytes."#;
    assert_eq!(reading.in_detail().as_deref(), Some(said));
}

#[test]
fn a_long_text_equals_none_that_a_rule_names_and_is_read_as_far_as_the_longest_of_them() {
    let name = "x".repeat(LONGEST_KEY + 10);
    let mapping = mapping(json!({"kinds": [{"when": {"sender": [name, "user"]}, "kind": "note"}]}));
    let asked: Vec<usize> = mapping.asked.iter().map(|asked| asked.longest).collect();
    assert_eq!(asked.iter().max(), Some(&(LONGEST_KEY + 10)));
    let long = Value::Long { start: "x".repeat(LONGEST_KEY).into(), bytes: LONGEST_KEY + 11 };
    assert_eq!(refusal(&mapping, &[("sender", long)]), Some(Refusal::NoKind));
    assert_eq!(refusal(&mapping, &[("sender", text(&name))]), None);
}

#[test]
fn json_of_any_depth_and_length_is_read_where_a_rule_looks() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"deep": {deep}, "by": "other", "a": {{"by": "user"}}, "by": "user"}}"#);
    let asked = |path: &str| {
        let mapping = mapping(json!({"kinds": [{"when": {path: "user"}, "kind": "note"}]}));
        let slot = mapping.asked.iter().position(|asked| !asked.paths.is_empty()).expect("a path is asked for");
        json::at_paths(&text, &mapping.asked[slot])
    };
    assert_eq!(asked("extra->a->by"), [Value::Text("user".into())]);
    assert_eq!(asked("extra->by"), [Value::Text("user".into())], "the last of two");
    assert_eq!(asked("extra->deep"), [Value::Present]);
    assert_eq!(asked("extra->a->by->more"), [Value::Null]);
    assert_eq!(asked("extra"), [Value::Present]);
}
