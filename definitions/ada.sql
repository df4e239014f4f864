-- What does Ada bill? An automated resolution: a conversation that was relevant, accurate and safe, without a person.
--
-- Source: ada.cx, "What is automated resolution" (2026-06-17); docs.ada.cx. Prices are by quote.
-- Every hour a model labels the conversations of 24 hours ago resolved or not.
-- The mapping supplies: note:resolved where the label says so.
-- Our choice: a conversation ends after 24 hours without a message, which Ada sets for each bot; a label counts for 7 days after that.

SELECT talkmeter.define_policy('{
    "name": "ada", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": [], "idle_timeout": "24 hours", "charge_on": "close", "final_after": "7 days",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "handoff", "units": 0},
        {"when": "note:resolved", "outcome": "automated_resolution"},
        {"outcome": "not_resolved", "units": 0}]
}');
