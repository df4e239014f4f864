//! Does all of metering follow the clock of a rehearsal, and does that not go back behind what is frozen (rule 3.6.9)?

use postgres::error::SqlState;
use talkmeter_tests::{metered, tell};

#[test]
fn messages_parts_periods_and_packs_follow_the_clock() {
    let (_database, mut session) = metered("agent_red");
    session.run("SET talkmeter.clock_offset = '400d'");
    let story = "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
        SELECT 'acme', 'c', now - interval '1 hour', 'exchange' FROM talkmeter.clock";
    session.run(story);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
    assert_eq!(session.line("SELECT status, end_reason FROM talkmeter.parts"), "ended|idle");
    assert_eq!(session.line("SELECT talkmeter.sweep()"), "1");
    assert_eq!(session.line("SELECT talkmeter.sweep(NULL)"), "0");
    assert_eq!(
        session.line("SELECT used, period_start > statement_timestamp() + interval '300 days' FROM talkmeter.usage"),
        "1|t"
    );
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'agent_red/1000'); SELECT talkmeter.subscribe('bolt', 'agent_red/starter')",
    );
    assert_eq!(session.line("SELECT pack_balance FROM talkmeter.usage WHERE tenant = 'acme'"), "1000");
    assert_eq!(
        session.line(
            "SELECT since - now BETWEEN interval '-1 minute' AND interval '1 minute'
             FROM talkmeter.subscription, talkmeter.clock WHERE tenant = 'bolt'"
        ),
        "t"
    );
    assert_eq!(session.lines("SELECT problem FROM talkmeter.health()"), ["clock_offset"]);
    session.run("SET talkmeter.clock_offset = '600d'");
    assert_eq!(session.line("SELECT count(*), sum(expired_unused) FROM talkmeter.expired_packs"), "1|1000");
    assert_eq!(session.line("SELECT used FROM talkmeter.usage_history WHERE tenant = 'acme'"), "1");
    session.run("RESET talkmeter.clock_offset");
    session.run("INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'd', now() + interval '1 day', 'exchange')");
    assert_eq!(session.line("SELECT reason FROM talkmeter.quarantine"), "future");
    assert_eq!(
        session.lines("SELECT DISTINCT problem FROM talkmeter.health() ORDER BY 1"),
        ["ahead_of_clock", "quarantine"]
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()").len(), 0);
}

#[test]
fn the_clock_goes_forward_and_not_back_behind_a_period_that_is_finalized() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange, 10:05 close");
    session.run("SET talkmeter.clock_offset = '30d'; SET talkmeter.clock_offset = '-30d'");
    session.run("RESET talkmeter.clock_offset; SELECT talkmeter.finalize('acme', '2026-03-01')");
    let behind = "SELECT set_config('talkmeter.clock_offset',
        extract(epoch FROM timestamptz '2026-03-31 23:59+00' - clock_timestamp())::int::text, false)";
    assert_eq!(session.refused(behind), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(session.line("SHOW talkmeter.clock_offset"), "0");
    session.run(&behind.replace("2026-03-31 23:59", "2026-04-01 00:01"));
    session.run("SET talkmeter.clock_offset = '1d'");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()").len(), 0);
}

#[test]
fn what_a_rehearsal_has_frozen_is_ahead_of_no_later_clock_but_the_servers() {
    let (database, mut session) = metered("agent_red");
    session.run(
        "SET talkmeter.clock_offset = '400d';
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c', now - interval '1 hour', 'exchange' FROM talkmeter.clock;
         COMMIT;
         SET talkmeter.clock_offset = '450d';
         SELECT talkmeter.finalize(tenant, period_start) FROM talkmeter.usage_history",
    );
    assert_eq!(session.refused("SET talkmeter.clock_offset = 0"), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    session.run("RESET talkmeter.clock_offset");
    let mut later = database.connect();
    later.run("SELECT talkmeter.sweep(); SET talkmeter.clock_offset = 0");
    for days in ["1d", "-1d", "300d"] {
        let set = format!("SET talkmeter.clock_offset = '{days}'");
        assert_eq!(later.refused(&set), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{days}");
    }
    later.run("SET talkmeter.clock_offset = '440d'");
    // Where the library comes later than the setting it refuses it then.
    let (mut early, heard) = database.connect_heard();
    early.run("SET talkmeter.clock_offset = '1d'; SELECT talkmeter.sweep()");
    assert_eq!(early.line("SHOW talkmeter.clock_offset"), "0");
    assert!(heard.lock().expect("no other thread")[0].starts_with("WARNING"), "{heard:?}");
}

#[test]
fn the_clock_of_a_database_is_that_of_its_new_sessions_and_only_a_superuser_sets_it() {
    let (database, mut session) = metered("agent_red");
    let one = database.role("one");
    session.run(&format!("ALTER DATABASE {} SET talkmeter.clock_offset = '40d'", database.name()));
    let mut later = database.connect();
    let ahead = "SELECT clock_offset FROM talkmeter.clock";
    // Before the session has used the library, and after.
    assert_eq!(later.line(ahead), "960:00:00");
    later.run("SELECT talkmeter.sweep()");
    assert_eq!(later.line(ahead), "960:00:00");
    session.run(&format!(
        "GRANT USAGE ON SCHEMA talkmeter TO {one}; GRANT EXECUTE ON FUNCTION talkmeter.currency_digits TO {one}"
    ));
    let mut nobody = database.connect_as(&one);
    nobody.run("SELECT talkmeter.currency_digits('USD')");
    assert_eq!(nobody.refused("SET talkmeter.clock_offset = '1d'"), SqlState::INSUFFICIENT_PRIVILEGE);
}
