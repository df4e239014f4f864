//! Does an account stay what a plain list of its entries says, whatever happens to it (rule 4)?
//!
//! Merchants by the thousand, each the child of one number: `TALKMETER_SEED=<number>` tells that one again.

use crate::common::data::{shown, time};
use crate::common::dice::Dice;
use crate::paper::{self, Bought, Entry, Paper, exact};
use rust_decimal::Decimal;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::ops::AddAssign;
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Tier};
use talkmeter_engine::instant::{DAY, Instant};
use talkmeter_engine::money;
use talkmeter_engine::period::{Calendar, Period, zone_named};

/// Zones in which, after that day, a midnight is skipped or occurs twice at an anchor day, a day is skipped, or nothing
/// is.
const PLACES: [(&str, &str); 11] = [
    ("UTC", "2026-01-05"),
    ("UTC", "2028-01-20"),
    ("Europe/Berlin", "2026-01-20"),
    ("America/New_York", "2026-09-15"),
    ("Asia/Beirut", "2024-01-20"),
    ("Pacific/Apia", "2011-11-10"),
    ("America/Havana", "2026-09-10"),
    ("America/Santiago", "2026-08-01"),
    ("America/St_Johns", "2009-09-20"),
    ("America/St_Johns", "2010-09-20"),
    ("Asia/Kathmandu", "2025-12-20"),
];
const ANCHORS: [u32; 9] = [1, 1, 6, 7, 15, 28, 29, 30, 31];
/// In all of them and in their sums a fraction of a cent is at stake.
/// When a unit is charged, and its outcome.
type Due = (Instant, Option<&'static str>);

const OUTCOMES: [Option<&str>; 4] = [None, Some("resolution"), Some("qualification"), Some("hand-off")];

const RATES: [&str; 9] =
    ["0", "0.04", "0.025", "0.01245", "0.005", "0.99", "1.5", "0.000000000001", "999999999.999999999999"];
const CURRENCIES: [&str; 3] = ["USD", "JPY", "KWD"];
/// How long it all lasts at most.
const SPAN: i64 = 200 * DAY;

/// What may become of the calendar on the way. Never both: months of another anchor day overlap those before, and
/// nothing says what another zone makes of that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moves {
    Nothing,
    Anchor,
    Zone,
}

/// A unit that was drawn, for the rule that tiers never go back.
struct Drawn {
    at: Instant,
    period: Period,
    tier: Tier,
    included: i64,
    /// Reversals and packs before it.
    reversals: usize,
    packs: usize,
}

/// What a test of many merchants is to meet.
pub const KINDS: [&str; 22] = [
    "included",
    "pack",
    "overage",
    "late",
    "late in its period",
    "waiting",
    "included taken back",
    "pack taken back",
    "overage taken back",
    "zone moved",
    "anchor moved",
    "upgrades",
    "downgrades",
    "finalized",
    "listed later",
    "at the ends of a pack",
    "at the ends of a period",
    "tiers in order",
    "tiers gone back",
    "by reversal",
    "by purchase",
    "by upgrade",
];

/// How often something happened that the test is to meet.
#[derive(Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        other.0.into_iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }
}

impl Display for Tally {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        to.write_str(&all.join(", "))
    }
}

/// A merchant: its account as the engine keeps it, and on paper.
struct Merchant {
    dice: Dice,
    account: Account,
    paper: Paper,
    plans: Vec<Plan>,
    moves: Moves,
    start: Instant,
    now: Instant,
    /// Units at whose instants no plan was in force.
    waiting: Vec<Due>,
    drawn: Vec<Drawn>,
    /// Entries that reversals took back, in the order of these.
    reversed: Vec<usize>,
    told: Vec<String>,
    tally: Tally,
}

impl Drop for Merchant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.told.join("\n"));
        }
    }
}

/// One merchant's life, with what happened in it.
pub fn of_a_merchant(seed: u64) -> Tally {
    let mut merchant = Merchant::new(seed);
    for _ in 0..20 + merchant.dice.below(60) {
        merchant.live();
        merchant.check_account();
        merchant.check_statements();
    }
    std::mem::take(&mut merchant.tally)
}

