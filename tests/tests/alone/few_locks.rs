//! Is each row metered, or kept, where the server has room for few locks?

use crate::alone;
use crate::crash::{check_that_messages_and_charges_agree, meter_messages};
use postgres::error::SqlState;
use talkmeter_tests::Session;
use talkmeter_tests::private::Server;

const FEW: &str = "max_locks_per_transaction = 10";

/// A customer's message and a reply in each of so many conversations.
fn insert(from: usize, conversations: usize) -> String {
    format!(
        "INSERT INTO messages SELECT {from} + n, 'tenant ' || n / 2 % 50, 'c' || ({from} + n) / 2,
             '2026-03-01 10:00+00'::timestamptz + n % 2 * interval '1 min',
             CASE n % 2 WHEN 0 THEN 'customer_message' ELSE 'ai_reply' END
         FROM generate_series(0, 2 * {conversations} - 1) AS n"
    )
}

fn server() -> (Server, Session) {
    let server = Server::with(&[FEW, "max_prepared_transactions = 0"]);
    let mut session = server.create("d");
    meter_messages(&mut session);
    (server, session)
}

#[test]
fn one_commit_of_twenty_thousand_conversations_needs_no_lock_for_each() {
    let _alone = alone();
    let (_server, mut session) = server();
    session.run(&insert(0, 20_000));
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "20000");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
    check_that_messages_and_charges_agree(&mut session);
}

#[test]
fn where_others_hold_all_locks_a_commit_meters_its_rows_or_keeps_them_or_fails_whole() {
    let _alone = alone();
    let (server, mut session) = server();
    let (mut hog, mut acknowledged, mut refused) = (server.connect("d"), 0, 0);
    for round in 0..40 {
        let mut writer = server.connect("d");
        let begun = writer.client.batch_execute(&format!("BEGIN; {}", insert(round * 100, 20)));
        // All that are left after a few that others let go of.
        assert_eq!(
            hog.refused("SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) AS n"),
            SqlState::OUT_OF_MEMORY
        );
        hog.run(&format!("SELECT pg_advisory_unlock(n) FROM generate_series(1, {round}) AS n"));
        let ended = begun.and_then(|()| writer.client.batch_execute("COMMIT"));
        hog.run("SELECT pg_advisory_unlock_all()");
        match ended {
            Ok(()) => acknowledged += 40,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::OUT_OF_MEMORY), "{error:?}");
                refused += 1;
            }
        }
    }
    let kept = session.line("SELECT count(*) FROM talkmeter.quarantine");
    println!("{acknowledged} rows acknowledged, {kept} of them kept in quarantine, {refused} commits refused");
    assert!(kept != "0" || refused > 0, "there was room for all");
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.line("SELECT count(*) FROM messages"), acknowledged.to_string());
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
    check_that_messages_and_charges_agree(&mut session);
}
