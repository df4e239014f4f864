//! What does a ledger say that is nothing but the list of its entries (rules 4.2, 4.3, 4.6)?
//!
//! It keeps no running state: what a period has used, what is left in a pack, what a statement adds up to is counted
//! again from the first entry each time, and money in whole numbers. Slow, and shaped unlike the engine on purpose, so
//! that the two are unlikely to share a mistake.

use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use talkmeter_engine::draw_down::{Plan, Subscription, Tier};
use talkmeter_engine::instant::{DAY, Instant, SECOND};
use talkmeter_engine::period::{Calendar, Period};

/// An exact amount: so many millionths of a millionth, the finest that a rate may have.
pub type Exact = i128;
const DIGITS: u32 = 12;
const QUARTER_OF_AN_HOUR: i64 = 900 * SECOND;

/// One line of the ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub period: Period,
    /// The period whose statement lists it.
    pub listed_in: Period,
    pub tier: Tier,
    pub amount: Decimal,
    pub currency: String,
    /// 1, and -1 for a reversal.
    pub units: i64,
    pub is_reversed: bool,
    pub is_credit: bool,
}

/// A pack as it was bought.
#[derive(Clone, Copy, Debug)]
pub struct Bought {
    pub id: i64,
    pub size: i64,
    pub purchased_at: Instant,
    pub expires_at: Instant,
}

impl Bought {
    pub fn is_valid(&self, at: Instant) -> bool {
        at >= self.purchased_at && at < self.expires_at
    }
}

/// What a line of a statement is of: charges of one kind, tier and rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heading {
    kind: &'static str,
    of: Period,
    tier: &'static str,
    rate: Exact,
    pub currency: String,
}

/// The exact sum under each heading.
pub type Statement = BTreeMap<Heading, Exact>;

#[derive(Default)]
pub struct Paper {
    /// In the order in which they were made.
    pub terms: Vec<Subscription>,
    pub packs: Vec<Bought>,
    pub entries: Vec<Entry>,
    /// Each with its statement as it was when it was frozen.
    pub frozen: Vec<(Period, Statement)>,
    year: i32,
    starts: RefCell<HashMap<(Tz, u32), Vec<Instant>>>,
}

pub fn exact(amount: Decimal) -> Exact {
    amount.mantissa() * 10_i128.pow(DIGITS - amount.scale())
}

/// Half away from zero, with nothing but whole numbers.
pub fn rounded(amount: Exact, currency: &str) -> Exact {
    let digits = match currency {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    };
    let unit = 10_i128.pow(DIGITS - digits);
    amount.signum() * ((amount.abs() + unit / 2) / unit * unit)
}

/// Whether a change of plan works at once.
pub fn is_upgrade(from: &Plan, to: &Plan) -> bool {
    let (more, as_many) = (to.included > from.included, to.included == from.included);
    from.currency == to.currency && (more || as_many && is_cheaper(from, to))
}

/// What an overage unit costs: the rate of its outcome if the plan has one, else that of all others.
fn rate(plan: &Plan, outcome: Option<&str>) -> Exact {
    let own = plan.rates.iter().find(|(named, _)| Some(named.as_str()) == outcome);
    exact(own.map_or(plan.overage_rate, |(_, rate)| *rate))
}

/// Whether no outcome becomes dearer, and some becomes cheaper.
fn is_cheaper(from: &Plan, to: &Plan) -> bool {
    let named = from.rates.keys().chain(to.rates.keys()).map(String::as_str);
    let changes: Vec<Exact> =
        named.map(Some).chain([None]).map(|outcome| rate(to, outcome) - rate(from, outcome)).collect();
    changes.iter().max() <= Some(&0) && changes.iter().min() < Some(&0)
}

impl Paper {
    /// Paper for what happens from this year on, until the next is over.
    pub fn of(year: i32) -> Paper {
        Paper { year, ..Paper::default() }
    }

    fn own(&self, at: Instant) -> Option<usize> {
        (0..self.terms.len()).filter(|own| self.terms[*own].since <= at).last()
    }

    pub fn plan_at(&self, at: Instant) -> Option<&Plan> {
        self.terms[self.own(at)?].plan.as_ref()
    }

    /// The period of an instant at which there is a subscription.
    pub fn period_at(&self, at: Instant) -> Option<Period> {
        let starts = self.starts_under(self.own(at)?);
        let start = *starts.iter().rfind(|start| **start <= at)?;
        let end = *starts.iter().find(|start| **start > at)?;
        Some(Period { start, end })
    }

    /// Where periods start as one subscription sees it.
    fn starts_under(&self, own: usize) -> Vec<Instant> {
        let Subscription { since, calendar, .. } = &self.terms[own];
        let starts = self.starts(*calendar);
        let Some(before) = (0..own).filter(|before| self.terms[*before].since <= *since).last() else { return starts };
        let old = self.terms[before].calendar;
        if old == *calendar {
            return self.starts_under(before);
        }
        if old.zone == calendar.zone {
            return starts;
        }
        // Another zone: the current period ends as it was to end, and the next is longer than 15 days.
        let mut all = self.starts_under(before);
        let current = all.iter().position(|start| start > since).expect("an end");
        all.truncate(current + 1);
        let first = all[current].plus(15 * DAY);
        all.extend(starts.into_iter().filter(|start| *start > first));
        all
    }

