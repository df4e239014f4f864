//! Which definitions of the billable unit are there (rule 3.3)?

use crate::catalog::cache::{self, Remembered};
use crate::pg::clock::Timestamp;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, connected};
use pgrx::JsonB;
use std::rc::Rc;
use std::sync::Arc;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::{self, Instant};
use talkmeter_engine::policy::Policy;

thread_local! {
    static REMEMBERED: Remembered<Option<Rc<Policies>>> = Remembered::default();
}

/// Every version of every policy, with the instant from which it is in force.
#[derive(Debug, Default)]
pub struct Policies(Vec<(Instant, Arc<Policy>)>);

impl Policies {
    /// The policy that a name means at an instant: `name@version`, or `name` for its newest version in force.
    pub fn in_force(&self, name: &str, at: Instant) -> Option<Arc<Policy>> {
        if let Some((name, version)) = name.split_once('@') {
            return self.version(name, version.parse().ok()?);
        }
        let versions = self.0.iter().filter(|(from, policy)| policy.name == name && *from <= at);
        let newest = versions.max_by_key(|(from, policy)| (*from, policy.version))?;
        Some(Arc::clone(&newest.1))
    }

    pub fn version(&self, name: &str, version: i32) -> Option<Arc<Policy>> {
        let found = self.0.iter().find(|(_, policy)| policy.name == name && policy.version == version)?;
        Some(Arc::clone(&found.1))
    }

    /// Whether a name, with or without a version, means any policy at all.
    pub fn knows(&self, name: &str) -> bool {
        match name.split_once('@') {
            Some((name, version)) => version.parse().is_ok_and(|version| self.version(name, version).is_some()),
            None => self.0.iter().any(|(_, policy)| policy.name == name),
        }
    }

    /// Whether any version of the policy that a name means, with or without a version, opens parts at that kind.
    pub fn opens_on(&self, name: &str, kind: Kind) -> bool {
        let name = name.split('@').next();
        self.0.iter().any(|(_, policy)| name == Some(&policy.name) && policy.starts_on.contains(&kind))
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|(_, policy)| policy.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Every policy, as this session knows them now.
pub fn all() -> Rc<Policies> {
    let read = || {
        as_owner(|| {
            connected(|connection| {
                cache::watch_announcements(connection);
                Rc::new(load(connection))
            })
        })
    };
    REMEMBERED.with(|remembered| remembered.get(Option::clone, read, |kept, found| *kept = Some(found)))
}

// The rows as they are: which columns are keys of a policy, the engine says.
const LOAD: &str = "SELECT p.version, p.effective_from, to_jsonb(p) FROM talkmeter.policy AS p";

fn load(connection: &Connection) -> Policies {
    let rows = connection.run(LOAD, &[]);
    let policies = rows.iter().map(|mut row| {
        let version = row.value();
        let effective_from = row.value::<Timestamp>().bound();
        let JsonB(definition) = row.value();
        let mut micros = |interval: &str, key: &str| {
            instant::interval(interval).unwrap_or_else(|| panic!("{key} of a policy is {interval}"))
        };
        let policy = Policy::stored(&definition, &mut micros)
            .unwrap_or_else(|flaw| panic!("a policy of talkmeter.policy: {}", flaw.message));
        (effective_from, Arc::new(Policy { version, ..policy }))
    });
    Policies(policies.collect())
}
