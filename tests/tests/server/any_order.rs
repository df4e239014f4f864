//! Do parts and charges stay those of folding everything from the start, whatever the application does in which order?
//!
//! Random transactions against a live server (rule 3.5), compared after each with a model that was told the same. A
//! failure names its seed: with TALKMETER_SEED set to it that run alone is repeated, and its scenario shortened as
//! far as the failure allows. At length there are 5,000 runs instead of 50.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Instant as Clock, SystemTime};
use talkmeter_engine::instant::Instant;
use talkmeter_tests::model::{Key, Meter};
use talkmeter_tests::scenario::{self, Generator, Moments, OpenTransaction, Setup, Step, Transaction, UNKNOWN, plans};
use talkmeter_tests::{Database, Random, Session, assert_same_rows, at_length, micros, quoted};

const THREADS: u64 = 4;

#[test]
fn the_meter_makes_the_same_of_the_same_in_any_order() {
    let seed = Random::seeded().1;
    if std::env::var_os("TALKMETER_SEED").is_some() {
        return again(seed);
    }
    let (runs, length) = if at_length() { (5_000, LONG) } else { (50, SHORT) };
    let (next, failed, started) = (AtomicU64::new(0), AtomicU64::new(0), Clock::now());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // At length every run that fails is wanted, not only the first.
                while at_length() || failed.load(Ordering::Relaxed) == 0 {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return;
                    }
                    if run > 0 && run % 500 == 0 {
                        println!("{run} of {runs} runs in {:.0?}", started.elapsed());
                    }
                    let mut told = Vec::new();
                    if catch_unwind(AssertUnwindSafe(|| run_scenario(seed + run, length, &mut told))).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        eprintln!("run {run}; to see it again: TALKMETER_SEED={}\n{}", seed + run, told.join("\n"));
                    }
                }
            });
        }
    });
    println!("{runs} runs from TALKMETER_SEED={seed} on, in {:.0?}", started.elapsed());
    assert_eq!(failed.into_inner(), 0, "runs that failed");
}

/// Transactions of a run. A seed gives the longer scenario, of which the shorter is the beginning.
const SHORT: usize = 30;
const LONG: usize = 50;

fn now() -> Instant {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Instant(since.as_micros() as i64)
}

fn run_scenario(seed: u64, length: usize, told: &mut Vec<String>) {
    let mut random = Random::new(seed);
    let setup = Setup::new(&mut random, now());
    let mut run = Run::new(&setup, told);
    let mut generator = Generator::new(&mut random, &setup);
    for _ in 0..length {
        let transaction = generator.transaction(&run.meter);
        run.play(&transaction);
    }
    run.close();
}

// --- One scenario, on a database of its own ---

