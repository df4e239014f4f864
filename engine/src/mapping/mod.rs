//! Which events does a row of the application give (rule 2.4)?
//!
//! A mapping is data, checked once against the table's columns ([`Mapping::check`]) and then applied to each row
//! ([`Mapping::apply`]). No expression of a user's is ever evaluated.

pub mod check;
pub mod epoch;
pub mod json;
pub mod key;
mod tag;
pub mod versions;

use crate::event::{Event, Kind, Name, Tag};
use crate::instant::Instant;
use crate::mapping::epoch::Epoch;
use crate::mapping::key::Key;
pub use crate::mapping::key::KeyOrigin;
use crate::mapping::tag::TagOrigin;
use crate::order::{MessageId, OrderKey, Position, Rank};
use rust_decimal::Decimal;
use std::borrow::Cow;

/// Tenant, conversation and message ids of more bytes than this are quarantined as `key_too_long` (rule 3.7).
pub const LONGEST_KEY: usize = 512;

/// What a column's type means to a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    Text,
    /// `character(n)`: compared without trailing blanks, no key.
    PaddedText,
    Uuid,
    Integer {
        smallest: i64,
        largest: i64,
    },
    Boolean,
    Numeric,
    Float,
    /// An enum with these labels.
    Enum(Vec<String>),
    /// json or jsonb.
    Json,
    Timestamptz,
    /// A timestamp without zone, which needs `timezone`.
    Timestamp,
    /// A type of which a rule can only ask whether there is a value.
    Other,
}

impl Class {
    /// Whether a column of this class can hold the key of that text.
    pub fn can_hold(&self, key: &str) -> bool {
        match self {
            Class::Text => true,
            Class::Uuid => canonical_uuid(key).as_deref() == Some(key),
            Class::Integer { smallest, largest } => key
                .parse()
                .is_ok_and(|number: i64| (*smallest..=*largest).contains(&number) && number.to_string() == key),
            _ => false,
        }
    }
}

/// A column of the table, as the mapping sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub class: Class,
    /// The type as SQL writes it, for messages.
    pub type_name: String,
}

/// A value of a row, in the form that its column's [`Class`] calls for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    /// Text, padded text without its blanks, a uuid in its canonical form, or an enum's label.
    Text(Cow<'a, str>),
    Integer(i64),
    Boolean(bool),
    Number(Decimal),
    Float(f64),
    /// A text that is longer than any that is asked for: how it begins, at most [`LONGEST_KEY`] bytes of it, and how
    /// many bytes it has.
    Long {
        start: Cow<'a, str>,
        bytes: usize,
    },
    /// What json, or text that is read as json, holds at each of the paths that are asked of it ([`Asked`]).
    Json(Vec<Value<'a>>),
    /// `None` is an infinite time or one that the engine's clock cannot hold.
    Time(Option<Instant>),
    /// There is a value, of a type that is not read.
    Present,
}

/// What of the value of a slot is asked for: nothing else of it need be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of json: steps that lead into it; none for the value itself.
    pub paths: Vec<Vec<String>>,
    /// A text is read as json.
    pub as_json: bool,
    /// The bytes of the longest text that anything is compared with, and at least those of the longest key.
    pub longest: usize,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked { paths: Vec::new(), as_json: false, longest: LONGEST_KEY }
    }
}

/// The beginning of a text, of at most so many bytes, cut at a character.
pub fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Why a row is not metered now (rule 3.7). The row itself is in the application's table; nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NullKey,
    NoKind,
    TimeOutOfRange,
    Future,
    KeyTooLong,
    /// The version of the mapping that is in force at its time cannot be read ([`versions`]).
    MappingBroken,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NullKey => "null_key",
            Refusal::NoKind => "no_kind",
            Refusal::TimeOutOfRange => "time_out_of_range",
            Refusal::Future => "future",
            Refusal::KeyTooLong => "key_too_long",
            Refusal::MappingBroken => "mapping_broken",
        }
    }
}

