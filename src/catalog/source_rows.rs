//! What is stored of a source: its row, the earlier versions of its mapping, its spans? Read without SQL, because the
//! first insert of a session waits for it.

use crate::pg::clock::Timestamp;
use crate::pg::own_table::types::*;
use crate::pg::own_table::{Access, Newest, OwnTable, Shape, with_newest};
use crate::pg::sql::Row;
use crate::pg::system;
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::Value as Json;
use std::cmp::Reverse;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

const SOURCE: Shape = Shape {
    name: c"source",
    types: &[
        INT4, TEXT, REGCLASS, TEXT, TEXT, REGCLASSES, TEXT, TEXT, JSONB, JSONB, BOOL, TIME, TIME, TIME, NAME, TIME,
        BOOL,
    ],
};
const EARLIER_MAPPING: Shape = Shape { name: c"earlier_mapping", types: &[INT4, TIME, TEXT, JSONB, JSONB] };
const SOURCE_GAP: Shape = Shape { name: c"source_gap", types: &[INT4, TIME, TIME, TEXT] };
const BACKFILL_RUN: Shape = Shape { name: c"backfill_run", types: &[INT4, TIME, TIME, BOOL, TEXT] };
const UNCHARGED_SPAN: Shape = Shape { name: c"uncharged_span", types: &[INT4, TIME, TIME] };

/// A source as it is stored.
pub struct Stored {
    pub id: i32,
    pub role: String,
    /// The attached table; none if it was dropped.
    pub relation: Option<pg_sys::Oid>,
    /// Which table of which installation it was when its columns were recorded.
    pub origin: String,
    pub default_plan: Option<String>,
    pub strict: bool,
    pub starts_at: Instant,
    pub is_attached: bool,
    pub by_row: bool,
    /// The newest first.
    pub versions: Vec<Version>,
    pub gaps: Vec<Gap>,
    /// Spans that are backfilled now, or were without being charged.
    pub held: Vec<Period>,
}

/// A version of a mapping as it is stored.
pub struct Version {
    /// Rows of this time or later are read by it.
    pub since: Instant,
    pub policy: String,
    pub mapping: Json,
    pub columns: Json,
}

/// A span of time of which rows are no events.
#[derive(Debug)]
pub struct Gap {
    pub span: Period,
    /// The table was not attached meanwhile; else the rows were there before.
    pub is_detached: bool,
}

/// The source for which a table is attached, or else the nearest of those of which it is a partition.
pub fn of_relation(relation: pg_sys::Oid, role: &str) -> Option<Stored> {
    let mut family = vec![relation];
    family.extend(system::ancestors_of(relation));
    read(|stored| {
        let is_attached = stored.is_attached && stored.role == role;
        family.iter().position(|member| is_attached && stored.relation == Some(*member))
    })
}

/// The source of that id, also if it is detached by now.
pub fn of_id(id: i32) -> Option<Stored> {
    read(|stored| (stored.id == id).then_some(0))
}

/// By what a source is looked for.
struct Name {
    id: i32,
    role: String,
    relation: Option<pg_sys::Oid>,
    is_attached: bool,
}

/// The source of the lowest rank. The tables hold few rows: no index would find them faster.
fn read(rank: impl Fn(&Name) -> Option<usize>) -> Option<Stored> {
    // All are locked before the snapshot is taken. But for the first they are mostly empty.
    let sources = OwnTable::open(&SOURCE, Access::Reading);
    let [earlier, gaps, runs, uncharged] =
        [&EARLIER_MAPPING, &SOURCE_GAP, &BACKFILL_RUN, &UNCHARGED_SPAN].map(OwnTable::open_unless_empty);
    with_newest(|newest| {
        let mut best: Option<(usize, Stored)> = None;
        sources.all(newest, |row| {
            let found = rank(&name(row.clone()));
            if let Some(found) = found.filter(|found| best.as_ref().is_none_or(|(best, _)| found < best)) {
                best = Some((found, stored(row)));
            }
        });
        let (_, mut stored) = best?;
        of_source(&earlier, newest, stored.id, |row| stored.versions.push(version(row)));
        stored.versions[1..].sort_by_key(|version| Reverse(version.since));
        of_source(&gaps, newest, stored.id, |row| {
            stored.gaps.push(Gap { span: span(row), is_detached: row.value::<String>() == "detached" });
        });
        of_source(&runs, newest, stored.id, |row| {
            let span = span(row);
            row.skip(1);
            stored.held.extend(matches!(row.value::<String>().as_str(), "counting" | "posting").then_some(span));
        });
        of_source(&uncharged, newest, stored.id, |row| stored.held.push(span(row)));
        Some(stored)
    })
}

/// Gives `each` the rows that begin with that id, without it.
fn of_source(table: &Option<OwnTable>, newest: &Newest, id: i32, mut each: impl FnMut(&mut Row)) {
    let Some(table) = table else { return };
    table.all(newest, |row| {
        if row.value::<i32>() == id {
            each(row);
        }
    });
}

fn name(mut row: Row) -> Name {
    let (id, role, relation) = (row.value(), row.value(), row.relation());
    row.skip(12);
    Name { id, role, relation, is_attached: row.nullable::<Timestamp>().is_none() }
}

fn stored(row: &mut Row) -> Stored {
    let (id, role, relation, origin) = (row.value(), row.value(), row.relation(), row.value());
    row.skip(2);
    let policy = row.nullable::<String>().unwrap_or_default();
    let default_plan = row.nullable();
    let (JsonB(mapping), JsonB(columns)) = (row.value(), row.value());
    let strict = row.value();
    let starts_at = row.value::<Timestamp>().bound();
    let since = row.value::<Timestamp>().bound();
    row.skip(2);
    let is_attached = row.nullable::<Timestamp>().is_none();
    let by_row = row.value();
    let versions = vec![Version { since, policy, mapping, columns }];
    let (gaps, held) = (Vec::new(), Vec::new());
    Stored { id, role, relation, origin, default_plan, strict, starts_at, is_attached, by_row, versions, gaps, held }
}

fn version(row: &mut Row) -> Version {
    let (since, policy) = (row.value::<Timestamp>().bound(), row.value());
    let (JsonB(mapping), JsonB(columns)) = (row.value(), row.value());
    Version { since, policy, mapping, columns }
}

fn span(row: &mut Row) -> Period {
    Period { start: row.value::<Timestamp>().bound(), end: row.value::<Timestamp>().bound() }
}
