//! How is a subscription recorded (rule 4.2)? By a call, or by the first charge of a tenant whose source has a
//! default plan.

use crate::pg::clock::{self, Timestamp};
use crate::pg::error::damaged;
use crate::pg::limit::heed_cancel;
use crate::pg::own_table::types::{INT4, INT8, NAME, TEXT, TIME};
use crate::pg::own_table::{Access, Index, OwnTable, Shape, Wanted, with_newest};
use crate::pg::sql::{Connection, Row, arg, text_arg};
use std::collections::HashMap;
use talkmeter_engine::draw_down::Subscription;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::{self, Calendar};

pub const SUBSCRIPTION: Shape =
    Shape { name: c"subscription", types: &[TEXT, INT8, TIME, TEXT, TEXT, INT4, TEXT, TIME, NAME, INT8] };
pub const SUBSCRIPTION_KEY: Index = Index { name: c"subscription_pkey", columns: &[1, 2] };

/// From when on a subscription is in force, and the policy that it names.
pub type Pin = (Instant, Option<String>);

/// What the subscriptions of tenants name, in the order in which they were made.
pub fn pins(tenants: &[&str]) -> HashMap<String, Vec<Pin>> {
    let table = OwnTable::open(&SUBSCRIPTION, Access::Reading);
    let mut pins: HashMap<String, Vec<Pin>> = HashMap::new();
    with_newest(|newest| {
        for tenant in tenants {
            heed_cancel();
            table.scan(newest, &SUBSCRIPTION_KEY, &[(0, Wanted::Same(text_arg(tenant)))], |_, row| {
                row.skip(2);
                let since = row.value::<Timestamp>().bound();
                row.skip(3);
                pins.entry((*tenant).to_owned()).or_default().push((since, row.nullable()));
            });
        }
    });
    pins
}

/// The subscriptions of a tenant in their order, without their plans, each with the entry of the ledger after which it
/// was made.
pub fn calendars(tenant: &str) -> Vec<(i64, Subscription)> {
    let table = OwnTable::open(&SUBSCRIPTION, Access::Reading);
    let mut found = Vec::new();
    with_newest(|newest| {
        table.scan(newest, &SUBSCRIPTION_KEY, &[(0, Wanted::Same(text_arg(tenant)))], |_, row| {
            row.skip(2);
            let since = row.value::<Timestamp>().bound();
            row.skip(1);
            let calendar = calendar(row);
            row.skip(3);
            found.push((row.value(), Subscription { since, plan: None, calendar }));
        });
    });
    found
}

/// The next two columns: the zone and the anchor day.
pub fn calendar(row: &mut Row) -> Calendar {
    // It was known when it was recorded; one that the zone database has dropped since is read as UTC.
    let zone = period::zone_named(&row.value::<String>()).unwrap_or_default();
    Calendar { zone, anchor_day: row.value::<i32>() as u32 }
}

/// A subscription to be made.
pub struct NewSubscription {
    pub since: Instant,
    /// `None` cancels.
    pub plan: Option<String>,
    pub timezone: String,
    pub anchor_day: i32,
    pub policy: Option<String>,
}

impl NewSubscription {
    /// That of a tenant first seen through a source with a default plan: without beginning, anchored on the 1st in UTC.
    pub fn by_default(plan: String) -> NewSubscription {
        NewSubscription {
            since: Instant::BEGINNING,
            plan: Some(plan),
            timezone: "UTC".into(),
            anchor_day: 1,
            policy: None,
        }
    }
}

const WRITE: &str = "
    INSERT INTO talkmeter.subscription
        (tenant, subscription_id, since, plan, timezone, anchor_day, policy, subscribed_at, last_charge_id)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, a.last_charge_id FROM talkmeter.account AS a WHERE a.tenant = $1";

const COUNT: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_subscription_id) VALUES ($1, $2)
    ON CONFLICT (tenant) DO UPDATE SET last_subscription_id = excluded.last_subscription_id";

/// Records a subscription and returns its id. The tenant's lock must be held.
pub fn write(connection: &Connection, tenant: &str, new: &NewSubscription, last_id: i64) -> i64 {
    let id =
        last_id.checked_add(1).unwrap_or_else(|| damaged("the subscription_id given last is the last that there is"));
    connection.run(COUNT, &[arg(tenant), arg(id)]);
    connection.run(
        WRITE,
        &[
            arg(tenant),
            arg(id),
            arg(Timestamp::from(new.since)),
            arg(new.plan.as_deref()),
            arg(new.timezone.as_str()),
            arg(new.anchor_day),
            arg(new.policy.as_deref()),
            arg(Timestamp::from(clock::now())),
        ],
    );
    id
}
