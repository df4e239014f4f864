//! Does any call of any function, with whatever arguments, end otherwise than with an answer or an error that says why?
//!
//! Calls are drawn at random, by the superuser and each role. A failure shows the call and the seed; at length there
//! are 100,000 calls instead of 600.

use postgres::error::SqlState;
use talkmeter_tests::{Database, Random, Session, at_length, messages_mapping, quoted, tell};

/// Values of a type, as SQL; those that mean something among those that are at the edge of what the type holds.
fn values(of: &str) -> Vec<String> {
    let list = |values: &[&str]| values.iter().map(|value| format!("{}::{of}", quoted(value))).collect::<Vec<_>>();
    let mut found = match of {
        "text" | "name" => list(&[
            "acme",
            "acme",
            "bolt",
            "c",
            "c",
            "agent_red",
            "agent_red/starter",
            "agent_red/1000",
            "USD",
            "close",
            "reopen",
            "note",
            "messages",
            "Europe/Berlin",
            "2026-03-01",
            "",
            " ",
            "'",
            "\"",
            "\\",
            "%s",
            "ü\u{10ffff}",
            "\u{1}",
        ]),
        "jsonb" => {
            let mapping = messages_mapping();
            let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
            list(&[
                "{}",
                "[]",
                "null",
                "1e300",
                "\"x\"",
                &deep,
                &format!("{{\"kinds\": {deep}}}"),
                &mapping,
                r#"{"name": "p", "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "first_ai_reply"}"#,
                r#"{"name": "q", "starts_on": ["customer_message"], "idle_timeout": "2147483647 days", "charge_on": "end"}"#,
                r#"{"name": "one", "included": 9223372036854775807, "overage_rate": 1e30, "currency": "USD"}"#,
                r#"{"name": "pair", "size": 9223372036854775807, "price": 1, "currency": "USD", "valid_for": "1 month"}"#,
                r#"{"name": "rated", "included": 1, "overage_rate": 1, "currency": "USD", "rates": {"x": 2, "y": "1e-3"}}"#,
                r#"{"name": "month", "size": 3, "price": 0, "currency": "USD", "valid_for": "period"}"#,
                r#"{"name": "lasting", "size": 3, "price": 0, "currency": "USD", "valid_for": "never"}"#,
                r#"{"name": 1, "included": -1, "overage_rate": "NaN", "currency": null}"#,
                r#"{"kinds": [{"kind": "note"}]}"#,
            ])
        }
        "timestamp with time zone" => list(&[
            "2026-03-01",
            "2026-03-01",
            "2026-04-01",
            "now",
            "infinity",
            "-infinity",
            "0001-01-01",
            "9999-12-31 23:59:59",
            "294276-12-31 23:59:59.999999",
            "4714-11-24 00:00+00 BC",
        ]),
        "date" => list(&["2026-03-01", "now", "infinity", "-infinity", "0001-01-01", "5874897-12-31", "4714-11-24 BC"]),
        "interval" => list(&[
            "0",
            "1 day",
            "-1 day",
            "1 month",
            "2147483647 days",
            "-2147483648 days",
            "178000000 years",
            "2562047788:00:54.775807",
        ]),
        "bigint" => list(&["1", "2", "0", "-1", "9223372036854775807", "-9223372036854775808"]),
        "integer" => list(&["1", "15", "31", "0", "-1", "2147483647", "-2147483648"]),
        "smallint" => list(&["1", "0", "32767", "-32768"]),
        "numeric" => {
            list(&["1", "0.01", "-1", "NaN", "Infinity", "1e130000", "1e-16383", "79228162514264337593543950336"])
        }
        "boolean" => list(&["true", "false"]),
        "regclass" => list(&["messages", "talkmeter.source", "pg_class", "talkmeter.usage", "0", "4294967295"]),
        "regrole" | "oid" => list(&["0", "10", "23", "4294967295"]),
        "bytea" => {
            list(&["\\x", "\\x80", "\\x0000000000000000", "\\x80000000000000000000000000000000000000000000000000"])
        }
        "uuid" => list(&["00000000-0000-0000-0000-000000000000"]),
        "anyelement" => ["1", "'acme'", "'{1}'::int[]", "ROW(1, 'x')", "true", "NULL"].map(str::to_owned).to_vec(),
        "text[]" | "name[]" => list(&["{}", "{acme}", "{NULL}"]),
        other => panic!("values of the type {other} are wanted"),
    };
    if of == "text" {
        found.extend(["repeat('x', 513)", "repeat(E'\\x01', 300000)"].map(str::to_owned));
    }
    if of != "anyelement" {
        found.push(format!("NULL::{of}"));
    }
    found
}