/// What a row is to the meter, as far as it could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading<'a> {
    pub tenant: Option<Cow<'a, str>>,
    pub conversation: Option<Cow<'a, str>>,
    pub message: Option<MessageId>,
    /// The bytes of tenant, conversation and message id, of those that are longer than keys may be. Their texts above
    /// are cut.
    pub too_long: [Option<usize>; 3],
    pub at: Option<Instant>,
    /// What the `order` column holds: which row of one instant comes first.
    pub sequence: Option<i64>,
    /// A rule says `ignore`: the row is nothing to the meter.
    pub ignored: bool,
    /// The events of that time, in order; empty if no rule matched, if the row is ignored, or if each of its events has
    /// a time of its own.
    pub kinds: &'a [Kind],
    /// Their tags; empty if none has one.
    pub tags: Vec<Option<Tag>>,
    /// Of which event of the row this is: that one alone has this time. 0 are those that have the time of the row, if
    /// others have their own; `None` is the row as a whole.
    pub event: Option<u16>,
    /// The positions of the events in their row, if others of it have times of their own.
    pub positions: &'a [u16],
    /// The `because` of the first `excluded` rule that matched.
    pub excluded: Option<&'a str>,
    /// Why the row cannot be metered, if it cannot.
    pub refusal: Option<Refusal>,
}

impl Reading<'_> {
    /// Whether the row says who asked (rule 5.7).
    pub fn asks(&self) -> bool {
        self.kinds.contains(&Kind::CustomerMessage)
    }

    /// Whether the row says which model answered (rule 5.7).
    pub fn answers(&self) -> bool {
        self.kinds.contains(&Kind::AiReply)
    }

    /// The names of its events, in order.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        let tag = |index: usize| self.tags.get(index).cloned().flatten();
        self.kinds.iter().enumerate().map(move |(index, kind)| Name { kind: *kind, tag: tag(index) })
    }

    /// Its events, in order, if they have a time.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        let (at, excluded) = (self.at, self.excluded.is_some());
        self.names().filter_map(move |name| Some(Event { excluded, ..Event::named(name, at?) }))
    }

    /// Whether its keys and its time are such as an event has, or do not matter (rules 2.4.8, 3.5.11).
    pub fn has_keys(&self) -> bool {
        if self.ignored {
            return true;
        }
        let refused_for_other = matches!(self.refusal, None | Some(Refusal::NoKind | Refusal::Future));
        let needs_time = self.event.is_none() || !self.kinds.is_empty();
        refused_for_other && (self.at.is_some() || !needs_time) && self.too_long == [None; 3]
    }

    /// Events of the row have times of their own: those are refused each for itself, unless the row is as a whole.
    fn leave_own_times(&mut self) {
        let has_keys = self.tenant.is_some() && self.conversation.is_some() && self.message.is_some();
        let is_too_long = self.too_long != [None; 3];
        self.event = (has_keys && !is_too_long).then_some(0);
        self.refusal = match self.refusal {
            _ if !has_keys => Some(Refusal::NullKey),
            _ if is_too_long => Some(Refusal::KeyTooLong),
            _ if self.kinds.is_empty() => None,
            refusal => refusal,
        };
    }

    /// What is wrong with it, where the refusal does not say it all.
    pub fn in_detail(&self) -> Option<String> {
        match self.event {
            None | Some(0) => self.too_long_in_words(),
            Some(_) => Some(format!("It is the event \"{}\", which has a time of its own.", self.names().next()?)),
        }
    }

    /// Which of its keys are too long, and how long they are.
    fn too_long_in_words(&self) -> Option<String> {
        let names = ["tenant", "conversation", "message_id"];
        let long = names.into_iter().zip(self.too_long);
        let words: Vec<String> =
            long.filter_map(|(name, bytes)| Some(format!("\"{name}\" has {} bytes.", bytes?))).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The place of one of these events, by its index. Panics for what is refused: it gives none.
    pub fn place(&self, source: i32, index: usize) -> OrderKey {
        let (Some(at), Some(message), Some(first)) = (self.at, &self.message, self.kinds.first()) else {
            panic!("a row without a time, an id or a kind is refused");
        };
        let rank = Rank { sequence: self.sequence, message, first: *first };
        let position = Position {
            index: self.positions.get(index).copied().unwrap_or(index as u16),
            has_own_time: self.event.is_some_and(|event| event > 0),
        };
        OrderKey::row(at, source, &rank, position)
    }
}

