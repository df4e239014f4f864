//! Which tier pays for each unit, and how much (rules 4.3, 6)?

mod common;

use chrono_tz::Tz;
use common::Folding;
use common::data::{Conversations, irc_support, rows, shown, time};
use common::price::{decimal, plan};
use proptest::collection::vec;
use proptest::prelude::*;
use rust_decimal::Decimal;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Tier, Usage};
use talkmeter_engine::instant::{DAY, Instant, SECOND};
use talkmeter_engine::part::Verdict;
use talkmeter_engine::period::{Calendar, Period};

const LIFETIME: i64 = 90 * DAY;

fn subscription(since: Instant, plan: Plan) -> Subscription {
    Subscription { since, plan: Some(plan), calendar: Calendar::utc(1) }
}

fn pack(id: i64, remaining: i64, purchased_at: &str) -> Pack {
    let purchased_at = time(purchased_at);
    Pack { id, size: remaining, remaining, purchased_at, expires_at: purchased_at.plus(LIFETIME) }
}

/// An account on one plan since ever, whose packs are handed over in the order that it asks for.
fn account(plan: Plan, packs: impl IntoIterator<Item = Pack>) -> Account {
    let mut packs = Vec::from_iter(packs);
    packs.sort_by_key(|pack| (pack.purchased_at, pack.id));
    Account { subscriptions: vec![subscription(Instant::BEGINNING, plan)], packs, used: BTreeMap::new() }
}

fn starter(packs: impl IntoIterator<Item = Pack>) -> Account {
    account(plan(1000, "0.04"), packs)
}

/// The tier that pays for a unit at this instant.
fn tier_at(account: &mut Account, at: Instant) -> Tier {
    account.draw(at, None).expect("a plan is in force").tier
}

fn tier(account: &mut Account, at: &str) -> Tier {
    tier_at(account, time(at))
}

fn tiers<const N: usize>(account: &mut Account, at: [&str; N]) -> [Tier; N] {
    at.map(|at| tier(account, at))
}

/// What March 2026 has used once `units` are drawn in it, and what the draws cost together.
fn march(mut account: Account, units: i64) -> (i64, i64, i64, Decimal) {
    let first = time("2026-03-01 00:00:00+00");
    let amounts = (0..units).map(|i| account.draw(first.plus(i * SECOND), None).expect("a plan is in force").amount);
    let billed: Decimal = amounts.sum();
    let used = &account.used[&Calendar::utc(1).period_of(first).expect("in range")];
    assert_eq!(used.overage_amount, billed);
    (used.included_used, used.pack_used, used.overage_units, billed)
}

const FEBRUARY: &str = "2026-02-10 00:00:00+00";
const MARCH: &str = "2026-03-10 00:00:00+00";
const LATER_IN_MARCH: &str = "2026-03-20 00:00:00+00";
const APRIL: &str = "2026-04-10 00:00:00+00";

// Worked examples (rule 6)

#[test]
fn eight_hundred_units_on_starter_are_included() {
    assert_eq!(march(starter([]), 800), (800, 0, 0, Decimal::ZERO));
}

#[test]
fn twelve_hundred_units_with_a_pack_of_a_thousand_draw_two_hundred_from_it() {
    assert_eq!(march(starter([pack(1, 1000, FEBRUARY)]), 1200), (1000, 200, 0, Decimal::ZERO));
}

#[test]
fn fifteen_hundred_units_without_packs_cost_exactly_twenty_dollars() {
    assert_eq!(march(starter([]), 1500), (1000, 0, 500, decimal("20.00")));
}

// Tiers

#[test]
fn the_last_unit_of_the_allowance_is_included_and_the_next_is_not() {
    assert_eq!(march(starter([]), 1000), (1000, 0, 0, Decimal::ZERO));
    assert_eq!(march(starter([]), 1001), (1000, 0, 1, decimal("0.04")));
}

#[test]
fn an_included_unit_and_a_pack_unit_cost_nothing_and_an_overage_unit_the_exact_rate() {
    let mut account = account(plan(1, "0.01245"), [pack(1, 1, FEBRUARY)]);
    let amounts = [MARCH; 3].map(|at| account.draw(time(at), None).expect("a plan is in force").amount);
    assert_eq!(amounts, [Decimal::ZERO, Decimal::ZERO, decimal("0.01245")]);
}

