//! How does a table of the application's come to be metered, and how does that end (rule 2)?

use crate::calls::backfill_run;
use crate::calls::journal;
use crate::calls::remap::{self, Given};
use crate::capture::quarantine::{self, Leaving};
use crate::catalog::args::required;
use crate::catalog::away::Away;
use crate::catalog::cache;
use crate::catalog::offers::{self, known_policy};
use crate::catalog::reading;
use crate::catalog::source_query::{Selected, SourceQuery};
use crate::catalog::sources::{self, Layout, Recorded, Role, Source};
use crate::meter::commit;
use crate::pg::clock::{self, Timestamp};
use crate::pg::document;
use crate::pg::error::{Failure, failure};
use crate::pg::locks;
use crate::pg::relation::{self, Relation, TableColumn, statement};
use crate::pg::rights::{self, as_owner};
use crate::pg::row::Reader;
use crate::pg::settings;
use crate::pg::sql::{Connection, arg, connected};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::{AnyElement, JsonB};
use serde_json::{Value as Json, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Column, KeyOrigin, Mapping, Reading, Readings, Refusal};
use talkmeter_engine::period::Period;
use talkmeter_engine::status;

type PreviewRow =
    (Option<String>, Option<String>, Option<String>, Option<TimestampWithTimeZone>, Option<String>, Option<String>);

/// Meters a message table from now on, or with `dry_run` shows what its newest rows would give.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, clippy::too_many_arguments)]
fn attach(
    source: Option<pg_sys::Oid>,
    policy: Option<&str>,
    mapping: Option<AnyElement>,
    default_plan: Option<&str>,
    dry_run: Option<bool>,
    strict: Option<bool>,
    since: Option<TimestampWithTimeZone>,
    row_mode: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(message_id, Option<String>),
        name!(tenant, Option<String>),
        name!(conversation, Option<String>),
        name!(occurred_at, Option<TimestampWithTimeZone>),
        name!(kind, Option<String>),
        name!(excluded, Option<String>),
    ),
> {
    let source = required(source, "source");
    let policy = required(policy, "policy");
    let mapping = document::value(required(mapping, "mapping"), "mapping");
    let (dry_run, strict) = (required(dry_run, "dry_run"), required(strict, "strict"));
    let by_row = required(row_mode, "row_mode");
    let relation = owned_table(source);
    no_foreign_partition_by_statement(&relation, by_row);
    let columns = as_owner(|| relation::columns(source));
    known_policy(policy);
    if let Some(plan) = default_plan {
        offers::known_plan(plan);
    }
    let since = since.map(|since| not_after_now(Timestamp::from(since).bound()));
    let checked = check(source, &relation, &mapping, &columns);
    if dry_run {
        return TableIterator::new(preview(source, &relation, &checked, &columns));
    }
    let how = How { role: Role::Messages, policy: Some(policy), default_plan, strict, since, by_row };
    meter(source, &relation, &checked, &columns, mapping, &how);
    if !as_owner(|| connected(|connection| is_indexed(connection, source, &checked, &columns))) {
        warn_of_missing_index(&relation, &checked, &columns);
    }
    if relation.unlogged {
        warn_of_crashes(&relation);
    }
    TableIterator::new(Vec::new())
}

/// Maps an attached message table anew, for rows of `since` or later, or with `dry_run` says what that would do.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, clippy::too_many_arguments)]
fn remap(
    source: Option<pg_sys::Oid>,
    mapping: Option<AnyElement>,
    policy: Option<&str>,
    default_plan: Option<&str>,
    strict: Option<bool>,
    since: Option<TimestampWithTimeZone>,
    dry_run: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(before, Option<String>),
        name!(after, Option<String>),
        name!(rows, Option<i64>),
        name!(conversations, Option<i64>),
        name!(parts, Option<i64>),
        name!(charges, Option<i64>),
    ),
