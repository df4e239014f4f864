//! Which tables are attached, and how are their rows read?

use crate::catalog::cache::{self, Remembered, watch};
use crate::catalog::source_query::SourceQuery;
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::damaged;
use crate::pg::relation::{self, TableColumn};
use crate::pg::rights::{self, as_owner};
use crate::pg::row::Reader;
use crate::pg::sql::{Connection, Row, Rows, arg, connected};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::rc::Rc;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::check::message_id_alone;
use talkmeter_engine::mapping::{Asked, Class, Column, KeyOrigin, Mapping};
use talkmeter_engine::period::Period;
use talkmeter_engine::status;

thread_local! {
    static REMEMBERED: Remembered<Sources> = Remembered::default();
}

#[derive(Default)]
struct Sources {
    /// By the table on which a trigger fires: the attached one or a partition of it.
    by_relation: HashMap<(pg_sys::Oid, Role), Attachment>,
    by_id: HashMap<i32, Option<Rc<Source>>>,
    /// Every attached message table.
    attached: Option<Rc<[Rc<Source>]>>,
}

/// What a table is attached for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Its rows are events.
    Messages,
    /// Changes of its status column make marks.
    Status,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Messages => "messages",
            Role::Status => "status",
        }
    }
}

/// An attached table, or one of its partitions.
#[derive(Debug)]
pub struct Source {
    pub id: i32,
    /// The attached table itself.
    pub relation: pg_sys::Oid,
    pub role: Role,
    /// Empty for a status table.
    pub policy: String,
    pub default_plan: Option<String>,
    pub strict: bool,
    /// Rows dated before this instant are ignored.
    starts_at: Instant,
    /// While it was detached: rows dated within are ignored too.
    gaps: Vec<Period>,
    pub layout: Layout,
    /// How its rows are read later, or why they cannot be.
    pub query: Result<SourceQuery, String>,
}

impl Source {
    /// Whether a row of that time is no event: it lies before the start, or in a gap (rule 2.7).
    pub fn ignores(&self, at: Instant) -> bool {
        at < self.starts_at || self.gap_at(at).is_some()
    }

    fn gap_at(&self, at: Instant) -> Option<&Period> {
        self.gaps.iter().find(|gap| gap.holds(at))
    }

    /// Why a row of a time that is ignored is no event.
    pub fn ignores_because(&self, at: Instant) -> String {
        let shown = |at: Instant| at.calendar().map(|at| at.to_rfc3339()).unwrap_or_default();
        match self.gap_at(at) {
            Some(Period { start, end }) => format!(
                "The table was detached from {} until {}, and rows dated within are no events.",
                shown(*start),
                shown(*end)
            ),
            None => format!(
                "The table held rows when it was attached, so only rows at or after {} are events.",
                shown(self.starts_at)
            ),
        }
    }
}

/// Where in a row of a source is what the mapping wants?
#[derive(Debug)]
pub enum Layout {
    /// `readers` has one entry per slot of the mapping; `audit` has the numbers of the columns of the audit trail.
    Whole { mapping: Box<Mapping>, readers: Vec<Reader>, audit: [Option<i16>; 4] },
    /// A column that the mapping names is not what it was; the message id is read if it can be.
    Broken { because: String, message_id: Option<IdReader> },
}

/// How to read the message id of a row alone.
#[derive(Clone, Debug)]
pub struct IdReader {
    /// Where it comes from in what the readers read.
    pub origin: KeyOrigin,
    pub readers: Vec<Reader>,
}

impl Layout {
    /// The numbers of the columns that decide what a row is to the meter; `None` if that is not known.
    pub fn columns(&self) -> Option<Vec<i16>> {
        match self {
            Layout::Whole { readers, .. } => Some(readers.iter().map(|reader| reader.number).collect()),
            Layout::Broken { .. } => None,
        }
    }

