//! Which events does a row of the application give (SPEC 2, "From row to event")?
//!
//! A mapping is data, checked once against the table's columns ([`Mapping::check`]) and then applied to each row
//! ([`Mapping::apply`]). No expression of a user's is ever evaluated.

use crate::event::Kind;
use crate::instant::Instant;
use crate::near;
use crate::order::MessageId;
use rust_decimal::Decimal;
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

/// Tenant, conversation and message ids of more bytes than this are quarantined as `key_too_long` (SPEC 3.7).
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
    /// An enum with these labels.
    Enum(Vec<String>),
    /// json or jsonb.
    Json,
    Timestamptz,
    /// A timestamp without zone, which needs `timezone`.
    Timestamp,
    /// A type that no part of a mapping can use.
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
    Json(Json),
    /// `None` is an infinite time or one that the engine's clock cannot hold.
    Time(Option<Instant>),
}

/// Why a row is not metered now (SPEC 3.7). The row itself is in the application's table; nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NullKey,
    NoKind,
    TimeOutOfRange,
    Future,
    KeyTooLong,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NullKey => "null_key",
            Refusal::NoKind => "no_kind",
            Refusal::TimeOutOfRange => "time_out_of_range",
            Refusal::Future => "future",
            Refusal::KeyTooLong => "key_too_long",
        }
    }
}

/// What a row is to the meter, as far as it could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading<'a> {
    pub tenant: Option<Cow<'a, str>>,
    pub conversation: Option<Cow<'a, str>>,
    pub message: Option<MessageId>,
    pub at: Option<Instant>,
    /// A rule says `ignore`: the row is nothing to the meter.
    pub ignored: bool,
    /// The events of the row in order; empty if no rule matched, or if it is ignored.
    pub kinds: &'a [Kind],
    /// The `because` of the first `excluded` rule that matched.
    pub excluded: Option<&'a str>,
    /// Why the row cannot be metered, if it cannot.
    pub refusal: Option<Refusal>,
}

/// A mapping that cannot be used, with what a user needs to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub kind: FlawKind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    /// The mapping is not of the form that SPEC 2 describes.
    Invalid,
    /// It names a column that the table does not have.
    UnknownColumn,
    /// It uses a column whose type does not serve, or compares it with a value of another type.
    WrongType,
}