> {
    let source = required(source, "source");
    let mapping = document::value(required(mapping, "mapping"), "mapping");
    let dry_run = required(dry_run, "dry_run");
    let relation = owned_table(source);
    let columns = as_owner(|| relation::columns(source));
    policy.into_iter().for_each(known_policy);
    default_plan.into_iter().for_each(offers::known_plan);
    let since = since.map(|since| not_after_now(Timestamp::from(since).bound()));
    let checked = check(source, &relation, &mapping, &columns);
    metering_is_on();
    as_owner(|| Away::by_now().nobody_moves());
    // What was noted by the mapping of before is folded by it.
    commit::work();
    let before = as_owner(|| connected(|connection| locked_source(connection, source, &relation)));
    let given = Given {
        mapping,
        columns: recorded(&checked, &columns),
        policy: policy.unwrap_or(before.policy()),
        default_plan: default_plan.or(before.default_plan.as_deref()),
        strict: strict.unwrap_or(before.strict),
        since,
    };
    if dry_run {
        return TableIterator::new(remap::dry(&before, &given));
    }
    remap::remap(&before, &relation.name, &given);
    TableIterator::new(Vec::new())
}

/// Refuses what meters while that is switched off.
pub fn metering_is_on() {
    if !settings::ENABLED.get() {
        failure(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "metering is off")
            .hint("Set talkmeter.enabled to on.")
            .raise();
    }
}

fn not_after_now(since: Instant) -> Instant {
    if since > clock::now() {
        failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "\"since\" is in the future")
            .hint("Give an instant that has passed, or none: then it is that of the oldest row that waits.")
            .raise();
    }
    since
}

/// The source of an attached message table, which is locked against writing, until the transaction ends: nobody adds a
/// row that another mapping reads.
fn locked_source(connection: &Connection, source: pg_sys::Oid, relation: &Relation) -> Rc<Source> {
    let lock = statement(&["LOCK TABLE ", &relation.name, " IN SHARE ROW EXCLUSIVE MODE"]);
    connection.run_once(&lock, false);
    still_means(connection, source, relation);
    locks::sources_for_one();
    attached_source(connection, source, relation)
}

/// The source of an attached message table, or an error that says that it is none.
pub fn attached_source(connection: &Connection, source: pg_sys::Oid, relation: &Relation) -> Rc<Source> {
    let id: Option<i32> = connection.run(OF_TABLE, &[arg(source)]).first().map(|mut row| row.value());
    id.and_then(sources::source).unwrap_or_else(|| {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {} is not attached for its messages", relation.name),
        )
        .hint("See talkmeter.sources for those that are; talkmeter.attach attaches it.")
        .raise()
    })
}

const OF_TABLE: &str = "
    SELECT s.source_id FROM talkmeter.source AS s
    WHERE s.relation = $1::oid::regclass AND s.role = 'messages' AND s.detached_at IS NULL";

/// From now on marks a conversation when its status column changes.
#[pg_extern(sql = false)]
fn attach_status(source: Option<pg_sys::Oid>, mapping: Option<AnyElement>) {
    let source = required(source, "source");
    let mapping = document::value(required(mapping, "mapping"), "mapping");
    let relation = owned_table(source);
    no_foreign_partition_by_statement(&relation, false);
    let columns = as_owner(|| relation::columns(source));
    let seen: Vec<Column> = columns.iter().map(|column| column.seen.clone()).collect();
    let checked = status::check(&mapping, &seen).unwrap_or_else(|flaw| Failure::from(flaw).raise());
    if let Some(zone) = &checked.timezone {
        known_zone(zone);
    }
    let how = How { role: Role::Status, policy: None, default_plan: None, strict: false, since: None, by_row: false };
    meter(source, &relation, &checked, &columns, mapping, &how);
}

/// How a table is attached, besides its mapping.
struct How<'a> {
    role: Role,
    policy: Option<&'a str>,
    default_plan: Option<&'a str>,
    strict: bool,
    /// From when on rows that are there already wait for a backfill.
    since: Option<Instant>,
    /// Triggers fire for each row, also while logical replication applies it.
    by_row: bool,
}

