//! Does every panel of the dashboards for Grafana answer, and do the metrics for Prometheus agree with the views and wake whom they should?

use crate::demo;
use crate::make::root;
use postgres::types::Type;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, variable};

// --- Grafana ---

fn boards() -> Vec<(String, Value)> {
    let files = fs::read_dir(root().join("dashboards/grafana")).expect("the dashboards");
    let mut boards: Vec<(String, Value)> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let text = fs::read_to_string(&path).expect("text");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    boards.sort_by(|one, other| one.0.cmp(&other.0));
    boards
}

/// A query as Grafana sends it: its macro and the variable replaced.
fn sent(sql: &str) -> String {
    let mut sql = sql.replace("${tenant:sqlstring}", "'ubuntu-2014'");
    while let Some(at) = sql.find("$__timeFilter(") {
        let end = at + sql[at..].find(')').expect("it is closed");
        let column = sql[at + "$__timeFilter(".len()..end].to_owned();
        let within = format!("{column} BETWEEN '2020-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'");
        sql.replace_range(at..=end, &within);
    }
    assert!(!sql.contains('$'), "what is not known here: {sql}");
    sql
}

const NUMBERS: [Type; 3] = [Type::INT4, Type::INT8, Type::FLOAT8];
const SHOWN: [Type; 8] =
    [Type::INT4, Type::INT8, Type::FLOAT8, Type::TEXT, Type::BOOL, Type::DATE, Type::TIMESTAMPTZ, Type::NAME];

/// Fails unless the columns are those that a panel of that kind can show; returns how many rows there are.
fn answer(session: &mut Session, kind: &str, what: &str, sql: &str) -> usize {
    let statement = session.client.prepare(sql).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let columns: Vec<(&str, &Type)> =
        statement.columns().iter().map(|column| (column.name(), column.type_())).collect();
    let rows = session.client.query(&statement, &[]).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    match kind {
        "stat" => {
            assert!(columns.len() == 1 && NUMBERS.contains(columns[0].1), "{what}: {columns:?}");
            assert_eq!(rows.len(), 1, "{what}");
        }
        "timeseries" => {
            assert_eq!(columns[0], ("time", &Type::TIMESTAMPTZ), "{what}");
            let of_rest = |(name, of): &(&str, &Type)| NUMBERS.contains(of) || (*name, *of) == ("metric", &Type::TEXT);
            assert!(columns[1..].iter().all(of_rest), "{what}: {columns:?}");
        }
        "table" => assert!(columns.iter().all(|(_, of)| SHOWN.contains(of)), "{what}: {columns:?}"),
        _ => panic!("{what} is a {kind}"),
    }
    rows.len()
}

fn listed<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no {key}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// What the demo has nothing of.
const EMPTY: [&str; 7] = [
    "health: What is wrong, and what helps",
    "health: Quarantine",
    "health: Long work",
    "health: Days that were counted again and differ",
    "health: Disputes that are overdue",
    "health: Who sweeps",
    "tenant: Packs",
];

