//! Does a tenant's role read its own rows, and nothing of anybody else's, by whatever way (rule 5)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, tell};

/// A secret that only rows of the other tenant hold: it must come out nowhere.
const SECRET: &str = "zebra";

/// Two shops that have something in every report, and a role that reads `mine`. The other tenant's name holds the
/// secret.
fn shops() -> (Database, Session, String) {
    let database = Database::fresh("tenants");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.5, "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "pair", "size": 2, "price": 1, "currency": "USD", "valid_for": "20 days"}')"#,
    );
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    for tenant in ["mine", SECRET] {
        session.run(&format!(
            "SELECT talkmeter.subscribe('{tenant}', 'one', '2026-03-01', anchor_day => 1);
             SELECT talkmeter.buy_pack('{tenant}', 'pair', 'order of {tenant}', '2026-03-01')"
        ));
        for number in 1..6 {
            tell(&mut session, tenant, &format!("{tenant} {number}"), &format!("2026-03-{number:02} 10:00 exchange"));
        }
        tell(&mut session, tenant, &format!("{tenant} now"), "now exchange");
        session.run(&format!(
            "SELECT talkmeter.dispute('{tenant}', 2, 'a reason of {tenant}');
             SELECT talkmeter.credit('{tenant}', 3, 'a note of {tenant}');
             SELECT talkmeter.cancel('{tenant}', now() + interval '1 minute');
             SELECT talkmeter.finalize('{tenant}', '2026-03-01')"
        ));
    }
    session.run("SELECT talkmeter.reconcile('2026-03-02')");
    let role = database.role("reader");
    session.run(&format!("SELECT talkmeter.grant_tenant('{role}', 'mine')"));
    (database, session, role)
}

/// What the shops have nothing of.
const NOT_IN_THE_SHOPS: [&str; 4] = ["alerts", "expired_packs", "unplanned", "uncharged"];

/// The views of tenants, each with the view that it is a part of.
fn views(session: &mut Session) -> Vec<(String, String)> {
    let views = session.lines(
        "SELECT relname FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'v' AND relname LIKE 'my\\_%' ORDER BY 1",
    );
    assert!(views.len() >= 12, "{views:?}");
    let all = |own: &str| match own {
        "my_policy" => "applied_policies".to_owned(),
        own => own.replacen("my_", "", 1),
    };
    views.into_iter().map(|view| (view.clone(), all(&view))).collect()
}

#[test]
fn a_tenant_reads_all_rows_of_its_own_in_every_view_and_none_of_anothers() {
    let (database, mut session, role) = shops();
    let mut reader = database.connect_as(&role);
    for (own, all) in views(&mut session) {
        let expected = session.lines(&format!("SELECT * FROM talkmeter.{all} AS a WHERE tenant = 'mine' ORDER BY a"));
        assert_eq!(reader.lines(&format!("SELECT * FROM talkmeter.{own} AS a ORDER BY a")), expected, "{own}");
        let foreign = session.line(&format!("SELECT count(*) FROM talkmeter.{all} WHERE tenant = '{SECRET}'"));
        let may_be_empty = NOT_IN_THE_SHOPS.contains(&all.as_str());
        assert!(foreign != "0" || may_be_empty, "{all} has no foreign rows to hide");
    }
}

#[test]
fn a_tenant_whose_name_a_spreadsheet_would_take_for_a_formula_reads_its_audit_trail() {
    let (database, mut session, role) = shops();
    let named = ["=sum", "+1", "@home", "-dash", "\ttab"];
    for tenant in named {
        session.run(&format!(
            "SELECT talkmeter.subscribe('{tenant}', 'one', '2026-03-01', anchor_day => 1);
             SELECT talkmeter.grant_tenant('{role}', '{tenant}')"
        ));
        tell(&mut session, tenant, "c", "10:00 exchange");
    }
    // What an apostrophe makes of the first.
    tell(&mut session, "'=sum", "foreign", "10:00 exchange");
    let shown = "SELECT tenant, conversation FROM talkmeter.my_audit_trail WHERE tenant <> 'mine' ORDER BY 1";
    let mut expected = named.map(|tenant| format!("'{tenant}|c"));
    expected.sort_unstable();
    assert_eq!(database.connect_as(&role).lines(shown), expected);
}

