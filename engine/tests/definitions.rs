//! Which definitions of policies, plans and packs are read, and what is said of the others (rules 3.3, 4.1)?

use proptest::prelude::*;
use proptest::sample::subsequence;
use rust_decimal::Decimal;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use talkmeter_engine::definition::DefinitionRow;
use talkmeter_engine::flaw::{Flaw, FlawKind};
use talkmeter_engine::instant::{DAY, SECOND};
use talkmeter_engine::offer::{Lifetime, PackDefinition, PlanDefinition, stored_rates};
use talkmeter_engine::policy::Policy;
use talkmeter_engine::presets;

const POLICY_KEYS: &str = "name, label, effective_from, retroactive, note, starts_on, ends_on, idle_timeout, \
    quiet_review_after, max_duration, turn_limit, charge_on, outcomes, final_after, once_per, staff_reply_blocks, \
    error_before_reply_waives, exclude_prefixes";
const PLAN_KEYS: &str = "name, included, overage_rate, rates, price, currency";
const PACK_KEYS: &str = "name, size, price, currency, valid_for";
const AMOUNT_HINT: &str =
    "Write a number from 0 to below 1000000000 with at most 12 digits after the point, such as 0.04.";

/// Of days, or of hours, minutes and seconds.
fn micros(text: &str, key: &str) -> i64 {
    let number = |digits: &str| digits.parse::<i64>().unwrap_or_else(|_| panic!("\"{key}\" is {text}"));
    match text.strip_suffix(" days") {
        Some(days) => number(days) * DAY,
        None => text.split(':').fold(0, |sum, field| 60 * sum + number(field)) * SECOND,
    }
}

/// No interval is measured while anything else is wrong.
fn unasked(_: &str, key: &str) -> i64 {
    panic!("\"{key}\" was measured")
}

fn policy(definition: Json) -> (Policy, DefinitionRow) {
    Policy::read(&definition, &mut micros).expect("a policy without flaw")
}

/// The smallest definition of a policy, with some keys said anew; a key of null is left out.
fn policy_with(changes: Json) -> Json {
    with(json!({"name": "x", "starts_on": ["customer_message"], "ends_on": [], "charge_on": "close"}), changes)
}

fn plan_with(changes: Json) -> Json {
    with(json!({"name": "p", "included": 1, "overage_rate": 0.1, "currency": "USD"}), changes)
}

fn pack_with(changes: Json) -> Json {
    with(json!({"name": "k", "size": 1, "price": 1, "currency": "USD", "valid_for": "90 days"}), changes)
}

fn with(mut definition: Json, changes: Json) -> Json {
    let object = definition.as_object_mut().expect("an object");
    for (key, value) in changes.as_object().expect("an object") {
        match value.is_null() {
            true => object.remove(key),
            false => object.insert(key.clone(), value.clone()),
        };
    }
    definition
}

/// What is said of a definition that is not read.
fn said(flaw: Flaw) -> (String, String) {
    assert_eq!((flaw.kind, &flaw.detail), (FlawKind::Invalid, &None));
    (flaw.message, flaw.hint.unwrap_or_default())
}

fn of_policy(definition: Json) -> (String, String) {
    said(Policy::read(&definition, &mut unasked).expect_err("a flaw"))
}

fn of_plan(definition: Json) -> (String, String) {
    said(PlanDefinition::read(&definition).expect_err("a flaw"))
}

fn of_pack(definition: Json) -> (String, String) {
    said(PackDefinition::read(&definition, &mut unasked).expect_err("a flaw"))
}

fn words(message: &str, hint: &str) -> (String, String) {
    (message.into(), hint.into())
}

// Policies