struct Run<'a> {
    setup: &'a Setup,
    _database: Database,
    session: Session,
    meter: Meter,
    books: BTreeMap<String, Books>,
    /// Part numbers that are used, and those that are used no more.
    used: BTreeSet<String>,
    retired: BTreeSet<String>,
    told: &'a mut Vec<String>,
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup, told: &'a mut Vec<String>) -> Run<'a> {
        let database = Database::fresh("any_order");
        let mut session = database.connect();
        told.push(setup.description());
        setup.prepare(&mut session);
        Run {
            setup,
            _database: database,
            session,
            meter: Meter::new(setup.terms.clone()),
            books: BTreeMap::new(),
            used: BTreeSet::new(),
            retired: BTreeSet::new(),
            told,
        }
    }

    fn play(&mut self, transaction: &Transaction) {
        let (sql, mut after) = self.told_of(transaction, &Moments::default());
        if sql.is_empty() {
            return;
        }
        if self.told.len().is_multiple_of(3) {
            self.session.run(MOVE_ASIDE);
        }
        self.told.push(sql.clone());
        let begun = now();
        self.session.run(&sql);
        let unknown: Vec<_> = after.marks_from(UNKNOWN).map(|(key, number, at)| (key.clone(), number, at)).collect();
        if !unknown.is_empty() {
            let stored = unknown.into_iter().map(|(key, number, call)| (call, self.stored(&key, number))).collect();
            after = self.told_of(transaction, &Moments { stored, span: Some((begun, now())) }).1;
        }
        self.meter = after;
        self.check(transaction);
    }

    /// A transaction in SQL, and the model after it.
    fn told_of(&self, transaction: &Transaction, moments: &Moments) -> (String, Meter) {
        let mut open = OpenTransaction::begin(self.setup, &self.meter, moments);
        transaction.steps.iter().for_each(|step| open.take(step));
        open.end(transaction.commits, &self.meter)
    }

    /// When a mark was made, as it is stored.
    fn stored(&mut self, (tenant, conversation): &Key, number: usize) -> Instant {
        instant(&self.session.line(&format!(
            "SELECT {} FROM talkmeter.marked WHERE tenant = {} AND conversation = {} AND mark = {number}",
            micros("occurred_at"),
            quoted(tenant),
            quoted(conversation)
        )))
    }

    fn check(&mut self, transaction: &Transaction) {
        self.parts_are_those_of_folding_from_the_start();
        self.parts_are_kept_as_folding_from_the_start_leaves_them();
        self.quarantine_holds_what_cannot_be_metered();
        self.charges_follow_parts();
        let flushes = |step: &Step| {
            matches!(step, Step::Flush | Step::Sweep(_) | Step::Retry | Step::Define(_) | Step::Remap(..))
        };
        self.the_ledger_can_be_replayed(!transaction.steps.iter().any(flushes));
        self.no_number_comes_back();
    }

    /// Time passes until now, and then a part is billed if and only if a report says so.
    fn close(&mut self) {
        let as_of = now();
        let sweep = Transaction { steps: vec![Step::Sweep(as_of)], commits: true };
        self.play(&sweep);
        let differ = self.session.lines(&format!(
            "SELECT p.tenant, p.conversation, p.part, p.ended_at, p.due_at, p.charged_at
             FROM talkmeter.part AS p JOIN talkmeter.parts AS shown USING (tenant, conversation, part)
             WHERE (p.ended_at, p.charged_at) IS DISTINCT FROM (shown.ended_at, shown.charged_at)
                 AND p.due_at <= {}",
            scenario::instant(as_of)
        ));
        assert_same_rows(&differ, &[]);
    }

    fn parts_are_those_of_folding_from_the_start(&mut self) {
        let found = self.session.lines(&format!(
            "SELECT {}, tenant, conversation, {}, policy, policy_version, status, {}, {}, {}, end_reason, billable,
                 not_billable_because, {}, outcome, message_count, turn_count, ai_replies, staff_replies, {}
             FROM talkmeter.parts",
            micros("statement_timestamp()"),
            micros("started_at"),
            micros("first_ai_reply_at"),
            micros("last_activity_at"),
            micros("ended_at"),
            micros("charged_at"),
            micros("final_at"),
        ));
        let seen = found.first().and_then(|line| line.split_once('|')).map(|(seen, _)| instant(seen));
        let seen = seen.unwrap_or_else(now);
        let after_now = |line: &String| line.split_once('|').expect("a time").1.to_owned();
        let mut found: Vec<String> = found.iter().map(after_now).collect();
        found.sort_unstable();
        assert_same_rows(&found, &self.meter.parts(seen));
        // The model is worth nothing if it contradicts itself.
        assert_same_rows(&self.meter.refolded_parts(seen), &self.meter.parts(seen));
    }

    fn parts_are_kept_as_folding_from_the_start_leaves_them(&mut self) {
        let mut found = self.session.lines(
            "SELECT tenant, conversation, encode(first_event, 'hex'), encode(last_event, 'hex'), source_id,
                 event_count, customer_waits, excluded, error_before_reply
             FROM talkmeter.part",
        );
        for ((tenant, id), _) in self.meter.keys().filter(|(_, lossy)| *lossy) {
            found.retain(|line| !line.starts_with(&format!("{tenant}|{id}|")));
        }
        found.sort_unstable();
        assert_same_rows(&found, &self.meter.states());
    }

    fn quarantine_holds_what_cannot_be_metered(&mut self) {
        let mut found = self.session.lines(&format!(
            "SELECT source_id, message_id, tenant, conversation, {}, reason FROM talkmeter.quarantined",
            micros("occurred_at")
        ));
        let (mut wanted, stale) = self.meter.quarantine();
        let mut stale: Vec<String> = stale.into_iter().collect();
        // Before a part that has lost rows an event that waits for a policy waits for ever: both reasons are true.
        for ((tenant, id), _) in self.meter.keys().filter(|(_, lossy)| *lossy) {
            let key = format!("|{tenant}|{id}|");
            for line in found.iter_mut().chain(&mut wanted).chain(&mut stale).filter(|line| line.contains(&key)) {
                *line = line.replace("|unknown_policy", "|sealed");
            }
        }
        found.retain(|line| !stale.contains(line) || wanted.contains(line));
        found.sort_unstable();
        wanted.sort_unstable();
        assert_same_rows(&found, &wanted);
    }

    fn charges_follow_parts(&mut self) {
        assert_same_rows(&self.session.lines(PROBLEMS), &[]);
        let charged: BTreeSet<String> = self
            .session
            .lines(&format!(
                "SELECT tenant, conversation, {} FROM talkmeter.part WHERE charged_at IS NOT NULL",
                micros("started_at")
            ))
            .into_iter()
            .collect();
        for part in self.meter.billable_unswept() {
            assert!(charged.contains(&part), "{part} has ended or was answered, and is not charged");
        }
    }

    /// Draws all charges again in the order of their numbers; `once` if the transaction was folded at its commit only.
    fn the_ledger_can_be_replayed(&mut self, once: bool) {
        let known = |book: &Books| book.charges.len();
        let known: usize = self.books.values().map(known).sum();
        let lines = self.session.lines(&format!(
            "SELECT tenant, charge_id, conversation, part, {}, {}, {}, tier, pack_id, amount, plan, policy,
                 policy_version, outcome, reverses
             FROM (SELECT *, row_number() OVER () FROM talkmeter.charge) AS c
             ORDER BY tenant, charge_id",
            micros("charged_at"),
            micros("period_start"),
            micros("period_end"),
        ));
        if lines.len() == known {
            return;
        }
        let bought = self.bought();
        for line in &lines {
            let charge = Charge::read(line);
            let books = self.books.entry(charge.tenant.clone()).or_default();
            if charge.id > books.charges.len() {
                books.post(charge, &bought);
            }
        }
        self.books.values_mut().for_each(|books| books.close(once));
    }

    /// What each tenant has bought by now.
    fn bought(&mut self) -> Bought {
        let subscriptions = self.session.lines(&format!(
            "SELECT tenant, {}, plan FROM talkmeter.subscription ORDER BY tenant, subscription_id",
            micros("NULLIF(since, '-infinity')")
        ));
        let packs = self.session.lines(&format!(
            "SELECT tenant, pack_id, size, {}, {} FROM talkmeter.pack ORDER BY tenant, purchased_at, pack_id",
            micros("purchased_at"),
            micros("expires_at")
        ));
        let fields = |line: &String| line.split('|').map(str::to_owned).collect::<Vec<_>>();
        Bought { subscriptions: subscriptions.iter().map(fields).collect(), packs: packs.iter().map(fields).collect() }
    }

    fn no_number_comes_back(&mut self) {
        let parts = self.session.lines("SELECT tenant, conversation, part FROM talkmeter.part");
        let parts: BTreeSet<String> = parts.into_iter().collect();
        self.retired.extend(self.used.difference(&parts).cloned());
        let back: Vec<&String> = parts.intersection(&self.retired).collect();
        assert!(back.is_empty(), "retired part numbers are used again: {back:?}");
        self.used = parts;
    }
}

