//! What does a commit post to the ledger? Units to be charged, and parts whose charges are to be settled.

use crate::pg::groups::{Groups, Ordered};
use serde::{Deserialize, Serialize};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};

/// Tenant, conversation and number of a part.
pub type PartKey<'a> = (&'a str, &'a str, i32);

/// A billable part, not yet charged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unit {
    pub tenant: String,
    pub conversation: String,
    pub part: i32,
    /// Its charge instant.
    pub at: Instant,
    pub policy: String,
    pub policy_version: i32,
    /// Its outcome, if its policy names one: an overage unit may have a rate by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The plan to which its source subscribes a tenant that has none.
    pub default_plan: Option<String>,
    /// It waits for a backfill, and is not charged now.
    pub awaits: Option<Awaits>,
    /// The part may have a charge that stands: then it is not charged again.
    pub unless_standing: bool,
}

/// The backfill that charges a unit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Awaits {
    pub source: i32,
    /// An instant of the span that is backfilled.
    pub at: Instant,
}

impl Unit {
    pub fn part(&self) -> PartKey<'_> {
        (&self.tenant, &self.conversation, self.part)
    }

    /// The order in which the charges of one commit are drawn (rule 4.3.6).
    pub fn order(&self) -> (&str, Instant, &str, i32) {
        (&self.tenant, self.at, &self.conversation, self.part)
    }
}

/// A part that was folded again: its charge, if it has one, is taken back unless it is the one that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settle {
    tenant: String,
    conversation: String,
    part: i32,
    pub wanted: Option<Terms>,
    pub why: Why,
    /// The event for which it was folded again, or that took its unit back; `None` if somebody did.
    pub cause: Option<Cause>,
}

/// Why a charge is taken back without anybody's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    Refold,
    /// An event did it, as the policy says (rule 3.9.4).
    Voided,
}

impl Why {
    /// As the ledger says it.
    pub fn name(self) -> &'static str {
        match self {
            Why::Refold => "refold",
            Why::Voided => "voided",
        }
    }
}

/// An event that came late, was changed or has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its attached table; 0 for a mark.
    pub source: i32,
    /// The id of its row, or the number of the mark.
    pub message: Option<String>,
    pub at: Instant,
}

impl Cause {
    /// The event at a place of its conversation.
    pub fn at_place(place: &[u8]) -> Cause {
        let place = order::key(place);
        Cause { source: place.source(), message: place.message().map(|message| message.text()), at: place.at() }
    }
}

/// What makes a charge the wanted one, besides the period of its instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub at: Instant,
    pub policy: String,
    pub policy_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

impl Settle {
    /// The postings by which a part comes to have the charge that is wanted, or none.
    pub fn of(
        (tenant, conversation, part): PartKey,
        wanted: Option<Unit>,
        why: Why,
        cause: Option<Cause>,
    ) -> Vec<Posting> {
        let settle = Settle {
            tenant: tenant.to_owned(),
            conversation: conversation.to_owned(),
            part,
            wanted: wanted.as_ref().map(|unit| Terms {
                at: unit.at,
                policy: unit.policy.clone(),
                policy_version: unit.policy_version,
                outcome: unit.outcome.clone(),
            }),
            why,
            cause,
        };
        let charge = wanted.map(|unit| Posting::Charge(Unit { unless_standing: true, ..unit }));
        [Some(Posting::Settle(settle)), charge].into_iter().flatten().collect()
    }
}

/// Something that a commit posts to the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Posting {
    Charge(Unit),
    Settle(Settle),
}

impl Posting {
    pub fn tenant(&self) -> &str {
        match self {
            Posting::Charge(unit) => &unit.tenant,
            Posting::Settle(settle) => &settle.tenant,
        }
    }

    pub fn part(&self) -> PartKey<'_> {
        match self {
            Posting::Charge(unit) => unit.part(),
            Posting::Settle(settle) => (&settle.tenant, &settle.conversation, settle.part),
        }
    }
}

/// Postings on their way to the ledger: there may be more than memory should hold.
#[derive(Default)]
pub struct Postings(Groups);

impl Postings {
    /// By tenants. The bytes of a record are ordered as [`Unit::order`] is; what is taken back comes before all that is
    /// drawn, but for what an event has voided, which may be a unit of this very work. No text holds a zero byte.
    pub fn push(&mut self, posting: &Posting) {
        let at = match posting {
            Posting::Charge(unit) => unit.at,
            Posting::Settle(Settle { why: Why::Voided, cause: Some(cause), .. }) => cause.at,
            Posting::Settle(_) => Instant::BEGINNING,
        };
        let (tenant, conversation, part) = posting.part();
        let json = serde_json::to_vec(posting).expect("plain data");
        self.0.push(
            &[tenant.as_bytes()],
            &[&OrderKey::floor(at), conversation.as_bytes(), &[0], &part.to_be_bytes(), &json],
        );
    }

    pub fn in_order(&self) -> InOrder<'_> {
        InOrder(self.0.ordered())
    }

    /// They are posted: their file is given back.
    pub fn close(mut self) {
        self.0.close();
    }
}

/// Postings in the order in which they are posted.
pub struct InOrder<'a>(Ordered<'a>);

impl InOrder<'_> {
    /// The next ones, at most so many; none if there are no more.
    pub fn some(&mut self, most: usize) -> Vec<Posting> {
        let mut postings = Vec::new();
        let mut record = Vec::new();
        while postings.len() < most && self.0.append_next(&mut record).is_some() {
            postings.push(read_posting(&record).expect("a posting was written"));
            record.clear();
        }
        postings
    }
}

fn read_posting(record: &[u8]) -> Option<Posting> {
    let after_time = record.get(size_of::<i64>()..)?;
    let conversation = after_time.iter().position(|byte| *byte == 0)?;
    serde_json::from_slice(after_time.get(conversation + 1 + size_of::<i32>()..)?).ok()
}