    /// How to read the message id alone, if it can be read.
    pub fn message_id(&self) -> Option<IdReader> {
        match self {
            Layout::Whole { mapping, readers, .. } => {
                let id = &mapping.message_id;
                let readers = id.slots().iter().map(|slot| readers[*slot].clone()).collect();
                Some(IdReader { origin: id.alone(), readers })
            }
            Layout::Broken { message_id, .. } => message_id.clone(),
        }
    }
}

/// What a table is on which our trigger fires.
#[derive(Clone, Debug)]
pub enum Attachment {
    /// It is attached, or a partition of a table that is.
    Attached(Rc<Source>),
    /// It was a partition when its table was attached, and kept the trigger when it was taken out.
    Former,
    Unknown,
}

/// What the table is on which our trigger fired.
pub fn attachment(relation: pg_sys::Oid, role: Role) -> Attachment {
    let read = || {
        watch(relation);
        as_owner(|| {
            connected(|connection| {
                let args = [arg(relation), arg(role.name())];
                if let Some(source) = load(connection, &connection.run(BY_RELATION, &args), Some(relation)) {
                    return Attachment::Attached(source);
                }
                match connection.run(FORMER, &args).count() {
                    0 => Attachment::Unknown,
                    _ => Attachment::Former,
                }
            })
        })
    };
    REMEMBERED.with(|remembered| {
        remembered.get(
            |kept| kept.by_relation.get(&(relation, role)).cloned(),
            read,
            |kept, found| drop(kept.by_relation.insert((relation, role), found)),
        )
    })
}

/// The source of that id, also if it is detached by now.
pub fn source(id: i32) -> Option<Rc<Source>> {
    let read = || as_owner(|| connected(|connection| load(connection, &connection.run(BY_ID, &[arg(id)]), None)));
    REMEMBERED.with(|remembered| {
        remembered.get(|kept| kept.by_id.get(&id).cloned(), read, |kept, found| drop(kept.by_id.insert(id, found)))
    })
}

/// Every attached message table that is still there.
pub fn attached() -> Rc<[Rc<Source>]> {
    let read = || {
        let ids: Vec<i32> = as_owner(|| {
            connected(|connection| {
                cache::watch_announcements(connection);
                connection.run(ATTACHED, &[]).iter().map(|mut row| row.value()).collect()
            })
        });
        ids.into_iter().filter_map(source).collect()
    };
    REMEMBERED.with(|remembered| {
        remembered.get(|kept| kept.attached.clone(), read, |kept, found| kept.attached = Some(found))
    })
}

macro_rules! select_source {
    ($tail:literal) => {
        concat!(
            "SELECT s.source_id, COALESCE(s.relation::oid, 0), s.policy, s.default_plan, s.strict, s.mapping,
                s.columns, COALESCE(s.relation_origin = talkmeter.origin_of(s.relation), false), s.role, s.starts_at,
                s.detached_at IS NULL
            FROM talkmeter.source AS s ",
            $tail
        )
    };
}

const BY_RELATION: &str = select_source!(
    "WHERE s.relation IN (
        SELECT $1 UNION ALL SELECT a.relid FROM pg_partition_ancestors($1) AS a
    ) AND s.role = $2 AND s.detached_at IS NULL
    LIMIT 1"
);

const BY_ID: &str = select_source!("WHERE s.source_id = $1");

// A table that was detached lost its trigger, so one that fires there was not put there by us.
const FORMER: &str = "
    SELECT FROM talkmeter.source AS s
    WHERE $1::oid::regclass = ANY (s.members) AND s.relation <> $1::oid::regclass AND s.role = $2
        AND s.detached_at IS NULL";

const ATTACHED: &str = "
    SELECT s.source_id
    FROM talkmeter.source AS s
    WHERE s.role = 'messages' AND s.detached_at IS NULL
        AND talkmeter.is_source(s.relation, s.relation_name, s.relation_origin)
    ORDER BY s.source_id";

