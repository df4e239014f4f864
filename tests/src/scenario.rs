//! What may an application do to its messages, in SQL, and how is the model told of it?

use crate::model::{FUTURE, Key, Mapping, Meter, Name, Row, Terms, Time, Versions};
use crate::{Random, Session, attach, create_messages, messages_mapping, quoted};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use talkmeter_engine::event::{self, Kind};
use talkmeter_engine::instant::{DAY, Instant, SECOND};
use talkmeter_engine::order::MessageId;
use talkmeter_engine::policy::Policy;
use talkmeter_engine::presets;

const MINUTE: i64 = 60 * SECOND;
/// Instants at which something happens: a step apart, so that they meet timeouts exactly.
const POINTS: usize = 30;
/// 2026-03-01 00:00 UTC: two billing months meet.
const MONTH: Instant = Instant(1_772_323_200 * SECOND);
const ZONE: &str = "Asia/Kolkata";
const TENANTS: [&str; 3] = ["acme", "bolt", "o'neil Ö"];
/// A plan's name, units included and rate.
pub const PLANS: [(&str, i64, &str); 2] = [("small", 2, "0.25"), ("none", 0, "0.5")];

fn percent(random: &mut Random, chance: usize) -> bool {
    random.below(100) < chance
}

fn one_of<'a, T>(random: &mut Random, all: &'a [T]) -> &'a T {
    &all[random.below(all.len())]
}

// --- What is there before the first message ---