/// What `archive` does, as if all periods were finalized: what is changed later must be fetched back.
const MOVE_ASIDE: &str = "
    WITH moved AS (DELETE FROM ONLY talkmeter.ended_part AS p
        WHERE NOT EXISTS (SELECT FROM talkmeter.waiting_unit AS w
            WHERE (w.tenant, w.conversation, w.part) = (p.tenant, p.conversation, p.part))
        RETURNING p.*)
    INSERT INTO talkmeter_archive.ended_part SELECT * FROM moved;
    WITH moved AS (DELETE FROM ONLY talkmeter.charge AS h
        WHERE NOT EXISTS (SELECT FROM talkmeter.waiting_unit AS w
                WHERE (w.tenant, w.conversation, w.part) = (h.tenant, h.conversation, h.part))
            AND NOT EXISTS (SELECT FROM talkmeter.conversation AS c
                WHERE (c.tenant, c.conversation, c.current_part) = (h.tenant, h.conversation, h.part))
        RETURNING h.*)
    INSERT INTO talkmeter_archive.charge SELECT * FROM moved;
    WITH moved AS (DELETE FROM ONLY talkmeter.marked AS m RETURNING m.*)
    INSERT INTO talkmeter_archive.marked SELECT * FROM moved";

fn instant(text: &str) -> Instant {
    Instant(text.parse().expect("microseconds"))
}