/// A function and the values that each of its arguments may have.
struct Function {
    name: String,
    values: Vec<Vec<String>>,
}

fn functions(session: &mut Session) -> Vec<Function> {
    let found = session.lines(
        "SELECT p.proname, array_to_string(ARRAY(
             SELECT format_type(a.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n) ORDER BY a.n), ';')
         FROM pg_proc AS p
         WHERE p.pronamespace = 'talkmeter'::regnamespace AND p.prokind = 'f' ORDER BY 1",
    );
    let function = |line: String| {
        let (name, types) = line.split_once('|').expect("a name and types");
        let types = types.split(';').filter(|of| !of.is_empty());
        Function { name: name.to_owned(), values: types.map(values).collect() }
    };
    found.into_iter().map(function).collect()
}

fn call(random: &mut Random, functions: &[Function]) -> String {
    let function = &functions[random.below(functions.len())];
    let drawn: Vec<&str> = function.values.iter().map(|of| of[random.below(of.len())].as_str()).collect();
    format!("SELECT * FROM talkmeter.{}({})", function.name, drawn.join(", "))
}

#[test]
fn no_call_of_any_function_ends_the_session_or_in_an_internal_error() {
    let database = Database::with_messages("calls", "agent_red", Some("agent_red/starter"));
    let mut session = database.connect();
    for tenant in ["acme", "bolt"] {
        tell(&mut session, tenant, "c", "10:00 exchange, 10:05 note, 12:00 exchange, 12:06 close");
    }
    let functions: Vec<Function> =
        functions(&mut session).into_iter().filter(|function| function.name != "create_roles").collect();
    let prefix = format!("c_{}", database.name());
    let roles = session.lines(&format!("SELECT * FROM talkmeter.create_roles('{prefix}')"));
    session.run(&format!("SET statement_timeout = '5s'; SELECT talkmeter.grant_tenant('{prefix}_tenant', 'acme')"));
    let (mut random, seed) = Random::seeded();
    let calls = if at_length() { 100_000 } else { 600 };
    let (mut answered, mut bad) = (0, Vec::new());
    for number in 0..calls {
        if number % 20 == 0 {
            let role = random.below(roles.len() + 4);
            session.run(&roles.get(role).map_or("RESET ROLE".to_owned(), |role| format!("SET ROLE {role}")));
        }
        let sql = call(&mut random, &functions);
        match session.client.batch_execute(&sql) {
            Ok(()) => answered += 1,
            Err(error) => {
                let lost = session.client.is_closed();
                if lost || error.code().is_none_or(|code| code.code().starts_with("XX")) {
                    bad.push(format!("{error:?}\n  {}", sql.chars().take(500).collect::<String>()));
                }
                assert!(!lost, "TALKMETER_SEED={seed}: the connection was lost by {}", bad.concat());
                assert_ne!(error.code(), Some(&SqlState::OUT_OF_MEMORY), "{sql}");
            }
        }
    }
    session.run("RESET ROLE");
    let all = roles.join(", ");
    session.run(&format!("DROP OWNED BY {all}; DROP ROLE {all}"));
    bad.sort();
    bad.dedup();
    println!("{calls} calls from TALKMETER_SEED={seed} on, {answered} answered");
    assert!(bad.is_empty(), "TALKMETER_SEED={seed}: internal errors:\n{}", bad.join("\n"));
    assert!(answered * 10 > calls, "of {calls} calls only {answered} were answered");
}
