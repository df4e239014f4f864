//! Does the demo run without a warning, and show merchants in the middle of their month, on whatever day it is started?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use talkmeter_tests::{Database, program, text, variable};

/// Runs demo/demo.sql as scripts/demo.sh does, and returns its database and what it printed.
pub fn demonstrated() -> (Database, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = PathBuf::from(variable("TALKMETER_DIR")).join("irc_support.csv");
    fs::write(&data, text("irc_support.csv.gz")).expect("a file beside the server");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o644)).expect("a file that the server may read");
    let mapping = fs::read_to_string(root.join("data/irc_support.mapping.json")).expect("the mapping");
    let database = Database::empty("demo");
    let mut psql = program("psql");
    psql.current_dir(root).args(["-X", "-P", "pager=off", "-v", "ON_ERROR_STOP=1", "-d", database.name()]);
    psql.args(["-v", &format!("data={}", data.display()), "-v", &format!("mapping={mapping}")]);
    let output = psql.args(["-f", "demo/demo.sql"]).output().expect("psql");
    fs::remove_file(&data).expect("removed");
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{printed}");
    (database, printed)
}

#[test]
fn the_demo_warns_of_nothing_and_ends_in_the_middle_of_the_month_with_alerts_overage_exclusions_and_a_dispute() {
    let (database, printed) = demonstrated();
    assert!(!printed.contains("WARNING") && !printed.contains("ERROR"), "{printed}");
    let mut session = database.connect();
    // Also if midnight has passed since.
    let last = "SELECT max(created_at)::date BETWEEN current_date - 2 AND current_date - 1 FROM irc_support GROUP BY tenant_id";
    assert_eq!(session.lines(last), ["t"; 15]);
    assert_eq!(
        session.table(
            "SELECT count(*) AS tenants, bool_and(used > 0) AS all_used, bool_or(pack_used > 0) AS packs_used,
                 bool_or(overage_units > 0) AS overage
             FROM talkmeter.usage"
        ),
        ["tenants|all_used|packs_used|overage", "15|t|t|t"]
    );
    assert_eq!(
        session.table(
            "SELECT kind, count(*) > 0 AS raised
             FROM talkmeter.alerts JOIN talkmeter.usage USING (tenant, period_start) GROUP BY 1 ORDER BY 1"
        ),
        ["kind|raised", "allowance_100|t", "allowance_80|t", "pack_low|t", "volume_spike|t"]
    );
    assert_eq!(
        session
            .table("SELECT not_billable_because, count(*) > 5 AS several FROM talkmeter.parts GROUP BY 1 ORDER BY 1"),
        ["not_billable_because|several", "excluded_prefix|t", "no_ai_reply|t", "|t"]
    );
    assert_eq!(session.lines("SELECT state FROM talkmeter.disputes ORDER BY dispute_id"), ["credited", "open"]);
    let lines = "SELECT kind, sum(quantity) FROM talkmeter.usage, talkmeter.statement(tenant, period_start)
         WHERE tenant = 'ubuntu-2014' GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(lines), ["credit|-1", "included|60", "overage|74"]);
    for problems in ["talkmeter.health() WHERE problem <> 'posted_late'", "talkmeter.verify()", "talkmeter.quarantine"]
    {
        assert_eq!(session.lines(&format!("SELECT * FROM {problems}")), [""; 0], "{problems}");
    }
}