/// A trigger of an attached table: its name, when it fires, and what it calls.
pub type TriggerDdl = (&'static str, &'static str, &'static str);

const OF_MESSAGES: [TriggerDdl; 4] = [
    (
        "talkmeter_insert",
        " AFTER INSERT ON ",
        " REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert()",
    ),
    (
        "talkmeter_update",
        " AFTER UPDATE ON ",
        " REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_update()",
    ),
    (
        "talkmeter_delete",
        " AFTER DELETE ON ",
        " REFERENCING OLD TABLE AS talkmeter_old FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_delete()",
    ),
    ("talkmeter_truncate", " AFTER TRUNCATE ON ", " FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate()"),
];

const OF_STATUS: [TriggerDdl; 2] = [
    (
        "talkmeter_status_insert",
        " AFTER INSERT ON ",
        " REFERENCING NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_status_insert()",
    ),
    (
        "talkmeter_status_update",
        " AFTER UPDATE ON ",
        " REFERENCING OLD TABLE AS talkmeter_old NEW TABLE AS talkmeter_new FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_status_update()",
    ),
];

/// PostgreSQL gives those that fire for each row to all partitions by itself, also to those that are added.
const OF_MESSAGES_BY_ROW: [TriggerDdl; 4] = [
    ("talkmeter_insert", " AFTER INSERT ON ", " FOR EACH ROW EXECUTE FUNCTION talkmeter.on_insert()"),
    ("talkmeter_update", " AFTER UPDATE ON ", " FOR EACH ROW EXECUTE FUNCTION talkmeter.on_update()"),
    ("talkmeter_delete", " AFTER DELETE ON ", " FOR EACH ROW EXECUTE FUNCTION talkmeter.on_delete()"),
    ("talkmeter_truncate", " AFTER TRUNCATE ON ", " FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_truncate()"),
];

/// The triggers of a table that is attached for that, for each statement or for each row.
pub fn triggers_of(role: Role, by_row: bool) -> &'static [TriggerDdl] {
    match (role, by_row) {
        (Role::Messages, false) => &OF_MESSAGES,
        (Role::Messages, true) => &OF_MESSAGES_BY_ROW,
        (Role::Status, _) => &OF_STATUS,
    }
}

/// Creates a trigger on a table. One of row mode fires in every session: who applies what was replicated is in replica
/// role.
pub fn create_trigger(connection: &Connection, trigger: &TriggerDdl, table: &str, by_row: bool) {
    let (name, fires, calls) = trigger;
    connection.run_once(&statement(&["CREATE TRIGGER ", name, fires, table, calls]), false);
    if by_row {
        connection.run_once(&statement(&["ALTER TABLE ", table, " ENABLE ALWAYS TRIGGER ", name]), false);
    }
}

/// The triggers to create, each with the table on which: those that PostgreSQL gives to partitions it gives itself, and
/// a foreign table is never told that it was truncated. The table itself comes last: until it has a trigger, no
/// partition of it lacks one.
fn wanted<'a>(relation: &'a Relation, how: &How) -> Vec<(&'a str, &'static TriggerDdl)> {
    let mut wanted = Vec::new();
    for (member, is_foreign) in relation.members.iter().rev() {
        for trigger in triggers_of(how.role, how.by_row) {
            let is_given = trigger.2.starts_with(" FOR EACH ROW") && *member != relation.name;
            if !(is_given || *is_foreign && trigger.1 == " AFTER TRUNCATE ON ") {
                wanted.push((member.as_str(), trigger));
            }
        }
    }
    wanted
}

fn meter(
    source: pg_sys::Oid,
    relation: &Relation,
    checked: &Mapping,
    columns: &[TableColumn],
    mapping: serde_json::Value,
    how: &How,
) {
    as_owner(|| {
        connected(|connection| {
            // Waits for inserts under way, which would otherwise be neither before the start nor metered.
            let lock = statement(&["LOCK TABLE ", &relation.name, " IN SHARE ROW EXCLUSIVE MODE"]);
            connection.run_once(&lock, false);
            still_means(connection, source, relation);
            locks::sources_for_one();
            sources::forget_number_of(connection, source);
            not_attached_twice(connection, source, relation, how.role);
            drop_triggers(connection, source, how.role);
            journal_attach(connection, source, relation, &mapping, how);
            record(connection, source, relation, &mapping, recorded(checked, columns), how);
            let waits = how.since.and_then(|since| wait_since(connection, source, since));
            let wanted = wanted(relation, how);
            wanted.iter().for_each(|(table, trigger)| create_trigger(connection, trigger, table, how.by_row));
            are_on_it(connection, source, &wanted, relation);
            cache::announce_change();
            map_again(connection, source, mapping, recorded(checked, columns), how);
            waits.into_iter().for_each(|span| tell_of_backfill(relation, span));
        })
    });
}

const FIRST_GAP: &str = "
    SELECT s.source_id, s.starts_at,
        (SELECT max(g.until_time) FROM talkmeter.source_gap AS g WHERE g.source_id = s.source_id)
    FROM talkmeter.source AS s
    WHERE s.relation = $1::oid::regclass AND s.role = 'messages' AND s.detached_at IS NULL";

