//! Does the application's insert succeed whatever its ids, times, columns, tables, roles and settings (rules 2, 3.7)?

use postgres::error::SqlState;
use std::collections::BTreeSet;
use talkmeter_tests::{
    Database, PLAN, Random, Session, attach, create_messages, messages_mapping, metered, parallel_mode, quoted, tell,
};

/// A database with a table of these columns attached under a mapping; rows without other kinds are exchanges.
fn attached(columns: &str, mapping: &str) -> (Database, Session) {
    let database = Database::fresh("ids");
    let mut session = database.connect();
    session.run(&format!("CREATE TABLE messages ({columns})"));
    attach(&mut session, "messages", "lutingenie", PLAN, mapping);
    (database, session)
}

/// The conversations that were metered, with tenant and messages counted.
fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant, conversation, message_count FROM talkmeter.parts ORDER BY 1, 2, part")
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT message_id, reason FROM talkmeter.quarantine ORDER BY 1, 2")
}

const EXCHANGES: &str = r#"{"kinds": [{"kind": ["customer_message", "ai_reply"]}]}"#;

// --- Shapes of ids ---

/// Ids of all shapes that a text can have.
fn shapes() -> Vec<String> {
    let mut random = Random::new(1);
    let mut noise = |length: usize| (0..length).map(|_| char::from(b'!' + random.below(90) as u8)).collect::<String>();
    let mut ids = vec![noise(512), noise(513), noise(1 << 20), "x".repeat(512), "x".repeat(513), "x".repeat(1 << 20)];
    // 512 and 513 bytes of characters of several bytes.
    ids.extend(["é".repeat(256), "é".repeat(256) + "x", "😀".repeat(128), "😀".repeat(128) + "x"]);
    let others = [
        "",
        " ",
        "  ",
        "a",
        "A",
        " a",
        "a ",
        "\t",
        "\n",
        "a\nb",
        "a\r\nb",
        "'",
        "''",
        "\"",
        "\\",
        "\\\\",
        "\\x00",
        "\\N",
        "%",
        "%s%n%d",
        "$1",
        "{}",
        "{NULL}",
        "null",
        "NULL",
        "(,)",
        "a,b",
        "|",
        "--",
        "/*",
        ";DROP TABLE messages;",
        "0",
        "00",
        "007",
        "7",
        "-7",
        "+7",
        "7.0",
        "1e3",
        "😀",
        "👩‍👩‍👧",
        "e\u{301}",
        "é",
        "ﬀ",
        "ff",
        "ß",
        "SS",
        "ı",
        "I",
        "i",
        "İ",
        "אבג",
        "\u{202e}abc",
        "a\u{200b}b",
        "a\u{200d}b",
        "\u{feff}a",
        "ｱ",
        "ア",
        "\u{1}",
        "\u{7f}",
        "\u{fffd}",
        "\u{10ffff}",
        "test",
        "_",
        "test_",
    ];
    ids.extend(others.map(str::to_owned));
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "shapes that are the same");
    ids
}

/// Inserts a message of each id, its own conversation unless the ids are those of conversations; all must be accepted,
/// and those short enough metered byte by byte.
fn any_shape(column: &str) {
    let (_database, mut session) = attached(
        "id text PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now()",
        EXCHANGES,
    );
    // An index holds no key of a megabyte. Attach asks for one; nothing keeps an application from dropping it.
    session.run("ALTER TABLE messages DROP CONSTRAINT messages_pkey");
    let ids = shapes();
    for (number, id) in ids.iter().enumerate() {
        let name = |own: &str| if own == column { id.clone() } else { format!("{own} {number}") };
        session
            .client
            .execute(
                "INSERT INTO messages (id, tenant_id, conversation_id) VALUES ($1, $2, $3)",
                &[&name("id"), &name("tenant_id"), &name("conversation_id")],
            )
            .unwrap_or_else(|error| panic!("{:?}: {error}", id.chars().take(80).collect::<String>()));
    }
    let bytes = |session: &mut Session, query: &str| -> BTreeSet<Vec<u8>> {
        session.client.query(query, &[]).expect(query).iter().map(|row| row.get::<_, Vec<u8>>(0)).collect()
    };
    let of_length = |short: bool| -> BTreeSet<Vec<u8>> {
        ids.iter().filter(|id| (id.len() <= 512) == short).map(|id| id.as_bytes().to_vec()).collect()
    };
    let cut = |id: Vec<u8>| {
        let text = std::str::from_utf8(&id).expect("a text");
        let end = (0..=512).rev().find(|end| text.is_char_boundary(*end)).expect("0 is one");
        id[..end].to_vec()
    };
    let (short, long) = (of_length(true), of_length(false));
    assert_eq!(counted(&mut session).len(), short.len());
    let metered = match column {
        "tenant_id" => "SELECT convert_to(tenant, 'UTF8') FROM talkmeter.charges",
        "conversation_id" => "SELECT convert_to(conversation, 'UTF8') FROM talkmeter.charges",
        // A message's id is not in the ledger: its conversation tells which were metered.
        _ => "SELECT convert_to(id, 'UTF8') FROM talkmeter.charges JOIN messages ON conversation_id = conversation",
    };
    assert!(bytes(&mut session, metered) == short, "not all short ids are metered byte by byte");
    let key = column.strip_suffix("_id").unwrap_or("message_id");
    let kept = format!("SELECT convert_to({key}, 'UTF8') FROM talkmeter.quarantine WHERE reason = 'key_too_long'");
    let lengths: BTreeSet<usize> = long.iter().map(Vec::len).collect();
    let count = long.len();
    assert!(bytes(&mut session, &kept) == long.into_iter().map(cut).collect(), "not all long ids are kept, cut");
    let said = "SELECT DISTINCT detail FROM talkmeter.quarantine";
    let expected: BTreeSet<String> = lengths.iter().map(|bytes| format!("\"{key}\" has {bytes} bytes.")).collect();
    assert_eq!(session.lines(said).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), count.to_string());
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), count.to_string());
    session.sweep("2026-01-01");
}

#[test]
fn conversation_ids_of_any_shape() {
    any_shape("conversation_id");
}

#[test]
fn tenants_of_any_shape() {
    any_shape("tenant_id");
}

