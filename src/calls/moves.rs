//! How does a tenant leave this server, and come to another (rule 4.8)?
//!
//! From [`begin_move`] here, and [`expect_tenant`] there, its rows wait in quarantine on both. Its books are read and
//! taken over meanwhile, so that there is one state to be read. Whoever had begun to meter it by then is waited for.

use crate::billing::known_tenant;
use crate::calls::books::{self, Books, Document};
use crate::calls::{journal, retry};
use crate::capture::entry::MOVED;
use crate::catalog::Catalog;
use crate::catalog::args::{required, tenant_key};
use crate::catalog::away::State;
use crate::catalog::cache;
use crate::catalog::reading;
use crate::meter::commit;
use crate::pg::clock::Timestamp;
use crate::pg::document;
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::own_table;
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::{Connection, arg, connected};
use crate::pg::tags;
use crate::pg::writers;
use pgrx::datum::Uuid;
use pgrx::prelude::*;
use pgrx::{AnyElement, JsonB};
use serde_json::json;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Does a call about moving a tenant, with the owner's rights, after what the transaction has noted so far.
fn call<R>(function: &'static str, work: impl FnOnce(&Connection) -> R) -> R {
    must_write(function);
    commit::work();
    as_owner(|| connected(work))
}

fn refuse(tenant: &str, because: &str, hint: &str) -> ! {
    failure(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("tenant \"{tenant}\" {because}"))
        .hint(hint)
        .raise()
}

/// Waits for whoever has begun to write to the books, or to quarantine, by now: he may not know yet that a tenant is
/// away. Nobody is held up by that.
fn wait_for_works(function: &str) {
    let first =
        [c"quarantined", c"conversation", c"tenant_lock", c"dispute_count", c"external_count", c"reconciliation"];
    let tables = first.map(own_table::oid);
    if writers::is_one(&tables) {
        failure(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            format!("talkmeter.{function}() is called in a transaction that has metered"),
        )
        .detail("It waits for such transactions, and they may wait for this one.")
        .hint("Call it in a transaction of its own.")
        .raise();
    }
    writers::wait_for(&tables);
}

// Anew, unless it is in none of these states.
const BEGIN: &str = "
    INSERT INTO talkmeter.tenant_move AS m (tenant, state) VALUES ($1, $2)
    ON CONFLICT (tenant) DO UPDATE
    SET state = excluded.state, move = excluded.move, receipt = excluded.receipt, since = excluded.since,
        by = excluded.by, exported_at = NULL
    WHERE m.state = ANY ($3)";

// The number of a transaction without how often numbers have begun anew: none is greater than the present one.
const STATE: &str = "
    SELECT m.state, m.move, m.receipt, m.exported_at,
        COALESCE(
            pg_xact_status((t.now - ((t.now - m.xmin::text::int8) & 4294967295))::text::xid8) = 'in progress', false)
    FROM talkmeter.tenant_move AS m
    CROSS JOIN (SELECT pg_current_xact_id()::text::int8 AS now) AS t
    WHERE m.tenant = $1
    FOR UPDATE OF m";

/// What is known of a tenant's move, which is locked.
struct Move {
    state: String,
    id: Uuid,
    receipt: Uuid,
    exported_at: Option<Timestamp>,
    /// It was written by this transaction: nobody else knows it yet.
    is_own: bool,
}

fn known_move(connection: &Connection, tenant: &str) -> Option<Move> {
    let rows = connection.run(STATE, &[arg(tenant)]);
    let mut row = rows.first()?;
    let (state, id, receipt, exported_at) = (row.value(), row.value(), row.value(), row.nullable());
    Some(Move { state, id, receipt, exported_at, is_own: row.value() })
}

fn move_in_state(connection: &Connection, tenant: &str, states: &[&str], hint: &str) -> Move {
    let Some(known) = known_move(connection, tenant) else { refuse(tenant, "is not moving", hint) };
    if !states.contains(&known.state.as_str()) {
        refuse(tenant, State::stored(&known.state).map_or("has arrived here", State::says), hint);
    }
    known
}

const BACKFILLS: &str = "SELECT FROM talkmeter.backfill_run LIMIT 1";
const UNCHARGED: &str = "SELECT FROM talkmeter.uncharged_unit AS u WHERE u.tenant = $1 LIMIT 1";