/// The source of a row of `select_source`, read as it comes from `fires_on`, or from the attached table itself.
fn load(connection: &Connection, rows: &Rows, fires_on: Option<pg_sys::Oid>) -> Option<Rc<Source>> {
    cache::watch_announcements(connection);
    let mut row = rows.first()?;
    let id = row.value();
    let attached: pg_sys::Oid = row.value();
    let policy = row.nullable::<String>().unwrap_or_default();
    let default_plan = row.nullable();
    let strict = row.value();
    let JsonB(mapping) = row.value();
    let JsonB(recorded) = row.value();
    let recorded: Vec<Recorded> = serde_json::from_value(recorded)
        .unwrap_or_else(|error| damaged(format!("columns of source {id} are not as attach wrote them: {error}")));
    let same_table = row.value();
    let role = match row.value::<String>().as_str() {
        "status" => Role::Status,
        _ => Role::Messages,
    };
    let starts_at = row.value::<Timestamp>().bound();
    let is_attached = fires_on.is_none() && row.value();
    let gaps = gaps(connection, id);
    watch(attached);
    let columns = relation::columns(connection, attached);
    let fired = match fires_on.filter(|fires_on| *fires_on != attached) {
        Some(fires_on) => relation::columns(connection, fires_on),
        None => columns.clone(),
    };
    let layout = layout(role, &mapping, &recorded, same_table, &columns, &fired);
    let query = match &layout {
        Layout::Broken { because, .. } => Err(because.clone()),
        Layout::Whole { mapping, readers, audit } if is_attached => {
            match relation::facts(connection, attached, rights::caller()) {
                Some(relation) if has_trigger(connection, attached) => {
                    let query = SourceQuery::of(attached, &relation, mapping, readers, audit, &columns);
                    query.ok_or_else(|| format!("Columns of {} are missing.", relation.name))
                }
                Some(relation) => Err(format!("Table {} has none of talkmeter's triggers.", relation.name)),
                None => Err("The table was dropped.".into()),
            }
        }
        Layout::Whole { .. } => Err("The table is not attached.".into()),
    };
    Some(Rc::new(Source { id, relation: attached, role, policy, default_plan, strict, starts_at, gaps, layout, query }))
}

const GAPS: &str = "SELECT g.from_time, g.until_time FROM talkmeter.source_gap AS g WHERE g.source_id = $1";

fn gaps(connection: &Connection, source: i32) -> Vec<Period> {
    let bound = |row: &mut Row| row.value::<Timestamp>().bound();
    let rows = connection.run(GAPS, &[arg(source)]);
    rows.iter().map(|mut row| Period { start: bound(&mut row), end: bound(&mut row) }).collect()
}

const HAS_TRIGGER: &str = "
    SELECT FROM pg_trigger AS g
    JOIN pg_proc AS f ON f.oid = g.tgfoid
    WHERE g.tgrelid = $1 AND f.pronamespace = 'talkmeter'::regnamespace AND starts_with(f.proname, 'on_')";

/// Whether a trigger of ours is on the table: `attach` put it there, with the leave of the table's owner. Whoever owns
/// the extension may write any table's name into ours, and would read it through us.
fn has_trigger(connection: &Connection, table: pg_sys::Oid) -> bool {
    connection.run(HAS_TRIGGER, &[arg(table)]).count() > 0
}

/// A column as it was when the table was attached. The type is kept by name, because oids do not survive a restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Its name when the table was attached or, later, when it was last swept.
    name: String,
    /// The name by which the mapping speaks of it.
    mapped: String,
    number: i16,
    #[serde(rename = "type")]
    type_name: String,
    message_id: bool,
}

impl Recorded {
    pub fn of(column: &TableColumn, message_id: bool) -> Recorded {
        Recorded {
            name: column.seen.name.clone(),
            mapped: column.seen.name.clone(),
            number: column.number,
            type_name: column.plain_type.clone(),
            message_id,
        }
    }

    /// The column as it is now. In the table that was attached a rename is followed by the number; in one that was
    /// restored from a dump numbers may have moved up, so the name decides.
    fn find<'c>(&self, columns: &'c [TableColumn], same_table: bool) -> Option<&'c TableColumn> {
        let is_it = |column: &&TableColumn| match same_table {
            true => column.number == self.number,
            false => column.seen.name == self.name,
        };
        columns.iter().find(is_it).filter(|column| column.plain_type == self.type_name)
    }
}

