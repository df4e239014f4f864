//! Which tenants are not metered here, because their books are on another server, or on their way (rule 4.8)?

use crate::catalog::Catalog;
use crate::catalog::cache::{self, Remembered};
use crate::pg::error::{Failure, failure};
use crate::pg::own_table::types::TEXT;
use crate::pg::own_table::{self, OwnTable, Shape, with_newest};
use crate::pg::rights::as_owner;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::rc::Rc;

const TENANT_MOVE: Shape = Shape { name: c"tenant_move", types: &[TEXT, TEXT] };

thread_local! {
    static REMEMBERED: Remembered<Option<Rc<HashMap<String, State>>>> = Remembered::default();
}

/// Why a tenant is not metered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its books are here, and about to go.
    Leaving,
    /// They went.
    Left,
    /// They are about to come.
    Expected,
}

impl State {
    /// `arrived` is the state of a tenant that is metered here again.
    pub fn stored(name: &str) -> Option<State> {
        match name {
            "leaving" => Some(State::Leaving),
            "left" => Some(State::Left),
            "expected" | "arriving" => Some(State::Expected),
            _ => None,
        }
    }

    /// What is to be said of such a tenant.
    pub fn says(self) -> &'static str {
        match self {
            State::Leaving => "is about to leave this server",
            State::Left => "has left this server",
            State::Expected => "is expected here, and its books have not come yet",
        }
    }
}

/// The tenants that are away, as of a count of changes.
pub struct Away {
    as_of: u64,
    tenants: Rc<HashMap<String, State>>,
}

impl Away {
    /// As this session knows it. Take it once the tables of the work are locked: who exports a tenant waits for that
    /// lock, and whoever takes it later hears first that the tenant is away.
    pub fn now() -> Away {
        let as_of = cache::changes();
        let tenants = REMEMBERED
            .with(|remembered| remembered.get(Option::clone, || as_owner(read), |kept, found| *kept = Some(found)));
        Away { as_of, tenants }
    }

    /// As [`Away::now`], after the session has listened once more.
    pub fn by_now() -> Away {
        cache::changes_by_now();
        Away::now()
    }

    /// Whether it is of the same moment as a catalog.
    pub fn is_as_of(&self, catalog: &Catalog) -> bool {
        self.as_of == catalog.as_of
    }

    /// Whether nothing has changed since, as far as this session hears by now.
    pub fn is_current(&self) -> bool {
        self.as_of == cache::changes_by_now()
    }

    pub fn has(&self, tenant: &str) -> bool {
        !self.tenants.is_empty() && self.tenants.contains_key(tenant)
    }

    /// Those of some conversations of which the tenants are not away.
    pub fn without(&self, keys: &[(String, String)]) -> Vec<(String, String)> {
        keys.iter().filter(|(tenant, _)| !self.has(tenant)).cloned().collect()
    }

    /// Their names, as a parameter of a statement.
    pub fn names(&self) -> Vec<String> {
        self.tenants.keys().cloned().collect()
    }

    /// An error if books are about to go or to come: for what concerns all tenants and takes its time.
    pub fn nobody_moves(&self) {
        let moving = |(_, state): &(&String, &State)| **state != State::Left;
        if let Some((tenant, _)) = self.tenants.iter().find(moving) {
            failure(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("tenant \"{tenant}\" is moving"))
                .detail("Its rows wait in quarantine until its books are where they go.")
                .hint("End the move first, see talkmeter.moves.")
                .raise();
        }
    }
}

/// An error if the tenant's books are not here, or about to go. Call it with what the work locks of the tenant locked.
pub fn must_be_here(tenant: &str) {
    if let Some(state) = Away::by_now().tenants.get(tenant) {
        is_away(tenant, *state).raise();
    }
}

fn is_away(tenant: &str, state: State) -> Failure {
    let hint = match state {
        State::Leaving => "Call it where the tenant goes, once its books are there.",
        State::Left => "Call it on the server that has the tenant now.",
        State::Expected => "Call it again once they have.",
    };
    let says = state.says();
    failure(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("tenant \"{tenant}\" {says}"))
        .hint(format!("{hint} See talkmeter.moves."))
}

/// A catalog of before 0.3.0 has no such table, and there nobody moves.
fn read() -> Rc<HashMap<String, State>> {
    let mut found = HashMap::new();
    if own_table::oid(TENANT_MOVE.name) != pg_sys::InvalidOid {
        cache::watch_announcements();
        if let Some(table) = OwnTable::open_unless_empty(&TENANT_MOVE) {
            with_newest(|newest| {
                table.all(newest, |row| {
                    let tenant: String = row.value();
                    found.extend(State::stored(&row.value::<String>()).map(|state| (tenant, state)));
                });
            });
        }
    }
    Rc::new(found)
}
