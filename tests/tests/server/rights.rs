//! Who may do what, and does talkmeter ever lend its rights to anybody's code?

use postgres::error::SqlState;
use talkmeter_tests::{
    Database, PLAN, Session, attach, create_messages, messages_mapping, metered, quoted, tell, traces,
};

const EXCHANGES: &str = r#"{"kinds": [{"kind": ["customer_message", "ai_reply"]}]}"#;

/// A role that may create schemas, and attach and detach tables that it owns.
fn clerk(database: &Database, session: &mut Session) -> String {
    let clerk = database.role("clerk");
    session.run(&format!(
        "GRANT CREATE ON DATABASE {} TO {clerk};
         GRANT USAGE ON SCHEMA talkmeter TO {clerk};
         GRANT EXECUTE ON FUNCTION talkmeter.attach, talkmeter.detach TO {clerk}",
        database.name()
    ));
    clerk
}

/// The conversations that were metered, with messages counted.
fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant, conversation, message_count FROM talkmeter.parts ORDER BY 1, 2, part")
}

// --- What is granted ---

#[test]
fn nothing_is_granted_to_public() {
    let database = Database::fresh("public");
    let mut session = database.connect();
    let granted = session.lines(
        "SELECT object, privilege_type
         FROM (
             SELECT oid::regprocedure::text AS object, coalesce(proacl, acldefault('f', proowner)) AS acl
             FROM pg_proc WHERE pronamespace = 'talkmeter'::regnamespace
             UNION ALL
             SELECT oid::regclass::text, coalesce(relacl, acldefault('r', relowner))
             FROM pg_class WHERE relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace)
             UNION ALL
             SELECT attrelid::regclass || '.' || attname, attacl
             FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
             WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace)
             UNION ALL
             SELECT nspname, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
             WHERE nspname IN ('talkmeter', 'talkmeter_archive')
         ) AS all_objects, aclexplode(acl)
         WHERE grantee = 0",
    );
    assert_eq!(granted, [""; 0]);
}

#[test]
fn an_application_gets_no_right_on_anything_of_talkmeter() {
    let (database, mut session) = metered("lutingenie");
    let app = database.role("app");
    session.run(&format!("GRANT INSERT ON messages TO {app}"));
    tell(&mut database.connect_as(&app), "acme", "c", "10:00 exchange");
    assert_eq!(counted(&mut session), ["acme|c|2"]);
    let rights = session.lines(&format!(
        "SELECT nspname FROM pg_namespace
         WHERE nspname IN ('talkmeter', 'talkmeter_archive') AND has_schema_privilege('{app}', oid, 'USAGE, CREATE')
         UNION ALL
         SELECT oid::regprocedure::text FROM pg_proc
         WHERE pronamespace = 'talkmeter'::regnamespace AND has_function_privilege('{app}', oid, 'EXECUTE')
         UNION ALL
         SELECT oid::regclass::text FROM pg_class
         WHERE relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND relkind IN ('r', 'v')
             AND has_table_privilege('{app}', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"
    ));
    assert_eq!(rights, [""; 0]);
}

#[test]
fn a_function_with_its_owners_rights_has_a_path_of_its_own() {
    let database = Database::fresh("definers");
    let without = database.connect().lines(
        "SELECT oid::regprocedure FROM pg_proc
         WHERE pronamespace = 'talkmeter'::regnamespace AND prosecdef
             AND NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(proconfig, '{}'))",
    );
    assert_eq!(without, [""; 0]);
}

#[test]
fn an_extension_does_not_adopt_what_somebody_made_before_it() {
    let database = Database::fresh("adopted");
    let mut session = database.connect();
    let clerk = database.role("clerk");
    session.run(&format!("DROP EXTENSION talkmeter; GRANT CREATE ON DATABASE {} TO {clerk}", database.name()));
    let mut early = database.connect_as(&clerk);
    assert_eq!(early.refused("CREATE EXTENSION talkmeter"), SqlState::INSUFFICIENT_PRIVILEGE);
    early.run("CREATE SCHEMA talkmeter");
    assert_eq!(session.refused("CREATE EXTENSION talkmeter"), SqlState::DUPLICATE_SCHEMA);
}

