//! Does a table that is metered row by row give what it gives statement by statement, whatever fills it (rule 2.14)?

use talkmeter_tests::private::Server;
use talkmeter_tests::{Database, PLAN, Session, assert_same_rows, create_messages, messages_mapping, quoted};

fn attach_by_row(session: &mut Session, table: &str) {
    let mapping = quoted(&messages_mapping());
    session.run(&format!(
        "SELECT talkmeter.attach('{table}', policy => 'agent_red', default_plan => '{}', mapping => {mapping}, row_mode => true)",
        PLAN.expect("a plan")
    ));
}

fn attach_by_statement(session: &mut Session, table: &str) {
    talkmeter_tests::attach(session, table, "agent_red", PLAN, &messages_mapping());
}

/// All that metering has come to.
pub fn books(session: &mut Session) -> Vec<String> {
    [
        "SELECT tenant, conversation, part, status, started_at, first_ai_reply_at, last_activity_at, ended_at, end_reason, billable,
             not_billable_because, charged_at, message_count, turn_count, ai_replies, staff_replies
         FROM talkmeter.parts ORDER BY 1, 2, 3",
        "SELECT tenant, conversation, part, charged_at, tier, amount, reverses IS NULL, reason FROM talkmeter.charges ORDER BY 1, 2, 3, 4, 7",
        "SELECT message_id, tenant, conversation, occurred_at, reason FROM talkmeter.quarantine ORDER BY 1, 2, 3, 4",
        "SELECT problem, tenant FROM talkmeter.verify()",
    ]
    .into_iter()
    .flat_map(|query| session.lines(query))
    .collect()
}

/// What an application may do, each a transaction.
pub const DOINGS: [&str; 14] = [
    "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES
        (1, 'acme', 'a', '2026-03-01 10:00+00', 'customer_message'), (2, 'acme', 'a', '2026-03-01 10:01+00', 'ai_reply'),
        (3, 'acme', 'b', '2026-03-01 10:00+00', 'exchange'), (4, 'bolt', 'a', '2026-03-01 10:00+00', 'visit')",
    "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind)
        SELECT 100 + n, 'acme', 'c' || n % 5, timestamptz '2026-03-02 09:00+00' + n * interval '3 minutes', 'exchange'
        FROM generate_series(1, 60) AS n",
    // Late, and in the middle of two parts.
    "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES
        (5, 'acme', 'a', '2026-03-01 11:00+00', 'exchange'), (6, 'acme', 'a', '2026-03-01 10:30+00', 'note')",
    "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES (7, 'acme', 'a', '2026-03-01 10:31+00', 'customer_message')",
    "UPDATE messages SET kind = 'staff_reply' WHERE id = 2",
    "UPDATE messages SET created_at = created_at + interval '2 hours' WHERE id IN (101, 102, 103)",
    "UPDATE messages SET tenant_id = NULL WHERE id = 104",
    "UPDATE messages SET conversation_id = 'moved' WHERE id BETWEEN 110 AND 115",
    "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES
        (8, 'acme', 'd', '2026-03-03 10:00+00', 'unheard_of'), (9, NULL, 'd', '2026-03-03 10:00+00', 'exchange'),
        (10, 'acme', 'd', '2100-01-01 10:00+00', 'exchange')",
    "UPDATE messages SET kind = 'exchange' WHERE id = 8",
    "BEGIN;
        INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES (11, 'acme', 'e', '2026-03-04 10:00+00', 'exchange');
        SAVEPOINT s;
        INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES (12, 'acme', 'e', '2026-03-04 12:00+00', 'exchange');
        ROLLBACK TO s; DELETE FROM messages WHERE id = 11;
        INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES (13, 'acme', 'f', '2026-03-04 10:00+00', 'exchange'); COMMIT",
    "DELETE FROM messages WHERE id IN (3, 9, 120)",
    "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES
        (13, 'acme', 'f', '2026-03-04 10:00+00', 'exchange'), (14, 'acme', 'f', '2026-03-04 10:05+00', 'close')
        ON CONFLICT (id) DO UPDATE SET kind = 'note'",
    "TRUNCATE messages",
];

