//! How is PostgreSQL spoken to? The only door: whatever is above asks here, and nothing here knows what is above.

pub mod answer;
pub mod clock;
pub mod databases;
pub mod document;
pub mod error;
pub mod jsonb;
pub mod limit;
pub mod locks;
pub mod memory;
pub mod own_table;
pub mod procedure;
pub mod process;
pub mod progress;
pub mod relation;
pub mod rights;
pub mod row;
pub mod row_trigger;
pub mod settings;
pub mod spool;
pub mod sql;
pub mod subtransaction;
pub mod tags;
pub mod trigger;
pub mod turn;
pub mod writers;