/// What stays the same for a run.
pub struct Setup {
    /// The first instant of the grid, and its step.
    base: Instant,
    step: i64,
    /// The grid ends now, so that parts are open at its end.
    near_now: bool,
    /// Rows are deleted, or lose their keys.
    losses: bool,
    conversations: [&'static str; 2],
    integer_threads: bool,
    uuids: bool,
    local_times: bool,
    /// A column orders the utterances of one instant.
    sequenced: bool,
    default_plans: [Option<&'static str>; 2],
    pinned: Option<(&'static str, String)>,
    custom: Vec<(Instant, Custom)>,
    pub terms: Terms,
}

/// A version of the policy `custom`, and how it is defined.
#[derive(Clone, Debug)]
pub struct Custom {
    policy: Policy,
    definition: Json,
}

impl Custom {
    fn read(definition: Json, version: i32) -> Custom {
        let mut micros = |interval: &str, _: &str| {
            interval.strip_suffix(" microseconds").and_then(|micros| micros.parse().ok()).expect("microseconds")
        };
        let (policy, _) = Policy::read(&definition, &mut micros).expect("a policy");
        Custom { policy: Policy { version, ..policy }, definition }
    }

    fn of(random: &mut Random, version: i32, step: i64) -> Custom {
        let (mut starts_on, mut ends_on) = (vec![Kind::CustomerMessage.name().to_owned()], vec![]);
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::CustomerMessage) {
            match random.below(4) {
                0 => starts_on.push(kind.name().to_owned()),
                1 => ends_on.push(kind.name().to_owned()),
                _ => {}
            }
        }
        let steps = |steps: i64| format!("{} microseconds", step * steps);
        let idle = percent(random, 70).then(|| 1 + random.below(3) as i64);
        // Which of two equal timeouts ends a part may depend on an event that is lost.
        let quiet = Some(1 + random.below(4) as i64).filter(|quiet| Some(*quiet) != idle);
        let mut definition = json!({
            "name": "custom",
            "starts_on": starts_on,
            "ends_on": ends_on,
            "idle_timeout": idle.map(steps),
            "quiet_review_after": quiet.filter(|_| percent(random, 50)).map(steps),
            "turn_limit": percent(random, 40).then(|| 1 + random.below(3)),
            "charge_on": one_of(random, &["first_ai_reply", "close"]),
            "staff_reply_blocks": percent(random, 50),
            "error_before_reply_waives": percent(random, 50),
            "exclude_prefixes": if percent(random, 20) { vec!["test_"] } else { vec![] },
            "retroactive": true,
            "note": "by chance",
        });
        if percent(random, 50) {
            widen(random, &mut definition, &steps);
        }
        Custom::read(definition, version)
    }

    fn define(&self, from: Instant) -> String {
        let mut definition = self.definition.clone();
        definition["effective_from"] = instant(from).trim_matches('\'').into();
        format!("SELECT talkmeter.define_policy({})", quoted(&definition.to_string()))
    }
}

/// The mapping of messages, with events that have tags.
fn tagged_mapping() -> String {
    let tagged = ["ai_reply:answer", "customer_message:thanks", "note:verified"];
    let rules = tagged.map(|name| format!(r#"{{"when": {{"kind": "{name}"}}, "kind": "{name}"}}"#));
    messages_mapping().replacen("\"kinds\": [", &format!("\"kinds\": [{}, ", rules.join(", ")), 1)
}

/// What a policy may ask of a part, or name.
const SELECTORS: [&str; 9] = [
    "message",
    "ai_reply:answer",
    "ai_reply",
    "customer_message:thanks",
    "note:verified",
    "note",
    "escalate",
    "staff_reply",
    "close:by_ai",
];

fn selectors(random: &mut Random) -> Vec<&'static str> {
    (0..=random.below(2)).map(|_| *one_of(random, &SELECTORS)).collect()
}

/// Gives a policy the keys that the published three do not have.
fn widen(random: &mut Random, definition: &mut Json, steps: &impl Fn(i64) -> String) {
    if percent(random, 50) {
        definition["max_duration"] = steps(2 + random.below(4) as i64).into();
    }
    match random.below(4) {
        0 => definition["charge_on"] = "start".into(),
        1 | 2 => definition["charge_on"] = selectors(random).into(),
        _ => {}
    }
    for key in ["starts_on", "ends_on"] {
        if percent(random, 40) {
            let own = definition[key].as_array_mut().expect("a list");
            own.extend(selectors(random).into_iter().map(Json::from));
        }
    }
    if percent(random, 60) {
        let spans = [steps(1), steps(2), steps(6), "forever".to_owned()];
        definition["final_after"] = one_of(random, &spans).clone().into();
    }
    if percent(random, 30) {
        definition["once_per"] = "conversation".into();
    }
    let may_void = definition["charge_on"] != "close" || definition.get("final_after").is_some();
    if percent(random, 75) {
        let mut rules: Vec<Json> = Vec::new();
        for place in 0..random.below(3) {
            let condition = *one_of(random, &["when", "unless"]);
            let mut words = selectors(random);
            words.extend(Some(*one_of(random, &["unanswered", "error_before_reply"])).filter(|_| place == 0));
            let units = random.below(2);
            rules.push(json!({(condition): words, "outcome": format!("outcome {place} {units}"), "units": units}));
        }
        rules.push(one_of(random, &[json!({}), json!({"outcome": "@tag"}), json!({"outcome": "resolution"})]).clone());
        for rule in rules.iter_mut().filter(|rule| may_void && rule.get("units").is_none_or(|units| *units == 1)) {
            if percent(random, 50) {
                rule["voided_by"] = selectors(random).into();
            }
        }
        definition["outcomes"] = rules.into();
    }
}

impl Setup {
    pub fn new(random: &mut Random, now: Instant) -> Setup {
        let step = MINUTE * *one_of(random, &[10, 10, 15, 30, 60]);
        let near_now = percent(random, 30);
        let base = match near_now {
            true => Instant(now.0 - step * (POINTS as i64 - 1) - 2 * SECOND),
            false => MONTH.plus(-step * random.below(POINTS) as i64),
        };
        let numbers = percent(random, 50);
        let middle = base.plus(step * random.below(POINTS) as i64);
        let froms = match random.below(4) {
            0 => vec![Instant::BEGINNING, middle],
            1 => vec![middle],
            _ => vec![Instant::BEGINNING],
        };
        let custom: Vec<_> = froms.into_iter().zip(1..).map(|(from, n)| (from, Custom::of(random, n, step))).collect();
        let versions = custom.iter().map(|(from, own)| (*from, Arc::new(own.policy.clone())));
        let mut policy = || {
            (*one_of(random, &["lutingenie", "agent_red", "ai_resolution", "custom", "custom", "custom@1"])).to_owned()
        };
        let (sources, pin) = ([policy(), policy()], policy());
        let pinned = percent(random, 15).then(|| (TENANTS[0], pin));
        let shipped = presets::all().into_iter().map(|policy| (Instant::BEGINNING, policy));
        Setup {
            base,
            step,
            near_now,
            losses: percent(random, 50),
            conversations: if numbers { ["1", "2"] } else { *one_of(random, &[["c", "d"], ["c", "test_1"]]) },
            integer_threads: numbers,
            uuids: percent(random, 50),
            local_times: percent(random, 30),
            sequenced: percent(random, 30),
            default_plans: [0, 1].map(|_| percent(random, 50).then_some("small")),
            terms: Terms {
                sources,
                versions: shipped.chain(versions).collect(),
                pins: pinned.iter().map(|(tenant, policy)| ((*tenant).to_owned(), policy.clone())).collect(),
            },
            pinned,
            custom,
        }
    }

    /// Brings a new database to where the first message may come.
    pub fn sql(&self) -> Vec<String> {
        let thread = if self.integer_threads { "bigint" } else { "text" };
        let id = if self.uuids { "uuid" } else { "varchar" };
        let time = if self.local_times { "timestamp" } else { "timestamptz" };
        let mut sql = vec![
            "ALTER TABLE messages ADD body text".to_owned(),
            "CREATE INDEX ON messages (tenant_id, conversation_id, created_at)".to_owned(),
            format!(
                "CREATE TABLE utterances (body text, gone int, what text, thread {thread}, said_at {time}, heard_at {time}, shop text,
                     channel text NOT NULL DEFAULT 'web', seq int, ref {id} PRIMARY KEY)"
            ),
            "ALTER TABLE utterances DROP gone".to_owned(),
            "CREATE INDEX ON utterances (thread)".to_owned(),
        ];
        for (name, included, rate) in PLANS {
            sql.push(format!(
                r#"SELECT talkmeter.define_plan('{{"name": "{name}", "included": {included}, "overage_rate": {rate}, "currency": "USD"}}')"#
            ));
        }
        sql.push(
            r#"SELECT talkmeter.define_pack('{"name": "pair", "size": 2, "price": 1, "currency": "USD", "valid_for": "20 days"}')"#
                .to_owned(),
        );
        sql.extend(self.custom.iter().map(|(from, own)| own.define(*from)));
        let policy = self.pinned.as_ref().map_or("NULL".to_owned(), |(_, policy)| quoted(policy));
        sql.push(format!(
            "SELECT talkmeter.subscribe('acme', 'small', '2020-01-01', anchor_day => 1, policy => {policy})"
        ));
        sql
    }

    fn mapping_of_utterances(&self, mapping: Mapping) -> String {
        let zone = if self.local_times { format!(r#""timezone": "{ZONE}", "#) } else { String::new() };
        let kinds = tagged_mapping().replace("\"kind\": \"", "\"what\": \"");
        // Of each rule only the column has another name; the kind is named as before.
        let kinds = kinds.replace("}, \"what\":", "}, \"kind\":");
        let first = match mapping {
            Mapping::First => {
                r#"{"when": {"what": "noise"}, "kind": "ignore"},
             {"when": {"what": "answered"}, "kind": ["customer_message", {"ai_reply": {"occurred_at": "heard_at"}}]}"#
            }
            Mapping::Second => {
                r#"{"when": {"what": "noise"}, "kind": "note"}, {"when": {"what": "unheard_of"}, "kind": "system_message"},
             {"when": {"what": "answered"}, "kind": ["customer_message", "ai_reply"]}"#
            }
        };
        let kinds = kinds.replacen("\"kinds\": [", &format!("\"kinds\": [{first}, "), 1);
        let rest = kinds.replace(r#""excluded": true"#, r#""channel": ["preview", "test"]"#);
        let order = if self.sequenced { r#""order": "seq", "# } else { "" };
        let names = r#""message_id": "ref", "tenant": "shop", "conversation": "thread", "occurred_at": "said_at""#;
        rest.replacen('{', &format!("{{{zone}{order}{names}, "), 1)
    }

    /// The tables, attached.
    pub fn prepare(&self, session: &mut Session) {
        create_messages(session);
        self.sql().iter().for_each(|sql| session.run(sql));
        attach(session, "messages", &self.terms.sources[0], self.default_plans[0], &tagged_mapping());
        let mapping = self.mapping_of_utterances(Mapping::First);
        attach(session, "utterances", &self.terms.sources[1], self.default_plans[1], &mapping);
    }

    pub fn description(&self) -> String {
        format!(
            "-- messages: {}, default plan {:?}; utterances: {}, default plan {:?}\n{};",
            self.terms.sources[0],
            self.default_plans[0],
            self.terms.sources[1],
            self.default_plans[1],
            self.sql().join(";\n")
        )
    }

    /// Of each column of a row its name and its value, the id first.
    fn columns(&self, row: &Row) -> Vec<(&'static str, String)> {
        let text = |text: &Option<String>| text.as_deref().map_or("NULL".to_owned(), quoted);
        let kind = row.kind.map_or("NULL".to_owned(), quoted);
        let time = |at| match at {
            Time::Null => "NULL".to_owned(),
            Time::Infinite => "'infinity'".to_owned(),
            Time::At(at) if row.source == 2 && self.local_times => {
                format!("{}::timestamptz AT TIME ZONE '{ZONE}'", instant(at))
            }
            Time::At(at) => instant(at),
        };
        let at = time(row.at);
        let (tenant, conversation) = (text(&row.tenant), text(&row.conversation));
        match &row.id {
            MessageId::Integer(id) => vec![
                ("id", id.to_string()),
                ("tenant_id", tenant),
                ("conversation_id", conversation),
                ("created_at", at),
                ("kind", kind),
                ("excluded", row.excluded.to_string()),
            ],
            MessageId::Text(id) => vec![
                ("ref", quoted(id)),
                ("shop", tenant),
                ("thread", conversation),
                ("said_at", at),
                ("what", kind),
                ("channel", if row.excluded { "'preview'" } else { "'web'" }.to_owned()),
                ("heard_at", time(row.heard)),
                ("seq", row.sequence.map_or("NULL".to_owned(), |sequence| sequence.to_string())),
            ],
        }
    }
}

fn table(source: i32) -> &'static str {
    if source == 1 { "messages" } else { "utterances" }
}

/// An instant as a literal of SQL.
pub fn instant(at: Instant) -> String {
    match at.calendar() {
        Some(time) => format!("'{}+00'", time.naive_utc()),
        None => "'-infinity'".to_owned(),
    }
}

// --- What happens then ---

/// How all rows of a conversation are changed by one statement.
#[derive(Clone, Debug)]
pub enum Bulk {
    Shift(i64),
    Move(Key),
}

/// A statement. One that does not apply to what is there is left out, so that a scenario that is shortened can still
/// be run.
#[derive(Clone, Debug)]
pub enum Step {
    Insert(Vec<Row>),
    /// ON CONFLICT DO UPDATE, else DO NOTHING.
    Upsert(Row, bool),
    Update(Name, Row),
    /// Of a column that no mapping names.
    Comment(i32),
    Bulk(i32, Key, Bulk),
    Delete(Vec<Name>),
    Truncate(i32),
    Mark(Key, event::Name, Instant),
    /// Of the moment.
    MarkNow(Key, event::Name),
    Remap(Instant, Mapping),
    Flush,
    Sweep(Instant),
    Retry,
    Savepoint,
    RollbackTo,
    Release,
    Subscribe(&'static str, &'static str, Instant, u32),
    Buy(&'static str, Instant),
    /// A version of the policy that is in force before all others.
    Define(Custom),
}

#[derive(Clone, Debug)]
pub struct Transaction {
    pub steps: Vec<Step>,
    pub commits: bool,
}

/// A transaction under way.
pub struct OpenTransaction<'a> {
    setup: &'a Setup,
    pub meter: Meter,
    savepoints: Vec<Meter>,
    moments: &'a Moments,
    /// Marks of the moment that were called.
    calls: i64,
    pub sql: Vec<String>,
}

/// From here on are the times of marks of which it is not known when they were made.
pub const UNKNOWN: Instant = Instant(FUTURE.0 * 2);

/// When the marks of the moment of a transaction were made.
#[derive(Default)]
pub struct Moments {
    /// What was stored, by the time that stood for it.
    pub stored: BTreeMap<Instant, Instant>,
    /// Between which instants the transaction ran.
    pub span: Option<(Instant, Instant)>,
}

impl<'a> OpenTransaction<'a> {
    pub fn begin(setup: &'a Setup, meter: &Meter, moments: &'a Moments) -> OpenTransaction<'a> {
        OpenTransaction { setup, meter: meter.clone(), savepoints: Vec::new(), moments, calls: 0, sql: Vec::new() }
    }

    /// Does a step to the model, and says how the database is told of it.
    pub fn take(&mut self, step: &Step) {
        let sql = match step {
            Step::Insert(rows) => self.insert(rows),
            Step::Upsert(row, update) => self.upsert(row, *update),
            Step::Update(name, to) => self.update(name, to),
            Step::Comment(source) => Some(format!("UPDATE {} SET body = 'seen'", table(*source))),
            Step::Bulk(source, key, how) => self.bulk(*source, key, how),
            Step::Delete(names) => self.delete(names),
            Step::Truncate(source) => self.truncate(*source),
            Step::Mark(key, name, at) => self.mark(key, name, *at),
            Step::MarkNow(key, name) => self.mark_now(key, name),
            Step::Remap(since, mapping) => self.remap(*since, *mapping),
            Step::Flush => self.flush(),
            Step::Sweep(as_of) => self.sweep(*as_of),
            Step::Retry => self.retry(),
            Step::Savepoint | Step::RollbackTo | Step::Release => self.nest(step),
            Step::Subscribe(tenant, plan, since, anchor) => Some(format!(
                "SELECT talkmeter.subscribe({}, '{plan}', {}, anchor_day => {anchor})",
                quoted(tenant),
                instant(*since)
            )),
            Step::Buy(tenant, at) => {
                Some(format!("SELECT talkmeter.buy_pack({}, 'pair', purchased_at => {})", quoted(tenant), instant(*at)))
            }
            Step::Define(own) => self.define(own),
        };
        self.sql.extend(sql);
    }

    fn values(&self, row: &Row) -> String {
        self.setup.columns(row).into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(", ")
    }

    fn insert_into(&self, row: &Row) -> String {
        let names: Vec<_> = self.setup.columns(row).into_iter().map(|(name, _)| name).collect();
        format!("INSERT INTO {} ({})", table(row.source), names.join(", "))
    }

    fn insert(&mut self, rows: &[Row]) -> Option<String> {
        let mut statements = Vec::new();
        for source in [1, 2] {
            let mut values: Vec<String> = Vec::new();
            let mut into = String::new();
            for row in rows.iter().filter(|row| row.source == source) {
                if !self.meter.rows.contains_key(&row.name()) {
                    into = self.insert_into(row);
                    values.push(format!("({})", self.values(row)));
                    self.meter.insert(row.clone());
                }
            }
            if !values.is_empty() {
                statements.push(format!("{into} VALUES {}", values.join(", ")));
            }
        }
        // Both by one statement.
        let last = statements.pop()?;
        Some(statements.pop().map_or(last.clone(), |first| format!("WITH first AS ({first} RETURNING 1) {last}")))
    }

    fn upsert(&mut self, row: &Row, update: bool) -> Option<String> {
        let columns = self.setup.columns(row);
        let id = columns[0].0;
        let then = match update {
            true => {
                let set: Vec<String> =
                    columns[1..].iter().map(|(name, _)| format!("{name} = EXCLUDED.{name}")).collect();
                format!("UPDATE SET {}", set.join(", "))
            }
            false => "NOTHING".to_owned(),
        };
        let sql = format!("{} VALUES ({}) ON CONFLICT ({id}) DO {then}", self.insert_into(row), self.values(row));
        match (self.meter.rows.contains_key(&row.name()), update) {
            (false, _) => self.meter.insert(row.clone()),
            (true, true) => self.meter.update(&row.name(), row.clone()),
            (true, false) => {}
        }
        Some(sql)
    }

    fn update(&mut self, name: &Name, to: &Row) -> Option<String> {
        let row = self.meter.rows.get(name)?;
        if to.name() != *name && self.meter.rows.contains_key(&to.name()) {
            return None;
        }
        let (before, after) = (self.setup.columns(row), self.setup.columns(to));
        let changed = after.iter().zip(&before).filter(|(after, before)| after.1 != before.1);
        let set: Vec<String> = changed.map(|((name, value), _)| format!("{name} = {value}")).collect();
        let set = if set.is_empty() { "body = 'seen'".to_owned() } else { set.join(", ") };
        let sql = format!("UPDATE {} SET {set} WHERE {} = {}", table(name.0), before[0].0, before[0].1);
        self.meter.update(name, to.clone());
        Some(sql)
    }

    fn bulk(&mut self, source: i32, key: &Key, how: &Bulk) -> Option<String> {
        let is_of = |row: &&Row| {
            row.source == source && row.tenant.as_ref() == Some(&key.0) && row.conversation.as_ref() == Some(&key.1)
        };
        let rows: Vec<Row> = self.meter.rows.values().filter(is_of).cloned().collect();
        let example = rows.first()?;
        let columns = self.setup.columns(example);
        let set = match how {
            Bulk::Shift(micros) => {
                format!("{0} = {0} + interval '{1} minutes'", columns[3].0, micros / MINUTE)
            }
            Bulk::Move((tenant, conversation)) => {
                format!("{} = {}, {} = '{conversation}'", columns[1].0, quoted(tenant), columns[2].0)
            }
        };
        let sql = format!(
            "UPDATE {} SET {set} WHERE {} = {} AND {} = {}",
            table(source),
            columns[1].0,
            columns[1].1,
            columns[2].0,
            columns[2].1
        );
        for row in &rows {
            let mut to = row.clone();
            match (how, row.at) {
                (Bulk::Shift(micros), Time::At(at)) => to.at = Time::At(at.plus(*micros)),
                (Bulk::Shift(_), _) => {}
                (Bulk::Move((tenant, conversation)), _) => {
                    (to.tenant, to.conversation) = (Some(tenant.clone()), Some(conversation.clone()));
                }
            }
            self.meter.update(&row.name(), to);
        }
        Some(sql)
    }

    fn delete(&mut self, names: &[Name]) -> Option<String> {
        let there: Vec<&Name> = names.iter().filter(|name| self.meter.rows.contains_key(*name)).collect();
        let source = there.first()?.0;
        let (column, quote) = if source == 1 { ("id", "") } else { ("ref", "'") };
        let mut ids = Vec::new();
        for name in there.into_iter().filter(|name| name.0 == source) {
            ids.push(format!("{quote}{}{quote}", name.1));
            self.meter.delete(name);
        }
        Some(format!("DELETE FROM {} WHERE {column} IN ({})", table(source), ids.join(", ")))
    }

    fn truncate(&mut self, source: i32) -> Option<String> {
        self.meter.truncate(source);
        Some(format!("TRUNCATE {}", table(source)))
    }

    fn mark(&mut self, key: &Key, name: &event::Name, at: Instant) -> Option<String> {
        self.meter.mark(key.clone(), name.clone(), at, None);
        let (tenant, conversation) = (quoted(&key.0), quoted(&key.1));
        Some(format!("SELECT talkmeter.mark({tenant}, {conversation}, '{name}', {})", instant(at)))
    }

    /// When it was made is known only afterwards. Until then it has a time that tells which call it is.
    fn mark_now(&mut self, key: &Key, name: &event::Name) -> Option<String> {
        let call = UNKNOWN.plus(self.calls);
        self.calls += 1;
        let stored = self.moments.stored.get(&call);
        self.meter.mark(key.clone(), name.clone(), *stored.unwrap_or(&call), stored.and(self.moments.span));
        let (tenant, conversation) = (quoted(&key.0), quoted(&key.1));
        Some(format!("SELECT talkmeter.mark({tenant}, {conversation}, '{name}')"))
    }

    fn remap(&mut self, since: Instant, mapping: Mapping) -> Option<String> {
        if !self.setup.losses && self.meter.remap_loses(&self.meter.versions.with(since, mapping)) {
            return None;
        }
        self.meter.remap(since, mapping);
        let mapping = quoted(&self.setup.mapping_of_utterances(mapping));
        Some(format!("SELECT talkmeter.remap('utterances', {mapping}, since => {})", instant(since)))
    }

    fn flush(&mut self) -> Option<String> {
        self.meter.settle();
        Some("SELECT talkmeter.flush()".to_owned())
    }

    fn sweep(&mut self, as_of: Instant) -> Option<String> {
        self.meter.sweep(as_of);
        Some(format!("SELECT talkmeter.sweep({})", instant(as_of)))
    }

    fn retry(&mut self) -> Option<String> {
        self.meter.retry();
        Some("SELECT talkmeter.retry_quarantine()".to_owned())
    }

    fn nest(&mut self, step: &Step) -> Option<String> {
        let depth = self.savepoints.len();
        match step {
            Step::Savepoint => {
                self.savepoints.push(self.meter.clone());
                Some(format!("SAVEPOINT s{depth}"))
            }
            Step::RollbackTo => {
                self.meter = self.savepoints.last()?.clone();
                Some(format!("ROLLBACK TO SAVEPOINT s{}", depth - 1))
            }
            _ => {
                self.savepoints.pop()?;
                Some(format!("RELEASE SAVEPOINT s{}", depth - 1))
            }
        }
    }

    fn define(&mut self, own: &Custom) -> Option<String> {
        self.meter.terms.versions.push((Instant::BEGINNING, Arc::new(own.policy.clone())));
        self.meter.retry();
        Some(format!("{}; SELECT talkmeter.retry_quarantine()", own.define(Instant::BEGINNING)))
    }

    /// The whole transaction, and the model after it.
    pub fn end(mut self, commits: bool, before: &Meter) -> (String, Meter) {
        let body = self.sql.join(";\n    ");
        if body.is_empty() {
            return (String::new(), self.meter);
        }
        let alone = commits && self.sql.len() == 1 && !body.contains("SAVEPOINT") && !body.contains("; ");
        match (alone, commits) {
            (true, _) => {
                self.meter.settle();
                (format!("{body};"), self.meter)
            }
            (false, true) => {
                self.meter.settle();
                (format!("BEGIN;\n    {body};\nCOMMIT;"), self.meter)
            }
            (false, false) => (format!("BEGIN;\n    {body};\nROLLBACK;"), before.clone()),
        }
    }
}

// --- What happens by chance ---

const KINDS: [(&str, usize); 21] = [
    ("answered", 14),
    ("customer_message", 25),
    ("ai_reply", 24),
    ("exchange", 14),
    ("visit", 6),
    ("staff_reply", 7),
    ("note", 5),
    ("close", 5),
    ("reopen", 4),
    ("new_topic", 3),
    ("error", 4),
    ("resolve", 2),
    ("escalate", 2),
    ("system_message", 2),
    ("noise", 2),
    ("unheard_of", 2),
    ("ai_reply:answer", 6),
    ("customer_message:thanks", 3),
    ("note:verified", 3),
    ("ai_reply", 1),
    ("customer_message", 1),
];

fn weighted<T: Copy>(random: &mut Random, all: &[(T, usize)]) -> T {
    let mut rest = random.below(all.iter().map(|(_, weight)| weight).sum());
    for (value, weight) in all {
        match rest.checked_sub(*weight) {
            Some(less) => rest = less,
            None => return *value,
        }
    }
    all[0].0
}

/// Chooses what happens next.
pub struct Generator<'a> {
    pub random: &'a mut Random,
    pub setup: &'a Setup,
    /// The point of the grid that the latest message has come to.
    front: usize,
    /// Rows that are gone, and may come back.
    gone: Vec<Row>,
    defined: bool,
    /// How utterances are read by now.
    versions: Versions,
    /// Instants that were chosen.
    ticks: i64,
}

impl<'a> Generator<'a> {
    pub fn new(random: &'a mut Random, setup: &'a Setup) -> Generator<'a> {
        Generator { random, setup, front: 0, gone: Vec::new(), defined: false, versions: Versions::default(), ticks: 0 }
    }

    fn percent(&mut self, chance: usize) -> bool {
        percent(self.random, chance)
    }

    fn one_of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        one_of(self.random, all)
    }

    fn point(&mut self, index: usize) -> Instant {
        self.ticks += 1;
        // Whether an event at the instant of the last activity of a part that has lost rows is late depends on what is
        // committed with it. So where rows are lost, no two happen at one instant.
        let off = match self.setup.losses {
            true => self.ticks,
            false => weighted(self.random, &[(0, 85), (1, 10), (-1, 5)]),
        };
        self.setup.base.plus(self.setup.step * index.min(POINTS - 1) as i64 + off)
    }

    /// Mostly at the latest message, else anywhere before.
    fn at(&mut self) -> Instant {
        if self.percent(55) {
            self.front = (self.front + self.random.below(3)).min(POINTS - 1);
            return self.point(self.front);
        }
        let index = self.random.below(self.front + 2);
        self.point(index)
    }

    fn key(&mut self) -> Key {
        let tenant = weighted(self.random, &[(TENANTS[0], 5), (TENANTS[1], 3), (TENANTS[2], 2)]);
        (tenant.to_owned(), (*self.one_of(&self.setup.conversations)).to_owned())
    }

    fn id(&mut self, source: i32) -> MessageId {
        let number = self.random.below(2_000) as i64;
        match (source, self.setup.uuids) {
            (1, _) => MessageId::Integer(number - 100),
            (_, true) => MessageId::Text(format!("{:08x}-0000-4000-8000-00000000abcd", number * 2_147_483)),
            _ => MessageId::Text(format!("{}{number}", self.one_of(&["", "Z", "a", "é"]))),
        }
    }

    fn sequence(&mut self, source: i32) -> Option<i64> {
        (source == 2 && self.setup.sequenced && self.percent(80)).then(|| self.random.below(4) as i64)
    }

    fn row(&mut self) -> Row {
        let source = 1 + self.random.below(2) as i32;
        let (tenant, conversation) = self.key();
        let mut row = Row {
            source,
            id: self.id(source),
            tenant: Some(tenant),
            conversation: Some(conversation),
            at: Time::At(self.at()),
            heard: Time::At(self.at()),
            sequence: self.sequence(source),
            kind: Some(self.kind(source)),
            excluded: self.percent(4),
        };
        if self.percent(4) {
            self.spoil(&mut row);
        }
        row
    }

    fn kind(&mut self, source: i32) -> &'static str {
        match weighted(self.random, &KINDS) {
            "answered" if source == 1 => "exchange",
            kind => kind,
        }
    }

