//! Does what products really do, statement by statement, come out right in one piece?
//!
//! Each test is of one product's habits. The mappings of whole products are in docs/products.md, which is run too.

use talkmeter_tests::{Database, PLAN, Session, attach};

const NOTHING: [&str; 0] = [];

fn with(tables: &str) -> (Database, Session) {
    let database = Database::fresh("products");
    let mut session = database.connect();
    session.run(tables);
    (database, session)
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, message_id, reason FROM talkmeter.quarantine ORDER BY 1, 2")
}

/// Units of March under each policy beside those charged, once time has ended what it ends.
fn units(session: &mut Session) -> Vec<String> {
    session.run("SELECT talkmeter.sweep()");
    session.lines(
        "SELECT p.policy, s.tenant, s.units, s.billed_units
         FROM unnest('{lutingenie,agent_red,ai_resolution}'::text[]) AS p (policy),
             talkmeter.simulate(p.policy, NULL, '2026-03-01', '2026-04-01') AS s
         ORDER BY 1, 2",
    )
}

fn is_sound(session: &mut Session) {
    assert_eq!(quarantined(session), NOTHING);
    assert_eq!(session.lines("SELECT problem, object, detail FROM talkmeter.verify()"), NOTHING);
}

// --- Messages and conversations, as Chatwoot has them ---

const CHATS: &str = "
    CREATE TABLE chats (id serial PRIMARY KEY, shop int DEFAULT 7, state int NOT NULL DEFAULT 0,
        touched timestamp NOT NULL);
    CREATE TABLE lines (id serial PRIMARY KEY, shop int DEFAULT 7, chat int NOT NULL, inbox int NOT NULL DEFAULT 1,
        said_at timestamp NOT NULL, who varchar, who_id bigint, hidden boolean NOT NULL DEFAULT false,
        extra jsonb DEFAULT '{}');
    CREATE INDEX ON lines (chat);";

/// Attaches both; `states` says what the states mean, and `more` what the mapping of messages says besides.
fn attach_chats(session: &mut Session, policy: &str, plan: &str, states: &str, more: &str) {
    let mapping = format!(
        r#"{{"tenant": "shop", "conversation": "chat", "occurred_at": "said_at", "timezone": "UTC",
             "customer": "who_id", "model": "who"{more},
             "kinds": [{{"when": {{"hidden": true}}, "kind": "note"}},
                 {{"when": {{"who": "Contact"}}, "kind": "customer_message"}},
                 {{"when": {{"who": "Assistant"}}, "kind": "ai_reply"}},
                 {{"when": {{"who": "User"}}, "kind": "staff_reply"}},
                 {{"kind": "system_message"}}]}}"#
    );
    attach(session, "lines", policy, Some(plan), &mapping);
    session.run(&format!(
        r#"SELECT talkmeter.attach_status('chats', '{{"column": "state", "status": {states}, "tenant": "shop",
               "conversation": "id", "occurred_at": "touched", "timezone": "UTC"}}')"#
    ));
}

fn say(session: &mut Session, rows: &str) {
    session.run(&format!("INSERT INTO lines (chat, who, who_id, said_at, hidden) VALUES {rows}"));
}

#[test]
fn a_product_that_is_attached_while_it_runs_leaves_nothing_to_report_of_what_was_before() {
    let (_database, mut session) = with(CHATS);
    session.run("INSERT INTO chats (touched) SELECT '2026-03-01' FROM generate_series(1, 4)");
    say(&mut session, "(1, 'Contact', 5, '2026-03-01', false), (2, 'Contact', 6, '2026-03-01', false)");
    let states = r#"{"1": "close", "0": "escalate", "2": "reopen"}"#;
    attach_chats(&mut session, "agent_red", "agent_red/starter", states, "");
    // All that is old is closed, whether it has messages or not.
    session.run("UPDATE chats SET state = 1, touched = now()");
    // One customer writes again: first the message, then the state, then the answer.
    say(&mut session, "(1, 'Contact', 5, clock_timestamp(), false)");
    session.run("UPDATE chats SET state = 2, touched = clock_timestamp() WHERE id = 1");
    say(&mut session, "(1, 'Assistant', 1, clock_timestamp(), false)");
    // In an inbox of people a new conversation is open at once, which means that a person has it.
    session.run("INSERT INTO chats VALUES (90, 7, 0, now())");
    say(&mut session, "(90, 'Contact', 8, clock_timestamp(), false)");
    assert_eq!(
        session.lines("SELECT conversation, part, status, billable FROM talkmeter.parts ORDER BY 1"),
        ["1|1|open|t", "90|1|open|f"]
    );
    assert_eq!(session.lines("SELECT problem, object FROM talkmeter.health()"), NOTHING);
    is_sound(&mut session);
}

