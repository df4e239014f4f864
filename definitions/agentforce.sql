-- What does Salesforce bill for Agentforce, sold by the conversation? A window of 24 hours.
--
-- Source: Salesforce Help, "Generative AI usage" (conversations), 2026; $2 a conversation.
-- The window starts when the user first writes after the window before, or with the agent's welcome message. It ends 24 hours after its
-- start; on the web an unauthenticated user may end it.
-- The mapping supplies: conversation = the end user and the channel; system_message:welcome; close where a guest ends the window. Which of
-- the two policies a table is under says its channel: authenticated users and other channels, or guests on the web.
-- Our choice: a guest's window has no end but the close, because the source names none.

SELECT talkmeter.define_policy('{
    "name": "agentforce", "effective_from": "-infinity",
    "starts_on": ["customer_message", "system_message:welcome"], "ends_on": [], "max_duration": "24 hours",
    "charge_on": "start", "outcomes": [{"outcome": "conversation"}]
}');

SELECT talkmeter.define_policy('{
    "name": "agentforce_guest", "effective_from": "-infinity",
    "starts_on": ["customer_message", "system_message:welcome"], "ends_on": ["close"],
    "charge_on": "start", "outcomes": [{"outcome": "conversation"}]
}');

SELECT talkmeter.define_plan('{"name": "agentforce/conversations", "included": 0, "overage_rate": 2.00, "currency": "USD"}');
