//! Where is a tenant told of alerts? Who is woken by one reads it in `talkmeter.alerts` (rule 4.5).

use crate::calls::{journal, locked};
use crate::catalog::args::{short_enough, tenant_key};
use crate::pg::sql::arg;
use pgrx::prelude::*;
use serde_json::json;

// Whoever knows a channel may use it, so the journal has what proves it and does not tell it.
const DIGEST: &str = "SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')";

const SET_CHANNEL: &str = "
    INSERT INTO talkmeter.account AS a (tenant, alert_channel) VALUES ($1, $2)
    ON CONFLICT (tenant) DO UPDATE SET alert_channel = excluded.alert_channel";

/// Sets what the notifications of a tenant carry as its channel.
#[pg_extern(sql = false)]
fn set_alert_channel(tenant: Option<&str>, channel: Option<&str>) {
    let tenant = tenant_key(tenant);
    // A notification has room for 8,000 bytes, and json may take six for one.
    if let Some(channel) = channel {
        short_enough(channel, "channel");
    }
    locked(tenant, |connection| {
        connection.run(SET_CHANNEL, &[arg(tenant), arg(channel)]);
        let digest: Option<String> = connection.run(DIGEST, &[arg(channel)]).only().nullable();
        journal::note(connection, "set_alert_channel", Some(tenant), json!({"channel_sha256": digest}), None);
    });
}