/// Has the rows that are there already, from an instant on, wait for a backfill, and says of which span that is.
fn wait_since(connection: &Connection, source: pg_sys::Oid, since: Instant) -> Option<Period> {
    let rows = connection.run(FIRST_GAP, &[arg(source)]);
    let mut row = rows.first()?;
    let (id, starts_at) = (row.value(), row.value::<Timestamp>().bound());
    let end = row.nullable::<Timestamp>().map_or(starts_at, |last| last.bound().max(starts_at));
    backfill_run::start_earlier(connection, id, since);
    (since < end).then_some(Period { start: since, end })
}

fn tell_of_backfill(relation: &Relation, span: Period) {
    failure(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("rows that {} holds already are not metered yet", relation.name),
    )
    .detail("A function cannot commit between the pieces of such a work; a procedure can.")
    .hint(format!("Once this is committed: {}", backfill_run::call(&relation.name, span, true)))
    .notice();
}

const WAS_MAPPED: &str = "
    SELECT s.source_id FROM talkmeter.source AS s
    WHERE s.relation = $1::oid::regclass AND s.role = 'messages' AND (
        s.mapping <> $2 OR s.policy <> $3 OR s.default_plan IS DISTINCT FROM $4 OR s.strict <> $5)";

/// A table that was attached before goes on by the mapping that it had, or comes by another one (rule 2.11).
fn map_again(connection: &Connection, source: pg_sys::Oid, mapping: Json, columns: JsonB, how: &How) {
    let Some(policy) = how.policy else { return };
    let Some(id) = connection.run(OF_TABLE, &[arg(source)]).first().map(|mut row| row.value()) else { return };
    let args = [arg(source), arg(JsonB(mapping.clone())), arg(policy), arg(how.default_plan), arg(how.strict)];
    let is_other = connection.run(WAS_MAPPED, &args).count() > 0;
    let Some(before) = sources::source(id) else { return };
    if is_other || matches!(before.layout, Layout::Broken { .. }) {
        let (default_plan, strict) = (how.default_plan, how.strict);
        remap::give(connection, &before, &Given { mapping, columns, policy, default_plan, strict, since: None }, None);
    }
}

const REPLACED: &str = "
    SELECT jsonb_build_object('policy', s.policy, 'default_plan', s.default_plan, 'mapping', s.mapping,
        'strict', s.strict, 'starts_at', s.starts_at, 'attached_at', s.attached_at, 'attached_by', s.attached_by,
        'detached_at', s.detached_at)
    FROM talkmeter.source AS s
    WHERE s.relation = $1::oid::regclass AND s.role = $2";

fn journal_attach(connection: &Connection, source: pg_sys::Oid, relation: &Relation, mapping: &Json, how: &How) {
    let rows = connection.run(REPLACED, &[arg(source), arg(how.role.name())]);
    let mut arguments = json!({"source": relation.name, "mapping": mapping});
    if let Some(JsonB(replaced)) = rows.first().map(|mut row| row.value()) {
        arguments["replaced"] = replaced;
    }
    match how.role {
        Role::Status => journal::note(connection, "attach_status", None, arguments, None),
        Role::Messages => {
            arguments["policy"] = json!(how.policy);
            arguments["default_plan"] = json!(how.default_plan);
            arguments["strict"] = json!(how.strict);
            if let Some(since) = how.since {
                arguments["since"] = journal::bound(since);
            }
            if how.by_row {
                arguments["row_mode"] = json!(true);
            }
            journal::note(connection, "attach", None, arguments, None);
        }
    }
}

/// Refuses a table whose name, or that of a partition, means another one since it was looked up: triggers are created
/// by name, with rights that the caller may not have.
fn still_means(connection: &Connection, source: pg_sys::Oid, relation: &Relation) {
    let now = relation::facts(connection, source, rights::caller());
    let is_same = now.is_some_and(|now| now.name == relation.name && now.members == relation.members);
    if !is_same {
        changed_meanwhile(relation);
    }
}

const CREATED: &str = "
    SELECT count(*)
    FROM pg_trigger AS g
    WHERE g.tgrelid IN (SELECT $1 UNION SELECT t.relid FROM pg_partition_tree($1) AS t) AND g.tgname::text = ANY ($2)
        AND NOT g.tgisinternal AND g.tgparentid = 0";