#[test]
fn the_books_are_those_of_metering_by_statement() {
    let (one, other) = (Database::fresh("by_row"), Database::fresh("by_statement"));
    let (mut by_row, mut by_statement) = (one.connect(), other.connect());
    create_messages(&mut by_row);
    create_messages(&mut by_statement);
    attach_by_row(&mut by_row, "messages");
    attach_by_statement(&mut by_statement, "messages");
    assert_eq!(by_row.line("SELECT row_mode FROM talkmeter.sources"), "t");
    for doing in DOINGS {
        by_row.run(doing);
        by_statement.run(doing);
        assert_eq!(books(&mut by_row), books(&mut by_statement), "{doing}");
    }
    assert!(books(&mut by_row).len() > 10);
}

#[test]
fn a_trigger_of_the_other_kind_beside_those_of_attach_is_refused() {
    let database = Database::with_messages("by_statement", "agent_red", PLAN);
    let mut session = database.connect();
    session.run("CREATE TRIGGER forged AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION talkmeter.on_insert()");
    let insert = "INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', 'a', 'exchange')";
    assert_eq!(session.refused(insert).code(), "39P01");
    session.run("DROP TRIGGER forged ON messages; SELECT talkmeter.detach('messages')");
    attach_by_row(&mut session, "messages");
    session.run(
        "CREATE TRIGGER forged AFTER INSERT ON messages REFERENCING NEW TABLE AS new
         FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert()",
    );
    assert_eq!(session.refused(insert).code(), "39P01");
}

#[test]
fn triggers_that_do_not_fire_for_what_is_replicated_are_named_and_detached_by_detach() {
    let database = Database::fresh("by_row");
    let mut session = database.connect();
    create_messages(&mut session);
    attach_by_row(&mut session, "messages");
    let problems = "SELECT problem, detail, hint FROM talkmeter.health()";
    assert_eq!(session.lines(problems), [""; 0]);
    session.run("SET session_replication_role = replica");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'a', now(), 'exchange')",
    );
    session.run("RESET session_replication_role");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
    session.run("ALTER TABLE messages ENABLE TRIGGER talkmeter_insert");
    assert_eq!(
        session.lines(problems),
        ["trigger_disabled|Inserts into it are not metered while logical replication applies them.|\
          ALTER TABLE public.messages ENABLE ALWAYS TRIGGER talkmeter_insert;"]
    );
    session.run("SELECT talkmeter.detach('messages')");
    assert_eq!(session.lines("SELECT tgname FROM pg_trigger WHERE tgrelid = 'messages'::regclass"), [""; 0]);
    attach_by_statement(&mut session, "messages");
    assert_eq!(session.line("SELECT row_mode FROM talkmeter.sources"), "f");
}

const PARTITIONED: &str = "
    CREATE TABLE messages (
        id bigint, tenant_id text, conversation_id text, created_at timestamptz, kind text, excluded boolean NOT NULL DEFAULT false
    ) PARTITION BY RANGE (created_at);
    CREATE INDEX ON messages (tenant_id, conversation_id, created_at);
    CREATE TABLE march PARTITION OF messages FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');";

#[test]
fn partitions_that_are_added_and_taken_out_are_followed() {
    let database = Database::fresh("by_row");
    let mut session = database.connect();
    session.run(PARTITIONED);
    session.run("CREATE UNIQUE INDEX ON messages (id, created_at)");
    attach_by_row(&mut session, "messages");
    let insert = |table: &str, id: i32, day: &str| {
        format!(
            "INSERT INTO {table} (id, tenant_id, conversation_id, created_at, kind)
             VALUES ({id}, 'acme', 'c{id}', '2026-{day} 10:00+00', 'exchange')"
        )
    };
    session.run(&insert("messages", 1, "03-01"));
    session.run(&insert("march", 2, "03-02"));
    session.run("CREATE TABLE april (LIKE messages INCLUDING ALL)");
    session.run("ALTER TABLE messages ATTACH PARTITION april FOR VALUES FROM ('2026-04-01') TO ('2026-05-01')");
    session.run("SET session_replication_role = replica");
    session.run(&insert("messages", 3, "04-01"));
    session.run(&insert("april", 4, "04-02"));
    session.run("RESET session_replication_role");
    assert_eq!(session.line("SELECT count(*), count(DISTINCT conversation) FROM talkmeter.charges"), "4|4");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(
        session.lines("SELECT problem, object, detail FROM talkmeter.health() WHERE problem <> 'posted_late'"),
        [""; 0]
    );
    session.run("ALTER TABLE messages DETACH PARTITION march");
    session.run(&insert("march", 5, "03-05"));
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "4");
    session.run("SELECT talkmeter.detach('messages')");
    assert_eq!(
        session.line("SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('messages'::regclass, 'april'::regclass)"),
        "0"
    );
}

