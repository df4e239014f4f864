//! What was billed, why, and what would have been? Reads only, also on a standby.

mod audit;
mod calendar;
mod evidence;
mod explain;
pub mod recount;
mod simulate;
pub mod uncounted;