#[test]
fn message_ids_of_any_shape() {
    any_shape("id");
}

#[test]
fn ids_of_any_shape_in_one_conversation_and_instant() {
    let (_database, mut session) = metered("lutingenie");
    session.run("ALTER TABLE messages DROP CONSTRAINT messages_pkey, ALTER id DROP IDENTITY");
    session.run("SELECT talkmeter.detach('messages')");
    session.run("ALTER TABLE messages ALTER id TYPE text, ADD UNIQUE (id)");
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    let rows: Vec<String> = shapes()
        .iter()
        .filter(|id| id.len() <= 512)
        .map(|id| format!("({}, 'acme', 'c', '2026-03-01', 'customer_message')", quoted(id)))
        .collect();
    session.run(&format!("INSERT INTO messages VALUES {}", rows.join(", ")));
    assert_eq!(counted(&mut session), [format!("acme|c|{}", rows.len())]);
}

// --- Types of keys ---

#[test]
fn keys_of_every_type_that_can_be_one() {
    for (key_type, one, another) in [
        ("uuid", "6F9619FF-8B86-D011-B42D-00C04FC964FF", "00000000-0000-0000-0000-000000000000"),
        ("bigint", "-9223372036854775808", "9223372036854775807"),
        ("integer", "-2147483648", "2147483647"),
        ("smallint", "-32768", "32767"),
        ("varchar(40)", "a ", "a"),
        ("text", "x", "X"),
        ("short_text", "x", " "),
        ("deep_id", "1", "2"),
    ] {
        let database = Database::fresh("keys");
        let mut session = database.connect();
        session.run(&format!(
            "CREATE DOMAIN short_text AS varchar(9) NOT NULL;
             CREATE DOMAIN positive AS bigint CHECK (VALUE > 0);
             CREATE DOMAIN deep_id AS positive;
             CREATE TABLE messages (id {key_type} PRIMARY KEY, tenant_id {key_type}, conversation_id {key_type},
                 created_at timestamptz DEFAULT now())"
        ));
        attach(&mut session, "messages", "lutingenie", PLAN, EXCHANGES);
        session.run(&format!(
            "INSERT INTO messages VALUES ('{one}', '{one}', '{another}'), ('{another}', '{another}', '{one}')"
        ));
        let wanted = session.lines("SELECT tenant_id::text, conversation_id::text, 2 FROM messages ORDER BY 1");
        assert_eq!(counted(&mut session), wanted, "{key_type}");
        assert_eq!(quarantined(&mut session), [""; 0], "{key_type}");
    }
}

#[test]
fn a_column_of_another_type_is_refused_as_key() {
    let database = Database::fresh("keys");
    let mut session = database.connect();
    session.run(
        "CREATE TYPE own AS (a int);
         CREATE TABLE messages (id bigint PRIMARY KEY, tenant_id text, created_at timestamptz,
             padded char(9), fraction numeric, instant timestamptz, own own, list text[])",
    );
    for column in ["padded", "fraction", "instant", "own", "list"] {
        let mapping = EXCHANGES.replacen('{', &format!(r#"{{"conversation": "{column}", "#), 1);
        let code = session.refused(&format!("SELECT talkmeter.attach('messages', 'lutingenie', '{mapping}')"));
        assert_eq!(code, SqlState::DATATYPE_MISMATCH, "{column}");
    }
}

#[test]
fn null_keys_are_quarantined() {
    let (_database, mut session) = metered("lutingenie");
    session.run("ALTER TABLE messages DROP CONSTRAINT messages_pkey; ALTER TABLE messages ALTER id DROP IDENTITY");
    session.run("ALTER TABLE messages ALTER id DROP NOT NULL");
    session.run(
        "INSERT INTO messages VALUES (1, NULL, 'c', now(), 'exchange'), (2, 'acme', NULL, now(), 'exchange'),
             (3, 'acme', 'c', NULL, 'exchange'), (NULL, 'acme', 'c', now(), 'exchange'),
             (5, 'acme', 'c', now(), 'exchange')",
    );
    assert_eq!(quarantined(&mut session), ["1|null_key", "2|null_key", "3|null_key", "|null_key"]);
    assert_eq!(counted(&mut session), ["acme|c|2"]);
}

// --- Times ---

#[test]
fn times_that_cannot_be_metered_are_quarantined() {
    let (_database, mut session) = metered("lutingenie");
    let times = [
        ("infinity", "time_out_of_range"),
        ("-infinity", "time_out_of_range"),
        ("10000-01-01 00:00+00", "time_out_of_range"),
        ("20000-01-01", "time_out_of_range"),
        ("294276-12-31 23:59:59.999999+00", "time_out_of_range"),
        ("0001-12-31 23:59:59.999999+00 BC", "time_out_of_range"),
        ("4713-11-24 00:00+00 BC", "time_out_of_range"),
        ("9999-12-31 23:59:59.999999+00", "future"),
    ];
    for (time, reason) in times {
        session.run(&format!("INSERT INTO messages VALUES (1, 'acme', 'c', '{time}', 'exchange')"));
        assert_eq!(quarantined(&mut session), [format!("1|{reason}")], "{time}");
        session.run("TRUNCATE messages; DELETE FROM talkmeter.quarantined");
    }
    session.run("INSERT INTO messages VALUES (1, 'acme', 'c', '0001-01-01 00:00+00', 'exchange')");
    assert_eq!(quarantined(&mut session), [""; 0]);
    assert_eq!(counted(&mut session), ["acme|c|2"]);
}

#[test]
fn a_row_further_ahead_than_max_future_is_quarantined() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "INSERT INTO messages VALUES (1, 'acme', 'ahead', clock_timestamp() + interval '6 minutes', 'exchange'),
             (2, 'acme', 'near', clock_timestamp() + interval '4 minutes', 'exchange')",
    );
    assert_eq!(quarantined(&mut session), ["1|future"]);
    assert_eq!(counted(&mut session), ["acme|near|2"]);
}