#[test]
fn fractions_of_a_cent_add_up_exactly() {
    assert_eq!(march(account(plan(0, "0.01245"), []), 1000), (0, 0, 1000, decimal("12.45")));
}

#[test]
fn a_draw_names_its_plan_and_the_period_of_its_instant() {
    let mut account = starter([]);
    let draw = account.draw(time(MARCH), None).expect("a plan is in force");
    assert_eq!((draw.plan, Some(draw.period)), (&plan(1000, "0.04"), Calendar::utc(1).period_of(time(MARCH))));
}

#[test]
fn an_allowance_of_zero_goes_straight_to_packs_and_then_to_overage() {
    let mut account = account(plan(0, "0.99"), [pack(1, 1, FEBRUARY)]);
    assert_eq!(tiers(&mut account, [MARCH, MARCH]), [Tier::Pack(1), Tier::Overage]);
}

#[test]
fn the_oldest_pack_pays_first_and_the_next_when_it_is_used_up() {
    let packs = [pack(1, 1, MARCH), pack(2, 2, FEBRUARY)];
    let drawn = tiers(&mut account(plan(0, "1"), packs), [MARCH; 4]);
    assert_eq!(drawn, [Tier::Pack(2), Tier::Pack(2), Tier::Pack(1), Tier::Overage]);
}

#[test]
fn of_packs_bought_at_one_instant_the_one_with_the_lower_id_pays_first() {
    let packs = [pack(2, 1, FEBRUARY), pack(1, 1, FEBRUARY)];
    assert_eq!(tiers(&mut account(plan(0, "1"), packs), [MARCH; 2]), [Tier::Pack(1), Tier::Pack(2)]);
}

#[test]
fn an_older_pack_pays_before_one_that_expires_sooner() {
    let short = Pack { expires_at: time(APRIL), ..pack(2, 1, MARCH) };
    let mut account = account(plan(0, "1"), [pack(1, 1, FEBRUARY), short]);
    assert_eq!(tier(&mut account, LATER_IN_MARCH), Tier::Pack(1));
}

#[test]
fn a_pack_pays_from_its_purchase_on_to_the_microsecond() {
    let bought = time(MARCH);
    let mut account = account(plan(0, "1"), [pack(1, 5, MARCH)]);
    assert_eq!(tier_at(&mut account, bought.plus(-1)), Tier::Overage);
    assert_eq!(tier_at(&mut account, bought), Tier::Pack(1));
}

#[test]
fn a_pack_pays_until_just_before_its_expiry_to_the_microsecond() {
    let expiry = time(MARCH).plus(LIFETIME);
    let mut account = account(plan(0, "1"), [pack(1, 5, MARCH)]);
    assert_eq!(tier_at(&mut account, expiry.plus(-1)), Tier::Pack(1));
    assert_eq!(tier_at(&mut account, expiry), Tier::Overage);
}

#[test]
fn an_expired_pack_is_passed_over_for_a_younger_one_and_keeps_its_units() {
    let mut account = account(plan(0, "1"), [pack(1, 5, "2025-12-01 00:00:00+00"), pack(2, 5, FEBRUARY)]);
    assert_eq!(tier(&mut account, MARCH), Tier::Pack(2));
    assert_eq!(account.packs.iter().map(|pack| pack.remaining).collect::<Vec<_>>(), [5, 4]);
}

#[test]
fn a_pack_bought_while_in_overage_pays_from_then_on_and_does_not_reach_back() {
    let mut account = account(plan(0, "1"), []);
    assert_eq!(tier(&mut account, MARCH), Tier::Overage);
    account.packs.push(pack(1, 5, LATER_IN_MARCH));
    assert_eq!(tiers(&mut account, [MARCH, LATER_IN_MARCH]), [Tier::Overage, Tier::Pack(1)]);
    assert_eq!(account.used.values().map(|used| (used.overage_units, used.pack_used)).collect::<Vec<_>>(), [(2, 1)]);
}

