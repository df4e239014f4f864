//! What does the audit trail show of a part beyond its figures (rule 5)? Customer, stages, models and safety, from
//! its rows.

use crate::catalog::Catalog;
use crate::catalog::args::{required, tenant_key};
use crate::meter::history::{self, AuditedRow, WantedEvents};
use crate::meter::part_table;
use crate::pg::error::failure;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, connected};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::collections::HashSet;
use talkmeter_engine::order;

/// From the rows of a part, notes included, as they are now: the first customer that is not null, stages and models
/// each once in the order in which they were first seen, and whether every safety check was passed (null if there was
/// none). `first` and `last` are the places of the part's first and last event. Reads only.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn audit_of(
    tenant: Option<&str>,
    conversation: Option<&str>,
    first: Option<&[u8]>,
    last: Option<&[u8]>,
) -> TableIterator<
    'static,
    (
        name!(customer, Option<String>),
        name!(stages, Vec<String>),
        name!(models, Vec<String>),
        name!(safety_passed, Option<bool>),
    ),
> {
    let (tenant, conversation) = (tenant_key(tenant), required(conversation, "conversation"));
    let (first, last) = (required(first, "first"), required(last, "last"));
    if first.len() < order::SHORTEST {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"first\" is the place of no event")
            .hint("Read talkmeter.audit_trail, which calls this function for each part.")
            .raise();
    }
    let since = order::time_of(first);
    let read = |connection: &Connection| {
        let catalog = Catalog::now();
        let sources = part_table::sources(&catalog, (tenant, conversation));
        let wanted = WantedEvents { tenant, conversation, since, sources, has_marks: false, scanned: Vec::new() };
        history::audited(connection, &catalog, wanted)
    };
    let mut rows = as_owner(|| connected(read)).unwrap_or_else(|unreadable| unreadable.raise());
    // Rows of one part share no row with another, but the events of a row may be divided between two.
    rows.retain(|row| of_part(row, first, last));
    let customer = rows.iter().find_map(|row| row.customer.clone());
    let passed = rows.iter().filter_map(|row| row.safety_passed).reduce(|all, passed| all && passed);
    let stages = first_seen(rows.iter().filter_map(|row| row.stage.as_ref()));
    let models = first_seen(rows.iter().filter_map(|row| row.model.as_ref()));
    TableIterator::once((customer, stages, models, passed))
}

/// Whether any event of a row may lie between two places: all its events share all of the place but the last two bytes.
fn of_part(row: &AuditedRow, first: &[u8], last: &[u8]) -> bool {
    let place = row.place.as_bytes();
    let same_row = |other: &[u8]| other.len() == place.len() && other[..place.len() - 2] == place[..place.len() - 2];
    (first <= place && place <= last) || same_row(first)
}

fn first_seen<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = HashSet::new();
    all.filter(|one| seen.insert(*one)).cloned().collect()
}