#[test]
fn a_timestamp_means_the_time_in_the_zone_of_the_mapping() {
    let (_database, mut session) = attached(
        "id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamp",
        r#"{"timezone": "Europe/Paris", "kinds": [{"kind": ["customer_message", "ai_reply"]}]}"#,
    );
    session.run(
        "SET TimeZone = 'Asia/Tokyo';
         INSERT INTO messages VALUES
             (1, 'acme', 'winter', '2026-01-15 12:00'), (2, 'acme', 'summer', '2026-07-15 12:00'),
             (3, 'acme', 'skipped', '2026-03-29 02:30'), (4, 'acme', 'twice', '2025-10-26 02:30'),
             (5, 'acme', 'c', 'infinity'), (6, 'acme', 'c', '-infinity'),
             (7, 'acme', 'c', '294276-12-31 23:59:59.999999'), (8, 'acme', 'c', '4713-11-24 00:00 BC'),
             (9, 'acme', 'c', NULL);
         SET TimeZone = 'UTC'",
    );
    // As the server itself understands these times.
    let found = session.lines(
        "SELECT conversation FROM talkmeter.parts JOIN messages ON conversation_id = conversation
         WHERE started_at = created_at AT TIME ZONE 'Europe/Paris' ORDER BY 1",
    );
    assert_eq!(found, ["skipped", "summer", "twice", "winter"]);
    let refused =
        ["5|time_out_of_range", "6|time_out_of_range", "7|time_out_of_range", "8|time_out_of_range", "9|null_key"];
    assert_eq!(quarantined(&mut session), refused);
}

// --- Kinds ---

#[test]
fn a_row_of_which_no_rule_speaks_is_quarantined() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 Customer_message, 10:02 ai_reply");
    session.run("INSERT INTO messages (tenant_id, conversation_id) VALUES ('acme', 'c')");
    assert_eq!(quarantined(&mut session), ["2|no_kind", "4|no_kind"]);
    assert_eq!(counted(&mut session), ["acme|c|2"]);
}

#[test]
fn kinds_by_enum_follow_its_labels() {
    let database = Database::fresh("kinds");
    let mut session = database.connect();
    session.run(
        "CREATE TYPE sender AS ENUM ('customer', 'bot');
         CREATE DOMAIN any_sender AS sender;
         CREATE TABLE messages (id bigint PRIMARY KEY, tenant_id text, conversation_id text,
             created_at timestamptz DEFAULT now(), sender any_sender)",
    );
    let mapping = r#"{"kinds": [{"when": {"sender": "customer"}, "kind": "customer_message"},
                                {"when": {"sender": ["bot", null]}, "kind": "ai_reply"}]}"#;
    let misspelt = mapping.replace("bot", "bott");
    let code = session.refused(&format!("SELECT talkmeter.attach('messages', 'lutingenie', '{misspelt}')"));
    assert_eq!(code, SqlState::DATATYPE_MISMATCH);
    attach(&mut session, "messages", "lutingenie", PLAN, mapping);
    session.run(
        "INSERT INTO messages (id, tenant_id, conversation_id, sender)
         VALUES (1, 'acme', 'c', 'customer'), (2, 'acme', 'c', 'bot'), (3, 'acme', 'c', NULL)",
    );
    session.run("ALTER TYPE sender ADD VALUE 'staff'");
    session.run("INSERT INTO messages VALUES (4, 'acme', 'c', now(), 'staff')");
    assert_eq!(counted(&mut session), ["acme|c|3"]);
    assert_eq!(quarantined(&mut session), ["4|no_kind"]);
}

#[test]
fn a_renamed_label_means_the_same_to_every_session() {
    let database = Database::fresh("kinds");
    let mut session = database.connect();
    session.run(
        "CREATE TYPE sender AS ENUM ('customer', 'bot');
         CREATE TABLE messages (id bigint PRIMARY KEY, tenant_id text, conversation_id text,
             created_at timestamptz DEFAULT clock_timestamp(), sender sender)",
    );
    let mapping = r#"{"kinds": [{"when": {"sender": "customer"}, "kind": "customer_message"},
                                {"when": {"sender": "bot"}, "kind": "ai_reply"}]}"#;
    attach(&mut session, "messages", "lutingenie", PLAN, mapping);
    session.run("INSERT INTO messages (id, tenant_id, conversation_id, sender) VALUES (1, 'acme', 'c', 'customer')");
    session.run("ALTER TYPE sender RENAME VALUE 'customer' TO 'visitor'");
    let outcome = |session: &mut Session, id: u32| {
        session.run(&format!(
            "INSERT INTO messages (id, tenant_id, conversation_id, sender)
             VALUES ({id}, 'acme', 'c', 'bot'), ({id} + 1, 'acme', 'c', 'visitor')"
        ));
        session.lines(&format!(
            "SELECT message_id::int - {id}, reason FROM talkmeter.quarantine WHERE message_id::int >= {id} ORDER BY 1"
        ))
    };
    let (old, new) = (outcome(&mut session, 10), outcome(&mut database.connect(), 20));
    assert_eq!(old, new, "outcomes in a session that knew the label and in a new one");
}

