//! Which tables are attached, and how are their rows read?

use crate::catalog::cache::{self, Remembered, watch};
use crate::catalog::source_query::{Selected, SourceQuery};
use crate::catalog::source_rows::{self, Gap, Stored, Version};
use crate::pg::clock;
use crate::pg::error::damaged;
use crate::pg::memory;
use crate::pg::relation::{self, TableColumn};
use crate::pg::rights::{self, as_owner};
use crate::pg::row::Reader;
use crate::pg::sql::{Connection, Row, Rows, arg, connected};
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::check::message_id_alone;
use talkmeter_engine::mapping::versions::Versions;
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
    /// The policies of the versions of its mapping, each with the instant from which on it is in force, the newest
    /// first. Empty for a status table.
    policies: Vec<(Instant, String)>,
    pub default_plan: Option<String>,
    pub strict: bool,
    /// Its triggers fire for each row.
    pub by_row: bool,
    /// Rows dated before this instant are ignored.
    starts_at: Instant,
    /// Rows dated within are ignored too.
    gaps: Vec<Gap>,
    /// Spans that are backfilled now, or were without being charged: units whose instants lie within wait.
    held: Vec<Period>,
    pub layout: Layout,
    is_attached: bool,
    /// The versions of its mapping, of a table with these columns.
    fits: Vec<Fit>,
    columns: Vec<TableColumn>,
    query: OnceCell<Result<Queries, String>>,
}

/// The statements that read a source: those of versions of its mapping that find rows by the same columns are the same.
#[derive(Debug)]
pub struct Queries {
    pub all: Vec<SourceQuery>,
    /// For each version that can be read, the newest first, which of the queries finds its rows.
    of_version: Vec<usize>,
}

impl Queries {
    fn of(all_versions: Vec<SourceQuery>) -> Queries {
        let mut all: Vec<SourceQuery> = Vec::new();
        let mut of_version = Vec::new();
        for query in all_versions {
            let known = all.iter().position(|other| other.finds_as(&query));
            of_version.push(known.unwrap_or(all.len()));
            if known.is_none() {
                all.push(query);
            }
        }
        Queries { all, of_version }
    }

    /// Whether a row that the query of that index found is its to give: another one may find it too.
    pub fn gives(&self, query: usize, version: usize) -> bool {
        self.of_version.get(version) == Some(&query)
    }
}

impl Source {
    /// How its rows are read later, or why they cannot be. Not before somebody reads them: most sessions never do.
    pub fn query(&self) -> Result<&Queries, &String> {
        let query = self.query.get_or_init(|| match &self.layout {
            Layout::Broken { because, .. } => Err(because.clone()),
            Layout::Whole { .. } if self.is_attached => {
                as_owner(|| connected(|connection| queries(connection, self.relation, &self.fits, &self.columns)))
            }
            Layout::Whole { .. } => Err("The table is not attached.".into()),
        });
        query.as_ref()
    }

    /// The policy of parts that a row of that time opens.
    pub fn policy_at(&self, at: Instant) -> &str {
        let in_force = self.policies.iter().find(|(since, _)| *since <= at).or(self.policies.last());
        in_force.map_or("", |(_, policy)| policy)
    }

    /// The instant from which on rows are read by the newest version of the mapping.
    pub fn mapped_since(&self) -> Instant {
        self.policies.first().map_or(Instant::BEGINNING, |(since, _)| *since)
    }

    /// The policy of parts that a row of now opens.
    pub fn policy(&self) -> &str {
        self.policies.first().map_or("", |(_, policy)| policy)
    }

    /// Whether a row of that time is no event: it lies before the start, or in a gap (rule 2.7).
    pub fn ignores(&self, at: Instant) -> bool {
        at < self.starts_at || self.gap_at(at).is_some()
    }

    /// Whether it is because it was detached that a row of that time is no event.
    pub fn was_detached_at(&self, at: Instant) -> bool {
        self.gap_at(at).is_some_and(|gap| gap.is_detached)
    }

