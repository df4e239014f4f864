//! What do the tests of money share?

use rust_decimal::Decimal;
use std::collections::BTreeMap;
use talkmeter_engine::draw_down::Plan;

pub fn decimal(text: &str) -> Decimal {
    text.parse().expect("a decimal")
}

/// A plan whose outcomes have no rates of their own.
pub fn plan(included: i64, overage_rate: &str) -> Plan {
    Plan {
        name: "plan".into(),
        included,
        overage_rate: decimal(overage_rate),
        rates: BTreeMap::new(),
        currency: "USD".into(),
    }
}
