//! Can names, types, paths or settings of somebody else's make talkmeter do anything but meter?

use postgres::error::SqlState;
use talkmeter_tests::{
    Database, Session, assert_same_rows, attach, create_messages, messages_mapping, parallel_mode, quoted, tell,
};

const PLAN: Option<&str> = Some("agent_red/starter");
const EXCHANGES: &str = r#"{"kinds": [{"kind": ["customer_message", "ai_reply"]}]}"#;

/// A role that may create schemas and do everything that talkmeter offers; its session, and a superuser's.
fn with_clerk(name: &str) -> (Database, Session, Session) {
    let database = Database::fresh(name);
    let mut session = database.connect();
    let clerk = database.role("clerk");
    session.run(&format!(
        "GRANT CREATE ON DATABASE {} TO {clerk};
         GRANT CREATE ON SCHEMA public TO {clerk};
         GRANT USAGE ON SCHEMA talkmeter TO {clerk};
         GRANT SELECT ON ALL TABLES IN SCHEMA talkmeter TO {clerk};
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA talkmeter TO {clerk}",
        database.name()
    ));
    let clerk = database.connect_as(&clerk);
    (database, session, clerk)
}

/// The conversations that were metered, with messages counted.
fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant, conversation, message_count FROM talkmeter.parts ORDER BY 1, 2, part")
}

// --- Paths ---

/// A schema with a stand-in for every function, operator, table and type of the system's, each of which fails.
const HOSTILE: &str = r#"
    CREATE SCHEMA hostile;
    GRANT USAGE ON SCHEMA hostile TO PUBLIC;
    SET check_function_bodies = off;
    DO $do$
    DECLARE
        it record;
    BEGIN
        FOR it IN
            SELECT p.proname AS name, string_agg(argument::regtype::text, ', ' ORDER BY place) AS arguments
            FROM pg_proc AS p LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS a (argument, place) ON true
            WHERE p.pronamespace = 'pg_catalog'::regnamespace
            GROUP BY p.oid
        LOOP
            BEGIN
                EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS boolean LANGUAGE plpgsql AS %L', it.name,
                    it.arguments, format('BEGIN RAISE ''hostile function %s''; END', it.name));
            EXCEPTION WHEN invalid_function_definition OR feature_not_supported THEN
                NULL; -- it takes what only the server can give
            END;
        END LOOP;
        FOR it IN
            SELECT oid, oprname AS name, nullif(oprleft, 0)::regtype AS l, oprright::regtype AS r
            FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
        LOOP
            BEGIN
                EXECUTE format('CREATE FUNCTION hostile.operator_%s(%s) RETURNS boolean LANGUAGE plpgsql AS %L', it.oid,
                    concat_ws(', ', it.l, it.r), 'BEGIN RAISE ''hostile operator''; END');
                EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.operator_%s, %s RIGHTARG = %s)', it.name,
                    it.oid, 'LEFTARG = ' || it.l || ',', it.r);
            EXCEPTION WHEN invalid_function_definition OR feature_not_supported THEN
                NULL;
            END;
        END LOOP;
        FOR it IN
            SELECT relname AS name FROM pg_class
            WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
        LOOP
            EXECUTE format('CREATE TABLE hostile.%I ()', it.name);
        END LOOP;
        FOR it IN
            SELECT typname AS name FROM pg_type
            WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typcategory <> 'A'
        LOOP
            EXECUTE format('CREATE DOMAIN hostile.%I AS pg_catalog.int4 CHECK (VALUE IS NULL)', it.name);
        END LOOP;
    END $do$;
"#;

