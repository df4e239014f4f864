//! Which tier pays for a unit (rule 4.3)?

use crate::instant::{DAY, Instant};
use crate::period::{self, Calendar, Period};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::ops::Range;

/// What a plan includes and what a unit beyond it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub name: String,
    /// Units per period before packs and overage.
    pub included: i64,
    /// Price of one overage unit, exact, in `currency`, if its outcome has none of its own.
    pub overage_rate: Decimal,
    /// Prices of overage units by their outcomes.
    pub rates: BTreeMap<String, Decimal>,
    pub currency: String,
}

impl Plan {
    /// What an overage unit costs (rule 4.3.3).
    pub fn rate_of(&self, outcome: Option<&str>) -> Decimal {
        *outcome.and_then(|outcome| self.rates.get(outcome)).unwrap_or(&self.overage_rate)
    }

    /// Whether changing to `other` is an upgrade, which works at once: more included units, or as many at a lower rate.
    /// A plan in another currency is none, because a period has one currency.
    pub fn is_upgraded_by(&self, other: &Plan) -> bool {
        self.currency == other.currency
            && (other.included > self.included || (other.included == self.included && other.is_cheaper_than(self)))
    }

    /// Whether some overage unit costs less, and none more.
    fn is_cheaper_than(&self, other: &Plan) -> bool {
        let outcomes =
            || self.rates.keys().chain(other.rates.keys()).map(|outcome| Some(outcome.as_str())).chain([None]);
        let mut rates = outcomes().map(|outcome| (self.rate_of(outcome), other.rate_of(outcome)));
        rates.clone().all(|(own, others)| own <= others) && rates.any(|(own, others)| own < others)
    }
}

/// A plan in force from an instant on, with the calendar of its periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub since: Instant,
    /// `None` after a cancellation.
    pub plan: Option<Plan>,
    pub calendar: Calendar,
}

/// The shortest first period under a new zone.
const SHORTEST: i64 = 15 * DAY;
/// A period that was opened is the one that is computed now, if its ends are no further from that: rules of a zone
/// change.
const SAME: i64 = DAY / 2;

fn near(a: Instant, b: Instant) -> bool {
    a.since(b).saturating_abs() < SAME
}

/// Prepaid units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    pub id: i64,
    /// Units bought.
    pub size: i64,
    /// Units left; never negative.
    pub remaining: i64,
    pub purchased_at: Instant,
    /// The first instant after the pack's lifetime; later than any if it never expires.
    pub expires_at: Instant,
}

impl Pack {
    fn is_valid(&self, at: Instant) -> bool {
        self.purchased_at <= at && at < self.expires_at
    }

    fn pays(&self, at: Instant) -> bool {
        self.remaining > 0 && self.is_valid(at)
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
    /// Its statement is frozen: what is posted now is listed by another.
    pub is_finalized: bool,
}

impl Usage {
    pub fn unused(period: Period) -> Usage {
        Usage {
            period,
            included_used: 0,
            pack_used: 0,
            overage_units: 0,
            overage_amount: Decimal::ZERO,
            is_finalized: false,
        }
    }

    /// Units of all tiers, net.
    pub fn units(&self) -> i64 {
        self.included_used + self.pack_used + self.overage_units
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
    /// 0 for an included or a pack unit, the plan's rate of its outcome for overage.
    pub amount: Decimal,
    pub plan: &'a Plan,
    pub period: Period,
    /// Units that the period has used, this one included.
    pub used: i64,
}

/// All that decides who pays for a tenant's next unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// In the order in which they were made: at an instant the last one holds whose `since` is not later.
    pub subscriptions: Vec<Subscription>,
    /// In the order in which they are drawn: by `purchased_at`, then id.
    pub packs: Vec<Pack>,
    /// Two anchor days can make periods that start together and end apart: each is a month with an allowance of its
    /// own.
    pub used: BTreeMap<Period, Usage>,
}

impl Account {
    /// The subscription in force at an instant, if there is one.
    pub fn subscription_at(&self, at: Instant) -> Option<&Subscription> {
        Some(&self.subscriptions[self.in_force(at)?])
    }

    fn in_force(&self, at: Instant) -> Option<usize> {
        self.subscriptions.iter().rposition(|subscription| subscription.since <= at)
    }

    /// The plan in force at an instant, if there is one.
    pub fn plan_at(&self, at: Instant) -> Option<&Plan> {
        self.subscription_at(at)?.plan.as_ref()
    }