#[test]
fn kinds_by_paths_into_json() {
    for json in ["json", "jsonb"] {
        let (_database, mut session) = attached(
            &format!(
                "id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now(),
                 data {json}"
            ),
            r#"{"kinds": [{"when": {"data->from->role": "user"}, "kind": "customer_message"},
                          {"when": {"data->from->bot": true}, "kind": "ai_reply"},
                          {"when": {"data->code": [7, 8.5]}, "kind": "ai_reply"},
                          {"when": {"data->0": "first"}, "kind": "ai_reply"},
                          {"when": {"data->from": null}, "kind": "staff_reply"}]}"#,
        );
        let deep = "[".repeat(2_000) + &"]".repeat(2_000);
        let rows = [
            (r#"{"from": {"role": "user"}}"#, "customer"),
            (r#"{"from": {"bot": true}}"#, "ai"),
            (r#"{"from": {}, "code": 7.0}"#, "ai"),
            (r#"{"from": {}, "code": 85e-1}"#, "ai"),
            (r#"["first"]"#, "ai"),
            (r#"{"from": null}"#, "staff"),
            ("{}", "staff"),
            ("3", "staff"),
            ("null", "staff"),
            (r#"{"from": {"role": ["user"]}}"#, "none"),
            (r#"{"from": {"role": "USER", "bot": "true"}}"#, "none"),
            (r#"{"from": {}, "code": "7"}"#, "none"),
            (r#"{"from": {}, "code": 7e400}"#, "none"),
            (r#"{"from": {}, "code": 7.00000000000000000000000000000000000000000001}"#, "none"),
            (&deep, ""),
        ];
        for (id, (data, _)) in rows.iter().enumerate() {
            session.run(&format!("INSERT INTO messages VALUES ({id}, 'acme', 'c', DEFAULT, '{data}')"));
        }
        let count = |kind: &str| rows.iter().filter(|(_, wanted)| *wanted == kind).count();
        let replies =
            session.line("SELECT message_count - ai_replies - staff_replies, ai_replies FROM talkmeter.parts");
        assert_eq!(replies, format!("{}|{}", count("customer"), count("ai")), "{json}");
        let none =
            session.line("SELECT count(*) FROM talkmeter.quarantine WHERE reason = 'no_kind' AND message_id <> '14'");
        assert_eq!(none, count("none").to_string(), "{json}");
        session.run("INSERT INTO messages VALUES (99, 'acme', 'c', DEFAULT, NULL)");
        assert_eq!(session.line("SELECT staff_replies >= 5 FROM talkmeter.parts"), "t", "SQL's own NULL, {json}");
    }
}

// --- strict ---

#[test]
fn strict_raises_instead_and_the_insert_fails() {
    let database = Database::fresh("strict");
    let mut session = database.connect();
    create_messages(&mut session);
    // No index holds the long ones of these keys.
    session.run("DROP INDEX messages_tenant_id_conversation_id_created_at_idx");
    session.run(&format!(
        r#"SELECT talkmeter.attach('messages', 'lutingenie', {}, strict => true, default_plan => 'agent_red/starter');
           SELECT talkmeter.define_policy('{{"name": "not_yet", "starts_on": ["customer_message"], "ends_on": ["close"],
               "charge_on": "first_ai_reply", "effective_from": "2100-01-01T00:00:00Z"}}')"#,
        quoted(&messages_mapping())
    ));
    let values = |tenant: &str, time: &str, kind: &str| {
        format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ({tenant}, '%s%n', {time}, '{kind}')"
        )
    };
    let refused = [
        (values("NULL", "now()", "exchange"), SqlState::NOT_NULL_VIOLATION),
        (values("'acme'", "NULL", "exchange"), SqlState::NOT_NULL_VIOLATION),
        (values("'acme'", "now()", "other"), SqlState::CHECK_VIOLATION),
        (values("'acme'", "'infinity'", "exchange"), SqlState::DATETIME_FIELD_OVERFLOW),
        (values("'acme'", "now() + interval '1 day'", "exchange"), SqlState::DATETIME_FIELD_OVERFLOW),
        (values("repeat('%', 1000000)", "now()", "exchange"), SqlState::STRING_DATA_RIGHT_TRUNCATION),
    ];
    for (insert, code) in refused {
        assert_eq!(session.refused(&insert), code, "{:.200}", insert);
    }
    tell(&mut session, "acme", "c", "10:00 exchange");
    // That its part is sealed, or that no policy judges it, is known at commit.
    tell(&mut session, "acme", "sealed", "10:00 exchange, 10:01 exchange");
    session.run("DELETE FROM messages WHERE conversation_id = 'sealed'");
    session.run("BEGIN");
    tell(&mut session, "acme", "sealed", "09:59 exchange");
    assert_eq!(session.refused("COMMIT"), SqlState::CHECK_VIOLATION);
    session.run("SELECT talkmeter.subscribe('early', 'agent_red/starter', policy => 'not_yet')");
    session.run("BEGIN");
    tell(&mut session, "early", "c", "now exchange");
    assert_eq!(session.refused("COMMIT"), SqlState::UNDEFINED_OBJECT);
    session.run("ALTER TABLE messages DROP COLUMN kind");
    assert_eq!(
        session.refused("INSERT INTO messages (tenant_id, conversation_id) VALUES ('acme', 'c')"),
        SqlState::UNDEFINED_COLUMN
    );
    assert_eq!(counted(&mut session), ["acme|c|2", "acme|sealed|4"]);
    assert_eq!(session.line("SELECT count(*) FROM messages"), "1");
    assert_eq!(quarantined(&mut session), [""; 0]);
}

// --- Tables that change ---

/// Changes the table after a first row, while another session knows it as it was, and inserts a row by each.
fn after_change(change: &str, insert: &str) -> (Database, Session) {
    let (database, mut session) = metered("lutingenie");
    let mut other = database.connect();
    tell(&mut other, "acme", "first", "10:00 exchange");
    session.run(change);
    for session in [&mut session, &mut other] {
        session.run(insert);
    }
    (database, session)
}

#[test]
fn a_dropped_column_sends_rows_to_quarantine() {
    let insert = "INSERT INTO messages (tenant_id, created_at, kind) VALUES ('acme', now(), 'exchange')";
    let (_database, mut session) = after_change("ALTER TABLE messages DROP COLUMN conversation_id", insert);
    assert_eq!(quarantined(&mut session), ["2|mapping_broken", "3|mapping_broken"]);
    assert_eq!(counted(&mut session), ["acme|first|2"]);
    // A new column of the old name is another column.
    session.run("ALTER TABLE messages ADD conversation_id text DEFAULT 'c'");
    session.run(insert);
    assert_eq!(quarantined(&mut session).len(), 3);
}

#[test]
fn a_dropped_id_sends_rows_to_quarantine_without_it() {
    let insert = "INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', 'c', 'exchange')";
    let (_database, mut session) = after_change("ALTER TABLE messages DROP COLUMN id", insert);
    assert_eq!(quarantined(&mut session), ["|mapping_broken"; 2]);
}

/// What the id becomes, how a number becomes that, how the first is listed, and how it becomes a number again.
const RETYPED: [(&str, &str, &str, &str); 8] = [
    ("numeric", "number", "2", "id::bigint"),
    ("numeric(12, 2)", "number", "2.00", "id::bigint"),
    ("char(20)", "number::text", "2", "id::bigint"),
    ("double precision", "number", "2", "id::bigint"),
    ("text", "number::text", "2", "id::bigint"),
    ("bigint[]", "ARRAY[number]", "{2}", "id[1]"),
    ("date", "date '2026-01-01' + number::integer", "2026-01-03", "id - date '2026-01-01'"),
    // What only code of a user's could read is not read.
    ("own", "ROW(number)::own", "", "(id).own"),
];

/// Inserts rows with the numbers from 2 to 6: into a part that there is and into new ones, of no kind, and one that is
/// deleted again.
fn insert_numbered(session: &mut Session, columns: &str, number: &str) {
    session.run(&format!(
        "INSERT INTO messages ({columns}, tenant_id, conversation_id, created_at, kind)
         SELECT {number}, 'acme', v.conversation, v.at::timestamptz, v.kind
         FROM (VALUES (2::bigint, 'first', '2026-03-01 10:01+00', 'exchange'), (3, 'c', '2026-03-01 10:00+00', 'exchange'),
             (4, 'c', '2026-03-01 10:01+00', 'customer_message'), (5, 'd', '2026-03-01 10:00+00', 'unheard_of'),
             (6, 'gone', '2026-03-01 10:00+00', 'exchange')) AS v (number, conversation, at, kind);
         DELETE FROM messages WHERE conversation_id = 'gone'"
    ));
}

fn assert_numbered_are_metered(session: &mut Session, what: &str) {
    assert_eq!(quarantined(session), ["5|no_kind"], "{what}");
    assert_eq!(counted(session), ["acme|c|3", "acme|first|4"], "{what}");
    assert_eq!(session.lines("SELECT problem FROM talkmeter.verify()"), [""; 0], "{what}");
    // It is the same when it is read once more.
    session.run("SELECT talkmeter.mark('acme', 'first', 'note', '2026-03-01 10:00:30+00')");
    assert_eq!(counted(session), ["acme|c|3", "acme|first|4"], "{what}, late");
}

#[test]
fn an_id_of_another_type_is_listed_as_text_and_its_row_is_metered_when_the_type_is_back() {
    for (becomes, made, listed, back) in RETYPED {
        let (_database, mut session) = metered("lutingenie");
        tell(&mut session, "acme", "first", "10:00 exchange");
        session.run(&format!(
            "CREATE TYPE own AS (own bigint); ALTER TABLE messages ALTER id DROP IDENTITY;
             ALTER TABLE messages ALTER id TYPE {becomes} USING {}",
            made.replace("number", "id")
        ));
        insert_numbered(&mut session, "id", made);
        let first = "SELECT COALESCE(min(message_id), ''), count(*), max(reason) FROM talkmeter.quarantine";
        assert_eq!(session.line(first), format!("{listed}|5|mapping_broken"), "{becomes}");
        session.run(&format!("ALTER TABLE messages ALTER id TYPE bigint USING {back}"));
        assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "4", "{becomes}");
        assert_numbered_are_metered(&mut session, becomes);
    }
}

#[test]
fn rows_that_were_given_ids_of_another_kind_are_not_charged_again_when_another_mapping_reads_them() {
    let (_database, mut session) = attached(
        "id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz",
        r#"{"kinds": [{"kind": ["customer_message", "ai_reply", "close"]}]}"#,
    );
    session.run(
        "INSERT INTO messages
         SELECT number, 'acme', 'c' || number % 3, '2026-03-01 10:00+00'::timestamptz + number * interval '1 hour'
         FROM generate_series(1, 9) AS number",
    );
    let bill = "SELECT count(*), count(DISTINCT (conversation, part)), sum(amount) FROM talkmeter.charges";
    let before = session.line(bill);
    assert!(before.starts_with("9|9|"), "{before}");
    session.run(
        "ALTER TABLE messages ALTER id TYPE uuid USING lpad(id::text, 32, '0')::uuid;
         SELECT FROM talkmeter.remap('messages', '{\"kinds\": [{\"kind\": [\"customer_message\", \"ai_reply\", \"close\"]}]}',
             since => '2026-03-01')",
    );
    assert_eq!((session.line(bill), quarantined(&mut session)), (before, vec![]));
    // One that comes late finds parts whose rows are gone.
    let come = "INSERT INTO messages VALUES (gen_random_uuid(), 'acme', 'c1', '2026-03-01 12:30+00'),
                    (gen_random_uuid(), 'acme', 'c1', '2026-03-01 23:30+00')";
    session.run(come);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "10");
    assert_eq!(
        session.lines("SELECT occurred_at, reason FROM talkmeter.quarantine"),
        ["2026-03-01 12:30:00+00|sealed"]
    );
    assert_eq!(session.lines("SELECT problem FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_row_that_came_while_metering_was_off_and_its_id_was_of_another_type_is_metered_too() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "first", "10:00 exchange");
    session.run("ALTER TABLE messages ALTER id DROP IDENTITY; ALTER TABLE messages ALTER id TYPE numeric(12, 2)");
    session.run("SET talkmeter.enabled = off");
    insert_numbered(&mut session, "id", "number");
    session.run("SET talkmeter.enabled = on; ALTER TABLE messages ALTER id TYPE bigint");
    assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "4");
    assert_numbered_are_metered(&mut session, "off");
}

#[test]
fn rows_that_came_with_no_id_or_one_of_before_are_metered_once_another_column_is_their_id() {
    for drop in ["", "ALTER TABLE messages DROP COLUMN id"] {
        let (_database, mut session) = metered("lutingenie");
        tell(&mut session, "acme", "first", "10:00 exchange");
        session.run(
            "ALTER TABLE messages ADD number bigint UNIQUE; UPDATE messages SET number = id;
             ALTER TABLE messages ALTER id DROP IDENTITY, ALTER id SET DEFAULT 0, DROP CONSTRAINT messages_pkey;
             ALTER TABLE messages ALTER id DROP DEFAULT; ALTER TABLE messages ALTER id TYPE numeric USING id + 3",
        );
        session.run(drop);
        let columns = if drop.is_empty() { "id, number" } else { "number" };
        insert_numbered(&mut session, columns, if drop.is_empty() { "number + 3, number" } else { "number" });
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine WHERE reason = 'mapping_broken'"), "5");
        let mapping = messages_mapping().replacen('{', r#"{"message_id": "number", "#, 1);
        session.run(&format!("SELECT FROM talkmeter.remap('messages', {})", quoted(&mapping)));
        assert_numbered_are_metered(&mut session, drop);
    }
}

#[test]
fn a_retyped_column_sends_rows_to_quarantine() {
    for change in [
        "ALTER TABLE messages ALTER tenant_id TYPE bytea USING tenant_id::bytea",
        "ALTER TABLE messages ALTER conversation_id TYPE char(20)",
        "ALTER TABLE messages ALTER created_at DROP DEFAULT, ALTER created_at TYPE timestamp",
        "ALTER TABLE messages ALTER excluded DROP DEFAULT, ALTER excluded TYPE text USING excluded::text",
    ] {
        let insert = "INSERT INTO messages (tenant_id, conversation_id, created_at, kind, excluded)
                      VALUES ('acme', 'c', now(), 'exchange', false)";
        let (_database, mut session) = after_change(change, insert);
        assert_eq!(quarantined(&mut session), ["2|mapping_broken", "3|mapping_broken"], "{change}");
    }
}

#[test]
fn a_renamed_column_is_followed() {
    let change = "ALTER TABLE messages RENAME conversation_id TO thread;
                  ALTER TABLE messages RENAME tenant_id TO conversation_id;
                  ALTER TABLE messages RENAME TO chat; CREATE SCHEMA app; ALTER TABLE chat SET SCHEMA app";
    let insert = "INSERT INTO app.chat (conversation_id, thread, kind) VALUES ('acme', 'c', 'exchange')";
    let (_database, mut session) = after_change(change, insert);
    assert_eq!(counted(&mut session), ["acme|c|4", "acme|first|2"]);
}

#[test]
fn columns_that_the_mapping_does_not_name_may_change() {
    let change = "ALTER TABLE messages ADD body text; ALTER TABLE messages ALTER excluded DROP NOT NULL";
    let insert =
        "INSERT INTO messages (tenant_id, conversation_id, kind, excluded) VALUES ('acme', 'c', 'exchange', NULL)";
    let (_database, mut session) = after_change(change, insert);
    assert_eq!(counted(&mut session), ["acme|c|4", "acme|first|2"]);
    session.run("ALTER TABLE messages DROP COLUMN body");
    session.run(insert);
    assert_eq!(counted(&mut session), ["acme|c|6", "acme|first|2"]);
}

const PARTITIONED: &str = "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text,
    created_at timestamptz DEFAULT now(), PRIMARY KEY (id, tenant_id)) PARTITION BY LIST (tenant_id)";

fn partitioned() -> (Database, Session) {
    let database = Database::fresh("partitions");
    let mut session = database.connect();
    session.run(PARTITIONED);
    session
        .run("CREATE INDEX ON messages (conversation_id); CREATE TABLE leaf PARTITION OF messages FOR VALUES IN ('a')");
    attach(&mut session, "messages", "lutingenie", PLAN, EXCHANGES);
    (database, session)
}

#[test]
fn a_partition_that_was_detached_takes_rows_without_metering_them() {
    let (_database, mut session) = partitioned();
    session.run("ALTER TABLE messages DETACH PARTITION leaf");
    session.run("INSERT INTO leaf VALUES (1, 'a', 'c')");
    assert_eq!(counted(&mut session), [""; 0]);
}

#[test]
fn a_partition_that_has_no_trigger_is_metered_by_way_of_the_parent_and_health_says_that_it_is_not_directly() {
    let (_database, mut session) = partitioned();
    session.run("ALTER EVENT TRIGGER talkmeter_partitions DISABLE");
    session.run("CREATE TABLE added PARTITION OF messages FOR VALUES IN ('b')");
    session.run("INSERT INTO messages VALUES (1, 'b', 'c')");
    session.run("INSERT INTO added VALUES (2, 'b', 'c')");
    assert_eq!(counted(&mut session), ["b|c|2"]);
    assert_eq!(
        session.lines("SELECT problem, object FROM talkmeter.health() WHERE problem <> 'posted_late'"),
        ["trigger_missing|public.added"]
    );
}

/// PostgreSQL demands that the primary key hold the partition keys of both.
#[test]
fn a_table_whose_partitions_are_partitioned_by_another_column_is_attached_and_metered_once() {
    let database = Database::fresh("partitions");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now(),
             PRIMARY KEY (id, created_at, tenant_id)) PARTITION BY RANGE (created_at);
         CREATE TABLE later PARTITION OF messages FOR VALUES FROM ('2026-01-01') TO (MAXVALUE) PARTITION BY LIST (tenant_id);
         CREATE TABLE leaf PARTITION OF later DEFAULT;
         CREATE INDEX ON messages (tenant_id, conversation_id)",
    );
    attach(&mut session, "messages", "lutingenie", PLAN, EXCHANGES);
    for (id, table) in [(1, "messages"), (2, "later"), (3, "leaf")] {
        session.run(&format!("INSERT INTO {table} VALUES ({id}, 'a', 'c')"));
    }
    assert_eq!(counted(&mut session), ["a|c|6"]);
    assert_eq!(session.lines("SELECT problem FROM talkmeter.health() WHERE problem <> 'posted_late'"), [""; 0]);
}

#[test]
fn an_index_that_holds_a_column_of_no_partition_key_does_not_make_an_id_unique() {
    let database = Database::fresh("partitions");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now(),
             PRIMARY KEY (id, tenant_id, conversation_id)) PARTITION BY LIST (tenant_id);
         CREATE TABLE leaf PARTITION OF messages DEFAULT",
    );
    let attach = format!("SELECT talkmeter.attach('messages', 'lutingenie', '{EXCHANGES}')");
    assert_eq!(session.refused(&attach), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
}

// --- Ways to insert ---

#[test]
fn rows_of_partitions_are_metered_once_by_way_of_the_parent_and_directly() {
    let database = Database::fresh("partitions");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, gone text, conversation_id text,
             created_at timestamptz DEFAULT now(), kind text DEFAULT 'exchange', excluded boolean,
             PRIMARY KEY (id, tenant_id)) PARTITION BY LIST (tenant_id);
         CREATE TABLE same PARTITION OF messages FOR VALUES IN ('a');
         CREATE TABLE other (excluded boolean, kind text DEFAULT 'exchange', conversation_id text, unused int,
             gone text, created_at timestamptz DEFAULT now(), tenant_id text NOT NULL, id bigint NOT NULL);
         ALTER TABLE other DROP unused;
         ALTER TABLE messages ATTACH PARTITION other FOR VALUES IN ('b');
         CREATE TABLE middle PARTITION OF messages FOR VALUES IN ('c') PARTITION BY HASH (id);
         CREATE TABLE leaf PARTITION OF middle FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         ALTER TABLE messages DROP gone",
    );
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    session.run(
        "INSERT INTO messages (id, tenant_id, conversation_id) VALUES (1, 'a', 'x'), (1, 'b', 'x'), (1, 'c', 'x');
         INSERT INTO same (id, tenant_id, conversation_id) VALUES (2, 'a', 'x');
         INSERT INTO other (id, tenant_id, conversation_id) VALUES (2, 'b', 'x');
         INSERT INTO middle (id, tenant_id, conversation_id) VALUES (2, 'c', 'x');
         INSERT INTO leaf (id, tenant_id, conversation_id) VALUES (3, 'c', 'x')",
    );
    session.copy_in("COPY messages (id, tenant_id, conversation_id) FROM STDIN", b"4\ta\tx\n4\tb\tx\n4\tc\tx\n");
    session.copy_in("COPY other (id, tenant_id, conversation_id) FROM STDIN", b"5\tb\tx\n");
    assert_eq!(counted(&mut session), ["a|x|6", "b|x|8", "c|x|8"]);
    session.run("UPDATE messages SET tenant_id = 'a' WHERE tenant_id = 'b' AND id = 5");
    assert_eq!(counted(&mut session), ["a|x|8", "b|x|6", "c|x|8"]);
    session.run("SELECT talkmeter.detach('messages')");
    session.run("INSERT INTO other (id, tenant_id, conversation_id) VALUES (6, 'b', 'x')");
    assert_eq!(counted(&mut session)[1], "b|x|6");
    assert_eq!(quarantined(&mut session), [""; 0]);
}

#[test]
fn on_conflict_meters_what_was_inserted() {
    let (_database, mut session) = metered("lutingenie");
    let insert = |id: &str| {
        format!("INSERT INTO messages VALUES ({id}, 'acme', 'c', clock_timestamp(), 'exchange') ON CONFLICT")
    };
    session.run(&format!("{} DO NOTHING", insert("1")));
    session.run(&format!("{} DO NOTHING", insert("1")));
    session.run(&format!("{} (id) DO UPDATE SET excluded = true", insert("1")));
    session.run(&format!("{} (id) DO UPDATE SET excluded = true", insert("2")));
    assert_eq!(counted(&mut session), ["acme|c|4"]);
    assert_eq!(session.lines("SELECT excluded FROM messages ORDER BY id"), ["t", "f"]);
}

#[test]
fn values_that_are_stored_out_of_line_are_read() {
    let (_database, mut session) = attached(
        "id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now(), data jsonb",
        r#"{"kinds": [{"when": {"data->by": "user"}, "kind": "customer_message"}]}"#,
    );
    session.run(
        "CREATE TABLE old (LIKE messages);
         ALTER TABLE old ALTER conversation_id SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL;
         INSERT INTO old VALUES (1, 'acme', 'c', now(), jsonb_build_object('by', 'user', 'text', repeat('x', 1000000))),
             (2, 'acme', repeat('c', 100000), now(), '{\"by\": \"user\"}');
         INSERT INTO messages SELECT * FROM old",
    );
    assert_eq!(counted(&mut session), ["acme|c|1"]);
    let kept = "SELECT conversation = repeat('c', 512), reason FROM talkmeter.quarantine";
    assert_eq!(session.lines(kept), ["t|key_too_long"]);
}

#[test]
fn inserts_of_every_form_are_metered_once() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "ALTER TABLE messages ALTER tenant_id SET DEFAULT 'acme', ALTER kind SET DEFAULT 'exchange';
         CREATE TABLE inbox (conversation text);
         CREATE VIEW chat AS SELECT conversation_id FROM messages;
         CREATE FUNCTION say(conversation text) RETURNS void LANGUAGE sql
             AS $$ INSERT INTO messages (conversation_id) VALUES (conversation) $$;
         CREATE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM say(NEW.conversation); RETURN NULL; END $$;
         CREATE TRIGGER pass_on AFTER INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION pass_on();
         INSERT INTO messages (conversation_id) SELECT 'select' FROM generate_series(1, 3);
         WITH one AS (INSERT INTO messages (conversation_id) VALUES ('cte') RETURNING id),
             two AS (INSERT INTO messages (conversation_id) VALUES ('cte') RETURNING id)
         INSERT INTO messages (conversation_id) SELECT 'cte' FROM one, two;
         WITH one AS (INSERT INTO messages (conversation_id) VALUES ('cte only') RETURNING id) SELECT * FROM one;
         INSERT INTO chat VALUES ('view');
         SELECT say('function');
         INSERT INTO inbox VALUES ('trigger'), ('trigger');
         MERGE INTO messages AS m USING (VALUES ('merge')) AS new (conversation) ON m.conversation_id = new.conversation
             WHEN NOT MATCHED THEN INSERT (conversation_id) VALUES (new.conversation)",
    );
    session.copy_in("COPY messages (conversation_id) FROM STDIN", b"copy\n");
    let wanted = [
        "acme|copy|2",
        "acme|cte|6",
        "acme|cte only|2",
        "acme|function|2",
        "acme|merge|2",
        "acme|select|6",
        "acme|trigger|4",
        "acme|view|2",
    ];
    assert_eq!(counted(&mut session), wanted);
}

