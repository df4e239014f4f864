//! What if somebody makes another table of one of talkmeter's? Rows that cannot be metered wait, with a word about why,
//! and are metered when it is as it was; what changes nothing for us is followed.

use talkmeter_tests::{metered, tell};

const NOTHING: [&str; 0] = [];

/// What is done to a table, what is said of it, and what takes it back.
const DONE: [(&str, &str, &str); 6] = [
    (
        "ALTER TABLE talkmeter.ended_part ADD own int",
        "its columns are others",
        "ALTER TABLE talkmeter.ended_part DROP own",
    ),
    (
        "ALTER TABLE talkmeter.conversation ALTER highest_part TYPE bigint",
        "its columns are others",
        "ALTER TABLE talkmeter.conversation ALTER highest_part TYPE int",
    ),
    (
        "CREATE RULE nothing AS ON INSERT TO talkmeter.charge DO INSTEAD NOTHING",
        "it has a rule",
        "DROP RULE nothing ON talkmeter.charge",
    ),
    (
        "ALTER TABLE talkmeter.conversation DROP CONSTRAINT conversation_pkey",
        "an index of it is missing or not valid",
        "ALTER TABLE talkmeter.conversation ADD PRIMARY KEY (tenant, conversation)",
    ),
    (
        "ALTER TABLE talkmeter.day_units DROP CONSTRAINT day_units_pkey",
        "an index of it is missing or not valid",
        "ALTER TABLE talkmeter.day_units ADD PRIMARY KEY (tenant, day)",
    ),
    (
        "ALTER TABLE talkmeter.tenant_lock DROP CONSTRAINT tenant_lock_pkey",
        "an index of it is missing or not valid",
        "ALTER TABLE talkmeter.tenant_lock ADD PRIMARY KEY (tenant)",
    ),
];

#[test]
fn rows_wait_while_an_own_table_is_another_and_are_metered_when_it_is_as_it_was() {
    for (done, because, taken_back) in DONE {
        let (database, mut session) = metered("lutingenie");
        tell(&mut session, "acme", "c", "10:00 exchange");
        session.run(done);
        let (mut other, heard) = database.connect_heard();
        for conversation in ["c", "d"] {
            tell(&mut other, "acme", conversation, "12:00 exchange");
        }
        // Not every row needs all of every table.
        let waiting = session.line("SELECT count(*) FROM talkmeter.quarantine WHERE reason = 'internal_error'");
        assert!(["1", "2"].contains(&waiting.as_str()), "{done}: {waiting} wait");
        let warning = heard.lock().expect("a list").first().cloned().unwrap_or_default();
        assert!(warning.contains("is not as talkmeter made it"), "{done}: {warning}");
        let detail = session.line("SELECT min(detail) FROM talkmeter.quarantine");
        assert!(detail.contains(because), "{done}: {detail}");
        session.run(taken_back);
        assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), waiting, "{done}");
        let parts = "SELECT conversation, message_count FROM talkmeter.parts ORDER BY 1";
        assert_eq!(session.lines(parts), ["c|2", "c|2", "d|2"], "{done}");
        assert_eq!(session.lines("SELECT problem FROM talkmeter.verify()"), NOTHING, "{done}");
    }
}

#[test]
fn a_trigger_on_an_own_table_is_called_for_each_row_that_is_written() {
    let (database, _) = metered("lutingenie");
    let (mut session, heard) = database.connect_heard();
    session.run(
        "CREATE TABLE seen (what text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
             BEGIN INSERT INTO seen VALUES (TG_OP || ' ' || TG_WHEN || ' ' || NEW.message_count); RETURN NEW; END $$;
         CREATE TRIGGER see_before BEFORE INSERT OR UPDATE ON talkmeter.conversation FOR EACH ROW EXECUTE FUNCTION see();
         CREATE TRIGGER see_after AFTER INSERT OR UPDATE ON talkmeter.conversation FOR EACH ROW EXECUTE FUNCTION see()",
    );
    tell(&mut session, "acme", "c", "10:00 exchange");
    tell(&mut session, "acme", "c", "10:01 customer_message");
    let seen = ["INSERT AFTER 2", "INSERT BEFORE 2", "UPDATE AFTER 3", "UPDATE BEFORE 3"];
    assert_eq!(session.lines("SELECT what FROM seen ORDER BY 1"), seen);
    assert_eq!(*heard.lock().expect("a list"), NOTHING);
}

/// Whoever joins a whole table to each row takes hours where a look-up takes seconds.
#[test]
fn whoever_joins_parts_to_charges_finds_them_by_the_indexes_of_both_tables() {
    let (_database, mut session) = metered("lutingenie");
    session.run("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off");
    let plan = session.lines(
        "EXPLAIN (COSTS off) SELECT c.charge_id, p.event_count FROM talkmeter.charge AS c
         LEFT JOIN talkmeter.part AS p ON p.tenant = c.tenant AND p.conversation = c.conversation AND p.part = c.part",
    );
    for index in ["conversation_pkey", "ended_part_pkey"] {
        assert!(plan.iter().any(|line| line.contains(&format!("Index Scan using {index}"))), "{plan:#?}");
    }
}
