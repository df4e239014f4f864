-- What is installed? The three published definitions of a billable unit, and what their vendors sell. LutinGénie prints no prices.

INSERT INTO talkmeter.policy (name, version, label, effective_from, starts_on, ends_on, idle_timeout,
    quiet_review_after, turn_limit, charge_on, staff_reply_blocks, error_before_reply_waives, exclude_prefixes, shipped)
VALUES
    ('lutingenie', 1, '1', '-infinity', '{customer_message}', '{close,resolve,new_topic}', '30 minutes',
        NULL, NULL, 'first_ai_reply', false, false, '{}', true),
    ('agent_red', 1, '1.0.0', '-infinity', '{customer_message}', '{close,escalate}', '30 minutes',
        NULL, 50, 'first_ai_reply', false, true, '{test_,admin_,health_,system_}', true),
    ('ai_resolution', 1, '1', '-infinity', '{customer_message,staff_reply,reopen}', '{close,resolve}', NULL,
        '3 hours', NULL, 'close', true, false, '{}', true);

INSERT INTO talkmeter.plan (name, included, overage_rate, price, currency, shipped)
VALUES
    ('agent_red/starter', 1000, 0.04, NULL, 'USD', true),
    ('agent_red/professional', 5000, 0.025, NULL, 'USD', true),
    ('agent_red/enterprise', 20000, 0.015, NULL, 'USD', true),
    ('ai_resolution/usage', 0, 0.99, NULL, 'USD', true);

INSERT INTO talkmeter.pack_offer (name, size, price, currency, valid_for, shipped)
VALUES
    ('agent_red/1000', 1000, 29, 'USD', '90 days', true),
    ('agent_red/5000', 5000, 99, 'USD', '90 days', true),
    ('agent_red/20000', 20000, 249, 'USD', '90 days', true);