/// Everything that must never be so, whatever has happened.
const PROBLEMS: &str = "
    WITH standing AS (
        SELECT * FROM talkmeter.charge AS c
        WHERE c.reverses IS NULL
            AND NOT EXISTS (SELECT FROM talkmeter.charge AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
    ), wanted AS (
        SELECT *, EXISTS (
            SELECT FROM talkmeter.subscription AS s WHERE s.tenant = p.tenant AND s.since <= p.charged_at) AS planned
        FROM talkmeter.part AS p WHERE p.charged_at IS NOT NULL
    ), used AS (
        SELECT tenant, period_start, period_end, sum(sign) FILTER (WHERE tier = 'included') AS included_used,
            sum(sign) FILTER (WHERE tier = 'pack') AS pack_used,
            sum(sign) FILTER (WHERE tier = 'overage') AS overage_units, sum(amount) AS overage_amount
        FROM talkmeter.charge, LATERAL (SELECT CASE WHEN reverses IS NULL THEN 1 ELSE -1 END AS sign) AS s
        GROUP BY tenant, period_start, period_end
    )
    SELECT 'charges of a billable part', tenant, conversation, part, planned, count(c.charge_id) || ' charges'
    FROM wanted LEFT JOIN standing AS c USING (tenant, conversation, part)
    GROUP BY tenant, conversation, part, planned
    HAVING count(c.charge_id) > 1 OR planned AND count(c.charge_id) = 0
    UNION ALL
    -- A charge stays as posted if its instant moves inside its period, also to before there was a plan.
    SELECT 'a unit without a plan', tenant, conversation, part, planned, count(u.charged_at) || ' waiting units'
    FROM wanted LEFT JOIN talkmeter.unplanned_unit AS u USING (tenant, conversation, part)
    LEFT JOIN standing AS c USING (tenant, conversation, part)
    GROUP BY tenant, conversation, part, planned
    HAVING count(u.charged_at) <> (NOT planned AND count(c.charge_id) = 0)::int
        OR NOT planned AND bool_or(c.charged_at = wanted.charged_at)
    UNION ALL
    SELECT 'charge of no billable part', tenant, conversation, part, NULL, c.charge_id::text
    FROM standing AS c LEFT JOIN wanted AS p USING (tenant, conversation, part) WHERE p.charged_at IS NULL
    UNION ALL
    SELECT 'waiting unit of no billable part', tenant, conversation, part, NULL, u.charged_at::text
    FROM talkmeter.unplanned_unit AS u LEFT JOIN wanted AS p USING (tenant, conversation, part)
    WHERE p.charged_at IS NULL
    UNION ALL
    SELECT 'charge of another period or policy than its part', tenant, conversation, part, NULL, c.charge_id::text
    FROM standing AS c JOIN wanted AS p USING (tenant, conversation, part)
    WHERE p.charged_at < c.period_start OR p.charged_at >= c.period_end
        OR (p.policy, p.policy_version) <> (c.policy, c.policy_version)
    UNION ALL
    SELECT 'waiting unit other than its part', tenant, conversation, part, NULL, u.charged_at::text
    FROM talkmeter.unplanned_unit AS u JOIN wanted AS p USING (tenant, conversation, part)
    WHERE (p.charged_at, p.policy, p.policy_version) <> (u.charged_at, u.policy, u.policy_version)
    UNION ALL
    SELECT 'gap in the ledger', tenant, NULL, NULL, NULL, count(*)::text
    FROM talkmeter.charge AS c JOIN talkmeter.account AS a USING (tenant)
    GROUP BY tenant, a.last_charge_id
    HAVING (min(charge_id), max(charge_id), a.last_charge_id) <> (1, count(*), count(*))
    UNION ALL
    SELECT 'reversal of something else', tenant, r.conversation, r.part, NULL, r.charge_id::text
    FROM talkmeter.charge AS r LEFT JOIN talkmeter.charge AS c USING (tenant)
    WHERE c.charge_id = r.reverses AND (c.reverses IS NOT NULL OR c.charge_id > r.charge_id
        OR (r.tier, r.pack_id, r.plan, r.period_start, r.period_end, r.conversation, r.part, r.currency, r.policy,
            r.policy_version, r.charged_at, r.amount)
        IS DISTINCT FROM (c.tier, c.pack_id, c.plan, c.period_start, c.period_end, c.conversation, c.part, c.currency,
            c.policy, c.policy_version, c.charged_at, -c.amount))
    UNION ALL
    SELECT 'counters of a period', tenant, NULL, NULL, NULL, period_start::text
    FROM used AS u FULL JOIN talkmeter.period AS p USING (tenant, period_start, period_end)
    WHERE (COALESCE(u.included_used, 0), COALESCE(u.pack_used, 0), COALESCE(u.overage_units, 0), u.overage_amount)
        IS DISTINCT FROM (p.included_used, p.pack_used, p.overage_units, p.overage_amount)
    UNION ALL
    SELECT 'units left in a pack', tenant, NULL, NULL, NULL, pack_id::text
    FROM talkmeter.pack AS p LEFT JOIN (
        SELECT tenant, pack_id, sum(CASE WHEN reverses IS NULL THEN 1 ELSE -1 END) AS drawn
        FROM talkmeter.charge GROUP BY tenant, pack_id) AS c USING (tenant, pack_id)
    WHERE p.remaining <> p.size - COALESCE(c.drawn, 0) OR p.remaining NOT BETWEEN 0 AND p.size";

// --- The ledger, drawn again ---

struct Bought {
    /// tenant, since, plan
    subscriptions: Vec<Vec<String>>,
    /// tenant, id, size, from, until
    packs: Vec<Vec<String>>,
}

impl Bought {
    fn plan_at(&self, tenant: &str, at: Instant) -> Option<&str> {
        let in_force =
            |fields: &&Vec<String>| fields[0] == tenant && (fields[1].is_empty() || instant(&fields[1]) <= at);
        self.subscriptions.iter().rfind(in_force).map(|fields| fields[2].as_str())
    }
}

#[derive(Clone)]
struct Charge {
    tenant: String,
    id: usize,
    /// Conversation and number.
    part: (String, String),
    at: Instant,
    period: (i64, i64),
    /// Tier, pack, amount and plan.
    paid: [String; 4],
    /// Policy, version and outcome.
    judged: [String; 3],
    reverses: Option<usize>,
}

impl Charge {
    fn read(line: &str) -> Charge {
        let fields: Vec<&str> = line.split('|').collect();
        Charge {
            tenant: fields[0].to_owned(),
            id: fields[1].parse().expect("an id"),
            part: (fields[2].to_owned(), fields[3].to_owned()),
            at: instant(fields[4]),
            period: (instant(fields[5]).0, instant(fields[6]).0),
            paid: [7, 8, 9, 10].map(|field| fields[field].to_owned()),
            judged: [11, 12, 13].map(|field| fields[field].to_owned()),
            reverses: fields[14].parse().ok(),
        }
    }
}

/// The ledger of one tenant.
#[derive(Default)]
struct Books {
    charges: Vec<Charge>,
    included_used: BTreeMap<(i64, i64), i64>,
    drawn: BTreeMap<String, i64>,
    /// Charges that were known at the last commit.
    closed: usize,
}

impl Books {
    fn post(&mut self, charge: Charge, bought: &Bought) {
        let (source, sign) = match charge.reverses {
            Some(taken_back) => (self.charges[taken_back - 1].clone(), -1),
            None => (charge.clone(), 1),
        };
        if charge.reverses.is_none() {
            assert_eq!(
                charge.paid,
                self.drawn(&charge, bought),
                "who pays for charge {} of {}",
                charge.id,
                charge.tenant
            );
        }
        match source.paid[0].as_str() {
            "included" => *self.included_used.entry(source.period).or_default() += sign,
            "pack" => *self.drawn.entry(source.paid[1].clone()).or_default() += sign,
            _ => {}
        }
        self.charges.push(charge);
    }

    /// Allowance, else the oldest pack that pays, else overage (rule 4.3).
    fn drawn(&self, charge: &Charge, bought: &Bought) -> [String; 4] {
        let plan = bought.plan_at(&charge.tenant, charge.at).expect("a plan");
        let (included, rate) = plans()[plan];
        let paid = |tier: &str, pack: &str, amount: &str| [tier, pack, amount, plan].map(str::to_owned);
        if self.included_used.get(&charge.period).copied().unwrap_or(0) < included {
            return paid("included", "", "0");
        }
        let pays = |fields: &&Vec<String>| {
            let left = fields[2].parse::<i64>().expect("a size") - self.drawn.get(&fields[1]).copied().unwrap_or(0);
            fields[0] == charge.tenant && left > 0 && (instant(&fields[3])..instant(&fields[4])).contains(&charge.at)
        };
        match bought.packs.iter().find(pays) {
            Some(pack) => paid("pack", &pack[1], "0"),
            None => paid("overage", "", rate),
        }
    }

    /// A charge whose instant moves inside its period stays as posted, if its part is judged as before (rule 3.5.5).
    fn close(&mut self, once: bool) {
        let new = &self.charges[self.closed..];
        for reversal in new.iter().filter(|charge| once && charge.reverses.is_some()) {
            let again = |charge: &&Charge| {
                charge.reverses.is_none()
                    && (&charge.part, charge.period, &charge.judged)
                        == (&reversal.part, reversal.period, &reversal.judged)
            };
            let again = new.iter().find(again).map(|charge| charge.id);
            assert_eq!(again, None, "charge {} of {} was taken back for nothing", reversal.id, reversal.tenant);
        }
        self.closed = self.charges.len();
    }
}

// --- One scenario again, shortened ---

/// Runs the scenario of a seed again, and if it still fails, what is left of it that fails.
fn again(seed: u64) {
    let now = now();
    let mut random = Random::new(seed);
    let setup = Setup::new(&mut random, now);
    let transactions = Mutex::new(Vec::new());
    let failure = catch_unwind(AssertUnwindSafe(|| {
        let mut told = Vec::new();
        let mut run = Run::new(&setup, &mut told);
        let mut generator = Generator::new(&mut random, &setup);
        for _ in 0..LONG {
            let transaction = generator.transaction(&run.meter);
            transactions.lock().expect("one thread").push(transaction.clone());
            run.play(&transaction);
        }
        run.close();
    }));
    if failure.is_ok() {
        return;
    }
    let transactions = transactions.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let transactions = shortened(&setup, transactions);
    std::panic::set_hook(hook);
    let mut told = Vec::new();
    let failure = catch_unwind(AssertUnwindSafe(|| play(&setup, &transactions, &mut told)));
    eprintln!("TALKMETER_SEED={seed}, as short as it gets:\n{}", told.join("\n"));
    if let Err(panic) = failure {
        resume_unwind(panic);
    }
}

fn play(setup: &Setup, transactions: &[Transaction], told: &mut Vec<String>) {
    let mut run = Run::new(setup, told);
    transactions.iter().for_each(|transaction| run.play(transaction));
    run.close();
}

fn fails(setup: &Setup, transactions: &[Transaction]) -> bool {
    catch_unwind(AssertUnwindSafe(|| play(setup, transactions, &mut Vec::new()))).is_err()
}

/// Without each transaction and then each step that the failure does not need.
fn shortened(setup: &Setup, mut transactions: Vec<Transaction>) -> Vec<Transaction> {
    for index in (0..transactions.len()).rev() {
        let mut shorter = transactions.clone();
        shorter.remove(index);
        if fails(setup, &shorter) {
            transactions = shorter;
        }
    }
    for index in (0..transactions.len()).rev() {
        for step in (0..transactions[index].steps.len()).rev() {
            let mut shorter = transactions.clone();
            shorter[index].steps.remove(step);
            if fails(setup, &shorter) {
                transactions = shorter;
            }
        }
        for step in 0..transactions[index].steps.len() {
            while let Step::Insert(rows) = &transactions[index].steps[step] {
                let without = |dropped: usize| {
                    let mut shorter = transactions.clone();
                    let rows: Vec<_> = rows.iter().enumerate().filter(|(row, _)| *row != dropped).collect();
                    shorter[index].steps[step] = Step::Insert(rows.into_iter().map(|(_, row)| row.clone()).collect());
                    shorter
                };
                let Some(shorter) = (0..rows.len()).map(without).find(|shorter| fails(setup, shorter)) else { break };
                transactions = shorter;
            }
        }
    }
    transactions
}
