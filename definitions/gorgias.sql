-- What does Gorgias bill? A ticket, once a human, a rule or the AI agent has sent a message in it.
--
-- Source: Gorgias help centre, "How you're billed" (docs.gorgias.com, 2026), gorgias.com/pricing.
-- A campaign message, or a ticket that an agent opens, counts at once. A customer who writes after 3 days without a message (chat) or 10
-- days (e-mail) opens another ticket. Notes and tags count nothing.
-- The mapping supplies: conversation = the ticket; staff_reply:outbound for the message with which an agent opens a ticket;
-- system_message:campaign and system_message:rule; direct replies on Facebook and Instagram are excluded.
-- Our choice: none. The automation fee on top needs a verdict that later messages take back: it is not offered.

SELECT talkmeter.define_policy('{
    "name": "gorgias_ticket_chat", "effective_from": "-infinity",
    "starts_on": ["customer_message", "staff_reply:outbound", "system_message:campaign"], "ends_on": [], "idle_timeout": "3 days",
    "charge_on": ["ai_reply", "staff_reply", "system_message:rule", "system_message:campaign"],
    "outcomes": [{"outcome": "ticket"}]
}');

SELECT talkmeter.define_policy('{
    "name": "gorgias_ticket_email", "effective_from": "-infinity",
    "starts_on": ["customer_message", "staff_reply:outbound"], "ends_on": [], "idle_timeout": "10 days",
    "charge_on": ["ai_reply", "staff_reply", "system_message:rule"],
    "outcomes": [{"outcome": "ticket"}]
}');