    fn gap_at(&self, at: Instant) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.span.holds(at))
    }

    /// Whether a unit of that instant waits for a backfill.
    pub fn holds_back(&self, at: Instant) -> bool {
        self.held.iter().any(|span| span.holds(at))
    }

    /// Why a row of a time that is ignored is no event.
    pub fn ignores_because(&self, at: Instant) -> String {
        let shown = |at: Instant| at.calendar().map(|at| at.to_rfc3339()).unwrap_or_default();
        match self.gap_at(at) {
            Some(Gap { span: Period { start, end }, is_detached: true }) => format!(
                "The table was detached from {} until {}, and rows dated within are no events.",
                shown(*start),
                shown(*end)
            ),
            Some(Gap { span, .. }) => format!(
                "The table held rows when it was attached, and those dated before {} wait for a backfill.",
                shown(span.end)
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
    /// `readers` has one entry per slot of each version of the mapping.
    Whole { mapping: Box<Versions>, readers: Vec<Reader> },
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
                let id = &mapping.newest().message_id;
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
            // A session's first work begins, and may come to hold much before it has a connection.
            memory::keep_reserve();
            // Before it is read: what is announced meanwhile must be heard.
            cache::watch_announcements();
            if let Some(stored) = source_rows::of_relation(relation, role.name()) {
                return Attachment::Attached(load(stored, Some(relation)));
            }
            let args = [arg(relation), arg(role.name())];
            match connected(|connection| connection.run(FORMER, &args).count()) {
                0 => Attachment::Unknown,
                _ => Attachment::Former,
            }
        })
    };
    REMEMBERED.with(|remembered| {
        remembered.get(
            |kept| kept.by_relation.get(&(relation, role)).cloned(),
            read,
            |kept, found| {
                // A partition may have its columns elsewhere than its table.
                if let Attachment::Attached(source) = &found
                    && source.relation == relation
                {
                    kept.by_id.insert(source.id, Some(Rc::clone(source)));
                }
                kept.by_relation.insert((relation, role), found);
            },
        )
    })
}

/// The source of that id, also if it is detached by now.
pub fn source(id: i32) -> Option<Rc<Source>> {
    let read = || {
        as_owner(|| {
            cache::watch_announcements();
            source_rows::of_id(id).map(|stored| load(stored, None))
        })
    };
    REMEMBERED.with(|remembered| {
        remembered.get(|kept| kept.by_id.get(&id).cloned(), read, |kept, found| drop(kept.by_id.insert(id, found)))
    })
}

/// Every attached message table that is still there.
pub fn attached() -> Rc<[Rc<Source>]> {
    let read = || {
        let ids: Vec<i32> = as_owner(|| {
            connected(|connection| {
                cache::watch_announcements();
                connection.run(ATTACHED, &[]).iter().map(|mut row| row.value()).collect()
            })
        });
        ids.into_iter().filter_map(source).collect()
    };
    REMEMBERED.with(|remembered| {
        remembered.get(|kept| kept.attached.clone(), read, |kept, found| kept.attached = Some(found))
    })
}

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

/// The source that is stored so, read as it comes from `fires_on`, or from the attached table itself.
fn load(stored: Stored, fires_on: Option<pg_sys::Oid>) -> Rc<Source> {
    let Stored { id, default_plan, strict, starts_at, is_attached, by_row, gaps, held, .. } = stored;
    let attached = stored.relation.unwrap_or(pg_sys::InvalidOid);
    let same_table = stored.relation.is_some_and(|relation| stored.origin == relation::origin_of(relation));
    let role = match stored.role.as_str() {
        "status" => Role::Status,
        _ => Role::Messages,
    };
    let given: Vec<Given> = stored.versions.into_iter().map(|version| Given::of(id, version)).collect();
    watch(attached);
    let columns = relation::columns(attached);
    let fired = match fires_on.filter(|fires_on| *fires_on != attached) {
        Some(fires_on) => relation::columns(fires_on),
        None => columns.clone(),
    };
    let fits = given.iter().map(|given| fit(role, given, same_table, &columns, &fired)).collect();
    let (layout, fits) = layout(&given, fits);
    let policies = given.into_iter().map(|given| (given.since, given.policy)).collect();
    Rc::new(Source {
        id,
        relation: attached,
        role,
        policies,
        default_plan,
        strict,
        by_row,
        starts_at,
        gaps,
        held,
        layout,
        is_attached,
        fits,
        columns,
        query: OnceCell::new(),
    })
}

