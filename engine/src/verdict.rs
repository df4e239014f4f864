//! Is a part billable, and if not, why (SPEC 3.2)?

use crate::fold::Part;
use crate::instant::Instant;
use crate::policy::Policy;

/// Why a part is not billable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ExcludedPrefix,
    Excluded,
    StaffReplied,
    ErrorBeforeReply,
    NoAiReply,
}

impl Reason {
    /// In the order in which they are tried: the first that holds is the reason.
    pub const ALL: [Reason; 5] =
        [Reason::ExcludedPrefix, Reason::Excluded, Reason::StaffReplied, Reason::ErrorBeforeReply, Reason::NoAiReply];

    pub fn name(self) -> &'static str {
        match self {
            Reason::ExcludedPrefix => "excluded_prefix",
            Reason::Excluded => "excluded",
            Reason::StaffReplied => "staff_replied",
            Reason::ErrorBeforeReply => "error_before_reply",
            Reason::NoAiReply => "no_ai_reply",
        }
    }

    pub fn named(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What was decided of a part, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Billable, charged at this instant.
    Billable(Instant),
    NotBillable(Reason),
}

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