#[test]
fn a_unit_is_never_refused_at_a_limit() {
    let mut account = account(plan(1, "1"), [pack(1, 1, FEBRUARY)]);
    assert!((0..1000).all(|_| account.draw(time(MARCH), None).is_some()));
}

// Periods

#[test]
fn what_is_left_of_an_allowance_does_not_roll_over() {
    let mut account = account(plan(2, "1"), []);
    let drawn = tiers(&mut account, [FEBRUARY, MARCH, MARCH, MARCH]);
    assert_eq!(drawn, [Tier::Included, Tier::Included, Tier::Included, Tier::Overage]);
}

#[test]
fn the_allowance_resets_at_the_first_instant_of_the_next_period() {
    let mut account = account(plan(1, "1"), []);
    let drawn = ["2026-03-31 23:59:59+00", "2026-03-31 23:59:59.999999+00", "2026-04-01 00:00:00+00"];
    assert_eq!(tiers(&mut account, drawn), [Tier::Included, Tier::Overage, Tier::Included]);
}

#[test]
fn packs_last_over_periods() {
    let mut account = account(plan(0, "1"), [pack(1, 2, FEBRUARY)]);
    assert_eq!(tiers(&mut account, [MARCH, APRIL, APRIL]), [Tier::Pack(1), Tier::Pack(1), Tier::Overage]);
}

// Late charges

#[test]
fn a_late_charge_takes_what_is_left_of_its_own_periods_allowance() {
    let mut account = account(plan(2, "1"), []);
    assert_eq!(tiers(&mut account, [MARCH, MARCH, MARCH]), [Tier::Included, Tier::Included, Tier::Overage]);
    assert_eq!(tiers(&mut account, [FEBRUARY; 3]), [Tier::Included, Tier::Included, Tier::Overage]);
}

#[test]
fn a_late_charge_finds_a_pack_only_as_far_as_later_charges_left_it_and_takes_nothing_from_them() {
    let mut account = account(plan(0, "1"), [pack(1, 1, FEBRUARY)]);
    assert_eq!(tiers(&mut account, [LATER_IN_MARCH, MARCH]), [Tier::Pack(1), Tier::Overage]);
}

#[test]
fn a_late_charge_takes_the_unit_of_a_pack_that_has_expired_since() {
    let mut account = account(plan(0, "1"), [pack(1, 1, "2026-01-01 00:00:00+00")]);
    assert_eq!(tiers(&mut account, [APRIL, MARCH]), [Tier::Overage, Tier::Pack(1)]);
}

#[test]
fn a_pack_for_the_period_lasts_to_the_end_of_the_month_that_holds_its_purchase() {
    let end = |account: &Account, at: &str| shown(account.month_of_purchase(time(at)).map(|month| month.end));
    let nobody = Account::default();
    assert_eq!(end(&nobody, "2026-03-20 00:00:00+00"), shown(Some(time("2026-04-01 00:00:00+00"))));
    let calendar = Calendar { zone: Tz::Europe__Berlin, anchor_day: 31 };
    let first = Subscription { since: time("2026-03-10 00:00:00+00"), plan: None, calendar };
    let own = Account { subscriptions: vec![first], ..Account::default() };
    // Before the month with which the subscription begins there are months too.
    assert_eq!(end(&own, "2026-01-20 00:00:00+00"), shown(Some(time("2026-01-30 23:00:00+00"))));
    assert_eq!(end(&own, "2026-03-01 00:00:00+00"), shown(Some(time("2026-03-30 22:00:00+00"))));
    assert_eq!(end(&own, "2026-03-30 22:00:00+00"), shown(Some(time("2026-04-29 22:00:00+00"))));
}

// Outcomes

/// A plan that includes so many units; a qualification has a rate of its own.
fn by_outcome(included: i64) -> Plan {
    Plan { rates: BTreeMap::from([("qualification".to_owned(), decimal("9.99"))]), ..plan(included, "0.99") }
}