fn plan(dice: &mut Dice, name: u64, currency: &str) -> Plan {
    let overage_rate = dice.one_of(&RATES).parse().expect("a decimal");
    let included = dice.below(6) as i64;
    let outcomes: Vec<&str> = OUTCOMES.into_iter().flatten().filter(|_| dice.percent(30)).collect();
    let mut rate = |outcome: &str| (outcome.to_owned(), dice.one_of(&RATES).parse().expect("a decimal"));
    let rates = outcomes.into_iter().map(&mut rate).collect();
    Plan { name: format!("plan {name}"), included, overage_rate, rates, currency: currency.into() }
}

/// Included, then packs, then overage.
fn rank(tier: Tier) -> u8 {
    match tier {
        Tier::Included => 0,
        Tier::Pack(_) => 1,
        Tier::Overage => 2,
    }
}

impl Merchant {
    fn new(seed: u64) -> Merchant {
        let mut dice = Dice::new(seed);
        let (zone, day) = dice.one_of(&PLACES);
        let start = time(&format!("{day} 00:00:00+00"));
        let currency = dice.one_of(&CURRENCIES);
        let mixed = dice.percent(20);
        let plans = (0..4).map(|name| {
            let own = if mixed { dice.one_of(&CURRENCIES) } else { currency };
            plan(&mut dice, name, own)
        });
        let plans = plans.collect();
        let moves = dice.one_of(&[Moves::Nothing, Moves::Nothing, Moves::Anchor, Moves::Zone]);
        let year = day[..4].parse().expect("a year");
        let mut merchant = Merchant {
            account: Account::default(),
            paper: Paper::of(year),
            plans,
            moves,
            start,
            now: start,
            waiting: Vec::new(),
            drawn: Vec::new(),
            reversed: Vec::new(),
            told: Vec::new(),
            tally: Tally::default(),
            dice,
        };
        let calendar = Calendar { zone: zone_named(zone).expect("a zone"), anchor_day: merchant.dice.one_of(&ANCHORS) };
        let plan = merchant.any_plan();
        let since = if merchant.dice.percent(50) { Instant::BEGINNING } else { start.plus(5 * DAY) };
        merchant.subscribe(Subscription { since, plan: Some(plan), calendar });
        merchant
    }

    fn live(&mut self) {
        // Nobody stays without a plan for long.
        if self.account.plan_at(self.now).is_none() && self.dice.percent(20) {
            return self.subscribe_again();
        }
        match self.dice.below(100) {
            0..30 => self.charge_now(),
            30..40 => self.charge_late(),
            40..45 => self.commit(),
            45..57 => self.reverse(),
            57..65 => self.buy(),
            65..83 => self.pass_time(),
            83..90 => self.change_plan(),
            90..92 => self.cancel(),
            92..96 => self.subscribe_again(),
            _ => self.finalize(),
        }
    }

    fn tell(&mut self, what: String) {
        self.told.push(format!("{} {what}", shown(Some(self.now))));
    }

    // When

    /// Instants at which something begins or ends.
    fn corners(&self) -> Vec<Instant> {
        let packs = self.paper.packs.iter().flat_map(|pack| [pack.purchased_at, pack.expires_at]);
        let periods = self.paper.periods().into_iter().chain(self.paper.period_at(self.now));
        let terms = self.paper.terms.iter().map(|own| own.since);
        let charges = self.paper.entries.iter().rev().take(3).map(|entry| entry.at);
        let all = packs.chain(periods.flat_map(|period| [period.start, period.end])).chain(terms).chain(charges);
        all.filter(|at| *at >= self.start && *at <= self.start.plus(SPAN)).collect()
    }

    /// An instant that has passed, often one at which something begins or ends, or a microsecond beside it.
    fn past(&mut self) -> Instant {
        let corners: Vec<Instant> = self.corners().into_iter().filter(|at| *at <= self.now).collect();
        if !corners.is_empty() && self.dice.percent(60) {
            let corner = self.dice.one_of(&corners).plus(self.dice.one_of(&[-1, 0, 0, 1]));
            return corner.clamp(self.start, self.now);
        }
        self.start.plus(self.dice.below(self.now.since(self.start) as u64 + 1) as i64)
    }