#[test]
fn no_function_looks_through_the_search_path_of_its_caller() {
    let (_database, mut session, mut clerk) = with_clerk("path");
    create_messages(&mut session);
    session.run(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TABLE local_times (id uuid PRIMARY KEY, conversation_id varchar(20), created_at timestamp, mood mood,
             extra jsonb)",
    );
    session.run(HOSTILE);
    let stand_ins = session.line("SELECT count(*) FROM pg_proc WHERE pronamespace = 'hostile'::regnamespace");
    assert!(stand_ins.parse::<u32>().expect("a count") > 3_000, "{stand_ins}");
    let views = session.lines("SELECT viewname FROM pg_views WHERE schemaname = 'talkmeter'");
    let owner = clerk.line("SELECT current_user");
    session.run(&format!("ALTER TABLE messages OWNER TO {owner}; ALTER TABLE local_times OWNER TO {owner}"));
    // Tables and types are looked up among temporary ones first, unless the path says otherwise.
    clerk.run("CREATE TEMP TABLE pg_class (); CREATE TEMP TABLE pg_trigger (); CREATE TEMP TABLE text ()");
    clerk.run("SET search_path = hostile, pg_catalog, public");
    assert_eq!(clerk.refused("SELECT 1 = 1"), SqlState::RAISE_EXCEPTION);

    let attach = format!("attach('public.messages', 'own', {}, 'two'", quoted(&messages_mapping()));
    let mut call = |function: &str| clerk.run(&format!("SELECT * FROM talkmeter.{function}"));
    call(
        r#"define_policy('{"name": "own", "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close",
        "idle_timeout": "1 hour", "exclude_prefixes": ["x"], "effective_from": "2026-01-01T00:00:00Z"}')"#,
    );
    call(r#"define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "currency": "EUR"}')"#);
    call(r#"define_pack('{"name": "one", "size": 1, "price": 1, "currency": "EUR", "valid_for": "90 days"}')"#);
    call(&format!("{attach}, dry_run => true)"));
    call(&format!("{attach})"));
    call(
        r#"attach('public.local_times', 'own', '{"tenant": {"constant": "acme"}, "timezone": "Europe/Paris", "kinds": [
            {"when": {"mood": "good", "extra->by": "user"}, "kind": "customer_message"}, {"kind": "note"}]}')"#,
    );
    call("subscribe('acme', 'two', '2026-01-01', policy => 'own@1')");
    call("buy_pack('acme', 'one', 'order 1', '2026-03-01 00:00+00')");
    for conversation in ["a", "b", "c", "d"] {
        clerk.run(&format!(
            "BEGIN;
             INSERT INTO public.messages (tenant_id, conversation_id, created_at, kind) VALUES
                 ('acme', '{conversation}', '2026-03-01 10:00+00', 'exchange'),
                 ('acme', '{conversation}', '2026-03-01 10:01+00', 'unheard of'),
                 ('acme', '{conversation}', '2026-03-01 11:01+00', 'visit');
             SELECT talkmeter.flush();
             INSERT INTO public.messages (tenant_id, conversation_id, created_at, kind) VALUES
                 ('acme', '{conversation}', '2026-03-01 12:00+00', 'exchange');
             COMMIT"
        ));
    }
    clerk.run(
        r#"INSERT INTO public.local_times
           VALUES ('00000000-0000-0000-0000-000000000000', 'local', '2026-03-01 10:00', 'good', '{"by": "user"}')"#,
    );
    let mut call = |function: &str| clerk.run(&format!("SELECT * FROM talkmeter.{function}"));
    call("sweep()");
    call("health()");
    call("balance('acme')");
    views.iter().for_each(|view| call(view));
    call("detach('public.messages')");
    call("detach('public.local_times')");
    assert_eq!(session.line("SELECT count(*), sum(message_count) FROM talkmeter.parts"), "13|25");
    assert_eq!(session.line("SELECT count(*), count(DISTINCT tier) FROM talkmeter.charges"), "12|3");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "4");
}

/// How often tables of talkmeter's are read as a whole, and how often plans are made anew, while a new session inserts,
/// changes and deletes rows.
fn read_as_a_whole(database: &Database, settings: &str) -> Vec<String> {
    let mut session = database.connect();
    // Definitions are read as a whole, and again whenever the server says that something may have changed.
    let counts = "SELECT relname, seq_scan FROM pg_stat_user_tables
         WHERE schemaname = 'talkmeter' AND relname NOT IN ('source', 'policy', 'installation', 'threshold') ORDER BY 1";
    session.run("SELECT pg_stat_force_next_flush()");
    let before = session.lines(counts);
    session.run(settings);
    let conversation = format!("new {}", settings.len());
    tell(&mut session, "acme", &conversation, "10:00 exchange, 10:01 close");
    tell(&mut session, "acme", &conversation, "09:00 exchange, 09:01 unheard_of");
    session.run(&format!(
        "UPDATE messages SET created_at = created_at + interval '1 s' WHERE conversation_id = '{conversation}';
         DELETE FROM messages WHERE conversation_id = '{conversation}';
         SELECT talkmeter.mark('acme', '{conversation}', 'close');
         SELECT pg_stat_force_next_flush()"
    ));
    let after = session.lines(counts);
    let count = |line: &String| -> i64 { line.rsplit_once('|').expect("two columns").1.parse().expect("a count") };
    let name = |line: &String| line.split('|').next().expect("a name").to_owned();
    let more = before.iter().zip(&after).filter(|(before, after)| count(after) > count(before));
    more.map(|(before, after)| format!("{} {}", name(after), count(after) - count(before))).collect()
}

