//! Does the page of `talkmeter-report` show what the views say, to whom it may, and nothing that data can bend?

use crate::demo;
use crate::make::root;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, report, tell, variable};

/// What it printed, and what it complained of.
fn outcome(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("the program runs: scripts/server-tests.sh builds it");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn page(database: &Database, arguments: &[&str]) -> String {
    outcome(report(database, arguments).args(["--output", "-"])).unwrap_or_else(|complaint| panic!("{complaint}"))
}

fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(variable("TALKMETER_DIR")).join(format!("report_{name}_{}", std::process::id()));
    fs::create_dir(&path).expect("a new directory");
    path
}

/// A merchant with an allowance, a pack and overage in January, one unit now, and parts that are not billed; and another.
fn shop() -> (Database, Session) {
    let database = Database::fresh("report");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "EUR"}');
           SELECT talkmeter.define_pack('{"name": "one", "size": 1, "price": 7, "currency": "EUR", "valid_for": "90 days"}');
           SELECT talkmeter.subscribe('berlin', 'two', '2026-01-01 00:00+01', anchor_day => 1, timezone => 'Europe/Berlin');
           SELECT talkmeter.subscribe('other', 'two', '2026-01-01', anchor_day => 1);
           SELECT talkmeter.buy_pack('berlin', 'one', purchased_at => '2026-01-02 00:00+00')"#,
    );
    for number in 0..5 {
        tell(&mut session, "berlin", &format!("c{number}"), &format!("2026-01-1{number} 23:30 exchange"));
    }
    tell(&mut session, "berlin", "asked", "2026-01-20 10:00 customer_message");
    tell(&mut session, "other", "of others", "2026-01-10 12:00 exchange");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('berlin', 'now', now(), 'exchange')",
    );
    (database, session)
}

/// A cell, a value or a heading stands in a page as it is.
fn shows(page: &str, piece: &str) -> bool {
    page.contains(piece)
}