#[test]
fn in_a_reopened_part_the_customer_is_who_asked_and_not_the_person_who_left_a_note_before() {
    let (_database, mut session) = with(CHATS);
    let states = r#"{"1": "resolve", "0": "reopen"}"#;
    attach_chats(&mut session, "ai_resolution", "ai_resolution/usage", states, "");
    session.run("INSERT INTO chats VALUES (1, 7, 0, '2026-03-02 08:00')");
    say(
        &mut session,
        "(1, 'Contact', 5, '2026-03-02 08:00', false), (1, 'Assistant', 1, '2026-03-02 08:00:05', false)",
    );
    session.run("UPDATE chats SET state = 1, touched = '2026-03-02 08:10'");
    session.run("UPDATE chats SET state = 0, touched = '2026-03-02 09:00'");
    say(&mut session, "(1, 'User', 333, '2026-03-02 09:00:30', true)");
    say(
        &mut session,
        "(1, 'Contact', 5, '2026-03-02 09:01', false), (1, 'Assistant', 1, '2026-03-02 09:01:05', false)",
    );
    session.run("UPDATE chats SET state = 1, touched = '2026-03-02 09:10'");
    assert_eq!(
        session.lines("SELECT conversation, part, customer, models FROM talkmeter.audit_trail ORDER BY part"),
        ["1|1|5|{Assistant}", "1|2|5|{Assistant}"]
    );
    is_sound(&mut session);
}

#[test]
fn what_a_campaign_began_and_what_comes_in_by_a_test_inbox_is_not_billed() {
    let (_database, mut session) = with(CHATS);
    let excluded = r#", "excluded": [{"when": {"inbox": [8, 9]}, "because": "test"},
        {"when": {"extra->campaign_id": {"not": null}}, "because": "campaign"}]"#;
    attach_chats(&mut session, "lutingenie", "agent_red/starter", r#"{"1": "resolve"}"#, excluded);
    session.run(
        r#"INSERT INTO lines (chat, who, inbox, extra, said_at) VALUES
               (1, 'Contact', 1, '{"campaign_id": 7}', '2026-03-02 09:00'),
               (1, 'Assistant', 1, '{}', '2026-03-02 09:00:05'),
               (2, 'Contact', 1, '{"campaign_id": null}', '2026-03-02 09:00'),
               (2, 'Assistant', 1, '{}', '2026-03-02 09:00:05'),
               (3, 'Contact', 9, '{}', '2026-03-02 09:00'), (3, 'Assistant', 9, '{}', '2026-03-02 09:00:05')"#,
    );
    assert_eq!(
        session.lines("SELECT conversation, part, billable, not_billable_because FROM talkmeter.parts ORDER BY 1"),
        ["1|1|f|excluded", "2|1|t|", "3|1|f|excluded"]
    );
    assert_eq!(units(&mut session), ["agent_red|7|1|1", "ai_resolution|7|1|1", "lutingenie|7|1|1"]);
    is_sound(&mut session);
}

// --- Answers that stream, as Open WebUI writes them ---

