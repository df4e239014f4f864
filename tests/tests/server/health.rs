//! Does `talkmeter.health()` name everything that is not as it should be, and nothing else?

use talkmeter_tests::{Database, PLAN, Session, assert_same_rows, attach, messages_mapping, metered, quoted, tell};

/// What is named besides units of the day of which the tests tell: it is long ago.
fn problems(session: &mut Session) -> Vec<String> {
    session
        .lines("SELECT problem, object FROM talkmeter.health() WHERE problem <> 'posted_late' ORDER BY problem, object")
}

#[test]
fn all_is_well_where_messages_are_metered_and_swept() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn metering_that_is_off_is_named_and_its_gap_is_kept_when_it_is_on_again() {
    let (_database, mut session) = metered("agent_red");
    session.run("SET talkmeter.enabled = off");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(problems(&mut session), ["gap|public.messages", "metering_off|talkmeter.enabled"]);
    session.run("SET talkmeter.enabled = on");
    assert_eq!(problems(&mut session), ["gap|public.messages"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.parts"), "0");
    assert_eq!(
        session.line(
            "SELECT count(*) FROM messages AS m JOIN talkmeter.quarantine AS q ON q.message_id = m.id::text
            WHERE q.reason = 'disabled'"
        ),
        session.line("SELECT count(*) FROM messages"),
    );
}

#[test]
fn metering_that_is_switched_off_in_a_transaction_under_way_stops_at_once() {
    let (_database, mut session) = metered("agent_red");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SET LOCAL talkmeter.enabled = off; COMMIT");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.parts"), "0");
    assert_eq!(session.lines("SELECT DISTINCT reason FROM talkmeter.quarantine"), ["disabled"]);
}

#[test]
fn a_strict_source_takes_rows_while_metering_is_off() {
    let database = Database::fresh("health");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz)",
    );
    session
        .run("SELECT talkmeter.attach('messages', 'agent_red', '{\"kinds\": [{\"kind\": \"note\"}]}', strict => true)");
    session.run("SET talkmeter.enabled = off; INSERT INTO messages VALUES (1, 'acme', 'c', now())");
    assert_eq!(session.lines("SELECT message_id, reason FROM talkmeter.quarantine"), ["1|disabled"]);
}

/// With a status table besides the messages.
fn metered_with_tickets() -> (Database, Session) {
    let (database, mut session) = metered("agent_red");
    session.run(
        r#"CREATE TABLE tickets (id text PRIMARY KEY, tenant_id text, status text);
           SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}')"#,
    );
    (database, session)
}

const TRIGGERS: [(&str, &str); 6] = [
    ("messages", "talkmeter_insert"),
    ("messages", "talkmeter_update"),
    ("messages", "talkmeter_delete"),
    ("messages", "talkmeter_truncate"),
    ("tickets", "talkmeter_status_insert"),
    ("tickets", "talkmeter_status_update"),
];

#[test]
fn each_trigger_that_is_disabled_is_named_and_the_hint_ends_the_problem() {
    let (_database, mut session) = metered_with_tickets();
    for (table, trigger) in TRIGGERS {
        for disable in ["DISABLE", "ENABLE REPLICA"] {
            session.run(&format!("ALTER TABLE {table} {disable} TRIGGER {trigger}"));
            assert_eq!(problems(&mut session), [format!("trigger_disabled|public.{table}")], "{disable} {trigger}");
            let hint = session.line("SELECT hint FROM talkmeter.health() WHERE problem <> 'posted_late'");
            session.run(&hint);
            assert_eq!(problems(&mut session), [""; 0], "{disable} {trigger}");
        }
        session.run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"));
        assert_eq!(problems(&mut session), [""; 0], "{trigger}");
    }
}

#[test]
fn each_trigger_that_is_missing_is_named() {
    let (_database, mut session) = metered_with_tickets();
    for (table, trigger) in TRIGGERS {
        session.run(&format!("BEGIN; DROP TRIGGER {trigger} ON {table}"));
        assert_eq!(problems(&mut session), [format!("trigger_missing|public.{table}")], "{trigger}");
        let function = trigger.replace("talkmeter", "on");
        let detail = session.line("SELECT detail FROM talkmeter.health() WHERE problem <> 'posted_late'");
        assert!(detail.ends_with(&format!("Without trigger: {function}.")), "{detail}");
        session.run("ROLLBACK");
    }
}

