//! How long does the page of a large merchant take, and how large is it?

use crate::alone;
use std::time::{Duration, Instant};
use talkmeter_tests::{Database, attach, create_messages, messages_mapping, report};

const CONVERSATIONS: usize = 100_000;
const LONGEST: Duration = Duration::from_secs(2);
const LARGEST: usize = 1_000_000;

#[test]
fn a_page_of_a_hundred_thousand_conversations_takes_less_than_two_seconds_and_a_megabyte() {
    let _alone = alone();
    let database = Database::fresh("large_report");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(&format!(
        r#"SELECT talkmeter.define_plan('{{"name": "some", "included": 5000, "overage_rate": 0.01, "currency": "EUR"}}');
           SELECT talkmeter.subscribe('large', 'some', '2026-01-01', anchor_day => 1);
           INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
           SELECT 'large', 'conversation ' || n, timestamptz '2026-01-01' + n * interval '25 seconds', kind
           FROM generate_series(0, {CONVERSATIONS} - 1) AS n,
               unnest(CASE n % 3 WHEN 0 THEN ARRAY['customer_message'] ELSE ARRAY['customer_message', 'ai_reply'] END) AS kind;
           SELECT talkmeter.sweep()"#
    ));
    session.run("VACUUM ANALYZE");
    let reader = database.role("reader");
    session.run(&format!("SELECT talkmeter.grant_tenant('{reader}', 'large')"));
    for role in ["none", &reader] {
        let mut command = report(&database, &["large", "--period", "2026-01", "--output", "-"]);
        command.env("PGOPTIONS", format!("-c role={role}"));
        // The best of three: what else the machine does is not counted.
        let mut best = Duration::MAX;
        let mut size = 0;
        for _ in 0..3 {
            let started = Instant::now();
            let output = command.output().expect("it runs");
            best = best.min(started.elapsed());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            size = output.stdout.len();
        }
        println!("as {role}: {best:.2?}, {size} bytes");
        assert!(best < LONGEST, "as {role}: {best:?}");
        assert!(size < LARGEST, "as {role}: {size} bytes");
    }
}