#[test]
fn a_tenants_functions_answer_for_its_own_alone() {
    let (database, mut session, role) = shops();
    let mut reader = database.connect_as(&role);
    assert_eq!(reader.lines("SELECT tenant FROM talkmeter.my_balance()"), ["mine"]);
    assert_eq!(reader.lines("SELECT DISTINCT tenant FROM talkmeter.my_statement('2026-03-01')"), ["mine"]);
    assert_eq!(reader.lines("SELECT DISTINCT tenant FROM talkmeter.my_explain('mine 1')"), ["mine"]);
    let foreign = reader.lines(&format!("SELECT step, effect, rule FROM talkmeter.my_explain('{SECRET} 1')"));
    assert_eq!(foreign, ["0|nothing of this conversation is metered|"]);
    assert_eq!(reader.lines("SELECT * FROM talkmeter.own_tenants()"), ["mine"]);
    for function in session.lines(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'talkmeter'::regnamespace AND proname LIKE 'own\\_%'
             AND proname <> 'own_tenants'",
    ) {
        let foreign = reader.line(&format!("SELECT count(*) FROM talkmeter.{function}() WHERE tenant <> 'mine'"));
        assert_eq!(foreign, "0", "{function}");
    }
}

#[test]
fn whatever_is_not_for_tenants_is_refused() {
    let (database, mut session, role) = shops();
    let mut reader = database.connect_as(&role);
    let relations = session.lines(
        "SELECT relname FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind IN ('r', 'v') AND relname NOT LIKE 'my\\_%'",
    );
    for relation in relations {
        let refused = reader.refused(&format!("SELECT * FROM talkmeter.{relation}"));
        assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE, "{relation}");
    }
    let may = session.lines(&format!(
        "SELECT DISTINCT proname FROM pg_proc
         WHERE pronamespace = 'talkmeter'::regnamespace AND has_function_privilege('{role}', oid, 'EXECUTE')
             AND proname !~ '^(my_|own_|is_own$)'"
    ));
    assert_eq!(may, [""; 0]);
}

#[test]
fn nothing_of_talkmeters_is_for_everybody() {
    let (database, mut session, _role) = shops();
    let stranger = database.role("stranger");
    let open = session.lines(&format!(
        "SELECT proname FROM pg_proc
         WHERE pronamespace = 'talkmeter'::regnamespace AND has_function_privilege('{stranger}', oid, 'EXECUTE')
         UNION ALL
         SELECT relname FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind IN ('r', 'v')
             AND has_any_column_privilege('{stranger}', oid, 'SELECT, INSERT, UPDATE')"
    ));
    assert_eq!(open, [""; 0]);
}

#[test]
fn copy_gives_no_foreign_row() {
    let (database, _session, role) = shops();
    let mut reader = database.connect_as(&role);
    let mut copied = String::new();
    let mut out =
        reader.client.copy_out("COPY (SELECT * FROM talkmeter.my_audit_trail) TO STDOUT CSV HEADER").expect("COPY");
    std::io::Read::read_to_string(&mut out, &mut copied).expect("text");
    assert!(copied.contains("mine 1") && !copied.contains(SECRET), "{copied}");
}

