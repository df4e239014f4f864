//! Are the books of several servers, each with tenants of its own, together those of one?

use postgres::error::SqlState;
use talkmeter_tests::private::Server;
use talkmeter_tests::{Database, Session, assert_same_rows, attach_irc_support, text, variable};

const POLICY: &str = "agent_red";

const SMALL: &str = r#"SELECT talkmeter.define_pack(
    '{"name": "small", "size": 50, "price": 5, "currency": "USD", "valid_for": "never"}')"#;

/// Makes a database reach others, by server shard1 and so on.
fn reach(reports: &mut Session, databases: &[(&str, &str)]) {
    reports.run("CREATE EXTENSION postgres_fdw");
    for (number, (host, name)) in (1..).zip(databases) {
        let user = variable("PGUSER");
        reports.run(&format!(
            "CREATE SERVER shard{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '5432', dbname '{name}');
             CREATE USER MAPPING FOR CURRENT_USER SERVER shard{number} OPTIONS (user '{user}', password_required 'false')",
        ));
    }
}

/// The sample data: the heading, and each row with its tenant's number among all tenants.
struct Rows {
    heading: String,
    rows: Vec<(usize, String)>,
    tenants: Vec<String>,
}

impl Rows {
    fn read() -> Rows {
        let text = text("irc_support.csv.gz");
        let mut lines = text.lines();
        let heading = lines.next().expect("a heading").to_owned();
        let tenant = |line: &str| line.split(',').nth(1).expect("a tenant").to_owned();
        let mut tenants: Vec<String> = lines.clone().map(tenant).collect();
        tenants.sort();
        tenants.dedup();
        let rows =
            lines.map(|line| (tenants.binary_search(&tenant(line)).expect("a tenant"), line.to_owned())).collect();
        Rows { heading, rows, tenants }
    }

    /// Copies a range of those that are wanted, by the number of their tenant.
    fn copy(&self, session: &mut Session, range: std::ops::Range<usize>, is_wanted: impl Fn(usize) -> bool) {
        let wanted = self.rows[range].iter().filter(|(tenant, _)| is_wanted(*tenant));
        let data: String = wanted.flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
        let copy = format!("COPY irc_support ({}) FROM STDIN (FORMAT csv)", self.heading);
        let copy = session.client.prepare(&copy).expect("a COPY");
        session.copy_in(&copy, data.as_bytes());
    }
}

/// One server with all tenants, or one of those that share them.
struct Shard {
    session: Session,
    /// The numbers of its tenants leave this when divided by how many servers share them.
    remainder: usize,
    of: usize,
}

impl Shard {
    fn new(server: &Server, remainder: usize, of: usize) -> Shard {
        let mut session = server.create("meter");
        attach_irc_support(&mut session, POLICY, Some("agent_red/starter"));
        Shard { session, remainder, of }
    }

    /// All that an application does: a pack for each tenant, loads, single rows, one transaction in two phases, rows that
    /// are late, changed and deleted, and a sweep at the end.
    fn works(&mut self, rows: &Rows) {
        let (remainder, of) = (self.remainder, self.of);
        let is_own = |tenant: usize| tenant % of == remainder;
        let count = rows.rows.len();
        let (held, single) = (count - 2_000, count - 200);
        self.session.run(SMALL);
        for tenant in (0..rows.tenants.len()).filter(|tenant| is_own(*tenant)) {
            let buy =
                format!("SELECT talkmeter.buy_pack('{}', 'small', purchased_at => '2004-12-01')", rows.tenants[tenant]);
            self.session.run(&buy);
        }
        rows.copy(&mut self.session, 0..held / 2, is_own);
        // Its first half comes late.
        rows.copy(&mut self.session, held / 2 + 5_000..held, is_own);
        rows.copy(&mut self.session, held / 2..held / 2 + 5_000, is_own);
        self.session.run("BEGIN");
        rows.copy(&mut self.session, held..single, is_own);
        self.session.run("PREPARE TRANSACTION 'all'");
        self.session.run("COMMIT PREPARED 'all'");
        for row in single..count {
            if is_own(rows.rows[row].0) {
                rows.copy(&mut self.session, row..row + 1, |_| true);
            }
        }
        self.session.run("UPDATE irc_support SET created_at = created_at - interval '31 minutes' WHERE id % 1000 = 7");
        self.session.run("DELETE FROM irc_support WHERE id % 1000 = 8");
        self.session.sweep("2026-01-01");
    }
}

