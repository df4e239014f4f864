//! Which mark does a change of a status column make (rule 2.9)?
//!
//! The mapping of a status table is one of messages in which each value of the column is a kind and every other value
//! is nothing.

use crate::definition::{object_of, only_known_keys};
use crate::event::{Kind, Name};
use crate::flaw::Flaw;
use crate::instant::Instant;
use crate::mapping::check::{Checker, wanted_value};
use crate::mapping::{Audit, Class, Column, Events, KeyOrigin, KindRule, Mapping, Value};
use serde_json::{Map, Value as Json};

const KEYS: [&str; 6] = ["tenant", "conversation", "status", "column", "occurred_at", "timezone"];

/// Checks the mapping of a status table against its columns. `"status"` says which kind each value means, `"column"`
/// which column holds it (`status` if left out). `"tenant"` is `tenant_id` if left out, `"conversation"` is
/// `conversation_id` or else `id`; without `"occurred_at"` the rows have no time.
pub fn check(mapping: &Json, columns: &[Column]) -> Result<Mapping, Flaw> {
    let mapping = object_of(mapping, "the mapping")?;
    only_known_keys(mapping, "the mapping", &KEYS)?;
    let mut checker = Checker::of(columns);
    let tenant = checker.tenant(mapping)?;
    let conversation = conversation(&mut checker, mapping)?;
    if mapping.contains_key("timezone") && !mapping.contains_key("occurred_at") {
        return Err(Flaw::invalid("\"timezone\" does not apply without \"occurred_at\"")
            .hint("Leave \"timezone\" out: the moment of the change is an instant."));
    }
    let (occurred_at, timezone) = match mapping.contains_key("occurred_at") {
        true => {
            let (time, timezone) = checker.occurred_at(mapping)?;
            checker.timezone(timezone.as_deref(), std::iter::once(time))?;
            (Some(time), timezone)
        }
        false => (None, None),
    };
    let kinds = kinds(&mut checker, mapping)?;
    Ok(Mapping {
        columns: checker.slots,
        asked: checker.asked,
        audit: Audit::default(),
        timezone,
        tenant,
        message_id: conversation.clone(),
        conversation,
        occurred_at,
        order: None,
        kinds,
        excluded: Vec::new(),
    })
}

fn conversation(checker: &mut Checker, mapping: &Map<String, Json>) -> Result<KeyOrigin, Flaw> {
    let default = if checker.find("conversation_id").is_some() { "conversation_id" } else { "id" };
    checker.conversation(mapping, default)
}

/// As [`message_id_alone`](crate::mapping::check::message_id_alone) does: the id of a row is that of its conversation.
pub fn message_id_alone(mapping: &Json, columns: &[Column]) -> Option<(KeyOrigin, Vec<usize>)> {
    let mut checker = Checker::of(columns);
    let message_id = conversation(&mut checker, mapping.as_object()?).ok()?;
    Some((message_id, checker.slots))
}

fn kinds(checker: &mut Checker, mapping: &Map<String, Json>) -> Result<Vec<KindRule>, Flaw> {
    let Some(Json::Object(values)) =
        mapping.get("status").filter(|values| values.as_object().is_some_and(|v| !v.is_empty()))
    else {
        return Err(Flaw::invalid("\"status\" of the mapping is not an object of at least one value")
            .hint("For example: \"status\": {\"resolved\": \"resolve\", \"open\": \"reopen\"}."));
    };
    let index = checker.named_or(mapping, "column", "status")?;
    let mut rules = Vec::new();
    for (value, kind) in values {
        let column = &checker.columns[index];
        let wanted = wanted_value(&scalar(value, &column.class), &column.name, column, "\"status\"")?;
        let when = vec![checker.asking(index, Vec::new(), vec![wanted], false)];
        rules.push(KindRule { when, events: Some(Events::of(mark(kind)?)) });
    }
    rules.push(KindRule { when: Vec::new(), events: None });
    Ok(rules)
}

/// A key of an object is a string, whatever the column is.
fn scalar(value: &str, class: &Class) -> Json {
    match class {
        Class::Integer { .. }
        | Class::Boolean
        | Class::Numeric
        | Class::Float
        | Class::Timestamptz
        | Class::Timestamp => serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned())),
        _ => Json::String(value.to_owned()),
    }
}

fn mark(name: &Json) -> Result<Name, Flaw> {
    let Json::String(name) = name else {
        return Err(Flaw::invalid("\"status\" holds a kind that is not a string"));
    };
    name_of_mark(name)
}

/// The event of that name, if a mark can be of it: of any kind but activity.
pub fn name_of_mark(name: &str) -> Result<Name, Flaw> {
    let known: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !kind.is_activity()).collect();
    let kind = name.split(':').next().unwrap_or(name);
    if Kind::named(kind).is_some_and(Kind::is_activity) {
        let names: Vec<&str> = known.iter().map(|kind| kind.name()).collect();
        return Err(Flaw::invalid(format!("a mark cannot be of kind \"{kind}\""))
            .detail("What customers, AI and staff write is counted from the rows of an attached table.")
            .hint(format!("A mark is one of {}.", names.join(", "))));
    }
    Name::read(name, &known, None, "a mark")
}

/// Whether a mark of this kind ends something: the only ones that a newly inserted row makes.
pub fn ends(kind: Kind) -> bool {
    matches!(kind, Kind::Close | Kind::Resolve | Kind::Escalate)
}

/// A changed row as its mark reads it: the moment of the change counts where the time column is null or was left as it
/// was (rule 2.9.4). `None` if the row's own time counts.
pub fn at_the_moment<'a>(
    mapping: &Mapping,
    old: Option<&[Value]>,
    new: &[Value<'a>],
    moment: Instant,
) -> Option<Vec<Value<'a>>> {
    let time = mapping.occurred_at?;
    let slot = time.slot;
    let is_stale = new[slot] == Value::Null || old.is_some_and(|old| old[slot] == new[slot]);
    is_stale.then(|| {
        let mut row = new.to_vec();
        row[slot] = Value::Time(Some(moment));
        row
    })
}

/// The slot that holds the status, in a mapping that [`check`] made.
pub fn slot(mapping: &Mapping) -> usize {
    mapping.kinds.first().and_then(|rule| rule.when.first()).map_or(0, |condition| condition.found.slot)
}
