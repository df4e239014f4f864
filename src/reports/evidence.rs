//! How are the lines of a frozen statement made and chained (rule 4.6.16)? Of a million charges each is one.

use crate::catalog::args::required;
use crate::pg::digest::sha256;
use pgrx::prelude::*;
use serde::Serialize;

/// The SHA-256 of a digest, 32 bytes or none, followed by the bytes of a line.
#[pg_extern(sql = false)]
fn chain_link(digest: &[u8], content: &str) -> Vec<u8> {
    sha256(&[digest, content.as_bytes()].concat())
}

/// What a charge is for: what its evidence names by a digest only, so that it can be forgotten (rule 4.7.3).
#[derive(Serialize)]
struct Subject<'s> {
    conversation: &'s str,
    cause_message_id: Option<&'s str>,
}

/// The subject of a charge as one line of JSON: its conversation, and the message for which it was taken back, if one
/// was the cause.
#[pg_extern(sql = false)]
fn subject_of(conversation: Option<&str>, cause_message_id: Option<&str>) -> String {
    let conversation = required(conversation, "conversation");
    serde_json::to_string(&Subject { conversation, cause_message_id }).expect("texts become JSON")
}