#[test]
fn nobody_but_a_superuser_switches_metering_off() {
    let (database, mut session) = metered("lutingenie");
    let app = database.role("app");
    session.run(&format!("GRANT INSERT ON messages TO {app}"));
    // Also before the library is loaded, when the server does not know yet whose setting it is.
    let mut inserter = database.connect_as(&app);
    inserter.run("SET talkmeter.enabled = off");
    tell(&mut inserter, "acme", "first", "10:00 exchange");
    for setting in ["talkmeter.enabled = off", "talkmeter.max_future = 86400", "session_replication_role = replica"] {
        assert_eq!(inserter.refused(&format!("SET {setting}")), SqlState::INSUFFICIENT_PRIVILEGE);
        let code = inserter.refused(&format!("ALTER ROLE {app} SET {setting}"));
        assert_eq!(code, SqlState::INSUFFICIENT_PRIVILEGE, "{setting}");
    }
    tell(&mut inserter, "acme", "second", "10:00 exchange");
    assert_eq!(counted(&mut session), ["acme|first|2", "acme|second|2"]);
}

// --- Whose rights an insert has ---

#[test]
fn a_message_is_metered_whatever_role_inserts_it() {
    let (database, mut session) = metered("lutingenie");
    let (owner, app, caller) = (database.role("owner"), database.role("app"), database.role("caller"));
    session.run(&format!(
        "ALTER TABLE messages OWNER TO {owner};
         GRANT INSERT ON messages TO {app};
         GRANT {app} TO {caller};
         CREATE FUNCTION say(conversation text) RETURNS void SECURITY DEFINER SET search_path = public LANGUAGE sql
             AS $$ INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', conversation, 'exchange') $$;
         ALTER FUNCTION say OWNER TO {app}"
    ));
    let insert = |name: &str| {
        format!("INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', '{name}', 'exchange')")
    };
    let mut session = database.connect_as(&caller);
    session.run("SELECT say('by a definer')");
    session.run(&format!("SET ROLE {app}; {}; RESET ROLE", insert("by a role")));
    // At commit the role is another again than at the insert.
    session.run(&format!("BEGIN; SET LOCAL ROLE {app}; {}; RESET ROLE; COMMIT", insert("by a local role")));
    assert_eq!(session.line("SELECT current_user, session_user"), format!("{caller}|{caller}"));
    let mut session = database.connect();
    session
        .run(&format!("SET SESSION AUTHORIZATION {app}; {}; RESET SESSION AUTHORIZATION", insert("by authorization")));
    session.run(&format!("BEGIN; SET LOCAL ROLE {owner}; {}; COMMIT", insert("by the owner")));
    let names = ["by a definer", "by a local role", "by a role", "by authorization", "by the owner"];
    assert_eq!(counted(&mut session), names.map(|name| format!("acme|{name}|2")));
}

#[test]
fn row_security_hides_nothing_from_the_meter() {
    let database = Database::fresh("row_security");
    let mut session = database.connect();
    let (clerk, app) = (clerk(&database, &mut session), database.role("app"));
    create_messages(&mut session);
    session.run(&format!(
        "ALTER TABLE messages OWNER TO {clerk};
         INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('hidden', 'c', 'exchange');
         ALTER TABLE messages ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY readers ON messages FOR SELECT USING (tenant_id = 'acme');
         CREATE POLICY writers ON messages FOR INSERT WITH CHECK (tenant_id = 'acme');
         GRANT INSERT ON messages TO {app}"
    ));
    let mut owner = database.connect_as(&clerk);
    attach(&mut owner, "messages", "lutingenie", PLAN, &messages_mapping());
    // The row that the owner does not see is one of before the start all the same.
    assert_eq!(session.line("SELECT starts_at > '-infinity' FROM talkmeter.sources"), "t");
    let mut inserter = database.connect_as(&app);
    tell(&mut inserter, "acme", "c", "now exchange, now unheard_of");
    assert_eq!(
        inserter.refused("INSERT INTO messages (tenant_id) VALUES ('hidden')"),
        SqlState::INSUFFICIENT_PRIVILEGE
    );
    assert_eq!(counted(&mut session), ["acme|c|2"]);
    assert_eq!(session.lines("SELECT tenant, reason FROM talkmeter.quarantine"), ["acme|no_kind"]);
}

/// A table of a clerk's with row security, which binds its owner too if it is forced, attached by the clerk.
fn with_row_security(forced: bool) -> (Database, Session) {
    let database = Database::fresh("row_security");
    let mut session = database.connect();
    let clerk = clerk(&database, &mut session);
    create_messages(&mut session);
    session.run(&format!(
        "ALTER TABLE messages OWNER TO {clerk};
         ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
         CREATE POLICY readers ON messages FOR SELECT USING (tenant_id = 'acme')"
    ));
    if forced {
        session.run("ALTER TABLE messages FORCE ROW LEVEL SECURITY");
    }
    attach(&mut database.connect_as(&clerk), "messages", "lutingenie", PLAN, &messages_mapping());
    (database, session)
}