/// From the commit on rows of a tenant wait in quarantine as `moved`, and calls that change its books are errors.
#[pg_extern(sql = false)]
fn begin_move(tenant: Option<&str>) {
    let tenant = tenant_key(tenant);
    call("begin_move", |connection| {
        // Who begins a backfill asks for moves after that.
        connection.run_once("LOCK TABLE talkmeter.backfill_run IN SHARE MODE", false);
        no_nameless_rows(connection, tenant, None);
        if connection.run(BACKFILLS, &[]).count() > 0 || connection.run(UNCHARGED, &[arg(tenant)]).count() > 0 {
            refuse(tenant, "cannot move while a table is backfilled", "Call it once talkmeter.backfill is done.");
        }
        match known_move(connection, tenant).and_then(|known| State::stored(&known.state)) {
            None => known_tenant::must_be(connection, tenant),
            Some(State::Leaving) => return,
            Some(state) => refuse(tenant, state.says(), "Call it on the server that has the tenant's books."),
        }
        connection.run(BEGIN, &[arg(tenant), arg("leaving"), arg(vec!["arrived"])]);
        cache::announce_change();
        journal::note(connection, "begin_move", Some(tenant), json!({}), None);
    });
}

/// From the commit on rows of a tenant that has no books here wait in quarantine as `moved`, until they have come.
#[pg_extern(sql = false)]
fn expect_tenant(tenant: Option<&str>) {
    let tenant = tenant_key(tenant);
    call("expect_tenant", |connection| {
        let known = known_move(connection, tenant);
        if known.is_some_and(|known| known.state == "expected") {
            return;
        }
        has_no_books(connection, tenant);
        connection.run(BEGIN, &[arg(tenant), arg("expected"), arg(vec!["left", "arrived"])]);
        cache::announce_change();
        journal::note(connection, "expect_tenant", Some(tenant), json!({}), None);
    });
}

fn has_no_books(connection: &Connection, tenant: &str) {
    if books::hold_any(connection, tenant) {
        refuse(
            tenant,
            "has books on this server",
            "Books are never put together: a tenant comes to a server that knows nothing of it.",
        );
    }
}

/// A call begins that goes by it that others know the state: it is an error if they do not yet.
fn must_be_known(tenant: &str, known: &Move) {
    if known.is_own {
        failure(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            format!("that tenant \"{tenant}\" moves is not committed yet"),
        )
        .detail("Others meter it until then.")
        .hint("Call each step of a move in a transaction of its own.")
        .raise();
    }
}

const EXPORTED: &str = "
    UPDATE talkmeter.tenant_move AS m SET exported_at = $2, receipt = gen_random_uuid() WHERE m.tenant = $1";

const HEAD_OF: &str = "SELECT talkmeter.move_head($1)::text";

/// All that the books hold of a tenant that is leaving, line by line.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn export_tenant(
    tenant: Option<&str>,
) -> TableIterator<'static, (name!(line, i64), name!(relation, String), name!(content, Vec<String>))> {
    let tenant = tenant_key(tenant);
    let head = call("export_tenant", |connection| {
        // Whoever has put something into quarantine by then has locked it, and is waited for.
        let now: Timestamp = connection.run("SELECT clock_timestamp()", &[]).only().value();
        wait_for_works("export_tenant");
        let hint = "Call talkmeter.begin_move first, in a transaction of its own: from then on its rows wait.";
        must_be_known(tenant, &move_in_state(connection, tenant, &["leaving"], hint));
        no_nameless_rows(connection, tenant, None);
        connection.run(EXPORTED, &[arg(tenant), arg(now)]);
        journal::note(connection, "export_tenant", Some(tenant), json!({}), None);
        connection.run(HEAD_OF, &[arg(tenant)]).only().value()
    });
    TableIterator::new(Document::of(tenant, head))
}

// Of these no more was read than an id: they may be of any tenant.
const NAMELESS: &str = "
    SELECT count(*) FROM talkmeter.quarantined AS q
    WHERE q.tenant IS NULL AND q.reason IN ('disabled', 'mapping_broken', 'source_unreadable', 'internal_error')
        AND q.quarantined_at > COALESCE($1, '-infinity')";

fn no_nameless_rows(connection: &Connection, tenant: &str, since: Option<Timestamp>) {
    let rows: i64 = connection.run(NAMELESS, &[arg(since)]).only().value();
    if rows > 0 {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{rows} rows wait in quarantine of which only an id was read: they may be of tenant \"{tenant}\"",),
        )
        .hint("Do what the hint of talkmeter.quarantine says, and call talkmeter.retry_quarantine().")
        .raise();
    }
}