/// What a row is to the meter: its events that have the time of the row, and those that have times of their own, each
/// for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings<'a> {
    pub row: Reading<'a>,
    pub own: Vec<Reading<'a>>,
}

impl<'a> Readings<'a> {
    pub fn iter(&self) -> impl Iterator<Item = &Reading<'a>> {
        std::iter::once(&self.row).chain(&self.own)
    }

    /// The kinds of the row, or why it has none; of an event that has a time of its own, its kind or why it is none.
    pub fn in_words(&self) -> String {
        let of = |reading: &Reading| match reading.refusal {
            _ if reading.ignored => vec!["ignore".to_owned()],
            Some(refusal) => vec![refusal.name().to_owned()],
            None => reading.names().map(|name| name.to_string()).collect(),
        };
        self.iter().flat_map(of).collect::<Vec<_>>().join(", ")
    }

    /// That of an event as [`Reading::event`] tells it, if the row has it.
    pub fn of(&self, event: Option<u16>) -> Option<&Reading<'a>> {
        match event {
            None | Some(0) => Some(&self.row),
            event => self.own.iter().find(|own| own.event == event),
        }
    }
}

/// Where a time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeOrigin {
    pub(crate) slot: usize,
    /// The column counts from 1970.
    pub(crate) epoch: Option<Epoch>,
}

impl TimeOrigin {
    /// The time in a row: `None` if there is none, `Some(None)` if it cannot be metered.
    fn read(self, row: &[Value]) -> Option<Option<Instant>> {
        let time = match (&row[self.slot], self.epoch) {
            (Value::Time(time), _) => *time,
            (Value::Null, _) | (_, None) => return None,
            (number, Some(epoch)) => epoch.instant(number),
        };
        Some(time.filter(|at| at.in_range()))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    Number(Decimal),
}

/// Where a value is that is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) slot: usize,
    /// Of json: which of the paths of its [`Asked`].
    pub(crate) path: usize,
}

impl Found {
    pub(crate) fn of<'r>(self, row: &'r [Value<'r>]) -> &'r Value<'r> {
        match &row[self.slot] {
            Value::Json(found) => &found[self.path],
            value => value,
        }
    }
}

/// One column compared with the values that satisfy it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) found: Found,
    pub(crate) any_of: Vec<Wanted>,
    /// `{"not": ...}`: any value but these.
    pub(crate) negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KindRule {
    pub(crate) when: Vec<Condition>,
    /// `None` is `ignore`.
    pub(crate) events: Option<Events>,
}

/// The events of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Events {
    /// Those that have the time of the row.
    pub(crate) kinds: Vec<Kind>,
    /// Where their tags come from; empty if none has one.
    pub(crate) tags: Vec<TagOrigin>,
    /// Their positions in the list of all; empty if that is theirs.
    pub(crate) positions: Vec<u16>,
    /// Those that have a time of their own (rule 2.4.11).
    pub(crate) own: Vec<OwnTime>,
}

impl Events {
    /// One event that has the time of the row.
    pub(crate) fn of(Name { kind, tag }: Name) -> Events {
        Events { kinds: vec![kind], tags: tag.map(TagOrigin::Constant).into_iter().collect(), ..Events::default() }
    }
}

/// An event that has a time of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnTime {
    pub(crate) kind: Kind,
    pub(crate) tag: TagOrigin,
    pub(crate) position: u16,
    pub(crate) time: TimeOrigin,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExclusionRule {
    pub(crate) when: Vec<Condition>,
    pub(crate) because: String,
}