/// Refuses triggers that came to be on another table, because a schema was renamed since the names were verified.
fn are_on_it(connection: &Connection, source: pg_sys::Oid, wanted: &[(&str, &TriggerDdl)], relation: &Relation) {
    let names: Vec<&str> = wanted.iter().map(|(_, (name, ..))| *name).collect();
    let created: i64 = connection.run(CREATED, &[arg(source), arg(names)]).only().value();
    if created != wanted.len() as i64 {
        changed_meanwhile(relation);
    }
}

fn names_of<'a>(key: &KeyOrigin, mapping: &Mapping, columns: &'a [TableColumn]) -> Vec<&'a str> {
    mapping.columns_of(key).into_iter().map(|index| columns[index].seen.name.as_str()).collect()
}

/// The columns that an index must hold to find the rows of one conversation: those of each index that it takes.
fn found_by<'a>(mapping: &Mapping, columns: &'a [TableColumn]) -> Vec<Vec<&'a str>> {
    let names = names_of(&mapping.conversation, mapping, columns);
    match mapping.conversation {
        KeyOrigin::FirstOf(_) => names.into_iter().map(|name| vec![name]).collect(),
        _ => vec![names],
    }
}

/// Whether an index finds the rows of one conversation.
pub fn is_indexed(connection: &Connection, source: pg_sys::Oid, mapping: &Mapping, columns: &[TableColumn]) -> bool {
    let tenant = names_of(&mapping.tenant, mapping, columns).first().copied();
    found_by(mapping, columns).into_iter().all(|names| relation::is_indexed(connection, source, names, tenant))
}

/// A late row makes us read its conversation: without an index, the whole table.
fn warn_of_missing_index(relation: &Relation, mapping: &Mapping, columns: &[TableColumn]) {
    let tenant = names_of(&mapping.tenant, mapping, columns);
    let time = mapping.occurred_at_column().map(|index| columns[index].seen.name.as_str());
    let create = |own: Vec<&str>| {
        let names: Vec<String> = tenant.iter().copied().chain(own).chain(time).map(relation::quoted).collect();
        format!("CREATE INDEX ON {} ({});", relation.name, names.join(", "))
    };
    let statements: Vec<String> = found_by(mapping, columns).into_iter().map(create).collect();
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("no index finds the rows of one conversation in {}", relation.name),
    )
    .detail(
        "When a row is late or changed, its conversation is read again: without an index, by reading the whole table.",
    )
    .hint(statements.join(" "))
    .warn();
}

/// An application that sends its rows again after a crash would be billed for none of them.
fn warn_of_crashes(relation: &Relation) {
    failure(PgSqlErrorCode::ERRCODE_WARNING, format!("table {} is UNLOGGED: a crash empties it", relation.name))
        .detail("What was charged for its rows stays, and rows that come late for their parts are not metered.")
        .hint(format!("If its rows are to outlive a crash: ALTER TABLE {} SET LOGGED.", relation.name))
        .warn();
}