    /// The billing month of an instant, if it is one of a subscription; one that was opened stays as it was opened. The
    /// first is the whole month that holds the subscription's `since`.
    pub fn period_at(&self, at: Instant) -> Option<Period> {
        let Some(index) = self.in_force(at) else {
            let first = self.subscriptions.iter().filter_map(|own| self.period_at(own.since));
            return first.min().filter(|first| first.holds(at));
        };
        let computed = self.computed(index, at)?;
        if let Some(opened) = self.opened(computed) {
            if opened.holds(at) {
                return Some(opened);
            }
            let beside = if at < opened.start { computed.start.plus(-1) } else { computed.end };
            let computed = self.computed(index, beside)?;
            return Some(self.opened(computed).unwrap_or_else(|| self.fitted(computed)));
        }
        let fitted = self.fitted(computed);
        match fitted.holds(at) {
            true => Some(fitted),
            false => self.used.keys().find(|opened| opened.holds(at)).copied(),
        }
    }

    /// The month to whose end a pack lasts that is bought at an instant (rule 4.3.12): the billing month, and where
    /// there is none one of the calendar that the tenant begins with.
    pub fn month_of_purchase(&self, at: Instant) -> Option<Period> {
        let first = self.subscriptions.iter().rev().min_by_key(|own| own.since);
        let calendar = first.map_or(Calendar::default(), |own| own.calendar);
        self.period_at(at).or_else(|| calendar.period_of(at))
    }

    /// The period of a statement that starts then: one that was opened and is not finalized, else the one that is
    /// computed.
    pub fn period_starting(&self, start: Instant) -> Option<Period> {
        let opened = self.used.values().find(|usage| usage.period.start == start && !usage.is_finalized);
        if let Some(opened) = opened {
            return Some(opened.period);
        }
        // A subscription that is made within a month of its own begins with the whole of it.
        let within = self.subscriptions.iter().map(|own| own.since.max(start));
        within.filter_map(|at| self.period_at(at)).find(|period| period.start == start)
    }

    /// When the periods start that start on one of these local days (rule 4.6.19).
    pub fn starts_within(&self, days: Range<i32>) -> BTreeSet<Instant> {
        let noon = |day: i32| Instant(i64::from(day) * DAY + DAY / 2);
        let is_within = |month: &Period| self.first_day(*month).is_some_and(|day| days.contains(&day));
        let computed = (days.start - 1..=days.end).filter_map(|day| self.period_at(noon(day)));
        computed.chain(self.used.keys().copied()).filter(is_within).map(|month| month.start).collect()
    }

    /// The first local day of a month, counted from 1970-01-01. The first month begins before its subscription does.
    pub fn first_day(&self, month: Period) -> Option<i32> {
        let at = [month.start, month.end.plus(-1)].into_iter().find(|at| self.in_force(*at).is_some());
        period::day_number(month.start, self.zone_at(at.unwrap_or(month.start)))
    }

    /// The billing months up to the one that holds `now` (rule 5.15): those that were opened, and all in which a plan
    /// was in force, from the first that was opened or with which a subscription begins. Opened is a month by `sales`
    /// too: instants at which packs were bought or given back, on a plan or not.
    pub fn months(&self, now: Instant, sales: &[Instant]) -> BTreeSet<Period> {
        let begins = self.subscriptions.iter().map(|own| own.since).filter(|since| since.in_range());
        let sold = sales.iter().filter_map(|at| self.period_at(*at)).filter(|month| month.start <= now);
        let mut months: BTreeSet<Period> = self.used.keys().copied().chain(sold).collect();
        let opened: Vec<Instant> = months.iter().map(|period| period.start).collect();
        let mut at = begins.clone().chain(opened).min().unwrap_or(now);
        while at <= now {
            let Some(month) = self.period_at(at).filter(|month| month.end > at) else {
                let Some(next) = begins.clone().filter(|since| *since > at).min() else { break };
                at = next;
                continue;
            };
            if [month.start, at, month.end.plus(-1)].iter().any(|instant| self.plan_at(*instant).is_some()) {
                months.insert(month);
            }
            at = month.end;
        }
        months
    }

    /// The zone by whose days a tenant lives at an instant. A new one takes effect when the current period ends.
    pub fn zone_at(&self, at: Instant) -> Tz {
        self.in_force(at).map_or(Tz::UTC, |index| self.zone_of(index, at))
    }

