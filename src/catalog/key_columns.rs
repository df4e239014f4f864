//! How does a statement find rows by a key, which one column holds or several make (rule 2.5)?

use crate::pg::relation::{TableColumn, quoted};
use crate::pg::sql::{Arg, arg};
use std::borrow::Cow;
use talkmeter_engine::mapping::key::parted;
use talkmeter_engine::mapping::{Class, KeyOrigin, Mapping};

/// What a key is made of, in a table as it is now.
#[derive(Debug)]
pub struct KeyColumns {
    way: Way,
    columns: Vec<KeyColumn>,
}

#[derive(Debug)]
enum Way {
    Constant(String),
    One,
    Joined,
    FirstOf,
}

#[derive(Debug)]
struct KeyColumn {
    /// As the statements name it.
    name: String,
    class: Class,
}

impl KeyColumns {
    /// `now` says which column of the table one of the mapping is; `None` if it is none of them.
    pub fn of<'c>(
        key: &KeyOrigin,
        mapping: &Mapping,
        now: impl Fn(usize) -> Option<&'c TableColumn>,
    ) -> Option<KeyColumns> {
        let way = match key {
            KeyOrigin::Constant(text) => Way::Constant(text.clone()),
            KeyOrigin::Slot(_) => Way::One,
            KeyOrigin::Joined(_) => Way::Joined,
            KeyOrigin::FirstOf(_) => Way::FirstOf,
        };
        let column = |index| now(index).map(|found| KeyColumn { name: name(found), class: found.seen.class.clone() });
        let columns: Option<Vec<KeyColumn>> = mapping.columns_of(key).into_iter().map(column).collect();
        Some(KeyColumns { way, columns: columns? })
    }

    /// What the columns hold in rows of that key, or may hold; `None` if they can hold no such key.
    fn values<'k>(&self, key: &'k str) -> Option<Vec<Option<Cow<'k, str>>>> {
        let can_hold = |(column, value): (&KeyColumn, &Cow<str>)| column.class.can_hold(value);
        let values: Vec<Cow<str>> = match &self.way {
            Way::Constant(text) => return (text == key).then(Vec::new),
            Way::FirstOf => {
                let value = |column: &KeyColumn| column.class.can_hold(key).then_some(Cow::Borrowed(key));
                let values: Vec<_> = self.columns.iter().map(value).collect();
                return values.iter().any(Option::is_some).then_some(values);
            }
            Way::One => vec![Cow::Borrowed(key)],
            Way::Joined => parted(key, self.columns.len())?.into_iter().map(Cow::Owned).collect(),
        };
        let all = self.columns.iter().zip(&values).all(can_hold);
        all.then(|| values.into_iter().map(Some).collect())
    }

    /// Whether the columns can hold that key.
    pub fn can_hold(&self, key: &str) -> bool {
        self.values(key).is_some()
    }

    /// What the columns hold in rows of these keys: a list of texts for each column. Each of the keys can be held.
    pub fn args<'k>(&self, keys: impl Iterator<Item = &'k str>) -> Vec<Arg> {
        let of_keys: Vec<_> = keys.map(|key| self.values(key).unwrap_or_default()).collect();
        let of_column = |index: usize| {
            let values = of_keys.iter().map(|values| values.get(index).and_then(Option::as_deref));
            arg(values.collect::<Vec<Option<&str>>>())
        };
        (0..self.columns.len()).map(of_column).collect()
    }

    /// The names of the lists, for a key of that name.
    pub fn names(&self, key: &str) -> Vec<String> {
        (1..=self.columns.len()).map(|number| format!("{key}_{number}")).collect()
    }

    /// The condition that a row has the key whose values are in the lists of those names; empty if each row has it. Of
    /// several columns the key of which is the first that is not empty it may hold too often.
    pub fn condition(&self, key: &str) -> Option<String> {
        let names = self.names(key);
        let equal: Vec<String> =
            self.columns.iter().zip(names).map(|(column, name)| equals(column, &format!("wanted.{name}"))).collect();
        match &self.way {
            Way::Constant(_) => None,
            Way::One | Way::Joined => Some(equal.join(" AND ")),
            Way::FirstOf => Some(format!("({})", equal.join(" OR "))),
        }
    }

    /// The key of a row as text.
    pub fn text(&self) -> String {
        let text = |column: &KeyColumn| format!("CAST({} AS pg_catalog.text)", column.name);
        match &self.way {
            Way::Constant(text) => pgrx::spi::quote_literal(text),
            Way::One | Way::FirstOf => {
                let filled = |column: &KeyColumn| {
                    let text = text(column);
                    format!("CASE WHEN {text} OPERATOR(pg_catalog.<>) '' THEN {text} END")
                };
                match self.columns.as_slice() {
                    [column] => text(column),
                    columns => format!("COALESCE({})", columns.iter().map(filled).collect::<Vec<_>>().join(", ")),
                }
            }
            Way::Joined => {
                let escaped = |column: &KeyColumn| {
                    let percent = format!("pg_catalog.replace({}, '%', '%25')", text(column));
                    format!("pg_catalog.replace({percent}, '/', '%2F')")
                };
                let parts: Vec<String> = self.columns.iter().map(escaped).collect();
                parts.join(" OPERATOR(pg_catalog.||) '/' OPERATOR(pg_catalog.||) ")
            }
        }
    }

    /// The columns, one after the other, the greatest first.
    pub fn descending(&self) -> String {
        self.columns.iter().map(|column| format!("{} DESC", column.name)).collect::<Vec<_>>().join(", ")
    }
}

/// A column as the statements name it.
pub fn name(column: &TableColumn) -> String {
    format!("message.{}", quoted(&column.seen.name))
}

/// A comparison by the server's own operator, which an index on the column can serve.
fn equals(column: &KeyColumn, with: &str) -> String {
    let as_its_type = match column.class {
        Class::Uuid => format!("CAST({with} AS pg_catalog.uuid)"),
        Class::Integer { .. } => format!("CAST({with} AS pg_catalog.int8)"),
        _ => with.to_owned(),
    };
    format!("{} OPERATOR(pg_catalog.=) {as_its_type}", column.name)
}
