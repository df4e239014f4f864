//! What do the books hold of a tenant, and how do the books of another server take it over (rule 4.8)?
//!
//! A row goes as its text, so that its table says what is in it: there and here it is the same, because the versions
//! are. No row of another tenant is taken over, whatever a document says.

use crate::catalog::args::required;
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::locks::{self, Conversations};
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::{Begun, Connection, arg, connected};
use pgrx::prelude::*;
use std::vec::IntoIter;

/// A table with rows of tenants, and what is done with those of one.
pub struct Books {
    pub table: &'static str,
    read: &'static str,
    write: &'static str,
    pub delete: &'static str,
}

/// `ONLY`, because an archive is a table of its own here.
macro_rules! books {
    ($($table:literal),+ $(,)?) => {
        const BOOKS: &[Books] = &[$(Books {
            table: $table,
            read: concat!("SELECT own::text FROM ONLY ", $table, " AS own WHERE own.tenant = $1"),
            write: concat!(
                "INSERT INTO ", $table, " SELECT own.* FROM unnest($2::text[]::", $table, "[]) AS own
                WHERE own.tenant = $1"
            ),
            delete: concat!("DELETE FROM ONLY ", $table, " AS own WHERE own.tenant = $1"),
        }),+];

        /// Of each, whether it has any row.
        const HOLDS: &[&str] =
            &[$(concat!("SELECT FROM ONLY ", $table, " AS own WHERE own.tenant = $1 LIMIT 1")),+];
    };
}

books!(
    "talkmeter.conversation",
    "talkmeter.ended_part",
    "talkmeter_archive.ended_part",
    "talkmeter.marked",
    "talkmeter_archive.marked",
    "talkmeter.account",
    "talkmeter.subscription",
    "talkmeter.period",
    "talkmeter.pack",
    "talkmeter.charge",
    "talkmeter_archive.charge",
    "talkmeter.unplanned_unit",
    "talkmeter.day_units",
    "talkmeter.alert",
    "talkmeter.dispute_count",
    "talkmeter.dispute_filed",
    "talkmeter.statement_line",
    "talkmeter.forgotten_subject",
    "talkmeter.external_count",
    "talkmeter.reconciliation",
);

/// The rows that wait for a tenant's books, and no part of them. What came after the export is of the next document,
/// and is not removed. What comes here is of the clock of here, by which the next document from here will be made.
pub const QUARANTINE: Books = Books {
    table: "talkmeter.quarantined",
    read: "
        SELECT own::text
        FROM talkmeter.quarantined AS own
        JOIN talkmeter.tenant_move AS m ON m.tenant = own.tenant
        WHERE own.tenant = $1 AND own.quarantined_at <= m.exported_at
        ORDER BY own.quarantined_at",
    write: "
        INSERT INTO talkmeter.quarantined (quarantine_id, source_id, message_id, tenant, conversation, occurred_at,
            event, reason, detail, mark_kind, removal, counted, quarantined_at)
        SELECT own.quarantine_id, own.source_id, own.message_id, own.tenant, own.conversation, own.occurred_at,
            own.event, own.reason, own.detail, own.mark_kind, own.removal, own.counted,
            LEAST(own.quarantined_at, clock_timestamp())
        FROM unnest($2::text[]::talkmeter.quarantined[]) AS own
        WHERE own.tenant = $1",
    delete: "
        DELETE FROM talkmeter.quarantined AS own USING talkmeter.tenant_move AS m
        WHERE own.tenant = $1 AND m.tenant = own.tenant AND own.quarantined_at <= m.exported_at",
};

/// All that a document has rows of.
pub fn all() -> impl Iterator<Item = &'static Books> {
    BOOKS.iter().chain([&QUARANTINE])
}

const ARRIVING: &str = "
    SELECT m.exported_at IS NULL FROM talkmeter.tenant_move AS m WHERE m.tenant = $1 AND m.state = 'arriving'";

