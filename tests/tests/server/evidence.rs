//! Does a frozen statement prove that it, and the charges that it lists, are what they were (rule 4.6.16)?

use sha2::{Digest, Sha256};
use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, tell};

const FEBRUARY: &str = "2026-02-01 00:00+00";
const MARCH: &str = "2026-03-01 00:00+00";

/// `acme` on a plan that includes two units a month, with four in February, one of them credited, and three in March.
fn billed() -> (Database, Session) {
    let database = Database::fresh("evidence");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "USD"}');
           SELECT talkmeter.subscribe('acme', 'two', '2026-01-01', anchor_day => 1);
           SELECT talkmeter.subscribe('other', 'two', '2026-01-01', anchor_day => 1)"#,
    );
    for day in 1..=4 {
        tell(&mut session, "acme", &format!("Zoë \"{day}\""), &format!("2026-02-0{day} 12:00 exchange"));
    }
    for day in 1..=3 {
        tell(&mut session, "acme", &format!("m{day}"), &format!("2026-03-0{day} 12:00 exchange"));
    }
    session.run("SELECT talkmeter.credit('acme', 4, E'two\\nlines')");
    (database, session)
}

fn finalize(session: &mut Session, tenant: &str, start: &str) {
    session.run(&format!("SELECT talkmeter.finalize('{tenant}', '{start}')"));
}