/// What the books say of tenants, without what tells servers apart: who wrote it and when.
pub const BOOKS: [(&str, &str); 5] = [
    (
        "charges",
        "tenant, charge_id, conversation, part, charged_at, period_start, posted_period_start, tier, pack_id, amount,
         currency, plan, policy, policy_version, reverses, outcome",
    ),
    ("parts", "to_jsonb(v) - 'server'"),
    ("packs", "tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at"),
    ("bills", "to_jsonb(v) - 'server'"),
    ("usage_history", "to_jsonb(v) - 'server'"),
];

#[test]
fn the_books_of_three_servers_are_together_those_of_one_to_the_row() {
    let rows = Rows::read();
    let settings = ["max_prepared_transactions = 5"];
    let servers: Vec<Server> = (0..4).map(|_| Server::with(&settings)).collect();
    let mut all = Shard::new(&servers[3], 0, 1);
    all.works(&rows);
    let mut shards: Vec<Shard> = (0..3).map(|number| Shard::new(&servers[number], number, 3)).collect();
    shards.iter_mut().for_each(|shard| shard.works(&rows));

    let mut reports = servers[3].create("reports");
    let databases: Vec<(&str, &str)> = servers[..3].iter().map(|server| (server.directory(), "meter")).collect();
    reach(&mut reports, &databases);
    reports.run("SELECT talkmeter.fleet('{shard1,shard2,shard3}')");
    for (view, columns) in BOOKS {
        let mut found = reports.lines(&format!("SELECT {columns} FROM fleet.{view} AS v"));
        let mut wanted = all.session.lines(&format!("SELECT {columns} FROM talkmeter.{view} AS v"));
        found.sort();
        wanted.sort();
        assert!(!wanted.is_empty(), "{view}");
        assert_same_rows(&found, &wanted);
    }
    for session in shards.iter_mut().map(|shard| &mut shard.session).chain([&mut all.session]) {
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
        assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), [""; 0]);
    }
    assert_eq!(reports.lines("SELECT problem, object FROM fleet.health WHERE server IS NULL"), [""; 0]);
    assert_eq!(
        reports.lines("SELECT sum(units) FROM fleet.units"),
        all.session.lines("SELECT sum(used) FROM talkmeter.usage_daily")
    );
}

/// Databases of this server, as if they were servers, and one that reaches them.
fn two() -> (Vec<Database>, Database) {
    let shards: Vec<Database> = (1..=2)
        .map(|number| Database::with_messages(&format!("shard{number}"), POLICY, Some("agent_red/starter")))
        .collect();
    let reports = Database::fresh("reports");
    let host = variable("PGHOST");
    reach(&mut reports.connect(), &[(&host, shards[0].name()), (&host, shards[1].name())]);
    (shards, reports)
}

fn insert(database: &Database, tenant: &str) {
    database.connect().run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES
             ('{tenant}', 'c', '2026-03-02 10:00+00', 'customer_message'), ('{tenant}', 'c', '2026-03-02 10:01+00', 'ai_reply')"
    ));
}