#[test]
fn no_setting_of_the_planner_makes_a_look_up_read_a_whole_table() {
    let database = Database::with_messages("weighed", "lutingenie", PLAN);
    database.connect().run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c' || n % 500, '2026-01-01 00:00+00'::timestamptz + n * interval '1 minute', 'visit'
         FROM generate_series(1, 5000) AS n",
    );
    let usual = read_as_a_whole(&database, "");
    for settings in [
        "SET random_page_cost = 1e12",
        "SET cpu_index_tuple_cost = 1e12; SET seq_page_cost = 0",
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off",
        "SET enable_nestloop = off; SET join_collapse_limit = 1; SET from_collapse_limit = 1",
    ] {
        assert_eq!(read_as_a_whole(&database, settings), usual, "{settings}");
    }
}

#[test]
fn the_installation_does_not_look_through_the_search_path_either() {
    let database = Database::empty("installed");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(HOSTILE);
    // The system has these only by way of a conversion: where both are found, these are the better match.
    session.run(
        "CREATE FUNCTION hostile.mixed(numeric, integer) RETURNS boolean LANGUAGE plpgsql
             AS $$ BEGIN RAISE 'hostile'; END $$;
         CREATE OPERATOR hostile.= (FUNCTION = hostile.mixed, LEFTARG = numeric, RIGHTARG = integer);
         CREATE OPERATOR hostile.< (FUNCTION = hostile.mixed, LEFTARG = numeric, RIGHTARG = integer);
         CREATE OPERATOR hostile.>= (FUNCTION = hostile.mixed, LEFTARG = numeric, RIGHTARG = integer)",
    );
    session.run("SET search_path = hostile, pg_catalog; CREATE EXTENSION talkmeter");
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan(
               '{"name": "one", "included": 1, "overage_rate": 0.1, "price": 1, "currency": "EUR"}');
           SELECT talkmeter.define_pack(
               '{"name": "one", "size": 1, "price": 1, "currency": "EUR", "valid_for": "90 days"}')"#,
    );
    attach(&mut session, "messages", "lutingenie", Some("one"), &messages_mapping());
    session.run("SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-03-01')");
    for conversation in ["a", "b", "c"] {
        tell(&mut session, "acme", conversation, "10:00 exchange, 10:01 unheard_of");
    }
    session.run("SELECT talkmeter.sweep(); SELECT * FROM talkmeter.health(); SELECT * FROM talkmeter.usage");
    assert_eq!(session.line("SELECT count(*), count(DISTINCT tier) FROM talkmeter.charges"), "3|3");
}

// --- Code and types of a table's owner ---

/// A clerk with a function that fails if anybody but the clerk runs it, and that the server runs where it can as soon
/// as it plans a statement.
fn with_trap() -> (Database, Session, Session) {
    let (database, session, mut clerk) = with_clerk("trap");
    let owner = clerk.line("SELECT current_user");
    clerk.run(&format!(
        "CREATE FUNCTION trap(integer) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
         BEGIN
             IF current_user <> '{owner}' THEN RAISE 'run as %', current_user; END IF;
             RETURN '';
         END $$"
    ));
    (database, session, clerk)
}

const COLUMNS: &str =
    "id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now()";

/// The owner of a table that the server cannot look at without running the trap attaches and detaches it.
fn attach_trapped(table: &str) {
    let (_database, mut session, mut clerk) = with_trap();
    clerk.run(table);
    // A row that attach finds.
    clerk.run("INSERT INTO messages (id, tenant_id, conversation_id) VALUES (2, 'acme', 'c')");
    attach(&mut clerk, "messages", "lutingenie", PLAN, EXCHANGES);
    clerk.run("INSERT INTO messages (id, tenant_id, conversation_id) VALUES (1, 'acme', 'c')");
    session.run("SELECT * FROM talkmeter.health()");
    clerk.run("SELECT talkmeter.detach('messages')");
    attach(&mut clerk, "messages", "lutingenie", PLAN, EXCHANGES);
    assert_eq!(counted(&mut session), ["acme|c|2"]);
    assert_eq!(session.line("SELECT starts_at > '-infinity' FROM talkmeter.sources"), "t");
}

