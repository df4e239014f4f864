//! Can a tenant check its bill by itself: line, charge, conversation, definition, price (rule 5.13, 5.18 to 5.20)?

use postgres::error::SqlState;
use talkmeter_tests::pages::pieces;
use talkmeter_tests::{Database, Session, assert_same_rows, attach, create_messages, messages_mapping, tell};

/// When January begins for `berlin`.
const JANUARY: &str = "2025-12-31 23:00+00";

/// `berlin` with units of every kind: January is frozen; of a conversation of January a part comes late, and one of its
/// charges is credited, so that the current month lists both. A role reads it, and another tenant is there.
fn shop() -> (Database, Session, String) {
    let database = Database::fresh("own_bill");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "EUR"}');
           SELECT talkmeter.define_pack('{"name": "one", "size": 1, "price": 7, "currency": "EUR", "valid_for": "90 days"}');
           SELECT talkmeter.subscribe('berlin', 'two', '2026-01-01 00:00+01', anchor_day => 1, timezone => 'Europe/Berlin');
           SELECT talkmeter.subscribe('other', 'two', '2026-01-01', anchor_day => 1);
           SELECT talkmeter.buy_pack('berlin', 'one', purchased_at => '2026-01-02 00:00+00')"#,
    );
    for month in ["01", "02"] {
        for number in 0..5 {
            tell(
                &mut session,
                "berlin",
                &format!("{month} {number}"),
                &format!("2026-{month}-1{number} 23:30 exchange"),
            );
        }
        tell(&mut session, "other", &format!("{month} secret"), &format!("2026-{month}-10 23:30 exchange"));
    }
    session.run(&format!("SELECT talkmeter.finalize('berlin', '{JANUARY}')"));
    tell(&mut session, "berlin", "=late", "2026-01-20 10:00 exchange");
    session.run("SELECT talkmeter.credit('berlin', 4, 'goodwill')");
    let reader = database.role("reader");
    session.run(&format!("SELECT talkmeter.grant_tenant('{reader}', 'berlin')"));
    (database, session, reader)
}

/// A day of each month that has units: a frozen one, one that is over, the current one.
const MONTHS: [&str; 3] = ["date '2026-01-15'", "date '2026-02-01'", CURRENT];
const CURRENT: &str = "(now() AT TIME ZONE 'Europe/Berlin')::date";

#[test]
fn the_units_of_each_line_of_a_statement_come_to_the_line() {
    let (_database, mut session, _reader) = shop();
    for month in MONTHS {
        let lines = session.lines(&format!(
            "SELECT line, kind, quantity, amount FROM talkmeter.statement('berlin', {month})
             WHERE kind NOT IN ('base', 'pack') ORDER BY line"
        ));
        let units = session.lines(&format!(
            "SELECT line, min(kind), sum(units), round(sum(amount), 2) FROM talkmeter.statement_units('berlin', {month})
             WHERE line IS NOT NULL GROUP BY line ORDER BY line"
        ));
        assert!(lines.len() == 2, "{lines:?}");
        assert_same_rows(&units, &lines);
    }
    let kinds =
        format!("SELECT DISTINCT kind, line IS NULL FROM talkmeter.statement_units('berlin', {CURRENT}) ORDER BY 1");
    assert_eq!(session.lines(&kinds), ["credit|f", "late|f"]);
    let paid_by_pack =
        "SELECT kind, line, conversation, part, charge_id, message_count, amount, started_at, ended_at > started_at
        FROM talkmeter.statement_units('berlin', date '2026-01-01') WHERE line IS NULL";
    assert_eq!(session.lines(paid_by_pack), ["pack||01 2|1|3|2|0|2026-01-12 23:30:00+00|t"]);
}

