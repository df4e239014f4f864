//! With which statements are the rows of an attached table read later? Put together once, when the source is loaded.

use crate::pg::relation::{self, Relation, TableColumn, quoted};
use crate::pg::row::Reader;
use pgrx::prelude::*;
use talkmeter_engine::mapping::epoch::Epoch;
use talkmeter_engine::mapping::{Class, Mapping};

/// How the rows of an attached table are read later: by its owner, whose rights suffice and whose code may run.
#[derive(Debug)]
pub struct SourceQuery {
    pub owner: pg_sys::Oid,
    pub table: pg_sys::Oid,
    /// Schema and name, quoted, as the statements have them.
    pub name: String,
    /// The table and its partitions.
    members: Vec<pg_sys::Oid>,
    /// Class of the column that holds the tenant, or the tenant of all rows.
    tenant: Result<Class, String>,
    conversation: Class,
    message: Class,
    /// Reads the rows of few conversations, by index: `ordinal`, the table, then the columns of the mapping's slots.
    pub by_conversation: String,
    /// The same of many: the server chooses between an index and reading the table once.
    pub of_many: String,
    /// The same, with what the audit trail shows of a row after the slots; `None` if that is nothing.
    pub audit: Option<String>,
    /// Reads rows by their message ids: `ordinal`, the table, then the columns of the mapping's slots.
    pub by_message: String,
    /// Names the conversations that have rows within a span of time: 0, the table, tenant and id.
    pub conversations: String,
    /// Reads the first rows: 0, the table, then the columns of the mapping's slots.
    pub first: String,
}

/// Rows that a dry run of `attach` shows.
const SHOWN: u32 = 20;

impl SourceQuery {
    /// For a table that was attached with this mapping; `None` if a column is not among those of the table. `readers`
    /// and `columns` are the table's own, `audit` the numbers of the columns of the audit trail.
    pub fn of(
        table: pg_sys::Oid,
        relation: &Relation,
        mapping: &Mapping,
        readers: &[Reader],
        audit: &[Option<i16>; 4],
        columns: &[TableColumn],
    ) -> Option<SourceQuery> {
        let columns = Columns { mapping, readers, all: columns };
        let words = Words::of(relation, &columns)?;
        Some(SourceQuery {
            owner: relation.owner,
            table,
            name: relation.name.clone(),
            members: relation.member_oids.clone(),
            tenant: match columns.tenant()? {
                Ok(column) => Ok(column.seen.class.clone()),
                Err(constant) => Err(constant.to_owned()),
            },
            conversation: columns.conversation()?.seen.class.clone(),
            message: columns.message()?.seen.class.clone(),
            by_conversation: words.by_conversation(""),
            of_many: words.of_many(),
            audit: audit.iter().any(Option::is_some).then(|| words.by_conversation(&columns.shown(audit))),
            by_message: words.by_message(columns.message()?),
            conversations: words.conversations(),
            first: words.first(columns.message()?),
        })
    }

    /// Locks the table until the transaction ends, so that it is neither changed nor dropped while it is read. False if
    /// the statements do not mean it any more: it has another name or owner since they were made, or is gone.
    pub fn open(&self) -> bool {
        relation::lock_known(self.table, self.owner, &self.name)
    }

    /// Whether rows of that table are the table's own or those of its partitions. A schema may be renamed while the
    /// table is locked, and the statements would then read what has its name.
    pub fn holds(&self, table: pg_sys::Oid) -> bool {
        self.members.contains(&table)
    }

    /// Whether the table's columns can hold a conversation of that tenant and id.
    pub fn can_hold(&self, tenant: &str, conversation: &str) -> bool {
        let of_tenant = match &self.tenant {
            Ok(class) => class.can_hold(tenant),
            Err(constant) => constant == tenant,
        };
        of_tenant && self.conversation.can_hold(conversation)
    }

    /// Whether the table's column can hold that message id.
    pub fn can_hold_message(&self, message: &str) -> bool {
        self.message.can_hold(message)
    }
}

/// The columns that a mapping means, as the table has them now.
struct Columns<'a> {
    mapping: &'a Mapping,
    readers: &'a [Reader],
    all: &'a [TableColumn],
}

