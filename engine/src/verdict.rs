//! Is a part billable, and if not, why (rule 3.2)?

use crate::event::Kind;
use crate::instant::Instant;
use crate::part::{Judgment, Part, Reason, Verdict};
use crate::policy::{ChargeOn, Policy};

/// Judges `part` on the events it has counted so far; `at` is its charge instant if it is billable.
pub fn judge(part: &Part, conversation: &str, at: Instant) -> Judgment {
    let policy = &part.policy;
    if let Some(reason) = in_spite_of_outcomes(part, policy, conversation) {
        return Verdict::NotBillable(reason).into();
    }
    match policy.charge_on {
        ChargeOn::FirstAiReply if !part.is_reached() => Verdict::NotBillable(Reason::NoAiReply).into(),
        ChargeOn::FirstOf(_) if !part.is_reached() => Verdict::NotBillable(Reason::NotReached).into(),
        _ => by_outcome(part, policy, at),
    }
}

/// The first reason that applies whatever the outcomes say (rule 3.2.4).
fn in_spite_of_outcomes(part: &Part, policy: &Policy, conversation: &str) -> Option<Reason> {
    let reasons = [
        Reason::ExcludedPrefix,
        Reason::Excluded,
        Reason::AlreadyCharged,
        Reason::StaffReplied,
        Reason::ErrorBeforeReply,
    ];
    reasons.into_iter().find(|reason| match reason {
        Reason::ExcludedPrefix => policy.excludes(conversation),
        Reason::Excluded => part.excluded,
        Reason::AlreadyCharged => policy.once_per_conversation && part.charged_before,
        Reason::StaffReplied => policy.staff_reply_blocks && part.has_any(Kind::StaffReply),
        Reason::ErrorBeforeReply => policy.error_before_reply_waives && part.error_before_reply,
        _ => false,
    })
}

fn by_outcome(part: &Part, policy: &Policy, at: Instant) -> Judgment {
    if policy.outcomes.is_empty() {
        return match part.has_any(Kind::AiReply) {
            false => Verdict::NotBillable(Reason::NoAiReply).into(),
            true => Verdict::Billable(at).into(),
        };
    }
    let (rule, outcome) = policy.outcomes.of(part.facts());
    let verdict = if outcome.counts { Verdict::Billable(at) } else { Verdict::NotBillable(Reason::Outcome) };
    Judgment { verdict, rule: Some(rule as i32), outcome: outcome.name }
}