#[test]
fn a_predicate_of_an_index_is_run_with_no_rights_but_its_owners() {
    attach_trapped(&format!(
        "CREATE TABLE messages ({COLUMNS}); CREATE INDEX ON messages (tenant_id) WHERE trap(1) = ''"
    ));
}

#[test]
fn an_expression_of_an_index_is_run_with_no_rights_but_its_owners() {
    attach_trapped(&format!("CREATE TABLE messages ({COLUMNS}); CREATE INDEX ON messages ((trap(1) || tenant_id))"));
}

#[test]
fn an_expression_of_statistics_is_run_with_no_rights_but_its_owners() {
    attach_trapped(&format!(
        "CREATE TABLE messages ({COLUMNS}); CREATE STATISTICS counts ON (trap(1) || tenant_id), id FROM messages"
    ));
}

#[test]
fn an_expression_of_a_column_is_run_with_no_rights_but_its_owners() {
    attach_trapped(&format!(
        "CREATE TABLE messages ({COLUMNS}, more text GENERATED ALWAYS AS (trap(1)) STORED,
             other text DEFAULT trap(1), CHECK (trap(1) = ''))"
    ));
}

#[test]
fn a_check_of_a_partition_is_run_with_no_rights_but_its_owners() {
    attach_trapped(&format!(
        "CREATE TABLE messages ({COLUMNS}) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF messages (CHECK (trap(1) = '')) DEFAULT;
         CREATE INDEX ON leaf (tenant_id) WHERE trap(1) = ''"
    ));
}

#[test]
fn an_expression_of_a_partition_key_is_run_with_no_rights_but_its_owners() {
    attach_trapped(
        "CREATE TABLE parted (id bigint, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now())
             PARTITION BY LIST ((trap(1) || tenant_id));
         CREATE TABLE messages PARTITION OF parted DEFAULT;
         CREATE UNIQUE INDEX ON messages (id)",
    );
}

#[test]
fn row_security_of_a_table_is_run_with_no_rights_but_its_owners() {
    attach_trapped(&format!(
        "CREATE TABLE messages ({COLUMNS});
         ALTER TABLE messages ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY all_rows ON messages USING (trap(1) = '')"
    ));
}