#[test]
fn the_file_of_a_bill_holds_its_period_definition_prices_lines_total_and_units() {
    let (_database, mut session, _reader) = shop();
    let of = |columns: &str, section: &str| {
        format!("SELECT {columns} FROM talkmeter.bill_file('berlin', date '2026-01-01') WHERE section = '{section}'")
    };
    let digest = session.line(&format!("SELECT DISTINCT digest FROM talkmeter.evidence('berlin', '{JANUARY}')"));
    assert_eq!(
        session
            .lines(&of("item, detail", "bill"))
            .into_iter()
            .filter(|line| !line.starts_with("finalized|"))
            .collect::<Vec<_>>(),
        [
            "tenant|berlin",
            "time zone|Europe/Berlin",
            "from|2026-01-01 00:00:00",
            "before|2026-02-01 00:00:00",
            "status|finalized",
            "number in the chain|1",
            &format!("digest|{digest}"),
        ]
    );
    let definition = session.lines(&of("item, detail", "definition"));
    assert!(definition.contains(&"lutingenie@1 idle_timeout|00:30:00".to_owned()), "{definition:?}");
    assert_eq!(
        session.lines(&of("item, detail, unit_price, currency", "price")),
        ["one|pack of 1 units, lasts 90 days|7|EUR", "two|plan of 2 units, one more costs 0.125|10|EUR"]
    );
    assert_eq!(
        session.lines(&of("line, item, quantity, amount", "statement")),
        session.lines(
            "SELECT line, kind, quantity, amount FROM talkmeter.statement('berlin', date '2026-01-01') ORDER BY line"
        )
    );
    assert_eq!(session.lines(&of("item, amount, currency", "total")), ["total|17.25|EUR"]);
    assert_eq!(
        session.lines(&of("line, local_time, item, detail, quantity, amount", "unit")),
        [
            "2|2026-01-11 00:30:00|01 0|part 1, charge 1, included, 2 messages|1|0",
            "2|2026-01-12 00:30:00|01 1|part 1, charge 2, included, 2 messages|1|0",
            "4|2026-01-14 00:30:00|01 3|part 1, charge 4, overage, 2 messages|1|0.125",
            "4|2026-01-15 00:30:00|01 4|part 1, charge 5, overage, 2 messages|1|0.125",
            "|2026-01-13 00:30:00|01 2|part 1, charge 3, pack, 2 messages|1|0",
        ]
    );
    let file = "SELECT section, line, item, detail FROM talkmeter.bill_file('berlin', '2026-01')";
    let usual = session.lines(file);
    session.run("SET IntervalStyle = 'iso_8601'; SET DateStyle = 'German'");
    assert_eq!(session.lines(file), usual, "the file does not depend on how a session shows intervals and dates");
    session.run("RESET IntervalStyle; RESET DateStyle");
    let late = format!("SELECT item FROM talkmeter.bill_file('berlin', {CURRENT}) WHERE item LIKE '%=late'");
    assert_eq!(session.line(&late), "'=late", "safe to open in a spreadsheet");
}

#[test]
fn a_tenants_role_reads_the_statement_its_units_and_its_file_by_the_month() {
    let (database, mut session, reader) = shop();
    let mut reader = database.connect_as(&reader);
    for function in ["statement", "statement_units", "bill_file"] {
        for month in MONTHS.iter().chain(&["timestamptz '2025-12-31 23:00+00'"]) {
            let all = session.lines(&format!("SELECT 'berlin', a.* FROM talkmeter.{function}('berlin', {month}) AS a"));
            let own = reader.lines(&format!("SELECT * FROM talkmeter.my_{function}({month})"));
            assert!(!own.is_empty(), "{function}");
            assert_eq!(own, all, "{function}");
        }
        let none =
            reader.client.query(&format!("SELECT talkmeter.my_{function}(date '2024-05-01')"), &[]).expect_err("none");
        let error = none.as_db_error().expect("an error of the server's");
        assert_eq!(*error.code(), SqlState::UNDEFINED_OBJECT);
        assert_eq!(error.message(), "no billing month of yours starts in 2024-05");
        assert!(error.hint().expect("a hint").contains("my_usage_monthly"));
        assert_eq!(
            reader.refused(&format!("SELECT talkmeter.my_{function}(timestamptz '2026-01-01 00:00+00')")),
            SqlState::UNDEFINED_OBJECT
        );
    }
}