impl<'a> Columns<'a> {
    /// The mapping may speak of a column by a name that it had: its number is that of its reader.
    fn now(&self, index: usize) -> Option<&'a TableColumn> {
        let slot = self.mapping.columns.iter().position(|other| *other == index)?;
        self.all.iter().find(|column| column.number == self.readers[slot].number)
    }

    fn tenant(&self) -> Option<Result<&'a TableColumn, &'a str>> {
        match self.mapping.tenant_column() {
            Ok(index) => self.now(index).map(Ok),
            Err(constant) => Some(Err(constant)),
        }
    }

    fn conversation(&self) -> Option<&'a TableColumn> {
        self.now(self.mapping.conversation_column())
    }

    fn message(&self) -> Option<&'a TableColumn> {
        self.now(self.mapping.message_id_column())
    }

    /// The rows of a status table may have no time; those are only read by their ids.
    fn time(&self) -> Option<&'a TableColumn> {
        self.mapping.occurred_at_column().and_then(|index| self.now(index))
    }

    fn scale(&self) -> Scale {
        match (self.mapping.epoch(), &self.mapping.timezone, self.time().map(|column| &column.seen.class)) {
            (Some(epoch), _, Some(Class::Integer { .. })) => Scale::Whole(epoch),
            (Some(epoch), _, Some(Class::Float)) => Scale::Float(epoch),
            (Some(epoch), ..) => Scale::Numeric(epoch),
            (None, Some(zone), _) => Scale::Local(zone.clone()),
            (None, None, _) => Scale::Instant,
        }
    }

    fn of_slots(&self) -> Option<String> {
        let names: Option<Vec<String>> = self.mapping.columns.iter().map(|index| self.now(*index).map(name)).collect();
        Some(names?.join(", "))
    }

    /// What the audit trail shows, as text.
    fn shown(&self, audit: &[Option<i16>; 4]) -> String {
        let shown = |number: &Option<i16>| {
            let column = number.and_then(|number| self.all.iter().find(|column| column.number == number));
            column.map_or(", NULL::text".to_owned(), |column| format!(", CAST({} AS pg_catalog.text)", name(column)))
        };
        audit.iter().map(shown).collect()
    }
}

/// The pieces of which the statements are made. Operators and types are named with their schema: the statements run
/// with the rights of the table's owner, whose objects must not stand in for them.
struct Words {
    table: String,
    selected: String,
    time: String,
    scale: Scale,
    of_conversation: String,
    of_tenant: String,
    /// The names of tenant and conversation as text.
    key: [String; 2],
}

impl Words {
    fn of(relation: &Relation, columns: &Columns) -> Option<Words> {
        let only = if relation.kind == 'p' { "" } else { "ONLY " };
        let (of_tenant, tenant) = match columns.tenant()? {
            Ok(column) => (format!(" AND {}", equals(column, "wanted.tenant")), name(column)),
            Err(constant) => (String::new(), pgrx::spi::quote_literal(constant)),
        };
        let conversation = columns.conversation()?;
        Some(Words {
            table: format!("{only}{} AS message", relation.name),
            selected: columns.of_slots()?,
            time: columns.time().map_or("NULL::timestamptz".to_owned(), name),
            scale: columns.scale(),
            of_conversation: equals(conversation, "wanted.conversation"),
            of_tenant,
            key: [tenant, name(conversation)].map(|name| format!("CAST({name} AS pg_catalog.text)")),
        })
    }

    /// An instant as the time column would hold it, made a little earlier or later: what is read too much is sorted out
    /// again.
    fn bound(&self, instant: &str, side: Side) -> String {
        let wider = side.operator();
        let count = |epoch: Epoch| {
            let per_second = epoch.per_second();
            let since_1970 = format!("pg_catalog.extract('epoch', {instant}) OPERATOR(pg_catalog.*) {per_second}");
            format!("(pg_catalog.floor({since_1970}) OPERATOR(pg_catalog.{wider}) 2)")
        };
        match &self.scale {
            Scale::Instant => instant.to_owned(),
            // A local time may stand for two instants.
            Scale::Local(zone) => {
                let zone = pgrx::spi::quote_literal(zone);
                format!("(pg_catalog.timezone({zone}, {instant}) OPERATOR(pg_catalog.{wider}) interval '1 day')")
            }
            Scale::Numeric(epoch) => count(*epoch),
            Scale::Float(epoch) => format!("CAST({} AS pg_catalog.float8)", count(*epoch)),
            Scale::Whole(epoch) => format!(
                "CASE WHEN pg_catalog.isfinite({instant}) THEN CAST({} AS pg_catalog.int8) ELSE '{}'::pg_catalog.int8 END",
                count(*epoch),
                side.farthest()
            ),
        }
    }