#[test]
fn the_published_policies_are_read_from_their_definitions() {
    let lutingenie = json!({
        "name": "lutingenie", "label": "1", "starts_on": ["customer_message"], "idle_timeout": "00:30:00",
        "ends_on": ["close", "resolve", "new_topic"], "charge_on": "first_ai_reply"
    });
    let agent_red = json!({
        "name": "agent_red", "label": "1.0.0", "starts_on": ["customer_message"], "idle_timeout": "00:30:00",
        "ends_on": ["close", "escalate"], "turn_limit": 50, "charge_on": "first_ai_reply",
        "error_before_reply_waives": true, "exclude_prefixes": ["test_", "admin_", "health_", "system_"]
    });
    let ai_resolution = json!({
        "name": "ai_resolution", "starts_on": ["customer_message", "staff_reply", "reopen"],
        "ends_on": ["close", "resolve"], "quiet_review_after": "03:00:00", "charge_on": "close",
        "staff_reply_blocks": true
    });
    for (definition, preset) in [lutingenie, agent_red, ai_resolution].into_iter().zip(presets::all()) {
        assert_eq!(policy(definition).0, Policy { version: 0, ..(*preset).clone() });
    }
}

#[test]
fn the_row_of_a_policy_holds_every_key_and_the_default_of_what_was_left_out() {
    let (_, row) = policy(policy_with(json!({"turn_limit": 3, "label": "first", "idle_timeout": "72:00:00"})));
    let expected = json!({
        "name": "x", "label": "first", "effective_from": null, "retroactive": false, "note": null,
        "starts_on": ["customer_message"], "ends_on": [],
        "idle_timeout": "72:00:00", "quiet_review_after": null, "max_duration": null, "turn_limit": 3, "charge_on": "close",
        "outcomes": null, "final_after": null, "once_per": null, "staff_reply_blocks": false, "error_before_reply_waives": false, "exclude_prefixes": []
    });
    assert_eq!(Json::Object(row.clone()), expected);
    assert_eq!(row.keys().cloned().collect::<Vec<_>>().join(", "), POLICY_KEYS);
}

#[test]
fn null_is_as_left_out_where_a_key_has_no_default() {
    let mut definition = policy_with(json!({}));
    for key in ["label", "effective_from", "note", "idle_timeout", "quiet_review_after", "turn_limit"] {
        definition[key] = Json::Null;
    }
    assert_eq!(policy(definition), policy(policy_with(json!({}))));
}

#[test]
fn an_interval_is_measured_with_its_key() {
    let definition = policy_with(json!({"idle_timeout": "an hour", "quiet_review_after": "a day"}));
    let mut asked = Vec::new();
    let mut measure = |text: &str, key: &str| {
        asked.push(format!("{key}: {text}"));
        asked.len() as i64
    };
    let (policy, _) = Policy::read(&definition, &mut measure).expect("a policy");
    assert_eq!((policy.idle_timeout, policy.quiet_review_after), (Some(1), Some(2)));
    assert_eq!(asked, ["idle_timeout: an hour", "quiet_review_after: a day"]);
}

#[test]
fn a_policy_that_is_no_object_is_refused() {
    assert_eq!(of_policy(json!([])), words("the definition of a policy is not a json object", ""));
}

#[test]
fn an_unknown_key_of_a_policy_is_refused_with_the_one_that_was_meant() {
    assert_eq!(
        of_policy(json!({"name": "x", "stars_on": ["customer_message"]})),
        words(
            "unknown key \"stars_on\" in the definition of a policy",
            &format!("Perhaps you meant \"starts_on\". Known here: {POLICY_KEYS}.")
        )
    );
}

#[test]
fn a_policy_without_a_key_that_it_needs_is_refused() {
    for key in ["name", "starts_on", "ends_on", "charge_on"] {
        assert_eq!(
            of_policy(policy_with(json!({key: null}))),
            words(
                &format!("the definition of a policy cannot be read: missing field `{key}`"),
                &format!("Its keys are: {POLICY_KEYS}.")
            )
        );
    }
}