// --- Roles and their settings ---

/// Everything of which an unqualified name in talkmeter's own SQL could fall for: each raises an error.
fn hostile() -> String {
    let function = |signature: &str, returns: &str| {
        format!(
            "CREATE FUNCTION hostile.{signature} RETURNS {returns} LANGUAGE plpgsql
                 AS $$ BEGIN RAISE 'hostile'; END $$;"
        )
    };
    let operator = |left: &str, right: &str| {
        function(&format!("equal({left}, {right})"), "boolean")
            + &format!("CREATE OPERATOR hostile.= (FUNCTION = hostile.equal, LEFTARG = {left}, RIGHTARG = {right});")
    };
    let definitions = [
        "CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC;".to_owned(),
        operator("text", "text"),
        operator("oid", "oid"),
        operator("integer", "integer"),
        operator("name", "text"),
        function("unnest(text[])", "SETOF text"),
        function("pg_partition_ancestors(regclass)", "SETOF regclass"),
        function("format_type(oid, integer)", "text"),
        function("clock_timestamp()", "timestamptz"),
        "CREATE TABLE hostile.part (tenant text); CREATE TYPE hostile.text AS ENUM ('x')".to_owned(),
    ];
    definitions.concat()
}

#[test]
fn a_role_that_may_only_insert_is_metered_and_reads_nothing_of_talkmeter() {
    let (database, mut session) = metered("lutingenie");
    let app = database.role("app");
    session.run(&format!("GRANT INSERT ON messages TO {app}"));
    let mut inserter = database.connect_as(&app);
    tell(&mut inserter, "acme", "c", "10:00 exchange, 10:01 unheard_of");
    inserter.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    tell(&mut inserter, "acme", "c", "10:02 exchange");
    inserter.run("COMMIT");
    let tables = session.lines(
        "SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind IN ('r', 'v', 'S')",
    );
    assert!(tables.len() > 20);
    // Rights on the schema alone open nothing in it.
    for _ in 0..2 {
        for table in &tables {
            let code = inserter.refused(&format!("SELECT * FROM talkmeter.{table}"));
            assert_eq!(code, SqlState::INSUFFICIENT_PRIVILEGE, "{table}");
        }
        for call in
            ["flush()", "sweep()", "balance('acme')", "subscribe('acme', 'agent_red/starter')", "detach('messages')"]
        {
            let code = inserter.refused(&format!("SELECT talkmeter.{call}"));
            assert_eq!(code, SqlState::INSUFFICIENT_PRIVILEGE, "{call}");
        }
        session.run(&format!("GRANT USAGE ON SCHEMA talkmeter TO {app}"));
    }
    assert_eq!(counted(&mut session), ["acme|c|4"]);
    assert_eq!(quarantined(&mut session), ["2|no_kind"]);
    // What the insert did with other rights did not leave any behind.
    assert_eq!(inserter.line("SELECT current_user, session_user"), format!("{app}|{app}"));
}

