//! With which statements are the rows of an attached table read later? Put together once, when the source is loaded.

use crate::catalog::key_columns::{KeyColumns, name};
use crate::pg::clock::Timestamp;
use crate::pg::relation::{self, Relation, TableColumn};
use crate::pg::row::Reader;
use crate::pg::sql::{Arg, arg};
use pgrx::prelude::*;
use std::collections::BTreeSet;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::epoch::Epoch;
use talkmeter_engine::mapping::{Class, KeyOrigin, Mapping};

/// How the rows of an attached table are read later: by its owner, whose rights suffice and whose code may run.
#[derive(Debug)]
pub struct SourceQuery {
    pub owner: pg_sys::Oid,
    pub table: pg_sys::Oid,
    /// Schema and name, quoted, as the statements have them.
    pub name: String,
    /// The table and its partitions.
    members: Vec<pg_sys::Oid>,
    /// A partition of it is a foreign table.
    pub is_far: bool,
    tenant: KeyColumns,
    conversation: KeyColumns,
    message: KeyColumns,
    /// Reads the rows of few conversations, by index: `ordinal`, the table, then the columns of the mapping's slots.
    pub by_conversation: String,
    /// The same of many: the server chooses between an index and reading the table once.
    pub of_many: String,
    /// The same, with what the audit trail shows of a row after the slots; `None` if that is nothing.
    pub audit: Option<String>,
    /// Names the conversations with rows of a customer: 0, the table, tenant and id; `None` if no column names one.
    pub of_customer: Option<String>,
    /// Reads rows by their message ids: `ordinal`, the table, then the columns of the mapping's slots.
    pub by_message: String,
    /// The columns of the mapping's slots.
    selected: String,
    /// Names the conversations that have rows within a span of time: 0, the table, tenant and id.
    pub conversations: String,
    /// Names the next of these conversations in the order of their bytes, after a tenant and an id if they are given,
    /// and at most so many: 0, the table, tenant and id.
    pub next_conversations: String,
    /// Counts these: 0, a table, how many have rows in it.
    pub count_conversations: String,
    /// Reads all rows: 0, the table, then the columns of the mapping's slots.
    pub all_rows: String,
    /// Reads something of the rows within a span of time.
    pub within: String,
    /// Reads the newest rows, the last of them first: 0, the table, then the columns of the mapping's slots.
    pub newest: String,
}

/// Rows that a dry run of `attach` counts.
const NEWEST: u32 = 100_000;

impl SourceQuery {
    /// For a table that was attached with this mapping; `None` if a column is not among those of the table. `readers`
    /// and `columns` are the table's own.
    pub fn of(
        table: pg_sys::Oid,
        relation: &Relation,
        mapping: &Mapping,
        readers: &[Reader],
        selected: &Selected,
        columns: &[TableColumn],
    ) -> Option<SourceQuery> {
        let columns = Columns { mapping, readers, all: columns };
        let words = Words::of(relation, &columns, selected)?;
        Some(SourceQuery {
            owner: relation.owner,
            table,
            name: relation.name.clone(),
            members: relation.member_oids.clone(),
            is_far: relation.members.iter().any(|(_, is_foreign)| *is_foreign),
            by_conversation: words.by_conversation(""),
            of_many: words.of_many(),
            audit: selected.audit.as_ref().map(|shown| words.by_conversation(shown)),
            of_customer: words.of_customer(&selected.customers),
            selected: selected.slots.clone(),
            by_message: words.by_message(),
            conversations: words.conversations(),
            next_conversations: words.next_conversations(),
            count_conversations: words.count_conversations(),
            all_rows: words.all_rows(),
            within: words.only_within(),
            newest: words.newest(),
            tenant: words.tenant,
            conversation: words.conversation,
            message: words.message,
        })
    }

