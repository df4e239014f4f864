//! How does a partition that was added to an attached table come by its triggers? An event trigger has them put there
//! when it is added; what that could not do the next sweep does (rule 2.6.7).

use crate::calls::attach;
use crate::catalog::cache;
use crate::catalog::sources::Role;
use crate::pg::error::damaged;
use crate::pg::relation::statement;
use crate::pg::rights::as_owner_in_haste;
use crate::pg::sql::{Connection, Row, arg, connected};
use pgrx::prelude::*;

/// How long a lock on a partition is waited for, in milliseconds: what it holds up is somebody else's.
const PATIENCE: i32 = 100;

/// A partition that has not all of the triggers that its table has.
pub struct Added {
    source: i32,
    role: Role,
    by_row: bool,
    partition: pg_sys::Oid,
    /// Schema and name, quoted.
    name: String,
}

// The table itself got them from who attached it, and does not get them from anybody else.
const ADDED: &str = "
    SELECT s.source_id, s.role = 'status', s.row_mode, t.relid::oid, format('%I.%I', n.nspname, c.relname)
    FROM talkmeter.source AS s
    CROSS JOIN LATERAL pg_partition_tree(s.relation) AS t
    JOIN pg_class AS c ON c.oid = t.relid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE g.tgrelid = s.relation) AS on_table,
            count(*) FILTER (WHERE g.tgrelid = t.relid) AS on_partition
        FROM pg_trigger AS g
        JOIN pg_proc AS f ON f.oid = g.tgfoid
        WHERE g.tgrelid IN (s.relation, t.relid) AND f.pronamespace = 'talkmeter'::regnamespace
            AND starts_with(f.proname, 'on_') AND starts_with(f.proname, 'on_status_') = (s.role = 'status')
    ) AS own
    WHERE s.detached_at IS NULL AND COALESCE(s.relation = $1::oid::regclass, true) AND t.relid <> s.relation
        AND c.relkind IN ('r', 'p')
        AND own.on_partition < own.on_table AND talkmeter.is_source(s.relation, s.relation_name, s.relation_origin)";

/// The partitions that were added, or those of that table.
pub fn added(connection: &Connection, only: Option<pg_sys::Oid>) -> Vec<Added> {
    let added = |mut row: Row| Added {
        source: row.value(),
        role: if row.value() { Role::Status } else { Role::Messages },
        by_row: row.value(),
        partition: row.value(),
        name: row.value(),
    };
    connection.run(ADDED, &[arg(only)]).iter().map(added).collect()
}

const HAS: &str = "SELECT FROM pg_trigger AS g WHERE g.tgrelid = $1 AND g.tgname = $2::name AND NOT g.tgisinternal";

const KNOWN: &str = "
    UPDATE talkmeter.source AS s SET members = s.members || $2::oid::regclass
    WHERE s.source_id = $1 AND $2::oid::regclass <> ALL (s.members)";

/// Gives a partition the triggers that it lacks.
pub fn adopt(connection: &Connection, added: &Added) {
    let Added { source, role, by_row, partition, name } = added;
    connection.run_once(&statement(&["LOCK TABLE ", name, " IN SHARE ROW EXCLUSIVE MODE"]), false);
    for trigger in attach::triggers_of(*role, *by_row) {
        let has = || connection.run(HAS, &[arg(*partition), arg(trigger.0)]).count() > 0;
        if has() {
            continue;
        }
        attach::create_trigger(connection, trigger, name, *by_row);
        if !has() {
            // Triggers are created by name.
            damaged(format!("{name} is another table than it was a moment ago"));
        }
    }
    connection.run(KNOWN, &[arg(*source), arg(*partition)]);
    cache::announce_change();
}

/// Gives the partitions of an attached table the triggers that they lack. The event trigger calls it within the
/// statement that added one, and lets none of its errors pass.
#[pg_extern(sql = false)]
fn adopt_partitions(source: pg_sys::Oid) {
    as_owner_in_haste(PATIENCE, || {
        connected(|connection| added(connection, Some(source)).iter().for_each(|added| adopt(connection, added)))
    });
}
