-- What does Kore.ai bill? Usage sessions of 15 minutes.
--
-- Source: Kore.ai documentation, AI for Service, Billing (docs.kore.ai), 2026: 31 minutes are three sessions, 0 to 15, 16 to 30 and 31 to the end.
-- The mapping supplies: nothing beyond the kinds.
-- Our choice: none.

SELECT talkmeter.define_policy('{
    "name": "kore_ai", "effective_from": "-infinity",
    "starts_on": ["message"], "ends_on": [], "max_duration": "15 minutes", "charge_on": "start", "outcomes": [{"outcome": "session"}]
}');
