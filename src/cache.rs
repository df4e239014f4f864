//! What does this session remember of sources and policies? Nothing that a change elsewhere would not make it forget.

use crate::clock::Timestamp;
use crate::relation::{self, TableColumn};
use crate::rights::as_owner;
use crate::row::Reader;
use crate::source_query::SourceQuery;
use crate::sql::{Connection, Rows, arg, connected};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Column, Mapping};
use talkmeter_engine::policy::{ChargeOn, Policy};
use talkmeter_engine::status;

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
    /// Tables whose changes concern the cache.
    static WATCHED: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
    /// Set by the server when something changed that the cache may hold; looked at before each use.
    static STALE: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Cache {
    /// By the table on which a trigger fires: the attached one or a partition of it.
    by_relation: HashMap<(pg_sys::Oid, Role), Standing>,
    by_id: HashMap<i32, Option<Rc<Source>>>,
    /// Every attached message table.
    attached: Option<Rc<[Rc<Source>]>>,
    policies: Option<Rc<Policies>>,
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
    /// Rows of before are no events.
    pub starts_at: Instant,
    pub reading: Reading,
    /// How its rows are read later; `None` if they cannot be.
    pub history: Option<SourceQuery>,
}

impl Source {
    /// Why a row of before the start is no event.
    pub fn start_in_words(&self) -> String {
        let start = self.starts_at.calendar().map(|start| start.to_rfc3339()).unwrap_or_default();
        format!("The table held rows when it was attached, so only rows at or after {start} are events.")
    }
}

/// How the rows of a source are read.
#[derive(Debug)]
pub enum Reading {
    /// `readers` has one entry per slot of the mapping; `audit` has the numbers of the columns of the audit trail.
    Whole { mapping: Mapping, readers: Vec<Reader>, audit: [Option<i16>; 4] },
    /// A column that the mapping names is not what it was; the message id is read if it can be.
    Broken { because: String, message_id: Option<Reader> },
}

impl Reading {
    /// The numbers of the columns that decide what a row is to the meter; `None` if that is not known.
    pub fn columns(&self) -> Option<Vec<i16>> {
        match self {
            Reading::Whole { readers, .. } => Some(readers.iter().map(|reader| reader.number).collect()),
            Reading::Broken { .. } => None,
        }
    }

    /// How to read the message id alone, if it can be read.
    pub fn message_id(&self) -> Option<&Reader> {
        match self {
            Reading::Whole { mapping, readers, .. } => readers.get(mapping.message_id_slot()),
            Reading::Broken { message_id, .. } => message_id.as_ref(),
        }
    }
}

/// Every version of every policy.
#[derive(Debug, Default)]
pub struct Policies(Vec<(Instant, Arc<Policy>)>);

impl Policies {
    /// The policy that a name means at an instant: `name@version`, or `name` for its newest version in force.
    pub fn in_force(&self, name: &str, at: Instant) -> Option<Arc<Policy>> {
        if let Some((name, version)) = name.split_once('@') {
            return self.version(name, version.parse().ok()?);
        }
        let versions = self.0.iter().filter(|(from, policy)| policy.name == name && *from <= at);
        let newest = versions.max_by_key(|(from, policy)| (*from, policy.version))?;
        Some(Arc::clone(&newest.1))
    }

    pub fn version(&self, name: &str, version: i32) -> Option<Arc<Policy>> {
        let found = self.0.iter().find(|(_, policy)| policy.name == name && policy.version == version)?;
        Some(Arc::clone(&found.1))
    }

    /// Whether a name, with or without a version, means any policy at all.
    pub fn knows(&self, name: &str) -> bool {
        match name.split_once('@') {
            Some((name, version)) => version.parse().is_ok_and(|version| self.version(name, version).is_some()),
            None => self.0.iter().any(|(_, policy)| policy.name == name),
        }
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|(_, policy)| policy.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Asks the server to tell us of changes.
pub fn watch_catalog() {
    // SAFETY: registered once per session, while the library is loaded; the callbacks only set a flag.
    unsafe {
        let nothing = pg_sys::Datum::from(0usize);
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_changed), nothing);
        let enums = pg_sys::SysCacheIdentifier::ENUMOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(enums, Some(on_name_changed), nothing);
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(on_name_changed), nothing);
    }
}

/// A label that a mapping names, or the schema of a table, may have another name now, of which the tables say nothing.
#[pg_guard]
unsafe extern "C-unwind" fn on_name_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    STALE.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let watched = WATCHED.with(|watched| watched.try_borrow().map_or(true, |watched| watched.contains(&relation)));
    if watched || relation == pg_sys::InvalidOid {
        STALE.set(true);
    }
}

/// From now on a change of the relation empties the cache.
fn watch(relation: pg_sys::Oid) {
    WATCHED.with_borrow_mut(|watched| {
        watched.insert(relation);
    });
}

