//! Does the journal say who changed what bills depend on, and can nobody take that back?

use postgres::error::SqlState;
use talkmeter_tests::{Database, PLAN, Session, attach, create_messages, messages_mapping, tell};

/// What the journal says of one function, oldest first.
fn said(session: &mut Session, call: &str, columns: &str) -> Vec<String> {
    session.lines(&format!("SELECT {columns} FROM talkmeter.journal WHERE call = '{call}' ORDER BY at"))
}

fn calls(session: &mut Session) -> Vec<String> {
    session.lines("SELECT call FROM talkmeter.journal ORDER BY at")
}

#[test]
fn each_call_that_changes_money_is_there_with_who_when_whose_and_how() {
    let database = Database::with_messages("journal", "lutingenie", PLAN);
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 1, "currency": "EUR"}');
           SELECT talkmeter.define_pack('{"name": "ten", "size": 10, "price": 1, "currency": "EUR", "valid_for": "9 days"}');
           SELECT talkmeter.define_policy('{"name": "own", "starts_on": ["customer_message"], "ends_on": ["close"],
               "charge_on": "close"}');
           SELECT talkmeter.subscribe('acme', 'one', '2026-01-01');
           SELECT talkmeter.buy_pack('acme', 'ten', 'order 1', '2026-02-01');
           SELECT talkmeter.buy_pack('acme', 'ten', 'order 1', '2026-02-01');
           SELECT talkmeter.refund_pack('acme', 1);
           SELECT talkmeter.change_plan('acme', 'agent_red/starter', '2026-03-01');
           SELECT talkmeter.set_alert_channel('acme', 'https://hooks.example/secret')"#,
    );
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 ai_reply");
    tell(&mut session, "acme", "d", "10:00 customer_message, 10:01 ai_reply");
    session.run(
        "SELECT talkmeter.credit('acme', 1, 'sorry');
         SELECT talkmeter.dispute('acme', 2, 'not ours');
         SELECT talkmeter.resolve_dispute('acme', 1, 'rejected', 'it is');
         SELECT talkmeter.cancel('acme', '2026-06-01');
         SELECT talkmeter.finalize('acme', '2026-03-01')",
    );
    assert_eq!(
        calls(&mut session),
        [
            "attach",
            "define_plan",
            "define_pack",
            "define_policy",
            "subscribe",
            "buy_pack",
            "refund_pack",
            "change_plan",
            "set_alert_channel",
            "credit",
            "dispute",
            "resolve_dispute",
            "cancel",
            "finalize"
        ]
    );
    let bought = said(&mut session, "buy_pack", "by = session_user, tenant, arguments, at <= clock_timestamp()");
    let arguments = concat!(
        r#"{"pack": "ten", "pack_id": 1, "purchase_key": "order 1", "#,
        r#""purchased_at": "2026-02-01T00:00:00+00:00"}"#
    );
    assert_eq!(bought, [format!("t|acme|{arguments}|t")]);
    assert_eq!(said(&mut session, "credit", "arguments, note"), [r#"{"charge_id": 1, "reversed_by": 3}|sorry"#]);
    let channel = said(&mut session, "set_alert_channel", "arguments");
    assert!(!channel[0].contains("secret") && channel[0].contains("channel_sha256"), "{channel:?}");
}

#[test]
fn what_is_refused_or_rolled_back_is_not_there() {
    let database = Database::fresh("journal");
    let mut session = database.connect();
    session.refused("SELECT talkmeter.buy_pack('acme', 'no such pack')");
    session.run("BEGIN; SELECT talkmeter.buy_pack('acme', 'agent_red/1000'); ROLLBACK");
    assert_eq!(calls(&mut session), [""; 0]);
}

#[test]
fn a_second_attach_keeps_with_which_mapping_the_table_was_metered_before() {
    let database = Database::with_messages("journal", "lutingenie", PLAN);
    let mut session = database.connect();
    session.run("SELECT talkmeter.detach('messages')");
    attach(&mut session, "messages", "agent_red", None, r#"{"kinds": [{"kind": "note"}]}"#);
    assert_eq!(calls(&mut session), ["attach", "detach", "attach"]);
    let second =
        "arguments ->> 'policy', arguments -> 'replaced' ->> 'policy', arguments -> 'replaced' ->> 'default_plan',
        arguments -> 'replaced' ->> 'attached_by' = session_user,
        (SELECT o.arguments -> 'mapping' FROM talkmeter.journal AS o WHERE o.call = 'attach' ORDER BY o.at LIMIT 1)
            = arguments -> 'replaced' -> 'mapping'";
    assert_eq!(said(&mut session, "attach", second)[1], "agent_red|lutingenie|agent_red/starter|t|t");
}

#[test]
fn a_dry_run_is_not_there() {
    let database = Database::fresh("journal");
    let mut session = database.connect();
    create_messages(&mut session);
    let mapping = messages_mapping();
    session.run(&format!("SELECT talkmeter.attach('messages', 'lutingenie', '{mapping}', dry_run => true)"));
    assert_eq!(calls(&mut session), [""; 0]);
}

#[test]
fn a_report_that_is_replaced_and_a_review_that_no_longer_holds_stay_there() {
    let database = Database::with_messages("journal", "lutingenie", PLAN);
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 ai_reply");
    session.run(
        "SELECT talkmeter.report_external('acme', '2026-03-01', 1000);
         SELECT talkmeter.reconcile('2026-03-01');
         SELECT talkmeter.review('acme', '2026-03-01');
         SELECT talkmeter.report_external('acme', '2026-03-01', 0);
         SELECT talkmeter.reconcile('2026-03-01')",
    );
    let reported = "arguments ->> 'units', arguments -> 'replaced' ->> 'units',
        arguments -> 'replaced' ->> 'by' = session_user";
    assert_eq!(said(&mut session, "report_external", reported), ["1000||", "0|1000|t"]);
    let cleared = "tenant, arguments ->> 'day', arguments -> 'replaced' ->> 'external',
        arguments -> 'replaced' ->> 'reviewed_by' = session_user";
    assert_eq!(said(&mut session, "reconcile", cleared), ["acme|2026-03-01|1000|t"]);
    assert_eq!(said(&mut session, "review", "tenant, arguments"), [r#"acme|{"day": "2026-03-01"}"#]);
}

#[test]
fn a_right_that_is_given_and_taken_away_is_there_twice() {
    let database = Database::fresh("journal");
    let mut session = database.connect();
    let reader = database.role("reader");
    for call in ["grant", "grant", "revoke", "revoke"] {
        session.run(&format!("SELECT talkmeter.{call}_tenant('{reader}', 'acme')"));
    }
    assert_eq!(calls(&mut session), ["grant_tenant", "revoke_tenant"]);
    let revoked = said(&mut session, "revoke_tenant", "tenant, arguments ->> 'role'");
    assert_eq!(revoked, [format!("acme|{reader}")]);
}

#[test]
fn a_table_that_is_filled_by_hand_leaves_each_change_there_whoever_hides_behind_a_restore() {
    let database = Database::fresh("journal");
    let mut session = database.connect();
    let clerk = database.role("clerk");
    session.run(&format!(
        "GRANT USAGE ON SCHEMA talkmeter TO {clerk};
         GRANT SELECT, INSERT, UPDATE, DELETE ON talkmeter.holidays, talkmeter.threshold TO {clerk}"
    ));
    let mut clerks = database.connect_as(&clerk);
    clerks.run(
        "SET check_function_bodies = off;
         INSERT INTO talkmeter.holidays VALUES ('2026-12-25', 'Christmas');
         UPDATE talkmeter.holidays SET name = 'Christmas Day';
         DELETE FROM talkmeter.threshold WHERE kind = 'allowance_80'",
    );
    let changes = session.lines("SELECT by, call, arguments FROM talkmeter.journal ORDER BY at");
    let of = |call: &str, arguments: &str| format!("{clerk}|{call}|{arguments}");
    assert_eq!(
        changes,
        [
            of("holidays", r#"{"row": {"day": "2026-12-25", "name": "Christmas"}, "operation": "insert"}"#),
            of(
                "holidays",
                concat!(
                    r#"{"row": {"day": "2026-12-25", "name": "Christmas Day"}, "replaced": {"day": "2026-12-25", "#,
                    r#""name": "Christmas"}, "operation": "update"}"#
                )
            ),
            of(
                "threshold",
                concat!(
                    r#"{"replaced": {"kind": "allowance_80", "percent": 80, "shipped": true}, "#,
                    r#""operation": "delete"}"#
                )
            ),
        ]
    );
}

#[test]
fn nobody_changes_the_journal_and_admin_and_analyst_read_it() {
    let database = Database::fresh("journal");
    let mut session = database.connect();
    let (admin, analyst, tenant) = (database.role("jj_admin"), database.role("jj_analyst"), database.role("jj_tenant"));
    session.run(
        "SELECT talkmeter.subscribe('acme', 'agent_red/starter');
         SELECT talkmeter.create_roles('jj_' || current_database())",
    );
    let prefix = session.line("SELECT 'jj_' || current_database()");
    session.run(&format!(
        "GRANT {prefix}_admin TO {admin}; GRANT {prefix}_analyst TO {analyst}; GRANT {prefix}_tenant TO {tenant}"
    ));
    for role in [&admin, &analyst] {
        let mut theirs = database.connect_as(role);
        assert_eq!(theirs.line("SELECT tenant FROM talkmeter.journal WHERE call = 'subscribe'"), "acme");
        for change in [
            "UPDATE talkmeter.journaled SET note = 'x'",
            "DELETE FROM talkmeter.journaled",
            "TRUNCATE talkmeter.journaled",
            "INSERT INTO talkmeter.journaled (call, arguments) VALUES ('x', '{}')",
            "DELETE FROM talkmeter.journal",
        ] {
            assert_eq!(theirs.refused(change), SqlState::INSUFFICIENT_PRIVILEGE, "{change}");
        }
        theirs.refused(
            "CREATE TEMP TABLE t (x int);
             CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION talkmeter.journal_row()",
        );
    }
    let refused = database.connect_as(&tenant).refused("SELECT FROM talkmeter.journal");
    assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE);
    for change in
        ["UPDATE talkmeter.journaled SET note = 'x'", "DELETE FROM talkmeter.journaled", "TRUNCATE talkmeter.journaled"]
    {
        assert_eq!(session.refused(change), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{change}");
    }
    session.run(&format!("DROP OWNED BY {prefix}_admin, {prefix}_analyst, {prefix}_application, {prefix}_tenant"));
    session.run(&format!("DROP ROLE {prefix}_admin, {prefix}_analyst, {prefix}_application, {prefix}_tenant"));
}