/// Functions of the reader's own that tell what they are given, or fail on it.
fn spies(database: &Database, session: &mut Session, role: &str) -> Session {
    session.run(&format!("CREATE SCHEMA spies AUTHORIZATION {role}"));
    let mut reader = database.connect_as(role);
    reader.run(
        "CREATE FUNCTION spies.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
             $$ BEGIN RAISE NOTICE 'seen %', $1; RETURN true; END $$;
         CREATE FUNCTION spies.fail(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
             $$ BEGIN IF $1 LIKE 'zebra%' THEN RAISE 'found %', $1; END IF; RETURN true; END $$",
    );
    reader
}

#[test]
fn no_condition_of_the_readers_is_asked_about_a_foreign_row() {
    let (database, mut session, role) = shops();
    let mut reader = spies(&database, &mut session, &role);
    for (own, _) in views(&mut session) {
        reader.run(&format!("SELECT count(*) FROM talkmeter.{own} WHERE spies.fail(tenant)"));
        reader.run(&format!(
            "SELECT count(*) FROM talkmeter.{own} WHERE 1 / (CASE WHEN tenant = '{SECRET}' THEN 0 ELSE 1 END) = 1"
        ));
    }
    let (mut heard_by, heard) = database.connect_heard();
    heard_by.run(&format!("SET ROLE {role}; SELECT count(*) FROM talkmeter.my_parts WHERE spies.tell(conversation)"));
    let heard = heard.lock().expect("no other thread").join("\n");
    assert!(heard.contains("mine 1") && !heard.contains(SECRET), "{heard}");
}

#[test]
fn a_plan_that_is_explained_tells_only_of_own_rows() {
    let (database, mut session, role) = shops();
    let mut reader = database.connect_as(&role);
    for (own, _) in views(&mut session) {
        let rows = reader.line(&format!("SELECT count(*) FROM talkmeter.{own}"));
        let plan = reader.lines(&format!(
            "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM talkmeter.{own} WHERE tenant = '{SECRET}'"
        ));
        let removed = format!("Rows Removed by Filter: {rows}");
        let told = plan.iter().filter(|line| line.contains("Rows Removed")).all(|line| line.trim() == removed);
        assert!(
            told && plan.iter().any(|line| line.contains("Function Scan")),
            "{own} has {rows} rows:\n{}",
            plan.join("\n")
        );
    }
}

#[test]
fn a_cursor_that_outlives_a_change_of_role_gives_the_new_role_nothing_of_the_olds() {
    let (database, mut session, role) = shops();
    let other = database.role("other");
    session.run(&format!("SELECT talkmeter.grant_tenant('{other}', '{SECRET}')"));
    for (view, _) in views(&mut session) {
        session.run(&format!(
            "BEGIN; SET LOCAL ROLE {other}; DECLARE started CURSOR FOR SELECT * FROM talkmeter.{view};
             DECLARE fresh CURSOR FOR SELECT * FROM talkmeter.{view}; FETCH 1 FROM started; SET LOCAL ROLE {role}"
        ));
        for cursor in ["started", "fresh"] {
            let rows = session.lines(&format!("FETCH ALL FROM {cursor}"));
            assert!(rows.iter().all(|row| !row.contains(SECRET)), "{view}, {cursor}: {rows:?}");
        }
        session.run("COMMIT");
    }
}

#[test]
fn a_function_of_one_tenants_gives_another_nothing() {
    let (database, mut session, role) = shops();
    let other = database.role("other");
    session.run(&format!(
        "SELECT talkmeter.grant_tenant('{other}', '{SECRET}'); CREATE SCHEMA others AUTHORIZATION {other}"
    ));
    database.connect_as(&other).run(&format!(
        "CREATE FUNCTION others.parts() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM talkmeter.my_parts';
         GRANT USAGE ON SCHEMA others TO {role}"
    ));
    assert_eq!(database.connect_as(&other).line("SELECT others.parts() > 0"), "t");
    assert_eq!(database.connect_as(&role).line("SELECT others.parts()"), "0");
}

#[test]
fn what_is_revoked_is_read_no_more_and_members_read_what_they_inherit() {
    let (database, mut session, role) = shops();
    let (member, stranger) = (database.role("member"), database.role("stranger"));
    session.run(&format!("GRANT {role} TO {member}; ALTER ROLE {stranger} NOINHERIT; GRANT {role} TO {stranger}"));
    let mut reader = database.connect_as(&member);
    assert_eq!(reader.line("SELECT count(*) > 0 FROM talkmeter.my_parts"), "t");
    assert_eq!(
        database.connect_as(&stranger).refused("SELECT count(*) FROM talkmeter.my_parts"),
        SqlState::INSUFFICIENT_PRIVILEGE
    );
    assert_eq!(session.line(&format!("SELECT talkmeter.revoke_tenant('{role}', 'mine')")), "t");
    assert_eq!(session.line(&format!("SELECT talkmeter.revoke_tenant('{role}', 'mine')")), "f");
    assert_eq!(reader.line("SELECT count(*) FROM talkmeter.my_parts"), "0");
}

#[test]
fn a_role_of_several_tenants_reads_them_all() {
    let (database, mut session, role) = shops();
    session
        .run(&format!("SELECT talkmeter.grant_tenant('{role}', '{SECRET}'), talkmeter.grant_tenant('{role}', 'mine')"));
    assert_eq!(
        database.connect_as(&role).lines("SELECT tenant FROM talkmeter.my_balance() ORDER BY 1"),
        ["mine", SECRET]
    );
}

#[test]
fn the_roles_that_are_created_can_do_what_they_are_for_and_no_more() {
    let (database, mut session, _role) = shops();
    let prefix = format!("p_{}", database.name());
    let roles = session.lines(&format!("SELECT * FROM talkmeter.create_roles('{prefix}')"));
    assert_eq!(roles, ["admin", "analyst", "application", "tenant"].map(|kind| format!("{prefix}_{kind}")));
    session.run(&format!("SELECT talkmeter.create_roles('{prefix}')"));
    let views = session.lines(
        "SELECT 'SELECT * FROM talkmeter.' || relname FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'v' AND relname NOT LIKE 'my\\_%'",
    );
    assert!(views.len() > 30, "{views:?}");
    let mut can = |kind: &str, sql: &str| {
        session.run(&format!("SET ROLE {prefix}_{kind}"));
        let done = session.client.batch_execute(sql).map_err(|error| error.code().cloned());
        session.run("RESET ROLE");
        assert!(matches!(done, Ok(()) | Err(Some(SqlState::INSUFFICIENT_PRIVILEGE))), "{kind}: {sql}: {done:?}");
        done.is_ok()
    };
    let calls = [
        "SELECT talkmeter.explain('mine', 'mine 1')",
        "SELECT * FROM talkmeter.verify()",
        "SELECT * FROM talkmeter.health()",
        "SELECT * FROM talkmeter.simulate(NULL, NULL, '2026-03-01', '2026-04-01')",
        "SELECT talkmeter.statement('mine', '2026-03-01')",
        "SELECT talkmeter.explain_json('mine', 'mine 1')",
        "SELECT talkmeter.bill_file('mine', '2026-03')",
        "SELECT talkmeter.evidence('mine', '2026-03-01')",
    ];
    for sql in views.iter().map(String::as_str).chain(calls) {
        assert_eq!(
            ["admin", "analyst", "application", "tenant"].map(|kind| can(kind, sql)),
            [true, true, false, false],
            "{sql}"
        );
    }
    for sql in [
        "SELECT talkmeter.sweep()",
        "SELECT talkmeter.credit('mine', 1, 'x')",
        "SELECT talkmeter.grant_tenant('nobody', 'x')",
    ] {
        assert_eq!(["analyst", "application", "tenant"].map(|kind| can(kind, sql)), [false; 3], "{sql}");
    }
    assert!(can("admin", "SELECT talkmeter.sweep()"));
    assert!(can(
        "application",
        "SELECT talkmeter.balance('mine'), talkmeter.mark('mine', 'mine 1', 'close'), talkmeter.flush()"
    ));
    assert!(can("tenant", "SELECT * FROM talkmeter.my_usage"));
    assert!(can("admin", "INSERT INTO talkmeter.holidays (day, name) VALUES ('2026-12-25', 'Christmas')"));
    assert!(!can("admin", "SELECT * FROM talkmeter.charge"), "tables are nobody's");
    session.run(&format!(
        "DROP OWNED BY {prefix}_admin, {prefix}_analyst, {prefix}_application, {prefix}_tenant;
         DROP ROLE {prefix}_admin, {prefix}_analyst, {prefix}_application, {prefix}_tenant"
    ));
}

#[test]
fn an_unknown_role_and_missing_arguments_are_refused() {
    let (_database, mut session, role) = shops();
    assert_eq!(session.refused("SELECT talkmeter.grant_tenant('nobody at all', 'mine')"), SqlState::UNDEFINED_OBJECT);
    let null = SqlState::NULL_VALUE_NOT_ALLOWED;
    assert_eq!(session.refused("SELECT talkmeter.grant_tenant(NULL, 'mine')"), null);
    assert_eq!(session.refused(&format!("SELECT talkmeter.grant_tenant('{role}', NULL)")), null);
    assert_eq!(session.refused("SELECT talkmeter.create_roles(NULL)"), null);
}

/// A role that reads `zebra`, has a schema of its own, and notes there what its functions are told.
fn thief(database: &Database, session: &mut Session) -> (Session, String) {
    let thief = database.role("thief");
    session.run(&format!(
        "SELECT talkmeter.grant_tenant('{thief}', '{SECRET}'); CREATE SCHEMA thieves AUTHORIZATION {thief};
         GRANT USAGE ON SCHEMA thieves TO PUBLIC"
    ));
    (database.connect_as(&thief), thief)
}

/// Everything that answers for a tenant, as queries of the tenants that it answers for.
fn ways_to_ask(session: &mut Session) -> Vec<String> {
    let mut ways = session.lines(
        "SELECT format('SELECT o.tenant FROM talkmeter.%I() AS o', proname) FROM pg_proc
         WHERE pronamespace = 'talkmeter'::regnamespace AND proname ~ '^own_' AND proname <> 'own_tenants'
         UNION ALL
         SELECT format('SELECT o.tenant FROM talkmeter.%I AS o', relname) FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'v' AND relname ~ '^my_'",
    );
    ways.extend(["mine", SECRET].map(|tenant| format!("SELECT tenant FROM talkmeter.my_explain('{tenant} 1')")));
    ways.extend(
        [
            "SELECT tenant FROM talkmeter.my_balance()",
            "SELECT tenant FROM talkmeter.my_statement('2026-03-01')",
            "SELECT tenant FROM talkmeter.my_statement(date '2026-03-01')",
            "SELECT tenant FROM talkmeter.my_statement_units('2026-03-01')",
            "SELECT tenant FROM talkmeter.my_bill_file(date '2026-03-01')",
            "SELECT tenant FROM talkmeter.my_evidence('2026-03-01')",
            "SELECT tenant FROM talkmeter.own_tenants() AS o (tenant)",
            "SELECT tenant FROM unnest(ARRAY['mine', 'zebra']) AS t (tenant) WHERE talkmeter.is_own(tenant)",
        ]
        .map(str::to_owned),
    );
    ways
}

#[test]
fn an_index_that_a_superuser_analyses_tells_its_owner_of_nobody() {
    let (database, mut session, _role) = shops();
    let ways = ways_to_ask(&mut session);
    let (mut thief, _name) = thief(&database, &mut session);
    let asked: String =
        ways.iter().map(|way| format!("INSERT INTO thieves.loot SELECT 1, tenant FROM ({way}) AS way;")).collect();
    thief.run(&format!(
        "CREATE TABLE thieves.loot (way int, tenant text); CREATE TABLE thieves.bait (x int);
         INSERT INTO thieves.bait SELECT generate_series(1, 200);
         CREATE FUNCTION thieves.steal_(int) RETURNS int LANGUAGE plpgsql AS $f$ BEGIN
             {asked} INSERT INTO thieves.loot VALUES (0, session_user); RETURN $1; END $f$;
         CREATE FUNCTION thieves.steal(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             $f$ BEGIN RETURN CASE WHEN $1 < 3 THEN thieves.steal_($1) ELSE $1 END; END $f$;
         CREATE INDEX ON thieves.bait (thieves.steal(x)); TRUNCATE thieves.loot"
    ));
    session.run("ANALYZE thieves.bait");
    assert_eq!(thief.line("SELECT count(*) > 0 FROM thieves.loot WHERE way = 0"), "t", "nothing was asked");
    assert_eq!(thief.lines("SELECT tenant FROM thieves.loot WHERE way = 1"), [""; 0]);
}

#[test]
fn a_function_with_the_rights_of_its_owner_learns_nothing_of_who_calls_it() {
    let (database, mut session, role) = shops();
    let ways = ways_to_ask(&mut session);
    let (mut thief, name) = thief(&database, &mut session);
    for (number, way) in ways.iter().enumerate() {
        thief.run(&format!(
            "CREATE FUNCTION thieves.steal_{number}() RETURNS text LANGUAGE sql SECURITY DEFINER AS
                 $f$ SELECT string_agg(DISTINCT tenant, ',') FROM ({way}) AS way $f$"
        ));
    }
    let mut victim = database.connect_as(&role);
    for (number, way) in ways.iter().enumerate() {
        let call = format!("SELECT thieves.steal_{number}()");
        assert_eq!(victim.line(&call), "", "{way}");
        let own = session.line(&format!("SET ROLE {name}; {call}"));
        session.run("RESET ROLE");
        let may_be_empty = NOT_IN_THE_SHOPS.iter().chain(&["my_explain('mine"]).any(|view| way.contains(view));
        assert!(own.contains(SECRET) || may_be_empty, "{way} answers its own caller: {own}");
        let by_superuser = session.line(&call);
        assert!(!by_superuser.contains("mine"), "{way}: {by_superuser}");
    }
}

#[test]
fn a_materialized_view_that_a_superuser_refreshes_holds_nothing_of_any_tenant() {
    let (database, mut session, _role) = shops();
    let ways = ways_to_ask(&mut session);
    let (mut thief, _name) = thief(&database, &mut session);
    for (number, way) in ways.iter().enumerate() {
        thief.run(&format!("CREATE MATERIALIZED VIEW thieves.copy_{number} AS {way} WITH NO DATA"));
        session.run(&format!("REFRESH MATERIALIZED VIEW thieves.copy_{number}"));
        assert_eq!(thief.lines(&format!("SELECT * FROM thieves.copy_{number}")), [""; 0], "{way}");
    }
}

#[test]
fn what_was_granted_to_a_role_that_is_gone_or_lost_all_is_nobodys() {
    let (database, mut session, role) = shops();
    let reads = |reader: &mut Session| reader.lines("SELECT tenant FROM talkmeter.my_balance() ORDER BY 1");
    session.run(&format!("DROP OWNED BY {role}; SELECT talkmeter.grant_tenant('{role}', '{SECRET}')"));
    let mut reader = database.connect_as(&role);
    assert_eq!(reads(&mut reader), [SECRET], "what DROP OWNED BY took back does not come again");
    // A dump writes the number of a role that is gone; elsewhere another role may have it.
    session.run("UPDATE talkmeter.tenant_reader SET role_name = 'somebody_else'");
    assert_eq!(reads(&mut reader), [""; 0]);
    let dropped = "SELECT object, detail FROM talkmeter.health() WHERE problem = 'reader_dropped'";
    assert!(session.line(dropped).starts_with("somebody_else|"), "{:?}", session.lines(dropped));
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.tenant_reader"), "0");
    assert_eq!(session.lines(dropped), [""; 0]);
}

#[test]
fn a_role_that_somebody_can_be_already_is_not_taken_up_unless_that_is_said() {
    let (database, mut session, role) = shops();
    let prefix = format!("h_{}", database.name());
    session.run(&format!("CREATE ROLE {prefix}_admin; GRANT {prefix}_admin TO {role}"));
    let create = format!("SELECT * FROM talkmeter.create_roles('{prefix}')");
    assert_eq!(session.refused(&create), SqlState::DUPLICATE_OBJECT);
    session.run(&format!("REVOKE {prefix}_admin FROM {role}; ALTER ROLE {prefix}_admin LOGIN"));
    assert_eq!(session.refused(&create), SqlState::DUPLICATE_OBJECT);
    let adopted = session.lines(&format!("SELECT * FROM talkmeter.create_roles('{prefix}', adopt => true)"));
    assert_eq!(adopted.len(), 4);
    // What was taken up here once may be made complete again.
    session.run(&create);
    let may = format!("has_function_privilege('{prefix}_admin', 'talkmeter.create_roles(text, boolean)', 'EXECUTE')");
    assert_eq!(session.line(&format!("SELECT {may}")), "f", "the admin of the meter makes no roles of the server");
    let all = adopted.join(", ");
    session.run(&format!("DROP OWNED BY {all}; DROP ROLE {all}"));
}

#[test]
fn a_role_of_postgresqls_own_is_granted_no_tenant() {
    let database = Database::fresh("predefined");
    let mut session = database.connect();
    let refused = session.refused("SELECT talkmeter.grant_tenant('pg_read_all_data', 'acme')");
    assert_eq!(refused, SqlState::RESERVED_NAME);
}
