//! What counts, and what it costs: the rules of metering as pure functions.
//!
//! A row of the application becomes an [`event`] through a [`mapping`]; events in their [`order`] are folded by a
//! [`policy`] into [`part`]s ([`fold`]); each part gets a [`verdict`]; the unit of a billable part is paid for by a
//! tier ([`draw_down`]) in its [`period`]. Nothing here knows a database, a clock or a disk: time arrives as an
//! [`instant`].

pub mod alert;
pub mod definition;
pub mod draw_down;
pub mod event;
pub mod explain;
pub mod flaw;
pub mod fold;
pub mod instant;
pub mod mapping;
pub mod money;
pub mod near;
pub mod offer;
pub mod order;
pub mod outcome;
pub mod part;
pub mod period;
pub mod policy;
#[cfg(feature = "testing")]
pub mod presets;
pub mod refold;
pub mod selector;
pub mod status;
pub mod verdict;
