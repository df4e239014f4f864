//! Is each row of a partitioned table counted once, whichever way it and its partition come (rules 2.6.7 and 2.13.8)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, PLAN, Session, assert_same_rows, attach, create_messages, messages_mapping};

const NOTHING: [&str; 0] = [];

fn problems(session: &mut Session) -> Vec<String> {
    session.lines("SELECT problem, object FROM talkmeter.health() WHERE problem NOT IN ('posted_late', 'sweep_stale')")
}

/// A table partitioned by month, without a partition.
fn create_partitioned(session: &mut Session) {
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz, kind text,
             excluded boolean NOT NULL DEFAULT false, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
         CREATE INDEX ON messages (tenant_id, conversation_id, created_at)",
    );
}

fn partitioned() -> (Database, Session) {
    let database = Database::fresh("partitions");
    let mut session = database.connect();
    create_partitioned(&mut session);
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    (database, session)
}

fn month(name: &str, number: usize) -> String {
    let next = number + 1;
    format!("{name} FOR VALUES FROM ('2026-0{number}-01 00:00+00') TO ('2026-0{next}-01 00:00+00')")
}

fn create_month(name: &str, number: usize) -> String {
    let (name, bounds) = (name, month("", number));
    format!("CREATE TABLE {name} PARTITION OF messages{bounds}")
}

fn attach_month(name: &str, number: usize) -> String {
    format!("ALTER TABLE messages ATTACH PARTITION {}", month(name, number))
}

// --- By itself ---

#[test]
fn a_partition_has_its_triggers_in_the_transaction_that_adds_it_whoever_adds_it() {
    let (database, mut session) = partitioned();
    let owner = database.role("owner");
    session.run(&format!("GRANT CREATE ON SCHEMA public TO {owner}; ALTER TABLE messages OWNER TO {owner}"));
    let mut application = database.connect_as(&owner);
    application.run(&format!(
        "BEGIN; {}; CREATE TABLE april (LIKE messages INCLUDING ALL); {};
         {} PARTITION BY RANGE (created_at); CREATE TABLE rest PARTITION OF may DEFAULT",
        create_month("march", 3),
        attach_month("april", 4),
        create_month("may", 5),
    ));
    let tables = [("march", 3), ("april", 4), ("may", 5), ("rest", 5)];
    for (id, (table, number)) in tables.into_iter().enumerate() {
        application.run(&format!("INSERT INTO {table} VALUES ({id}, 'acme', '{table}', '2026-0{number}-10', 'visit')"));
    }
    application.run("COMMIT");
    let counted = session.lines("SELECT conversation FROM talkmeter.charges ORDER BY charged_at, conversation");
    assert_eq!(counted, ["march", "april", "may", "rest"]);
    assert_eq!(problems(&mut session), NOTHING);
    session.run(&format!("CREATE SCHEMA other CREATE TABLE june PARTITION OF public.messages{}", month("", 6)));
    assert_eq!(problems(&mut session), NOTHING);
    session.run("SELECT talkmeter.detach('messages')");
    assert_eq!(problems(&mut session), NOTHING, "none of the triggers is left");
}

#[test]
fn a_partition_of_row_mode_has_its_triggers_at_once_too() {
    let database = Database::fresh("partitions");
    let mut session = database.connect();
    create_partitioned(&mut session);
    session.run(&create_month("march", 3));
    let mapping = messages_mapping().replace('\'', "''");
    session.run(&format!("SELECT talkmeter.attach('messages', 'agent_red', '{mapping}', row_mode => true)"));
    session.run(&create_month("april", 4));
    assert_eq!(problems(&mut session), NOTHING);
}

#[test]
fn an_error_of_the_event_trigger_fails_no_statement_and_the_next_sweep_mends_it() {
    let (database, mut session) = partitioned();
    let (mut application, heard) = database.connect_heard();
    session.run("ALTER TABLE talkmeter.source RENAME TO elsewhere");
    application.run(&create_month("march", 3));
    let told = heard.lock().expect("no other thread").join("\n");
    assert!(told.contains("WARNING: talkmeter could not see to partitions that were added"), "{told}");
    session.run("ALTER TABLE talkmeter.elsewhere RENAME TO source");
    assert_eq!(problems(&mut session), ["trigger_missing|public.march"]);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), NOTHING);
}

#[test]
fn where_the_event_trigger_is_not_wanted_the_next_sweep_gives_a_partition_its_triggers() {
    let (_database, mut session) = partitioned();
    session.run("ALTER EVENT TRIGGER talkmeter_partitions DISABLE");
    session.run(&create_month("march", 3));
    assert_eq!(problems(&mut session), ["trigger_missing|public.march"]);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), NOTHING);
}

#[test]
fn a_session_that_adds_tables_of_its_own_does_not_load_the_library() {
    let (database, _session) = partitioned();
    let mut application = database.connect();
    application.run("CREATE TABLE own (id int) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF own DEFAULT");
    let is_loaded = "SELECT count(*) FROM pg_settings WHERE name = 'talkmeter.max_future'";
    assert_eq!(application.line(is_loaded), "0");
    application.run(&create_month("march", 3));
    assert_eq!(application.line(is_loaded), "1");
}

#[test]
fn a_restore_brings_the_triggers_of_partitions_itself() {
    let (_database, mut session) = partitioned();
    // As pg_dump and pg_restore have it.
    session.run("SET check_function_bodies = off");
    session.run(&create_month("march", 3));
    assert_eq!(problems(&mut session), ["trigger_missing|public.march"]);
}