/// The columns of the audit trail, by index into the columns given to [`Mapping::check`]; `None` if the mapping names
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Who asked.
    pub customer: Option<usize>,
    /// Which model answered.
    pub model: Option<usize>,
    /// The stage of a pipeline.
    pub stage: Option<usize>,
    /// Whether the safety check was passed: boolean.
    pub safety_passed: Option<usize>,
}

impl Audit {
    /// Customer, model, stage and safety, in this order.
    pub fn columns(&self) -> [Option<usize>; 4] {
        [self.customer, self.model, self.stage, self.safety_passed]
    }
}

/// A mapping checked against a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The columns that a row is read from, by index into the columns given to [`Mapping::check`]: the slots.
    pub columns: Vec<usize>,
    /// What of each slot is asked for.
    pub asked: Vec<Asked>,
    /// The columns that the audit trail shows; not needed to meter a row.
    pub audit: Audit,
    /// The zone of a `timestamp` column; the caller turns local time into instants.
    pub timezone: Option<String>,
    /// A constant or a slot.
    pub tenant: KeyOrigin,
    pub conversation: KeyOrigin,
    pub message_id: KeyOrigin,
    /// `None` if the rows have no time of their own.
    pub(crate) occurred_at: Option<TimeOrigin>,
    pub(crate) order: Option<usize>,
    pub(crate) kinds: Vec<KindRule>,
    pub(crate) excluded: Vec<ExclusionRule>,
}

impl Mapping {
    /// The column of each slot, and what of it is asked for.
    pub fn slots(&self) -> impl Iterator<Item = (usize, &Asked)> {
        self.columns.iter().copied().zip(&self.asked)
    }

    /// The columns of which a key is made, by index into the columns given to [`Mapping::check`].
    pub fn columns_of(&self, key: &KeyOrigin) -> Vec<usize> {
        key.slots().iter().map(|slot| self.columns[*slot]).collect()
    }

    /// The column that holds the time, by index into the columns given to [`Mapping::check`], if there is one.
    pub fn occurred_at_column(&self) -> Option<usize> {
        self.occurred_at.map(|time| self.columns[time.slot])
    }

    /// The columns that hold a time, first that of the row, each with what it counts from 1970 if it is a number.
    pub fn time_columns(&self) -> Vec<(usize, Option<Epoch>)> {
        let own = self.kinds.iter().filter_map(|rule| rule.events.as_ref()).flat_map(|events| &events.own);
        let mut found = Vec::new();
        for time in self.occurred_at.into_iter().chain(own.map(|own| own.time)) {
            let column = (self.columns[time.slot], time.epoch);
            if !found.contains(&column) {
                found.push(column);
            }
        }
        found
    }

    /// Whether events of a row may have times of their own.
    pub fn has_own_times(&self) -> bool {
        self.kinds.iter().filter_map(|rule| rule.events.as_ref()).any(|events| !events.own.is_empty())
    }