/// Tells every session, once this transaction commits, that sources or policies have changed.
pub fn announce_change(connection: &Connection) {
    let table = own_table(connection);
    // SAFETY: sends a message to the other sessions at commit, and to this one now.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
    STALE.set(true);
}

/// The table of ours whose changes stand for those of all that the cache holds.
fn own_table(connection: &Connection) -> pg_sys::Oid {
    connection.run("SELECT 'talkmeter.source'::regclass::oid", &[]).value(0, 1)
}

fn with_fresh<R>(read: impl FnOnce(&Cache) -> R) -> R {
    if STALE.replace(false) {
        CACHE.set(Cache::default());
    }
    CACHE.with_borrow(read)
}

/// What a table is on which our trigger fires.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is attached, or a partition of a table that is.
    Attached(Rc<Source>),
    /// It was a partition when its table was attached, and kept the trigger when it was taken out.
    Former,
    Unknown,
}

/// What the table is on which our trigger fired.
pub fn standing(relation: pg_sys::Oid, role: Role) -> Standing {
    if let Some(known) = with_fresh(|cache| cache.by_relation.get(&(relation, role)).cloned()) {
        return known;
    }
    watch(relation);
    let found = as_owner(|| {
        connected(|connection| {
            let args = [arg(relation), arg(role.name())];
            if let Some(source) = load(connection, &connection.run(BY_RELATION, &args), Some(relation)) {
                return Standing::Attached(source);
            }
            match connection.run(FORMER, &args).count() {
                0 => Standing::Unknown,
                _ => Standing::Former,
            }
        })
    });
    CACHE.with_borrow_mut(|cache| cache.by_relation.insert((relation, role), found.clone()));
    found
}

/// The source of that id, also if it is detached by now.
pub fn source(id: i32) -> Option<Rc<Source>> {
    if let Some(known) = with_fresh(|cache| cache.by_id.get(&id).cloned()) {
        return known;
    }
    let found = as_owner(|| connected(|connection| load(connection, &connection.run(BY_ID, &[arg(id)]), None)));
    CACHE.with_borrow_mut(|cache| cache.by_id.insert(id, found.clone()));
    found
}

/// Every attached message table that is still there.
pub fn attached() -> Rc<[Rc<Source>]> {
    if let Some(known) = with_fresh(|cache| cache.attached.clone()) {
        return known;
    }
    let ids: Vec<i32> = as_owner(|| {
        connected(|connection| {
            watch(own_table(connection));
            let rows = connection.run(ATTACHED, &[]);
            (0..rows.count()).map(|row| rows.value(row, 1)).collect()
        })
    });
    let found: Rc<[Rc<Source>]> = ids.into_iter().filter_map(source).collect();
    CACHE.with_borrow_mut(|cache| cache.attached = Some(Rc::clone(&found)));
    found
}

/// Every policy.
pub fn policies() -> Rc<Policies> {
    if let Some(known) = with_fresh(|cache| cache.policies.clone()) {
        return known;
    }
    let found = Rc::new(as_owner(|| {
        connected(|connection| {
            watch(own_table(connection));
            load_policies(connection)
        })
    }));
    CACHE.with_borrow_mut(|cache| cache.policies = Some(Rc::clone(&found)));
    found
}