    /// Whether the other finds the rows of conversations by the same columns.
    pub fn keyed_as(&self, other: &SourceQuery) -> bool {
        let by_keys = |query: &SourceQuery| query.by_conversation.replacen(&query.selected, "", 1);
        by_keys(self) == by_keys(other)
    }

    /// As `by_conversation`, and after its slots those that the other selects.
    pub fn by_conversation_with(&self, other: &SourceQuery) -> String {
        let both = format!("message.tableoid, {}, {}", self.selected, other.selected);
        self.by_conversation.replacen(&format!("message.tableoid, {}", self.selected), &both, 1)
    }

    /// Whether the other finds rows by the same columns, in the same way.
    pub fn finds_as(&self, other: &SourceQuery) -> bool {
        self.by_conversation == other.by_conversation
            && self.by_message == other.by_message
            && self.conversations == other.conversations
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
        self.tenant.can_hold(tenant) && self.conversation.can_hold(conversation)
    }

    /// The parameters of `by_conversation` and `audit`: tenant, conversation and since when. Each can be held.
    pub fn of_conversations(&self, wanted: &[(&str, &str, Instant)]) -> Vec<Arg> {
        let since = arg(wanted.iter().map(|(.., since)| Timestamp::from(*since)).collect::<Vec<_>>());
        let tenants = self.tenant.args(wanted.iter().map(|(tenant, ..)| *tenant));
        let conversations = self.conversation.args(wanted.iter().map(|(_, conversation, _)| *conversation));
        std::iter::once(since).chain(tenants).chain(conversations).collect()
    }

    /// Whether the table's columns can hold that message id.
    pub fn can_hold_message(&self, message: &str) -> bool {
        self.message.can_hold(message)
    }

    /// The parameters of `by_message`. Each id can be held.
    pub fn of_messages<'m>(&self, messages: impl Iterator<Item = &'m str>) -> Vec<Arg> {
        self.message.args(messages)
    }
}

/// A version of a mapping with its readers, and the numbers of the columns of the audit trail.
type Version<'a> = (&'a Mapping, &'a [Reader], [Option<i16>; 4]);

/// What the statements select of a row.
pub struct Selected {
    /// The columns of the slots.
    slots: String,
    /// What the audit trail shows, if it shows anything.
    audit: Option<String>,
    /// The columns that name customers, by one version or another.
    customers: Vec<String>,
}

impl Selected {
    /// For the versions of a mapping, the newest first; `None` if a column is not among those of the table.
    pub fn of(versions: &[Version], all: &[TableColumn]) -> Option<Selected> {
        let of = |(mapping, readers, _): &Version| Columns { mapping, readers, all }.of_slots();
        let slots: Option<Vec<String>> = versions.iter().map(of).collect();
        let shows = versions.iter().any(|(.., audit)| audit.iter().any(Option::is_some));
        let shown = || versions.iter().map(|(.., audit)| shown(all, audit)).collect();
        let customer = |(.., [customer, ..]): &Version| {
            let number = (*customer)?;
            all.iter().find(|column| column.number == number).map(name)
        };
        let customers: BTreeSet<String> = versions.iter().filter_map(customer).collect();
        Some(Selected {
            slots: slots?.join(", "),
            audit: shows.then(shown),
            customers: customers.into_iter().collect(),
        })
    }
}