    /// From when on new terms are to hold. A move of the zone must not reach back to before a period that was opened.
    fn effective(&mut self) -> Instant {
        if self.moves == Moves::Zone {
            return self.paper.terms.iter().map(|own| own.since).fold(self.now, Instant::max);
        }
        match self.dice.below(4) {
            0 => self.past(),
            1 => self.now.plus(self.dice.below(20) as i64 * DAY),
            _ => self.now,
        }
    }

    /// To the next instant at which something begins or ends, or just before it, or anywhere.
    fn pass_time(&mut self) {
        let next = self.corners().into_iter().filter(|at| *at > self.now).min();
        let later = match next {
            Some(next) if self.dice.percent(60) => next.plus(self.dice.one_of(&[-1, 0, 0, 1])).max(self.now),
            _ if self.dice.percent(30) => self.now.plus(1),
            _ => self.now.plus(self.dice.below(15 * DAY as u64) as i64),
        };
        self.now = later.min(self.start.plus(SPAN));
        self.tell("time has passed".into());
    }

    // Terms

    fn any_plan(&mut self) -> Plan {
        let place = self.dice.index(self.plans.len());
        self.plans[place].clone()
    }

    /// New terms, and the units that waited for them, in the order of their instants.
    fn subscribe(&mut self, terms: Subscription) {
        let Subscription { since, plan, calendar } = &terms;
        self.tell(format!(
            "from {} on {plan:?} {calendar:?}",
            since.calendar().map_or("ever".into(), |at| at.to_string())
        ));
        let since = *since;
        self.account.subscriptions.push(terms.clone());
        self.paper.terms.push(terms);
        let mut waited: Vec<Due> = self.waiting.extract_if(.., |(at, _)| *at >= since).collect();
        waited.sort();
        waited.into_iter().for_each(|due| self.charge(due));
    }

    fn subscribe_again(&mut self) {
        let since = self.effective();
        let Some(own) = self.account.subscription_at(since) else { return };
        let mut calendar = own.calendar;
        match self.moves {
            Moves::Nothing => {}
            Moves::Anchor => calendar.anchor_day = self.dice.one_of(&ANCHORS),
            Moves::Zone => {
                let zone = zone_named(self.dice.one_of(&PLACES).0).expect("a zone");
                if zone != calendar.zone {
                    calendar = Calendar { zone, anchor_day: self.dice.one_of(&ANCHORS) };
                }
            }
        }
        if calendar != own.calendar {
            self.tally.count(if self.moves == Moves::Zone { "zone moved" } else { "anchor moved" });
        }
        let plan = Some(self.any_plan());
        self.subscribe(Subscription { since, plan, calendar });
    }

    fn change_plan(&mut self) {
        let (at, to) = (self.effective(), self.any_plan());
        let Some(from) = self.account.plan_at(at) else { return };
        let is_upgrade = from.is_upgraded_by(&to);
        assert_eq!(
            is_upgrade,
            paper::is_upgrade(from, &to),
            "an upgrade is more units, or as many at a lower rate (rule 4.2): {from:?} to {to:?}"
        );
        let period = self.account.period_at(at).expect("a period");
        let since = if is_upgrade { at } else { period.end };
        self.tally.count(if is_upgrade { "upgrades" } else { "downgrades" });
        let calendar = self.account.subscription_at(at).expect("terms").calendar;
        self.subscribe(Subscription { since, plan: Some(to), calendar });
    }

    fn cancel(&mut self) {
        let at = self.effective();
        let Some(calendar) = self.account.subscription_at(at).map(|own| own.calendar) else { return };
        self.subscribe(Subscription { since: at, plan: None, calendar });
    }

    // Units

    fn charge_now(&mut self) {
        let due = (self.now, self.dice.one_of(&OUTCOMES));
        self.charge(due);
    }

    fn charge_late(&mut self) {
        let due = (self.past(), self.dice.one_of(&OUTCOMES));
        self.charge(due);
    }