#[test]
fn a_key_of_a_policy_that_is_ill_typed_is_refused() {
    let cases = [
        (json!({"name": true}), "invalid type: boolean `true`, expected a string"),
        (json!({"starts_on": "reopen"}), "invalid type: string \"reopen\", expected a sequence"),
        (json!({"ends_on": [[]]}), "invalid type: sequence, expected a string"),
        (json!({"idle_timeout": false}), "invalid type: boolean `false`, expected a string"),
        (json!({"turn_limit": "50"}), "invalid type: string \"50\", expected i32"),
        (json!({"staff_reply_blocks": "yes"}), "invalid type: string \"yes\", expected a boolean"),
        (json!({"final_after": 7}), "invalid type: number, expected a string"),
        (json!({"once_per": ["conversation"]}), "invalid type: sequence, expected a string"),
    ];
    for (change, error) in cases {
        let key = change.as_object().and_then(|change| change.keys().next()).expect("a key").clone();
        let (message, hint) = of_policy(policy_with(change));
        assert_eq!(message, format!("the definition of a policy cannot be read: \"{key}\": {error}"));
        assert_eq!(hint, format!("Its keys are: {POLICY_KEYS}."));
    }
}

#[test]
fn null_is_no_value_of_a_key_that_has_a_default() {
    let mut definition = policy_with(json!({}));
    definition["staff_reply_blocks"] = Json::Null;
    let (message, _) = of_policy(definition);
    assert_eq!(
        message,
        "the definition of a policy cannot be read: \"staff_reply_blocks\": invalid type: null, expected a boolean"
    );
}

#[test]
fn a_name_that_would_pin_a_version_is_no_name_and_neither_is_none() {
    for name in ["x@1", ""] {
        assert_eq!(
            of_policy(policy_with(json!({"name": name}))),
            words(
                &format!("\"{name}\" is no name for a policy"),
                "A name is not empty, has at most 512 bytes, and holds no @, which sets a version apart from a name."
            )
        );
    }
}

#[test]
fn an_unknown_kind_is_refused_with_the_one_that_was_meant() {
    for key in ["starts_on", "ends_on"] {
        assert_eq!(
            of_policy(policy_with(json!({key: ["close", "customer"]}))),
            words(
                &format!("unknown kind \"customer\" in \"{key}\""),
                "Perhaps you meant \"customer_message\". Known here: customer_message, ai_reply, staff_reply, note, \
                 system_message, error, close, resolve, escalate, new_topic, reopen, message."
            )
        );
    }
}

#[test]
fn a_list_of_events_to_charge_at_has_a_column_of_its_own() {
    let (read, row) = policy(policy_with(json!({"charge_on": ["ai_reply:answer", "message"]})));
    assert_eq!(
        (&row["charge_on"], &row["charge_events"]),
        (&json!("first_of"), &json!(["ai_reply:answer", "message"]))
    );
    let stored = with(Json::Object(row), json!({"version": 1}));
    assert_eq!(Policy::stored(&stored, &mut micros).expect("a policy"), Policy { version: 1, ..read });
    for (wrong, message) in [
        (json!([]), "\"charge_on\" is not a list of events"),
        (json!(["close", 1]), "\"charge_on\" is not a list of events"),
        (json!(["clothes"]), "unknown kind \"clothes\" in \"charge_on\""),
        (json!("first_of"), "unknown \"charge_on\": \"first_of\""),
    ] {
        assert_eq!(of_policy(policy_with(json!({"charge_on": wrong}))).0, message);
    }
}

