//! Is each row metered as what it is at the end, however the statements that made it so are nested (rules 3.5, 3.7)?

use talkmeter_tests::{Database, PLAN, Random, Session, assert_same_rows, at_length, metered};

/// `messages`, metered, with a trigger of the application's after each inserted row that is of a kind of its own.
fn with_trigger(kind: &str, body: &str) -> (Database, Session) {
    let (database, mut session) = metered("agent_red");
    session.run(&format!(
        "CREATE FUNCTION mend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;
         CREATE TRIGGER mend AFTER INSERT ON messages FOR EACH ROW WHEN (new.kind = '{kind}') EXECUTE FUNCTION mend();
         INSERT INTO messages VALUES
             (1, 'acme', 'c', '2026-01-05 10:00+00', 'customer_message'), (2, 'acme', 'c', '2026-01-05 10:01+00', '{kind}')"
    ));
    (database, session)
}

const QUARANTINED: &str = "SELECT message_id, reason FROM talkmeter.quarantine ORDER BY 1, 2";

#[test]
fn a_row_that_a_row_trigger_mends_within_its_own_statement_was_never_in_quarantine() {
    let (_database, mut session) = with_trigger("bot", "UPDATE messages SET kind = 'ai_reply' WHERE id = new.id");
    assert_eq!(session.lines(QUARANTINED), [""; 0]);
    session.run("INSERT INTO messages VALUES (3, 'acme', 'c', '2026-01-05 10:00:30+00', 'customer_message')");
    assert_eq!(session.lines(QUARANTINED), [""; 0], "nothing is sealed");
    session.run("UPDATE messages SET created_at = created_at + interval '1 s' WHERE id = 2");
    assert_eq!(session.lines("SELECT message_count, billable FROM talkmeter.parts"), ["3|t"]);
    session.sweep("2026-01-06");
    session.run("SELECT talkmeter.reconcile('2026-01-05')");
    assert_eq!(session.line("SELECT charged, recounted, unprovable FROM talkmeter.reconciliations"), "1|1|0");
}

#[test]
fn a_row_that_a_row_trigger_deletes_within_its_own_statement_was_never_in_quarantine() {
    let (_database, mut session) = with_trigger("bot", "DELETE FROM messages WHERE id = new.id");
    assert_eq!(session.lines(QUARANTINED), [""; 0]);
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["1"]);
}

#[test]
fn a_row_that_a_row_trigger_spoils_within_its_own_statement_is_listed_once_as_it_is() {
    let (_database, mut session) =
        with_trigger("ai_reply", "UPDATE messages SET conversation_id = NULL WHERE id = new.id");
    assert_eq!(session.lines(QUARANTINED), ["2|null_key"]);
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["1"]);
}

#[test]
fn a_row_that_goes_from_one_refusal_to_another_within_its_own_statement_is_listed_once_as_it_is() {
    let (_database, mut session) = with_trigger("bot", "UPDATE messages SET tenant_id = NULL WHERE id = new.id");
    assert_eq!(session.lines(QUARANTINED), ["2|null_key"]);
}

#[test]
fn a_row_that_is_changed_within_its_own_statement_while_the_switch_is_off_is_listed_once() {
    let (_database, mut session) = with_trigger("bot", "UPDATE messages SET kind = 'ai_reply' WHERE id = new.id");
    session.run(
        "SET talkmeter.enabled = off;
         INSERT INTO messages VALUES (3, 'acme', 'c', '2026-01-05 10:02+00', 'bot');
         RESET talkmeter.enabled",
    );
    assert_eq!(session.lines(QUARANTINED), ["3|disabled"]);
    assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "1");
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["3"]);
}

const KINDS: [&str; 6] = ["customer_message", "ai_reply", "staff_reply", "exchange", "robot", "note"];
const SEEDS: [u64; 2] = [60, 300];

