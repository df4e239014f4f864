//! What did a transaction do to messages? Noted while it runs, in the words of events; rows that cannot be metered are
//! kept in quarantine.

pub mod entry;
pub mod ingest;
pub mod look_up;
pub mod quarantine;
pub mod queue;
pub mod records;
pub mod status_rows;