#[test]
fn a_definition_that_differs_and_a_tenant_on_two_servers_are_named() {
    let (shards, reports) = two();
    let mut reports = reports.connect();
    reports.run("SELECT talkmeter.fleet('{shard1,shard2}')");
    let named = "SELECT problem, object FROM fleet.health WHERE server IS NULL ORDER BY 1, 2";
    assert_eq!(reports.lines(named), [""; 0]);
    // The same, at another time.
    for shard in &shards {
        shard.connect().run(
            r#"SELECT talkmeter.define_policy('{"name": "own", "effective_from": "2026-01-01T00:00:00Z",
                "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "first_ai_reply"}')"#,
        );
    }
    assert_eq!(reports.lines(named), [""; 0]);
    let plan = |rate| format!(r#"{{"name": "p", "included": 1, "overage_rate": {rate}, "currency": "USD"}}"#);
    shards[0].connect().run(&format!("SELECT talkmeter.define_plan('{}')", plan(1)));
    insert(&shards[0], "acme");
    assert_eq!(reports.lines(named), ["definitions_differ|plan p"]);
    shards[1].connect().run(&format!("SELECT talkmeter.define_plan('{}')", plan(2)));
    insert(&shards[1], "acme");
    assert_eq!(reports.lines(named), ["definitions_differ|plan p", "tenant_on_several_servers|acme"]);
    assert_eq!(
        reports.lines("SELECT detail FROM fleet.health WHERE server IS NULL ORDER BY 1"),
        ["It has books on shard1, shard2, and an allowance on each.", "It is not the same on shard1, shard2."]
    );
}

#[test]
fn a_condition_on_the_tenant_is_evaluated_on_each_server_and_units_are_added_up_there() {
    let (_shards, reports) = two();
    let mut reports = reports.connect();
    reports.run("SELECT talkmeter.fleet('{shard1,shard2}')");
    let mut sent = |query: &str| -> Vec<String> {
        let plan = reports.lines(&format!("EXPLAIN (VERBOSE, COSTS off) {query}"));
        plan.into_iter().filter(|line| line.contains("Remote SQL")).collect()
    };
    for query in
        ["SELECT * FROM fleet.charges WHERE tenant = 'acme'", "SELECT * FROM fleet.parts WHERE tenant = 'acme'"]
    {
        let sent = sent(query);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|line| line.contains("WHERE ((tenant = 'acme'))")), "{sent:?}");
    }
    for query in ["SELECT * FROM fleet.units", "SELECT * FROM fleet.revenue"] {
        let sent = sent(query);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|line| line.contains("GROUP BY")), "{sent:?}");
    }
}

#[test]
fn called_again_it_follows_the_servers_and_takes_nothing_of_somebody_elses_away() {
    let (_shards, reports) = two();
    let mut reports = reports.connect();
    assert_eq!(reports.line("SELECT count(*) FROM talkmeter.fleet('{shard1,shard2}')"), "22");
    reports.run("SELECT talkmeter.fleet('{shard2}')");
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fleet%' ORDER BY 1";
    assert_eq!(reports.lines(schemas), ["fleet", "fleet_shard2"]);
    reports.run("CREATE VIEW fleet.own AS SELECT 1");
    assert_eq!(reports.refused("SELECT talkmeter.fleet('{shard2}')"), SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    reports.run("DROP VIEW fleet.own; CREATE VIEW mine AS SELECT count(*) FROM fleet.charges");
    assert_eq!(reports.refused("SELECT talkmeter.fleet('{shard1}')"), SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    assert_eq!(reports.line("SELECT * FROM mine"), "0");
    reports.run("CREATE SCHEMA bills");
    assert_eq!(reports.refused("SELECT talkmeter.fleet('{shard1}', 'bills')"), SqlState::DUPLICATE_SCHEMA);
    assert_eq!(reports.refused("SELECT talkmeter.fleet('{shard3}', 'other')"), SqlState::UNDEFINED_OBJECT);
    assert_eq!(reports.refused("SELECT talkmeter.fleet('{}')"), SqlState::INVALID_PARAMETER_VALUE);
    assert_eq!(reports.refused("SELECT talkmeter.fleet('{shard1}', repeat('x', 60))"), SqlState::NAME_TOO_LONG);
    assert_eq!(reports.lines(schemas), ["fleet", "fleet_shard2"]);
}