/// The first line of a document is read: what it says must be so here too. Returns its tenant, and of which time on
/// entries of quarantine are new: of all times, unless its books are here already by the same move.
#[pg_extern(sql = false)]
fn import_begin(
    head: Option<AnyElement>,
) -> TableIterator<'static, (name!(tenant, String), name!(since, Option<TimestampWithTimeZone>))> {
    let head = document::value(required(head, "head"), "head");
    let text = |key: &str| head.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let tenant = text("tenant");
    let since = call("import_tenant", |connection| {
        let hint = "Call talkmeter.expect_tenant first, in a transaction of its own: from then on its rows wait.";
        wait_for_works("import_tenant");
        let known = move_in_state(connection, &tenant, &["expected", "arrived"], hint);
        must_be_known(&tenant, &known);
        let is_here = known.state == "arrived";
        if is_here && known.id.to_string() != text("move") {
            refuse(&tenant, "is here already", "This document is of another move.");
        }
        if !is_here {
            must_fit(connection, JsonB(head.clone()));
            has_no_books(connection, &tenant);
        }
        books::lock_all();
        connection.run(ARRIVING, &[arg(tenant.as_str())]);
        known.exported_at
    });
    TableIterator::once((tenant, since.map(Timestamp::shown)))
}

// Until the document has come to its end.
const ARRIVING: &str = "UPDATE talkmeter.tenant_move AS m SET state = 'arriving' WHERE m.tenant = $1";

const DIFFERENCES: &str = "SELECT d.difference FROM talkmeter.move_differences($1) AS d LIMIT 5";

fn must_fit(connection: &Connection, head: JsonB) {
    let rows = connection.run(DIFFERENCES, &[arg(head)]);
    let differences: Vec<String> = rows.iter().map(|mut row| row.value()).collect();
    if !differences.is_empty() {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "this server would judge or bill the tenant otherwise than the one that it comes from",
        )
        .detail(differences.join(" "))
        .hint("Make both the same, and import the document again. Nothing was changed.")
        .raise();
    }
}

const NAMES: &str = "
    SELECT h.tenant, h.move, h.receipt, h.exported_at
    FROM jsonb_to_record(CASE jsonb_typeof($1) WHEN 'object' THEN $1 END)
        AS h (tenant text, move uuid, receipt uuid, exported_at timestamptz)
    WHERE (h.tenant, h.move, h.receipt, h.exported_at) IS NOT NULL";

const ARRIVED: &str = "
    UPDATE talkmeter.tenant_move AS m
    SET state = 'arrived', move = $2, receipt = $3, exported_at = $4, came_by = $2, came_with = $3, came_at = $4,
        since = clock_timestamp(), by = SESSION_USER
    WHERE m.tenant = $1";

// A document of before says nothing new.
const STILL_HERE: &str = "UPDATE talkmeter.tenant_move AS m SET state = 'arrived' WHERE m.tenant = $1";

/// A document was read to its end: from now on the tenant is metered here, beginning with the rows that wait.
#[pg_extern(sql = false)]
fn import_end(head: Option<AnyElement>) -> Uuid {
    let head = document::value(required(head, "head"), "head");
    must_write("import_tenant");
    let (tenant, receipt) = as_owner(|| {
        connected(|connection| {
            let parts = connection.run(NAMES, &[arg(JsonB(head))]);
            let Some(mut row) = parts.first() else {
                failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "this is no first line of a document")
                    .hint("Give the lines as talkmeter.export_tenant returned them.")
                    .raise();
            };
            let (tenant, id, receipt, at): (String, Uuid, Uuid, Timestamp) =
                (row.value(), row.value(), row.value(), row.value());
            let known = move_in_state(connection, &tenant, &["arriving"], "Call talkmeter.import_tenant.");
            cache::announce_change();
            if known.exported_at.is_some_and(|known| at.bound() <= known.bound()) {
                connection.run(STILL_HERE, &[arg(tenant.as_str())]);
                return (tenant, known.receipt);
            }
            rows_are_here(connection, &tenant);
            connection.run(ARRIVED, &[arg(tenant.as_str()), arg(id), arg(receipt), arg(at)]);
            journal::note(connection, "import_tenant", Some(&tenant), json!({}), None);
            (tenant, receipt)
        })
    });
    come(&tenant);
    receipt
}

/// How long who puts rows of the tenant aside just now is given to commit.
const PATIENCE: Duration = Duration::from_millis(500);

/// Meters what waits of a tenant that is metered here again. What is put there meanwhile is little: it is metered
/// before anybody else may meter the tenant, so that rows are metered in the order in which they came. But whoever does
/// not commit is not waited for, since he may wait for an entry that is held here: his rows are left to the next sweep.
fn come(tenant: &str) {
    reading::begin();
    retry::of_tenant_that_came(tenant);
    commit::work();
    let begun = Instant::now();
    while !tags::may_come(tenant) {
        if begun.elapsed() > PATIENCE {
            return;
        }
        heed_cancel();
        sleep(Duration::from_millis(2));
    }
    retry::of_tenant_that_came(tenant);
    commit::work();
}

const WAITING: &str = "
    SELECT q.source_id, q.message_id
    FROM talkmeter.quarantined AS q
    WHERE q.tenant = $1 AND q.reason = $2 AND q.message_id IS NOT NULL AND q.removal IS NULL AND q.mark_kind IS NULL
        AND q.source_id <> 0
    ORDER BY q.source_id";

