//! Is a mapping one that its table can serve, and what does it say?

use super::epoch::Epoch;
use super::key::MOST_COLUMNS;
use super::tag::TagOrigin;
use super::{
    Asked, Audit, Class, Column, Condition, Events, ExclusionRule, Found, KeyOrigin, KindRule, LONGEST_KEY, Mapping,
    OwnTime, TimeOrigin, Wanted, canonical_uuid, exact_number,
};
use crate::definition::{object_of, only_known_keys};
use crate::event::{Kind, Name};
use crate::flaw::{Flaw, FlawKind};
use crate::near;
use serde_json::{Map, Value as Json};

/// The keys of a mapping of messages.
pub const KEYS: [&str; 12] = [
    "tenant",
    "conversation",
    "message_id",
    "occurred_at",
    "timezone",
    "order",
    "customer",
    "model",
    "stage",
    "safety_passed",
    "kinds",
    "excluded",
];

/// Events that one row can give.
const MOST_EVENTS: usize = 100;

/// The message id alone, of a mapping that its table can serve no more: where it comes from, and the columns of its
/// slots.
pub fn message_id_alone(mapping: &Json, columns: &[Column]) -> Option<(KeyOrigin, Vec<usize>)> {
    let mut checker = Checker::of(columns);
    let message_id = checker.message_id(mapping.as_object()?).ok()?;
    Some((message_id, checker.slots))
}

impl Mapping {
    /// Checks a mapping against the columns of its table.
    pub fn check(mapping: &Json, columns: &[Column]) -> Result<Mapping, Flaw> {
        let mapping = object_of(mapping, "the mapping")?;
        only_known_keys(mapping, "the mapping", &KEYS)?;
        let mut checker = Checker::of(columns);
        let tenant = checker.tenant(mapping)?;
        let conversation = checker.conversation(mapping, "conversation_id")?;
        let message_id = checker.message_id(mapping)?;
        let (occurred_at, timezone) = checker.occurred_at(mapping)?;
        let order = checker.order(mapping)?;
        let kinds = checker.kinds(mapping, timezone.as_deref())?;
        let own = kinds.iter().filter_map(|rule| rule.events.as_ref()).flat_map(|events| &events.own);
        checker.timezone(timezone.as_deref(), std::iter::once(occurred_at).chain(own.map(|own| own.time)))?;
        let excluded = checker.excluded(mapping)?;
        let audit = checker.audit(mapping)?;
        Ok(Mapping {
            columns: checker.slots,
            asked: checker.asked,
            audit,
            timezone,
            tenant,
            conversation,
            message_id,
            occurred_at: Some(occurred_at),
            order,
            kinds,
            excluded,
        })
    }
}

/// Reads a mapping beside the columns of its table, collecting the columns that rows will be read from.
pub(crate) struct Checker<'a> {
    pub(crate) columns: &'a [Column],
    pub(crate) slots: Vec<usize>,
    /// What of each slot is asked for.
    pub(crate) asked: Vec<Asked>,
}

