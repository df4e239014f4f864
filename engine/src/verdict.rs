//! Is a part billable, and if not, why (rule 3.2)?

use crate::instant::Instant;
use crate::part::{Part, Reason, Verdict};
use crate::policy::Policy;

/// Judges `part` on the events it has counted so far; `at` is its charge instant if it is billable.
pub fn judge(part: &Part, policy: &Policy, conversation: &str, at: Instant) -> Verdict {
    let against = Reason::ALL.into_iter().find(|reason| match reason {
        Reason::ExcludedPrefix => policy.excludes(conversation),
        Reason::Excluded => part.excluded,
        Reason::StaffReplied => policy.staff_reply_blocks && part.staff_replies > 0,
        Reason::ErrorBeforeReply => policy.error_before_reply_waives && part.error_before_reply,
        Reason::NoAiReply => part.ai_replies == 0,
    });
    match against {
        Some(reason) => Verdict::NotBillable(reason),
        None => Verdict::Billable(at),
    }
}
