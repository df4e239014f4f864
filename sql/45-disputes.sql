-- Who does not agree with a charge, what was counted otherwise, and what was billed in the end.

-- Filled by its users.
CREATE TABLE talkmeter.holidays (
    day date PRIMARY KEY CHECK (day BETWEEN '0001-01-01' AND '9999-12-31'),
    name text NOT NULL CHECK (pg_catalog.octet_length(name) <= 512)
);
REVOKE ALL ON talkmeter.holidays FROM PUBLIC;
COMMENT ON TABLE talkmeter.holidays IS 'Days from Monday to Friday that are no business days: insert yours';
COMMENT ON COLUMN talkmeter.holidays.day IS 'The day';
COMMENT ON COLUMN talkmeter.holidays.name IS 'What it is called';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.holidays', '');
CREATE TRIGGER journal_row AFTER INSERT OR UPDATE OR DELETE ON talkmeter.holidays
    FOR EACH ROW EXECUTE FUNCTION talkmeter.journal_row();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON talkmeter.holidays
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.journal_row();

CREATE TABLE talkmeter.dispute_count (
    tenant text COLLATE "C" PRIMARY KEY,
    last_dispute_id bigint NOT NULL DEFAULT 0
);
REVOKE ALL ON talkmeter.dispute_count FROM PUBLIC;
COMMENT ON TABLE talkmeter.dispute_count IS
    'One row per tenant: whoever files or resolves a dispute, or credits a charge, locks it first; messages never wait for it';
COMMENT ON COLUMN talkmeter.dispute_count.tenant IS 'The merchant who disputes';
COMMENT ON COLUMN talkmeter.dispute_count.last_dispute_id IS 'The dispute_id given last; they leave no gaps';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.dispute_count', '');

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
    unit_price numeric CHECK (abs(unit_price) < 1000000000000),
    amount numeric NOT NULL CHECK (abs(amount) < 1e27),
    currency text NOT NULL,
    PRIMARY KEY (tenant, period_start, period_end, line)
);
REVOKE ALL ON talkmeter.statement_line FROM PUBLIC;
COMMENT ON TABLE talkmeter.statement_line IS 'The lines of finalized statements; read them through the function statement';
COMMENT ON COLUMN talkmeter.statement_line.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.statement_line.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.statement_line.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.statement_line.line IS 'Place on the statement';
COMMENT ON COLUMN talkmeter.statement_line.kind IS 'base, included, pack, pack_refund, overage, late or credit';
COMMENT ON COLUMN talkmeter.statement_line.of_period_start IS 'The period that a late charge or a credit belongs to';
COMMENT ON COLUMN talkmeter.statement_line.description IS 'What it is for';
COMMENT ON COLUMN talkmeter.statement_line.quantity IS 'How many';
COMMENT ON COLUMN talkmeter.statement_line.unit_price IS 'Price of one, exact; null where units of several prices are meant';
COMMENT ON COLUMN talkmeter.statement_line.amount IS 'Rounded once, half away from zero, to the currency''s digits';
COMMENT ON COLUMN talkmeter.statement_line.currency IS 'ISO 4217 code';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.statement_line', '');

CREATE TABLE talkmeter.external_count (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    units bigint NOT NULL CHECK (units >= 0),
    reported_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reported_by name NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (tenant, day)
);
REVOKE ALL ON talkmeter.external_count FROM PUBLIC;
COMMENT ON TABLE talkmeter.external_count IS 'What somebody else has counted';
COMMENT ON COLUMN talkmeter.external_count.tenant IS 'The merchant';
COMMENT ON COLUMN talkmeter.external_count.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.external_count.units IS 'The units';
COMMENT ON COLUMN talkmeter.external_count.reported_at IS 'When it was reported';
COMMENT ON COLUMN talkmeter.external_count.reported_by IS 'Who reported it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.external_count', '');

CREATE TABLE talkmeter.reconciliation (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    charged bigint NOT NULL,
    recounted bigint NOT NULL,
    unprovable bigint NOT NULL,
    external bigint,
    flagged boolean NOT NULL,
    reconciled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reviewed_by name,
    reviewed_at timestamptz,
    PRIMARY KEY (tenant, day)
);
REVOKE ALL ON talkmeter.reconciliation FROM PUBLIC;
COMMENT ON TABLE talkmeter.reconciliation IS 'Days that were reconciled; read them through the view reconciliations';
COMMENT ON COLUMN talkmeter.reconciliation.tenant IS 'The merchant';
COMMENT ON COLUMN talkmeter.reconciliation.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.reconciliation.charged IS 'Charges less reversals by charge instant, credits aside';
COMMENT ON COLUMN talkmeter.reconciliation.recounted IS 'Units that the messages which are there now give';
COMMENT ON COLUMN talkmeter.reconciliation.unprovable IS 'Charged units of conversations of which rows are gone';
COMMENT ON COLUMN talkmeter.reconciliation.external IS 'What was reported; null: nothing';
COMMENT ON COLUMN talkmeter.reconciliation.flagged IS 'Two of charged, recounted plus unprovable, and external are more than 5 % apart';
COMMENT ON COLUMN talkmeter.reconciliation.reconciled_at IS 'When it was counted last';
COMMENT ON COLUMN talkmeter.reconciliation.reviewed_by IS 'Who has looked at it';
COMMENT ON COLUMN talkmeter.reconciliation.reviewed_at IS 'When; null again if the counts have changed since';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.reconciliation', '');
