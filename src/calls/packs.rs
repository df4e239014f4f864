//! Which packs does a tenant have (rule 4.3)?

use crate::billing::account::{self, Needed};
use crate::calls::{journal, locked};
use crate::catalog::args::{instant_or_now, required, short_enough, tenant_key};
use crate::catalog::offers;
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::failure;
use crate::pg::sql::{Arg, Connection, arg};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::json;
use talkmeter_engine::instant::Instant;

/// Records the purchase of a pack and returns its id; the same key twice is one purchase.
#[pg_extern(sql = false)]
fn buy_pack(
    tenant: Option<&str>,
    pack: Option<&str>,
    purchase_key: Option<&str>,
    purchased_at: Option<TimestampWithTimeZone>,
) -> i64 {
    let tenant = tenant_key(tenant);
    let pack = required(pack, "pack");
    let purchased_at = instant_or_now(purchased_at, "purchased_at");
    if let Some(key) = purchase_key {
        short_enough(key, "purchase_key");
    }
    offers::known_pack(pack);
    locked(tenant, |connection| match purchase_key.and_then(|key| purchased(connection, tenant, key)) {
        Some((id, bought)) if bought == pack => id,
        Some((id, bought)) => failure(
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            format!("purchase_key \"{}\" is that of another purchase", purchase_key.unwrap_or_default()),
        )
        .detail(format!("It bought pack {id}, a \"{bought}\"."))
        .hint("Give each purchase a key of its own.")
        .raise(),
        None => purchase(connection, tenant, pack, purchase_key, purchased_at),
    })
}

const PURCHASED: &str = "
    SELECT p.pack_id, p.pack FROM talkmeter.pack AS p WHERE p.tenant = $1 AND p.purchase_key = $2";

fn purchased(connection: &Connection, tenant: &str, key: &str) -> Option<(i64, String)> {
    let rows = connection.run(PURCHASED, &[arg(tenant), arg(key)]);
    rows.first().map(|mut row| (row.value(), row.value()))
}

const COUNT: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_pack_id) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET last_pack_id = a.last_pack_id + 1
    RETURNING last_pack_id";

const PURCHASE: &str = "
    INSERT INTO talkmeter.pack (tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at,
        purchase_key, billed_at)
    SELECT $1, $2, o.name, o.size, o.size, o.price, o.currency, $4,
        CASE o.expiry WHEN 'never' THEN 'infinity' WHEN 'period' THEN $7
            ELSE $4 + (extract(epoch FROM o.valid_for) || ' seconds')::interval END, $5,
        -- The statement that would list it, that of its period or the first, may be frozen.
        CASE WHEN EXISTS (
            SELECT FROM talkmeter.period AS p
            WHERE p.tenant = $1 AND p.finalized_at IS NOT NULL AND CASE
                WHEN EXISTS (SELECT FROM talkmeter.period_at($1, $4)) THEN p.period_start <= $4 AND p.period_end > $4
                ELSE p.period_start > $4 END
        ) THEN $6 ELSE $4 END
    FROM talkmeter.pack_offer AS o
    WHERE o.name = $3";

fn now() -> Arg {
    arg(Timestamp::from(clock::now()))
}

fn purchase(connection: &Connection, tenant: &str, pack: &str, key: Option<&str>, at: Instant) -> i64 {
    let id: i64 = connection.run(COUNT, &[arg(tenant)]).only().value();
    let month = account::read_one(tenant, &Needed::at(at)).account.month_of_purchase(at);
    let end_of_month = Timestamp::from(month.map_or(Instant::LATEST.plus(1), |month| month.end));
    let at_arg = arg(Timestamp::from(at));
    connection.run(PURCHASE, &[arg(tenant), arg(id), arg(pack), at_arg, arg(key), now(), arg(end_of_month)]);
    let arguments = json!({"pack": pack, "purchase_key": key, "purchased_at": journal::time(at), "pack_id": id});
    journal::note(connection, "buy_pack", Some(tenant), arguments, None);
    id
}

const REFUND: &str = "
    UPDATE talkmeter.pack AS p SET refunded_at = $3, refunded_by = session_user
    WHERE p.tenant = $1 AND p.pack_id = $2 AND p.remaining = p.size AND p.refunded_at IS NULL";

const BOUGHT: &str = "
    SELECT p.size, p.remaining, p.refunded_at IS NOT NULL
    FROM talkmeter.pack AS p
    WHERE p.tenant = $1 AND p.pack_id = $2";

/// Takes back a pack of which no unit was used. It pays for nothing from now on.
#[pg_extern(sql = false)]
fn refund_pack(tenant: Option<&str>, pack_id: Option<i64>) {
    let tenant = tenant_key(tenant);
    let pack_id = required(pack_id, "pack_id");
    locked(tenant, |connection| {
        if connection.run(REFUND, &[arg(tenant), arg(pack_id), now()]).count() == 0 {
            not_refundable(connection, tenant, pack_id);
        }
        journal::note(connection, "refund_pack", Some(tenant), json!({"pack_id": pack_id}), None);
    });
}

fn not_refundable(connection: &Connection, tenant: &str, pack_id: i64) -> ! {
    let rows = connection.run(BOUGHT, &[arg(tenant), arg(pack_id)]);
    let Some(mut row) = rows.first() else {
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("tenant \"{tenant}\" has no pack {pack_id}"))
            .hint("See talkmeter.packs for those that it bought.")
            .raise();
    };
    let (size, remaining): (i64, i64) = (row.value(), row.value());
    let refused = failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("pack {pack_id} of tenant \"{tenant}\" cannot be refunded"),
    );
    match row.value::<bool>() {
        true => refused.detail("It was refunded before.").raise(),
        false => refused.detail(format!("{} of its {size} units were used.", size - remaining)).raise(),
    }
}