/// What the first line of a document, and its last, are instead of rows of a table.
pub const HEAD: &str = "move";
pub const END: &str = "end";

/// Locks all tables of the books for writing, until the transaction ends.
pub fn lock_all() {
    Conversations::begin();
    locks::ledger_and_archive_for_writing();
    locks::for_writing(&[
        c"talkmeter_archive.marked",
        c"dispute_count",
        c"dispute_filed",
        c"forgotten_subject",
        c"external_count",
        c"reconciliation",
        c"sweep_failure",
    ]);
}

/// Whether anything is in the books about a tenant.
pub fn hold_any(connection: &Connection, tenant: &str) -> bool {
    HOLDS.iter().any(|holds| connection.run(holds, &[arg(tenant)]).count() > 0)
}

/// Rows of one line.
const ROWS: i64 = 1_000;

/// A line of a document: its number from 1 on, what it is, and what it says.
pub type Line = (i64, String, Vec<String>);

/// The lines of a document, read as they are asked for: there may be more than memory should hold.
pub struct Document {
    tenant: String,
    line: i64,
    /// Told once.
    head: Option<String>,
    left: IntoIter<&'static Books>,
    under_way: Option<(&'static Books, Begun)>,
    has_ended: bool,
}

impl Document {
    pub fn of(tenant: &str, head: String) -> Document {
        let left = all().collect::<Vec<_>>().into_iter();
        Document { tenant: tenant.to_owned(), line: 0, head: Some(head), left, under_way: None, has_ended: false }
    }

    fn next_rows(&mut self) -> Option<(&'static str, Vec<String>)> {
        as_owner(|| {
            connected(|connection| {
                loop {
                    heed_cancel();
                    let (books, begun) = match self.under_way.take() {
                        Some(under_way) => under_way,
                        None => {
                            let books = self.left.next()?;
                            (books, connection.begin(books.read, &[arg(self.tenant.as_str())]))
                        }
                    };
                    let rows = connection.fetch(&begun, ROWS);
                    let content: Vec<String> = rows.iter().map(|mut row| row.value()).collect();
                    if !content.is_empty() {
                        self.under_way = Some((books, begun));
                        return Some((books.table, content));
                    }
                }
            })
        })
    }
}

impl Iterator for Document {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.has_ended {
            return None;
        }
        let (relation, content) = match self.head.take() {
            Some(head) => (HEAD, vec![head]),
            None => self.next_rows().unwrap_or_else(|| {
                self.has_ended = true;
                (END, Vec::new())
            }),
        };
        self.line += 1;
        Some((self.line, relation.to_owned(), content))
    }
}

/// Takes over rows of a table from a document that [is being read](crate::calls::moves).
#[pg_extern(sql = false)]
fn import_rows(tenant: Option<&str>, relation: Option<&str>, content: Option<Vec<Option<String>>>) {
    let (tenant, relation) = (required(tenant, "tenant"), required(relation, "relation"));
    let content = required(content, "content");
    must_write("import_tenant");
    let Some(books) = all().find(|books| books.table == relation) else {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{relation}\" is no table of a tenant's books"),
        )
        .hint("Give the lines as talkmeter.export_tenant returned them.")
        .raise();
    };
    as_owner(|| {
        connected(|connection| {
            // Only within the transaction of an import; where the books are already, what waits is all that is new.
            let is_new = connection.run(ARRIVING, &[arg(tenant)]).first().map(|mut row| row.value::<bool>());
            if is_new.is_none_or(|is_new| !is_new && books.table != QUARANTINE.table) {
                failure(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("no books of tenant \"{tenant}\" are being imported"),
                )
                .hint("Call talkmeter.import_tenant.")
                .raise();
            }
            let rows = content.len();
            if connection.run(books.write, &[arg(tenant), arg(content)]).count() < rows {
                failure(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("not all rows of {relation} are of tenant \"{tenant}\""),
                )
                .hint("Give the lines as talkmeter.export_tenant returned them.")
                .raise();
            }
        });
    });
}