#[test]
fn outcomes_that_make_no_sense_are_refused_and_the_reason_said() {
    let many: Vec<String> = (0..64).map(|tag| format!("note:{tag}")).collect();
    let last = json!({"outcome": "resolution"});
    for (outcomes, message) in [
        (json!("resolution"), "\"outcomes\" is not a list of 1 to 100 rules"),
        (json!([]), "\"outcomes\" is not a list of 1 to 100 rules"),
        (json!([1]), "rule 1 of \"outcomes\" is not an object"),
        (json!([{"if": "note"}]), "unknown key \"if\" in rule 1 of \"outcomes\""),
        (json!([last, last]), "rule 1 of \"outcomes\" has no condition, so no rule after it is ever tried"),
        (json!([{"when": "note"}]), "rule 1 of \"outcomes\" is the last one, and has a condition"),
        (json!([{"when": "note", "unless": "close"}, last]), "rule 1 of \"outcomes\" has both \"when\" and \"unless\""),
        (json!([{"when": []}, last]), "\"when\" of rule 1 of \"outcomes\" is an empty list"),
        (json!([{"unless": [1]}, last]), "\"unless\" of rule 1 of \"outcomes\" holds something that is not a string"),
        (json!([{"when": "nota"}, last]), "unknown kind \"nota\" in \"when\" of rule 1 of \"outcomes\""),
        (json!([{"when": many}, last]), "\"outcomes\" name more than 63 different events"),
        (json!([{"units": 2}]), "\"units\" of rule 1 of \"outcomes\" is 2"),
        (json!([{"units": 0}]), "rule 1 of \"outcomes\" has no \"outcome\", and units 0"),
        (
            json!([{"units": 0, "outcome": "@tag"}]),
            "\"outcome\" of rule 1 of \"outcomes\" is @tag, and its units are 0",
        ),
        (json!([{"outcome": ""}]), "\"outcome\" of rule 1 of \"outcomes\" is not of 1 to 128 bytes"),
        (json!([{"outcome": 1}]), "\"outcome\" of rule 1 of \"outcomes\" is not a string"),
        (json!([{"outcome": "excluded"}]), "\"outcome\" of rule 1 of \"outcomes\" is \"excluded\", and it counts"),
    ] {
        assert_eq!(of_policy(policy_with(json!({"outcomes": outcomes}))).0, message);
    }
    let sound = json!([{"when": many[1..], "outcome": "excluded", "units": 0}, {"unless": "unanswered"}, {"units": 1}]);
    policy(policy_with(json!({"outcomes": sound})));
}

