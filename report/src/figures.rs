//! What is known of a tenant's month? All that a page shows, as the views say it.

use crate::psql::{Failure, Server};
use serde::Deserialize;

const VIEWS: &str = include_str!("../sql/views.sql");
const TENANTS: &str = include_str!("../sql/tenants.sql");
const FIGURES: &str = include_str!("../sql/figures.sql");

/// Of each list: more would be read by nobody.
const MOST_ROWS: &str = "60";

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { refused: String, detail: Option<String> },
    Given(T),
}

#[derive(Deserialize)]
struct Tenants {
    tenants: Vec<String>,
}

/// Amounts, rates and averages are texts, exact as the server writes them; instants are so in the session's zone.
#[derive(Deserialize)]
pub struct Figures {
    pub tenant: String,
    pub period: String,
    /// The period, or its first day if another month of the tenant has the same name.
    pub own_name: String,
    pub first_day: String,
    pub last_day: String,
    pub read_at: String,
    pub zone: String,
    pub month: Month,
    /// What the plan includes in the month.
    pub included: Option<i64>,
    pub current: Option<Current>,
    pub projection: Option<Projection>,
    pub days: Vec<Day>,
    pub parts: Parts,
    pub not_billed: Vec<NotBilled>,
    pub alerts: Listed<Alert>,
    pub packs: Listed<Pack>,
    pub disputes: Listed<Dispute>,
    pub statement: Vec<Line>,
    pub totals: Vec<Bill>,
    pub history: Vec<PastMonth>,
    pub conversations: Vec<Conversation>,
}

/// A list that is cut off where it would make the page too long.
#[derive(Deserialize)]
pub struct Listed<T> {
    pub rows: Vec<T>,
    /// How many are left out.
    pub more: i64,
}

#[derive(Deserialize)]
pub struct Month {
    pub used: i64,
    pub included_used: i64,
    pub pack_used: i64,
    pub overage_units: i64,
}

/// Of the month that is running.
#[derive(Deserialize)]
pub struct Current {
    pub plan: String,
    pub included: i64,
    pub included_remaining: i64,
    pub pack_balance: i64,
    pub overage_rate: Option<String>,
    pub estimated_overage: Option<String>,
    pub currency: String,
}

#[derive(Deserialize)]
pub struct Projection {
    pub projected_used: i64,
    pub projected_overage_units: i64,
    pub projected_overage: Option<String>,
    pub currency: String,
}

#[derive(Deserialize)]
pub struct Day {
    pub day: String,
    pub used: i64,
    /// Of the day and the six before; none of days to come.
    pub average: Option<String>,
}

#[derive(Deserialize)]
pub struct Parts {
    pub all: i64,
    pub billable: i64,
    pub open: i64,
}

#[derive(Deserialize)]
pub struct NotBilled {
    pub reason: String,
    pub parts: i64,
}

#[derive(Deserialize)]
pub struct Alert {
    pub kind: String,
    pub fired_at: String,
    pub notified_at: Option<String>,
    pub muted: bool,
}

#[derive(Deserialize)]
pub struct Pack {
    pub pack: String,
    pub size: i64,
    pub remaining: i64,
    pub price: String,
    pub currency: String,
    pub purchased_day: String,
    pub expires_day: Option<String>,
    pub refunded: bool,
}

#[derive(Deserialize)]
pub struct Dispute {
    pub charge_id: i64,
    pub conversation: String,
    pub reason: String,
    pub state: String,
    pub due_day: Option<String>,
}

#[derive(Deserialize)]
pub struct Line {
    pub line: i32,
    pub kind: String,
    pub description: String,
    pub quantity: i64,
    pub unit_price: Option<String>,
    pub amount: String,
    pub currency: String,
}

#[derive(Deserialize)]
pub struct Bill {
    pub status: String,
    pub total: String,
    pub currency: String,
}

#[derive(Deserialize)]
pub struct PastMonth {
    pub period: String,
    pub first_day: String,
    pub used: i64,
    pub included_used: i64,
    pub pack_used: i64,
    pub overage_units: i64,
    pub bills: Vec<Bill>,
}

#[derive(Deserialize)]
pub struct Conversation {
    pub conversation: String,
    pub parts: Listed<Part>,
    pub steps: Listed<Step>,
}

#[derive(Deserialize)]
pub struct Part {
    pub part: i32,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub billable: bool,
    pub not_billable_because: Option<String>,
    pub message_count: i64,
    pub outcome: Option<String>,
}

#[derive(Deserialize)]
pub struct Step {
    pub step: i32,
    pub occurred_at: Option<String>,
    pub event: Option<String>,
    pub message_id: Option<String>,
    pub effect: String,
    pub rule: Option<String>,
    pub charge_id: Option<i64>,
    pub tier: Option<String>,
    pub amount: Option<String>,
    pub currency: Option<String>,
}

impl Figures {
    /// Reads those of a tenant, of a month by its name or its first day, or of the newest if that is empty.
    pub fn read(server: &Server, tenant: &str, asked: &str, newest: u16) -> Result<Figures, Failure> {
        let newest = newest.to_string();
        let variables = [("tenant", tenant), ("asked", asked), ("newest", &newest), ("most", MOST_ROWS)];
        given(&server.ask(&[VIEWS, FIGURES], &variables)?, tenant, asked)
    }
}

/// The tenants of which whoever connects may have a page, by name.
pub fn tenants(server: &Server) -> Result<Vec<String>, Failure> {
    given(&server.ask(&[VIEWS, TENANTS], &[])?, "", "").map(|read: Tenants| read.tenants)
}

fn given<T: serde::de::DeserializeOwned>(printed: &str, tenant: &str, period: &str) -> Result<T, Failure> {
    match serde_json::from_str(printed) {
        Ok(Answer::Given(figures)) => Ok(figures),
        Ok(Answer::Refused { refused, detail }) => {
            Err(Failure::refused(&refused, tenant, period, &detail.unwrap_or_default()))
        }
        Err(error) => Err(Failure::new(format!("what the views answered is not understood: {error}"))),
    }
}
