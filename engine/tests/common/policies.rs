//! What are the published policies (SPEC 3.3), as the engine takes them?

#![allow(dead_code, reason = "each test file is a crate of its own and uses only a part of this")]

use std::sync::Arc;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::SECOND;
use talkmeter_engine::policy::{ChargeOn, Policy};

pub fn lutingenie() -> Arc<Policy> {
    Arc::new(Policy {
        name: "lutingenie".into(),
        version: 1,
        starts_on: vec![Kind::CustomerMessage],
        ends_on: vec![Kind::Close, Kind::Resolve, Kind::NewTopic],
        idle_timeout: Some(30 * 60 * SECOND),
        quiet_review_after: None,
        turn_limit: None,
        charge_on: ChargeOn::FirstAiReply,
        staff_reply_blocks: false,
        error_before_reply_waives: false,
        exclude_prefixes: vec![],
    })
}

pub fn agent_red() -> Arc<Policy> {
    Arc::new(Policy {
        name: "agent_red".into(),
        ends_on: vec![Kind::Close, Kind::Escalate],
        turn_limit: Some(50),
        error_before_reply_waives: true,
        exclude_prefixes: ["test_", "admin_", "health_", "system_"].map(String::from).to_vec(),
        ..(*lutingenie()).clone()
    })
}

pub fn ai_resolution() -> Arc<Policy> {
    Arc::new(Policy {
        name: "ai_resolution".into(),
        starts_on: vec![Kind::CustomerMessage, Kind::StaffReply, Kind::Reopen],
        ends_on: vec![Kind::Close, Kind::Resolve],
        idle_timeout: None,
        quiet_review_after: Some(3 * 60 * 60 * SECOND),
        charge_on: ChargeOn::Close,
        staff_reply_blocks: true,
        ..(*lutingenie()).clone()
    })
}

pub fn all() -> [Arc<Policy>; 3] {
    [lutingenie(), agent_red(), ai_resolution()]
}