#[test]
fn every_panel_of_grafana_answers_an_analyst_with_the_columns_that_it_shows() {
    let (database, _) = demo::demonstrated();
    let mut session = database.connect();
    let prefix = format!("grafana_{}", database.name());
    session.run(&format!("SELECT talkmeter.create_roles('{prefix}')"));
    session.run(&format!("SET ROLE {prefix}_analyst"));
    let boards = boards();
    assert_eq!(boards.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["health", "overview", "tenant"]);
    for (name, board) in &boards {
        assert_eq!(text(board, "uid"), format!("talkmeter-{name}"));
        let mut ids = Vec::new();
        for panel in listed(board, "panels") {
            let what = format!("{name}: {}", text(panel, "title"));
            ids.push(panel["id"].as_i64().expect("a number"));
            let sql = sent(text(&listed(panel, "targets")[0], "rawSql"));
            let rows = answer(&mut session, text(panel, "type"), &what, &sql);
            assert!(rows > 0 || EMPTY.contains(&what.as_str()), "{what} is empty");
            for exception in listed(&panel["fieldConfig"], "overrides") {
                let column = text(&exception["matcher"], "options");
                let statement = session.client.prepare(&sql).expect("a statement");
                assert!(statement.columns().iter().any(|known| known.name() == column), "{what}: no {column}");
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "{name}: each panel has its number");
        for variable in listed(&board["templating"], "list").iter().filter(|variable| variable["type"] == "query") {
            assert_eq!(session.lines(text(variable, "query")).len(), 15, "{name}: {}", text(variable, "name"));
        }
    }
    session.run("RESET ROLE");
    for role in ["admin", "analyst", "application", "tenant"] {
        session.run(&format!("DROP OWNED BY {prefix}_{role}; DROP ROLE {prefix}_{role}"));
    }
}

// --- Prometheus ---

/// An exporter on a database; it ends with this.
struct Exporter {
    process: Child,
    address: String,
    config: PathBuf,
}

impl Exporter {
    /// Starts it with the project's configuration, but for the connection.
    fn start(database: &Database) -> Exporter {
        let config = fs::read_to_string(root().join("dashboards/prometheus/sql_exporter.yml")).expect("it is there");
        let connection = format!(
            "postgres://{}@/{}?host={}&port={}&sslmode=disable",
            variable("PGUSER"),
            database.name(),
            variable("PGHOST"),
            variable("PGPORT")
        );
        let placed = "postgres://talkmeter_metrics@localhost:5432/mydb?sslmode=prefer";
        assert_eq!(config.matches(placed).count(), 2, "one connection for each job");
        let path = PathBuf::from(variable("TALKMETER_DIR")).join(format!("{}.yml", database.name()));
        fs::write(&path, config.replace(placed, &connection)).expect("a file");
        // Free until it listens there itself.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").to_string();
        let mut command = Command::new("prometheus-sql-exporter");
        command.arg("-config.file").arg(&path).args(["-web.listen-address", &address]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("Debian's package");
        Exporter { process, address, config: path }
    }

    /// Its metrics as `name{label="value",...} number`, once each of its jobs has run.
    fn metrics(&self) -> Vec<String> {
        let patience = Instant::now();
        loop {
            let page = self.page().unwrap_or_default();
            if page.contains("sql_talkmeter_waiting{") && page.contains("sql_talkmeter_health{") {
                return page.lines().filter(|line| line.starts_with("sql_talkmeter")).map(str::to_owned).collect();
            }
            assert!(patience.elapsed() < Duration::from_secs(60), "{page}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn page(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.config);
    }
}

/// The value of the only metric that has a name and these labels.
fn value(metrics: &[String], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |line: &str, (label, value): &(&str, &str)| line.contains(&format!("{label}=\"{value}\""));
    let is_it = |line: &&String| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| has(line, label));
    let found: Vec<&String> = metrics.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {metrics:#?}");
    found[0].rsplit_once(' ').expect("a number").1.parse().expect("a number")
}

/// Two merchants; parts that time has ended hours ago and no sweep has found, one row in quarantine, overage, a dispute.
fn neglected() -> (Database, Session) {
    let database = Database::fresh("metrics");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "agent_red", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.125, "currency": "EUR"}');
           SELECT talkmeter.subscribe(tenant, 'one', now() - interval '2 days') FROM unnest(ARRAY['acme', 'bravo']) AS tenant;
           INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
           SELECT tenant, 'c' || n, now() - interval '2 hours', kind
           FROM (VALUES ('acme', 3), ('bravo', 1)) AS t (tenant, conversations), generate_series(1, conversations) AS n,
               unnest(ARRAY['customer_message', 'ai_reply']) AS kind"#,
    );
    session.run("INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'never', 'infinity', 'visit')");
    session.run("SELECT talkmeter.dispute('acme', 1, 'wrong')");
    (database, session)
}

#[test]
fn metrics_agree_with_the_views() {
    let (database, mut session) = neglected();
    let exporter = Exporter::start(&database);
    let metrics = exporter.metrics();
    for tenant in ["acme", "bravo"] {
        for column in ["used", "included", "included_remaining", "pack_balance", "pack_used", "overage_units"] {
            let view = session.line(&format!("SELECT {column} FROM talkmeter.usage WHERE tenant = '{tenant}'"));
            let metric = value(&metrics, "sql_talkmeter_usage", &[("col", column), ("tenant", tenant)]);
            assert_eq!(metric, view.parse::<f64>().expect("a number"), "{tenant} {column}");
        }
    }
    assert_eq!(value(&metrics, "sql_talkmeter_overage", &[("tenant", "acme"), ("currency", "EUR")]), 0.25);
    let waiting = |column: &str| value(&metrics, "sql_talkmeter_waiting", &[("col", column)]);
    let alerts = session.line("SELECT count(*) FROM talkmeter.alerts WHERE notified_at IS NULL");
    assert_eq!((waiting("disputes"), waiting("overdue_disputes"), waiting("unplanned")), (1.0, 0.0, 0.0));
    assert_eq!(waiting("alerts").to_string(), alerts);
    assert_eq!(value(&metrics, "sql_talkmeter_sweep", &[("col", "unswept")]), 4.0);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.unswept"), "4");
    let rows = |reason: &str| value(&metrics, "sql_talkmeter_quarantine", &[("reason", reason)]);
    let reason = session.line("SELECT reason FROM talkmeter.quarantine");
    assert_eq!((rows(""), rows(&reason)), (1.0, 1.0));
    // Reports show a part as ended as soon as time has ended it.
    assert_eq!(value(&metrics, "sql_talkmeter_parts", &[("col", "open")]), 0.0);
    let problems = session.lines("SELECT problem, count(*) FROM talkmeter.health() GROUP BY 1");
    assert!(problems.contains(&"sweep_stale|1".to_owned()), "{problems:?}");
    for problem in problems {
        let (name, count) = problem.split_once('|').expect("a count");
        assert_eq!(value(&metrics, "sql_talkmeter_health", &[("problem", name)]).to_string(), count);
    }
}

/// What `promtool test rules` says if a series of metrics stays as it is for half an hour, and these alerts are expected.
fn rules_tested(metrics: &[String], expected: &[(&str, bool)]) -> (bool, String) {
    let rules = root().join("dashboards/prometheus/alerts.yml");
    let mut test = format!(
        "rule_files: [\"{}\"]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n",
        rules.display()
    );
    for metric in metrics {
        let (series, number) = metric.rsplit_once(' ').expect("a number");
        test += &format!("      - series: '{series}'\n        values: '{number}x30'\n");
    }
    test += "    promql_expr_test:\n";
    for (alert, fires) in expected {
        let samples = if *fires { "[{labels: '{}', value: 1}]" } else { "[]" };
        test += &format!(
            "      - expr: count(count by (alertname) (ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}))\n        eval_time: 25m\n        exp_samples: {samples}\n"
        );
    }
    let file =
        PathBuf::from(variable("TALKMETER_DIR")).join(format!("rules_{}_{}.yml", std::process::id(), metrics.len()));
    fs::write(&file, test).expect("a file");
    let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().expect("Debian's package");
    fs::remove_file(&file).expect("removed");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_stopped_sweep_and_a_row_in_quarantine_raise_their_alerts_until_they_are_seen_to() {
    let alerts = [
        "TalkmeterSweepStopped",
        "TalkmeterQuarantine",
        "TalkmeterUnhealthy",
        "TalkmeterDisputeOverdue",
        "TalkmeterUnseen",
    ];
    let expected = |fires: [bool; 5]| alerts.into_iter().zip(fires).collect::<Vec<_>>();
    let (database, mut session) = neglected();
    let before = Exporter::start(&database).metrics();
    let (holds, said) = rules_tested(&before, &expected([true, true, true, false, false]));
    assert!(holds, "{said}");
    let (holds, _) = rules_tested(&before, &expected([false, true, true, false, false]));
    assert!(!holds, "the test of the rules notices");

    session.run("SELECT talkmeter.sweep(); DELETE FROM messages WHERE created_at = 'infinity'");
    session.run("SELECT talkmeter.retry_quarantine()");
    let after = Exporter::start(&database).metrics();
    let unhealthy = session.line("SELECT count(*) > 0 FROM talkmeter.health()") == "t";
    let (holds, said) = rules_tested(&after, &expected([false, false, unhealthy, false, false]));
    assert!(holds, "{said}");
    let (holds, said) = rules_tested(&[], &expected([false, false, false, false, true]));
    assert!(holds, "{said}");
}

#[test]
fn the_rules_for_alerts_are_sound() {
    let output = Command::new("promtool")
        .args(["check", "rules", "--lint=all", "--lint-fatal"])
        .arg(root().join("dashboards/prometheus/alerts.yml"))
        .output()
        .expect("Debian's package");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