/// A version of a mapping.
struct Given {
    /// Rows of this time or later are read by it.
    since: Instant,
    policy: String,
    mapping: Json,
    columns: Vec<Recorded>,
}

impl Given {
    fn of(source: i32, Version { since, policy, mapping, columns }: Version) -> Given {
        Given { since, policy, mapping, columns: recorded(source, columns) }
    }
}

fn recorded(source: i32, columns: Json) -> Vec<Recorded> {
    serde_json::from_value(columns)
        .unwrap_or_else(|error| damaged(format!("columns of source {source} are not as attach wrote them: {error}")))
}

/// The statements that read an attached table, by the versions of its mapping that can be read.
fn queries(
    connection: &Connection,
    attached: pg_sys::Oid,
    fits: &[Fit],
    columns: &[TableColumn],
) -> Result<Queries, String> {
    let relation = relation::facts(connection, attached, rights::caller()).ok_or("The table was dropped.")?;
    if !has_trigger(connection, attached) {
        return Err(format!("Table {} has none of talkmeter's triggers.", relation.name));
    }
    let parts: Vec<_> = fits.iter().map(|fit| (&fit.mapping, fit.readers.as_slice(), fit.audit)).collect();
    let query = |selected: &Selected, fit: &Fit| {
        SourceQuery::of(attached, &relation, &fit.mapping, &fit.readers, selected, columns)
    };
    let all = Selected::of(&parts, columns)
        .and_then(|selected| fits.iter().map(|fit| query(&selected, fit)).collect::<Option<Vec<_>>>());
    all.map(Queries::of).ok_or_else(|| format!("Columns of {} are missing.", relation.name))
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

/// A column as it was when the table was mapped. The type is kept by name, because oids do not survive a restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Its name when the table was attached or, later, when it was last swept.
    name: String,
    /// The name by which the mapping speaks of it.
    mapped: String,
    number: i16,
    #[serde(rename = "type")]
    type_name: String,
    /// What the type means to a mapping, by [`TableColumn::class`].
    class: String,
    message_id: bool,
}

impl Recorded {
    pub fn of(column: &TableColumn, message_id: bool) -> Recorded {
        Recorded {
            name: column.seen.name.clone(),
            mapped: column.seen.name.clone(),
            number: column.number,
            type_name: column.plain_type.clone(),
            class: column.class.clone(),
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
        columns.iter().find(is_it)
    }
}

// Within the table that was attached the numbers hold, and the names are brought up to date; in a restored one the
// names hold, and oid and numbers are. A source of which a version of the mapping is broken is left as it is.
// Who attaches or detaches a table meanwhile is not waited for.
const RECORD_ANEW: &str = "
    WITH version AS (
        SELECT s.source_id, NULL::timestamptz AS since, s.columns FROM talkmeter.source AS s
        UNION ALL
        SELECT e.source_id, e.since, e.columns FROM talkmeter.earlier_mapping AS e
    ), found AS (
        SELECT o.source_id, v.since, talkmeter.origin_of(o.relation) AS origin,
            bool_and(a.attnum IS NOT NULL) AS is_whole,
            jsonb_agg(jsonb_build_object('name', a.attname, 'mapped', kept.mapped, 'number', a.attnum,
                'type', kept.type, 'class', kept.class, 'message_id', kept.message_id) ORDER BY kept.ordinal) AS columns
        FROM talkmeter.source AS o
        JOIN version AS v ON v.source_id = o.source_id
        CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(v.columns)
            AS (name text, mapped text, number int2, type text, class text, message_id bool)) WITH ORDINALITY
            AS kept (name, mapped, number, type, class, message_id, ordinal)
        LEFT JOIN pg_attribute AS a
            ON a.attrelid = o.relation AND NOT a.attisdropped AND talkmeter.class_of(a.atttypid) = kept.class
            AND CASE WHEN o.relation_origin = talkmeter.origin_of(o.relation) THEN a.attnum = kept.number
                ELSE a.attname = kept.name END
        WHERE o.detached_at IS NULL AND talkmeter.is_source(o.relation, o.relation_name, o.relation_origin)
        GROUP BY o.source_id, v.since
    ), now AS MATERIALIZED (
        SELECT f.*, bool_and(f.is_whole) OVER (PARTITION BY f.source_id) AS all_whole FROM found AS f
    ), changed AS MATERIALIZED (
        SELECT s.source_id, now.columns, now.origin
        FROM talkmeter.source AS s
        JOIN now USING (source_id)
        WHERE now.since IS NULL AND now.all_whole AND (s.columns <> now.columns
            OR s.relation_origin <> now.origin OR EXISTS (
            SELECT FROM talkmeter.earlier_mapping AS e
            JOIN now AS own ON own.source_id = e.source_id AND own.since = e.since
            WHERE e.source_id = s.source_id AND e.columns <> own.columns))
        FOR UPDATE OF s SKIP LOCKED
    ), earlier AS (
        UPDATE talkmeter.earlier_mapping AS e SET columns = now.columns
        FROM now
        JOIN changed USING (source_id)
        WHERE e.source_id = now.source_id AND e.since = now.since AND e.columns <> now.columns
    )
    UPDATE talkmeter.source AS s SET columns = changed.columns, relation_origin = changed.origin
    FROM changed
    WHERE s.source_id = changed.source_id";

