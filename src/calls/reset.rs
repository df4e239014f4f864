//! How does a test suite begin anew, in a database that holds no books?

use crate::calls::journal;
use crate::catalog::cache;
use crate::meter::commit;
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::failure;
use crate::pg::locks;
use crate::pg::relation::{self, statement};
use crate::pg::rights::{as_owner, is_superuser};
use crate::pg::settings;
use crate::pg::sql::{Connection, arg, connected};
use pgrx::prelude::*;
use serde_json::{Map, json};
use talkmeter_engine::instant::Instant;

/// The tables that are emptied, in the order in which a commit locks them, each with the statement. What is left is
/// what a suite sets up once: definitions, sources and their mappings, holidays, thresholds and readers; and what is no
/// test's to remove: the journal, and who sweeps.
macro_rules! emptied {
    ($($table:literal),+ $(,)?) => {
        const EMPTIED: &[(&str, &str)] = &[$(($table, concat!("DELETE FROM talkmeter.", $table))),+];
    };
}

emptied!(
    "quarantined",
    "conversation",
    "ended_part",
    "marked",
    "tenant_lock",
    "account",
    "subscription",
    "period",
    "pack",
    "charge",
    "unplanned_unit",
    "uncharged_unit",
    "day_units",
    "alert",
    "dispute_count",
    "dispute_filed",
    "statement_line",
    "forgotten_subject",
    "forgetting",
    "external_count",
    "reconciliation",
    "sweep_failure",
    "tenant_move",
    "source_gap",
    "uncharged_span",
    "backfill_run",
);

/// Removes all that was metered, bought and charged. Attached tables stay attached, and start anew: one that is empty
/// without a beginning, any other now.
#[pg_extern(sql = false)]
fn reset_for_tests() {
    if !is_superuser() {
        failure(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "only a superuser may remove what was metered")
            .hint("Call it as a superuser, in a database of your tests.")
            .raise();
    }
    allowed();
    // What this transaction has noted goes with the rest.
    commit::work();
    as_owner(|| {
        connected(|connection| {
            // Tables of messages first, as whoever inserts does.
            let sources = locked_sources(connection);
            lock(connection);
            nothing_is_frozen(connection);
            let mut removed = Map::new();
            for (table, delete) in EMPTIED {
                let rows = connection.run(delete, &[]).count();
                if rows > 0 {
                    removed.insert((*table).to_owned(), json!(rows));
                }
            }
            sources.iter().for_each(|source| start(connection, *source));
            cache::announce_change();
            journal::note(connection, "reset_for_tests", None, json!({"removed": removed}), None);
        })
    });
}

/// What the files of the configuration say last. A session that was given a value of its own before it loaded the
/// library has the default: the server refuses that value then, and has forgotten the one of the files.
const IN_FILES: &str = "
    SELECT f.setting::boolean FROM pg_file_settings AS f
    WHERE f.name = 'talkmeter.allow_reset_for_tests'
    ORDER BY f.seqno DESC
    LIMIT 1";

/// On a server with books the administrator switches it off.
fn allowed() {
    let says = |connection: &Connection| connection.run(IN_FILES, &[]).first().is_none_or(|mut row| row.value());
    if settings::allows_reset_for_tests() && as_owner(|| connected(says)) {
        return;
    }
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "this server does not allow that what was metered is removed",
    )
    .detail("talkmeter.allow_reset_for_tests is off in its configuration.")
    .hint("Let the tests run on another server. No session can switch it on: ALTER SYSTEM and a reload can.")
    .raise()
}

const SOURCES: &str = "
    SELECT s.source_id, c.oid, format('%I.%I', n.nspname, c.relname)
    FROM talkmeter.source AS s
    JOIN pg_class AS c ON c.oid = s.relation AND talkmeter.is_source(s.relation, s.relation_name, s.relation_origin)
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    ORDER BY s.source_id";

/// The tables that are, or were, attached: locked against writing until the transaction ends.
fn locked_sources(connection: &Connection) -> Vec<(i32, pg_sys::Oid)> {
    let rows = connection.run(SOURCES, &[]);
    let lock = |(id, table, name): (i32, pg_sys::Oid, String)| {
        connection.run_once(&statement(&["LOCK TABLE ", &name, " IN SHARE ROW EXCLUSIVE MODE"]), false);
        (id, table)
    };
    let found: Vec<_> = rows.iter().map(|mut row| (row.value(), row.value(), row.value())).collect();
    found.into_iter().map(lock).collect()
}

/// Holds off whoever meters, until the transaction ends.
fn lock(connection: &Connection) {
    for (table, _) in EMPTIED {
        let lock = statement(&["LOCK TABLE talkmeter.", table, " IN SHARE ROW EXCLUSIVE MODE"]);
        connection.run_once(&lock, false);
    }
    locks::sources_for_one();
}

const FROZEN: &str = "
    SELECT p.tenant, p.period_start, count(*) OVER ()
    FROM talkmeter.period AS p
    WHERE p.finalized_at IS NOT NULL
    ORDER BY p.finalized_at
    LIMIT 1";

/// A frozen statement was sent to somebody, and so is a book.
fn nothing_is_frozen(connection: &Connection) {
    let rows = connection.run(FROZEN, &[]);
    let Some(mut row) = rows.first() else { return };
    let tenant: String = row.value();
    let start = row.value::<Timestamp>().bound().shown();
    let all: i64 = row.value();
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "statements are frozen in this database: it holds books",
    )
    .detail(format!("{all} in all; the first is that of tenant \"{tenant}\" for the period that starts at {start}."))
    .hint(
        "Let the tests run in another database; one in which they finalize is made anew: CREATE DATABASE ... TEMPLATE.",
    )
    .raise()
}

const START: &str = "UPDATE talkmeter.source AS s SET starts_at = $2 WHERE s.source_id = $1";

/// As at a first attach: rows that are there are none of what comes.
fn start(connection: &Connection, (id, table): (i32, pg_sys::Oid)) {
    let starts_at = match relation::is_empty(connection, table) {
        true => Instant::BEGINNING,
        false => clock::now(),
    };
    connection.run(START, &[arg(id), arg(Timestamp::from(starts_at))]);
}
