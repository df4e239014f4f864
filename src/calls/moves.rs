//! How does a tenant leave this server, and come to another (rule 4.8)?
//!
//! From [`begin_move`] here, and [`expect_tenant`] there, its rows wait in quarantine on both. Its books are read and
//! taken over meanwhile, so that there is one state to be read. Whoever had begun to meter it by then is waited for.

use crate::billing::known_tenant;
use crate::calls::books::{self, BOOKS, Books, Document, QUARANTINE};
use crate::calls::{journal, retry};
use crate::capture::entry::MOVED;
use crate::catalog::Catalog;
use crate::catalog::args::{required, tenant_key};
use crate::catalog::cache;
use crate::catalog::reading;
use crate::meter::commit;
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::own_table;
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::{Connection, arg, connected};
use crate::pg::tags;
use crate::pg::writers;
use pgrx::JsonB;
use pgrx::datum::Uuid;
use pgrx::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

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

/// Waits for whoever has begun to write to the books by now: he may not know yet that a tenant is away.
fn wait_for_works() {
    let first = [c"conversation", c"tenant_lock", c"dispute_count", c"external_count", c"reconciliation"];
    writers::wait_for(&first.map(own_table::oid));
}

// A move that has begun goes on.
const BEGIN: &str = "
    INSERT INTO talkmeter.tenant_move AS m (tenant, state) VALUES ($1, 'leaving')
    ON CONFLICT (tenant) DO UPDATE
    SET state = excluded.state, move = excluded.move, receipt = excluded.receipt, since = excluded.since,
        by = excluded.by, exported_at = NULL
    WHERE m.state = 'arrived'";

const EXPECT: &str = "
    INSERT INTO talkmeter.tenant_move AS m (tenant, state) VALUES ($1, 'expected')
    ON CONFLICT (tenant) DO UPDATE
    SET state = excluded.state, move = excluded.move, receipt = excluded.receipt, since = excluded.since,
        by = excluded.by, exported_at = NULL
    WHERE m.state IN ('left', 'arrived')";

const STATE: &str = "
    SELECT m.state, m.move, m.receipt, m.exported_at FROM talkmeter.tenant_move AS m WHERE m.tenant = $1 FOR UPDATE";

/// What is known of a tenant's move, which is locked.
struct Move {
    state: String,
    id: Uuid,
    receipt: Uuid,
    exported_at: Option<Timestamp>,
}

fn known_move(connection: &Connection, tenant: &str) -> Option<Move> {
    let rows = connection.run(STATE, &[arg(tenant)]);
    let mut row = rows.first()?;
    Some(Move { state: row.value(), id: row.value(), receipt: row.value(), exported_at: row.nullable() })
}

fn move_in_state(connection: &Connection, tenant: &str, states: &[&str], hint: &str) -> Move {
    let Some(known) = known_move(connection, tenant) else { refuse(tenant, "is not moving", hint) };
    if !states.contains(&known.state.as_str()) {
        let because = match known.state.as_str() {
            "leaving" => "is about to leave this server",
            "left" => "has left this server",
            "expected" => "is expected here, and its books have not come yet",
            _ => "has arrived here",
        };
        refuse(tenant, because, hint);
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
        if connection.run(BACKFILLS, &[]).count() > 0 || connection.run(UNCHARGED, &[arg(tenant)]).count() > 0 {
            refuse(tenant, "cannot move while a table is backfilled", "Call it once talkmeter.backfill is done.");
        }
        let known = known_move(connection, tenant);
        match known.as_ref().map(|known| known.state.as_str()) {
            Some("leaving") => return,
            Some(state @ ("left" | "expected")) => {
                let because = if state == "left" { "has left this server" } else { "is expected here" };
                refuse(tenant, because, "Call it on the server that has the tenant's books.")
            }
            _ => known_tenant::must_be(connection, tenant),
        }
        connection.run(BEGIN, &[arg(tenant)]);
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
        connection.run(EXPECT, &[arg(tenant)]);
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

const EXPORTED: &str = "
    UPDATE talkmeter.tenant_move AS m SET exported_at = clock_timestamp(), receipt = gen_random_uuid()
    WHERE m.tenant = $1";

const HEAD_OF: &str = "SELECT talkmeter.move_head($1)::text";

/// All that the books hold of a tenant that is leaving, line by line.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn export_tenant(
    tenant: Option<&str>,
) -> TableIterator<'static, (name!(line, i64), name!(relation, String), name!(content, Vec<String>))> {
    let tenant = tenant_key(tenant);
    let document = call("export_tenant", |connection| {
        let hint = "Call talkmeter.begin_move first, in a transaction of its own: from then on its rows wait.";
        wait_for_works();
        move_in_state(connection, tenant, &["leaving"], hint);
        // What is put into quarantine after that has a later time.
        let document = tags::alone_with(tenant, || {
            connection.run(EXPORTED, &[arg(tenant)]);
            Document::begin(connection, tenant)
        });
        journal::note(connection, "export_tenant", Some(tenant), json!({}), None);
        document.with_head(connection.run(HEAD_OF, &[arg(tenant)]).only().value())
    });
    TableIterator::new(document)
}