#[test]
fn a_month_is_named_as_bills_names_it_or_by_a_day_or_by_its_instant_or_is_the_current_one() {
    let (database, mut session, reader) = shop();
    let mut reader = database.connect_as(&reader);
    for function in ["statement", "statement_units", "bill_file"] {
        let january = session.lines(&format!("SELECT a.* FROM talkmeter.{function}('berlin', date '2026-01-01') AS a"));
        for name in ["2026-01", "2026-01-01", "2026-01-31", " 2026-01 ", JANUARY] {
            let named = session.lines(&format!("SELECT a.* FROM talkmeter.{function}('berlin', '{name}') AS a"));
            assert_eq!(named, january, "{function} of {name}");
            let own = format!("SELECT a FROM (SELECT o.* FROM talkmeter.my_{function}('{name}') AS o) AS a");
            assert_eq!(reader.lines(&own).len(), january.len(), "my_{function} of {name}");
        }
        let current = format!("SELECT a.* FROM talkmeter.{function}('berlin', {CURRENT}) AS a");
        assert_eq!(
            session.lines(&format!("SELECT a.* FROM talkmeter.{function}('berlin') AS a")),
            session.lines(&current)
        );
        assert!(!reader.lines(&format!("SELECT * FROM talkmeter.my_{function}()")).is_empty(), "{function}");
        for (tenant, name, code) in [
            ("berlin", "2024-01", SqlState::UNDEFINED_OBJECT),
            ("berlin", "2026-01-01 00:00+00", SqlState::INVALID_PARAMETER_VALUE),
            ("berlin", "march", SqlState::INVALID_DATETIME_FORMAT),
            ("berlin", "2026-13", SqlState::INVALID_DATETIME_FORMAT),
            ("berlin", "0000-01", SqlState::INVALID_DATETIME_FORMAT),
            ("berlin", "2026-02-30", SqlState::INVALID_DATETIME_FORMAT),
            ("berlin", "", SqlState::INVALID_DATETIME_FORMAT),
            ("berlin", "infinity", SqlState::DATETIME_FIELD_OVERFLOW),
            ("nobody", "2026-01", SqlState::UNDEFINED_OBJECT),
        ] {
            let asked = format!("SELECT * FROM talkmeter.{function}('{tenant}', '{name}')");
            assert_eq!(session.refused(&asked), code, "{asked}");
        }
        assert_eq!(
            session.refused(&format!("SELECT * FROM talkmeter.{function}('nobody')")),
            SqlState::UNDEFINED_OBJECT
        );
        let none = format!("SELECT * FROM talkmeter.my_{function}('2024-01')");
        assert_eq!(reader.refused(&none), SqlState::UNDEFINED_OBJECT);
        let of_nobody = format!("SELECT * FROM talkmeter.{function}(NULL, '2026-01')");
        assert_eq!(session.lines(&of_nobody), [""; 0], "{function}");
    }
}

#[test]
fn who_names_no_period_is_told_how_periods_are_named() {
    let (database, mut session, reader) = shop();
    let mut reader = database.connect_as(&reader);
    let told = |session: &mut Session, call: &str| {
        let refused = session.client.query(&format!("SELECT * FROM talkmeter.{call}"), &[]).expect_err(call);
        let refused = refused.as_db_error().expect("an error of the server's").clone();
        (refused.message().to_owned(), refused.hint().unwrap_or_default().to_owned())
    };
    for name in ["March 2026", "2026-13", "2026-1", "2026-01\n", "0000-01", "2026-02-30"] {
        for function in ["statement", "statement_units", "bill_file"] {
            for (message, hint) in [
                told(&mut session, &format!("{function}('berlin', '{name}')")),
                told(&mut reader, &format!("my_{function}('{name}')")),
            ] {
                assert_eq!(message, format!("\"{name}\" names no period"), "{function}");
                assert!(hint.starts_with("Write a month as '2026-03'"), "{function}: {hint}");
            }
        }
    }
    for (month, named) in [("date 'infinity'", "infinity"), ("NULL::date", "null"), ("NULL::timestamptz", "null")] {
        let (message, _) = told(&mut reader, &format!("my_statement({month})"));
        assert!(message.ends_with(named), "{message}");
    }
}