#[test]
fn a_conversation_is_read_again_as_the_owner_whom_row_security_does_not_bind() {
    let (database, mut session) = with_row_security(false);
    let app = database.role("app");
    session.run(&format!(
        "GRANT INSERT ON messages TO {app}; CREATE POLICY writers ON messages FOR INSERT WITH CHECK (true)"
    ));
    // Whom the policy shows nothing of it.
    let mut inserter = database.connect_as(&app);
    tell(&mut inserter, "other", "c", "10:10 exchange");
    tell(&mut inserter, "other", "c", "10:00 exchange");
    assert_eq!(counted(&mut session), ["other|c|4"]);
    assert_eq!(session.lines("SELECT reason, detail FROM talkmeter.quarantine"), [""; 0]);
}

#[test]
fn rows_that_row_security_hides_from_the_owner_are_an_error_and_not_missing() {
    let (_database, mut session) = with_row_security(true);
    tell(&mut session, "other", "c", "10:10 exchange");
    tell(&mut session, "other", "c", "10:00 exchange");
    assert_eq!(counted(&mut session), ["other|c|2"]);
    let kept = "SELECT message_id, reason FROM talkmeter.quarantine";
    assert_eq!(session.lines(kept), ["2|source_unreadable"]);
    session.run("ALTER TABLE messages NO FORCE ROW LEVEL SECURITY; SELECT talkmeter.retry_quarantine()");
    assert_eq!(counted(&mut session), ["other|c|4"]);
    assert_eq!(session.lines(kept), [""; 0]);
}

#[test]
fn a_conversation_is_read_again_with_the_rights_of_the_tables_owner() {
    let database = Database::fresh("owner");
    let mut session = database.connect();
    let clerk = clerk(&database, &mut session);
    create_messages(&mut session);
    session.run(&format!("ALTER TABLE messages OWNER TO {clerk}"));
    attach(&mut database.connect_as(&clerk), "messages", "lutingenie", PLAN, &messages_mapping());
    session.run(&format!("REVOKE SELECT ON messages FROM {clerk}"));
    tell(&mut session, "acme", "c", "10:10 exchange");
    tell(&mut session, "acme", "c", "10:00 exchange");
    // An owner who may not read cannot lend the right to: the superuser who inserts does not step in.
    assert_eq!(counted(&mut session), ["acme|c|2"]);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), ["source_unreadable"]);
    session.run(&format!("GRANT SELECT ON messages TO {clerk}; SELECT talkmeter.retry_quarantine()"));
    assert_eq!(counted(&mut session), ["acme|c|4"]);
}

fn dry_run(column: &str) -> String {
    let mapping = quoted(&messages_mapping());
    format!(
        "SELECT DISTINCT {column} FROM talkmeter.attach('messages', 'lutingenie', {mapping}, dry_run => true)
         WHERE message_id IS NOT NULL"
    )
}

#[test]
fn a_dry_run_reads_with_the_rights_of_the_tables_owner() {
    let database = Database::fresh("dry_run");
    let mut session = database.connect();
    let clerk = clerk(&database, &mut session);
    create_messages(&mut session);
    session.run(&format!(
        "ALTER TABLE messages OWNER TO {clerk};
         INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', 'c', 'note'), ('bolt', 'c', 'note')"
    ));
    for mut caller in [database.connect(), database.connect_as(&clerk)] {
        caller.run("SET quote_all_identifiers = on");
        assert_eq!(caller.lines(&format!("{} ORDER BY 1", dry_run("tenant"))), ["acme", "bolt"]);
        session.run(&format!("REVOKE SELECT ON messages FROM {clerk}"));
        assert_eq!(caller.refused(&dry_run("tenant")), SqlState::INSUFFICIENT_PRIVILEGE);
        session.run(&format!("GRANT SELECT ON messages TO {clerk}"));
    }
    // What row security hides is an error, and not missing.
    session.run("ALTER TABLE messages ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY");
    assert_eq!(session.refused(&dry_run("tenant")), SqlState::INSUFFICIENT_PRIVILEGE);
}