// A name that another table has by now is left, unless that is attached too: somebody may take it for ours.
const RECORD_NAMES: &str = "
    WITH renamed AS MATERIALIZED (
        SELECT s.source_id, format('%I.%I', n.nspname, c.relname) AS name
        FROM talkmeter.source AS s
        JOIN pg_class AS c ON c.oid = s.relation
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE s.detached_at IS NULL AND s.relation_name <> format('%I.%I', n.nspname, c.relname)
            AND talkmeter.is_source(s.relation, s.relation_name, s.relation_origin)
            AND NOT EXISTS (
                SELECT FROM pg_class AS o
                JOIN pg_namespace AS os ON os.oid = o.relnamespace
                WHERE format('%I.%I', os.nspname, o.relname) = s.relation_name AND NOT EXISTS (
                    SELECT FROM talkmeter.source AS other
                    WHERE other.relation = o.oid AND other.role = s.role AND other.detached_at IS NULL))
        FOR UPDATE OF s SKIP LOCKED
    )
    UPDATE talkmeter.source AS s SET relation_name = renamed.name
    FROM renamed
    WHERE s.source_id = renamed.source_id";

/// Brings the recorded names of tables and columns up to date. A dump then holds those that they have now.
pub fn record_names_anew(connection: &Connection) {
    let tables = connection.run(RECORD_NAMES, &[]).count();
    if connection.run(RECORD_ANEW, &[]).count() + tables > 0 {
        cache::announce_change();
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
        cache::announce_change();
    }
}

/// Detaches the tables that were dropped, or that one of them, and forgets their numbers.
pub fn forget_dropped(connection: &Connection, only: Option<pg_sys::Oid>) -> Vec<Forgotten> {
    forgotten(&connection.run(FORGET_DROPPED, &[arg(only)]))
}

/// Detaches what a table was taken for, of which it has nothing but the number.
pub fn forget_number_of(connection: &Connection, table: pg_sys::Oid) {
    forgotten(&connection.run(FORGET_NUMBER, &[arg(table)]));
}

fn forgotten(rows: &Rows) -> Vec<Forgotten> {
    let read = |mut row: Row| Forgotten { id: row.value(), name: row.value(), was_attached: row.value() };
    let all: Vec<Forgotten> = rows.iter().map(read).collect();
    if !all.is_empty() {
        cache::announce_change();
    }
    all
}

/// How a version of a mapping reads the rows of a table.
#[derive(Debug)]
struct Fit {
    mapping: Mapping,
    readers: Vec<Reader>,
    /// The numbers of the columns of the audit trail.
    audit: [Option<i16>; 4],
}

/// Why a version of a mapping cannot read a table any more.
struct Misfit {
    because: String,
    message_id: Option<IdReader>,
}