#[test]
fn an_answer_that_is_written_empty_with_its_question_counts_once_it_is_done() {
    let (_database, mut session) = with(
        "CREATE TABLE said (ref text PRIMARY KEY, chat text, role text, body json, model text, done boolean,
             error json, at bigint);
         CREATE INDEX ON said (chat)",
    );
    let mapping = r#"{"tenant": {"constant": "w"}, "conversation": "chat", "message_id": "ref",
        "occurred_at": {"column": "at", "epoch": "seconds"}, "model": "model",
        "kinds": [{"when": {"role": "user"}, "kind": "customer_message"},
            {"when": {"error": {"not": null}}, "kind": "error"},
            {"when": {"role": "assistant", "done": true}, "kind": "ai_reply"},
            {"kind": "ignore"}]}"#;
    attach(&mut session, "said", "lutingenie", PLAN, mapping);
    // Whole seconds and random ids, of which that of the answer sorts before that of the question, after it, before it.
    for (chat, question, answer, at) in
        [("a", "f0", "a0", 1_772_442_000), ("b", "a1", "f1", 1_772_445_600), ("c", "f2", "a2", 1_772_449_200)]
    {
        session
            .run(&format!("INSERT INTO said VALUES ('{question}', '{chat}', 'user', '1', NULL, true, 'null', {at})"));
        session.run(&format!(
            "INSERT INTO said VALUES ('{answer}', '{chat}', 'assistant', '\"\"', 'm', false, 'null', {at})"
        ));
        assert_eq!(
            session.line(&format!("SELECT message_count FROM talkmeter.parts WHERE conversation = '{chat}'")),
            "1"
        );
        session.run(&format!("UPDATE said SET body = '\"He\"' WHERE ref = '{answer}'"));
        session.run(&format!("UPDATE said SET body = '\"Hello\"' WHERE ref = '{answer}'"));
        let end = if chat == "c" { r#"done = true, error = '{"content": "out of memory"}'"# } else { "done = true" };
        session.run(&format!("UPDATE said SET {end} WHERE ref = '{answer}'"));
    }
    assert_eq!(units(&mut session), ["agent_red|w|2|2", "ai_resolution|w|2|2", "lutingenie|w|2|2"]);
    assert_eq!(
        session.lines(
            "SELECT conversation, end_reason, billable, not_billable_because, started_at, charged_at,
                 message_count, turn_count
             FROM talkmeter.parts ORDER BY 1"
        ),
        [
            "a|idle|t||2026-03-02 09:00:00+00|2026-03-02 09:00:00+00|2|1",
            "b|idle|t||2026-03-02 10:00:00+00|2026-03-02 10:00:00+00|2|1",
            "c|idle|f|no_ai_reply|2026-03-02 11:00:00+00||1|0"
        ]
    );
    is_sound(&mut session);
}

// --- Migrations ---

#[test]
fn after_an_id_has_become_wider_a_new_kind_of_sender_is_metered_by_a_mapping_given_anew() {
    let mapping = |bots: &str| {
        format!(
            r#"{{"kinds": [{{"when": {{"role": "c"}}, "kind": "customer_message"}},
                {{"when": {{"role": {bots}}}, "kind": "ai_reply"}}]}}"#
        )
    };
    let both = mapping(r#"["a", "copilot"]"#);
    let turn = |first: u32, conversation: u32, who: &str| {
        format!(
            "INSERT INTO said (id, tenant_id, conversation_id, role)
             VALUES ({first}, 't', {conversation}, 'c'), ({first} + 1, 't', {conversation}, '{who}')"
        )
    };
    let billable = "SELECT conversation, billable FROM talkmeter.parts ORDER BY 1";
    for anew in [
        format!("SELECT talkmeter.remap('said', '{both}')"),
        format!(
            "SELECT talkmeter.detach('said');
             SELECT talkmeter.attach('said', 'lutingenie', default_plan => 'agent_red/starter', mapping => '{both}');
             SELECT talkmeter.retry_quarantine()"
        ),
    ] {
        let (_database, mut session) = with(
            "CREATE TABLE said (id int PRIMARY KEY, tenant_id varchar(255), conversation_id int,
                 created_at timestamptz DEFAULT clock_timestamp(), role varchar(20));
             CREATE INDEX ON said (conversation_id)",
        );
        attach(&mut session, "said", "lutingenie", PLAN, &mapping(r#""a""#));
        session.run(&turn(1, 1, "a"));
        session.run("ALTER TABLE said ALTER COLUMN id TYPE bigint");
        session.run(&turn(3, 2, "a"));
        assert_eq!(session.lines(billable), ["1|t", "2|t"]);
        session.run(&turn(5, 3, "copilot"));
        assert_eq!(quarantined(&mut session), ["3|6|no_kind"]);
        session.run(&anew);
        assert_eq!(session.lines(billable), ["1|t", "2|t", "3|t"], "{anew}");
        is_sound(&mut session);
    }
}

// --- A state that is set before its words are written, as Zammad does ---

/// Tickets in state 1 and their articles, both attached.
fn tickets() -> (Database, Session) {
    let (database, mut session) = with(
        "CREATE TABLE tickets (id serial PRIMARY KEY, state int NOT NULL DEFAULT 1, touched timestamp(3) NOT NULL);
         CREATE TABLE articles (id serial PRIMARY KEY, ticket int NOT NULL, sender int NOT NULL, author int NOT NULL,
             internal boolean NOT NULL DEFAULT false, at timestamp(3) NOT NULL);
         CREATE INDEX ON articles (ticket);
         INSERT INTO tickets (touched) SELECT '2026-03-02 08:00' FROM generate_series(1, 3)",
    );
    let mapping = r#"{"tenant": {"constant": "z"}, "conversation": "ticket", "occurred_at": "at", "timezone": "UTC",
        "kinds": [{"when": {"internal": true}, "kind": "note"}, {"when": {"sender": 2}, "kind": "customer_message"},
            {"when": {"sender": 3}, "kind": "system_message"}, {"when": {"author": 42}, "kind": "ai_reply"},
            {"kind": "staff_reply"}]}"#;
    attach(&mut session, "articles", "ai_resolution", Some("ai_resolution/usage"), mapping);
    session.run(
        r#"SELECT talkmeter.attach_status('tickets', '{"column": "state",
               "status": {"4": "close", "5": "close", "2": "reopen"},
               "tenant": {"constant": "z"}, "conversation": "id", "occurred_at": "touched", "timezone": "UTC"}')"#,
    );
    (database, session)
}