// Within the table that was attached the numbers hold, and the names are brought up to date; in a restored one the
// names hold, and oid and numbers are. A mapping that is broken is left as it is.
// Who attaches or detaches a table meanwhile is not waited for.
const RECORD_ANEW: &str = "
    WITH now AS MATERIALIZED (
        SELECT o.source_id, talkmeter.origin_of(o.relation) AS origin,
            jsonb_agg(jsonb_build_object('name', a.attname, 'mapped', kept.mapped, 'number', a.attnum,
                'type', kept.type, 'message_id', kept.message_id) ORDER BY kept.ordinal) AS columns
        FROM talkmeter.source AS o
        CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(o.columns)
            AS (name text, mapped text, number int2, type text, message_id bool)) WITH ORDINALITY
            AS kept (name, mapped, number, type, message_id, ordinal)
        LEFT JOIN pg_attribute AS a
            ON a.attrelid = o.relation AND NOT a.attisdropped AND format_type(a.atttypid, NULL) = kept.type
            AND CASE WHEN o.relation_origin = talkmeter.origin_of(o.relation) THEN a.attnum = kept.number
                ELSE a.attname = kept.name END
        WHERE o.detached_at IS NULL AND talkmeter.is_source(o.relation, o.relation_name, o.relation_origin)
        GROUP BY o.source_id
        HAVING bool_and(a.attnum IS NOT NULL)
    ), changed AS MATERIALIZED (
        SELECT s.source_id, now.columns, now.origin
        FROM talkmeter.source AS s
        JOIN now USING (source_id)
        WHERE s.columns <> now.columns OR s.relation_origin <> now.origin
        FOR UPDATE OF s SKIP LOCKED
    )
    UPDATE talkmeter.source AS s SET columns = changed.columns, relation_origin = changed.origin
    FROM changed
    WHERE s.source_id = changed.source_id";

/// Brings the recorded columns up to date. A dump then holds the names that they have now.
pub fn record_columns_anew(connection: &Connection) {
    if connection.run(RECORD_ANEW, &[]).count() > 0 {
        cache::announce_change(connection);
    }
}

/// A source that was forgotten, because its table is gone.
pub struct Forgotten {
    pub id: i32,
    pub name: String,
    pub was_attached: bool,
}

macro_rules! forget {
    ($condition:literal) => {
        concat!(
            "WITH gone AS MATERIALIZED (
                SELECT s.source_id, s.detached_at IS NULL AS was_attached
                FROM talkmeter.source AS s
                WHERE s.relation IS NOT NULL AND ",
            $condition,
            " FOR UPDATE SKIP LOCKED
            )
            UPDATE talkmeter.source AS s
            SET relation = NULL, members = '{}', detached_at = COALESCE(s.detached_at, clock_timestamp())
            FROM gone
            WHERE s.source_id = gone.source_id
            RETURNING s.source_id, s.relation_name, gone.was_attached"
        )
    };
}

const FORGET_DROPPED: &str = forget!(
    "NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = s.relation) AND COALESCE(s.relation = $1::oid::regclass, true)"
);
const FORGET_NUMBER: &str = forget!(
    "s.relation = $1::oid::regclass AND NOT talkmeter.is_source(s.relation, s.relation_name, s.relation_origin)"
);
// A partition that is gone had the trigger once: its number is nobody's.
const FORGET_MEMBERS: &str = "
    WITH gone AS MATERIALIZED (
        SELECT s.source_id
        FROM talkmeter.source AS s
        WHERE EXISTS (
            SELECT FROM unnest(s.members) AS m (relid)
            WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = m.relid))
        FOR UPDATE SKIP LOCKED
    )
    UPDATE talkmeter.source AS s
    SET members = ARRAY(SELECT m.relid FROM unnest(s.members) AS m (relid) JOIN pg_class AS c ON c.oid = m.relid)
    FROM gone
    WHERE s.source_id = gone.source_id";

