//! What are the published policies (rule 3.3)? Values for tests, behind the feature `testing`.

use crate::event::Kind;
use crate::instant::SECOND;
use crate::outcome::Outcomes;
use crate::policy::{ChargeOn, FinalAfter, Policy};
use crate::selector::Selector;
use std::sync::Arc;

/// Billed at the first AI reply; 30 minutes without activity end a part.
pub fn lutingenie() -> Arc<Policy> {
    Arc::new(Policy {
        name: "lutingenie".into(),
        version: 1,
        starts_on: vec![Kind::CustomerMessage.into()],
        ends_on: [Kind::Close, Kind::Resolve, Kind::NewTopic].map(Selector::from).to_vec(),
        idle_timeout: Some(30 * 60 * SECOND),
        quiet_review_after: None,
        max_duration: None,
        turn_limit: None,
        charge_on: ChargeOn::FirstAiReply,
        outcomes: Outcomes::default(),
        final_after: FinalAfter::End,
        once_per_conversation: false,
        staff_reply_blocks: false,
        error_before_reply_waives: false,
        exclude_prefixes: vec![],
    })
}

/// As [`lutingenie`], with a limit of turns, errors that waive and conversations that are never charged.
pub fn agent_red() -> Arc<Policy> {
    Arc::new(Policy {
        name: "agent_red".into(),
        ends_on: [Kind::Close, Kind::Escalate].map(Selector::from).to_vec(),
        turn_limit: Some(50),
        error_before_reply_waives: true,
        exclude_prefixes: ["test_", "admin_", "health_", "system_"].map(String::from).to_vec(),
        ..(*lutingenie()).clone()
    })
}

/// Billed when a part ends that no staff answered; three quiet hours end it.
pub fn ai_resolution() -> Arc<Policy> {
    Arc::new(Policy {
        name: "ai_resolution".into(),
        starts_on: [Kind::CustomerMessage, Kind::StaffReply, Kind::Reopen].map(Selector::from).to_vec(),
        ends_on: [Kind::Close, Kind::Resolve].map(Selector::from).to_vec(),
        idle_timeout: None,
        quiet_review_after: Some(3 * 60 * 60 * SECOND),
        charge_on: ChargeOn::Close,
        staff_reply_blocks: true,
        ..(*lutingenie()).clone()
    })
}

/// The three of them.
pub fn all() -> [Arc<Policy>; 3] {
    [lutingenie(), agent_red(), ai_resolution()]
}