    fn by_conversation(&self, and_shown: &str) -> String {
        let Words { table, selected, time, of_conversation, of_tenant, .. } = self;
        let since = self.bound("wanted.since", Side::From);
        format!(
            "SELECT wanted.ordinal, own.*
            FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY
                AS wanted (tenant, conversation, since, ordinal)
            CROSS JOIN LATERAL (
                SELECT message.tableoid, {selected}{and_shown} FROM {table}
                WHERE {of_conversation}{of_tenant} AND {time} OPERATOR(pg_catalog.>=) {since}
                OFFSET 0
            ) AS own"
        )
    }

    fn of_many(&self) -> String {
        let Words { table, selected, time, of_conversation, of_tenant, .. } = self;
        let since = self.bound("wanted.since", Side::From);
        format!(
            "SELECT wanted.ordinal, message.tableoid, {selected}
            FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY
                AS wanted (tenant, conversation, since, ordinal)
            JOIN {table} ON {of_conversation}{of_tenant} AND {time} OPERATOR(pg_catalog.>=) {since}"
        )
    }

    fn by_message(&self, message: &TableColumn) -> String {
        let Words { table, selected, .. } = self;
        let is_it = equals(message, "wanted.message");
        format!(
            "SELECT wanted.ordinal, own.*
            FROM unnest($1::text[]) WITH ORDINALITY AS wanted (message, ordinal)
            CROSS JOIN LATERAL (SELECT message.tableoid, {selected} FROM {table} WHERE {is_it} OFFSET 0) AS own"
        )
    }

    fn conversations(&self) -> String {
        let Words { table, time, key: [tenant, conversation], .. } = self;
        let (since, until) = (self.bound("$1", Side::From), self.bound("$2", Side::Until));
        format!(
            "SELECT DISTINCT 0::int8, message.tableoid, {tenant}, {conversation} FROM {table}
            WHERE {time} OPERATOR(pg_catalog.>=) {since} AND {time} OPERATOR(pg_catalog.<) {until}"
        )
    }

    fn first(&self, message: &TableColumn) -> String {
        let Words { table, selected, time, .. } = self;
        let id = name(message);
        format!("SELECT 0::int8, message.tableoid, {selected} FROM {table} ORDER BY {time}, {id} LIMIT {SHOWN}")
    }
}

/// What the time column holds.
enum Scale {
    Instant,
    /// Times of this zone.
    Local(String),
    /// Whole numbers that count from 1970, which an index of their type serves.
    Whole(Epoch),
    Numeric(Epoch),
    Float(Epoch),
}

/// Which end of a span of time a bound is.
#[derive(Clone, Copy)]
enum Side {
    From,
    Until,
}

impl Side {
    fn operator(self) -> &'static str {
        match self {
            Side::From => "-",
            Side::Until => "+",
        }
    }

    /// An infinite time as a whole number.
    fn farthest(self) -> i64 {
        match self {
            Side::From => i64::MIN,
            Side::Until => i64::MAX,
        }
    }
}

/// A column as the statements name it.
fn name(column: &TableColumn) -> String {
    format!("message.{}", quoted(&column.seen.name))
}

/// A comparison by the server's own operator, which an index on the column can serve.
fn equals(column: &TableColumn, with: &str) -> String {
    let as_its_type = match column.seen.class {
        Class::Uuid => format!("CAST({with} AS pg_catalog.uuid)"),
        Class::Integer { .. } => format!("CAST({with} AS pg_catalog.int8)"),
        _ => with.to_owned(),
    };
    format!("{} OPERATOR(pg_catalog.=) {as_its_type}", name(column))
}