/// The first line of a document is read: what it says must be so here too. Returns its tenant, and of which time on
/// entries of quarantine are new: of all times, unless its books are here already by the same move.
#[pg_extern(sql = false)]
fn import_begin(
    head: Option<JsonB>,
) -> TableIterator<'static, (name!(tenant, String), name!(since, Option<TimestampWithTimeZone>))> {
    let JsonB(head) = required(head, "head");
    let text = |key: &str| head.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let tenant = text("tenant");
    let since = call("import_tenant", |connection| {
        let hint = "Call talkmeter.expect_tenant first, in a transaction of its own: from then on its rows wait.";
        wait_for_works();
        let known = move_in_state(connection, &tenant, &["expected", "arrived"], hint);
        if known.state == "arrived" {
            if known.id.to_string() != text("move") {
                refuse(&tenant, "is here already", "This document is of another move.");
            }
            return known.exported_at;
        }
        must_fit(connection, JsonB(head.clone()));
        has_no_books(connection, &tenant);
        books::lock_all();
        None
    });
    TableIterator::once((tenant, since.map(Timestamp::shown)))
}

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
    SET state = 'arrived', move = $2, receipt = $3, exported_at = $4, since = clock_timestamp(), by = SESSION_USER
    WHERE m.tenant = $1";

/// A document was read to its end: from now on the tenant is metered here, beginning with the rows that wait.
#[pg_extern(sql = false)]
fn import_end(head: Option<JsonB>) -> Uuid {
    let head = required(head, "head");
    must_write("import_tenant");
    let (tenant, receipt) = as_owner(|| {
        connected(|connection| {
            let parts = connection.run(NAMES, &[arg(head)]);
            let Some(mut row) = parts.first() else {
                failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "this is no first line of a document")
                    .hint("Give the lines as talkmeter.export_tenant returned them.")
                    .raise();
            };
            let (tenant, id, receipt, at): (String, Uuid, Uuid, Timestamp) =
                (row.value(), row.value(), row.value(), row.value());
            move_in_state(connection, &tenant, &["expected", "arrived"], "Call talkmeter.import_tenant.");
            rows_are_here(connection, &tenant);
            connection.run(ARRIVED, &[arg(tenant.as_str()), arg(id), arg(receipt), arg(at)]);
            cache::announce_change();
            journal::note(connection, "import_tenant", Some(&tenant), json!({}), None);
            (tenant, receipt)
        })
    });
    come(&tenant);
    receipt
}

/// Meters what waits of a tenant that is metered here again. What is put there meanwhile is little: it is waited for,
/// and metered before anybody else may meter the tenant, so that rows are metered in the order in which they came.
fn come(tenant: &str) {
    reading::begin();
    retry::of_tenant_that_came(tenant);
    commit::work();
    tags::come(tenant);
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
        wait_for_works();
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
        let mut removed = BTreeMap::new();
        let mut remove = |books: &Books| {
            let rows = connection.run(books.delete, &[arg(tenant)]).count();
            removed.extend((rows > 0).then_some((books.table, rows)));
        };
        // What comes after that stays in quarantine, for who looks there.
        tags::alone_with(tenant, || {
            nothing_came(connection, tenant, known.exported_at);
            BOOKS.iter().filter(|books| books.table == QUARANTINE).for_each(&mut remove);
        });
        BOOKS.iter().filter(|books| books.table != QUARANTINE).for_each(remove);
        connection.run("DELETE FROM talkmeter.sweep_failure AS f WHERE f.tenant = $1", &[arg(tenant)]);
        connection.run(LEFT, &[arg(tenant)]);
        cache::announce_change();
        journal::note(connection, "end_move", Some(tenant), json!({"removed": removed}), None);
    });
}

/// The tenant stays here: what waits of it is metered. Returns the receipt for a copy of its books elsewhere.
#[pg_extern(sql = false)]
fn cancel_move(tenant: Option<&str>) -> Uuid {
    let tenant = tenant_key(tenant);
    let receipt = call("cancel_move", |connection| {
        let hint = "What was imported is metered where it is now; begin_move there takes it back.";
        let known = move_in_state(connection, tenant, &["leaving", "expected"], hint);
        connection.run("DELETE FROM talkmeter.tenant_move AS m WHERE m.tenant = $1", &[arg(tenant)]);
        cache::announce_change();
        journal::note(connection, "cancel_move", Some(tenant), json!({"state": known.state}), None);
        known.receipt
    });
    come(tenant);
    receipt
}