#[test]
fn a_hostile_search_path_has_no_effect_on_metering() {
    let (database, mut session) = metered("lutingenie");
    let app = database.role("app");
    session.run(&hostile());
    session.run(&format!(
        "GRANT INSERT ON messages TO {app}; ALTER ROLE {app} SET search_path = hostile, pg_catalog, public"
    ));
    let mut inserter = database.connect_as(&app);
    assert!(inserter.refused("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text") == SqlState::RAISE_EXCEPTION);
    tell(&mut inserter, "acme", "c", "10:00 exchange, 10:01 unheard_of");
    inserter.run("BEGIN; CREATE TEMP TABLE part (); CREATE TEMP TABLE source ()");
    tell(&mut inserter, "acme", "c", "10:02 exchange");
    inserter.run("COMMIT");
    assert_eq!(counted(&mut session), ["acme|c|4"]);
    assert_eq!(quarantined(&mut session), ["2|no_kind"]);
    assert_eq!(inserter.line("SHOW search_path"), "hostile, pg_catalog, public");
}

#[test]
fn settings_of_a_session_have_no_effect_on_metering() {
    let (_database, mut session) = metered("lutingenie");
    session.run(&format!(
        "SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'Asia/Kathmandu';
         SET client_encoding = 'LATIN1'; SET standard_conforming_strings = off; SET bytea_output = 'escape';
         SET transform_null_equals = on; SET row_security = off;
         SET plan_cache_mode = 'force_custom_plan'; SET {} = on; SET enable_indexscan = off;
         SET enable_nestloop = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SET work_mem = '64kB';
         SET default_tablespace = ''; SET lc_messages = 'C'; SET xmloption = 'document'; SET array_nulls = off",
        parallel_mode()
    ));
    tell(&mut session, "NULL", "c", "10:00 exchange, 10:01 unheard_of");
    tell(&mut session, "NULL", "c", "10:02 exchange");
    session.run("RESET ALL");
    assert_eq!(counted(&mut session), ["NULL|c|4"]);
    assert_eq!(session.lines("SELECT tenant, reason FROM talkmeter.quarantine"), ["NULL|no_kind"]);
    assert_eq!(session.line("SELECT charged_at FROM talkmeter.charges"), "2026-03-01 10:00:00+00");
}