/// What the owner hung on the table runs while it is planned: not with the rights of a superuser who looks.
#[test]
fn a_dry_run_lends_its_callers_rights_to_nobody() {
    let database = Database::fresh("dry_run_lends_nothing");
    let mut session = database.connect();
    let clerk = clerk(&database, &mut session);
    create_messages(&mut session);
    session.run(&format!(
        "CREATE SCHEMA own AUTHORIZATION {clerk};
         GRANT CREATE ON SCHEMA public TO {clerk};
         ALTER TABLE messages OWNER TO {clerk};
         SET ROLE {clerk};
         CREATE FUNCTION own.rise() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
             ALTER ROLE {clerk} SUPERUSER; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;
         CREATE FUNCTION own.trap() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
             PERFORM own.rise(); RETURN ''; END $$;
         CREATE INDEX ON messages (tenant_id) WHERE own.trap() = '';
         RESET ROLE"
    ));
    session.lines(&dry_run("kind"));
    let is_superuser = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{clerk}'");
    assert_eq!(session.line(&is_superuser), "f");
}

#[test]
fn a_tenant_meets_nothing_of_another_that_has_the_same_ids() {
    let database = Database::fresh("same_ids");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz DEFAULT now(),
             PRIMARY KEY (id, tenant_id)) PARTITION BY LIST (tenant_id);
         CREATE TABLE a PARTITION OF messages FOR VALUES IN ('a');
         CREATE TABLE b PARTITION OF messages FOR VALUES IN ('b')",
    );
    attach(&mut session, "messages", "lutingenie", PLAN, EXCHANGES);
    for table in ["b", "a", "messages"] {
        let tenant = if table == "a" { "a" } else { "b" };
        let id = if table == "messages" { 2 } else { 1 };
        session.run(&format!("INSERT INTO {table} VALUES ({id}, '{tenant}', 'c')"));
    }
    assert_eq!(session.refused("INSERT INTO a VALUES (1, 'a', 'c')"), SqlState::UNIQUE_VIOLATION);
    for tenant in ["a", "b"] {
        session.run(&format!("SELECT talkmeter.buy_pack('{tenant}', 'agent_red/1000', 'key')"));
    }
    let billed = "SELECT tenant, message_count, charge_id, k.pack_id
        FROM talkmeter.parts JOIN talkmeter.charges USING (tenant) JOIN talkmeter.packs AS k USING (tenant) ORDER BY 1";
    assert_eq!(session.lines(billed), ["a|2|1|1", "b|4|1|1"]);
}

#[test]
fn no_unique_key_spans_tenants() {
    let database = Database::fresh("keys");
    let spans = database.connect().lines(
        "SELECT i.indexrelid::regclass FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
             JOIN pg_attribute AS first ON first.attrelid = c.oid AND first.attnum = i.indkey[0]
         WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND i.indisunique AND first.attname <> 'tenant'
             AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant')
             AND first.atttypid <> 'uuid'::regtype",
    );
    assert_eq!(spans, [""; 0]);
}

// --- Who may attach ---

#[test]
fn to_attach_a_table_one_must_own_it() {
    let database = Database::fresh("ownership");
    let mut session = database.connect();
    let clerk = clerk(&database, &mut session);
    let columns = "id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz";
    session.run(&format!(
        "CREATE TABLE ordinary ({columns});
         CREATE TABLE attached ({columns});
         CREATE TABLE parted ({columns}) PARTITION BY RANGE (id);
         CREATE TABLE a_partition PARTITION OF parted DEFAULT;
         CREATE TABLE heir () INHERITS (ordinary);
         CREATE UNLOGGED TABLE unlogged ({columns});
         CREATE VIEW a_view AS SELECT * FROM ordinary;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM ordinary;
         CREATE SEQUENCE counter;
         CREATE TYPE pair AS (a integer, b integer);
         CREATE FOREIGN DATA WRAPPER none;
         CREATE SERVER nowhere FOREIGN DATA WRAPPER none;
         CREATE FOREIGN TABLE remote (id bigint) SERVER nowhere;
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {clerk}"
    ));
    attach(&mut session, "attached", "lutingenie", PLAN, EXCHANGES);
    let others = ["ordinary", "parted", "a_partition", "heir", "unlogged", "attached"];
    let not_tables =
        ["a_view", "kept", "counter", "pair", "remote", "ordinary_pkey", "pg_catalog.pg_class", "talkmeter.charge"];
    let mut caller = database.connect_as(&clerk);
    for (relation, code) in (others.map(|table| (table, SqlState::INSUFFICIENT_PRIVILEGE)).into_iter())
        .chain(not_tables.map(|relation| (relation, SqlState::WRONG_OBJECT_TYPE)))
    {
        for dry_run in [true, false] {
            let attach = format!(
                "SELECT talkmeter.attach('{relation}'::regclass, 'lutingenie', '{EXCHANGES}', dry_run => {dry_run})"
            );
            assert_eq!(caller.refused(&attach), code, "{relation}");
        }
        assert_eq!(caller.refused(&format!("SELECT talkmeter.detach('{relation}'::regclass)")), code, "{relation}");
    }
    assert_eq!(session.lines("SELECT source FROM talkmeter.sources"), ["attached"]);
    let triggers = "SELECT DISTINCT tgrelid::regclass FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                    WHERE p.pronamespace = 'talkmeter'::regnamespace AND t.tgname LIKE 'talkmeter%'";
    assert_eq!(session.lines(triggers), ["attached"]);
}