/// The facts of a table that the caller may attach, or an error that says why not.
pub fn owned_table(source: pg_sys::Oid) -> Relation {
    let caller = rights::caller();
    // Asked under a pinned path: a function of the caller's must not answer who owns the table.
    let facts = as_owner(|| connected(|connection| relation::facts(connection, source, caller)));
    let relation = facts.unwrap_or_else(|| {
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, format!("there is no relation of oid {source}")).raise()
    });
    let wrong = |what: &str| {
        failure(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{} cannot be attached", relation.name))
            .detail(format!("It is {what}."))
            .hint("Attach the ordinary or partitioned table into which the application inserts its messages.")
            .raise()
    };
    match relation.kind {
        'r' | 'p' => {}
        'v' => wrong("a view"),
        'm' => wrong("a materialized view"),
        'f' => wrong("a foreign table"),
        _ => wrong("not a table"),
    }
    if relation.temporary {
        wrong("a temporary table");
    }
    if relation.reserved {
        wrong("a table of the system or of talkmeter itself");
    }
    if !relation.owned {
        failure(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {}", relation.name))
            .hint("Call this as the table's owner or as a member of the owning role.")
            .raise();
    }
    relation
}

/// A foreign table has no transition tables, and so no triggers that fire for each statement.
fn no_foreign_partition_by_statement(relation: &Relation, by_row: bool) {
    if !by_row && relation.members.iter().any(|(_, is_foreign)| *is_foreign) {
        failure(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{} cannot be attached", relation.name))
            .detail("It is partitioned, and one of its partitions is a foreign table.")
            .hint("Attach it for its messages with row_mode => true.")
            .raise();
    }
}

fn check(source: pg_sys::Oid, relation: &Relation, mapping: &serde_json::Value, columns: &[TableColumn]) -> Mapping {
    let seen: Vec<Column> = columns.iter().map(|column| column.seen.clone()).collect();
    let checked = Mapping::check(mapping, &seen).unwrap_or_else(|flaw| Failure::from(flaw).raise());
    if let Some(zone) = &checked.timezone {
        known_zone(zone);
    }
    let id = names_of(&checked.message_id, &checked, columns);
    if !as_owner(|| connected(|connection| relation::is_unique(connection, source, &id))) {
        no_unique_index(source, relation, &id);
    }
    checked
}

fn no_unique_index(source: pg_sys::Oid, relation: &Relation, id: &[&str]) -> ! {
    let partition_key = relation.partition_key.iter().map(String::as_str).filter(|column| !id.contains(column));
    let indexed: Vec<_> = id.iter().copied().chain(partition_key).map(relation::quoted).collect();
    let columns = if id.len() == 1 { "column" } else { "columns" };
    let create = format!("CREATE UNIQUE INDEX ON {} ({});", relation.name, indexed.join(", "));
    let (more, hint) = match as_owner(|| connected(|connection| relation::partial_unique(connection, source, id))) {
        Some(partial) => (
            format!(" Index {partial} is partial: it covers some rows only."),
            format!("{create} or name another column, or several, that a whole index makes unique."),
        ),
        None => (String::new(), create),
    };
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("no unique index covers the message id, {columns} \"{}\" of {}", id.join("\", \""), relation.name),
    )
    .detail(format!("Without one a message could be metered twice.{more}"))
    .hint(hint)
    .raise()
}

const ZONE: &str = "SELECT FROM pg_timezone_names AS z WHERE z.name = $1";

fn known_zone(zone: &str) {
    if as_owner(|| connected(|connection| connection.run(ZONE, &[arg(zone)]).count())) == 0 {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("time zone \"{zone}\" is not known"))
            .hint("See pg_timezone_names for those that are.")
            .raise();
    }
}

const ATTACHED: &str = "
    SELECT s.relation::text, s.role
    FROM talkmeter.source AS s
    WHERE s.detached_at IS NULL AND (
        s.relation IN (SELECT $1 UNION ALL SELECT a.relid FROM pg_partition_ancestors($1) AS a)
        OR s.relation IN (SELECT t.relid FROM pg_partition_tree($1) AS t))
    LIMIT 1";

fn not_attached_twice(connection: &Connection, source: pg_sys::Oid, relation: &Relation, role: Role) {
    let rows = connection.run(ATTACHED, &[arg(source)]);
    let Some(mut row) = rows.first() else { return };
    let (through, as_what): (String, String) = (row.value(), row.value());
    let already =
        failure(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("table {} is attached already", relation.name));
    match as_what == role.name() {
        true => already
            .detail(format!("It is metered through {through}."))
            .hint("To change how it is metered, call talkmeter.remap."),
        false => already.detail(format!("It is attached through {through}, for {as_what}.")).hint(
            "A table is one of messages or one of statuses: keep the status of conversations in a table of its own.",
        ),
    }
    .raise()
}

fn recorded(mapping: &Mapping, columns: &[TableColumn]) -> JsonB {
    let mut indexes: Vec<usize> =
        mapping.columns.iter().copied().chain(mapping.audit.columns().into_iter().flatten()).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let id = mapping.columns_of(&mapping.message_id);
    let recorded: Vec<_> =
        indexes.into_iter().map(|index| Recorded::of(&columns[index], id.contains(&index))).collect();
    JsonB(serde_json::to_value(recorded).expect("plain data"))
}