/// An INSERT into `messages`, or another statement if `what` is not 0.
fn statement(random: &mut Random, what: usize) -> String {
    let row = |random: &mut Random| {
        let conversation = ["'c'", "'d'", "NULL"][random.below(20).saturating_sub(17)];
        let minute = random.below(59);
        let kind = KINDS[random.below(KINDS.len())];
        format!("('acme', {conversation}, '2026-01-05 10:{minute:02}+00', '{kind}')")
    };
    let id = format!("id % 7 = {}", random.below(7));
    match what {
        0 => {
            let rows: Vec<String> = (0..1 + random.below(3)).map(|_| row(random)).collect();
            format!("INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES {}", rows.join(", "))
        }
        1 => format!("DELETE FROM messages WHERE {id}"),
        2 => format!("UPDATE messages SET kind = '{}' WHERE {id}", KINDS[random.below(KINDS.len())]),
        _ => format!(
            "UPDATE messages SET created_at = created_at + interval '{} min', conversation_id = {} WHERE {id}",
            random.below(9) as i32 - 4,
            ["'c'", "'d'", "NULL", "conversation_id"][random.below(4)]
        ),
    }
}

/// Triggers of the application's, of each kind, that change the very table, no deeper than three statements and no more
/// often than 200 times in all.
fn triggers(random: &mut Random) -> String {
    let mut made = "CREATE SEQUENCE runs;".to_owned();
    for number in 0..2 + random.below(4) {
        let event = ["INSERT", "UPDATE", "DELETE"][random.below(3)];
        // Of one event ours is the third in the order of names.
        let name = format!("{}_{number}", ["a", "z"][random.below(2)]);
        let each = ["ROW", "STATEMENT"][random.below(2)];
        let what = random.below(4);
        let statement = statement(random, what);
        made += &format!(
            "CREATE FUNCTION own_{number}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF pg_trigger_depth() <= 3 AND nextval('runs') <= 200 AND random() < 0.5 THEN {statement}; END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER {name} AFTER {event} ON messages FOR EACH {each} EXECUTE FUNCTION own_{number}();"
        );
    }
    made
}

/// What was made of the rows, without what names them.
fn outcome(session: &mut Session) -> Vec<String> {
    session.run("SELECT talkmeter.sweep('2026-01-06')");
    session.lines(
        "SELECT 'part', conversation, started_at, ended_at, message_count, turn_count, billable::text
         FROM talkmeter.parts
         UNION ALL
         SELECT 'charge', conversation, charged_at, NULL, 1, 0, ''
         FROM talkmeter.charges AS c
         WHERE reverses IS NULL AND NOT EXISTS (
             SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
         UNION ALL
         SELECT 'waits', message_id, occurred_at, NULL, 1, 0, reason
         FROM talkmeter.quarantine
         ORDER BY 1, 2, 3, 7",
    )
}

#[test]
fn nested_triggers_that_change_the_attached_table_leave_what_its_rows_at_the_end_give() {
    let first = Random::seeded().1;
    for seed in (first..).take(SEEDS[usize::from(at_length())] as usize) {
        let mut random = Random::new(seed);
        let database = Database::with_messages("nested", "agent_red", PLAN);
        let mut session = database.connect();
        session.run(&format!("SELECT setseed({})", random.below(1_000) as f64 / 1e3));
        session.run(&triggers(&mut random));
        let story: Vec<String> = [0, 0]
            .into_iter()
            .chain((0..random.below(6)).map(|n| n % 4))
            .map(|what| statement(&mut random, what))
            .collect();
        let story = story.join("; ");
        session.run(&story);
        let found = outcome(&mut session);
        let copy = Database::with_messages("nested", "agent_red", PLAN);
        let mut fresh = copy.connect();
        let rows = session.lines(
            "SELECT format('(%L::bigint, %L, %L, %L::timestamptz, %L, %L::bool)', id, tenant_id, \
            conversation_id, created_at, kind, excluded) FROM messages",
        );
        if !rows.is_empty() {
            fresh.run(&format!("INSERT INTO messages VALUES {}", rows.join(", ")));
        }
        let expected = outcome(&mut fresh);
        if found != expected {
            println!("TALKMETER_SEED={seed}\n{story}");
        }
        assert_same_rows(&found, &expected);
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0], "TALKMETER_SEED={seed}");
    }
}
