//! Do the parts and charges of the sample data come out as the independent implementation says, however it is loaded?

use talkmeter_tests::{
    Database, Session, assert_same_rows, attach_irc_support, copy_batches, expected, parts, records, text,
};

/// A plan that every tenant is on, so that each billable part has its charge.
const PLAN: &str = "agent_red/starter";

const ALL: usize = usize::MAX;

/// What must hold however the rows came: the parts, a charge per billable part, nothing in quarantine.
fn check(session: &mut Session, swept_to: &str, file: &str, tenants: Option<&[&str]>) {
    session.sweep(swept_to);
    assert_eq!(session.sweep(swept_to), 0, "parts that a second sweep ended");
    let mut wanted = expected(file);
    if let Some(tenants) = tenants {
        wanted.retain(|row| tenants.iter().any(|tenant| row.split('|').next() == Some(tenant)));
    }
    assert!(!wanted.is_empty());
    assert_same_rows(&parts(session, "true"), &wanted);
    assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine LIMIT 5"), [""; 0]);
    each_billable_part_has_one_charge(session);
    charge_ids_follow_the_drawing_order(session);
}

fn each_billable_part_has_one_charge(session: &mut Session) {
    let billable = session
        .lines("SELECT tenant, conversation, part, charged_at FROM talkmeter.parts WHERE billable ORDER BY 1, 2, 3");
    let charged = session.lines(
        "SELECT tenant, conversation, part, charged_at
         FROM talkmeter.charges AS c
         WHERE reverses IS NULL
             AND NOT EXISTS (SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
         ORDER BY 1, 2, 3",
    );
    assert!(!billable.is_empty());
    assert_same_rows(&charged, &billable);
}

/// Within a tenant ids run from 1 without gap: commit after commit, within it by charge instant, conversation, part.
fn charge_ids_follow_the_drawing_order(session: &mut Session) {
    let misplaced = session.lines(
        r#"SELECT *
           FROM (SELECT tenant, charge_id, conversation, part, charged_at, row_number() OVER (
                     PARTITION BY tenant
                     ORDER BY xmin::text::bigint, charged_at, conversation COLLATE "C", part) AS place
                 FROM talkmeter.charge) AS c
           WHERE charge_id <> place
           LIMIT 5"#,
    );
    assert_eq!(misplaced, [""; 0]);
}

fn irc_support(policy: &str, load: impl FnOnce(&mut Session)) {
    check_irc_support(policy, None, load);
}

fn check_irc_support(policy: &str, tenants: Option<&[&str]>, load: impl FnOnce(&mut Session)) {
    let database = Database::fresh("irc_support");
    let mut session = database.connect();
    attach_irc_support(&mut session, policy, Some(PLAN));
    load(&mut session);
    check(&mut session, "2026-01-01", &format!("parts_{policy}.csv.gz"), tenants);
}

fn in_batches_of(rows: usize) -> impl FnOnce(&mut Session) {
    move |session| copy_batches(session, "irc_support", &text("irc_support.csv.gz"), rows)
}

/// Each row a transaction of its own, of the tenants with few rows.
fn row_by_row(policy: &str) {
    let tenants = ["ubuntu-2004", "mediawiki"];
    check_irc_support(policy, Some(&tenants), |session| {
        let insert = "INSERT INTO irc_support
                      VALUES ($1::text::bigint, $2, $3, $4::text::timestamptz, $5, $6, $7::text::bigint)";
        let insert = session.client.prepare(insert).expect("an INSERT");
        for row in records("irc_support.csv.gz").iter().filter(|row| tenants.contains(&&row[1])) {
            let author = Some(&row[6]).filter(|author| !author.is_empty());
            session
                .client
                .execute(&insert, &[&&row[0], &&row[1], &&row[2], &&row[3], &&row[4], &&row[5], &author])
                .unwrap_or_else(|error| panic!("row {row:?}: {error}"));
        }
    });
}

fn rules(policy: &str, rows_per_transaction: usize) {
    let database = Database::with_messages("rules", policy, Some(PLAN));
    let mut session = database.connect();
    copy_batches(&mut session, "messages", &text("rules.csv.gz"), rows_per_transaction);
    check(&mut session, "2026-08-01", &format!("rules_parts_{policy}.csv.gz"), None);
}

macro_rules! loaded_every_way {
    ($($policy:ident)*) => {$(
        mod $policy {
            const POLICY: &str = stringify!($policy);

            #[test]
            fn irc_support_by_one_copy() {
                super::irc_support(POLICY, super::in_batches_of(super::ALL));
            }

            #[test]
            fn irc_support_in_batches_of_1000() {
                super::irc_support(POLICY, super::in_batches_of(1_000));
            }

            #[test]
            fn irc_support_in_batches_of_7() {
                super::irc_support(POLICY, super::in_batches_of(7));
            }

            #[test]
            fn irc_support_row_by_row() {
                super::row_by_row(POLICY);
            }

            #[test]
            fn rules_by_one_copy() {
                super::rules(POLICY, super::ALL);
            }

            #[test]
            fn rules_row_by_row() {
                super::rules(POLICY, 1);
            }
        }
    )*};
}

loaded_every_way! { lutingenie agent_red ai_resolution }
