//! What does `reset_for_tests` take away, what does it leave, and where does it refuse?

use postgres::error::SqlState;
use talkmeter_tests::private::Server;
use talkmeter_tests::{Database, PLAN, Session, metered, tell};

/// Tables that keep their rows, and why.
const KEPT: [(&str, &str); 11] = [
    ("earlier_mapping", "how rows are read"),
    ("holidays", "a definition"),
    ("installation", "which database it is"),
    ("journaled", "the journal is never changed"),
    ("pack_offer", "a definition"),
    ("plan", "a definition"),
    ("policy", "a definition"),
    ("source", "tables stay attached"),
    ("sweeper", "who sweeps goes on"),
    ("tenant_reader", "a right"),
    ("threshold", "a definition"),
];

fn reset(session: &mut Session) {
    session.run("SELECT talkmeter.reset_for_tests()");
}

fn parts(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant, conversation, part, message_count FROM talkmeter.parts ORDER BY 1, 2, 3")
}

#[test]
fn every_table_is_emptied_or_it_is_said_why_not() {
    let (_database, mut session) = metered("lutingenie");
    let tables = session.lines(
        "SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'r' ORDER BY 1",
    );
    session.run(
        "CREATE TABLE emptied (name text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.emptied VALUES (TG_TABLE_NAME); RETURN NULL; END $$",
    );
    for table in &tables {
        session.run(&format!(
            "CREATE TRIGGER note AFTER DELETE ON talkmeter.{table} FOR EACH STATEMENT EXECUTE FUNCTION note()"
        ));
    }
    reset(&mut session);
    let emptied = session.lines("SELECT name FROM emptied ORDER BY 1");
    let kept: Vec<&str> =
        tables.iter().map(String::as_str).filter(|table| !emptied.iter().any(|e| e == table)).collect();
    assert_eq!(kept, KEPT.map(|(name, _)| name));
}

#[test]
fn after_a_reset_what_comes_is_metered_as_in_a_new_database() {
    let (_database, mut session) = metered("lutingenie");
    let test = |session: &mut Session| {
        session.run("TRUNCATE messages RESTART IDENTITY");
        reset(session);
        tell(session, "acme", "c", "10:00 exchange, 10:05 exchange");
        session.run("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:06+00')");
        tell(session, "acme", "c", "10:10 unheard_of");
        session.run("SELECT talkmeter.buy_pack('acme', 'agent_red/1000', 'order 1', '2026-03-01 12:00+00')");
        session.run("SELECT talkmeter.set_alert_channel('acme', 'mailto:a')");
        let seen = [
            "SELECT conversation, part, status, end_reason, message_count FROM talkmeter.parts",
            "SELECT charge_id, conversation, part, tier FROM talkmeter.charges",
            "SELECT pack_id, remaining FROM talkmeter.packs",
            "SELECT message_id, reason FROM talkmeter.quarantine",
            "SELECT starts_at FROM talkmeter.sources",
            "SELECT * FROM talkmeter.verify()",
        ];
        seen.map(|query| session.lines(query))
    };
    let first = test(&mut session);
    assert_eq!(first[0], ["c|1|ended|close|4"]);
    assert_eq!(test(&mut session), first);
    reset(&mut session);
    assert_eq!(parts(&mut session), [""; 0]);
    assert_eq!(
        session
            .line("SELECT count(*), count(DISTINCT transaction) FROM talkmeter.journal WHERE call = 'reset_for_tests'"),
        "3|3"
    );
}

#[test]
fn rows_that_stay_in_a_table_are_nothing_to_the_meter_any_more() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 exchange");
    reset(&mut session);
    tell(&mut session, "acme", "c", "now exchange");
    assert_eq!(parts(&mut session), ["acme|c|1|2"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn what_the_transaction_itself_has_written_goes_with_the_rest() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    reset(&mut session);
    session.run("COMMIT");
    assert_eq!(parts(&mut session), [""; 0]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
}

#[test]
fn it_waits_for_whoever_inserts() {
    let (database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    let mut other = database.connect();
    let pid = other.pid();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| reset(&mut other));
        session.wait_until_blocked(pid);
        session.run("COMMIT");
        waits.join().expect("it is done");
    });
    assert_eq!(parts(&mut session), [""; 0]);
}

#[test]
fn books_are_not_removed_nor_by_whoever_is_no_superuser() {
    let database = Database::with_messages("books", "lutingenie", PLAN);
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "2026-02-02 10:00 exchange");
    let role = database.role("helper");
    session.run(&format!(
        "GRANT USAGE ON SCHEMA talkmeter TO {role}; GRANT EXECUTE ON FUNCTION talkmeter.reset_for_tests() TO {role}"
    ));
    let mut helper = database.connect_as(&role);
    assert_eq!(helper.refused("SELECT talkmeter.reset_for_tests()"), SqlState::INSUFFICIENT_PRIVILEGE);
    session.run("SELECT talkmeter.finalize('acme', '2026-02-01 00:00+00')");
    assert_eq!(session.refused("SELECT talkmeter.reset_for_tests()"), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(parts(&mut session), ["acme|c|1|2"]);
}

#[test]
fn no_session_can_allow_what_the_configuration_of_the_server_does_not() {
    let reset = "SELECT talkmeter.reset_for_tests()";
    let server = Server::with(&["talkmeter.allow_reset_for_tests = off"]);
    let mut session = server.create("books");
    assert_eq!(session.refused(reset), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(session.line("SHOW talkmeter.allow_reset_for_tests"), "off");
    let set = "SET talkmeter.allow_reset_for_tests = on";
    assert_eq!(session.refused(set), SqlState::CANT_CHANGE_RUNTIME_PARAM);
    // Before the library is loaded nobody knows what the setting is, and whoever comes may set it.
    let mut early = server.connect("books");
    early.run(set);
    assert_eq!(early.refused(reset), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    server.connect("books").run("ALTER DATABASE books SET talkmeter.allow_reset_for_tests = on");
    let mut given = server.connect("books");
    assert_eq!(given.line("SHOW talkmeter.allow_reset_for_tests"), "on");
    assert_eq!(given.refused(reset), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    // The administrator can.
    given.run("ALTER DATABASE books RESET ALL");
    given.run("ALTER SYSTEM SET talkmeter.allow_reset_for_tests = on");
    given.run("SELECT pg_reload_conf()");
    let mut allowed = server.connect("books");
    allowed.wait_for("SELECT current_setting('talkmeter.allow_reset_for_tests')", "on");
    allowed.run(reset);
}