/// How the rows are read by the versions of a mapping, given the newest first, and those of them that can be read.
fn layout(given: &[Given], fits: Vec<Result<Fit, Misfit>>) -> (Layout, Vec<Fit>) {
    let mut fits = fits.into_iter();
    let newest = match fits.next() {
        Some(Ok(newest)) => newest,
        Some(Err(Misfit { because, message_id })) => return (Layout::Broken { because, message_id }, Vec::new()),
        None => unreachable!("a source has a mapping"),
    };
    let earlier: Vec<Option<Fit>> = fits.map(Result::ok).collect();
    let mappings = earlier.iter().map(|fit| fit.as_ref().map(|fit| fit.mapping.clone()));
    let since = given[1..].iter().map(|given| given.since);
    let mapping = Versions::of(newest.mapping.clone(), given[0].since, since.zip(mappings).collect());
    let whole: Vec<Fit> = std::iter::once(newest).chain(earlier.into_iter().flatten()).collect();
    let readers = whole.iter().flat_map(|fit| fit.readers.iter().cloned()).collect();
    (Layout::Whole { mapping: Box::new(mapping), readers }, whole)
}

/// How a version of a mapping reads the rows of the table `fired`, which is the attached one or a partition of it.
fn fit(
    role: Role,
    given: &Given,
    same_table: bool,
    attached: &[TableColumn],
    fired: &[TableColumn],
) -> Result<Fit, Misfit> {
    let mut readable = Vec::new();
    let mut broken = None;
    let mut there = Vec::new();
    for column in &given.columns {
        let now = column.find(attached, same_table);
        // A partition has the columns of its parent by the same names, in an order of its own.
        let found = now.and_then(|now| fired.iter().find(|other| other.seen.name == now.seen.name));
        // The mapping speaks of the columns by the names that they had.
        let named = |found: &TableColumn| Column { name: column.mapped.clone(), ..found.seen.clone() };
        there.extend(found.map(|found| (named(found), found)));
        match found.filter(|found| found.class == column.class) {
            Some(found) => readable.push((column, found)),
            None => {
                broken =
                    Some(format!("Column \"{}\" ({}) was dropped or has another type.", column.name, column.type_name))
            }
        }
    }
    let (columns, found): (Vec<_>, Vec<_>) = there.into_iter().unzip();
    let because = match broken {
        Some(because) => because,
        None => match fit_columns(role, &given.mapping, &columns, &readable) {
            Ok(fit) => return Ok(fit),
            Err(because) => because,
        },
    };
    Err(Misfit { because, message_id: id_alone(role, &given.mapping, &columns, &found) })
}

/// How the message id is read whatever the types of its columns are by now, as long as they can be read as text.
fn id_alone(role: Role, mapping: &Json, columns: &[Column], found: &[&TableColumn]) -> Option<IdReader> {
    let readable = columns.iter().zip(found).filter_map(|(column, found)| {
        let (as_text, reader) = found.as_text()?;
        Some((Column { name: column.name.clone(), ..as_text }, reader))
    });
    let (columns, readers): (Vec<Column>, Vec<Reader>) = readable.unzip();
    let (origin, slots) = match role {
        Role::Messages => message_id_alone(mapping, &columns),
        Role::Status => status::message_id_alone(mapping, &columns),
    }?;
    Some(IdReader { origin, readers: slots.into_iter().map(|index| readers[index].clone()).collect() })
}

fn fit_columns(
    role: Role,
    mapping: &Json,
    columns: &[Column],
    readable: &[(&Recorded, &TableColumn)],
) -> Result<Fit, String> {
    let checked = match role {
        Role::Messages => Mapping::check(mapping, columns),
        Role::Status => status::check(mapping, columns),
    };
    let mapping = checked.map_err(|flaw| flaw.message)?;
    if needs_lost_zone(&mapping, readable) {
        let zone = mapping.timezone.unwrap_or_default();
        return Err(format!("The server does not know the time zone \"{zone}\" any more."));
    }
    let reader = |(index, asked): (usize, &Asked)| readable[index].1.reader(mapping.timezone.clone(), asked.clone());
    let readers = mapping.slots().map(reader).collect();
    let audit = mapping.audit.columns().map(|index| index.map(|index| readable[index].1.number));
    Ok(Fit { mapping, readers, audit })
}

/// Whether local times would be read by a zone that the server does not know any more.
fn needs_lost_zone(mapping: &Mapping, readable: &[(&Recorded, &TableColumn)]) -> bool {
    let has_local_times = readable.iter().any(|(_, column)| matches!(column.seen.class, Class::Timestamp));
    has_local_times && mapping.timezone.as_deref().is_some_and(|zone| !clock::is_zone(zone))
}