    /// Several units at once, some of them late.
    fn commit(&mut self) {
        let mut units = [(); 4].map(|()| if self.dice.percent(50) { self.now } else { self.past() });
        units.sort();
        for at in units {
            let due = (at, self.dice.one_of(&OUTCOMES));
            self.charge(due);
        }
    }

    fn charge(&mut self, (at, outcome): Due) {
        let (payer, period) = (self.paper.payer(at, outcome), self.paper.period_at(at));
        let before = self.account.clone();
        let drawn = self.account.draw(at, outcome);
        let drawn = drawn.map(|drawn| (drawn.tier, drawn.amount, drawn.plan.clone(), drawn.period, drawn.used));
        let place = shown(Some(at));
        let Some((tier, amount, plan, own, used)) = drawn else {
            self.tell(format!("a unit of {place}, {outcome:?}, waits"));
            assert_eq!(None, payer, "only a unit without a plan waits (rule 4.2)");
            assert_eq!(self.account, before, "a unit that waits uses nothing (rule 4.2)");
            self.tally.count("waiting");
            return self.waiting.push((at, outcome));
        };
        self.tell(format!("a unit of {place}, {outcome:?}: {tier:?} {amount}"));
        assert_eq!(Some(&plan), self.paper.plan_at(at), "the plan is that in force at the charge instant (rule 4.3)");
        assert_eq!(Some(own), period, "the period is that of the charge instant (rule 4.3)");
        let paid = Some((tier, exact(amount)));
        assert_eq!(
            paid, payer,
            "allowance left, else the oldest pack that pays, else the rate at that instant (rule 4.3)"
        );
        self.check_order_of_tiers(at, own, tier, plan.included);
        self.post(at, own, tier, amount, plan.currency, None);
        assert_eq!(used, self.paper.units(|entry| entry.period == own), "used is net (rule 4.5)");
        self.note(at, own, tier, plan.included);
    }

    /// What is to be known of a unit later.
    fn note(&mut self, at: Instant, period: Period, tier: Tier, included: i64) {
        self.tally.count(tier.name());
        if at < self.now {
            self.tally.count("late");
        }
        if let Tier::Pack(id) = tier {
            let left = self.account.packs_left(at, id);
            assert_eq!(left, self.paper.low(at, id), "packs are low by those that had units before it (rule 4.5)");
        }
        for pack in &self.paper.packs {
            if at == pack.expires_at || at == pack.expires_at.plus(-1) || at == pack.purchased_at {
                self.tally.count("at the ends of a pack");
            }
        }
        if at == period.start || at == period.end.plus(-1) {
            self.tally.count("at the ends of a period");
        }
        let (reversals, packs) = (self.reversed.len(), self.paper.packs.len());
        self.drawn.push(Drawn { at, period, tier, included, reversals, packs });
    }

    fn post(&mut self, at: Instant, period: Period, tier: Tier, amount: Decimal, currency: String, back: Option<bool>) {
        let listed_in = self.account.posted_in(period, self.now);
        let expected = if self.paper.is_frozen(period) { self.paper.period_at(self.now) } else { Some(period) };
        assert_eq!(Some(listed_in), expected, "a frozen period is listed by the open one (rule 4.3)");
        assert!(!self.paper.is_frozen(listed_in), "nothing is added to a frozen statement (rule 4.6)");
        if listed_in != period {
            self.tally.count("listed later");
        }
        let (units, is_credit) = (if back.is_some() { -1 } else { 1 }, back == Some(true));
        let entry = Entry { at, period, listed_in, tier, amount, currency, units, is_reversed: false, is_credit };
        self.paper.entries.push(entry);
    }

    /// Takes back any unit that stands.
    fn reverse(&mut self) {
        let standing = |entry: &Entry| entry.units == 1 && !entry.is_reversed;
        let entries = self.paper.entries.iter().enumerate().filter(|(_, entry)| standing(entry));
        let standing: Vec<usize> = entries.map(|(place, _)| place).collect();
        if standing.is_empty() {
            return;
        }
        let place = self.dice.one_of(&standing);
        let is_credit = self.dice.percent(25);
        let entry = self.paper.entries[place].clone();
        let Entry { at, period, tier, amount, currency, .. } = entry;
        self.tell(format!("taken back: {tier:?} {amount} of {}", shown(Some(at))));
        self.tally.count(match tier {
            Tier::Included => "included taken back",
            Tier::Pack(_) => "pack taken back",
            Tier::Overage => "overage taken back",
        });
        self.account.give_back(period, tier, amount);
        self.paper.entries[place].is_reversed = true;
        self.reversed.push(place);
        self.post(at, period, tier, -amount, currency, Some(is_credit));
    }