#[test]
fn rows_of_a_foreign_partition_are_metered() {
    let database = Database::fresh("by_row");
    let mut session = database.connect();
    session.run(PARTITIONED);
    session.run("CREATE UNIQUE INDEX ON march (id)");
    let far = Database::empty("far");
    far.connect().run(
        "CREATE TABLE april (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, kind text,
             excluded boolean NOT NULL DEFAULT false)",
    );
    session.run(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{}', dbname '{}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '{}');
         CREATE FOREIGN TABLE april PARTITION OF messages FOR VALUES FROM ('2026-04-01') TO ('2026-05-01') SERVER far",
        talkmeter_tests::variable("PGHOST"),
        talkmeter_tests::variable("PGPORT"),
        far.name(),
        talkmeter_tests::variable("PGUSER"),
    ));
    let mapping = quoted(&messages_mapping());
    let refused = session.refused(&format!("SELECT talkmeter.attach('messages', 'agent_red', {mapping})"));
    assert_eq!(refused.code(), "42809", "not for each statement");
    attach_by_row(&mut session, "messages");
    session.run(
        "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES
             (1, 'acme', 'near', '2026-03-01 10:00+00', 'exchange'), (2, 'acme', 'far', '2026-04-01 10:00+00', 'exchange')",
    );
    session.run("INSERT INTO april (id, tenant_id, conversation_id, created_at, kind) VALUES (3, 'acme', 'far', '2026-04-01 10:20+00', 'exchange')");
    // Late: the conversation is read again, also what lies far away, but by no commit.
    session.run("INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES (4, 'acme', 'far', '2026-04-01 10:10+00', 'note')");
    session.run("UPDATE messages SET kind = 'customer_message' WHERE id = 3");
    assert_eq!(session.lines("SELECT DISTINCT reason FROM talkmeter.quarantine"), ["source_unreadable"]);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(
        session.lines("SELECT conversation, message_count, ai_replies FROM talkmeter.parts ORDER BY 1"),
        ["far|3|1", "near|2|1"]
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), [""; 0]);
    assert_eq!(session.lines("SELECT problem, object FROM talkmeter.health() WHERE problem <> 'posted_late'"), [""; 0]);
    drop(session);
}

#[test]
fn a_subscriber_meters_what_it_copies_and_what_it_applies_as_the_publisher_does() {
    let publisher = Server::with(&["wal_level = logical"]);
    let subscriber = Server::with(&[]);
    let (mut here, mut there) = (publisher.create("app"), subscriber.create("books"));
    for session in [&mut here, &mut there] {
        create_messages(session);
        session.run("ALTER TABLE messages REPLICA IDENTITY FULL");
    }
    attach_by_statement(&mut here, "messages");
    attach_by_row(&mut there, "messages");
    // What the first copy of the table brings.
    DOINGS[..2].iter().for_each(|doing| here.run(doing));
    here.run("CREATE PUBLICATION messages FOR TABLE messages");
    there.run(&format!(
        "CREATE SUBSCRIPTION books CONNECTION 'host={} port=5432 user={} dbname=app' PUBLICATION messages",
        publisher.directory(),
        talkmeter_tests::variable("PGUSER")
    ));
    there.wait_for("SELECT string_agg(srsubstate::text, '') FROM pg_subscription_rel", "r");
    assert_same_rows(&books(&mut there), &books(&mut here));
    for doing in &DOINGS[2..] {
        here.run(doing);
        let written = here.line("SELECT pg_current_wal_lsn()");
        here.wait_for(&format!("SELECT replay_lsn >= '{written}' FROM pg_stat_replication"), "t");
        assert_eq!(books(&mut there), books(&mut here), "{doing}");
    }
    assert_eq!(there.line("SELECT count(*) FROM messages"), "0", "it was truncated");
    assert_eq!(
        there.lines(
            "SELECT problem FROM talkmeter.health() WHERE problem NOT IN ('posted_late', 'sweep_stale', 'quarantine')"
        ),
        [""; 0]
    );
    there.run("DROP SUBSCRIPTION books");
    let log = subscriber.log();
    assert!(!log.contains("ERROR"), "{log}");
}