#[test]
fn an_overage_unit_costs_the_rate_of_its_outcome_and_any_other_the_overage_rate() {
    let mut account = account(by_outcome(0), []);
    let mut amount = |outcome| account.draw(time(MARCH), outcome).expect("a plan is in force").amount;
    assert_eq!(amount(Some("qualification")), decimal("9.99"));
    assert_eq!(amount(Some("resolution")), decimal("0.99"));
    assert_eq!(amount(None), decimal("0.99"));
    assert_eq!(account.used.values().next().map(|used| used.overage_amount), Some(decimal("11.97")));
}

#[test]
fn allowance_and_packs_pay_for_a_unit_of_any_outcome() {
    let mut account = account(by_outcome(1), [pack(1, 1, FEBRUARY)]);
    let paid = [(); 3].map(|()| {
        let draw = account.draw(time(MARCH), Some("qualification")).expect("a plan is in force");
        (draw.tier, draw.amount)
    });
    let nothing = Decimal::ZERO;
    assert_eq!(paid, [(Tier::Included, nothing), (Tier::Pack(1), nothing), (Tier::Overage, decimal("9.99"))]);
}

#[test]
fn what_a_unit_of_an_outcome_had_cost_is_given_back() {
    let mut account = account(by_outcome(0), []);
    let draw = account.draw(time(MARCH), Some("qualification")).expect("a plan is in force");
    let (period, amount) = (draw.period, draw.amount);
    account.draw(time(MARCH), None);
    account.give_back(period, Tier::Overage, amount);
    let used = &account.used[&period];
    assert_eq!((used.overage_units, used.overage_amount), (1, decimal("0.99")));
}

#[test]
fn a_plan_whose_rates_are_lower_in_part_and_higher_nowhere_is_an_upgrade() {
    let upgraded = |from: &Plan, to: &Plan| from.is_upgraded_by(to);
    let with =
        |rate: &str| Plan { rates: BTreeMap::from([("qualification".to_owned(), decimal(rate))]), ..plan(0, "0.99") };
    assert!(upgraded(&with("9.99"), &with("9.98")) && !upgraded(&with("9.98"), &with("9.99")));
    assert!(!upgraded(&with("9.99"), &with("9.99")));
    // Without a rate of its own a qualification costs 0.99.
    assert!(upgraded(&with("9.99"), &plan(0, "0.99")) && !upgraded(&plan(0, "0.99"), &with("9.99")));
    // Some cheaper, some dearer.
    assert!(!upgraded(&plan(0, "1"), &with("9.99")) && !upgraded(&with("9.99"), &plan(0, "1")));
    assert!(upgraded(&with("9.99"), &Plan { included: 1, ..with("99") }));
}

// Subscriptions

#[test]
fn before_the_first_subscription_a_unit_waits_and_nothing_is_used() {
    let mut account = Account {
        subscriptions: vec![subscription(time(MARCH), plan(5, "1"))],
        packs: vec![pack(1, 5, FEBRUARY)],
        used: BTreeMap::new(),
    };
    let before = account.clone();
    assert_eq!(account.draw(time(MARCH).plus(-1), None), None);
    assert_eq!(account, before);
    assert_eq!(tier(&mut account, MARCH), Tier::Included);
}

#[test]
fn a_second_subscription_replaces_the_first_from_its_since() {
    let mut account = account(plan(0, "0.04"), []);
    account.subscriptions.push(subscription(time(MARCH), plan(0, "0.025")));
    let mut amount = |at: Instant| account.draw(at, None).expect("a plan is in force").amount;
    assert_eq!(amount(time(MARCH)), decimal("0.025"));
    // Late, and by the rate in force at its own instant.
    assert_eq!(amount(time(MARCH).plus(-1)), decimal("0.04"));
}

#[test]
fn of_two_subscriptions_from_one_instant_the_later_holds() {
    let mut account = account(plan(0, "1"), []);
    account.subscriptions.push(subscription(time(MARCH), plan(0, "2")));
    account.subscriptions.push(subscription(time(MARCH), plan(0, "3")));
    assert_eq!(account.plan_at(time(MARCH)), Some(&plan(0, "3")));
    assert_eq!(account.draw(time(MARCH), None).map(|draw| draw.amount), Some(decimal("3")));
}

