-- What does HubSpot bill for its customer agent? A resolved conversation, since 2026-04-14.
--
-- Source: third parties of 2026-04 (resolve247.ai, nerova.ai) for the rate: 50 credits, $0.01 each, per resolved text conversation. HubSpot
-- Knowledge counts "resolved" (2025-12-04) without a definition.
-- What was escalated is free.
-- The mapping supplies: the application's own resolve.
-- Our choice: the unit is the resolved conversation, at the price of its 50 credits.

SELECT talkmeter.define_policy('{
    "name": "hubspot_customer_agent", "label": "2026-04-14", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["resolve", "close"], "charge_on": "close",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "handed_over", "units": 0},
        {"unless": "ai_reply", "outcome": "no_ai_reply", "units": 0},
        {"when": "resolve", "outcome": "resolved"},
        {"outcome": "not_resolved", "units": 0}]
}');

SELECT talkmeter.define_plan('{"name": "hubspot/professional", "included": 60, "overage_rate": 0.50, "currency": "USD"}');