#[test]
fn types_of_a_user_are_refused_or_read_without_running_their_code() {
    let (_database, mut session, mut clerk) = with_trap();
    clerk.run(&format!(
        "CREATE FUNCTION is_name(text) RETURNS boolean LANGUAGE sql AS $$ SELECT public.trap(length($1)) = '' $$;
         CREATE DOMAIN name_of_it AS text CHECK (is_name(VALUE));
         CREATE TYPE sender AS ENUM ('user', 'bot');
         CREATE FUNCTION lie(sender) RETURNS text LANGUAGE sql AS $$ SELECT 'user' || public.trap(1) $$;
         CREATE CAST (sender AS text) WITH FUNCTION lie(sender) AS IMPLICIT;
         CREATE TYPE pair AS (a text, b text);
         CREATE TYPE spans AS RANGE (subtype = text);
         CREATE TABLE messages ({COLUMNS}, sender sender, pair pair, span spans, names name_of_it[]);
         ALTER TABLE messages ALTER tenant_id TYPE name_of_it, ALTER conversation_id TYPE name_of_it"
    ));
    for column in ["pair", "span", "names"] {
        for mapping in [
            format!(r#"{{"conversation": "{column}", "kinds": [{{"kind": "note"}}]}}"#),
            format!(r#"{{"kinds": [{{"when": {{"{column}": "x"}}, "kind": "note"}}]}}"#),
        ] {
            let code = clerk.refused(&format!("SELECT talkmeter.attach('messages', 'lutingenie', '{mapping}')"));
            assert_eq!(code, SqlState::DATATYPE_MISMATCH, "{mapping}");
        }
    }
    let mapping = r#"{"kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}]}"#;
    attach(&mut clerk, "messages", "lutingenie", PLAN, mapping);
    clerk.run(
        "INSERT INTO messages (id, tenant_id, conversation_id, sender)
         VALUES (1, 'acme', 'c', 'user'), (2, 'acme', 'c', 'bot')",
    );
    assert_eq!(counted(&mut session), ["acme|c|1"]);
    assert_eq!(session.lines("SELECT message_id, reason FROM talkmeter.quarantine"), ["2|no_kind"]);
}

// --- Names ---

/// Names that would not survive in a statement without quotes, up to the longest there are.
fn names() -> Vec<String> {
    let names = [
        "messages",
        "Messages",
        "select",
        "user",
        "new",
        "null",
        "talkmeter_new",
        "talkmeter_insert",
        "\"",
        "\"\"",
        "a\"b",
        "'",
        "''",
        "a'b",
        ";",
        "x; DROP TABLE victim; --",
        "\"; DROP TABLE victim; --",
        "'; DROP TABLE victim; --",
        "--",
        "/*",
        "*/",
        "$$",
        "$1",
        "%I",
        "%s%n",
        "\\",
        " ",
        " a ",
        "a.b",
        "\"a\".\"b\"",
        "a\tb",
        "a\nb",
        "é",
        "e\u{301}",
        "日本語",
        "😀",
        "\u{202e}abc",
        "0",
        "1e3",
        "{}",
        "[\"x\"]",
        "(select 1)",
    ];
    let long = ["x".repeat(63), "é".repeat(31), "\"".repeat(63)];
    names.into_iter().map(str::to_owned).chain(long).collect()
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A partitioned table with a schema, a partition and columns of such names is attached, metered and detached.
fn meter_under_names(session: &mut Session, schema: &str, table: &str, partition: &str, columns: [&str; 5]) {
    let [id, tenant, conversation, time, kind] = columns.map(identifier);
    let [schema, table, partition] = [schema, table, partition].map(identifier);
    session.run(&format!(
        "CREATE SCHEMA {schema};
         CREATE TABLE {schema}.{table} ({id} bigint PRIMARY KEY, {tenant} text, {conversation} text,
             {time} timestamptz DEFAULT now(), {kind} text) PARTITION BY RANGE ({id});
         CREATE TABLE {schema}.{partition} PARTITION OF {schema}.{table} DEFAULT"
    ));
    let insert = |id_value: i32, table: &str| {
        format!(
            "INSERT INTO {schema}.{table} ({id}, {tenant}, {conversation}, {kind})
             VALUES ({id_value}, 'acme', {}, 'x')",
            quoted(&schema)
        )
    };
    let attach = |dry_run: bool| {
        let [id, tenant, conversation, time, kind] = columns.map(quoted);
        format!(
            "SELECT message_id, tenant, kind
             FROM talkmeter.attach({}, 'lutingenie', default_plan => 'agent_red/starter', dry_run => {dry_run},
                 mapping => jsonb_build_object('message_id', {id}, 'tenant', {tenant}, 'conversation', {conversation},
                     'occurred_at', {time}, 'kinds', jsonb_build_array(
                         jsonb_build_object('when', jsonb_build_object({kind}, 'x'), 'kind', 'customer_message'))))",
            quoted(&format!("{schema}.{table}"))
        )
    };
    session.run(&insert(1, &table));
    assert_eq!(session.lines(&attach(true)), ["||customer_message: 1 row", "1|acme|customer_message"]);
    session.run(&attach(false));
    session.run(&insert(2, &table));
    session.run(&insert(3, &partition));
    // The index that health asks for is named as it must be.
    let hint = session
        .line("SELECT hint FROM talkmeter.health() WHERE problem <> 'posted_late' AND problem = 'index_missing'");
    session.run(&hint);
    assert_eq!(session.lines("SELECT * FROM talkmeter.health() WHERE problem <> 'posted_late'"), [""; 0]);
    session.run(&format!("SELECT talkmeter.detach({})", quoted(&format!("{schema}.{table}"))));
    session.run(&insert(4, &table));
    let count = format!("SELECT message_count FROM talkmeter.parts WHERE conversation = {}", quoted(&schema));
    assert_eq!(session.lines(&count), ["2"]);
    assert_eq!(session.lines("SELECT tgname FROM pg_trigger WHERE tgfoid = 'talkmeter.on_insert'::regproc"), [""; 0]);
    session.run(&format!("DROP SCHEMA {schema} CASCADE"));
}

#[test]
fn whatever_a_table_and_its_columns_are_called_they_are_metered_and_nothing_else_happens() {
    let database = Database::fresh("names");
    let mut session = database.connect();
    session.run("CREATE TABLE victim ()");
    let names = names();
    for index in 0..names.len() {
        let name = |offset: usize| names[(index + offset) % names.len()].as_str();
        println!("{:?}", name(0));
        let columns = [name(1), name(2), name(3), name(4), name(5)];
        meter_under_names(&mut session, name(0), name(0), name(6), columns);
    }
    let tables =
        "SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace";
    assert_eq!(session.lines(tables), ["victim"]);
}

// --- Settings ---

/// Whatever changes how values are written and read, or how statements are planned and run.
/// Stands for the setting that has another name since PostgreSQL 16.
const PARALLEL_MODE: &str = "parallel_mode";

const SETTINGS: [&str; 29] = [
    "DateStyle = 'German'",
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'Postgres, YMD'",
    "IntervalStyle = 'sql_standard'",
    "IntervalStyle = 'iso_8601'",
    "TimeZone = 'Asia/Kathmandu'",
    "TimeZone = 'America/Sao_Paulo'",
    "timezone_abbreviations = 'Australia'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "backslash_quote = on",
    "array_nulls = off",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
    "client_encoding = 'LATIN1'",
    "xmloption = 'document'",
    "search_path = ''",
    "row_security = off",
    "check_function_bodies = off",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on",
    "default_transaction_read_only = on",
    "session_replication_role = 'local'",
    "parallel_mode = 'regress'",
    "plan_cache_mode = 'force_custom_plan'",
    "jit_above_cost = 0",
    "enable_indexscan = off",
];

/// What a session that does always the same leaves behind under a setting.
fn billed_under(setting: &str) -> Vec<String> {
    let database = Database::fresh("settings");
    create_messages(&mut database.connect());
    let mut session = database.connect();
    session.run(&format!("SET {}", setting.replace(PARALLEL_MODE, parallel_mode())));
    session.run("BEGIN READ WRITE");
    session.run(&format!(
        r#"SELECT talkmeter.define_policy(
               '{{"name": "own", "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close",
                  "idle_timeout": "1 day 01:30:00.000001", "effective_from": "2026-01-02T03:04:05.000006Z"}}');
           SELECT talkmeter.define_plan(
               '{{"name": "two", "included": 2, "overage_rate": 0.1250, "price": 1e1, "currency": "EUR"}}');
           SELECT talkmeter.define_pack(
               '{{"name": "one", "size": 1, "price": "1.50", "currency": "EUR", "valid_for": "90 days 1 hour"}}');
           SELECT talkmeter.attach('public.messages', 'own', {}, 'two');
           SELECT talkmeter.buy_pack('tenant 1', 'one', 'order', '2026-03-01 00:00:00.000001+00');
           SELECT talkmeter.subscribe(
               'tenant 2', 'two', '2026-02-28 12:00+00', anchor_day => 31, policy => 'lutingenie')"#,
        quoted(&messages_mapping())
    ));
    session.run("COMMIT");
    for hour in 10..16 {
        session.run(&format!(
            "BEGIN READ WRITE;
             INSERT INTO public.messages (tenant_id, conversation_id, created_at, kind)
             SELECT tenant, conversation, time::timestamptz, kind
             FROM unnest(ARRAY['tenant 1', 'tenant 2']) AS tenant, (VALUES
                 ('NULL', '2026-03-01 {hour}:00:00.000001+00', 'exchange'),
                 ('c {hour}', '2026-03-01 {hour}:00+00', 'visit'),
                 (NULL, '2026-03-01 {hour}:00:01+00', 'exchange')) AS message (conversation, time, kind);
             SELECT talkmeter.flush();
             COMMIT"
        ));
    }
    session.run("BEGIN READ WRITE; SELECT talkmeter.sweep('2026-05-01 00:00+00'); COMMIT");
    let mut found = Vec::new();
    let mut session = database.connect();
    for relation in ["policies", "plans", "pack_offers", "packs", "subscription", "parts", "charges", "quarantine"] {
        found.extend(session.lines(&format!(
            "SELECT '{relation}', to_jsonb(t) - '{{posted_at,quarantined_at,subscribed_at,defined_at}}'::text[]
             FROM talkmeter.{relation} AS t ORDER BY 2"
        )));
    }
    found
}

#[test]
fn whatever_a_session_has_set_the_bill_is_the_same() {
    let expected = billed_under("DateStyle = 'ISO'");
    let of = |relation: &str| expected.iter().filter(|line| line.starts_with(relation)).count();
    assert_eq!(["parts", "charges", "quarantine"].map(of), [19, 19, 12]);
    for setting in SETTINGS {
        println!("{setting}");
        assert_same_rows(&billed_under(setting), &expected);
    }
}