    fn zone_of(&self, index: usize, at: Instant) -> Tz {
        let Subscription { since, calendar, .. } = self.subscriptions[index];
        let before = self.subscriptions[..index].iter().rposition(|before| before.since <= since);
        let Some(before) = before.filter(|before| self.subscriptions[*before].calendar.zone != calendar.zone) else {
            return calendar.zone;
        };
        match self.computed(before, since).is_some_and(|current| at < current.end) {
            true => self.zone_of(before, at),
            false => calendar.zone,
        }
    }

    /// The local day of an instant, counted from 1970-01-01; `None` where the calendar ends.
    pub fn day_of(&self, at: Instant) -> Option<i32> {
        period::day_number(at, self.zone_at(at))
    }

    /// The period whose statement lists what is posted at `now` for `period`: that one, or if it is finalized, the
    /// current one, or the first after it that is open: a clock may have stepped back. It counts as opened from then
    /// on.
    pub fn posted_in(&mut self, period: Period, now: Instant) -> Period {
        let is_finalized = |period: &Period| self.used.get(period).is_some_and(|used| used.is_finalized);
        if !is_finalized(&period) {
            return period;
        }
        let from_now = iter::successors(self.period_at(now), |period| self.period_at(period.end));
        let mut open = from_now.skip_while(is_finalized);
        let listed_in = open.next().unwrap_or(period);
        self.used.entry(listed_in).or_insert_with(|| Usage::unused(listed_in));
        listed_in
    }

    /// After a charge at `at` that this pack paid: what is left in the packs that were valid then and had units before
    /// it, and how many units they had when they were bought.
    pub fn packs_left(&self, at: Instant, paid_by: i64) -> (i64, i64) {
        let valid = self.packs.iter().filter(|pack| pack.is_valid(at) && (pack.remaining > 0 || pack.id == paid_by));
        valid.fold((0, 0), |(left, size), pack| (left.saturating_add(pack.remaining), size.saturating_add(pack.size)))
    }

    /// The period by the rules alone. A new zone takes effect when the current period ends.
    fn computed(&self, index: usize, at: Instant) -> Option<Period> {
        let Subscription { since, calendar, .. } = self.subscriptions[index];
        let before = self.subscriptions[..index].iter().rposition(|before| before.since <= since);
        match before {
            Some(before) if self.subscriptions[before].calendar == calendar => self.computed(before, at),
            Some(before) if self.subscriptions[before].calendar.zone != calendar.zone => {
                let current = self.computed(before, since)?;
                if at < current.end {
                    return self.computed(before, at);
                }
                let next = calendar.period_of(current.end.plus(SHORTEST))?.end;
                match at < next {
                    true => Some(Period { start: current.end, end: next }),
                    false => calendar.period_of(at),
                }
            }
            _ => calendar.period_of(at),
        }
    }

    /// The period that was opened as this one.
    fn opened(&self, computed: Period) -> Option<Period> {
        let same = |opened: &&Period| near(opened.start, computed.start) && near(opened.end, computed.end);
        self.used.keys().find(same).copied()
    }

    /// A period that is not opened yet, between those that are.
    fn fitted(&self, computed: Period) -> Period {
        let start = self.used.keys().map(|opened| opened.end).find(|end| near(*end, computed.start));
        let end = self.used.keys().map(|opened| opened.start).find(|start| near(*start, computed.end));
        Period { start: start.unwrap_or(computed.start), end: end.unwrap_or(computed.end) }
    }

    /// Gives a unit back to the tier, the period and the pack that it came from; `amount` is what it had cost. The
    /// pack, even if it is empty or expired, must be among [`Account::packs`].
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

    /// Draws a unit of an outcome that is charged at `at`: allowance left in its period, else the oldest pack that
    /// pays, else overage. `None` if no plan is in force then: the unit waits outside the ledger.
    pub fn draw(&mut self, at: Instant, outcome: Option<&str>) -> Option<Draw<'_>> {
        let index = self.in_force(at)?;
        let period = self.period_at(at)?;
        let plan = self.subscriptions[index].plan.as_ref()?;
        let used = self.used.entry(period).or_insert_with(|| Usage::unused(period));
        let (tier, amount) = if used.included_used < plan.included {
            used.included_used += 1;
            (Tier::Included, Decimal::ZERO)
        } else if let Some(pack) = self.packs.iter_mut().find(|pack| pack.pays(at)) {
            pack.remaining -= 1;
            used.pack_used += 1;
            (Tier::Pack(pack.id), Decimal::ZERO)
        } else {
            let rate = plan.rate_of(outcome);
            used.overage_units += 1;
            used.overage_amount += rate;
            (Tier::Overage, rate)
        };
        let used = used.units();
        Some(Draw { tier, amount, plan, period, used })
    }
}