#[test]
fn a_page_shows_the_numbers_of_the_views_for_a_month_that_is_over_and_for_the_current_one() {
    let (database, mut session) = shop();
    let january = page(&database, &["berlin", "--period", "2026-01"]);
    for (id, value) in [("used", 5), ("overage_units", 2), ("included_used", 2), ("pack_used", 1)] {
        let shown = format!(r#"<data id="{id}" value="{value}">{value}</data>"#);
        assert!(shows(&january, &shown), "{shown}");
    }
    let lines = session.lines(
        "SELECT line, kind, description, quantity, unit_price, amount || ' ' || currency
         FROM talkmeter.statement('berlin', '2026-01') ORDER BY line",
    );
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        let cells: Vec<&str> = line.split('|').collect();
        let row = format!(
            r#"<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{}</td></tr>"#,
            cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]
        );
        assert!(shows(&january, &row), "{row}");
    }
    let total = session
        .line("SELECT total || ' ' || currency FROM talkmeter.bills WHERE tenant = 'berlin' AND period = '2026-01'");
    assert!(shows(&january, &format!(r#"id="total">{total}</td>"#)), "{total}");
    assert!(
        shows(&january, r#"<tr><th scope="row">2026-01-15</th><td class="n">1</td><td class="n">0.7</td></tr>"#),
        "a day"
    );
    assert!(shows(&january, "Of 6 parts of conversations that began in this month 5 are billable"), "parts");

    let current = page(&database, &["berlin"]);
    let views = "SELECT used, included_remaining FROM talkmeter.usage WHERE tenant = 'berlin'";
    assert_eq!(session.lines(views), ["1|1"]);
    for (id, value) in [("used", 1), ("included_remaining", 1), ("pack_balance", 0)] {
        assert!(shows(&current, &format!(r#"<data id="{id}" value="{value}">"#)), "{id}");
    }
    assert!(shows(&current, "opened part 1"), "the newest conversation is explained");
    assert!(!current.contains("of others"));
}

#[test]
fn a_tenants_role_gets_the_page_of_its_tenant_alone_and_the_same_as_an_analyst() {
    let (database, mut session) = shop();
    let (reader, stranger) = (database.role("reader"), database.role("stranger"));
    session.run(&format!("SELECT talkmeter.grant_tenant('{reader}', 'berlin')"));
    let as_role = |role: &str, arguments: &[&str]| {
        outcome(report(&database, arguments).env("PGOPTIONS", format!("-c role={role}")).args(["--output", "-"]))
    };
    let january = ["berlin", "--period", "2026-01"];
    let own = as_role(&reader, &january).expect("its page");
    // Only the instant at which they were read may differ.
    let apart_from_instant = |page: &str| {
        let (before, after) = page.split_once("Read at ").expect("when it was read");
        format!("{before}{}", &after["2026-01-01 00:00:00".len()..])
    };
    assert_eq!(apart_from_instant(&own), apart_from_instant(&page(&database, &january)));
    let refused = as_role(&reader, &["other"]).expect_err("another's page");
    assert!(refused.contains("nothing is billed to a tenant \"other\" that this role may read"), "{refused}");
    let refused = as_role(&stranger, &["berlin"]).expect_err("a stranger");
    assert!(refused.contains("may read no view of talkmeter") && refused.contains("grant_tenant"), "{refused}");
}

#[test]
fn what_cannot_be_shown_is_refused_with_a_hint() {
    let (database, _session) = shop();
    let refused = |arguments: &[&str]| outcome(&mut report(&database, arguments)).expect_err("no page");
    assert!(refused(&["nobody"]).contains("nothing is billed to a tenant \"nobody\""));
    let no_month = refused(&["berlin", "--period", "1999-01"]);
    assert!(no_month.contains("no billing month \"1999-01\"") && no_month.contains("HINT"), "{no_month}");
    assert!(refused(&["berlin", "--dbname", "postgres"]).contains("talkmeter is not in this database"));
    assert!(refused(&["berlin", "--dbname", "no such database"]).contains("no such database"));
    assert!(refused(&[]).contains("<TENANT>"));
    let nowhere = refused(&["berlin", "--output", "/nonexistent/page.html"]);
    assert!(nowhere.contains("cannot write /nonexistent/page.html"), "{nowhere}");
    let mut without_psql = report(&database, &["berlin"]);
    let refused = outcome(without_psql.env("PATH", "/nonexistent")).expect_err("no psql");
    assert!(refused.contains("postgresql-client"), "{refused}");
}

#[test]
fn a_page_is_the_same_whatever_the_session_shows_times_as_and_has_every_day_in_any_zone() {
    let (database, _session) = shop();
    let read = |zone: &str, style: &str| {
        let mut command = report(&database, &["berlin", "--period", "2026-01", "--output", "-"]);
        command.env("PGTZ", zone).env("PGOPTIONS", format!("-c DateStyle={style} -c IntervalStyle=sql_standard"));
        outcome(&mut command).unwrap_or_else(|complaint| panic!("{zone}, {style}: {complaint}"))
    };
    // There Israel's time has the same letters, and the first day of a month came at one o'clock.
    for (zone, style) in [("Asia/Kolkata", "German"), ("Africa/Cairo", "SQL"), ("America/Havana", "Postgres")] {
        let page = read(zone, style);
        assert!(shows(&page, r#"<data id="used" value="5">"#), "{zone}");
        assert_eq!(page.matches(r#"<tr><th scope="row">2026-01-"#).count(), 31, "{zone}");
        assert!(shows(&page, r#"id="total">17.25 EUR"#), "{zone}");
    }
}

#[test]
fn months_of_one_name_are_told_apart_by_their_first_days() {
    let (database, mut session) = shop();
    session.run("SELECT talkmeter.subscribe('berlin', 'two', '2026-01-20 00:00+01', timezone => 'Europe/Berlin', anchor_day => 20)");
    let first_days = session.lines(
        "SELECT first_day FROM talkmeter.usage_monthly WHERE tenant = 'berlin' AND period = '2026-01' ORDER BY 1",
    );
    assert_eq!(first_days, ["2026-01-01", "2026-01-20"]);
    let mut ambiguous = report(&database, &["berlin", "--period", "2026-01", "--output", "-"]);
    let refused = outcome(&mut ambiguous).expect_err("two months");
    assert!(refused.contains("2026-01-01, 2026-01-20"), "{refused}");
    assert!(shows(&page(&database, &["berlin", "--period", "2026-01-01"]), r#"<data id="used" value="5">"#));
    assert!(shows(&page(&database, &["berlin", "--period", "2026-01-20"]), r#"<data id="used" value="0">"#));
    let into = directory("months");
    for first_day in ["2026-01-01", "2026-01-20"] {
        let mut command = report(&database, &["berlin", "--period", first_day]);
        let written = outcome(command.current_dir(&into)).expect("a page");
        assert_eq!(written, format!("berlin-{first_day}.html\n"));
    }
    fs::remove_dir_all(&into).expect("removed");
}

#[test]
fn a_page_replaces_what_a_link_leads_to_and_nothing_that_is_no_file() {
    let (database, _session) = shop();
    let into = directory("links");
    let (file, link, pipe) = (into.join("file"), into.join("link"), into.join("pipe"));
    fs::write(&file, "before").expect("a file");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    outcome(report(&database, &["berlin", "--output"]).arg(&link)).expect("a page");
    assert!(link.is_symlink() && fs::read_to_string(&file).expect("text").starts_with("<!DOCTYPE html>"));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("a program").success());
    let mut reader = Command::new("cat").arg(&pipe).stdout(Stdio::piped()).spawn().expect("a program");
    outcome(report(&database, &["berlin", "--output"]).arg(&pipe)).expect("a page");
    let mut read = String::new();
    reader.stdout.take().expect("piped").read_to_string(&mut read).expect("text");
    reader.wait().expect("it ends");
    assert!(read.starts_with("<!DOCTYPE html>"));
    outcome(report(&database, &["berlin", "--output"]).arg(&into)).expect_err("a directory");
    assert_eq!(fs::read_dir(&into).expect("a directory").count(), 3, "nothing is left over");
    fs::remove_dir_all(&into).expect("removed");
}

#[test]
fn who_fails_among_all_tenants_is_named_and_the_others_get_their_pages() {
    let (database, _session) = shop();
    let into = directory("some");
    fs::create_dir(into.join("berlin-2026-01.html")).expect("where a page is to be");
    let mut command = report(&database, &["--all", "--period", "2026-01", "--output"]);
    let refused = outcome(command.arg(&into)).expect_err("one fails");
    assert!(
        refused.contains("tenant \"berlin\": cannot write") && refused.contains("1 of 2 tenants have no page"),
        "{refused}"
    );
    assert!(into.join("other-2026-01.html").exists());
    let mut command = report(&database, &["--all", "--period", "march", "--output"]);
    assert!(outcome(command.arg(&into)).expect_err("none").contains("no page to write"));
    fs::remove_dir_all(&into).expect("removed");
}

#[test]
fn long_lists_are_cut_off_and_say_so_and_what_a_terminal_would_obey_is_not_printed() {
    let (database, mut session) = shop();
    session.run(
        "SELECT talkmeter.buy_pack('berlin', 'one', purchased_at => '2026-01-03') FROM generate_series(1, 99);
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'berlin', 'many', timestamptz '2026-01-25' + n * interval '1 hour', 'exchange' FROM generate_series(1, 100) AS n",
    );
    let page = page(&database, &["berlin", "--period", "2026-01"]);
    assert_eq!(page.matches(r#"<tr><th scope="row">one</th>"#).count(), 60);
    assert_eq!(page.matches("And 40 more, which are not shown.").count(), 2, "packs, and parts");
    assert!(shows(&page, "billed (60 times)"), "parts");
    assert!(page.len() < 200_000, "{}", page.len());
    let refused = outcome(&mut report(&database, &["\u{1b}[31m\nred"])).expect_err("nobody");
    assert!(!refused.contains('\u{1b}') && refused.contains("\\u{1b}[31m\\nred"), "{refused}");
}

#[test]
fn all_tenants_get_a_file_each_whatever_their_names_are() {
    let (database, mut session) = shop();
    for tenant in ["../a b", "--all", "", &"long ".repeat(100)] {
        session.client.execute("SELECT talkmeter.subscribe($1, 'two')", &[&tenant]).expect("a subscription");
    }
    let into = directory("all");
    let mut command = report(&database, &["--all", "--period", "2026-01", "--output"]);
    let output = command.arg(&into).output().expect("it runs");
    let progress = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{progress}");
    let told: Vec<&str> = progress.lines().filter(|line| line.contains(" of 6: ")).collect();
    assert_eq!(told.len(), 6, "{progress}");
    assert!(told[0].contains("no billing month"), "it came later: {progress}");
    let mut files: Vec<String> = fs::read_dir(&into)
        .expect("a directory")
        .map(|file| file.expect("a file").file_name().into_string().expect("text"))
        .collect();
    files.sort();
    assert_eq!(files, ["berlin-2026-01.html", "other-2026-01.html"]);
    let mut command = report(&database, &["../a b"]);
    let written = outcome(command.current_dir(&into)).expect("a page");
    assert!(written.starts_with("%2E%2E%2Fa%20b-20"), "{written}");
    let mut command = report(&database, &["--all", "--output"]);
    outcome(command.arg(&into)).expect("pages");
    let files = fs::read_dir(&into).expect("a directory");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("text")).collect::<Vec<_>>();
    for start in ["%2D-all-20", "%-20", "long%20long%20"] {
        assert!(names.iter().any(|name| name.starts_with(start)), "{start} of {names:?}");
    }
    fs::remove_dir_all(&into).expect("removed");
}

/// The program while it serves; it ends with this.
struct Watched {
    child: Child,
    address: String,
}

impl Watched {
    fn start(database: &Database) -> Watched {
        let mut child = report(database, &["berlin", "--watch=5"]).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said).expect("a line");
        let address = said.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an address");
        Watched { address: address.to_owned(), child }
    }

    fn get(&self, path: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watched_page_is_read_anew_and_served_under_its_own_name_only() {
    let (database, mut session) = shop();
    let watched = Watched::start(&database);
    assert!(watched.address.starts_with("127.0.0.1:"), "{}", watched.address);
    let page = watched.get("/", &watched.address);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains(r#"<meta http-equiv="refresh" content="5">"#), "{page}");
    assert!(page.contains(r#"<data id="used" value="1">"#));
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('berlin', 'more', now(), 'exchange')",
    );
    assert!(watched.get("/", &watched.address).contains(r#"<data id="used" value="2">"#));
    let mut stalled = TcpStream::connect(&watched.address).expect("it listens");
    write!(stalled, "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\nabc", watched.address)
        .expect("asked");
    let port = watched.address.rsplit(':').next().expect("a port");
    assert!(watched.get("/", &format!("LocalHost:{port}")).starts_with("HTTP/1.1 200"), "beside one that stalls");
    assert!(watched.get("/other", &watched.address).starts_with("HTTP/1.1 404"));
    assert!(watched.get("/", "merchant.example").starts_with("HTTP/1.1 403"));
}

// --- In a browser ---

/// What a browser shows of a page, after it has found nothing wrong with it.
fn seen(page: &Path, picture: Option<&Path>) -> serde_json::Value {
    let mut node = Command::new("node");
    node.env("NODE_PATH", root().join("target/browser/node_modules"));
    node.arg(root().join("tests/browser/look.js")).arg(page).args(picture);
    let printed = outcome(&mut node).unwrap_or_else(|complaint| panic!("{complaint}"));
    let seen: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(seen["problems"], serde_json::json!([]), "{}", page.display());
    seen
}

#[test]
fn in_a_browser_names_that_are_markup_are_text() {
    const MARKUP: &str = "<script>alert(1)</script>";
    let (database, mut session) = shop();
    session.run(&format!(
        "SELECT talkmeter.subscribe('<img src=x onerror=alert(2)>\"''', 'two');
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('<img src=x onerror=alert(2)>\"''', '{MARKUP}', now(), 'exchange')"
    ));
    let into = directory("markup");
    let file = into.join("page.html");
    let mut command = report(&database, &["<img src=x onerror=alert(2)>\"'", "--output"]);
    outcome(command.arg(&file)).expect("a page");
    let seen = seen(&file, None);
    assert_eq!(seen["scripts"], 0);
    let text = seen["text"].as_str().expect("text");
    assert!(text.contains(MARKUP) && text.contains("<img src=x onerror=alert(2)>\"'"), "{text}");
    fs::remove_dir_all(&into).expect("removed");
}

/// The picture in the README is made here: TALKMETER_ACCEPT=1 takes it as it is now.
#[test]
fn in_a_browser_the_demos_page_is_sound_by_keyboard_and_holds_what_the_views_say() {
    let (database, _) = demo::demonstrated();
    let mut session = database.connect();
    let into = directory("demo");
    let (file, picture) = (into.join("page.html"), into.join("page.png"));
    outcome(report(&database, &["ubuntu-2014", "--output"]).arg(&file)).expect("a page");
    let seen = seen(&file, Some(&picture));
    let usage = session.line(
        "SELECT json_build_object('used', used::text, 'included_remaining', included_remaining::text, 'pack_balance', pack_balance::text,
            'overage_units', overage_units::text, 'estimated_overage', estimated_overage::text, 'included_used', included_used::text,
            'pack_used', pack_used::text, 'projected_used', projected_used::text)
         FROM talkmeter.usage JOIN talkmeter.usage_projection USING (tenant, period_start, used) WHERE tenant = 'ubuntu-2014'",
    );
    let usage: serde_json::Value = serde_json::from_str(&usage).expect("JSON");
    assert_eq!(seen["values"], usage);
    let rows = |table: &str| -> Vec<String> {
        let rows = seen["tables"][table].as_array().unwrap_or_else(|| panic!("no table {table}"));
        rows.iter().map(|row| row.as_str().expect("text").to_owned()).collect()
    };
    let reasons = session.lines(
        "SELECT replace(not_billable_because, '_', ' '), count(*)
         FROM talkmeter.parts JOIN talkmeter.usage USING (tenant)
         WHERE tenant = 'ubuntu-2014' AND started_at >= period_start AND not_billable_because IS NOT NULL
         GROUP BY 1 ORDER BY 2 DESC, 1",
    );
    assert_eq!(rows("not_billed"), reasons);
    let months = session.lines(
        "SELECT period, first_day, used, included_used, pack_used, overage_units, COALESCE(total || ' ' || currency, '–')
         FROM talkmeter.usage_monthly LEFT JOIN talkmeter.bills USING (tenant, period)
         WHERE tenant = 'ubuntu-2014' AND usage_monthly.period_start > now() - interval '12 months' ORDER BY period",
    );
    assert_eq!(rows("months"), months);
    let days = rows("days").into_iter().filter(|day| !day.contains("|0|"));
    let used = days.map(|day| day.rsplit_once('|').expect("an average").0.to_owned()).collect::<Vec<_>>();
    let daily = session.lines(
        "SELECT d.day, d.used FROM talkmeter.usage_daily AS d JOIN talkmeter.usage_monthly AS m USING (tenant)
         WHERE d.tenant = 'ubuntu-2014' AND m.period_end > now() AND d.day >= m.first_day ORDER BY 1",
    );
    assert_eq!(used, daily);
    let focused = seen["focused"].as_array().expect("a list");
    assert!(focused.contains(&"a".into()) && focused.contains(&"summary".into()), "{focused:?}");
    if std::env::var_os("TALKMETER_ACCEPT").is_some() {
        fs::copy(&picture, root().join("docs/report.png")).expect("the picture");
    }
    fs::remove_dir_all(&into).expect("removed");
}
