//! What is the SHA-256 of some bytes? The server's own function says.

use pgrx::IntoDatum;
use pgrx::pg_sys;

/// 32 bytes.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    // SAFETY: a function of the server's that takes one bytea and returns one, never null.
    let digest = unsafe { pgrx::direct_function_call(pg_sys::sha256_bytea, &[bytes.into_datum()]) };
    digest.expect("a digest")
}
