//! Do the parts of the sample data equal those of an independent implementation of the rules?

mod common;

use common::Folding;
use common::data::{Conversations, irc_support, rows, rules, shown, time};
use std::sync::Arc;
use talkmeter_engine::part::{Part, Verdict};
use talkmeter_engine::policy::Policy;

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
        shown(part.end.as_ref().map(|end| end.at)),
        part.end.as_ref().map_or(String::new(), |end| end.reason.name().into_owned()),
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
        let mut folding = Folding::of(id, policy, events);
        folding.pass_time(time(swept_to));
        folding.parts().into_iter().map(move |part| line(tenant, id, &part))
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
        assert_parts(&conversations, &policy, "2026-01-01 00:00:00+00", &expected);
    }
}

#[test]
fn the_parts_of_rules_are_the_expected_ones_for_each_policy() {
    let conversations = rules();
    for policy in common::all() {
        let expected = format!("expected/rules_parts_{}.csv.gz", policy.name);
        assert_parts(&conversations, &policy, "2026-08-01 00:00:00+00", &expected);
    }
}
