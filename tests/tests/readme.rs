//! Does the tour of the README work as it stands?

use talkmeter_tests::Database;

/// The SQL blocks of the README, in order.
fn blocks() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("a closed block").to_owned()).collect()
}

#[test]
fn the_tour_of_the_readme_runs_as_it_stands_and_shows_what_it_says() {
    let database = Database::fresh("readme");
    let mut session = database.connect();
    let blocks = blocks();
    let before_step = |step: &str| blocks.iter().position(|sql| sql.contains(step)).expect("the step");
    let (change, sell, sweep) = (before_step("UPDATE"), before_step("buy_pack"), before_step("talkmeter.sweep"));
    // The inserts before the change are a block of their own, so that they are committed when it comes.
    for sql in &blocks[..change - 1] {
        session.lines(sql);
    }
    let parts = "SELECT conversation, part, status, billable FROM talkmeter.parts ORDER BY conversation";
    assert_eq!(
        session.lines(parts),
        ["c-1|1|open|t", "c-2|1|open|f"],
        "the rows from before are not metered, the excluded part is recorded"
    );
    assert_eq!(
        session.lines("SELECT charge_id, conversation, tier, amount FROM talkmeter.charges"),
        ["1|c-1|included|0"]
    );
    assert_eq!(session.line("SELECT talkmeter.balance('acme')"), "999");
    session.lines(&blocks[change - 1]);
    session.lines(&blocks[change]);
    assert_eq!(session.lines(parts), ["c-1|1|ended|t", "c-2|1|open|f", "c-3|1|open|f"]);
    assert_eq!(
        session.lines("SELECT charge_id, conversation, reverses, reason FROM talkmeter.charges ORDER BY charge_id"),
        ["1|c-1||", "2|c-3||", "3|c-3|2|refold"]
    );
    for sql in &blocks[change + 1..sell] {
        session.lines(sql);
    }
    assert_eq!(session.line("SELECT talkmeter.balance('acme')"), "999");
    for sql in &blocks[sell..sweep] {
        session.lines(sql);
    }
    assert_eq!(session.line("SELECT talkmeter.balance('acme')"), "1999");
    for sql in &blocks[sweep..] {
        session.lines(sql);
    }
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.sources"), "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
}