#[test]
fn names_that_a_session_wants_quoted_have_no_effect_on_metering() {
    let (_database, mut session) = metered("lutingenie");
    session.run("SET quote_all_identifiers = on");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(quarantined(&mut session), [""; 0]);
    assert_eq!(counted(&mut session), ["acme|c|2"]);
}

#[test]
fn a_hostile_search_path_does_not_make_anybody_owner_of_a_table() {
    let (database, mut session) = metered("lutingenie");
    let clerk = database.role("clerk");
    session.run(&format!(
        "CREATE SCHEMA hostile;
         CREATE FUNCTION hostile.pg_has_role(oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE TABLE letters (LIKE messages INCLUDING INDEXES);
         GRANT USAGE ON SCHEMA talkmeter, hostile TO {clerk};
         GRANT EXECUTE ON FUNCTION talkmeter.attach, talkmeter.detach TO {clerk}"
    ));
    let mapping = quoted(&messages_mapping());
    for path in ["public", "hostile, pg_catalog, public"] {
        let mut session = database.connect_as(&clerk);
        session.run(&format!("SET search_path = {path}"));
        for call in
            [format!("attach('public.letters', 'lutingenie', {mapping})"), "detach('public.messages')".to_owned()]
        {
            let code = session.refused(&format!("SELECT talkmeter.{call}"));
            assert_eq!(code, SqlState::INSUFFICIENT_PRIVILEGE, "search_path {path}");
        }
    }
}