impl Flaw {
    fn new(kind: FlawKind, message: String) -> Flaw {
        Flaw { kind, message, detail: None, hint: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Flaw {
        Flaw::new(FlawKind::Invalid, message.into())
    }

    pub(crate) fn wrong_type(message: impl Into<String>) -> Flaw {
        Flaw::new(FlawKind::WrongType, message.into())
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Flaw {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Flaw {
        self.hint = Some(hint.into());
        self
    }
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Constant(String),
    /// The place of the column in [`Mapping::columns`].
    Slot(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    Number(Decimal),
}

/// One column compared with the values that satisfy it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) slot: usize,
    /// Steps into a json column; empty for the column itself.
    pub(crate) path: Vec<String>,
    pub(crate) any_of: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KindRule {
    pub(crate) when: Vec<Condition>,
    /// `None` is `ignore`.
    pub(crate) kinds: Option<Vec<Kind>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExclusionRule {
    when: Vec<Condition>,
    because: String,
}

/// The columns of the audit trail, by index into the columns given to [`Mapping::check`]; `None` if the mapping names none.
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
    /// The columns that the audit trail shows; not needed to meter a row.
    pub audit: Audit,
    /// The zone of a `timestamp` column; the caller turns local time into instants.
    pub timezone: Option<String>,
    pub(crate) tenant: Key,
    pub(crate) conversation: usize,
    pub(crate) message_id: usize,
    /// `None` if the rows have no time of their own.
    pub(crate) occurred_at: Option<usize>,
    pub(crate) kinds: Vec<KindRule>,
    pub(crate) excluded: Vec<ExclusionRule>,
}

const KEYS: [&str; 11] = [
    "tenant",
    "conversation",
    "message_id",
    "occurred_at",
    "timezone",
    "customer",
    "model",
    "stage",
    "safety_passed",
    "kinds",
    "excluded",
];

impl Mapping {
    /// Checks a mapping against the columns of its table.
    pub fn check(mapping: &Json, columns: &[Column]) -> Result<Mapping, Flaw> {
        let Json::Object(mapping) = mapping else {
            return Err(Flaw::invalid("the mapping is not a json object"));
        };
        only_known_keys(mapping, "the mapping", &KEYS)?;
        let mut checker = Checker { columns, slots: Vec::new() };
        let tenant = checker.tenant(mapping)?;
        let conversation = checker.key(mapping, "conversation", "conversation_id")?;
        let message_id = checker.key(mapping, "message_id", "id")?;
        let (occurred_at, timezone) = checker.occurred_at(mapping)?;
        let kinds = checker.kinds(mapping)?;
        let excluded = checker.excluded(mapping)?;
        let audit = checker.audit(mapping)?;
        Ok(Mapping {
            columns: checker.slots,
            audit,
            timezone,
            tenant,
            conversation,
            message_id,
            occurred_at: Some(occurred_at),
            kinds,
            excluded,
        })
    }

    /// The slot that holds the message id.
    pub fn message_id_slot(&self) -> usize {
        self.message_id
    }

    /// The column that holds the message id, by index into the columns given to [`Mapping::check`].
    pub fn message_id_column(&self) -> usize {
        self.columns[self.message_id]
    }

    /// The column that holds the time, by index into the columns given to [`Mapping::check`], if there is one.
    pub fn occurred_at_column(&self) -> Option<usize> {
        self.occurred_at.map(|slot| self.columns[slot])
    }

    /// The column that holds the conversation, by index into the columns given to [`Mapping::check`].
    pub fn conversation_column(&self) -> usize {
        self.columns[self.conversation]
    }

    /// The column that holds the tenant, or the tenant of all rows.
    pub fn tenant_column(&self) -> Result<usize, &str> {
        match &self.tenant {
            Key::Slot(slot) => Ok(self.columns[*slot]),
            Key::Constant(tenant) => Err(tenant),
        }
    }

    /// What a row is to the meter, or `None` if it is nothing. Arguments as of [`Mapping::read`].
    pub fn apply<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Option<Reading<'a>> {
        Some(self.read(row, latest)).filter(|reading| !reading.ignored)
    }

    /// All that can be read of a row. `row` holds the value of each slot, `latest` is the last instant that is not yet
    /// future.
    pub fn read<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Reading<'a> {
        let rule = self.kinds.iter().find(|rule| holds(&rule.when, row));
        let ignored = rule.is_some_and(|rule| rule.kinds.is_none());
        let kinds = rule.and_then(|rule| rule.kinds.as_deref()).unwrap_or_default();
        let tenant = match &self.tenant {
            Key::Constant(tenant) => Some(Cow::Borrowed(tenant.as_str())),
            Key::Slot(slot) => key_text(&row[*slot]),
        };
        let conversation = key_text(&row[self.conversation]);
        let message = message_id(&row[self.message_id]);
        let time = match self.occurred_at.map(|slot| &row[slot]) {
            Some(Value::Time(time)) => Some(time.filter(|at| at.in_range())),
            _ => None,
        };
        let has_time = self.occurred_at.is_none() || time.is_some();
        let too_long = |key: &Option<Cow<str>>| key.as_ref().is_some_and(|key| key.len() > LONGEST_KEY);
        let refusal = if ignored {
            None
        } else if tenant.is_none() || conversation.is_none() || message.is_none() || !has_time {
            Some(Refusal::NullKey)
        } else if kinds.is_empty() {
            Some(Refusal::NoKind)
        } else if time == Some(None) {
            Some(Refusal::TimeOutOfRange)
        } else if time > Some(Some(latest)) {
            Some(Refusal::Future)
        } else if too_long(&tenant) || too_long(&conversation) || message_too_long(&message) {
            Some(Refusal::KeyTooLong)
        } else {
            None
        };
        let excluded = self.excluded.iter().find(|rule| holds(&rule.when, row)).map(|rule| rule.because.as_str());
        Reading { tenant, conversation, message, at: time.flatten(), ignored, kinds, excluded, refusal }
    }
}

fn message_too_long(message: &Option<MessageId>) -> bool {
    matches!(message, Some(MessageId::Text(text)) if text.len() > LONGEST_KEY)
}

fn key_text<'a>(value: &'a Value<'a>) -> Option<Cow<'a, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Integer(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// The message id that a value is, if it is one.
pub fn message_id(value: &Value) -> Option<MessageId> {
    match value {
        Value::Text(text) => Some(MessageId::Text(text.to_string())),
        Value::Integer(number) => Some(MessageId::Integer(*number)),
        _ => None,
    }
}

fn holds(when: &[Condition], row: &[Value]) -> bool {
    when.iter().all(|condition| match &row[condition.slot] {
        Value::Json(json) => satisfied_by_json(condition, json),
        value => condition.any_of.iter().any(|wanted| equal(wanted, value)),
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

/// A path that leads nowhere and a json null both are `null`; objects and arrays equal no scalar.
fn satisfied_by_json(condition: &Condition, json: &Json) -> bool {
    let mut found = Some(json);
    for step in &condition.path {
        found = match found {
            Some(Json::Object(object)) => object.get(step),
            Some(Json::Array(array)) => step.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
    }
    let value = match found {
        None | Some(Json::Null) => Value::Null,
        Some(Json::Bool(truth)) => Value::Boolean(*truth),
        Some(Json::String(text)) => Value::Text(Cow::Borrowed(text)),
        Some(Json::Number(number)) => match decimal(number) {
            Some(number) => Value::Number(number),
            None => return false,
        },
        Some(_) => return false,
    };
    condition.any_of.iter().any(|wanted| equal(wanted, &value))
}

fn decimal(number: &serde_json::Number) -> Option<Decimal> {
    let text = number.as_str();
    // Exact or not at all: a number cut to fit would equal others.
    Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()
}

pub(crate) fn only_known_keys(object: &Map<String, Json>, place: &str, known: &[&str]) -> Result<(), Flaw> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            Err(Flaw::invalid(format!("unknown key \"{key}\" in {place}")).hint(near::hint(key, known.iter().copied())))
        }
        None => Ok(()),
    }
}

/// Reads a mapping beside the columns of its table, collecting the columns that rows will be read from.
pub(crate) struct Checker<'a> {
    pub(crate) columns: &'a [Column],
    pub(crate) slots: Vec<usize>,
}

impl Checker<'_> {
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(crate) fn column(&self, name: &str, wanted_by: &str) -> Result<usize, Flaw> {
        self.find(name).ok_or_else(|| {
            Flaw::new(FlawKind::UnknownColumn, format!("column \"{name}\" of {wanted_by} does not exist"))
                .hint(near::hint(name, self.columns.iter().map(|column| column.name.as_str())))
        })
    }

    pub(crate) fn slot(&mut self, column: usize) -> usize {
        match self.slots.iter().position(|slot| *slot == column) {
            Some(slot) => slot,
            None => {
                self.slots.push(column);
                self.slots.len() - 1
            }
        }
    }

    /// The column that `key` names, or the one called `default`.
    pub(crate) fn named_or(&self, mapping: &Map<String, Json>, key: &str, default: &str) -> Result<usize, Flaw> {
        match mapping.get(key) {
            Some(Json::String(name)) => self.column(name, &format!("\"{key}\"")),
            Some(_) => Err(Flaw::invalid(format!("\"{key}\" of the mapping is not the name of a column"))),
            None => self.find(default).ok_or_else(|| {
                Flaw::new(
                    FlawKind::UnknownColumn,
                    format!("the mapping does not name \"{key}\", and there is no column \"{default}\""),
                )
                .hint(format!("Add \"{key}\": \"<column>\" to the mapping."))
            }),
        }
    }

    pub(crate) fn tenant(&mut self, mapping: &Map<String, Json>) -> Result<Key, Flaw> {
        if let Some(Json::Object(object)) = mapping.get("tenant") {
            only_known_keys(object, "\"tenant\"", &["constant"])?;
            return match object.get("constant") {
                Some(Json::String(tenant)) if tenant.len() <= LONGEST_KEY => Ok(Key::Constant(tenant.clone())),
                _ => Err(Flaw::invalid(format!(
                    "\"constant\" of \"tenant\" is not a string of at most {LONGEST_KEY} bytes"
                ))),
            };
        }
        Ok(Key::Slot(self.key(mapping, "tenant", "tenant_id")?))
    }

    pub(crate) fn key(&mut self, mapping: &Map<String, Json>, key: &str, default: &str) -> Result<usize, Flaw> {
        let index = self.named_or(mapping, key, default)?;
        let column = &self.columns[index];
        if !matches!(column.class, Class::Text | Class::Uuid | Class::Integer { .. }) {
            return Err(Flaw::wrong_type(format!("column \"{}\" cannot be \"{key}\"", column.name))
                .detail(format!("It is of type {}.", column.type_name))
                .hint("A key is text, varchar, uuid or an integer, or a domain over one of these."));
        }
        Ok(self.slot(index))
    }

    pub(crate) fn occurred_at(&mut self, mapping: &Map<String, Json>) -> Result<(usize, Option<String>), Flaw> {
        let index = self.named_or(mapping, "occurred_at", "created_at")?;
        let column = &self.columns[index];
        let timezone = match mapping.get("timezone") {
            None => None,
            Some(Json::String(zone)) => Some(zone.clone()),
            Some(_) => return Err(Flaw::invalid("\"timezone\" of the mapping is not a string")),
        };
        let detail = format!("Column \"{}\" is of type {}.", column.name, column.type_name);
        match (&column.class, &timezone) {
            (Class::Timestamptz, None) | (Class::Timestamp, Some(_)) => Ok((self.slot(index), timezone)),
            (Class::Timestamp, None) => Err(Flaw::wrong_type("\"occurred_at\" needs a \"timezone\"")
                .detail(detail)
                .hint("Add \"timezone\": \"<zone in which the application writes it>\" to the mapping.")),
            (Class::Timestamptz, Some(_)) => Err(Flaw::wrong_type("\"timezone\" does not apply")
                .detail(detail)
                .hint("Leave \"timezone\" out: a timestamp with time zone is an instant already.")),
            _ => Err(Flaw::wrong_type(format!("column \"{}\" cannot be \"occurred_at\"", column.name))
                .detail(detail)
                .hint("A time is timestamptz, or timestamp with a \"timezone\" in the mapping.")),
        }
    }

    fn kinds(&mut self, mapping: &Map<String, Json>) -> Result<Vec<KindRule>, Flaw> {
        let Some(Json::Array(rules)) =
            mapping.get("kinds").filter(|rules| rules.as_array().is_some_and(|r| !r.is_empty()))
        else {
            return Err(Flaw::invalid("\"kinds\" of the mapping is not a list of at least one rule").hint(
                "For example: \"kinds\": [{\"when\": {\"sender\": \"user\"}, \"kind\": \"customer_message\"}].",
            ));
        };
        let mut checked: Vec<KindRule> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let place = format!("rule {} of \"kinds\"", index + 1);
            if checked.last().is_some_and(|rule| rule.when.is_empty()) {
                return Err(Flaw::invalid(format!("{place} can never match"))
                    .detail("The rule before it has no \"when\", so it matches every row.")
                    .hint("Put the rule without \"when\" last."));
            }
            let Json::Object(rule) = rule else {
                return Err(Flaw::invalid(format!("{place} is not a json object")));
            };
            only_known_keys(rule, &place, &["when", "kind"])?;
            let when = match rule.get("when") {
                Some(when) => self.when(when, &place)?,
                None => Vec::new(),
            };
            checked.push(KindRule { when, kinds: kinds_of(rule.get("kind"), &place)? });
        }
        Ok(checked)
    }

    fn excluded(&mut self, mapping: &Map<String, Json>) -> Result<Vec<ExclusionRule>, Flaw> {
        let rules = match mapping.get("excluded") {
            None => return Ok(Vec::new()),
            Some(Json::Array(rules)) => rules,
            Some(_) => return Err(Flaw::invalid("\"excluded\" of the mapping is not a list of rules")),
        };
        let mut checked = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let place = format!("rule {} of \"excluded\"", index + 1);
            let Json::Object(rule) = rule else {
                return Err(Flaw::invalid(format!("{place} is not a json object")));
            };
            only_known_keys(rule, &place, &["when", "because"])?;
            let when = match rule.get("when") {
                Some(when) => self.when(when, &place)?,
                None => return Err(Flaw::invalid(format!("{place} has no \"when\", so it would exclude every row"))),
            };
            let Some(Json::String(because)) = rule.get("because") else {
                return Err(Flaw::invalid(format!("{place} has no \"because\""))
                    .hint("Say in a word why such a row is not billed: it is shown to those who ask."));
            };
            checked.push(ExclusionRule { when, because: because.clone() });
        }
        Ok(checked)
    }

    fn when(&mut self, when: &Json, place: &str) -> Result<Vec<Condition>, Flaw> {
        let Json::Object(when) = when else {
            return Err(Flaw::invalid(format!("\"when\" of {place} is not a json object")));
        };
        if when.is_empty() {
            return Err(Flaw::invalid(format!("\"when\" of {place} is empty"))
                .hint("Leave \"when\" out of the last rule of \"kinds\" to match every row."));
        }
        when.iter().map(|(name, wanted)| self.condition(name, wanted, place)).collect()
    }

    fn condition(&mut self, name: &str, wanted: &Json, place: &str) -> Result<Condition, Flaw> {
        let (index, path) = self.column_and_path(name, place)?;
        let column = &self.columns[index];
        let scalars = match wanted {
            Json::Array(list) if list.is_empty() => {
                return Err(Flaw::invalid(format!("\"{name}\" of {place} is compared with an empty list")));
            }
            Json::Array(list) => list.as_slice(),
            scalar => std::slice::from_ref(scalar),
        };
        let any_of =
            scalars.iter().map(|scalar| wanted_value(scalar, name, column, place)).collect::<Result<_, _>>()?;
        Ok(Condition { slot: self.slot(index), path, any_of })
    }

    /// A column, or `column->step->step` into a json column. A column whose own name holds an arrow wins.
    fn column_and_path(&self, name: &str, place: &str) -> Result<(usize, Vec<String>), Flaw> {
        if let Some(index) = self.find(name) {
            return Ok((index, Vec::new()));
        }
        let mut steps = name.split("->").map(str::to_owned);
        let index = self.column(&steps.next().unwrap_or_default(), place)?;
        let column = &self.columns[index];
        if column.class != Class::Json {
            return Err(Flaw::wrong_type(format!("\"{name}\" of {place} is a path into a column that is not json"))
                .detail(format!("Column \"{}\" is of type {}.", column.name, column.type_name)));
        }
        let steps: Vec<String> = steps.collect();
        if steps.iter().any(String::is_empty) {
            return Err(Flaw::invalid(format!("the path \"{name}\" of {place} has an empty step")));
        }
        if steps.iter().any(|step| step.starts_with('>')) {
            return Err(Flaw::invalid(format!("the path \"{name}\" of {place} uses ->>"))
                .hint("Write -> before each step: values are compared as json scalars."));
        }
        Ok((index, steps))
    }

    fn audit(&self, mapping: &Map<String, Json>) -> Result<Audit, Flaw> {
        Ok(Audit {
            customer: self.audit_column(mapping, "customer")?,
            model: self.audit_column(mapping, "model")?,
            stage: self.audit_column(mapping, "stage")?,
            safety_passed: self.audit_column(mapping, "safety_passed")?,
        })
    }

    fn audit_column(&self, mapping: &Map<String, Json>, key: &str) -> Result<Option<usize>, Flaw> {
        if !mapping.contains_key(key) {
            return Ok(None);
        }
        let index = self.named_or(mapping, key, key)?;
        let column = &self.columns[index];
        let serves = match (key, &column.class) {
            ("safety_passed", class) => *class == Class::Boolean,
            (_, Class::Text | Class::PaddedText | Class::Uuid | Class::Integer { .. } | Class::Enum(_)) => true,
            _ => false,
        };
        if !serves {
            return Err(Flaw::wrong_type(format!("column \"{}\" cannot be \"{key}\"", column.name))
                .detail(format!("It is of type {}.", column.type_name))
                .hint("\"safety_passed\" is boolean; \"customer\", \"model\" and \"stage\" are text, uuid, an integer or an enum."));
        }
        Ok(Some(index))
    }
}

fn kinds_of(kind: Option<&Json>, place: &str) -> Result<Option<Vec<Kind>>, Flaw> {
    let names = match kind {
        Some(Json::Array(list)) if !list.is_empty() => list.as_slice(),
        Some(name @ Json::String(_)) => std::slice::from_ref(name),
        _ => return Err(Flaw::invalid(format!("{place} has no \"kind\": the name of a kind, or a list of names"))),
    };
    let known = || Kind::ALL.into_iter().map(Kind::name).chain(["ignore"]);
    let mut kinds = Vec::new();
    for name in names {
        let Json::String(name) = name else {
            return Err(Flaw::invalid(format!("\"kind\" of {place} holds something that is not a string")));
        };
        match Kind::named(name) {
            Some(kind) => kinds.push(kind),
            None if name == "ignore" && names.len() == 1 => return Ok(None),
            None if name == "ignore" => {
                return Err(Flaw::invalid(format!("\"kind\" of {place} mixes \"ignore\" with other kinds")));
            }
            None => {
                let hint = near::hint(name, known().collect::<Vec<_>>());
                return Err(Flaw::invalid(format!("unknown kind \"{name}\" in {place}")).hint(hint));
            }
        }
    }
    Ok(Some(kinds))
}

pub(crate) fn wanted_value(scalar: &Json, name: &str, column: &Column, place: &str) -> Result<Wanted, Flaw> {
    let mismatch = |hint: &str| {
        Err(Flaw::wrong_type(format!("{scalar} of {place} cannot be compared with \"{name}\""))
            .detail(format!("Column \"{}\" is of type {}.", column.name, column.type_name))
            .hint(hint))
    };
    if scalar.is_null() && column.class != Class::Other {
        return Ok(Wanted::Null);
    }
    match (&column.class, scalar) {
        (_, Json::Array(_) | Json::Object(_)) => {
            mismatch("Compare with a string, a number, true, false, null or a list of these.")
        }
        (Class::Text, Json::String(text)) => Ok(Wanted::Text(text.clone())),
        (Class::PaddedText, Json::String(text)) => Ok(Wanted::Text(text.trim_end_matches(' ').to_owned())),
        (Class::Text | Class::PaddedText, _) => mismatch("Write it as a json string."),
        (Class::Uuid, Json::String(text)) => match canonical_uuid(text) {
            Some(uuid) => Ok(Wanted::Text(uuid)),
            None => mismatch("Write it as a uuid in a json string."),
        },
        (Class::Enum(labels), Json::String(text)) if labels.contains(text) => Ok(Wanted::Text(text.clone())),
        (Class::Enum(labels), Json::String(text)) => mismatch(&near::hint(text, labels.iter().map(String::as_str))),
        (Class::Integer { smallest, largest }, Json::Number(number)) => match number.as_i64() {
            Some(number) if (*smallest..=*largest).contains(&number) => Ok(Wanted::Integer(number)),
            _ => mismatch("Write a whole number that the column's type can hold."),
        },
        (Class::Boolean, Json::Bool(truth)) => Ok(Wanted::Boolean(*truth)),
        (Class::Boolean, _) => mismatch("Write true, false or null, without quotes."),
        (Class::Numeric, Json::Number(number)) => match decimal(number) {
            Some(number) => Ok(Wanted::Number(number)),
            None => mismatch("Write a number of at most 28 digits."),
        },
        (Class::Json, Json::String(text)) => Ok(Wanted::Text(text.clone())),
        (Class::Json, Json::Bool(truth)) => Ok(Wanted::Boolean(*truth)),
        (Class::Json, Json::Number(number)) => match decimal(number) {
            Some(number) => Ok(Wanted::Number(number)),
            None => mismatch("Write a number of at most 28 digits."),
        },
        (Class::Integer { .. } | Class::Numeric, _) => mismatch("Write it as a json number, without quotes."),
        (Class::Uuid | Class::Enum(_), _) => mismatch("Write it as a json string."),
        _ => mismatch(
            "A rule compares text, varchar, char, uuid, integers, numeric, boolean, enums and json scalars, and domains over these.",
        ),
    }
}

/// A uuid as Postgres prints it: lower case, with hyphens.
pub(crate) fn canonical_uuid(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | '{' | '}')).collect::<String>().to_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]))
}
