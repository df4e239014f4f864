-- What does Zendesk bill? An automated resolution that a second check has verified.
--
-- Source: Zendesk Help, articles 9570369117338 (tiers) and 10677925692698 (announced 2026-05-14, in force since 2026-05-18).
-- A conversation by messaging is evaluated after 72 hours without a message, one by e-mail or ticket 72 hours after its first message. Four
-- outcomes: unassisted, assisted escalation, contained (nobody followed up, not verified), and verified: only that one is charged.
-- The mapping supplies: note:verified where the check has passed. It may come after the end; date it at the part's ended_at if the customer
-- may have come back since.
-- Our choice: a verification counts for 7 days after the end. The price of the plan is a third party's.

SELECT talkmeter.define_policy('{
    "name": "zendesk_messaging", "label": "tiers 2026-05-18", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": [], "idle_timeout": "72 hours", "charge_on": "close", "final_after": "7 days",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "assisted_escalation", "units": 0},
        {"unless": "ai_reply", "outcome": "unassisted", "units": 0},
        {"when": "note:verified", "outcome": "verified_resolution"},
        {"outcome": "contained_resolution", "units": 0}]
}');

SELECT talkmeter.define_policy('{
    "name": "zendesk_email", "label": "tiers 2026-05-18", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": [], "max_duration": "72 hours", "charge_on": "close", "final_after": "7 days",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "assisted_escalation", "units": 0},
        {"unless": "ai_reply", "outcome": "unassisted", "units": 0},
        {"when": "note:verified", "outcome": "verified_resolution"},
        {"outcome": "contained_resolution", "units": 0}]
}');

SELECT talkmeter.define_plan('{"name": "zendesk/pay_as_you_go", "included": 0, "overage_rate": 2.00, "currency": "USD"}');
