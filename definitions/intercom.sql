-- What does Intercom bill for Fin? An outcome of a conversation, once.
--
-- Source: Intercom Help, articles 8205718 (outcomes, 2026-03, in five stored versions), 10772642 (standalone: $49 with 50 included).
-- A resolution: after Fin's last answer the customer confirms, or leaves without asking further. A hand-off by a procedure, and a
-- disqualification, cost the same; a qualification costs 9.99. If a customer comes back to a conversation that was resolved, "even across
-- billing periods", the resolution is deducted.
-- The mapping supplies: ai_reply:answer for what is an answer and no greeting; note:confirmed for a customer's mere thanks, which is then no
-- customer_message; note:qualified, note:disqualified, note:procedure; escalate if the customer asks for a person.
-- Our choice: 24 hours without a message are "leaves", as older texts have it. A reply by staff does not undo a resolution.

SELECT talkmeter.define_policy('{
    "name": "intercom_fin", "label": "outcomes 2026-03", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["note:confirmed"], "idle_timeout": "24 hours", "charge_on": "close",
    "final_after": "forever", "once_per": "conversation",
    "outcomes": [
        {"when": "note:qualified", "outcome": "qualification"},
        {"when": "note:disqualified", "outcome": "disqualification"},
        {"when": "note:procedure", "outcome": "procedure_handoff"},
        {"when": "escalate", "outcome": "help_requested", "units": 0},
        {"when": "unanswered", "outcome": "unanswered", "units": 0},
        {"unless": "ai_reply:answer", "outcome": "no_answer", "units": 0},
        {"outcome": "resolution", "voided_by": ["customer_message"]}]
}');

SELECT talkmeter.define_plan('{"name": "intercom/fin", "included": 0, "overage_rate": 0.99, "rates": {"qualification": 9.99},
    "currency": "USD"}');
SELECT talkmeter.define_plan('{"name": "intercom/fin_standalone", "included": 50, "overage_rate": 0.99, "rates": {"qualification": 9.99},
    "price": 49, "currency": "USD"}');
