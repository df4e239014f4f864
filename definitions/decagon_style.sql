-- How is a contract by outcome written, such as Decagon and Sierra make one by one? Nothing of theirs is published: this is a pattern.
--
-- Source: third parties of 2026 (bearlumen, datarekha): outcomes such as "resolved" and "saved cancellation" are defined in writing per
-- contract, and escalations are free.
-- The mapping supplies: note:saved where a cancellation was saved.
-- Our choice: all of it: 48 hours without a message, and which outcome comes before which.

SELECT talkmeter.define_policy('{
    "name": "decagon_style", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["resolve"], "idle_timeout": "48 hours", "charge_on": "close",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "escalated", "units": 0},
        {"when": "note:saved", "outcome": "saved_cancellation"},
        {"unless": "ai_reply", "outcome": "no_ai_reply", "units": 0},
        {"outcome": "resolution"}]
}');