#[test]
fn units_used_under_the_first_subscription_count_against_the_second_in_the_same_period() {
    let mut account = account(plan(1, "1"), []);
    account.subscriptions.push(subscription(time(LATER_IN_MARCH), plan(2, "1")));
    let drawn = tiers(&mut account, [MARCH, MARCH, LATER_IN_MARCH, LATER_IN_MARCH]);
    assert_eq!(drawn, [Tier::Included, Tier::Overage, Tier::Included, Tier::Overage]);
}

#[test]
fn packs_survive_a_second_subscription() {
    let mut account = account(plan(0, "1"), [pack(1, 2, FEBRUARY)]);
    account.subscriptions.push(subscription(time(LATER_IN_MARCH), plan(0, "2")));
    assert_eq!(tiers(&mut account, [MARCH, LATER_IN_MARCH]), [Tier::Pack(1), Tier::Pack(1)]);
}

#[test]
fn the_period_of_a_draw_holds_its_instant_also_after_a_change_of_anchor_day() {
    let mut account = account(plan(5, "1"), []);
    account.subscriptions[0].calendar = Calendar::utc(28);
    let end_of_march = time("2026-03-29 00:00:00+00");
    account
        .subscriptions
        .push(Subscription { calendar: Calendar::utc(31), ..subscription(end_of_march, plan(5, "1")) });
    // February has 28 days: under both anchors a period starts on its last day.
    tier(&mut account, MARCH);
    let period = account.draw(end_of_march, None).expect("a plan is in force").period;
    assert!(period.start <= end_of_march && end_of_march < period.end, "{period:?}");
}

// Any sequence of draws

#[derive(Clone, Debug)]
struct Draws {
    account: Account,
    at: Vec<Instant>,
}

/// Few days, so that purchases, expiries and draws often meet, over three months.
fn day() -> impl Strategy<Value = Instant> {
    (0..9i64).prop_map(|tenth| time("2026-01-05 00:00:00+00").plus(tenth * 10 * DAY))
}

fn draws() -> impl Strategy<Value = Draws> {
    let packs = vec((0..6i64, day(), 0..5i64), 0..5).prop_map(|packs| {
        (1..)
            .zip(packs)
            .map(|(id, (remaining, purchased_at, tenths))| Pack {
                size: remaining,
                id,
                remaining,
                purchased_at,
                expires_at: purchased_at.plus(tenths * 10 * DAY),
            })
            .collect::<Vec<_>>()
    });
    (0..4i64, packs, vec(day(), 0..40))
        .prop_map(|(included, packs, at)| Draws { account: account(plan(included, "0.01245"), packs), at })
}

/// The packs that could pay at an instant.
fn paying(account: &Account, at: Instant) -> impl Iterator<Item = &Pack> {
    let pays = move |pack: &&Pack| pack.remaining > 0 && pack.purchased_at <= at && at < pack.expires_at;
    account.packs.iter().filter(pays)
}

fn allowance_left(account: &Account, at: Instant) -> bool {
    let period = Calendar::utc(1).period_of(at).expect("in range");
    let used = account.used.get(&period).map_or(0, |used| used.included_used);
    used < account.plan_at(Instant::BEGINNING).expect("a plan").included
}