macro_rules! select_source {
    ($tail:literal) => {
        concat!(
            "SELECT s.source_id, s.relation::oid, s.policy, s.default_plan, s.strict, s.mapping,
                s.columns, s.relation_origin = talkmeter.origin_of(s.relation), s.role, s.starts_at,
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
    JOIN pg_class AS c ON c.oid = s.relation
    WHERE s.role = 'messages' AND s.detached_at IS NULL
    ORDER BY s.source_id";

/// The source of a row of `select_source`, read as it comes from `fires_on`, or from the attached table itself.
fn load(connection: &Connection, rows: &Rows, fires_on: Option<pg_sys::Oid>) -> Option<Rc<Source>> {
    watch(own_table(connection));
    if rows.count() == 0 {
        return None;
    }
    let attached: pg_sys::Oid = rows.value(0, 2);
    let JsonB(mapping) = rows.value(0, 6);
    let JsonB(recorded) = rows.value(0, 7);
    let recorded: Vec<Recorded> = serde_json::from_value(recorded).expect("columns as attach wrote them");
    let same_table = rows.value::<bool>(0, 8);
    let role = match rows.value::<String>(0, 9).as_str() {
        "status" => Role::Status,
        _ => Role::Messages,
    };
    watch(attached);
    let columns = relation::columns(connection, attached);
    let fired = match fires_on.filter(|fires_on| *fires_on != attached) {
        Some(fires_on) => relation::columns(connection, fires_on),
        None => columns.clone(),
    };
    let reading = reading(role, &mapping, &recorded, same_table, &columns, &fired);
    let is_attached = fires_on.is_none() && rows.value::<bool>(0, 11);
    let history = match &reading {
        Reading::Whole { mapping, readers, audit } if is_attached => {
            SourceQuery::of(connection, attached, mapping, readers, audit, &columns)
        }
        _ => None,
    };
    Some(Rc::new(Source {
        id: rows.value(0, 1),
        relation: attached,
        role,
        policy: rows.get(0, 3).unwrap_or_default(),
        default_plan: rows.get(0, 4),
        strict: rows.value(0, 5),
        starts_at: rows.value::<Timestamp>(0, 10).bound(),
        reading,
        history,
    }))
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

// Within the table that was attached the numbers hold, and the names are brought up to date; in a restored one the names
// hold, and oid and numbers are. A mapping that is broken is left as it is.
const RECORD_ANEW: &str = "
    UPDATE talkmeter.source AS s SET columns = now.columns, relation_origin = now.origin
    FROM (
        SELECT o.source_id, talkmeter.origin_of(o.relation) AS origin, jsonb_agg(jsonb_build_object('name', a.attname, 'mapped', kept.mapped,
            'number', a.attnum, 'type', kept.type, 'message_id', kept.message_id) ORDER BY kept.place) AS columns
        FROM talkmeter.source AS o
        CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(o.columns)
            AS (name text, mapped text, number int2, type text, message_id bool)) WITH ORDINALITY
            AS kept (name, mapped, number, type, message_id, place)
        LEFT JOIN pg_attribute AS a
            ON a.attrelid = o.relation AND NOT a.attisdropped AND format_type(a.atttypid, NULL) = kept.type
            AND CASE WHEN o.relation_origin = talkmeter.origin_of(o.relation) THEN a.attnum = kept.number ELSE a.attname = kept.name END
        WHERE o.detached_at IS NULL
        GROUP BY o.source_id
        HAVING bool_and(a.attnum IS NOT NULL)
    ) AS now
    WHERE s.source_id = now.source_id AND (s.columns <> now.columns OR s.relation_origin <> now.origin)";

/// Brings what is recorded of the columns up to date, so that a dump of today follows the renames of before.
pub fn record_columns_anew(connection: &Connection) {
    if connection.run(RECORD_ANEW, &[]).count() > 0 {
        announce_change(connection);
    }
}

/// How to read the rows of the table `fired`, which is the attached one or a partition of it.
fn reading(
    role: Role,
    mapping: &Json,
    recorded: &[Recorded],
    same_table: bool,
    attached: &[TableColumn],
    fired: &[TableColumn],
) -> Reading {
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
    if broken.is_none() {
        // The mapping speaks of the columns by the names that they had.
        let columns: Vec<_> = readable
            .iter()
            .map(|(column, found)| Column { name: column.mapped.clone(), ..found.seen.clone() })
            .collect();
        let checked = match role {
            Role::Messages => Mapping::check(mapping, &columns),
            Role::Status => status::check(mapping, &columns),
        };
        match checked {
            Ok(mapping) => {
                let reader = |index: &usize| readable[*index].1.reader(mapping.timezone.clone());
                let readers = mapping.columns.iter().map(reader).collect();
                let audit = mapping.audit.columns().map(|index| index.map(|index| readable[index].1.number));
                return Reading::Whole { mapping, readers, audit };
            }
            Err(flaw) => broken = Some(flaw.message),
        }
    }
    let message_id = readable.iter().find(|(column, _)| column.message_id).map(|(_, found)| found.reader(None));
    Reading::Broken { because: broken.unwrap_or_default(), message_id }
}

const POLICIES: &str = "
    SELECT p.name, p.version, p.effective_from, p.starts_on, p.ends_on,
        (extract(epoch FROM p.idle_timeout) * 1000000)::int8, (extract(epoch FROM p.quiet_review_after) * 1000000)::int8,
        p.turn_limit, p.charge_on, p.staff_reply_blocks, p.error_before_reply_waives, p.exclude_prefixes
    FROM talkmeter.policy AS p";

fn load_policies(connection: &Connection) -> Policies {
    let rows = connection.run(POLICIES, &[]);
    let kinds = |row, column| {
        let names: Vec<String> = rows.value(row, column);
        names.iter().filter_map(|name| Kind::named(name)).collect()
    };
    let policies = (0..rows.count()).map(|row| {
        let policy = Policy {
            name: rows.value(row, 1),
            version: rows.value(row, 2),
            starts_on: kinds(row, 4),
            ends_on: kinds(row, 5),
            idle_timeout: rows.get(row, 6),
            quiet_review_after: rows.get(row, 7),
            turn_limit: rows.get(row, 8),
            charge_on: ChargeOn::named(&rows.value::<String>(row, 9)).expect("checked by the table"),
            staff_reply_blocks: rows.value(row, 10),
            error_before_reply_waives: rows.value(row, 11),
            exclude_prefixes: rows.value(row, 12),
        };
        (rows.value::<Timestamp>(row, 3).bound(), Arc::new(policy))
    });
    Policies(policies.collect())
}
