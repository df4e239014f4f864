-- What does Tidio bill? A live chat that an operator has answered and solved; and, on a quota of its own, a conversation of Lyro.
--
-- Source: Tidio help centre 11874534946460, 2026: counted once per thread, when an operator hits Solve; 50 a month are free. What a Lyro
-- conversation is, no page that we know of says.
-- The mapping supplies: resolve where an operator hits Solve.
-- Our choice: a Lyro conversation is a thread in which Lyro replied.

SELECT talkmeter.define_policy('{
    "name": "tidio_live_chat", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["resolve"], "charge_on": "close",
    "outcomes": [{"unless": "staff_reply", "outcome": "no_operator", "units": 0}, {"outcome": "handled"}]
}');

SELECT talkmeter.define_policy('{
    "name": "tidio_lyro", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["resolve"], "charge_on": "first_ai_reply"
}');

SELECT talkmeter.define_plan('{"name": "tidio/free", "included": 50, "overage_rate": 0, "price": 0, "currency": "USD"}');