proptest! {
    #[test]
    fn each_unit_takes_the_first_tier_that_has_one(draws in draws()) {
        let Draws { mut account, at } = draws;
        for at in at {
            let oldest = paying(&account, at).max_by_key(|pack| Reverse((pack.purchased_at, pack.id)));
            let expected = match oldest {
                _ if allowance_left(&account, at) => Tier::Included,
                Some(pack) => Tier::Pack(pack.id),
                None => Tier::Overage,
            };
            prop_assert_eq!(tier_at(&mut account, at), expected);
        }
    }

    #[test]
    fn each_period_counts_the_tiers_of_its_own_draws(draws in draws()) {
        let Draws { mut account, at } = draws;
        let mut drawn: BTreeMap<Period, [i64; 3]> = BTreeMap::new();
        for at in at {
            let draw = account.draw(at, None).expect("a plan is in force");
            let counted = match draw.tier {
                Tier::Included => [1, 0, 0],
                Tier::Pack(_) => [0, 1, 0],
                Tier::Overage => [0, 0, 1],
            };
            let so_far = drawn.entry(draw.period).or_default();
            *so_far = [0, 1, 2].map(|tier| so_far[tier] + counted[tier]);
        }
        let units = |used: &Usage| [used.included_used, used.pack_used, used.overage_units];
        let used: BTreeMap<_, _> = account.used.iter().map(|(period, used)| (*period, units(used))).collect();
        prop_assert_eq!(used, drawn);
    }

    #[test]
    fn no_period_uses_more_than_its_allowance_and_overage_is_billed_exactly(draws in draws()) {
        let Draws { mut account, at } = draws;
        for at in at {
            tier_at(&mut account, at);
        }
        for used in account.used.values() {
            let included = account.plan_at(Instant::BEGINNING).expect("a plan").included;
            prop_assert!((0..=included).contains(&used.included_used));
            prop_assert_eq!(used.overage_amount, decimal("0.01245") * Decimal::from(used.overage_units));
        }
    }

    #[test]
    fn what_packs_lose_is_what_they_paid_and_none_is_ever_negative(draws in draws()) {
        let Draws { mut account, at } = draws;
        let before = account.packs.clone();
        let tiers: Vec<Tier> = at.into_iter().map(|at| tier_at(&mut account, at)).collect();
        for (before, after) in before.iter().zip(&account.packs) {
            let paid = tiers.iter().filter(|tier| **tier == Tier::Pack(before.id)).count();
            prop_assert_eq!(after.remaining, before.remaining - paid as i64);
            prop_assert!(after.remaining >= 0);
        }
    }

    #[test]
    fn no_unit_is_overage_while_a_pack_could_pay(draws in draws()) {
        let Draws { mut account, at } = draws;
        for at in at {
            let could_pay = paying(&account, at).next().is_some();
            prop_assert!(!(could_pay && tier_at(&mut account, at) == Tier::Overage));
        }
    }
}

// The sample

/// The instants of a tenant's charges in the order in which they are drawn: instant, conversation, part (rule 4.3).
fn charges(conversations: &Conversations) -> BTreeMap<&str, Vec<(Instant, &str, i32)>> {
    let policy = common::agent_red();
    let mut charges: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for ((tenant, id), events) in conversations {
        let mut folding = Folding::of(id, &policy, events);
        folding.pass_time(time("2026-01-01 00:00:00+00"));
        let charged = folding.parts().into_iter().filter_map(|part| match part.verdict {
            Some(Verdict::Billable(at)) => Some((at, id.as_str(), part.number)),
            _ => None,
        });
        charges.entry(tenant).or_default().extend(charged);
    }
    charges.values_mut().for_each(|charges| charges.sort());
    charges
}

/// 100 included units, 0.04 for each unit of overage, and two packs of 50 units, as the sample's README says.
fn sample_account(first_row: Instant) -> Account {
    let first = Calendar::utc(1).period_of(first_row).expect("in range").start;
    let pack = |id, purchased_at: Instant| Pack {
        id,
        size: 50,
        remaining: 50,
        purchased_at,
        expires_at: purchased_at.plus(LIFETIME),
    };
    account(plan(100, "0.04"), [pack(1, first), pack(2, first.plus(30 * DAY))])
}

fn line(tenant: &str, used: &Usage) -> Vec<String> {
    let units = [used.included_used, used.pack_used, used.overage_units];
    let mut line = vec![tenant.into(), shown(Some(used.period.start)), units.iter().sum::<i64>().to_string()];
    line.extend(units.map(|units| units.to_string()));
    line.push(format!("{:.2}", used.overage_amount));
    line
}