fn digest(session: &mut Session, start: &str) -> String {
    session.line(&format!("SELECT DISTINCT digest FROM talkmeter.evidence('acme', '{start}')"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn problems(session: &mut Session) -> Vec<String> {
    session.lines("SELECT problem, object FROM talkmeter.verify() ORDER BY object")
}

#[test]
fn anybody_can_compute_the_digest_anew_from_the_lines() {
    let (_database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    let lines = session.lines(&format!("SELECT content FROM talkmeter.evidence('acme', '{FEBRUARY}') ORDER BY line"));
    let mut chained = Vec::new();
    for line in &lines {
        chained = Sha256::new().chain_update(&chained).chain_update(line).finalize().to_vec();
    }
    // The period, its base price, allowance, overage and credit, and five rows of the ledger.
    assert_eq!(lines.len(), 1 + 4 + 5);
    assert_eq!(digest(&mut session, FEBRUARY), hex(&chained));
    let last = format!("SELECT chained FROM talkmeter.evidence('acme', '{FEBRUARY}') ORDER BY line DESC LIMIT 1");
    assert_eq!(session.line(&last), hex(&chained));
}

#[test]
fn each_digest_is_chained_to_that_of_the_statement_that_was_frozen_before() {
    let (_database, mut session) = billed();
    // The order of freezing need not be that of time, and another tenant has a chain of its own.
    finalize(&mut session, "acme", MARCH);
    finalize(&mut session, "other", MARCH);
    finalize(&mut session, "acme", FEBRUARY);
    let first = digest(&mut session, MARCH);
    let chained_to = |start: &str| {
        format!(
            "SELECT finalization, content::json ->> 'chained_to' FROM talkmeter.evidence('acme', '{start}') WHERE line = 1"
        )
    };
    assert_eq!(session.line(&chained_to(MARCH)), "1|");
    assert_eq!(session.line(&chained_to(FEBRUARY)), format!("2|{first}"));
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn finalize_writes_the_digest_into_the_journal() {
    let (_database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    let journaled = session.line("SELECT arguments ->> 'digest' FROM talkmeter.journal WHERE call = 'finalize'");
    assert_eq!(journaled, digest(&mut session, FEBRUARY));
}

#[test]
fn a_period_that_is_not_finalized_has_no_evidence() {
    let (_database, mut session) = billed();
    let lines = "SELECT * FROM talkmeter.evidence('acme', '2026-02-01 00:00+00')";
    assert_eq!(session.lines(lines), [""; 0]);
}

#[test]
fn whatever_is_changed_in_what_was_frozen_is_named_by_verify() {
    let (_database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    let february = "evidence_differs|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00".to_owned();
    for tampering in [
        "UPDATE talkmeter.charge SET note = 'another' WHERE charge_id = 8",
        "UPDATE talkmeter.charge SET posted_by = 'nobody' WHERE charge_id = 8",
        "UPDATE talkmeter.charge SET posted_at = posted_at + interval '1 us' WHERE charge_id = 1",
        "UPDATE talkmeter.charge SET cause_message_id = '7' WHERE charge_id = 1",
        "UPDATE talkmeter.period SET finalized_by = 'nobody' WHERE finalization = 1",
        "UPDATE talkmeter.statement_line SET unit_price = unit_price * 1.0 WHERE line = 1",
        "UPDATE talkmeter.period SET digest = sha256('') WHERE finalization = 1",
        "UPDATE talkmeter.period SET digest = '' WHERE finalization = 1",
    ] {
        session.run("BEGIN");
        session.run(tampering);
        let found = problems(&mut session);
        session.run("ROLLBACK");
        assert_eq!(found, std::slice::from_ref(&february), "{tampering}");
    }
}

#[test]
fn a_charge_of_a_frozen_statement_that_is_taken_out_of_every_table_is_named_by_verify() {
    let (_database, mut session) = billed();
    session.run("SELECT talkmeter.credit('acme', 7, 'the last one')");
    finalize(&mut session, "acme", FEBRUARY);
    finalize(&mut session, "acme", MARCH);
    // The last row of the ledger never was, as far as any other table tells.
    session.run(
        "DELETE FROM talkmeter.charge WHERE charge_id = 9;
         UPDATE talkmeter.account SET last_charge_id = 8 WHERE tenant = 'acme';
         UPDATE talkmeter.period SET included_used = 2, overage_units = 1, overage_amount = 0.125
         WHERE period_start = '2026-03-01';
         UPDATE talkmeter.day_units SET units = 1 WHERE day = '2026-03-03';
         DELETE FROM talkmeter.statement_line WHERE period_start = '2026-03-01' AND kind = 'credit';
         UPDATE talkmeter.statement_line SET quantity = 1, amount = 0.13 WHERE period_start = '2026-03-01' AND kind = 'overage'",
    );
    let march = "evidence_differs|period from 2026-03-01 00:00:00+00 to 2026-04-01 00:00:00+00";
    assert_eq!(problems(&mut session), [march]);
}

#[test]
fn a_digest_that_is_made_anew_breaks_the_one_that_is_chained_to_it() {
    let (_database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    finalize(&mut session, "acme", MARCH);
    session.run(
        "UPDATE talkmeter.charge SET note = 'another' WHERE charge_id = 8;
         UPDATE talkmeter.period AS p SET digest = (
             SELECT talkmeter.chain(e.content ORDER BY e.line)
             FROM talkmeter.evidence_lines(p.tenant, p.period_start, p.period_end) AS e)
         WHERE p.finalization = 1",
    );
    let march = "evidence_differs|period from 2026-03-01 00:00:00+00 to 2026-04-01 00:00:00+00";
    assert_eq!(problems(&mut session), [march]);
}

#[test]
fn a_frozen_statement_that_is_taken_away_leaves_a_gap() {
    let (_database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    finalize(&mut session, "acme", MARCH);
    session.run(
        "DELETE FROM talkmeter.statement_line WHERE period_start = '2026-03-01';
         UPDATE talkmeter.period SET finalized_at = NULL, finalized_by = NULL, finalization = NULL, last_charge_id = NULL,
             last_subscription_id = NULL, last_pack_id = NULL, digest = NULL
         WHERE period_start = '2026-03-01'",
    );
    assert_eq!(problems(&mut session), ["finalization_ids_have_gaps|finalizations"]);
}

#[test]
fn settings_of_the_session_change_no_digest() {
    let (_database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    session.run(
        "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'; SET bytea_output = 'escape';
         SET standard_conforming_strings = off; SET extra_float_digits = -15; SET search_path = public",
    );
    assert_eq!(problems(&mut session), [""; 0]);
}

#[test]
fn a_tenant_reads_the_evidence_of_its_own_statement_alone() {
    let (database, mut session) = billed();
    finalize(&mut session, "acme", FEBRUARY);
    finalize(&mut session, "other", FEBRUARY);
    let role = database.role("reader");
    session.run(&format!("SELECT talkmeter.grant_tenant('{role}', 'acme')"));
    let mut reader = database.connect_as(&role);
    let own = format!(
        "SELECT tenant, finalization, line, content, subject, chained, digest FROM talkmeter.my_evidence('{FEBRUARY}')"
    );
    let all = format!("SELECT 'acme', * FROM talkmeter.evidence('acme', '{FEBRUARY}')");
    assert_eq!(reader.lines(&own), session.lines(&all));
}