#[test]
fn a_tenants_role_reads_the_definition_and_the_prices_by_which_it_is_billed() {
    let (database, mut session, reader) = shop();
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "other", "starts_on": ["customer_message"], "ends_on": ["close"],
               "charge_on": "close", "staff_reply_blocks": false, "error_before_reply_waives": false, "exclude_prefixes": []}');
           SELECT talkmeter.define_plan('{"name": "later", "included": 9, "overage_rate": 1, "price": 5, "currency": "EUR"}');
           SELECT talkmeter.subscribe('other', 'later', '2026-01-01', anchor_day => 1, policy => 'other')"#,
    );
    let mut reader = database.connect_as(&reader);
    let policy =
        "SELECT tenant, name, policy_version, in_force, units, charge_on, idle_timeout FROM talkmeter.my_policy";
    assert_eq!(reader.lines(policy), ["berlin|lutingenie|1|t|10|first_ai_reply|00:30:00"]);
    let prices = "SELECT tenant, kind, name, units, overage_rate, price, currency, valid_for FROM talkmeter.my_prices ORDER BY kind";
    assert_eq!(reader.lines(prices), ["berlin|pack|one|1||7|EUR|90 days", "berlin|plan|two|2|0.125|10|EUR|"]);
    let of_other = "SELECT name, in_force, units FROM talkmeter.applied_policies WHERE tenant = 'other' ORDER BY name";
    assert_eq!(session.lines(of_other), ["lutingenie|f|2", "other|t|0"]);
}

#[test]
fn a_tenants_role_files_a_dispute_of_its_own_and_of_nobody_else() {
    let (database, mut session, role) = shop();
    let mut reader = database.connect_as(&role);
    assert_eq!(reader.line("SELECT talkmeter.my_dispute(5, 'this was spam')"), "1");
    let filed = "SELECT dispute_id, charge_id, reason, state FROM talkmeter.my_disputes";
    assert_eq!(reader.lines(filed), ["1|5|this was spam|open"]);
    let by = session.line("SELECT filed_by FROM talkmeter.disputes");
    assert_eq!(by, role);
    let journal = "SELECT by, call, tenant FROM talkmeter.journal WHERE call = 'dispute'";
    assert_eq!(session.lines(journal), [format!("{role}|dispute|berlin")]);
    for (call, code) in [
        ("5, 'again'", SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
        ("99, 'unknown'", SqlState::UNDEFINED_OBJECT),
        ("1, 'not mine', 'other'", SqlState::INSUFFICIENT_PRIVILEGE),
        ("1, NULL", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("1, repeat('x', 10001)", SqlState::STRING_DATA_RIGHT_TRUNCATION),
    ] {
        assert_eq!(reader.refused(&format!("SELECT talkmeter.my_dispute({call})")), code, "{call}");
    }
    session.run(&format!("SELECT talkmeter.grant_tenant('{role}', 'other')"));
    assert_eq!(reader.refused("SELECT talkmeter.my_dispute(1, 'of whom?')"), SqlState::AMBIGUOUS_PARAMETER);
    assert_eq!(reader.line("SELECT talkmeter.my_dispute(1, 'of other', tenant => 'other')"), "1");
    session.run(&format!(
        "SELECT talkmeter.revoke_tenant('{role}', 'other'), talkmeter.revoke_tenant('{role}', 'berlin')"
    ));
    assert_eq!(reader.refused("SELECT talkmeter.my_dispute(2, 'no more')"), SqlState::INSUFFICIENT_PRIVILEGE);
}

/// The blocks of SQL of a page, in order.
fn blocks(page: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let page = std::fs::read_to_string(path).expect("a page");
    let blocks = pieces(&page).into_iter().filter(|piece| piece.language.as_deref() == Some("sql"));
    blocks.map(|piece| piece.text).collect()
}

#[test]
fn a_tenants_role_takes_every_step_of_its_page_alone() {
    let database = Database::empty("merchant_page");
    let mut vendor = database.connect();
    let blocks = blocks("merchant.md");
    let bookkeeper = database.role("bookkeeper");
    let named = blocks[0].replace("CREATE ROLE acme_books;", "").replace("acme_books", &bookkeeper);
    assert_ne!(named, blocks[0]);
    vendor.run(&named);
    let mut reader = database.connect_as(&bookkeeper);
    assert!(blocks.len() > 7, "{}", blocks.len());
    for block in &blocks[1..] {
        match block.strip_prefix("COPY") {
            Some(_) => drop(reader.client.copy_out(block).expect("its own file")),
            None => reader.run(block),
        }
    }
    assert_eq!(vendor.lines("SELECT filed_by FROM talkmeter.disputes"), [bookkeeper]);
}