#[test]
fn the_draw_down_of_irc_support_is_the_expected_one() {
    let conversations = irc_support();
    let mut drawn = Vec::new();
    for (tenant, charges) in charges(&conversations) {
        let rows = conversations.iter().filter(|((owner, _), _)| owner == tenant).flat_map(|(_, events)| events);
        let mut account = sample_account(rows.map(|event| event.at).min().expect("a row"));
        for (at, _, _) in charges {
            tier_at(&mut account, at);
        }
        drawn.extend(account.used.values().map(|used| line(tenant, used)));
    }
    let expected: Vec<Vec<String>> =
        rows("expected/draw_down.csv.gz").iter().map(|row| row.iter().map(String::from).collect()).collect();
    assert_eq!(drawn, expected);
}

// --- Months ---

fn starts(months: impl IntoIterator<Item = Period>) -> Vec<String> {
    months.into_iter().map(|month| shown(Some(month.start))).collect()
}

#[test]
fn months_run_from_the_first_to_the_current_one_without_a_hole() {
    let mut account = starter([]);
    account.subscriptions[0].since = time("2026-01-15 12:00:00+00");
    let months = starts(account.months(time("2026-04-02 00:00:00+00"), &[]));
    assert_eq!(
        months,
        ["2026-01-01 00:00:00+00", "2026-02-01 00:00:00+00", "2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00"]
    );
}

#[test]
fn months_of_a_plan_since_ever_begin_with_the_first_unit() {
    let mut account = starter([]);
    assert_eq!(starts(account.months(time("2026-04-02 00:00:00+00"), &[])), ["2026-04-01 00:00:00+00"]);
    let march = Calendar::utc(1).period_of(time("2026-03-05 00:00:00+00")).expect("a month");
    account.used.insert(march, Usage::unused(march));
    assert_eq!(
        starts(account.months(time("2026-04-02 00:00:00+00"), &[])),
        ["2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00"]
    );
}

#[test]
fn months_without_a_plan_are_none_unless_they_had_units() {
    let mut account = starter([]);
    account.subscriptions[0].since = time("2026-01-01 00:00:00+00");
    let ended = Subscription { since: time("2026-02-10 00:00:00+00"), plan: None, calendar: Calendar::utc(1) };
    let again = subscription(time("2026-05-20 00:00:00+00"), plan(1, "1"));
    account.subscriptions.extend([ended, again]);
    let months = starts(account.months(time("2026-05-31 00:00:00+00"), &[]));
    assert_eq!(months, ["2026-01-01 00:00:00+00", "2026-02-01 00:00:00+00", "2026-05-01 00:00:00+00"]);
}

#[test]
fn months_in_which_packs_were_sold_are_there_without_a_plan_too_and_begin_one_since_ever() {
    let (now, pack) = (time("2026-05-31 00:00:00+00"), time("2026-03-05 00:00:00+00"));
    let mut account = starter([]);
    let later = time("2026-07-01 00:00:00+00");
    let months = starts(account.months(now, &[pack, later]));
    assert_eq!(months, ["2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00", "2026-05-01 00:00:00+00"]);
    account.subscriptions[0].since = time("2026-01-01 00:00:00+00");
    let ended = Subscription { since: time("2026-01-10 00:00:00+00"), plan: None, calendar: Calendar::utc(1) };
    account.subscriptions.push(ended);
    assert_eq!(starts(account.months(now, &[pack])), ["2026-01-01 00:00:00+00", "2026-03-01 00:00:00+00"]);
    // Before the first subscription there is no month.
    assert_eq!(starts(account.months(now, &[time("2025-03-05 00:00:00+00")])), ["2026-01-01 00:00:00+00"]);
}

#[test]
fn the_first_month_has_the_zone_of_the_subscription_that_begins_within_it() {
    let calendar = Calendar { zone: chrono_tz::Europe::Berlin, ..Calendar::utc(1) };
    let own = Subscription { since: time("2026-01-15 11:00:00+00"), plan: Some(plan(1, "1")), calendar };
    let account = Account { subscriptions: vec![own], ..Account::default() };
    let day = |text: &str| (time(text).0 / DAY) as i32;
    let january = day("2026-01-01 00:00:00+00")..day("2026-02-01 00:00:00+00");
    let starts: Vec<String> = account.starts_within(january).into_iter().map(|start| shown(Some(start))).collect();
    assert_eq!(starts, ["2025-12-31 23:00:00+00"]);
}