#[test]
fn to_attach_a_table_one_needs_execute_and_to_be_its_owner_or_a_member_of_it() {
    let (database, mut session) = metered("lutingenie");
    let (owner, member, guest) = (database.role("owner"), database.role("member"), database.role("guest"));
    session.run(&format!(
        "SELECT talkmeter.detach('messages');
         ALTER TABLE messages OWNER TO {owner};
         ALTER ROLE {guest} NOINHERIT;
         GRANT {owner} TO {member}, {guest}"
    ));
    let attach = format!("SELECT talkmeter.attach('messages', 'lutingenie', {})", quoted(&messages_mapping()));
    let detach = "SELECT talkmeter.detach('messages')";
    for role in [&owner, &member, &guest] {
        for call in [attach.as_str(), detach] {
            assert_eq!(database.connect_as(role).refused(call), SqlState::INSUFFICIENT_PRIVILEGE, "{role}");
        }
    }
    session.run("GRANT USAGE ON SCHEMA talkmeter TO PUBLIC");
    assert_eq!(database.connect_as(&owner).refused(&attach), SqlState::INSUFFICIENT_PRIVILEGE);
    session.run("GRANT EXECUTE ON FUNCTION talkmeter.attach, talkmeter.detach TO PUBLIC");
    for role in [&owner, &member] {
        database.connect_as(role).run(&format!("{attach}; {detach}"));
    }
    // Who must say SET ROLE to have the owner's rights must say it here too.
    let mut guest = database.connect_as(&guest);
    assert_eq!(guest.refused(&attach), SqlState::INSUFFICIENT_PRIVILEGE);
    guest.run(&format!("SET ROLE {owner}; {attach}; {detach}"));
}

// --- The trigger functions ---