fn hint(session: &mut Session) -> String {
    session.line("SELECT hint FROM talkmeter.health() WHERE problem = 'trigger_missing'")
}

#[test]
fn the_hint_of_missing_triggers_makes_them_as_attach_did() {
    let (_database, mut session) = metered_with_tickets();
    let other = "\"Row by\nrow\"";
    session.run(&format!("CREATE TABLE {other} (LIKE messages INCLUDING ALL)"));
    session.run(&format!(
        "SELECT talkmeter.attach('{other}', 'agent_red', {}, row_mode => true)",
        quoted(&messages_mapping())
    ));
    let triggers = "SELECT pg_get_triggerdef(t.oid), t.tgenabled FROM talkmeter.sources AS s
        JOIN pg_trigger AS t ON t.tgrelid = s.source ORDER BY 1";
    let attached = session.lines(triggers);
    let by_row = TRIGGERS[..4].iter().map(|(_, trigger)| (other, *trigger));
    for (table, trigger) in TRIGGERS.into_iter().chain(by_row) {
        session.run(&format!("DROP TRIGGER {trigger} ON {table}"));
        let hint = hint(&mut session);
        session.run(&hint);
        assert_eq!(session.lines(triggers), attached, "{hint}");
    }
    session.run("DROP TRIGGER talkmeter_insert ON messages; DROP TRIGGER talkmeter_truncate ON messages");
    let hint = hint(&mut session);
    assert_eq!(
        hint,
        "CREATE TRIGGER talkmeter_insert AFTER INSERT ON public.messages REFERENCING NEW TABLE AS talkmeter_new \
             FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert(); \
         CREATE TRIGGER talkmeter_truncate AFTER TRUNCATE ON public.messages \
             FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate(); \
         -- By a superuser. Rows that came meanwhile are found by talkmeter.gaps(source), as not_seen, \
         and metered by CALL talkmeter.backfill(source, from_time, to_time)."
    );
    session.run(&hint);
    assert_eq!(session.lines(triggers), attached);
    assert_eq!(problems(&mut session), [""; 0]);
}

/// All that metering has come to, and how the table is metered.
fn books(session: &mut Session) -> Vec<String> {
    [
        "SELECT tenant, conversation, part, status, billable, message_count, charged_at, ended_at FROM talkmeter.parts ORDER BY 1, 2, 3",
        "SELECT tenant, charge_id, conversation, part, tier, amount, reverses FROM talkmeter.charges ORDER BY 1, 2",
        "SELECT * FROM talkmeter.quarantine",
        "SELECT problem FROM talkmeter.verify()",
        "SELECT source_id, relation, starts_at, policy, mapping FROM talkmeter.source",
        "SELECT * FROM talkmeter.source_gaps",
        "SELECT * FROM talkmeter.mappings",
    ]
    .into_iter()
    .flat_map(|query| session.lines(query))
    .collect()
}