/// Rows that waited where the tenant comes from are metered from this server's tables.
fn rows_are_here(connection: &Connection, tenant: &str) {
    let mut waiting: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for mut row in connection.run(WAITING, &[arg(tenant), arg(MOVED)]).iter() {
        waiting.entry(row.value()).or_default().push(row.value());
    }
    let catalog = Catalog::now();
    for (id, messages) in &waiting {
        let Some(source) = catalog.source(*id) else { continue };
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let mut found = vec![false; messages.len()];
        reading::for_each_message(&source, &messages, |index, _| found[index] = true)
            .unwrap_or_else(|unreadable| unreadable.raise());
        let missing = found.iter().filter(|found| !**found).count();
        if let Some(first) = found.iter().position(|found| !found) {
            failure(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{missing} messages of tenant \"{tenant}\" that wait to be metered are not here"),
            )
            .detail(format!("One of them is \"{}\".", messages[first]))
            .hint(
                "Copy the tenant's messages to this server first, then import the document again. Nothing was changed.",
            )
            .raise();
        }
    }
}

const CAME_SINCE: &str = "
    SELECT count(*) FROM talkmeter.quarantined AS q
    WHERE q.tenant = $1 AND q.quarantined_at > COALESCE($2, '-infinity')";

fn nothing_came(connection: &Connection, tenant: &str, exported_at: Option<Timestamp>) {
    let came: i64 = connection.run(CAME_SINCE, &[arg(tenant), arg(exported_at)]).only().value();
    if came > 0 {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{came} rows or marks of tenant \"{tenant}\" came after its books were exported"),
        )
        .hint(
            "Copy the messages to where the tenant is now, then export and import once more: where its books are \
            already, only what is new is taken over.",
        )
        .raise();
    }
}

const LEFT: &str = "
    UPDATE talkmeter.tenant_move AS m SET state = 'left', since = clock_timestamp(), by = SESSION_USER
    WHERE m.tenant = $1";

/// Removes the books of a tenant that were taken over by another server, which the receipt shows.
#[pg_extern(sql = false)]
fn end_move(tenant: Option<&str>, receipt: Option<Uuid>) {
    let (tenant, receipt) = (tenant_key(tenant), required(receipt, "receipt"));
    call("end_move", |connection| {
        wait_for_works("end_move");
        let known =
            move_in_state(connection, tenant, &["leaving", "left"], "Call it on the server that the tenant leaves.");
        if known.receipt != receipt {
            failure(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("this is no receipt for the books of tenant \"{tenant}\" as they are"),
            )
            .hint("import_tenant returns it, where it was given what export_tenant returned last.")
            .raise();
        }
        if known.state == "left" {
            return;
        }
        books::lock_all();
        nothing_came(connection, tenant, known.exported_at);
        no_nameless_rows(connection, tenant, known.exported_at);
        let removed = |books: &Books| (books.table, connection.run(books.delete, &[arg(tenant)]).count());
        let removed: BTreeMap<&str, usize> = books::all().map(removed).filter(|(_, rows)| *rows > 0).collect();
        connection.run("DELETE FROM talkmeter.sweep_failure AS f WHERE f.tenant = $1", &[arg(tenant)]);
        connection.run(LEFT, &[arg(tenant)]);
        cache::announce_change();
        journal::note(connection, "end_move", Some(tenant), json!({"removed": removed}), None);
    });
}

// Where it came from may still have rows for it.
const BACK: &str = "
    UPDATE talkmeter.tenant_move AS m
    SET state = 'arrived', move = m.came_by, receipt = m.came_with, exported_at = m.came_at, since = clock_timestamp(),
        by = SESSION_USER
    WHERE m.tenant = $1 AND m.state = 'leaving' AND m.came_by IS NOT NULL";

/// The tenant stays here: what waits of it is metered. Returns the receipt for a copy of its books elsewhere.
#[pg_extern(sql = false)]
fn cancel_move(tenant: Option<&str>) -> Uuid {
    let tenant = tenant_key(tenant);
    let receipt = call("cancel_move", |connection| {
        let hint = "What was imported is metered where it is now; begin_move there takes it back.";
        let known = move_in_state(connection, tenant, &["leaving", "expected"], hint);
        if connection.run(BACK, &[arg(tenant)]).count() == 0 {
            connection.run("DELETE FROM talkmeter.tenant_move AS m WHERE m.tenant = $1", &[arg(tenant)]);
        }
        cache::announce_change();
        journal::note(connection, "cancel_move", Some(tenant), json!({"state": known.state}), None);
        known.receipt
    });
    come(tenant);
    receipt
}
