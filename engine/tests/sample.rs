//! Do the parts of the sample data equal those of an independent implementation of the rules?

mod common;

use chrono::{DateTime, Utc};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::fold::{Conversation, Effect, Part};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::policy::Policy;
use talkmeter_engine::verdict::Verdict;

type Conversations = BTreeMap<(String, String), Vec<Event>>;

fn rows(name: &str) -> Vec<csv::StringRecord> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data").join(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    csv::Reader::from_reader(GzDecoder::new(file)).records().map(|row| row.expect("a row")).collect()
}

fn time(text: &str) -> Instant {
    let text = text.replace(' ', "T");
    let text = text.strip_suffix("+00").map(|text| format!("{text}Z")).unwrap_or(text);
    text.parse::<DateTime<Utc>>().expect("a time").into()
}

fn shown(instant: Option<Instant>) -> String {
    let Some(instant) = instant else { return String::new() };
    let text = instant.calendar().expect("in range").format("%F %T%.6f").to_string();
    format!("{}+00", text.strip_suffix(".000000").unwrap_or(&text))
}

fn conversations(rows: Vec<csv::StringRecord>, event: impl Fn(&csv::StringRecord) -> Event) -> Conversations {
    let mut all = Conversations::new();
    for row in &rows {
        all.entry((row[1].to_owned(), row[2].to_owned())).or_default().push(event(row));
    }
    all
}

fn irc_support() -> Conversations {
    conversations(rows("irc_support.csv.gz"), |row| {
        let kind = match (&row[5], &row[4]) {
            ("close", _) => Kind::Close,
            ("join" | "notice", _) => Kind::SystemMessage,
            (_, "customer") => Kind::CustomerMessage,
            (_, "ai") => Kind::AiReply,
            (_, sender) => {
                assert_eq!(sender, "staff");
                Kind::StaffReply
            }
        };
        Event { at: time(&row[3]), kind, excluded: false }
    })
}

fn rules() -> Conversations {
    conversations(rows("rules.csv.gz"), |row| Event {
        at: time(&row[3]),
        kind: Kind::named(&row[4]).expect("a kind"),
        excluded: &row[5] == "t",
    })
}

fn fold(id: &str, events: &[Event], policy: &Arc<Policy>, swept_to: Instant) -> Vec<Part> {
    let mut conversation = Conversation::default();
    let mut effects = Vec::new();
    for event in events {
        let opener = || Ok::<_, Infallible>(Arc::clone(policy));
        conversation.step(id, event, opener, &mut effects).expect("the policy is known");
    }
    conversation.pass_time(id, swept_to, &mut effects);
    let ended = effects.into_iter().filter_map(|effect| match effect {
        Effect::Ended(part) => Some(part),
        Effect::Charged { .. } => None,
    });
    ended.chain(conversation.open).collect()
}

fn line(tenant: &str, conversation: &str, part: &Part) -> Vec<String> {
    let (billable, because, charged_at) = match part.verdict {
        Some(Verdict::Billable(at)) => ("t", "", Some(at)),
        Some(Verdict::NotBillable(reason)) if part.end.is_some() => ("f", reason.name(), None),
        _ => ("f", "", None),
    };
    vec![
        tenant.into(),
        conversation.into(),
        part.number.to_string(),
        shown(Some(part.started_at)),
        shown(part.first_ai_reply_at),
        shown(Some(part.last_activity_at)),
        shown(part.end.map(|end| end.at)),
        part.end.map_or("", |end| end.reason.name()).into(),
        part.message_count.to_string(),
        part.turn_count.to_string(),
        part.ai_replies.to_string(),
        part.staff_replies.to_string(),
        billable.into(),
        because.into(),
        shown(charged_at),
    ]
}

fn assert_parts(conversations: &Conversations, policy: &Arc<Policy>, swept_to: &str, expected: &str) {
    let mut parts = conversations.iter().flat_map(|((tenant, id), events)| {
        fold(id, events, policy, time(swept_to)).into_iter().map(move |part| line(tenant, id, &part))
    });
    for row in rows(expected) {
        let row: Vec<String> = row.iter().map(String::from).collect();
        assert_eq!(parts.next(), Some(row), "{expected}");
    }
    assert_eq!(parts.next(), None, "{expected} ends earlier");
}

#[test]
fn the_parts_of_irc_support_are_the_expected_ones_for_each_policy() {
    let conversations = irc_support();
    for policy in common::all() {
        let expected = format!("expected/parts_{}.csv.gz", policy.name);
        assert_parts(&conversations, &policy, "2026-01-01T00:00:00Z", &expected);
    }
}

#[test]
fn the_parts_of_rules_are_the_expected_ones_for_each_policy() {
    let conversations = rules();
    for policy in common::all() {
        let expected = format!("expected/rules_parts_{}.csv.gz", policy.name);
        assert_parts(&conversations, &policy, "2026-08-01T00:00:00Z", &expected);
    }
}
