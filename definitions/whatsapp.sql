-- What does Meta bill on WhatsApp? To 2025-06 a conversation of 24 hours per category, since 2025-07 each delivered template.
--
-- Source: Meta for Developers, conversation-based pricing (to 2025-06-30) and per-message pricing (2025-07-01).
-- The mapping supplies: conversation = the phone number and the category, for conversations; the phone number, for messages; a delivered
-- template as system_message with the tag ["category", "country"]; rows that Meta's own flag calls free are excluded.
-- Prices: those of Brazil, as a third party printed them on 2026-09-20; what has no rate costs nothing until you name its own.
-- Our choice: none. That a service conversation opens only while no other is open, and that a free entry point closes all others, is Meta's flag.

SELECT talkmeter.define_policy('{
    "name": "whatsapp_conversations", "label": "2023-06 to 2025-06", "effective_from": "-infinity",
    "starts_on": ["system_message"], "ends_on": [], "max_duration": "24 hours", "charge_on": "start", "outcomes": [{"outcome": "@tag"}]
}');

SELECT talkmeter.define_policy('{
    "name": "whatsapp_messages", "label": "2025-07", "effective_from": "-infinity",
    "starts_on": ["system_message"], "ends_on": ["system_message"], "charge_on": "start", "outcomes": [{"outcome": "@tag"}]
}');

SELECT talkmeter.define_plan('{
    "name": "whatsapp/br", "included": 0, "overage_rate": 0, "currency": "USD",
    "rates": {"marketing:BR": 0.025, "utility:BR": 0.0034, "authentication:BR": 0.0034}
}');
