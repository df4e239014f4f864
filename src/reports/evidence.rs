//! How are the lines of a frozen statement chained (rule 4.6.16)? One by one: of a million charges each is a line.

use crate::pg::digest::sha256;
use pgrx::prelude::*;

/// The SHA-256 of a digest, 32 bytes or none, followed by the bytes of a line.
#[pg_extern(sql = false)]
fn chain_link(digest: &[u8], content: &str) -> Vec<u8> {
    sha256(&[digest, content.as_bytes()].concat())
}