    fn buy(&mut self) {
        let purchased_at = match self.dice.below(10) {
            0..4 => self.past(),
            4 => self.now.plus(self.dice.below(3 * DAY as u64) as i64),
            _ => self.now,
        };
        let expires_at = match self.dice.below(7) {
            0 => purchased_at.plus(1 + self.dice.below(2) as i64),
            1 | 2 => purchased_at.plus(1 + self.dice.below(20 * DAY as u64) as i64),
            3 => self.end_of_month(purchased_at),
            4 => Instant::LATEST,
            _ => purchased_at.plus(90 * DAY),
        };
        let (id, size) = (self.paper.packs.len() as i64 + 1, 1 + self.dice.below(4) as i64);
        self.tell(format!("pack {id} of {size} from {} to {}", shown(Some(purchased_at)), shown(Some(expires_at))));
        self.paper.packs.push(Bought { id, size, purchased_at, expires_at });
        self.account.packs.push(Pack { id, size, remaining: size, purchased_at, expires_at });
        // An account wants them in the order in which they are drawn.
        self.account.packs.sort_by_key(|pack| (pack.purchased_at, pack.id));
    }

    /// When a pack expires that is bought then and lasts for its period.
    fn end_of_month(&self, purchased_at: Instant) -> Instant {
        let month = self.account.month_of_purchase(purchased_at).expect("each instant is in a month");
        assert!(month.holds(purchased_at), "the month holds the purchase (rule 4.3.12)");
        if let Some(period) = self.paper.period_at(purchased_at) {
            assert_eq!(month, period, "it is the period in force at the purchase (rule 4.3.12)");
        }
        month.end
    }

    /// Freezes a period that is over.
    fn finalize(&mut self) {
        let at = self.past();
        let Some(period) = self.account.period_at(at).filter(|period| period.end <= self.now) else { return };
        if self.paper.is_frozen(period) {
            return;
        }
        self.tell(format!("finalized: {period:?}"));
        self.tally.count("finalized");
        let used =
            self.account.used.entry(period).or_insert_with(|| talkmeter_engine::draw_down::Usage::unused(period));
        used.is_finalized = true;
        let statement = self.paper.statement(period);
        self.paper.frozen.push((period, statement));
    }

    // What must hold

    /// Within a period tiers never go back, except by reversal, purchase, upgrade or a late charge.
    fn check_order_of_tiers(&mut self, at: Instant, period: Period, tier: Tier, included: i64) {
        let of_period = || self.drawn.iter().filter(|drawn| drawn.period == period);
        // The last one that was drawn in the order of time; of those at one instant, the last.
        let Some(last) = of_period().max_by_key(|drawn| drawn.at) else { return };
        if at < last.at {
            return self.tally.count("late in its period");
        }
        if rank(tier) >= rank(last.tier) {
            return self.tally.count("tiers in order");
        }
        let given_back = self.reversed[last.reversals..].iter().map(|place| &self.paper.entries[*place]);
        let frees = |entry: &Entry| match entry.tier {
            Tier::Included => entry.period == period,
            Tier::Pack(_) => true,
            Tier::Overage => false,
        };
        let is_given_back = { given_back }.any(frees);
        let is_new =
            |(place, pack): (usize, &Bought)| pack.is_valid(at) && (place >= last.packs || pack.purchased_at > last.at);
        let is_bought = self.paper.packs.iter().enumerate().any(is_new);
        let is_upgraded = included > last.included;
        assert!(
            is_given_back || is_bought || is_upgraded,
            "tiers never go back except by reversal, purchase, upgrade or a late charge (rule 4.3): \
             {tier:?} after {:?} of {}",
            last.tier,
            shown(Some(last.at))
        );
        self.tally.count("tiers gone back");
        for (excuse, holds) in [("by reversal", is_given_back), ("by purchase", is_bought), ("by upgrade", is_upgraded)]
        {
            if holds {
                self.tally.count(excuse);
            }
        }
    }