/// The columns of the audit trail, as text.
fn shown(all: &[TableColumn], audit: &[Option<i16>; 4]) -> String {
    let shown = |number: &Option<i16>| {
        let column = number.and_then(|number| all.iter().find(|column| column.number == number));
        column.map_or(", NULL::text".to_owned(), |column| format!(", CAST({} AS pg_catalog.text)", name(column)))
    };
    audit.iter().map(shown).collect()
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

    fn key(&self, key: &KeyOrigin) -> Option<KeyColumns> {
        KeyColumns::of(key, self.mapping, |index| self.now(index))
    }

    /// The times of a row and of its events. The rows of a status table may have none; they are only read by their ids.
    fn times(&self) -> Option<Vec<Time>> {
        let time = |(index, epoch)| {
            let column = self.now(index)?;
            let scale = match (epoch, &self.mapping.timezone, &column.seen.class) {
                (Some(epoch), _, Class::Integer { .. }) => Scale::Whole(epoch),
                (Some(epoch), _, Class::Float) => Scale::Float(epoch),
                (Some(epoch), ..) => Scale::Numeric(epoch),
                (None, Some(zone), Class::Timestamp) => Scale::Local(zone.clone()),
                (None, ..) => Scale::Instant,
            };
            Some(Time { column: name(column), scale })
        };
        self.mapping.time_columns().into_iter().map(time).collect()
    }

    fn of_slots(&self) -> Option<String> {
        let names: Option<Vec<String>> = self.mapping.columns.iter().map(|index| self.now(*index).map(name)).collect();
        Some(names?.join(", "))
    }
}

/// The pieces of which the statements are made. Operators and types are named with their schema: the statements run
/// with the rights of the table's owner, whose objects must not stand in for them.
struct Words {
    table: String,
    selected: String,
    times: Vec<Time>,
    tenant: KeyColumns,
    conversation: KeyColumns,
    message: KeyColumns,
}

impl Words {
    fn of(relation: &Relation, columns: &Columns, selected: &Selected) -> Option<Words> {
        let only = if relation.kind == 'p' { "" } else { "ONLY " };
        Some(Words {
            table: format!("{only}{} AS message", relation.name),
            selected: selected.slots.clone(),
            times: columns.times()?,
            tenant: columns.key(&columns.mapping.tenant)?,
            conversation: columns.key(&columns.mapping.conversation)?,
            message: columns.key(&columns.mapping.message_id)?,
        })
    }

    /// The condition that a row, or an event of it, is of a span of time; of a little more, if need be.
    fn within(&self, since: &str, until: Option<&str>) -> String {
        let each: Vec<String> = self.times.iter().map(|time| time.within(since, until)).collect();
        match each.len() {
            0 => "false".to_owned(),
            1 => each.concat(),
            _ => format!("({})", each.join(" OR ")),
        }
    }

    fn by_conversation(&self, and_shown: &str) -> String {
        let Words { table, selected, .. } = self;
        let (wanted, keys) = self.wanted();
        let is_since = self.within("wanted.since", None);
        format!(
            "SELECT wanted.ordinal, own.*
            FROM {wanted}
            CROSS JOIN LATERAL (
                SELECT message.tableoid, {selected}{and_shown} FROM {table}
                WHERE {keys} AND {is_since}
                OFFSET 0
            ) AS own"
        )
    }

    fn of_many(&self) -> String {
        let Words { table, selected, .. } = self;
        let (wanted, keys) = self.wanted();
        let is_since = self.within("wanted.since", None);
        format!(
            "SELECT wanted.ordinal, message.tableoid, {selected}
            FROM {wanted}
            JOIN {table} ON {keys} AND {is_since}"
        )
    }

    /// The conversations that are wanted, as parameters, and the condition that a row is of one.
    fn wanted(&self) -> (String, String) {
        let Words { tenant, conversation, .. } = self;
        let of_both = conversation.condition("conversation").into_iter().chain(tenant.condition("tenant"));
        let keys = of_both.collect::<Vec<_>>().join(" AND ");
        let lists: Vec<String> = tenant.names("tenant").into_iter().chain(conversation.names("conversation")).collect();
        let params: String = (2..).take(lists.len()).map(|number| format!(", ${number}::text[]")).collect();
        let names = lists.join(", ");
        (format!("unnest($1::timestamptz[]{params}) WITH ORDINALITY AS wanted (since, {names}, ordinal)"), keys)
    }