    /// A time that is none for the meter.
    fn no_time(&mut self) -> Time {
        *self.one_of(&[Time::Null, Time::Infinite, Time::At(FUTURE.plus(DAY))])
    }

    /// Makes a row one that cannot be metered.
    fn spoil(&mut self, row: &mut Row) {
        match self.random.below(6) {
            2 | 3 if row.kind == Some("answered") => row.heard = self.no_time(),
            0 => row.tenant = None,
            1 => row.conversation = None,
            2 => row.at = Time::Null,
            3 => row.at = Time::Infinite,
            4 => row.at = Time::At(FUTURE.plus(DAY)),
            _ => row.kind = None,
        }
    }

    /// Makes it one that can.
    fn mend(&mut self, row: &mut Row) {
        let (tenant, conversation) = self.key();
        row.tenant.get_or_insert(tenant);
        row.conversation.get_or_insert(conversation);
        if !matches!(row.at, Time::At(at) if at < FUTURE) {
            row.at = Time::At(self.at());
        }
        if !matches!(row.heard, Time::At(at) if at < FUTURE) {
            row.heard = Time::At(self.at());
        }
        if row.kind.is_none_or(|kind| kind == "unheard_of" || kind == "noise") {
            row.kind = Some("exchange");
        }
    }

    fn changed(&mut self, row: &Row) -> Row {
        let mut to = row.clone();
        if !row.is_valid(&self.versions) && self.percent(70) {
            self.mend(&mut to);
            return to;
        }
        match self.random.below(20) {
            0..4 if row.kind == Some("answered") => to.heard = Time::At(self.at()),
            0..7 => to.at = Time::At(self.at()),
            7..11 => to.kind = Some(self.kind(row.source)),
            11 => to.tenant = Some(self.key().0),
            12..14 => to.conversation = Some(self.key().1),
            14..16 => to.excluded = !row.excluded,
            16..18 => to.id = self.id(row.source),
            18 => self.spoil(&mut to),
            19 => to.sequence = self.sequence(row.source),
            _ => {}
        }
        if row.loses(&to, &self.versions) && !self.setup.losses { row.clone() } else { to }
    }

