-- What does Salesforce bill for Agentforce? A window of 24 hours if it is sold by the conversation, a resolution of the Help Agent.
--
-- Source: Salesforce Help, "Generative AI usage" (conversations), 2026; $2 a conversation.
-- The window starts when the user first writes after the window before, or with the agent's welcome message. It ends 24 hours after its
-- start; on the web an unauthenticated user may end it.
-- The mapping supplies: conversation = the end user and the channel; system_message:welcome; close where a guest ends the window. Which of
-- the two policies a table is under says its channel: authenticated users and other channels, or guests on the web.
-- Our choice: a guest's window has no end but the close, because the source names none.
-- The Help Agent (July 2026): $2 a resolution by third parties; nothing if it was escalated, abandoned or got negative feedback.
-- The mapping supplies for that: note:negative_feedback; close where the conversation is closed.
-- Our choice: 24 hours without a message end it, and feedback counts for 7 days.

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

SELECT talkmeter.define_policy('{
    "name": "agentforce_help_agent", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": ["close"], "idle_timeout": "24 hours", "charge_on": "close", "final_after": "7 days",
    "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "escalated", "units": 0},
        {"when": "note:negative_feedback", "outcome": "negative_feedback", "units": 0},
        {"when": "unanswered", "outcome": "abandoned", "units": 0},
        {"unless": "ai_reply", "outcome": "no_ai_reply", "units": 0},
        {"outcome": "resolution", "voided_by": ["note:negative_feedback"]}]
}');

SELECT talkmeter.define_plan('{"name": "agentforce/conversations", "included": 0, "overage_rate": 2.00, "currency": "USD"}');
