-- What does Redo bill? A conversation that the AI resolved without a person, unless the customer rates it badly.
--
-- Source: Redo Help, article 11673216: free if the customer rates it 1 to 3. The first 50 a month cost 0.95 each, the next 50 0.90, the next
-- 200 0.85.
-- The mapping supplies: note:csat_low for a rating of 1 to 3, close where the conversation is closed.
-- Our choice: 24 hours without a message end it, and a rating counts for 14 days. No plan is defined: a plan has one rate for all units.

SELECT talkmeter.define_policy('{
    "name": "redo", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["close"], "idle_timeout": "24 hours", "charge_on": "close", "final_after": "14 days",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "handed_over", "units": 0},
        {"when": "note:csat_low", "outcome": "csat_low", "units": 0},
        {"unless": "ai_reply", "outcome": "no_ai_reply", "units": 0},
        {"outcome": "resolution", "voided_by": ["note:csat_low"]}]
}');
