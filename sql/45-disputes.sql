-- Who does not agree with a charge, and what was billed in the end.

-- Filled by its users.
CREATE TABLE talkmeter.holidays (
    day date PRIMARY KEY,
    name text NOT NULL
);
REVOKE ALL ON talkmeter.holidays FROM PUBLIC;
COMMENT ON TABLE talkmeter.holidays IS 'Days from Monday to Friday that are no business days: insert yours';
COMMENT ON COLUMN talkmeter.holidays.day IS 'The day';
COMMENT ON COLUMN talkmeter.holidays.name IS 'What it is called';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.holidays', '');

CREATE TABLE talkmeter.dispute_filed (
    tenant text COLLATE "C" NOT NULL,
    dispute_id bigint NOT NULL CHECK (dispute_id > 0),
    charge_id bigint NOT NULL,
    reason text NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'credited', 'rejected')),
    filed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    filed_by name NOT NULL DEFAULT SESSION_USER,
    due_at timestamptz NOT NULL,
    note text,
    resolved_at timestamptz,
    resolved_by name,
    PRIMARY KEY (tenant, dispute_id),
    CHECK ((state = 'open') = (resolved_at IS NULL))
);
REVOKE ALL ON talkmeter.dispute_filed FROM PUBLIC;
CREATE UNIQUE INDEX dispute_open ON talkmeter.dispute_filed (tenant, charge_id) WHERE state = 'open';
COMMENT ON TABLE talkmeter.dispute_filed IS 'Disputes; read them through the view disputes';
COMMENT ON COLUMN talkmeter.dispute_filed.tenant IS 'The merchant who disputes';
COMMENT ON COLUMN talkmeter.dispute_filed.dispute_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.dispute_filed.charge_id IS 'The charge';
COMMENT ON COLUMN talkmeter.dispute_filed.reason IS 'What the merchant says';
COMMENT ON COLUMN talkmeter.dispute_filed.state IS 'open, credited or rejected';
COMMENT ON COLUMN talkmeter.dispute_filed.filed_at IS 'When it was filed';
COMMENT ON COLUMN talkmeter.dispute_filed.filed_by IS 'Who filed it';
COMMENT ON COLUMN talkmeter.dispute_filed.due_at IS 'The end of the 10th business day after the day of filing, in the tenant''s zone';
COMMENT ON COLUMN talkmeter.dispute_filed.note IS 'What was said when it was resolved';
COMMENT ON COLUMN talkmeter.dispute_filed.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN talkmeter.dispute_filed.resolved_by IS 'Who resolved it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.dispute_filed', '');

CREATE TABLE talkmeter.statement_line (
    tenant text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    line integer NOT NULL CHECK (line > 0),
    kind text NOT NULL,
    of_period_start timestamptz,
    description text NOT NULL,
    quantity bigint NOT NULL,
    unit_price numeric,
    amount numeric NOT NULL,
    currency text NOT NULL,
    PRIMARY KEY (tenant, period_start, period_end, line)
);
REVOKE ALL ON talkmeter.statement_line FROM PUBLIC;
COMMENT ON TABLE talkmeter.statement_line IS 'The lines of finalized statements; read them through the function statement';
COMMENT ON COLUMN talkmeter.statement_line.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.statement_line.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.statement_line.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.statement_line.line IS 'Place on the statement';
COMMENT ON COLUMN talkmeter.statement_line.kind IS 'base, pack, pack_refund, overage, late or credit';
COMMENT ON COLUMN talkmeter.statement_line.of_period_start IS 'The period that a late charge or a credit belongs to';
COMMENT ON COLUMN talkmeter.statement_line.description IS 'What it is for';
COMMENT ON COLUMN talkmeter.statement_line.quantity IS 'How many';
COMMENT ON COLUMN talkmeter.statement_line.unit_price IS 'Price of one, exact; null where units of several prices are meant';
COMMENT ON COLUMN talkmeter.statement_line.amount IS 'Rounded once, half away from zero, to the currency''s digits';
COMMENT ON COLUMN talkmeter.statement_line.currency IS 'ISO 4217 code';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.statement_line', '');
