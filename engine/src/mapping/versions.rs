//! By which version of a mapping is a row read? By the one that is in force at the row's own time (rule 2.11).

use crate::instant::Instant;
use crate::mapping::{Mapping, Reading, Readings, Refusal, Value};
use std::ops::Range;

/// A mapping that is in force for rows of its `since` or later.
#[derive(Clone, Debug, PartialEq)]
struct Version {
    since: Instant,
    /// Where the values of its slots are among those of a row.
    slots: Range<usize>,
    /// `None` if the table has not the columns any more that it names.
    mapping: Option<Mapping>,
}

/// The versions of a mapping. A row has the values of the slots of each, one behind the other, the newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Versions {
    newest: Mapping,
    since: Instant,
    /// The newest of them first.
    earlier: Vec<Version>,
}

impl Versions {
    /// Of the newest, in force from `since` on, and those before it, the newest of them first.
    pub fn of(newest: Mapping, since: Instant, earlier: Vec<(Instant, Option<Mapping>)>) -> Versions {
        let mut end = newest.columns.len();
        let version = |(since, mapping): (Instant, Option<Mapping>)| {
            let start = end;
            end += mapping.as_ref().map_or(0, |mapping| mapping.columns.len());
            Version { since, slots: start..end, mapping }
        };
        Versions { earlier: earlier.into_iter().map(version).collect(), since, newest }
    }

    /// The version by which rows of now are read.
    pub fn newest(&self) -> &Mapping {
        &self.newest
    }