    fn by_message(&self) -> String {
        let Words { table, selected, message, .. } = self;
        let lists = message.names("message");
        let params: Vec<String> = (1..=lists.len()).map(|number| format!("${number}::text[]")).collect();
        let is_it = message.condition("message").unwrap_or_default();
        format!(
            "SELECT wanted.ordinal, own.*
            FROM unnest({}) WITH ORDINALITY AS wanted ({}, ordinal)
            CROSS JOIN LATERAL (SELECT message.tableoid, {selected} FROM {table} WHERE {is_it} OFFSET 0) AS own",
            params.join(", "),
            lists.join(", ")
        )
    }

    fn conversations(&self) -> String {
        self.conversations_with(&self.within("$1", Some("$2")))
    }

    fn of_customer(&self, customers: &[String]) -> Option<String> {
        let is_it = |column: &String| format!("CAST({column} AS pg_catalog.text) OPERATOR(pg_catalog.=) $1");
        let conditions: Vec<String> = customers.iter().map(is_it).collect();
        (!conditions.is_empty()).then(|| self.conversations_with(&conditions.join(" OR ")))
    }

    fn conversations_with(&self, is_it: &str) -> String {
        let Words { table, tenant, conversation, .. } = self;
        let (tenant, conversation) = (tenant.text(), conversation.text());
        format!(
            "SELECT DISTINCT 0::int8, message.tableoid, CAST({tenant} AS pg_catalog.text), {conversation} FROM {table}
            WHERE {is_it}"
        )
    }

    /// Which rows are of the conversations after one in the order of bytes, and the keys that these are ordered by.
    fn after(&self) -> (String, [String; 2]) {
        let by_bytes = |text: String| format!("CAST({text} AS pg_catalog.text) COLLATE pg_catalog.\"C\"");
        let keys = [by_bytes(self.tenant.text()), by_bytes(self.conversation.text())];
        let is_within = self.within("$1", Some("$2"));
        let is_after = format!("ROW({}) OPERATOR(pg_catalog.>) ROW($3, $4)", keys.join(", "));
        (format!("{is_within} AND ($3::pg_catalog.text IS NULL OR {is_after})"), keys)
    }

    fn next_conversations(&self) -> String {
        let (is_after, [tenant, conversation]) = self.after();
        format!(
            "SELECT DISTINCT 0::int8, message.tableoid, {tenant}, {conversation} FROM {}
            WHERE {is_after} ORDER BY 3, 4 LIMIT $5",
            self.table
        )
    }

    fn count_conversations(&self) -> String {
        let (is_after, [tenant, conversation]) = self.after();
        format!(
            "SELECT 0::int8, own.tableoid, pg_catalog.count(*)
            FROM (SELECT DISTINCT message.tableoid, {tenant}, {conversation} FROM {} WHERE {is_after}) AS own
            GROUP BY own.tableoid",
            self.table
        )
    }

    fn all_rows(&self) -> String {
        format!("SELECT 0::int8, message.tableoid, {} FROM {}", self.selected, self.table)
    }

    fn only_within(&self) -> String {
        format!("SELECT message.tableoid FROM {} WHERE {}", self.table, self.within("$1", Some("$2")))
    }

    fn newest(&self) -> String {
        let Words { table, selected, times, message, .. } = self;
        let time = times.first().map_or("NULL::timestamptz", |time| &time.column);
        let id = message.descending();
        format!("SELECT 0::int8, message.tableoid, {selected} FROM {table} ORDER BY {time} DESC, {id} LIMIT {NEWEST}")
    }
}

/// A column that holds the time of rows, or of an event of theirs.
struct Time {
    column: String,
    scale: Scale,
}

impl Time {
    fn within(&self, since: &str, until: Option<&str>) -> String {
        let column = &self.column;
        let from = format!("{column} OPERATOR(pg_catalog.>=) {}", self.bound(since, Side::From));
        match until {
            None => from,
            Some(until) => format!("{from} AND {column} OPERATOR(pg_catalog.<) {}", self.bound(until, Side::Until)),
        }
    }

    /// An instant as the column would hold it, made a little earlier or later: what is read too much is sorted out
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