/// Forgets the numbers of partitions that were dropped: a dump would hold them, and elsewhere they are other tables'.
pub fn forget_dropped_members(connection: &Connection) {
    if connection.run(FORGET_MEMBERS, &[]).count() > 0 {
        cache::announce_change(connection);
    }
}

/// Detaches the tables that were dropped, or that one of them, and forgets their numbers.
pub fn forget_dropped(connection: &Connection, only: Option<pg_sys::Oid>) -> Vec<Forgotten> {
    forgotten(connection, &connection.run(FORGET_DROPPED, &[arg(only)]))
}

/// Detaches what a table was taken for, of which it has nothing but the number.
pub fn forget_number_of(connection: &Connection, table: pg_sys::Oid) {
    forgotten(connection, &connection.run(FORGET_NUMBER, &[arg(table)]));
}

fn forgotten(connection: &Connection, rows: &Rows) -> Vec<Forgotten> {
    let read = |mut row: Row| Forgotten { id: row.value(), name: row.value(), was_attached: row.value() };
    let all: Vec<Forgotten> = rows.iter().map(read).collect();
    if !all.is_empty() {
        cache::announce_change(connection);
    }
    all
}

/// How to read the rows of the table `fired`, which is the attached one or a partition of it.
fn layout(
    role: Role,
    mapping: &Json,
    recorded: &[Recorded],
    same_table: bool,
    attached: &[TableColumn],
    fired: &[TableColumn],
) -> Layout {
    let mut readable = Vec::new();
    let mut broken = None;
    for column in recorded {
        let now = column.find(attached, same_table);
        // A partition has the columns of its parent by the same names, in an order of its own.
        let found = now.and_then(|now| fired.iter().find(|other| other.seen.name == now.seen.name));
        match found {
            Some(found) => readable.push((column, found)),
            None => {
                broken =
                    Some(format!("Column \"{}\" ({}) was dropped or has another type.", column.name, column.type_name))
            }
        }
    }
    // The mapping speaks of the columns by the names that they had.
    let columns: Vec<_> =
        readable.iter().map(|(column, found)| Column { name: column.mapped.clone(), ..found.seen.clone() }).collect();
    if broken.is_none() {
        let checked = match role {
            Role::Messages => Mapping::check(mapping, &columns),
            Role::Status => status::check(mapping, &columns),
        };
        match checked {
            Ok(mapping) if needs_lost_zone(&mapping, &readable) => {
                let zone = mapping.timezone.unwrap_or_default();
                broken = Some(format!("The server does not know the time zone \"{zone}\" any more."));
            }
            Ok(mapping) => {
                let reader =
                    |(index, asked): (usize, &Asked)| readable[index].1.reader(mapping.timezone.clone(), asked.clone());
                let readers = mapping.slots().map(reader).collect();
                let audit = mapping.audit.columns().map(|index| index.map(|index| readable[index].1.number));
                return Layout::Whole { mapping: Box::new(mapping), readers, audit };
            }
            Err(flaw) => broken = Some(flaw.message),
        }
    }
    let message_id = match role {
        Role::Messages => message_id_alone(mapping, &columns),
        Role::Status => status::message_id_alone(mapping, &columns),
    };
    let message_id = message_id.map(|(origin, slots)| IdReader {
        origin,
        readers: slots.into_iter().map(|index| readable[index].1.reader(None, Asked::default())).collect(),
    });
    Layout::Broken { because: broken.unwrap_or_default(), message_id }
}

/// Whether local times would be read by a zone that the server does not know any more.
fn needs_lost_zone(mapping: &Mapping, readable: &[(&Recorded, &TableColumn)]) -> bool {
    let has_local_times = readable.iter().any(|(_, column)| matches!(column.seen.class, Class::Timestamp));
    has_local_times && mapping.timezone.as_deref().is_some_and(|zone| !clock::is_zone(zone))
}