/// Our trigger functions, each with what it is for: when, with which transition tables.
const TRIGGERS: [(&str, &str, &str); 6] = [
    ("on_insert", "INSERT", "REFERENCING NEW TABLE AS new_rows"),
    ("on_update", "UPDATE", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    ("on_delete", "DELETE", "REFERENCING OLD TABLE AS old_rows"),
    ("on_truncate", "TRUNCATE", ""),
    ("on_status_insert", "INSERT", "REFERENCING NEW TABLE AS new_rows"),
    ("on_status_update", "UPDATE", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
];

fn forged(database: &Database, session: &mut Session) -> String {
    let mallory = clerk(database, session);
    session.run(&format!(
        "CREATE TABLE forged (LIKE messages INCLUDING ALL);
         INSERT INTO forged (tenant_id, conversation_id, kind) VALUES ('acme', 'forged', 'exchange');
         ALTER TABLE forged OWNER TO {mallory}"
    ));
    mallory
}

/// A statement that fires a trigger.
fn firing(event: &str) -> &'static str {
    match event {
        "INSERT" => "INSERT INTO forged (tenant_id, conversation_id, kind) VALUES ('acme', 'c', 'exchange')",
        "UPDATE" => "UPDATE forged SET kind = 'note'",
        "DELETE" => "DELETE FROM forged",
        _ => "TRUNCATE forged",
    }
}

/// So a schema that was restored without talkmeter's own rows stops no application.
#[test]
fn a_trigger_on_a_table_that_is_not_attached_meters_nothing_and_says_so() {
    let (database, mut session) = metered("lutingenie");
    let mallory = forged(&database, &mut session);
    for (function, event, tables) in TRIGGERS {
        let trigger = format!(
            "CREATE TRIGGER forgery AFTER {event} ON forged {tables} FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.{function}()"
        );
        let code = database.connect_as(&mallory).refused(&trigger);
        assert_eq!(code, SqlState::INSUFFICIENT_PRIVILEGE, "{trigger}");
        session.run(&trigger);
        let problems = session.lines("SELECT problem, object FROM talkmeter.health() WHERE problem <> 'posted_late'");
        assert_eq!(problems, ["not_attached|public.forged"], "{trigger}");
        let (mut firing_session, heard) = database.connect_heard();
        // A note in this transaction, so that no trigger has nothing to look at.
        firing_session.run("BEGIN");
        tell(&mut firing_session, "acme", "c", "10:00 note");
        firing_session.run(firing(event));
        firing_session.run(firing(event));
        firing_session.run("ROLLBACK");
        let warned = heard.lock().expect("no other thread").clone();
        assert_eq!(warned, ["WARNING: table \"forged\" is not attached to talkmeter"], "{trigger}");
        session.run("DROP TRIGGER forgery ON forged");
    }
    assert_eq!(traces(&mut session), [""; 0]);
}

const OUR_TRIGGERS: &str =
    "SELECT tgname FROM pg_trigger WHERE tgrelid = 'messages'::regclass AND NOT tgisinternal ORDER BY 1";

#[test]
fn a_trigger_that_was_renamed_goes_with_the_attachment() {
    let (_database, mut session) = metered("lutingenie");
    session.run("ALTER TRIGGER talkmeter_insert ON messages RENAME TO meter; SELECT talkmeter.detach('messages')");
    assert_eq!(session.lines(OUR_TRIGGERS), [""; 0]);
}

/// As after a restore of the schema alone.
#[test]
fn a_table_that_has_triggers_already_is_attached_with_one_set_of_them() {
    let (_database, mut session) = metered("lutingenie");
    let attached = session.lines(OUR_TRIGGERS);
    session.run("ALTER TRIGGER talkmeter_insert ON messages RENAME TO meter; DELETE FROM talkmeter.source");
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    assert_eq!(session.lines(OUR_TRIGGERS), attached);
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(counted(&mut session), ["acme|c|2"]);
}

#[test]
fn a_function_that_is_fired_by_another_trigger_than_its_own_is_refused() {
    let (database, mut session) = metered("lutingenie");
    forged(&database, &mut session);
    for (function, own_event, own_tables) in TRIGGERS {
        for (event, tables) in TRIGGERS.map(|(_, event, tables)| (event, tables)) {
            let mut triggers = vec![format!("BEFORE {event} ON forged EXECUTE FUNCTION talkmeter.{function}()")];
            if event != "TRUNCATE" {
                // In row mode that is its own.
                if event != own_event || function.starts_with("on_status") {
                    triggers
                        .push(format!("AFTER {event} ON forged FOR EACH ROW EXECUTE FUNCTION talkmeter.{function}()"));
                }
                triggers.push(format!("BEFORE {event} ON forged FOR EACH ROW EXECUTE FUNCTION talkmeter.{function}()"));
            }
            if !own_tables.is_empty() || event != own_event {
                triggers.push(format!("AFTER {event} ON forged EXECUTE FUNCTION talkmeter.{function}()"));
            }
            if event != own_event {
                triggers.push(format!("AFTER {event} ON forged {tables} EXECUTE FUNCTION talkmeter.{function}()"));
            }
            for trigger in triggers {
                session.run(&format!("CREATE TRIGGER forgery {trigger}"));
                let code = session.refused(firing(event));
                assert_eq!(code, SqlState::E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "{trigger}");
                session.run("DROP TRIGGER forgery ON forged");
            }
        }
        let called = session.refused(&format!("SELECT talkmeter.{function}()"));
        assert_eq!(called, SqlState::FEATURE_NOT_SUPPORTED, "{function}");
    }
    assert_eq!(traces(&mut session), [""; 0]);
}

#[test]
fn a_session_that_has_loaded_the_library_can_set_the_switch_for_the_whole_server() {
    let database = Database::fresh("switch");
    let switch = "ALTER SYSTEM SET talkmeter.enabled = on";
    let mut session = database.connect();
    // From 17 on a superuser may set what is not known yet.
    if session.line("SELECT current_setting('server_version_num')::int < 170000") == "t" {
        assert_eq!(session.refused(switch), SqlState::UNDEFINED_OBJECT, "the setting is known by itself");
    }
    session.run("LOAD 'talkmeter'");
    session.run(switch);
    session.run("ALTER SYSTEM RESET talkmeter.enabled");
}