const RECORD: &str = "
    INSERT INTO talkmeter.source AS s (source_id, relation, relation_origin, relation_name, policy, default_plan,
        mapping, columns, strict, starts_at, attached_at, attached_by, members, role, row_mode)
    SELECT (SELECT coalesce(max(o.source_id), 0) + 1 FROM talkmeter.source AS o), $1::oid::regclass,
        talkmeter.origin_of($1::oid::regclass), $9, $2,
        $3, $4, $5, $6, $7, $8, session_user, $10::text[]::regclass[], $11, $12
    ON CONFLICT (relation, role) DO UPDATE
    SET relation_name = excluded.relation_name, attached_at = excluded.attached_at, attached_by = excluded.attached_by,
        members = excluded.members, row_mode = excluded.row_mode, detached_at = NULL,
        -- How messages are mapped is another question, for it has versions.
        relation_origin = CASE s.role WHEN 'status' THEN excluded.relation_origin ELSE s.relation_origin END,
        mapping = CASE s.role WHEN 'status' THEN excluded.mapping ELSE s.mapping END,
        columns = CASE s.role WHEN 'status' THEN excluded.columns ELSE s.columns END";

// What was inserted meanwhile was not metered; a clock that was set back leaves no gap.
const GAP: &str = "
    INSERT INTO talkmeter.source_gap (source_id, from_time, until_time, because)
    SELECT s.source_id, s.detached_at, $3, 'detached'
    FROM talkmeter.source AS s
    WHERE s.relation = $1::oid::regclass AND s.role = $2 AND s.role = 'messages' AND s.detached_at < $3";

fn record(
    connection: &Connection,
    source: pg_sys::Oid,
    relation: &Relation,
    mapping: &Json,
    recorded: JsonB,
    how: &How,
) {
    let now = clock::now();
    let starts_at = match relation::is_empty(connection, source) {
        true => Instant::BEGINNING,
        false => now,
    };
    connection.run(GAP, &[arg(source), arg(how.role.name()), arg(Timestamp::from(now))]);
    connection.run(
        RECORD,
        &[
            arg(source),
            arg(how.policy),
            arg(how.default_plan),
            arg(JsonB(mapping.clone())),
            arg(recorded),
            arg(how.strict),
            arg(Timestamp::from(starts_at)),
            arg(Timestamp::from(now)),
            arg(relation.name.as_str()),
            arg(relation.members.iter().map(|(member, _)| member.as_str()).collect::<Vec<_>>()),
            arg(how.role.name()),
            arg(how.by_row),
        ],
    );
}

/// Rows that a dry run shows.
const SHOWN: usize = 20;

/// How many of the newest rows would be what, and the last of them with the events that each would give. They are read
/// as every other read of the table: with the rights of its owner, whose code may run, and not with those of the
/// caller, who may be a superuser. The caller owns the table or is a member of its owner.
fn preview(source: pg_sys::Oid, relation: &Relation, mapping: &Mapping, columns: &[TableColumn]) -> Vec<PreviewRow> {
    let readers: Vec<Reader> =
        mapping.slots().map(|(index, asked)| columns[index].reader(mapping.timezone.clone(), asked.clone())).collect();
    let query = Selected::of(&[(mapping, &readers, [None; 4])], columns)
        .and_then(|selected| SourceQuery::of(source, relation, mapping, &readers, &selected, columns))
        .expect("checked columns");
    let latest = clock::latest();
    let (mut shown, mut counts) = (Vec::new(), BTreeMap::new());
    let read = reading::newest_rows(&query, &readers, |values| {
        let readings = mapping.readings(values, latest);
        *counts.entry((is_kind(&readings), readings.in_words())).or_default() += 1;
        if shown.len() < SHOWN {
            shown.push(events(&readings));
        }
    });
    if !read {
        changed_meanwhile(relation);
    }
    counted(counts).into_iter().chain(shown.into_iter().rev().flatten()).collect()
}

/// Whether all of a row can be metered; of those of which it cannot, whether another rule would help is seen first.
fn is_kind(readings: &Readings) -> (bool, bool) {
    let refused = readings.iter().any(|reading| reading.refusal.is_some());
    (!refused, readings.row.refusal != Some(Refusal::NoKind))
}

/// A line for each of what rows are, the most frequent first of those that can be metered.
fn counted(counts: BTreeMap<((bool, bool), String), i64>) -> impl IntoIterator<Item = PreviewRow> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|((order, _), rows)| (*order, Reverse(*rows)));
    counts.into_iter().map(|((_, words), rows)| {
        let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        (None, None, None, None, Some(format!("{words}: {rows}")), None)
    })
}