fn article(ticket: u32, sender: u32, author: u32, at: &str) -> String {
    format!(
        "INSERT INTO articles (ticket, sender, author, internal, at)
         VALUES ({ticket}, {sender}, {author}, {author} = 4, '2026-03-02 {at}');"
    )
}

fn state(ticket: u32, state: u32, at: &str) -> String {
    format!("UPDATE tickets SET state = {state}, touched = '2026-03-02 {at}' WHERE id = {ticket};")
}

#[test]
fn what_one_request_answers_and_closes_is_judged_by_who_answered() {
    let (_database, mut session) = tickets();
    for request in [
        // The AI answers and closes.
        article(1, 2, 5, "09:00:00.020"),
        state(1, 4, "09:00:20.100") + &article(1, 1, 42, "09:00:20.140"),
        // The AI answers, 4 leaves a note, and then a person answers and closes.
        article(2, 2, 6, "10:00:00.030"),
        article(2, 1, 42, "10:00:20"),
        article(2, 2, 6, "10:05:00"),
        article(2, 1, 4, "10:08:00"),
        state(2, 4, "10:10:00.100") + &article(2, 1, 3, "10:10:00.150"),
        // Closed without words, opened again by the customer's mail, merged into another.
        article(3, 2, 7, "11:00:00.010"),
        article(3, 3, 1, "11:00:01"),
        article(3, 1, 42, "11:00:30"),
        state(3, 4, "11:30:00"),
        state(3, 2, "12:00:00.000") + &article(3, 2, 7, "12:00:00.040"),
        article(3, 1, 42, "12:00:30"),
        state(3, 5, "12:20:00"),
    ] {
        session.run(&request);
    }
    assert_eq!(units(&mut session), ["agent_red|z|4|3", "ai_resolution|z|3|3", "lutingenie|z|4|3"]);
    assert_eq!(
        session.lines(
            "SELECT conversation, part, end_reason, billable, not_billable_because, to_char(started_at, 'HH24:MI:SS'),
                 to_char(charged_at, 'HH24:MI:SS'), message_count, turn_count, ai_replies, staff_replies
             FROM talkmeter.parts ORDER BY conversation, started_at"
        ),
        [
            "1|1|close|t||09:00:00|09:00:20|2|1|1|0",
            "2|1|close|f|staff_replied|10:00:00||4|1|1|1",
            "3|1|close|t||11:00:00|11:30:00|2|1|1|0",
            "3|2|close|t||12:00:00|12:20:00|2|1|1|0"
        ]
    );
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.unevaluated"), "0");
    is_sound(&mut session);
}
