//! Which definitions of the billable unit are there (rule 3.3)?

use crate::catalog::cache::{self, Remembered};
use crate::pg::clock::Timestamp;
use crate::pg::error::damaged;
use crate::pg::own_table::types::*;
use crate::pg::own_table::{Access, OwnTable, Shape, with_newest};
use crate::pg::rights::as_owner;
use crate::pg::sql::Row;
use pgrx::JsonB;
use pgrx::datum::Interval;
use serde_json::{Map, Value as Json};
use std::rc::Rc;
use std::sync::Arc;
use talkmeter_engine::event::Event;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::policy::Policy;
use talkmeter_engine::selector;

thread_local! {
    static REMEMBERED: Remembered<Option<Rc<Policies>>> = Remembered::default();
}

/// A version of a policy, and from when it is in force.
#[derive(Debug)]
struct Version {
    from: Instant,
    policy: Arc<Policy>,
    /// Its policy had judged parts that opened while it was not yet defined.
    is_retroactive: bool,
}

/// Every version of every policy.
#[derive(Debug, Default)]
pub struct Policies(Vec<Version>);

impl Policies {
    /// The policy that a name means at an instant: `name@version`, or `name` for its newest version in force.
    pub fn in_force(&self, name: &str, at: Instant) -> Option<Arc<Policy>> {
        if let Some((name, version)) = name.split_once('@') {
            return self.version(name, version.parse().ok()?);
        }
        self.newest(name, at, |_| true)
    }

    /// As [`Policies::in_force`], of a policy that is only tried: before it was in force, its first version is.
    pub fn tried(&self, name: &str, at: Instant) -> Option<Arc<Policy>> {
        let first = || {
            let versions = self.0.iter().filter(|version| version.policy.name == name);
            versions.min_by_key(|own| (own.from, own.policy.version)).map(|own| Arc::clone(&own.policy))
        };
        self.in_force(name, at).or_else(first)
    }

    /// What [`Policies::in_force`] gives to a part that opened under `before`, a version of the same policy: none that
    /// was defined since then and made retroactive (rule 3.3.5).
    pub fn kept(&self, name: &str, at: Instant, before: &Policy) -> Option<Arc<Policy>> {
        if before.name != name {
            return None;
        }
        self.newest(name, at, |version| !version.is_retroactive || version.policy.version <= before.version)
    }

    fn newest(&self, name: &str, at: Instant, is_known: impl Fn(&Version) -> bool) -> Option<Arc<Policy>> {
        let versions = self.0.iter().filter(|version| version.policy.name == name && version.from <= at);
        let newest = versions.filter(|version| is_known(version)).max_by_key(|own| (own.from, own.policy.version))?;
        Some(Arc::clone(&newest.policy))
    }

    pub fn version(&self, name: &str, version: i32) -> Option<Arc<Policy>> {
        let mut versions = self.0.iter().map(|version| &version.policy);
        versions.find(|policy| policy.name == name && policy.version == version).map(Arc::clone)
    }

    /// Whether a name, with or without a version, means any policy at all.
    pub fn knows(&self, name: &str) -> bool {
        match name.split_once('@') {
            Some((name, version)) => version.parse().is_ok_and(|version| self.version(name, version).is_some()),
            None => self.0.iter().any(|version| version.policy.name == name),
        }
    }

    /// Whether any version of the policy that a name means, with or without a version, opens parts at that event.
    pub fn opens_on(&self, name: &str, event: &Event) -> bool {
        let name = name.split('@').next();
        let mut policies = self.0.iter().map(|version| &version.policy);
        policies.any(|policy| name == Some(&policy.name) && selector::hold(&policy.starts_on, event))
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|version| version.policy.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Every policy, as this session knows them now.
pub fn all() -> Rc<Policies> {
    let read = || {
        as_owner(|| {
            cache::watch_announcements();
            Rc::new(load())
        })
    };
    REMEMBERED.with(|remembered| remembered.get(Option::clone, read, |kept, found| *kept = Some(found)))
}

/// Which of the other columns are keys of a policy, the engine says.
const POLICY: Shape = Shape { name: c"policy", types: &[TEXT, INT4] };

fn load() -> Policies {
    let table = OwnTable::open(&POLICY, Access::Reading);
    let mut versions = Vec::new();
    with_newest(|newest| table.all(newest, |row| versions.push(version(row))));
    Policies(versions)
}

fn version(row: &mut Row) -> Version {
    let mut definition = Map::new();
    let mut from = None;
    while let Some((key, of_type)) = row.next() {
        let value = match of_type {
            TEXT => row.nullable::<String>().map(Json::from),
            INT4 => row.nullable::<i32>().map(Json::from),
            BOOL => row.nullable::<bool>().map(Json::from),
            TEXTS => row.nullable::<Vec<Option<String>>>().map(Json::from),
            JSONB => row.nullable::<JsonB>().map(|json| json.0),
            INTERVAL => row.nullable().map(|interval| Json::from(micros(&interval, key).to_string())),
            TIME if key == "effective_from" => {
                from = row.nullable::<Timestamp>();
                None
            }
            _ => {
                row.skip(1);
                None
            }
        };
        definition.extend(value.map(|value| (key.to_owned(), value)));
    }
    let is_retroactive = definition.get("retroactive") == Some(&Json::Bool(true));
    let mut measured = |micros: &str, _: &str| micros.parse().expect("as it was written above");
    let policy = Policy::stored(&Json::Object(definition), &mut measured).unwrap_or_else(|flaw| damaged(flaw.message));
    let from = from.unwrap_or_else(|| damaged(format!("policy {} is never in force", policy.name))).bound();
    Version { from, policy: Arc::new(policy), is_retroactive }
}

/// Days have 24 hours; months have no length of their own, and so no policy has any.
fn micros(interval: &Interval, key: &str) -> i64 {
    let micros = i64::try_from(interval.as_micros()).ok().filter(|_| interval.months() == 0);
    micros.unwrap_or_else(|| damaged(format!("{key} of a policy is {interval}")))
}