#[test]
fn an_unknown_moment_to_charge_is_refused() {
    assert_eq!(
        of_policy(policy_with(json!({"charge_on": "closed"}))),
        words(
            "unknown \"charge_on\": \"closed\"",
            "Perhaps you meant \"close\". Known here: start, first_ai_reply, close. Or a list of events."
        )
    );
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_and_the_reason_said() {
    let cases = [
        (json!({"starts_on": []}), "\"starts_on\" is empty, so no part would ever open"),
        (json!({"turn_limit": 0}), "\"turn_limit\" is not positive"),
        (
            json!({"exclude_prefixes": [""]}),
            "\"exclude_prefixes\" holds an empty prefix, which every conversation starts with",
        ),
    ];
    for (change, flaw) in cases {
        let expected = words(&format!("policy \"x\" makes no sense: {flaw}"), "");
        assert_eq!(of_policy(policy_with(change)), expected);
    }
}

#[test]
fn an_interval_that_is_not_positive_makes_no_sense() {
    for key in ["idle_timeout", "quiet_review_after", "max_duration"] {
        let flaw = Policy::read(&policy_with(json!({key: "00:00:00"})), &mut micros).expect_err("a flaw");
        assert_eq!(said(flaw), words(&format!("policy \"x\" makes no sense: \"{key}\" is not positive"), ""));
    }
}

/// What can be wrong with the definition of a policy, in the order in which it is said; each spoils a key of its own.
fn wrongs() -> Vec<(Json, &'static str)> {
    vec![
        (json!({"prize": 1}), "unknown key \"prize\""),
        (json!({"label": 7}), "the definition of a policy cannot be read: \"label\": invalid type"),
        (json!({"turn_limit": "7"}), "the definition of a policy cannot be read: \"turn_limit\": invalid type"),
        (json!({"name": "x@1"}), "\"x@1\" is no name"),
        (json!({"starts_on": ["customer"]}), "unknown kind \"customer\" in \"starts_on\""),
        (json!({"ends_on": ["clothes"]}), "unknown kind \"clothes\" in \"ends_on\""),
        (json!({"charge_on": "closed"}), "unknown \"charge_on\""),
        (json!({"exclude_prefixes": [""]}), "policy \"x\" makes no sense"),
    ]
}

proptest! {
    #[test]
    fn of_several_things_wrong_with_a_policy_the_first_is_said(
        wrongs in subsequence(wrongs(), 1..=wrongs().len()), timed in any::<bool>()
    ) {
        let spoilt = wrongs.iter().fold(policy_with(json!({})), |policy, (change, _)| with(policy, change.clone()));
        let makes_sense_at_most = wrongs[0].1.ends_with("makes no sense");
        let timeout = if timed && !makes_sense_at_most { json!({"idle_timeout": "a while"}) } else { json!({}) };
        let (message, _) = of_policy(with(spoilt, timeout));
        prop_assert!(message.starts_with(wrongs[0].1), "{message} for {wrongs:?}");
    }
}

// Policies as they are stored

#[test]
fn a_stored_policy_is_read_from_its_row_with_its_version() {
    let row = json!({
        "name": "agent_red", "version": 1, "label": "1.0.0", "effective_from": "-infinity", "shipped": true,
        "starts_on": ["customer_message"], "ends_on": ["close", "escalate"], "idle_timeout": "00:30:00",
        "quiet_review_after": null, "turn_limit": 50, "charge_on": "first_ai_reply", "staff_reply_blocks": false,
        "error_before_reply_waives": true, "exclude_prefixes": ["test_", "admin_", "health_", "system_"]
    });
    assert_eq!(Policy::stored(&row, &mut micros).expect("a policy"), *presets::agent_red());
}

#[test]
fn what_is_null_in_a_stored_policy_was_left_out() {
    let (defined, mut row) = policy(policy_with(json!({})));
    row.insert("version".into(), json!(2));
    row.insert("exclude_prefixes".into(), Json::Null);
    let stored = Policy::stored(&Json::Object(row), &mut micros).expect("a policy");
    assert_eq!(stored, Policy { version: 2, ..defined });
}

#[test]
fn a_stored_policy_that_cannot_be_read_is_refused() {
    let of_row = |row: Json| said(Policy::stored(&row, &mut unasked).expect_err("a flaw")).0;
    let unversioned = of_row(policy_with(json!({})));
    assert_eq!(unversioned, "the stored definition of a policy cannot be read: missing field `version`");
    let unknown = of_row(policy_with(json!({"version": 1, "ends_on": ["clothes"]})));
    assert_eq!(unknown, "unknown kind \"clothes\" in \"ends_on\"");
}

proptest! {
    #[test]
    fn a_policy_is_stored_as_it_was_defined(
        idle in 1..9_999i64, turn_limit in proptest::option::of(1..99), flags in any::<(bool, bool)>(), version in 1..9
    ) {
        let idle = format!("{:02}:{:02}:00", idle / 60, idle % 60);
        let mut definition = policy_with(json!({
            "idle_timeout": idle, "staff_reply_blocks": flags.0, "error_before_reply_waives": flags.1
        }));
        definition["turn_limit"] = json!(turn_limit);
        let (defined, mut row) = policy(definition);
        row.insert("version".into(), json!(version));
        let stored = Policy::stored(&Json::Object(row), &mut micros).expect("a policy");
        prop_assert_eq!(stored, Policy { version, ..defined });
    }
}

// Plans

#[test]
fn a_plan_is_read_and_its_row_holds_exact_amounts() {
    let definition = r#"{"name": "p", "included": 1, "overage_rate": 0.10, "price": 1e1, "currency": "KWD"}"#;
    let definition: Json = serde_json::from_str(definition).expect("json");
    let (plan, row) = PlanDefinition::read(&definition).expect("a plan");
    let expected = PlanDefinition {
        name: "p".into(),
        included: 1,
        overage_rate: Decimal::new(10, 2),
        rates: BTreeMap::new(),
        price: Some(Decimal::TEN),
        currency: "KWD".into(),
    };
    assert_eq!(plan, expected);
    let row_expected = json!({
        "name": "p", "included": 1, "overage_rate": "0.10", "rates": null, "price": "10", "currency": "KWD"
    });
    assert_eq!(Json::Object(row), row_expected);
}

#[test]
fn a_plan_has_rates_by_outcome_and_its_row_holds_them_as_exact_numbers() {
    let definition = r#"{"name": "p", "included": 0, "overage_rate": 0.99, "currency": "USD",
        "rates": {"qualification": 9.990, "utility:BR": "0.0034"}}"#;
    let (plan, row) = PlanDefinition::read(&serde_json::from_str(definition).expect("json")).expect("a plan");
    let exact = |text: &str| text.parse::<Decimal>().expect("a decimal");
    let expected = [("qualification".to_owned(), exact("9.990")), ("utility:BR".to_owned(), exact("0.0034"))];
    assert_eq!(plan.rates, BTreeMap::from(expected));
    assert_eq!(row["rates"].to_string(), r#"{"qualification":9.990,"utility:BR":0.0034}"#);
    assert_eq!(stored_rates(&row["rates"]), plan.rates);
    // None is the same as none named.
    for none in [json!(null), json!({})] {
        let (plan, row) = PlanDefinition::read(&plan_with(json!({"rates": none}))).expect("a plan");
        assert_eq!((plan.rates, &row["rates"]), (BTreeMap::new(), &Json::Null));
    }
}

#[test]
fn rates_of_no_outcome_or_of_no_money_are_refused() {
    let of_rates = |rates: Json| of_plan(plan_with(json!({"rates": rates})));
    for (name, bytes) in [(String::new(), 0), ("x".repeat(257), 257)] {
        let said = format!("an outcome in \"rates\" has a name of {bytes} bytes");
        assert_eq!(of_rates(json!({name: 1})), words(&said, "The name of an outcome has 1 to 256 bytes."));
    }
    assert!(PlanDefinition::read(&plan_with(json!({"rates": {"x".repeat(256): 1}}))).is_ok());
    for wrong in [json!(-0.1), json!("much"), json!(null), json!(1_000_000_000), json!("0.0000000000001"), json!({})] {
        let said = format!("the rate of \"sale\" in \"rates\" is no amount of money: {wrong}");
        assert_eq!(of_rates(json!({"sale": wrong})), words(&said, AMOUNT_HINT));
    }
    for wrong in [json!([]), json!(1), json!("sale")] {
        assert!(of_rates(wrong).0.starts_with("the definition of a plan cannot be read: \"rates\": invalid type"));
    }
}

#[test]
fn a_plan_may_have_no_price_known_to_the_meter() {
    let (plan, row) = PlanDefinition::read(&plan_with(json!({}))).expect("a plan");
    assert_eq!((plan.price, &row["price"]), (None, &Json::Null));
}

#[test]
fn a_plan_that_is_of_another_form_is_refused() {
    assert_eq!(of_plan(json!("p")), words("the definition of a plan is not a json object", ""));
    let hint = format!("Perhaps you meant \"price\". Known here: {PLAN_KEYS}.");
    let unknown = words("unknown key \"prize\" in the definition of a plan", &hint);
    assert_eq!(of_plan(plan_with(json!({"prize": 1}))), unknown);
    for key in ["name", "included", "overage_rate", "currency"] {
        let (message, hint) = of_plan(plan_with(json!({key: null})));
        assert_eq!(message, format!("the definition of a plan cannot be read: missing field `{key}`"));
        assert_eq!(hint, format!("Its keys are: {PLAN_KEYS}."));
    }
}

#[test]
fn a_plan_that_includes_less_than_nothing_is_refused() {
    let expected = words("plan \"p\" includes a negative number of units", "");
    assert_eq!(of_plan(plan_with(json!({"included": -1}))), expected);
    assert!(PlanDefinition::read(&plan_with(json!({"included": 0}))).is_ok());
}

#[test]
fn what_is_no_amount_of_money_is_refused() {
    for key in ["overage_rate", "price"] {
        for wrong in [json!(-0.1), json!("much"), json!(true), json!(1_000_000_000), json!("0.0000000000001")] {
            let expected = words(&format!("\"{key}\" is no amount of money: {wrong}"), AMOUNT_HINT);
            assert_eq!(of_plan(plan_with(json!({key: wrong}))), expected);
        }
    }
}

#[test]
fn an_amount_of_money_is_a_number_or_a_string_that_holds_one() {
    for (written, exact) in [(json!(0), "0"), (json!("999999999.999999999999"), "999999999.999999999999")] {
        let (plan, _) = PlanDefinition::read(&plan_with(json!({"overage_rate": written}))).expect("a plan");
        assert_eq!(plan.overage_rate, exact.parse().expect("a decimal"));
    }
}

#[test]
fn a_currency_is_three_capital_letters() {
    for wrong in ["dollars", "usd", "US", "ÜS"] {
        let expected = words(&format!("\"{wrong}\" is no currency"), "Write its ISO 4217 code, such as USD.");
        assert_eq!(of_plan(plan_with(json!({"currency": wrong}))), expected);
    }
}

#[test]
fn a_plan_needs_a_name_and_that_is_said_last() {
    assert_eq!(of_plan(plan_with(json!({"name": ""}))), words("a plan needs a name", ""));
    let (message, _) = of_plan(plan_with(json!({"name": "", "currency": "dollars"})));
    assert_eq!(message, "\"dollars\" is no currency");
}

// Packs

#[test]
fn a_pack_is_read_and_its_row_holds_its_lifetime_as_written() {
    let definition = pack_with(json!({"size": 10, "price": "1.50", "valid_for": "36:00:00"}));
    let (pack, row) = PackDefinition::read(&definition, &mut micros).expect("a pack");
    let expected = PackDefinition {
        name: "k".into(),
        size: 10,
        price: Decimal::new(150, 2),
        currency: "USD".into(),
        valid_for: Lifetime::Micros(DAY + 12 * 3600 * SECOND),
    };
    assert_eq!(pack, expected);
    let row_expected = json!({
        "name": "k", "size": 10, "price": "1.50", "currency": "USD", "valid_for": "36:00:00", "expiry": null
    });
    assert_eq!(Json::Object(row), row_expected);
}

#[test]
fn the_lifetime_of_a_pack_may_be_a_word_and_its_row_holds_it_apart() {
    for (word, lifetime) in [("period", Lifetime::Period), ("never", Lifetime::Never)] {
        let mut measured = |_: &str, _: &str| panic!("a word has no length");
        let read = PackDefinition::read(&pack_with(json!({"valid_for": word})), &mut measured);
        let (pack, row) = read.expect("a pack");
        assert_eq!(pack.valid_for, lifetime);
        assert_eq!((&row["valid_for"], &row["expiry"]), (&Json::Null, &json!(word)));
    }
    // Not a key of a definition.
    assert_eq!(of_pack(pack_with(json!({"expiry": "never"}))).0, "unknown key \"expiry\" in the definition of a pack");
}

#[test]
fn a_pack_that_is_of_another_form_is_refused() {
    assert_eq!(of_pack(json!(null)), words("the definition of a pack is not a json object", ""));
    let hint = format!("Perhaps you meant \"size\". Known here: {PACK_KEYS}.");
    let unknown = words("unknown key \"sizes\" in the definition of a pack", &hint);
    assert_eq!(of_pack(pack_with(json!({"sizes": 1}))), unknown);
    for key in ["name", "size", "price", "currency", "valid_for"] {
        let (message, hint) = of_pack(pack_with(json!({key: null})));
        assert_eq!(message, format!("the definition of a pack cannot be read: missing field `{key}`"));
        assert_eq!(hint, format!("Its keys are: {PACK_KEYS}."));
    }
}

#[test]
fn a_pack_of_no_units_is_refused() {
    assert_eq!(of_pack(pack_with(json!({"size": 0}))), words("pack \"k\" holds no units", ""));
}

#[test]
fn a_pack_costs_an_amount_of_money_in_a_currency() {
    let (message, _) = of_pack(pack_with(json!({"price": "much"})));
    assert_eq!(message, "\"price\" is no amount of money: \"much\"");
    assert_eq!(of_pack(pack_with(json!({"currency": "$"}))).0, "\"$\" is no currency");
}

#[test]
fn a_pack_has_a_lifetime() {
    let flaw = PackDefinition::read(&pack_with(json!({"valid_for": "00:00:00"})), &mut micros).expect_err("a flaw");
    assert_eq!(said(flaw), words("pack \"k\" has no lifetime", ""));
}

#[test]
fn a_pack_needs_a_name_and_that_is_said_last() {
    let unnamed = |changes| said(PackDefinition::read(&pack_with(changes), &mut micros).expect_err("a flaw")).0;
    assert_eq!(unnamed(json!({"name": ""})), "a pack needs a name");
    assert_eq!(unnamed(json!({"name": "", "valid_for": "00:00:00"})), "pack \"\" has no lifetime");
}
