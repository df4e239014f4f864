-- What does Freshworks bill for Freddy? Sessions: 24 hours of chat, or one answer by e-mail or voice.
--
-- Source: Freshworks support articles on Freddy sessions (crmsupport.freshworks.com 50000004664, support.freshchat.com 50000003442), 2025-11-13.
-- A session that starts at 11:59 PM lasts to 11:58 PM of the next day: the end does not belong to it. Previews count.
-- The mapping supplies: conversation = the end user (chat) or the ticket (e-mail); the channel as the tag of both customer_message and ai_reply:
-- chat, email, voice.
-- Prices: a pack of 100 for $49 ends with the billing month; 500 are given once. Freddy stops when none is left: here a further session
-- costs nothing and is counted.
-- Our choice: none but that.

SELECT talkmeter.define_policy('{
    "name": "freddy", "label": "2025-11-13", "effective_from": "-infinity",
    "starts_on": ["customer_message:chat", "ai_reply:email", "ai_reply:voice"], "ends_on": ["ai_reply:email", "ai_reply:voice"],
    "max_duration": "24 hours", "charge_on": "start", "outcomes": [{"outcome": "session"}]
}');

SELECT talkmeter.define_plan('{"name": "freddy/pro", "included": 0, "overage_rate": 0, "currency": "USD"}');
SELECT talkmeter.define_pack('{"name": "freddy/100", "size": 100, "price": 49, "currency": "USD", "valid_for": "period"}');
SELECT talkmeter.define_pack('{"name": "freddy/welcome", "size": 500, "price": 0, "currency": "USD", "valid_for": "never"}');