    fn starts(&self, calendar: Calendar) -> Vec<Instant> {
        let mut known = self.starts.borrow_mut();
        let anchor = calendar.anchor_day;
        let months = (9..=12).map(|month| (self.year - 1, month)).chain((1..=24).map(|month| (self.year, month)));
        let months = months.map(|(year, month)| (year + (month as i32 - 1) / 12, (month - 1) % 12 + 1));
        let all = || months.map(|(year, month)| first_instant(anchored(year, month, anchor), calendar.zone)).collect();
        known.entry((calendar.zone, anchor)).or_insert_with(all).clone()
    }

    /// Net units of some entries.
    pub fn units(&self, of: impl Fn(&Entry) -> bool) -> i64 {
        self.entries.iter().filter(|entry| of(entry)).map(|entry| entry.units).sum()
    }

    /// The exact sum of some entries.
    pub fn sum(&self, of: impl Fn(&Entry) -> bool) -> Exact {
        self.entries.iter().filter(|entry| of(entry)).map(|entry| exact(entry.amount)).sum()
    }

    pub fn left(&self, pack: &Bought) -> i64 {
        pack.size - self.units(|entry| entry.tier == Tier::Pack(pack.id))
    }

    /// Who pays for a unit, and how much.
    pub fn payer(&self, at: Instant, outcome: Option<&str>) -> Option<(Tier, Exact)> {
        let plan = self.plan_at(at)?;
        let period = self.period_at(at)?;
        if self.units(|entry| entry.period == period && entry.tier == Tier::Included) < plan.included {
            return Some((Tier::Included, 0));
        }
        let paying = self.packs.iter().filter(|pack| pack.is_valid(at) && self.left(pack) > 0);
        match paying.min_by_key(|pack| (pack.purchased_at, pack.id)) {
            Some(pack) => Some((Tier::Pack(pack.id), 0)),
            None => Some((Tier::Overage, rate(plan, outcome))),
        }
    }

    pub fn is_frozen(&self, period: Period) -> bool {
        self.frozen.iter().any(|(frozen, _)| *frozen == period)
    }

    /// The packs that were valid at an instant and had units before the last unit was drawn: what is left, what was
    /// bought.
    pub fn low(&self, at: Instant, paid_by: i64) -> (i64, i64) {
        let before = |pack: &&Bought| self.left(pack) + i64::from(pack.id == paid_by) > 0;
        let packs: Vec<&Bought> = self.packs.iter().filter(|pack| pack.is_valid(at)).filter(before).collect();
        (packs.iter().map(|pack| self.left(pack)).sum(), packs.iter().map(|pack| pack.size).sum())
    }

    /// The lines of a statement that are charges.
    pub fn statement(&self, period: Period) -> Statement {
        let mut lines = Statement::new();
        for entry in self.entries.iter().filter(|entry| entry.listed_in == period) {
            if let Some(heading) = heading(entry) {
                *lines.entry(heading).or_default() += exact(entry.amount);
            }
        }
        lines
    }

    /// Every period that a statement is about.
    pub fn periods(&self) -> Vec<Period> {
        let mut all: Vec<Period> = self.entries.iter().flat_map(|entry| [entry.period, entry.listed_in]).collect();
        all.extend(self.frozen.iter().map(|(period, _)| *period));
        all.sort();
        all.dedup();
        all
    }
}

/// Under which line an entry is listed; none if it is a unit of this period that costs nothing.
fn heading(entry: &Entry) -> Option<Heading> {
    let kind = match entry {
        Entry { is_credit: true, .. } => "credit",
        _ if entry.period != entry.listed_in => "late",
        Entry { tier: Tier::Overage, .. } => "overage",
        _ => return None,
    };
    let (rate, currency) = (exact(entry.amount).abs(), entry.currency.clone());
    Some(Heading { kind, of: entry.period, tier: entry.tier.name(), rate, currency })
}

/// The anchor day of a month, or the last day that the month has.
fn anchored(year: i32, month: u32, anchor: u32) -> NaiveDate {
    (1..=anchor).rev().find_map(|day| NaiveDate::from_ymd_opt(year, month, day)).expect("a day")
}

/// The first instant whose local date is not before this one, found by looking at the clock every quarter of an hour.
fn first_instant(date: NaiveDate, zone: Tz) -> Instant {
    let midnight = Instant(i64::from(date.to_epoch_days()) * DAY);
    let clock = (-56..).map(|quarters| midnight.plus(quarters * QUARTER_OF_AN_HOUR));
    let date_at = |at: &Instant| at.calendar().expect("in range").with_timezone(&zone).date_naive();
    clock.into_iter().find(|at| date_at(at).num_days_from_ce() >= date.num_days_from_ce()).expect("a date comes")
}