fn changed_meanwhile(relation: &Relation) -> ! {
    failure(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("table {} was changed while it was waited for", relation.name),
    )
    .hint("Try again.")
    .raise()
}

/// A line per event; one line for a row that gives none, with `ignore` or the reason why it would be quarantined.
fn events(readings: &Readings) -> Vec<PreviewRow> {
    let line = |reading: &Reading, kind: String| -> PreviewRow {
        (
            reading.message.as_ref().map(|message| message.text()),
            reading.tenant.as_deref().map(str::to_owned),
            reading.conversation.as_deref().map(str::to_owned),
            reading.at.map(|at| Timestamp::from(at).shown()),
            Some(kind),
            reading.excluded.map(str::to_owned),
        )
    };
    let lines = |reading: &Reading| match reading.refusal {
        _ if reading.ignored => vec![line(reading, "ignore".to_owned())],
        Some(refusal) => vec![line(reading, format!("quarantine: {}", refusal.name()))],
        None => reading.kinds.iter().map(|kind| line(reading, kind.name().to_owned())).collect(),
    };
    readings.iter().flat_map(lines).collect()
}

const DETACH: &str = "
    UPDATE talkmeter.source AS s SET detached_at = $2
    WHERE s.relation = $1::oid::regclass AND s.detached_at IS NULL";

const TRIGGERED: &str = "
    SELECT format('%I', g.tgname), format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_trigger AS g ON g.tgrelid = c.oid
    WHERE c.oid IN (
            SELECT $1 UNION ALL SELECT t.relid FROM pg_partition_tree($1) AS t
            UNION ALL SELECT m::oid FROM talkmeter.source AS s CROSS JOIN unnest(s.members) AS m
            WHERE s.relation = $1::oid::regclass)
        AND NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgfoid IN (
            SELECT p.oid FROM pg_proc AS p
            WHERE p.pronamespace = 'talkmeter'::regnamespace AND starts_with(p.proname, 'on_')
                AND starts_with(p.proname, 'on_status_') = ($2 = 'status'))
    ORDER BY c.oid, g.tgname";

/// Drops the triggers of a role, whatever they are called now. A table whose schema was restored without talkmeter's
/// rows has triggers although it is not attached.
fn drop_triggers(connection: &Connection, source: pg_sys::Oid, role: Role) {
    let rows = connection.run(TRIGGERED, &[arg(source), arg(role.name())]);
    for mut row in rows.iter() {
        let (name, member): (String, String) = (row.value(), row.value());
        connection.run_once(&statement(&["DROP TRIGGER ", &name, " ON ", &member]), false);
    }
}

/// Stops metering a table; what was metered stays.
#[pg_extern(sql = false)]
fn detach(source: pg_sys::Oid) {
    // A table that was dropped has no owner to ask and no trigger to drop: what is left is to forget it.
    if as_owner(|| connected(|connection| forget_dropped(connection, Some(source)))) {
        return;
    }
    let relation = owned_table(source);
    as_owner(|| {
        connected(|connection| {
            let lock = statement(&["LOCK TABLE ", &relation.name, " IN SHARE ROW EXCLUSIVE MODE"]);
            connection.run_once(&lock, false);
            if connection.run(DETACH, &[arg(source), arg(Timestamp::from(clock::now()))]).count() == 0 {
                failure(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("table {} is not attached", relation.name),
                )
                .hint("See talkmeter.sources for those that are.")
                .raise();
            }
            [Role::Messages, Role::Status].into_iter().for_each(|role| drop_triggers(connection, source, role));
            journal::note(connection, "detach", None, json!({"source": relation.name}), None);
            cache::announce_change();
        })
    });
}

/// Detaches the tables that were dropped, or that one of them, and takes their rows out of quarantine, as those of any
/// row that is gone. False if there are none.
pub fn forget_dropped(connection: &Connection, only: Option<pg_sys::Oid>) -> bool {
    locks::for_writing(&[c"quarantined", c"backfill_run"]);
    let all = sources::forget_dropped(connection, only);
    for dropped in &all {
        quarantine::empty(dropped.id, Leaving::Waits);
        backfill_run::forget(connection, dropped.id);
        if dropped.was_attached {
            journal::note(connection, "detach", None, json!({"source": dropped.name, "dropped": true}), None);
        }
    }
    !all.is_empty()
}
