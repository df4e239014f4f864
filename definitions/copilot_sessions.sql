-- What is a billed session of Microsoft Copilot Studio? It begins when a topic of the maker's is triggered.
--
-- Source: Microsoft Learn, "Sessions management" and "Analyze billed sessions" of Copilot Studio (legacy licence), 2026.
-- It ends when the user ends it, after more than 30 minutes without a message, after 60 minutes (the first message after that begins the
-- next), or after 100 turns, a turn being one exchange. Test chats count nothing.
-- The mapping supplies: customer_message:topic where the message triggered a topic; a licensed user's rows are excluded.
-- Our choice: "after" 60 minutes is written as 60 minutes and a microsecond.

SELECT talkmeter.define_policy('{
    "name": "copilot_sessions", "label": "legacy", "effective_from": "-infinity",
    "starts_on": ["customer_message:topic"], "ends_on": ["close"], "idle_timeout": "30 minutes",
    "max_duration": "60 minutes 1 microsecond", "turn_limit": 100, "charge_on": "start", "outcomes": [{"outcome": "session"}]
}');