impl<'a> Checker<'a> {
    pub(crate) fn of(columns: &'a [Column]) -> Checker<'a> {
        Checker { columns, slots: Vec::new(), asked: Vec::new() }
    }

    /// A condition on a column, or on what a path into it leads to.
    pub(crate) fn asking(&mut self, column: usize, path: Vec<String>, any_of: Vec<Wanted>, negated: bool) -> Condition {
        let texts = any_of.iter().filter_map(|wanted| match wanted {
            Wanted::Text(text) => Some(text.len()),
            _ => None,
        });
        let found = self.found(column, path, texts.max().unwrap_or(0));
        Condition { found, any_of, negated }
    }

    /// Where the value of a column is, or what a path into it leads to; `longest` are the bytes of the longest text
    /// that it is compared with.
    pub(crate) fn found(&mut self, column: usize, path: Vec<String>, longest: usize) -> Found {
        let is_text = matches!(self.columns[column].class, Class::Text | Class::PaddedText);
        let slot = self.slot_as(column, is_text && !path.is_empty());
        let asked = &mut self.asked[slot];
        asked.longest = longest.max(asked.longest);
        let known = asked.paths.iter().position(|known| *known == path);
        let path = known.unwrap_or_else(|| {
            asked.paths.push(path);
            asked.paths.len() - 1
        });
        Found { slot, path }
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(crate) fn column(&self, name: &str, wanted_by: &str) -> Result<usize, Flaw> {
        self.find(name).ok_or_else(|| {
            let is_path = name.split_once("->").is_some_and(|(column, _)| self.find(column).is_some());
            let hint = match is_path {
                true => {
                    "It is a whole column, no path. Keep what the path leads to in a column of its own, for example a \
                         generated one."
                        .to_owned()
                }
                false => near::hint(name, self.columns.iter().map(|column| column.name.as_str())),
            };
            Flaw::new(FlawKind::UnknownColumn, format!("column \"{name}\" of {wanted_by} does not exist")).hint(hint)
        })
    }

    pub(crate) fn slot(&mut self, column: usize) -> usize {
        self.slot_as(column, false)
    }

    /// A text may be read both as it is and as json: that takes two slots.
    fn slot_as(&mut self, column: usize, as_json: bool) -> usize {
        let mut slots = self.slots.iter().zip(&self.asked);
        slots.position(|(slot, asked)| (*slot, asked.as_json) == (column, as_json)).unwrap_or_else(|| {
            self.slots.push(column);
            self.asked.push(Asked { as_json, ..Asked::default() });
            self.slots.len() - 1
        })
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

    pub(crate) fn tenant(&mut self, mapping: &Map<String, Json>) -> Result<KeyOrigin, Flaw> {
        if let Some(Json::Object(object)) = mapping.get("tenant") {
            only_known_keys(object, "\"tenant\"", &["constant"])?;
            return match object.get("constant") {
                Some(Json::String(tenant)) if tenant.len() <= LONGEST_KEY => Ok(KeyOrigin::Constant(tenant.clone())),
                _ => Err(Flaw::invalid(format!(
                    "\"constant\" of \"tenant\" is not a string of at most {LONGEST_KEY} bytes"
                ))),
            };
        }
        Ok(KeyOrigin::Slot(self.key(mapping, "tenant", "tenant_id")?))
    }

    /// The conversation, which is in the column called `default` if the mapping does not say where.
    pub(crate) fn conversation(&mut self, mapping: &Map<String, Json>, default: &str) -> Result<KeyOrigin, Flaw> {
        let Some(Json::Object(object)) = mapping.get("conversation") else {
            return self.key_of_some(mapping, "conversation", default);
        };
        only_known_keys(object, "\"conversation\"", &["first_of"])?;
        let Some(Json::Array(names)) = object.get("first_of") else {
            return Err(Flaw::invalid("\"first_of\" of \"conversation\" is not a list of columns"));
        };
        self.columns_of_key(names, "\"first_of\" of \"conversation\"", "conversation").map(KeyOrigin::FirstOf)
    }

    pub(crate) fn message_id(&mut self, mapping: &Map<String, Json>) -> Result<KeyOrigin, Flaw> {
        self.key_of_some(mapping, "message_id", "id")
    }

    /// A key that one column holds, or that a list of them makes.
    fn key_of_some(&mut self, mapping: &Map<String, Json>, key: &str, default: &str) -> Result<KeyOrigin, Flaw> {
        match mapping.get(key) {
            Some(Json::Array(names)) => {
                self.columns_of_key(names, &format!("\"{key}\" of the mapping"), key).map(KeyOrigin::Joined)
            }
            _ => self.key(mapping, key, default).map(KeyOrigin::Slot),
        }
    }

    fn columns_of_key(&mut self, names: &[Json], place: &str, key: &str) -> Result<Vec<usize>, Flaw> {
        let mut slots = Vec::new();
        for name in names {
            let Json::String(name) = name else {
                return Err(Flaw::invalid(format!("{place} holds something that is not the name of a column")));
            };
            let index = self.column(name, &format!("\"{key}\""))?;
            let slot = self.key_slot(index, key)?;
            if slots.contains(&slot) {
                return Err(Flaw::invalid(format!("{place} names column \"{name}\" twice")));
            }
            slots.push(slot);
        }
        match slots.len() {
            2..=MOST_COLUMNS => Ok(slots),
            _ => Err(Flaw::invalid(format!("{place} is not a list of two to {MOST_COLUMNS} columns"))
                .hint("One column is named without a list.")),
        }
    }

    fn key(&mut self, mapping: &Map<String, Json>, key: &str, default: &str) -> Result<usize, Flaw> {
        let index = self.named_or(mapping, key, default)?;
        self.key_slot(index, key)
    }

    fn key_slot(&mut self, index: usize, key: &str) -> Result<usize, Flaw> {
        let column = &self.columns[index];
        if !matches!(column.class, Class::Text | Class::Uuid | Class::Integer { .. }) {
            return Err(Flaw::wrong_type(format!("column \"{}\" cannot be \"{key}\"", column.name))
                .detail(format!("It is of type {}.", column.type_name))
                .hint("A key is text, varchar, uuid or an integer, or a domain over one of these."));
        }
        Ok(self.slot(index))
    }

    /// The time of a row, and the zone of times that have none.
    pub(crate) fn occurred_at(&mut self, mapping: &Map<String, Json>) -> Result<(TimeOrigin, Option<String>), Flaw> {
        let timezone = match mapping.get("timezone") {
            None => None,
            Some(Json::String(zone)) => Some(zone.clone()),
            Some(_) => return Err(Flaw::invalid("\"timezone\" of the mapping is not a string")),
        };
        let time = match mapping.get("occurred_at") {
            None => (self.find("created_at").ok_or_else(|| self.no_time_column())?, None),
            Some(named) => self.time_column(named, "\"occurred_at\"")?,
        };
        Ok((self.time(time, "\"occurred_at\"", timezone.as_deref())?, timezone))
    }

    fn no_time_column(&self) -> Flaw {
        let is_time = |column: &&Column| matches!(column.class, Class::Timestamptz | Class::Timestamp);
        let hint = match self.columns.iter().find(is_time) {
            Some(column) => format!("Add \"occurred_at\": \"{}\" to the mapping, if that is the time.", column.name),
            None => {
                "If a number holds the time: \"occurred_at\": {\"column\": \"<column>\", \"epoch\": \"seconds\"}. If \
                     nothing does: ALTER TABLE <table> ADD COLUMN created_at timestamptz NOT NULL DEFAULT now()."
                    .to_owned()
            }
        };
        let missing = "the mapping does not name \"occurred_at\", and there is no column \"created_at\"";
        Flaw::new(FlawKind::UnknownColumn, missing.to_owned()).hint(hint)
    }

    /// A time that such a column holds.
    fn time(
        &mut self,
        (index, epoch): (usize, Option<Epoch>),
        wanted_by: &str,
        timezone: Option<&str>,
    ) -> Result<TimeOrigin, Flaw> {
        let column = &self.columns[index];
        let detail = format!("Column \"{}\" is of type {}.", column.name, column.type_name);
        let is_number = matches!(column.class, Class::Integer { .. } | Class::Numeric | Class::Float);
        match (&column.class, timezone, epoch) {
            (Class::Timestamptz, _, None) | (Class::Timestamp, Some(_), None) => {}
            (_, _, Some(_)) if is_number => {}
            (Class::Timestamp, None, None) => {
                return Err(Flaw::wrong_type(format!("{wanted_by} needs a \"timezone\""))
                    .detail(detail)
                    .hint("Add \"timezone\": \"<zone in which the application writes it>\" to the mapping."));
            }
            (_, _, Some(_)) => {
                return Err(Flaw::wrong_type("\"epoch\" does not apply")
                    .detail(detail)
                    .hint("Only a number counts from 1970: name the column alone."));
            }
            _ => return Err(self.no_time(column, is_number, wanted_by).detail(detail)),
        }
        Ok(TimeOrigin { slot: self.slot(index), epoch })
    }

    /// Refuses a zone that none of the times needs.
    pub(crate) fn timezone(&self, timezone: Option<&str>, times: impl Iterator<Item = TimeOrigin>) -> Result<(), Flaw> {
        let columns: Vec<&Column> = times.map(|time| &self.columns[self.slots[time.slot]]).collect();
        let Some(first) = columns.first().filter(|_| timezone.is_some()) else { return Ok(()) };
        if columns.iter().any(|column| column.class == Class::Timestamp) {
            return Ok(());
        }
        let what = match first.class {
            Class::Timestamptz => "a timestamp with time zone",
            _ => "a number that counts from 1970",
        };
        Err(Flaw::wrong_type("\"timezone\" does not apply")
            .detail(format!("Column \"{}\" is of type {}.", first.name, first.type_name))
            .hint(format!("Leave \"timezone\" out: {what} is an instant already.")))
    }

    /// The column of a time, and what it counts if it is a number.
    fn time_column(&self, named: &Json, wanted_by: &str) -> Result<(usize, Option<Epoch>), Flaw> {
        let object = match named {
            Json::String(name) => return Ok((self.column(name, wanted_by)?, None)),
            Json::Object(object) => object,
            _ => return Err(no_column_of_time(wanted_by)),
        };
        only_known_keys(object, wanted_by, &["column", "epoch"])?;
        let (Some(Json::String(name)), Some(Json::String(unit))) = (object.get("column"), object.get("epoch")) else {
            return Err(no_column_of_time(wanted_by));
        };
        let Some(epoch) = Epoch::ALL.into_iter().find(|epoch| epoch.name() == unit) else {
            return Err(Flaw::invalid(format!("unknown \"epoch\" \"{unit}\" of {wanted_by}"))
                .hint(near::hint(unit, Epoch::ALL.map(Epoch::name))));
        };
        Ok((self.column(name, wanted_by)?, Some(epoch)))
    }

    fn no_time(&self, column: &Column, is_number: bool, wanted_by: &str) -> Flaw {
        let hint = match (&column.class, is_number) {
            (_, true) => format!(
                "A number that counts from 1970 is written as \"occurred_at\": {{\"column\": \"{}\", \"epoch\": \
                 \"seconds\"}}; milliseconds and microseconds are known too.",
                column.name
            ),
            (Class::Text, _) => {
                "A text is no time. Add a column of type timestamptz that a BEFORE INSERT OR UPDATE trigger \
                                 of yours sets from it, and name that."
                    .to_owned()
            }
            _ => "A time is timestamptz, timestamp with a \"timezone\" in the mapping, or a number with an \"epoch\"."
                .to_owned(),
        };
        Flaw::wrong_type(format!("column \"{}\" cannot be {wanted_by}", column.name)).hint(hint)
    }

    fn order(&mut self, mapping: &Map<String, Json>) -> Result<Option<usize>, Flaw> {
        if !mapping.contains_key("order") {
            return Ok(None);
        }
        let index = self.named_or(mapping, "order", "order")?;
        let column = &self.columns[index];
        if !matches!(column.class, Class::Integer { .. }) {
            return Err(Flaw::wrong_type(format!("column \"{}\" cannot be \"order\"", column.name))
                .detail(format!("It is of type {}.", column.type_name))
                .hint("\"order\" is an integer that the application counts up, such as an identity column."));
        }
        Ok(Some(self.slot(index)))
    }

    fn kinds(&mut self, mapping: &Map<String, Json>, timezone: Option<&str>) -> Result<Vec<KindRule>, Flaw> {
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
            let rule = object_of(rule, &place)?;
            only_known_keys(rule, &place, &["when", "kind", "tag"])?;
            let when = match rule.get("when") {
                Some(when) => self.when(when, &place)?,
                None => Vec::new(),
            };
            let tag = self.tag(rule.get("tag"), &place)?;
            let events = self.events(rule.get("kind"), &tag, &place, timezone)?;
            if events.is_none() && !tag.is_nowhere() {
                return Err(Flaw::invalid(format!("{place} has a \"tag\", and ignores its rows")));
            }
            checked.push(KindRule { when, events });
        }
        Ok(checked)
    }

    /// The events of a rule of `kinds`, with the tag of those that name none; `None` is `ignore`.
    fn events(
        &mut self,
        kind: Option<&Json>,
        tag: &TagOrigin,
        place: &str,
        timezone: Option<&str>,
    ) -> Result<Option<Events>, Flaw> {
        let listed = match kind {
            Some(Json::Array(list)) if !list.is_empty() => list.as_slice(),
            Some(one @ (Json::String(_) | Json::Object(_))) => std::slice::from_ref(one),
            _ => return Err(Flaw::invalid(format!("{place} has no \"kind\": the name of a kind, or a list of names"))),
        };
        if listed.len() > MOST_EVENTS {
            return Err(Flaw::invalid(format!("\"kind\" of {place} lists more than {MOST_EVENTS} events")));
        }
        let mut events = Events::default();
        for (position, listed_kind) in (0..).zip(listed) {
            let name = match listed_kind {
                Json::String(name) => name,
                Json::Object(object) => {
                    events.own.push(self.own_time(object, tag, position, place, timezone)?);
                    continue;
                }
                _ => {
                    return Err(Flaw::invalid(format!(
                        "\"kind\" of {place} holds something that is neither a string nor an object"
                    )));
                }
            };
            match name_of(name, tag, place)? {
                Some((kind, tag)) => {
                    events.kinds.push(kind);
                    events.tags.push(tag);
                    events.positions.push(position);
                }
                None if listed.len() == 1 => return Ok(None),
                None => return Err(Flaw::invalid(format!("\"kind\" of {place} mixes \"ignore\" with other kinds"))),
            }
        }
        if events.own.is_empty() {
            events.positions.clear();
        }
        if events.tags.iter().all(TagOrigin::is_nowhere) {
            events.tags.clear();
        }
        Ok(Some(events))
    }

    /// An event that has a time of its own: its kind, with where that time is.
    fn own_time(
        &mut self,
        object: &Map<String, Json>,
        tag: &TagOrigin,
        position: u16,
        place: &str,
        timezone: Option<&str>,
    ) -> Result<OwnTime, Flaw> {
        let mut entries = object.iter();
        let (Some((name, Json::Object(of))), None) = (entries.next(), entries.next()) else {
            return Err(Flaw::invalid(format!("\"kind\" of {place} holds an object that is not a kind with its time"))
                .hint("For example: {\"ai_reply\": {\"occurred_at\": \"answered_at\"}}."));
        };
        let Some((kind, tag)) = name_of(name, tag, place)? else {
            return Err(Flaw::invalid(format!("\"ignore\" in {place} has a time"))
                .hint("What is ignored needs none: name it alone."));
        };
        let wanted_by = format!("\"occurred_at\" of \"{name}\" in {place}");
        only_known_keys(of, &format!("\"{name}\" in {place}"), &["occurred_at"])?;
        let Some(named) = of.get("occurred_at") else {
            return Err(Flaw::invalid(format!("\"{name}\" in {place} has no \"occurred_at\""))
                .hint("A kind that has the time of the row is named alone."));
        };
        let column = self.time_column(named, &wanted_by)?;
        Ok(OwnTime { kind, tag, position, time: self.time(column, &wanted_by, timezone)? })
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
            let rule = object_of(rule, &place)?;
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
        let when = object_of(when, &format!("\"when\" of {place}"))?;
        if when.is_empty() {
            return Err(Flaw::invalid(format!("\"when\" of {place} is empty"))
                .hint("Leave \"when\" out of the last rule of \"kinds\" to match every row."));
        }
        when.iter().map(|(name, wanted)| self.condition(name, wanted, place)).collect()
    }

    fn condition(&mut self, name: &str, wanted: &Json, place: &str) -> Result<Condition, Flaw> {
        let (index, path) = self.column_and_path(name, place)?;
        let column = &self.columns[index];
        let (wanted, negated) = match wanted {
            Json::Object(object) => {
                only_known_keys(object, &format!("\"{name}\" of {place}"), &["not"])?;
                (object.get("not").unwrap_or(wanted), object.contains_key("not"))
            }
            wanted => (wanted, false),
        };
        let scalars = match wanted {
            Json::Array(list) if list.is_empty() => {
                return Err(Flaw::invalid(format!("\"{name}\" of {place} is compared with an empty list")));
            }
            Json::Array(list) => list.as_slice(),
            scalar => std::slice::from_ref(scalar),
        };
        let at_path = Column { class: Class::Json, ..column.clone() };
        let compared = if path.is_empty() { column } else { &at_path };
        let any_of =
            scalars.iter().map(|scalar| wanted_value(scalar, name, compared, place)).collect::<Result<_, _>>()?;
        Ok(self.asking(index, path, any_of, negated))
    }

    /// A column, or `column->step->step` into one of json or text. A column whose own name holds an arrow wins.
    pub(crate) fn column_and_path(&self, name: &str, place: &str) -> Result<(usize, Vec<String>), Flaw> {
        if let Some(index) = self.find(name) {
            return Ok((index, Vec::new()));
        }
        let mut steps = name.split("->").map(str::to_owned);
        let index = self.column(&steps.next().unwrap_or_default(), place)?;
        let column = &self.columns[index];
        if !matches!(column.class, Class::Json | Class::Text | Class::PaddedText) {
            return Err(Flaw::wrong_type(format!("\"{name}\" of {place} is a path into a column that holds no json"))
                .detail(format!("Column \"{}\" is of type {}.", column.name, column.type_name))
                .hint("A path leads into json, jsonb, and text that holds json."));
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
                .hint(
                    "\"safety_passed\" is boolean; \"customer\", \"model\" and \"stage\" are text, uuid, an \
                     integer or an enum.",
                ));
        }
        Ok(Some(index))
    }
}

/// The kind and the tag of the event of that name, which has `tag` if it names none; `None` is `ignore`.
fn name_of(name: &str, tag: &TagOrigin, place: &str) -> Result<Option<(Kind, TagOrigin)>, Flaw> {
    if name == "ignore" {
        return Ok(None);
    }
    let Name { kind, tag: own } = Name::read(name, &Kind::ALL, Some("ignore"), place)?;
    Ok(Some((kind, own.map_or_else(|| tag.clone(), TagOrigin::Constant))))
}

fn no_column_of_time(wanted_by: &str) -> Flaw {
    Flaw::invalid(format!("{wanted_by} is not the name of a column, nor an object of \"column\" and \"epoch\""))
        .hint("For example: \"occurred_at\": {\"column\": \"created\", \"epoch\": \"seconds\"}.")
}

pub(crate) fn wanted_value(scalar: &Json, name: &str, column: &Column, place: &str) -> Result<Wanted, Flaw> {
    let mismatch = |hint: &str| {
        Err(Flaw::wrong_type(format!("{scalar} of {place} cannot be compared with \"{name}\""))
            .detail(format!("Column \"{}\" is of type {}.", column.name, column.type_name))
            .hint(hint))
    };
    if scalar.is_null() {
        return Ok(Wanted::Null);
    }
    match (&column.class, scalar) {
        (_, Json::Array(_) | Json::Object(_)) => {
            mismatch("Compare with a string, a number, true, false, null, a list of these, or {\"not\": any of these}.")
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
        (Class::Numeric, Json::Number(number)) => match exact_number(number.as_str()) {
            Some(number) => Ok(Wanted::Number(number)),
            None => mismatch("Write a number of at most 28 digits."),
        },
        (Class::Json, Json::String(text)) => Ok(Wanted::Text(text.clone())),
        (Class::Json, Json::Bool(truth)) => Ok(Wanted::Boolean(*truth)),
        (Class::Json, Json::Number(number)) => match exact_number(number.as_str()) {
            Some(number) => Ok(Wanted::Number(number)),
            None => mismatch("Write a number of at most 28 digits."),
        },
        (Class::Integer { .. } | Class::Numeric, _) => mismatch("Write it as a json number, without quotes."),
        (Class::Uuid | Class::Enum(_), _) => mismatch("Write it as a json string."),
        _ => mismatch(
            "A rule compares text, varchar, char, uuid, integers, numeric, boolean, enums and json scalars, \
             and domains over these. Of any other type it can ask for null, or {\"not\": null}.",
        ),
    }
}