    fn known(&mut self, meter: &Meter) -> Option<Row> {
        let index = self.random.below(meter.rows.len().max(1));
        let now = self.setup.base.plus(self.setup.step * POINTS as i64);
        let is_ahead = |row: &Row| self.setup.near_now && matches!(row.at, Time::At(at) if at > now && at < FUTURE);
        meter.rows.values().nth(index).filter(|row| !is_ahead(row)).cloned()
    }

    fn rows(&mut self) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..2 + self.random.below(5)).map(|_| self.row()).collect();
        if self.percent(50) {
            // Of one conversation, as an import would.
            let (tenant, conversation) = self.key();
            for row in rows.iter_mut().filter(|row| row.is_valid(&self.versions)) {
                (row.tenant, row.conversation) = (Some(tenant.clone()), Some(conversation.clone()));
            }
        }
        rows
    }

    fn upsert(&mut self, meter: &Meter) -> Step {
        let mut row = self.row();
        if let Some(known) = self.known(meter).filter(|_| self.random.below(100) < 70) {
            row.id = known.id.clone();
            row.source = known.source;
            row.sequence = self.sequence(row.source);
        }
        let known = meter.rows.get(&row.name());
        let would_lose = known.is_some_and(|known| known.loses(&row, &self.versions)) && !self.setup.losses;
        let update = self.percent(50) && !would_lose;
        Step::Upsert(row, update)
    }

    fn delete(&mut self, meter: &Meter) -> Option<Step> {
        let first = self.known(meter)?;
        let mut rows = vec![first.clone()];
        if self.percent(20) {
            let same = |row: &&Row| {
                (row.source, &row.tenant, &row.conversation) == (first.source, &first.tenant, &first.conversation)
            };
            rows = meter.rows.values().filter(same).cloned().collect();
        }
        self.gone.extend(rows.iter().cloned());
        Some(Step::Delete(rows.iter().map(Row::name).collect()))
    }

    fn again(&mut self) -> Option<Step> {
        let index = self.random.below(self.gone.len().max(1));
        let row = self.gone.get(index)?.clone();
        let row = if self.percent(50) { row } else { self.changed(&row) };
        Some(Step::Insert(vec![row]))
    }

    fn bulk(&mut self) -> Step {
        let steps = 1 + self.random.below(4) as i64;
        let how = match self.random.below(3) {
            0 => Bulk::Shift(-steps * self.setup.step),
            1 if !self.setup.near_now => Bulk::Shift(steps * self.setup.step),
            _ => Bulk::Move(self.key()),
        };
        Step::Bulk(1 + self.random.below(2) as i32, self.key(), how)
    }

    fn mark(&mut self) -> Step {
        let marks: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !kind.is_activity()).collect();
        let kind = match self.percent(60) {
            true => *self.one_of(&[Kind::Close, Kind::Reopen, Kind::NewTopic, Kind::Resolve]),
            false => *self.one_of(&marks),
        };
        let tag = self.percent(30).then(|| *self.one_of(&["verified", "by_ai"])).map(event::Tag::from);
        Step::Mark(self.key(), event::Name { kind, tag }, self.at())
    }

    /// Something ends now, with or without a last word whose time is ahead of the server's clock. That happens in a
    /// conversation of its own: where a word of the future is taken back, time has passed before the clock has it.
    fn mark_now(&mut self) -> Vec<Step> {
        self.ticks += 1;
        let key = (self.key().0, (1_000_000 + self.ticks).to_string());
        let kind = *self.one_of(&[Kind::Close, Kind::Resolve, Kind::Escalate]);
        let mark = Step::MarkNow(key.clone(), kind.into());
        let in_it = |row: Row| Row { tenant: Some(key.0.clone()), conversation: Some(key.1.clone()), ..row };
        let mut steps = vec![Step::Insert(vec![in_it(self.row())])];
        if self.setup.near_now && self.percent(70) {
            let seconds = self.setup.step * (POINTS as i64 - 1) + (62 + self.random.below(120) as i64) * SECOND;
            let soon = Time::At(self.setup.base.plus(seconds + self.ticks));
            steps.push(Step::Insert(vec![Row { at: soon, ..in_it(self.row()) }]));
        }
        steps.insert(self.random.below(steps.len() + 1), mark);
        steps
    }

    /// Statements that are thought of together.
    fn steps(&mut self, meter: &Meter) -> Vec<Step> {
        let losses = if self.setup.losses { 1 } else { 0 };
        let choices = [
            ("insert", 24),
            ("batch", 10),
            ("upsert", 6),
            ("update", 18),
            ("there and back", 4),
            ("comment", 2),
            ("bulk", 3),
            ("mark", 9),
            ("mark now", 4),
            ("flush", 4),
            ("sweep", 4),
            ("retry", 3),
            ("savepoint", 5),
            ("rollback to", 4),
            ("release", 2),
            ("delete", 6 * losses),
            ("again", 4 * losses),
            ("come and go", 2),
            ("truncate", losses),
        ];
        match weighted(self.random, &choices) {
            "insert" => vec![Step::Insert(vec![self.row()])],
            "batch" => vec![Step::Insert(self.rows())],
            "upsert" => vec![self.upsert(meter)],
            "update" => self.known(meter).map(|row| Step::Update(row.name(), self.changed(&row))).into_iter().collect(),
            "there and back" => self.there_and_back(meter).unwrap_or_default(),
            "comment" => vec![Step::Comment(1 + self.random.below(2) as i32)],
            "bulk" => vec![self.bulk()],
            "mark" => vec![self.mark()],
            // In other runs all else is long past.
            "mark now" if self.setup.near_now || self.percent(10) => self.mark_now(),
            "flush" => vec![Step::Flush],
            "sweep" => vec![Step::Sweep(self.at())],
            "retry" => vec![Step::Retry],
            "savepoint" => vec![Step::Savepoint],
            "rollback to" => vec![Step::RollbackTo],
            "release" => vec![Step::Release],
            "delete" => self.delete(meter).into_iter().collect(),
            "again" => self.again().into_iter().collect(),
            "come and go" => self.come_and_go(meter),
            _ if self.percent(30) => vec![Step::Truncate(1 + self.random.below(2) as i32)],
            _ => vec![],
        }
    }

    fn there_and_back(&mut self, meter: &Meter) -> Option<Vec<Step>> {
        let row = self.known(meter)?;
        let to = self.changed(&row);
        let taken = to.name() != row.name() && meter.rows.contains_key(&to.name());
        (!taken).then(|| vec![Step::Update(row.name(), to.clone()), Step::Update(to.name(), row)])
    }

    /// A row that never was.
    fn come_and_go(&mut self, meter: &Meter) -> Vec<Step> {
        let row = self.row();
        if meter.rows.contains_key(&row.name()) {
            return vec![];
        }
        vec![Step::Insert(vec![row.clone()]), Step::Delete(vec![row.name()])]
    }

    /// Something that is bought, or a policy that comes late.
    fn business(&mut self, meter: &Meter) -> Step {
        // A new subscription of the first tenant could take back the policy that its old one names.
        let tenants = if self.setup.pinned.is_some() { &TENANTS[1..] } else { &TENANTS };
        let tenant = *self.one_of(tenants);
        let at = self.at();
        let is_late =
            meter.terms.versions.iter().all(|(from, policy)| policy.name != "custom" || *from > Instant::BEGINNING);
        if is_late && !self.defined && self.percent(30) {
            self.defined = true;
            // A mark of which no policy speaks is looked at when it comes: later versions open at the same marks.
            let is_message = |written: &&Json| {
                let kind = written.as_str().and_then(|written| written.split(':').next()).unwrap_or_default();
                kind == "message" || Kind::named(kind).is_some_and(Kind::is_activity)
            };
            let starts = |own: &Custom| own.definition["starts_on"].as_array().cloned().unwrap_or_default();
            let (first, mut second) = (&self.setup.custom[0].1, Custom::of(self.random, 2, self.setup.step));
            let (of_first, of_second) = (starts(first), starts(&second));
            let messages = of_second.iter().filter(is_message);
            let starts_on: Vec<Json> =
                messages.chain(of_first.iter().filter(|written| !is_message(written))).cloned().collect();
            second.definition["starts_on"] = starts_on.into();
            return Step::Define(Custom::read(second.definition, 2));
        }
        match self.percent(50) {
            true => Step::Buy(tenant, at),
            false => Step::Subscribe(tenant, self.one_of(&PLANS).0, at, *self.one_of(&[1, 1, 15, 28])),
        }
    }

    /// A transaction, with what it is to the model.
    pub fn transaction(&mut self, meter: &Meter) -> Transaction {
        if self.percent(3) {
            let (since, mapping) = (self.at(), *self.one_of(&[Mapping::First, Mapping::Second]));
            return Transaction { steps: vec![Step::Remap(since, mapping)], commits: !self.percent(10) };
        }
        if self.percent(7) {
            return Transaction { steps: vec![self.business(meter)], commits: true };
        }
        let length = weighted(self.random, &[(1, 50), (2, 15), (4, 20), (8, 15)]);
        self.versions = meter.versions.clone();
        let unknown = Moments::default();
        let mut open = OpenTransaction::begin(self.setup, meter, &unknown);
        let mut steps = Vec::new();
        while steps.len() < length {
            let some = self.steps(&open.meter);
            some.iter().for_each(|step| open.take(step));
            steps.extend(some);
        }
        Transaction { steps, commits: length == 1 || !self.percent(8) }
    }
}

/// The plans' units and rates by name.
pub fn plans() -> BTreeMap<&'static str, (i64, &'static str)> {
    PLANS.into_iter().map(|(name, included, rate)| (name, (included, rate))).collect()
}