    /// What a row is to the meter, or `None` if it is nothing. Arguments as of [`Mapping::read`].
    pub fn apply<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Option<Reading<'a>> {
        Some(self.read(row, latest)).filter(|reading| !reading.ignored)
    }

    /// All that can be read of a row, but for events that have times of their own. `row` holds the value of each slot,
    /// `latest` is the last instant that is not yet future.
    pub fn read<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Reading<'a> {
        let rule = self.rule(row);
        let ignored = rule.is_some_and(|rule| rule.events.is_none());
        let events = rule.and_then(|rule| rule.events.as_ref());
        let kinds = events.map_or(&[][..], |events| &events.kinds);
        let Key { text: tenant, too_long: tenant_bytes } = self.tenant.read(row);
        let Key { text: conversation, too_long: conversation_bytes } = self.conversation.read(row);
        let (message, message_bytes) = self.message_id.message_and_length(row);
        let too_long = [tenant_bytes, conversation_bytes, message_bytes];
        let time = self.occurred_at.and_then(|time| time.read(row));
        let sequence = match self.order.map(|slot| &row[slot]) {
            Some(Value::Integer(sequence)) => Some(*sequence),
            _ => None,
        };
        let has_time = self.occurred_at.is_none() || time.is_some();
        let refusal = if ignored {
            None
        } else if tenant.is_none() || conversation.is_none() || message.is_none() || !has_time {
            Some(Refusal::NullKey)
        } else if kinds.is_empty() {
            Some(Refusal::NoKind)
        } else {
            refused_time(time, latest).or_else(|| too_long.iter().any(Option::is_some).then_some(Refusal::KeyTooLong))
        };
        let excluded = self.excluded.iter().find(|rule| holds(&rule.when, row)).map(|rule| rule.because.as_str());
        let at = time.flatten();
        let positions = events.map_or(&[][..], |events| &events.positions);
        let tags = match events {
            Some(events) if !events.tags.is_empty() => events.tags.iter().map(|tag| tag.read(row)).collect(),
            _ => Vec::new(),
        };
        let event = None;
        let mut reading = Reading {
            tenant,
            conversation,
            message,
            too_long,
            at,
            sequence,
            ignored,
            kinds,
            tags,
            event,
            positions,
            excluded,
            refusal,
        };
        if events.is_some_and(|events| !events.own.is_empty()) {
            reading.leave_own_times();
        }
        reading
    }

    /// All that can be read of a row. Arguments as of [`Mapping::read`].
    pub fn readings<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Readings<'a> {
        let read = self.read(row, latest);
        let own = if read.event.is_some() { self.own_times(row, &read, latest) } else { Vec::new() };
        Readings { row: read, own }
    }

    /// The events of a row that have times of their own, each for itself; `of` is what [`Mapping::read`] says of it.
    fn own_times<'a>(&'a self, row: &'a [Value<'a>], of: &Reading<'a>, latest: Instant) -> Vec<Reading<'a>> {
        let events = self.rule(row).and_then(|rule| rule.events.as_ref()).filter(|_| of.event.is_some());
        let read = |own: &'a OwnTime| {
            let time = own.time.read(row);
            Reading {
                at: time.flatten(),
                kinds: std::slice::from_ref(&own.kind),
                tags: own.tag.read(row).map(Some).into_iter().collect(),
                event: Some(own.position + 1),
                positions: std::slice::from_ref(&own.position),
                refusal: match time {
                    None => Some(Refusal::NullKey),
                    time => refused_time(time, latest),
                },
                ..of.clone()
            }
        };
        events.map_or_else(Vec::new, |events| events.own.iter().map(read).collect())
    }

    fn rule(&self, row: &[Value]) -> Option<&KindRule> {
        self.kinds.iter().find(|rule| holds(&rule.when, row))
    }
}

/// Why an event cannot be metered at its time.
fn refused_time(time: Option<Option<Instant>>, latest: Instant) -> Option<Refusal> {
    match time {
        Some(None) => Some(Refusal::TimeOutOfRange),
        Some(Some(at)) if at > latest => Some(Refusal::Future),
        _ => None,
    }
}

fn holds(when: &[Condition], row: &[Value]) -> bool {
    when.iter().all(|condition| {
        let value = condition.found.of(row);
        condition.any_of.iter().any(|wanted| equal(wanted, value)) != condition.negated
    })
}

fn equal(wanted: &Wanted, value: &Value) -> bool {
    match (wanted, value) {
        (Wanted::Null, Value::Null) => true,
        (Wanted::Text(wanted), Value::Text(text)) => wanted == text,
        (Wanted::Integer(wanted), Value::Integer(number)) => wanted == number,
        (Wanted::Boolean(wanted), Value::Boolean(truth)) => wanted == truth,
        (Wanted::Number(wanted), Value::Number(number)) => wanted == number,
        _ => false,
    }
}

/// A number as a rule compares it; `None` beyond the engine's 28 digits: a number cut to fit would equal others.
pub fn exact_number(text: &str) -> Option<Decimal> {
    Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

/// A uuid as Postgres prints it: lower case, with hyphens.
pub(crate) fn canonical_uuid(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | '{' | '}')).collect::<String>().to_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]))
}
