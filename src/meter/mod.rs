//! How do events become parts? Folded under the conversation's lock, at commit, by a sweep, or again when one is late.

pub mod archived;
pub mod asides;
pub mod batch;
pub mod commit;
pub mod folding;
pub mod history;
pub mod known;
pub mod part_table;
pub mod refold;
pub mod reread;
pub mod scan;
pub mod span;
pub mod work;