    /// All that can be read of a row by the version that is in force at its time, but for events that have times of
    /// their own. Arguments as of [`Mapping::read`].
    pub fn read<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Reading<'a> {
        self.pick(row, latest).1
    }

    /// All that can be read of a row, by the version that is in force at its time.
    pub fn readings<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> Readings<'a> {
        self.pick_all(row, latest).1
    }

    /// As [`Versions::readings`], with the place of the version as [`Versions::pick`] tells it.
    pub fn pick_all<'a>(&'a self, values: &'a [Value<'a>], latest: Instant) -> (usize, Readings<'a>) {
        let (place, row) = self.pick(values, latest);
        let own = if row.event.is_some() { self.own_times(place, values, &row, latest) } else { Vec::new() };
        (place, Readings { row, own })
    }

    fn own_times<'a>(
        &'a self,
        place: usize,
        values: &'a [Value<'a>],
        row: &Reading<'a>,
        latest: Instant,
    ) -> Vec<Reading<'a>> {
        let mut earlier = self.earlier.iter().filter_map(|version| Some((version.mapping.as_ref()?, &version.slots)));
        match place.checked_sub(1) {
            None => self.newest.own_times(values, row, latest),
            Some(place) => earlier
                .nth(place)
                .map_or_else(Vec::new, |(mapping, slots)| mapping.own_times(&values[slots.clone()], row, latest)),
        }
    }

    /// As [`Versions::read`], with the place of the version that reads the row, of those that can be read: 0 is the
    /// newest. Of a row that has no time by any of them, the newest says so.
    pub fn pick<'a>(&'a self, row: &'a [Value<'a>], latest: Instant) -> (usize, Reading<'a>) {
        let newest = self.newest.read(row, latest);
        if self.earlier.is_empty() || newest.at.is_some_and(|at| at >= self.since) {
            return (0, newest);
        }
        self.pick_earlier(row, latest, newest)
    }

    fn pick_earlier<'a>(&'a self, row: &'a [Value<'a>], latest: Instant, newest: Reading<'a>) -> (usize, Reading<'a>) {
        let has_time = newest.at.is_some();
        let mut found = (0, newest);
        let mut place = 0;
        for version in &self.earlier {
            let in_force = |at: Option<Instant>| at.is_some_and(|at| at >= version.since);
            let Some(mapping) = &version.mapping else {
                // What it would have read is not known.
                if in_force(found.1.at) {
                    found.1.ignored = false;
                    found.1.event = None;
                    found.1.refusal = Some(Refusal::MappingBroken);
                    return found;
                }
                continue;
            };
            place += 1;
            let reading = mapping.read(&row[version.slots.clone()], latest);
            let is_it = in_force(reading.at);
            if is_it || has_time {
                found = (place, reading);
            }
            if is_it {
                return found;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::mapping::{Class, Column};
    use proptest::prelude::*;
    use serde_json::json;
    use std::borrow::Cow;

    /// A mapping that reads the time from a column, and takes all rows for events of a kind.
    fn mapping(time: &str, kind: &str) -> Mapping {
        let column = |name: &str, class| Column { name: name.to_owned(), class, type_name: String::new() };
        let columns = [
            column("tenant_id", Class::Text),
            column("conversation_id", Class::Text),
            column("id", Class::Text),
            column(time, Class::Timestamptz),
        ];
        Mapping::check(&json!({"occurred_at": time, "kinds": [{"kind": kind}]}), &columns).expect("a mapping")
    }

    /// The values of the slots of one version.
    fn values(at: Option<i64>) -> Vec<Value<'static>> {
        let text = |text: &'static str| Value::Text(Cow::Borrowed(text));
        let time = at.map_or(Value::Null, |at| Value::Time(Some(Instant(at))));
        vec![text("acme"), text("c"), text("1"), time]
    }

    fn read(versions: &Versions, times: &[Option<i64>]) -> (usize, Option<Refusal>, Vec<Kind>) {
        let row: Vec<Value> = times.iter().flat_map(|at| values(*at)).collect();
        let (version, reading) = versions.pick(&row, Instant::LATEST);
        (version, reading.refusal, reading.kinds.to_vec())
    }

    const BEGINNING: Instant = Instant::BEGINNING;

    #[test]
    fn a_row_is_read_by_the_version_of_its_own_time() {
        let earlier = vec![
            (Instant(20), Some(mapping("created_at", "ai_reply"))),
            (BEGINNING, Some(mapping("created_at", "note"))),
        ];
        let versions = Versions::of(mapping("created_at", "customer_message"), Instant(30), earlier);
        let at = |at: Option<i64>| read(&versions, &[at; 3]);
        assert_eq!(at(Some(30)), (0, None, vec![Kind::CustomerMessage]));
        assert_eq!(at(Some(29)), (1, None, vec![Kind::AiReply]));
        assert_eq!(at(Some(20)), (1, None, vec![Kind::AiReply]));
        assert_eq!(at(Some(19)), (2, None, vec![Kind::Note]));
        assert_eq!(at(None), (0, Some(Refusal::NullKey), vec![Kind::CustomerMessage]));
    }

    proptest! {
        /// Of any versions the one is in force whose since is the latest that is not after the row.
        #[test]
        fn the_latest_version_that_is_not_later_than_the_row_reads_it(
            mut sinces in proptest::collection::btree_set(1..40_i64, 0..5),
            newest in 40..50_i64,
            at in 0..60_i64,
        ) {
            sinces.insert(0);
            let note = || Some(mapping("created_at", "note"));
            let earlier: Vec<_> = sinces.iter().rev().map(|since| (Instant(*since), note())).collect();
            let slots = vec![Some(at); earlier.len() + 1];
            let versions = Versions::of(mapping("created_at", "ai_reply"), Instant(newest), earlier);
            let later = sinces.iter().filter(|since| **since > at).count();
            let wanted = if at >= newest { 0 } else { 1 + later };
            prop_assert_eq!(read(&versions, &slots).0, wanted);
        }
    }

    #[test]
    fn each_version_reads_the_time_from_its_own_column() {
        let earlier = vec![(BEGINNING, Some(mapping("created_at", "note")))];
        let versions = Versions::of(mapping("sent_at", "customer_message"), Instant(30), earlier);
        assert_eq!(read(&versions, &[Some(30), Some(1)]).0, 0);
        assert_eq!(read(&versions, &[None, Some(40)]).0, 1);
        assert_eq!(read(&versions, &[Some(29), Some(40)]).0, 1);
        assert_eq!(read(&versions, &[Some(29), None]), (1, Some(Refusal::NullKey), vec![Kind::Note]));
    }

    #[test]
    fn a_row_of_the_time_of_a_version_that_cannot_be_read_is_refused() {
        let earlier = vec![(Instant(20), None), (BEGINNING, Some(mapping("created_at", "note")))];
        let versions = Versions::of(mapping("created_at", "customer_message"), Instant(30), earlier);
        let at = |at| read(&versions, &[Some(at); 2]);
        assert_eq!(at(30).1, None);
        assert_eq!(at(20).1, Some(Refusal::MappingBroken));
        assert_eq!(at(19), (1, None, vec![Kind::Note]));
    }
}
