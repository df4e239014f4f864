//! Who pays for each billable unit? Accounts are read under their tenant's lock, drawn down, and written with the
//! charges.

pub mod account;
pub mod alerts;
pub mod charge_rows;
pub mod known_period;
pub mod known_tenant;
pub mod post;
pub mod posting;
pub mod subscription_rows;
pub mod uncharged;