    fn check_account(&self) {
        for (period, used) in &self.account.used {
            let units = |tier: u8| self.paper.units(|entry| entry.period == *period && rank(entry.tier) == tier);
            let counted = [used.included_used, used.pack_used, used.overage_units];
            assert_eq!(counted, [0, 1, 2].map(units), "a period counts its own units, net, by tier (rule 4.3)");
            let all = self.paper.units(|entry| entry.period == *period);
            assert_eq!(used.units(), all, "the sum of the tiers is the units (rule 5)");
            assert!(counted.iter().all(|units| *units >= 0), "no tier is ever negative (rule 4.3): {used:?}");
            let sum = self.paper.sum(|entry| entry.period == *period);
            assert_eq!(exact(used.overage_amount), sum, "overage is billed to the last digit (rule 4.1)");
            assert_eq!(
                used.is_finalized,
                self.paper.is_frozen(*period),
                "only a finalized period is frozen (rule 4.6)"
            );
        }
        for entry in &self.paper.entries {
            assert!(self.account.used.contains_key(&entry.period), "a unit is counted in its period (rule 4.3)");
        }
        for pack in &self.account.packs {
            assert!(pack.remaining >= 0, "packs are never negative (rule 4.3): {pack:?}");
            assert!(pack.remaining <= pack.size, "a unit is given back once (rule 4.6): {pack:?}");
            let bought = &self.paper.packs[pack.id as usize - 1];
            assert_eq!(pack.remaining, self.paper.left(bought), "a pack loses what it paid, net (rule 4.3): {pack:?}");
        }
        if let Some(period) = self.paper.period_at(self.now) {
            assert_eq!(self.account.period_at(self.now), Some(period), "the billing month of now (rule 4.2)");
        }
    }

    fn check_statements(&self) {
        let mut listed = 0;
        for period in self.paper.periods() {
            let lines = self.paper.statement(period);
            let charges = || self.paper.entries.iter().filter(|entry| entry.listed_in == period);
            let sum: Decimal = charges().map(|entry| entry.amount).sum();
            let on_lines: i128 = lines.values().sum();
            assert_eq!(on_lines, exact(sum), "a statement is the sum of its charges to the last digit (rule 4.6)");
            self.check_total(&lines, on_lines);
            for (frozen, statement) in self.paper.frozen.iter().filter(|(frozen, _)| *frozen == period) {
                assert_eq!(&lines, statement, "a frozen statement does not change (rule 4.6): {frozen:?}");
            }
            listed += charges().count();
        }
        assert_eq!(listed, self.paper.entries.len(), "each charge is on one statement (rule 4.6)");
    }

    /// Each line is rounded once, so the total is off by no more than half a digit a line, and by nothing where the
    /// rates have no more digits than the currency.
    fn check_total(&self, lines: &paper::Statement, sum: i128) {
        let mut total = Decimal::ZERO;
        let (mut plainly, mut most_off) = (0, 0);
        for (heading, amount) in lines {
            let rounded = money::rounded(decimal(*amount), &heading.currency);
            let expected = paper::rounded(*amount, &heading.currency);
            assert_eq!(
                exact(rounded),
                expected,
                "a line is rounded half away from zero to its currency's digits (rule 4.6)"
            );
            total += rounded;
            plainly += expected;
            if expected.cmp(amount) != Ordering::Equal {
                most_off += exact(Decimal::new(5, money::digits(&heading.currency) + 1));
            }
        }
        assert_eq!(exact(total), plainly, "the total is the sum of the lines (rule 4.6)");
        assert!((plainly - sum).abs() <= most_off, "a line is rounded once (rule 4.6): {plainly} for {sum}");
    }
}

fn decimal(amount: i128) -> Decimal {
    Decimal::from_i128_with_scale(amount, 12)
}
