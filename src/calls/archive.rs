//! What of the books is moved aside (rule 4.6.17)? The ended parts, charges and marks of months that are closed.

use crate::calls::journal;
use crate::catalog::args::{instant, required};
use crate::catalog::away::Away;
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::locks::{self, Conversations};
use crate::pg::procedure;
use crate::pg::progress::Progress;
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::{Arg, Connection, arg, connected};
use crate::pg::trigger;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::json;
use talkmeter_engine::instant::Instant;

/// Moves what is of finalized periods that ended by an instant, and commits as it goes.
///
/// # Safety
/// The server calls it, with the call information that it gives to a procedure.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn archive(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; `sql/43-archive.sql` declares the arguments.
    let (before, batch) =
        unsafe { (pgrx::pg_getarg::<TimestampWithTimeZone>(call, 0), pgrx::pg_getarg::<i32>(call, 1)) };
    let (before, batch) = (instant(required(before, "before"), "before"), required(batch, "batch"));
    if batch < 1 {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"batch\" is less than 1")
            .hint("Give the number of conversations after which it commits.")
            .raise();
    }
    must_write("archive");
    let from = Default::default();
    let mut archive = Archive { before, batch: batch as usize, passes: &PASSES, from, progress: None };
    let mut has_begun = false;
    let piece = || {
        as_owner(|| {
            connected(|connection| match std::mem::replace(&mut has_begun, true) {
                true => archive.go_on(connection),
                false => archive.begin(connection),
            })
        })
    };
    // SAFETY: the same; nothing that a piece of the work takes from the server outlives it.
    unsafe { procedure::in_pieces(call, "archive", piece) };
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_archive);

/// What is moved of one table. Rows are looked for by an index that begins with tenant and conversation; each look-up
/// of what they depend on is a subquery that the planner must run per row. A conversation that is found may have no
/// row that can be moved.
struct Pass {
    /// What its rows are called.
    unit: &'static str,
    count: &'static str,
    /// The conversations that may have such rows, so many in the order of their keys, from one on.
    next: &'static str,
    /// Moves those of some conversations.
    go: &'static str,
}

/// Whether an instant of a row `own` lies in a finalized period that ended by $1.
macro_rules! is_closed {
    ($at:literal) => {
        concat!(
            "EXISTS (
                SELECT FROM talkmeter.period AS p
                WHERE p.tenant = own.tenant AND p.period_start <= own.",
            $at,
            " AND p.period_end > own.",
            $at,
            " AND p.period_end <= $1 AND p.finalized_at IS NOT NULL
                OFFSET 0)"
        )
    };
}

/// Whoever waits to be charged may have been credited before, which is looked for among what was not moved.
macro_rules! does_not_wait {
    () => {
        "NOT EXISTS (
            SELECT FROM talkmeter.waiting_unit AS w
            WHERE w.tenant = own.tenant AND w.conversation = own.conversation AND w.part = own.part
            OFFSET 0)"
    };
}

macro_rules! pass {
    ($unit:literal, $table:literal, $is_old:expr, $but:expr) => {
        Pass {
            unit: $unit,
            count: concat!("SELECT count(*) FROM ONLY talkmeter.", $table, " AS own WHERE ", $is_old),
            next: concat!(
                "SELECT DISTINCT own.tenant, own.conversation FROM ONLY talkmeter.",
                $table,
                " AS own WHERE (own.tenant, own.conversation) >= ($2, $3) AND ",
                $is_old,
                " ORDER BY own.tenant, own.conversation LIMIT $4"
            ),
            go: concat!(
                "WITH moved AS (
                    DELETE FROM ONLY talkmeter.",
                $table,
                " AS own
                    USING unnest($2::text[], $3::text[]) AS wanted (tenant, conversation)
                    WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND ",
                $is_old,
                $but,
                " RETURNING own.*
                )
                INSERT INTO talkmeter_archive.",
                $table,
                " SELECT * FROM moved"
            ),
        }
    };
}

const PASSES: [Pass; 3] = [
    pass!(
        "parts",
        "ended_part",
        is_closed!("ended_at"),
        concat!(" AND (own.charged_at IS NULL OR ", is_closed!("charged_at"), ") AND ", does_not_wait!())
    ),
    // A part whose charge is credited may be open yet, and must not be charged again; one that is held may be voided.
    pass!(
        "charges",
        "charge",
        "EXISTS (
            SELECT FROM talkmeter.period AS p
            WHERE p.tenant = own.tenant AND p.period_start = own.posted_period_start
                AND p.period_end = own.posted_period_end AND p.period_end <= $1 AND p.finalized_at IS NOT NULL
            OFFSET 0)",
        concat!(
            " AND NOT EXISTS (
                SELECT FROM talkmeter.conversation AS c
                WHERE c.tenant = own.tenant AND c.conversation = own.conversation AND c.current_part = own.part
                OFFSET 0)
            AND ",
            does_not_wait!()
        )
    ),
    pass!("marks", "marked", is_closed!("occurred_at"), ""),
];

/// An archive on its way.
struct Archive {
    before: Instant,
    batch: usize,
    /// What is still to be done, the present pass first.
    passes: &'static [Pass],
    /// The tenant and the id from which on it has not looked yet. Both may be empty: so a pass begins.
    from: (String, String),
    progress: Option<Progress>,
}

impl Archive {
    fn begin(&mut self, connection: &Connection) -> bool {
        journal::note(connection, "archive", None, json!({"before": journal::time(self.before)}), None);
        true
    }

    /// Moves the rows of some conversations, and says whether there may be more.
    fn go_on(&mut self, connection: &Connection) -> bool {
        let [pass, rest @ ..] = self.passes else { return false };
        self.show(connection, pass);
        let mut conversations = Conversations::begin();
        let keys = self.next(connection, pass);
        let Some((last_tenant, last_id)) = keys.last() else {
            (self.passes, self.from, self.progress) = (rest, Default::default(), None);
            return !rest.is_empty();
        };
        // The next id there can be: no text holds a byte of zero.
        self.from = (last_tenant.clone(), format!("{last_id}\u{1}"));
        let borrowed: Vec<_> = keys.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
        let free = conversations.lock_free(connection, &borrowed);
        locks::ledger_and_archive_for_writing();
        locks::for_writing(&[c"talkmeter_archive.marked"]);
        // What is about to leave is read as it is.
        let away = Away::by_now();
        let free = free.iter().map(|index| borrowed[*index]);
        let (tenants, ids): (Vec<&str>, Vec<&str>) = free.filter(|(tenant, _)| !away.has(tenant)).unzip();
        let moved = connection.run(pass.go, &[self.before(), arg(tenants), arg(ids)]).count();
        self.progress.iter_mut().for_each(|progress| progress.advance(moved));
        true
    }

    fn show(&mut self, connection: &Connection, pass: &Pass) {
        match &self.progress {
            Some(progress) => progress.again(),
            None => {
                let total: i64 = connection.run(pass.count, &[self.before()]).only().value();
                self.progress = Some(Progress::begin("archive", pass.unit, total as usize));
            }
        }
    }

    /// The next conversations that have something to be moved, in key order.
    fn next(&self, connection: &Connection, pass: &Pass) -> Vec<(String, String)> {
        let args = [self.before(), arg(self.from.0.as_str()), arg(self.from.1.as_str()), arg(self.batch as i64)];
        connection.run(pass.next, &args).iter().map(|mut row| (row.value(), row.value())).collect()
    }

    fn before(&self) -> Arg {
        arg(Timestamp::from(self.before))
    }
}
