//! Is a part billable, and if not, why (rule 3.2)?

use crate::instant::Instant;
use crate::part::{Part, Reason, Verdict};
use crate::policy::{ChargeOn, Policy};
use std::sync::Arc;

/// What is decided of a part, and the outcome that says so, if one is named.
pub type Judgment = (Verdict, Option<Arc<str>>);

/// When a part is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At the event that `charge_on` names.
    Reached,
    /// At its end, without having been judged before.
    End,
}

/// Judges `part` on the events it has counted so far; `at` is its charge instant if it is billable.
pub fn judge(part: &Part, conversation: &str, moment: Moment, at: Instant) -> Judgment {
    let policy = &part.policy;
    if let Some(reason) = in_spite_of_outcomes(part, policy, conversation) {
        return (Verdict::NotBillable(reason), None);
    }
    if moment == Moment::End {
        match policy.charge_on {
            ChargeOn::Close => {}
            ChargeOn::FirstAiReply => return (Verdict::NotBillable(Reason::NoAiReply), None),
            ChargeOn::Start | ChargeOn::FirstOf(_) => return (Verdict::NotBillable(Reason::NotReached), None),
        }
    }
    by_outcome(part, policy, at)
}

/// The first reason that applies whatever the outcomes say (rule 3.2.4).
fn in_spite_of_outcomes(part: &Part, policy: &Policy, conversation: &str) -> Option<Reason> {
    let reasons = [Reason::ExcludedPrefix, Reason::Excluded, Reason::StaffReplied, Reason::ErrorBeforeReply];
    reasons.into_iter().find(|reason| match reason {
        Reason::ExcludedPrefix => policy.excludes(conversation),
        Reason::Excluded => part.excluded,
        Reason::StaffReplied => policy.staff_reply_blocks && part.staff_replies > 0,
        Reason::ErrorBeforeReply => policy.error_before_reply_waives && part.error_before_reply,
        _ => false,
    })
}

fn by_outcome(part: &Part, policy: &Policy, at: Instant) -> Judgment {
    if policy.outcomes.is_empty() {
        return match part.ai_replies {
            0 => (Verdict::NotBillable(Reason::NoAiReply), None),
            _ => (Verdict::Billable(at), None),
        };
    }
    let (_, outcome) = policy.outcomes.of(part.facts());
    let verdict = if outcome.counts { Verdict::Billable(at) } else { Verdict::NotBillable(Reason::Outcome) };
    (verdict, outcome.name)
}