#[test]
fn nobody_calls_what_the_event_trigger_calls_without_being_allowed_to() {
    let (database, _session) = partitioned();
    let mut stranger = database.connect_as(&database.role("stranger"));
    assert_eq!(
        stranger.refused("SELECT talkmeter.adopt_partitions('public.messages')"),
        SqlState::INSUFFICIENT_PRIVILEGE
    );
}

// --- Whichever way ---

/// Messages of January to May, by time; those of January are of conversations of their own. `way` is by which way a
/// row comes, in turn.
const ROWS: &str = "
    CREATE TABLE message_rows AS
    SELECT n AS id, 'acme' AS tenant_id,
        CASE WHEN n < 40 THEN 'january ' || n % 3 ELSE 'c' || n % 5 END AS conversation_id,
        timestamptz '2026-01-01 00:00+00' + CASE WHEN n < 40 THEN n * interval '7 min'
            ELSE interval '31 days' + (n - 40) * interval '400 min' + (n % 4) * interval '6 min' END AS created_at,
        (ARRAY['customer_message', 'ai_reply', 'exchange', 'note', 'exchange', 'close', 'exchange'])[1 + n % 7] AS kind,
        n % 2 AS way
    FROM generate_series(1, 460) AS n";

/// Inserts the rows of a part of that time into a table.
fn load(session: &mut Session, table: &str, condition: &str) {
    session.run(&format!(
        "INSERT INTO {table} (id, tenant_id, conversation_id, created_at, kind)
         SELECT id, tenant_id, conversation_id, created_at, kind FROM message_rows
         WHERE {condition} ORDER BY created_at, id"
    ));
}

/// The rows of some days of 2026, every other one through the table and straight into a partition.
fn load_both_ways(session: &mut Session, partition: &str, from: &str, to: &str) {
    for (table, way) in [("messages", 0), (partition, 1)] {
        load(
            session,
            table,
            &format!("way = {way} AND created_at >= '2026-{from} 00:00+00' AND created_at < '2026-{to} 00:00+00'"),
        );
    }
}

const PARTS: &str = "SELECT tenant, conversation, started_at, ended_at, end_reason, billable, charged_at, message_count
    FROM talkmeter.parts ORDER BY 1, 2, 3";
/// Without their instants: a charge stays as it was posted when its instant moves within its period (rule 3.5.5).
const CHARGES: &str = "SELECT c.tenant, c.conversation, c.period_start, c.tier
    FROM talkmeter.charges AS c WHERE c.reverses IS NULL
        AND NOT EXISTS (SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
    ORDER BY 1, 2, 3";

#[test]
fn a_table_whose_partitions_come_and_go_equals_a_plain_one_after_one_backfill() {
    let plain = Database::fresh("partitions");
    let mut plain = plain.connect();
    create_messages(&mut plain);
    attach(&mut plain, "messages", "agent_red", PLAN, &messages_mapping());
    plain.run(ROWS);
    load(&mut plain, "messages", "true");

    let (_database, mut session) = partitioned();
    session.run(ROWS);
    session.run(&create_month("january", 1));
    session.run(&create_month("february", 2));
    load_both_ways(&mut session, "january", "01-01", "02-01");
    session.run("DROP TABLE january");
    load_both_ways(&mut session, "february", "02-01", "02-15");
    session.run("ALTER TABLE messages DETACH PARTITION february");
    load(&mut session, "february", "created_at >= '2026-02-15 00:00+00' AND created_at < '2026-03-01 00:00+00'");
    session.run(&attach_month("february", 2));
    session.run(&create_month("march", 3));
    load_both_ways(&mut session, "march", "03-01", "04-01");
    session.run("CREATE TABLE april (LIKE messages INCLUDING ALL)");
    load(&mut session, "april", "created_at >= '2026-04-01 00:00+00' AND created_at < '2026-05-01 00:00+00'");
    session.run(&attach_month("april", 4));
    session.run(&format!("{} PARTITION BY RANGE (created_at)", create_month("may", 5)));
    session.run("CREATE TABLE leaf PARTITION OF may DEFAULT");
    load_both_ways(&mut session, "leaf", "05-01", "06-01");
    assert_eq!(problems(&mut session), NOTHING);

    let gaps = "SELECT date_trunc('month', from_time) FROM talkmeter.gaps('messages') GROUP BY 1 ORDER BY 1";
    let found = session.lines(gaps);
    assert!(found.len() >= 2, "rows of February and April were never counted: {found:?}");
    session.run("CALL talkmeter.backfill('messages', '-infinity', 'infinity')");
    for session in [&mut plain, &mut session] {
        session.run("SELECT talkmeter.sweep()");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
        assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    }
    assert_eq!(session.lines(gaps), NOTHING);
    assert_same_rows(&session.lines(PARTS), &plain.lines(PARTS));
    assert_same_rows(&session.lines(CHARGES), &plain.lines(CHARGES));
}

#[test]
fn each_table_that_inherits_from_an_attached_one_is_named_however_far_off() {
    let database = Database::with_messages("partitions", "agent_red", PLAN);
    let mut session = database.connect();
    session.run("CREATE TABLE child () INHERITS (messages); CREATE TABLE grandchild () INHERITS (child)");
    assert_eq!(problems(&mut session), ["child_not_metered|public.child", "child_not_metered|public.grandchild"]);
}
