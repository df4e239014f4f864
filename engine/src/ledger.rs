//! Which tier pays for a unit (SPEC 4.3)?

use crate::instant::Instant;
use crate::period::{Period, period_of};
use rust_decimal::Decimal;
use std::collections::BTreeMap;

/// What a plan includes and what a unit beyond it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub name: String,
    /// Units per period before packs and overage.
    pub included: i64,
    /// Price of one overage unit, exact, in `currency`.
    pub overage_rate: Decimal,
    pub currency: String,
}

/// A plan in force from an instant on, with the anchor day of its periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub since: Instant,
    pub plan: Plan,
    pub anchor_day: u32,
}

/// Prepaid units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    pub id: i64,
    /// Units left; never negative.
    pub remaining: i64,
    pub purchased_at: Instant,
    /// The first instant at which the pack pays no more.
    pub expires_at: Instant,
}

impl Pack {
    fn pays(&self, at: Instant) -> bool {
        self.remaining > 0 && self.purchased_at <= at && at < self.expires_at
    }
}

/// What a period has used so far, net.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub period: Period,
    pub included_used: i64,
    pub pack_used: i64,
    pub overage_units: i64,
    /// Exact, not rounded.
    pub overage_amount: Decimal,
}

impl Usage {
    pub fn unused(period: Period) -> Usage {
        Usage { period, included_used: 0, pack_used: 0, overage_units: 0, overage_amount: Decimal::ZERO }
    }
}

/// Who pays for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Included,
    /// The pack of this id.
    Pack(i64),
    Overage,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Tier::Included => "included",
            Tier::Pack(_) => "pack",
            Tier::Overage => "overage",
        }
    }
}

/// One drawn unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw<'a> {
    pub tier: Tier,
    /// 0 for an included or a pack unit, the plan's rate for overage.
    pub amount: Decimal,
    pub plan: &'a Plan,
    pub period: Period,
}

/// All that decides who pays for a tenant's next unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// In the order in which they were made: at an instant the last one holds whose `since` is not later.
    pub subscriptions: Vec<Subscription>,
    /// In the order in which they are drawn: by `purchased_at`, then id.
    pub packs: Vec<Pack>,
    /// Two anchor days can make periods that start together and end apart: each is a month with an allowance of its own.
    pub used: BTreeMap<Period, Usage>,
}

impl Account {
    /// The subscription in force at an instant, if there is one.
    pub fn subscription_at(&self, at: Instant) -> Option<&Subscription> {
        self.subscriptions.iter().rev().find(|subscription| subscription.since <= at)
    }

    /// The billing month of an instant, if a plan is in force then.
    pub fn period_at(&self, at: Instant) -> Option<Period> {
        period_of(at, self.subscription_at(at)?.anchor_day)
    }

    /// Gives a unit back to the tier, the period and the pack that it came from; `amount` is what it had cost. The pack,
    /// even if it is empty or expired, must be among [`Account::packs`].
    pub fn give_back(&mut self, period: Period, tier: Tier, amount: Decimal) {
        let used = self.used.entry(period).or_insert_with(|| Usage::unused(period));
        match tier {
            Tier::Included => used.included_used -= 1,
            Tier::Pack(id) => {
                used.pack_used -= 1;
                let pack = self.packs.iter_mut().find(|pack| pack.id == id).expect("a pack that was drawn from");
                pack.remaining += 1;
            }
            Tier::Overage => {
                used.overage_units -= 1;
                used.overage_amount -= amount;
            }
        }
    }

    /// Draws the unit charged at `at`: allowance left in its period, else the oldest pack that pays, else overage.
    /// `None` if no plan is in force then: the unit waits outside the ledger.
    pub fn draw(&mut self, at: Instant) -> Option<Draw<'_>> {
        let index = self.subscriptions.iter().rposition(|subscription| subscription.since <= at)?;
        let Subscription { plan, anchor_day, .. } = &self.subscriptions[index];
        let period = period_of(at, *anchor_day)?;
        let used = self.used.entry(period).or_insert_with(|| Usage::unused(period));
        let (tier, amount) = if used.included_used < plan.included {
            used.included_used += 1;
            (Tier::Included, Decimal::ZERO)
        } else if let Some(pack) = self.packs.iter_mut().find(|pack| pack.pays(at)) {
            pack.remaining -= 1;
            used.pack_used += 1;
            (Tier::Pack(pack.id), Decimal::ZERO)
        } else {
            used.overage_units += 1;
            used.overage_amount += plan.overage_rate;
            (Tier::Overage, plan.overage_rate)
        };
        Some(Draw { tier, amount, plan, period })
    }
}