#[test]
fn what_came_while_triggers_were_missing_is_found_by_gaps_and_metered_once_by_a_backfill() {
    let (_live, mut expected) = metered("lutingenie");
    let (_database, mut session) = metered("lutingenie");
    [&mut expected, &mut session].into_iter().for_each(|session| tell(session, "acme", "a", "10:00 exchange"));
    let attached = "SELECT * FROM talkmeter.source";
    let (source, before) = (session.line(attached), books(&mut session));
    for (table, trigger) in &TRIGGERS[..4] {
        session.run(&format!("DROP TRIGGER {trigger} ON {table}"));
    }
    for session in [&mut expected, &mut session] {
        tell(session, "acme", "a", "10:10 exchange, 12:00 exchange");
        tell(session, "bolt", "b", "09:00 visit");
    }
    let hint = hint(&mut session);
    session.run(&hint);
    assert_eq!(problems(&mut session), ["sweep_stale|talkmeter.part"]);
    assert_eq!((session.line(attached), books(&mut session)), (source, before), "nothing but the triggers came back");

    let gaps = "SELECT DISTINCT because FROM talkmeter.gaps('messages')";
    assert_eq!(session.lines(gaps), ["not_seen"]);
    let calls = "SELECT format('CALL talkmeter.backfill(''messages'', %L, %L)', from_time, to_time) FROM talkmeter.gaps('messages')";
    let calls = session.lines(calls);
    calls.iter().chain(&calls).for_each(|call| session.run(call));
    assert_eq!(session.lines(gaps), [""; 0]);
    assert_same_rows(&books(&mut session), &books(&mut expected));
    for session in [&mut expected, &mut session] {
        tell(session, "acme", "a", "12:10 customer_message, 10:05 ai_reply");
        session.run("UPDATE messages SET kind = 'note' WHERE tenant_id = 'bolt'; SELECT talkmeter.sweep()");
    }
    assert_same_rows(&books(&mut session), &books(&mut expected));
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_table_without_an_index_on_its_conversations_is_named_and_the_hint_ends_the_problem() {
    let (_database, mut session) = metered("agent_red");
    session.run(
        r#"CREATE TABLE letters (id bigint PRIMARY KEY, "To" text, tenant_id text, created_at timestamptz);
           ALTER TABLE letters RENAME tenant_id TO "From";
           SELECT talkmeter.attach('letters', 'agent_red',
               '{"tenant": "From", "conversation": "To", "kinds": [{"kind": "note"}]}')"#,
    );
    assert_eq!(problems(&mut session), ["index_missing|public.letters"]);
    for other in ["created_at", "\"From\"", "\"From\", created_at, \"To\"", "(\"To\" || '')", "\"To\") WHERE (id > 0"] {
        session.run(&format!("CREATE INDEX ON letters ({other})"));
        assert_eq!(problems(&mut session), ["index_missing|public.letters"], "{other}");
    }
    let hint = session.line("SELECT hint FROM talkmeter.health() WHERE problem <> 'posted_late'");
    assert_eq!(hint, r#"CREATE INDEX ON public.letters ("From", "To", created_at);"#);
    session.run(&hint);
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_renamed_a_swapped_and_a_dropped_table_are_told_apart() {
    let (_database, mut session) = metered("agent_red");
    session.run("ALTER TABLE messages RENAME TO old_messages");
    assert_eq!(problems(&mut session), [""; 0], "a rename is followed");
    session.run("CREATE TABLE messages (LIKE old_messages INCLUDING INDEXES)");
    assert_eq!(problems(&mut session), ["table_swapped|public.messages"]);
    session.run("DROP TABLE old_messages");
    assert_eq!(problems(&mut session), ["table_dropped|public.messages"]);
}

#[test]
fn the_hint_of_a_dropped_table_ends_its_problem() {
    let (_database, mut session) = metered("agent_red");
    session.run("DROP TABLE messages");
    let hint = session.line("SELECT hint FROM talkmeter.health() WHERE problem <> 'posted_late'");
    session.run(&hint);
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_mapping_broken_by_a_dropped_column_is_named_and_a_renamed_column_is_followed() {
    let (_database, mut session) = metered("agent_red");
    session.run("ALTER TABLE messages RENAME COLUMN kind TO event");
    assert_eq!(problems(&mut session), [""; 0]);
    session.run("ALTER TABLE messages DROP COLUMN event");
    assert_eq!(problems(&mut session), ["mapping_broken|public.messages"]);
}

#[test]
fn a_session_that_quotes_all_names_sees_the_same_problems() {
    let (_database, mut session) = metered("agent_red");
    session.run("SET quote_all_identifiers = on");
    assert_eq!(problems(&mut session), [""; 0]);
    session.run("SELECT talkmeter.detach('messages')");
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_unique_index_that_was_dropped_is_named_until_there_is_another() {
    let (_database, mut session) = metered("agent_red");
    session.run("ALTER TABLE messages DROP CONSTRAINT messages_pkey");
    for other in [
        "INDEX ON messages (id)",
        "UNIQUE INDEX ON messages (id, tenant_id)",
        "UNIQUE INDEX ON messages (id) WHERE id > 0",
    ] {
        session.run(&format!("CREATE {other}"));
        assert_eq!(problems(&mut session), ["not_unique|public.messages"], "{other}");
    }
    session.run("ALTER TABLE messages RENAME id TO number; CREATE UNIQUE INDEX ON messages (number)");
    assert_eq!(problems(&mut session), [""; 0]);
}

/// PostgreSQL fires no trigger of the table that it inherits from.
#[test]
fn a_table_that_inherits_from_an_attached_one_is_named_until_it_is_attached() {
    let (_database, mut session) = metered("agent_red");
    session.run("CREATE TABLE letters (PRIMARY KEY (id)) INHERITS (messages)");
    session.run("CREATE INDEX ON letters (tenant_id, conversation_id)");
    assert_eq!(problems(&mut session), ["child_not_metered|public.letters"]);
    attach(&mut session, "letters", "agent_red", PLAN, &messages_mapping());
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_table_that_a_crash_empties_is_named_until_it_is_logged_again() {
    let (_database, mut session) = metered("agent_red");
    session.run("ALTER TABLE messages SET UNLOGGED");
    assert_eq!(problems(&mut session), ["unlogged|public.messages"]);
    let hint = session.line("SELECT hint FROM talkmeter.health() WHERE problem = 'unlogged'");
    session.run(hint.split_once(": ").expect("a statement").1);
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_partition_that_was_taken_out_is_named_and_its_hint_ends_the_problem() {
    let database = Database::fresh("health");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz,
        PRIMARY KEY (id, tenant_id)) PARTITION BY LIST (tenant_id);
        CREATE INDEX ON messages (tenant_id, conversation_id)",
    );
    session.run("CREATE TABLE leaf PARTITION OF messages FOR VALUES IN ('a')");
    session.run("SELECT talkmeter.attach('messages', 'agent_red', '{\"kinds\": [{\"kind\": \"note\"}]}')");
    assert_eq!(problems(&mut session), [""; 0]);
    session.run("ALTER TABLE messages DETACH PARTITION leaf");
    assert_eq!(problems(&mut session), ["partition_taken_out|public.leaf"]);
    let hint = session.line("SELECT hint FROM talkmeter.health() WHERE problem <> 'posted_late'");
    session.run(&hint);
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn quarantine_is_named_by_table_and_reason_with_its_growth() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 unheard_of");
    let detail =
        session.line("SELECT detail FROM talkmeter.health() WHERE problem <> 'posted_late' AND problem = 'quarantine'");
    assert!(
        detail.starts_with("1 rows could not be metered: no_kind.") && detail.ends_with("1 came in the last 24 hours."),
        "{detail}"
    );
}

#[test]
fn parts_that_no_sweep_has_ended_for_long_are_named() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(problems(&mut session), ["sweep_stale|talkmeter.part"]);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn that_nobody_sweeps_is_named_until_somebody_does() {
    let (_database, mut session) = metered("agent_red");
    let detail = "SELECT detail ~ 'never swept', detail ~ ('last by ' || session_user) FROM talkmeter.health()";
    session.run("UPDATE talkmeter.source SET attached_at = attached_at - interval '1 hour'");
    assert_eq!(problems(&mut session), ["nobody_sweeps|talkmeter.sweep"]);
    assert_eq!(session.line(detail), "t|f");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), [""; 0]);
    session.run("UPDATE talkmeter.sweeper SET swept_at = swept_at - interval '1 hour'");
    assert_eq!(session.line(detail), "f|t");
    session.run("CALL talkmeter.sweep_batches()");
    assert_eq!(problems(&mut session), [""; 0]);
    session.run("UPDATE talkmeter.sweeper SET swept_at = swept_at - interval '1 hour'");
    let worker = session.line("SELECT pid FROM talkmeter.start_worker()");
    assert_eq!(problems(&mut session), [""; 0]);
    session.run(&format!("SELECT pg_terminate_backend({worker})"));
}

#[test]
fn a_prepared_transaction_that_holds_conversations_is_named() {
    let (database, mut session) = metered("agent_red");
    session.run("BEGIN");
    tell(&mut session, "acme", "d", "10:00 customer_message");
    session.run("PREPARE TRANSACTION 'held'");
    let named = "SELECT problem, object FROM talkmeter.health(prepared_for => '0 seconds') WHERE problem = 'transaction_prepared'";
    assert_eq!(session.lines(named), ["transaction_prepared|held"]);
    assert_eq!(
        session.lines(
            "SELECT problem FROM talkmeter.health() WHERE problem <> 'posted_late' AND problem = 'transaction_prepared'"
        ),
        [""; 0]
    );
    session.run("COMMIT PREPARED 'held'");
    assert_eq!(session.lines(named), [""; 0]);
    drop(database);
}

#[test]
fn an_owner_of_the_extension_that_is_no_superuser_any_more_is_named() {
    let (database, mut session) = metered("lutingenie");
    let leaver = database.role("leaver");
    session.run(&format!("ALTER SCHEMA talkmeter OWNER TO {leaver}"));
    assert_eq!(problems(&mut session), [format!("owner_not_superuser|{leaver}")]);
    session.run("ALTER SCHEMA talkmeter OWNER TO CURRENT_USER");
    assert_eq!(problems(&mut session), [""; 0]);
}

/// The files of the zones are the system's, and an update may take some away.
#[test]
fn a_time_zone_that_the_server_has_lost_breaks_the_mapping_and_no_statement() {
    let database = Database::fresh("lost_zone");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE local (id bigint PRIMARY KEY, conversation_id text, created_at timestamp, kind text);
         CREATE INDEX ON local (conversation_id)",
    );
    let mapping =
        r#"{"tenant": {"constant": "acme"}, "timezone": "Europe/Paris", "kinds": [{"kind": "customer_message"}]}"#;
    attach(&mut session, "local", "lutingenie", PLAN, mapping);
    let known = |known: bool| {
        let zone = if known { "Europe/Paris" } else { "US/Nowhere" };
        format!("UPDATE talkmeter.source SET mapping = jsonb_set(mapping, '{{timezone}}', '\"{zone}\"')")
    };
    session.run("INSERT INTO local VALUES (1, 'c', '2026-03-01 10:00', 'x'), (2, 'c', '2026-03-01 10:01', 'x')");
    session.run(&known(false));
    let mut application = database.connect();
    application.run(
        "INSERT INTO local VALUES (3, 'c', '2026-03-01 10:02', 'x');
         UPDATE local SET created_at = '2026-03-01 10:03' WHERE id = 2;
         DELETE FROM local WHERE id = 1;
         SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 09:00+00')",
    );
    let listed = session.lines("SELECT message_id, reason FROM talkmeter.quarantine ORDER BY 1");
    assert_eq!(listed, ["1|mapping_broken", "2|mapping_broken", "3|mapping_broken"], "the first is the mark");
    let expected = ["mapping_broken|public.local", "quarantine|public.local", "quarantine|source 0"];
    assert_eq!(problems(&mut session)[..3], expected);
    session.run(&known(true));
    database.connect().run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.lines("SELECT 1 FROM talkmeter.quarantine WHERE reason = 'mapping_broken'"), [""; 0]);
}

#[test]
fn units_that_are_posted_more_than_35_days_after_their_instants_are_named_by_tenant_for_35_days() {
    let (_database, mut session) = metered("agent_red");
    let insert = |conversation: &str, ago: &str| {
        format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('acme', '{conversation}', now() - interval '{ago}', 'visit')"
        )
    };
    let named = "SELECT object, split_part(detail, ' were', 1) FROM talkmeter.health() WHERE problem = 'posted_late'";
    session.run(&insert("in time", "34 days 23 hours"));
    assert_eq!(session.lines(named), [""; 0]);
    session.run(&insert("late", "35 days 1 hour"));
    session.run(&insert("later", "5 years"));
    assert_eq!(session.lines(named), ["acme|2 units"]);
    session.run("UPDATE talkmeter.charge SET posted_at = posted_at - interval '36 days', charged_at = charged_at - interval '36 days'");
    assert_eq!(session.lines(named), [""; 0]);
}

#[test]
fn what_is_dated_ahead_of_the_clock_is_named() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SELECT talkmeter.buy_pack('acme', 'agent_red/1000'), talkmeter.finalize('acme', '2026-03-01')");
    let named =
        "SELECT object, split_part(detail, ' is dated', 1) FROM talkmeter.health() WHERE problem = 'ahead_of_clock'";
    assert_eq!(session.lines(named), [""; 0]);
    for (table, column, object) in [
        ("charge", "posted_at", "Charge 1"),
        ("subscription", "subscribed_at", "Subscription 1"),
        ("pack", "purchased_at", "Pack 1"),
        ("period", "finalized_at", "The statement of the period from 2026-03-01 00:00:00+00"),
    ] {
        session.run("BEGIN");
        session.run(&format!("UPDATE talkmeter.{table} SET {column} = now() + interval '6 minutes'"));
        assert_eq!(session.lines(named), [format!("acme|{object}")], "{table}");
        session.run("ROLLBACK");
    }
}
