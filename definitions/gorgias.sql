-- What does Gorgias bill? A ticket, once a human, a rule or the AI agent has sent a message in it, and on top of that its automation.
--
-- Source: Gorgias help centre, "How you're billed" (docs.gorgias.com, 2026), gorgias.com/pricing.
-- A campaign message, or a ticket that an agent opens, counts at once. A customer who writes after 3 days without a message (chat) or 10
-- days (e-mail) opens another ticket. Notes and tags count nothing.
-- The mapping supplies: conversation = the ticket; staff_reply:outbound for the message with which an agent opens a ticket;
-- system_message:campaign and system_message:rule; direct replies on Facebook and Instagram are excluded.
-- The automation fee: the AI agent, or a flow, handled it, and no agent was spoken to in the 72 hours after. A follow-up question starts
-- these anew, mere thanks do not.
-- The mapping supplies for that: note for mere thanks.
-- Our choice: 72 hours, as the help page says, and not the 24 of the page of prices. One table has one meter: simulate says what the other
-- fee would come to.

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

SELECT talkmeter.define_policy('{
    "name": "gorgias_automation", "effective_from": "-infinity",
    "starts_on": ["customer_message"], "ends_on": [], "idle_timeout": "72 hours", "charge_on": "close", "once_per": "conversation",
    "outcomes": [
        {"when": ["staff_reply", "escalate"], "outcome": "handed_over", "units": 0},
        {"when": "unanswered", "outcome": "unanswered", "units": 0},
        {"unless": "ai_reply", "outcome": "no_ai_reply", "units": 0},
        {"outcome": "automated"}]
}');
