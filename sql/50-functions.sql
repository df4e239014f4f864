-- What the DBA and the application call.

CREATE FUNCTION talkmeter.on_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_insert';
REVOKE ALL ON FUNCTION talkmeter.on_insert() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_insert() IS
    'Trigger of attached tables: notes the events of inserted rows. Refuses tables that attach does not know';

CREATE FUNCTION talkmeter.on_update() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_update';
REVOKE ALL ON FUNCTION talkmeter.on_update() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_update() IS
    'Trigger of attached tables: notes the events of rows before and after a change of a mapped column';

CREATE FUNCTION talkmeter.on_delete() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_delete';
REVOKE ALL ON FUNCTION talkmeter.on_delete() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_delete() IS
    'Trigger of attached tables: forgets the events of rows that the same transaction had inserted; what was metered stays';

CREATE FUNCTION talkmeter.on_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_truncate';
REVOKE ALL ON FUNCTION talkmeter.on_truncate() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_truncate() IS
    'Trigger of attached tables: forgets the events of rows that the same transaction had inserted; what was metered stays';

CREATE FUNCTION talkmeter.on_status_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_status_insert';
REVOKE ALL ON FUNCTION talkmeter.on_status_insert() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_status_insert() IS 'Trigger of status tables: marks conversations that are inserted as ended';

CREATE FUNCTION talkmeter.on_status_update() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_status_update';
REVOKE ALL ON FUNCTION talkmeter.on_status_update() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_status_update() IS 'Trigger of status tables: marks conversations whose status has changed';

CREATE FUNCTION talkmeter.look_up() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'look_up';
REVOKE ALL ON FUNCTION talkmeter.look_up() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.look_up() IS
    'BEFORE INSERT trigger for an application''s own table: fills a column with what another table knows. Arguments: column to fill, own column, then for each table to look into its name, its key and its value';

CREATE FUNCTION talkmeter.refuse_restore_with_triggers() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            -- The triggers know a restore by what pg_dump and pg_restore set.
            IF current_setting('check_function_bodies')::boolean AND EXISTS (
                SELECT FROM pg_trigger AS t
                WHERE t.tgfoid IN ('talkmeter.on_insert'::regproc, 'talkmeter.on_status_insert'::regproc) AND t.tgenabled <> 'D'
                    AND t.tgrelid IN (SELECT NEW.relation UNION ALL SELECT p.relid FROM pg_partition_tree(NEW.relation) AS p)
            ) THEN
                RAISE EXCEPTION 'the table % has a trigger of talkmeter''s already', NEW.relation
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                        DETAIL = 'Its rows would be metered again while they are restored.',
                        HINT = 'Restore schema and data in one pass, or the data with --disable-triggers.';
            END IF;
            RETURN NEW;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.refuse_restore_with_triggers() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.refuse_restore_with_triggers() IS
    'Trigger of talkmeter.source: a restore of data alone, with triggers on, would meter old messages again';
CREATE TRIGGER refuse_restore_with_triggers BEFORE INSERT ON talkmeter.source
    FOR EACH ROW EXECUTE FUNCTION talkmeter.refuse_restore_with_triggers();

CREATE FUNCTION talkmeter.attach(source regclass, policy text, mapping jsonb, default_plan text DEFAULT NULL,
        dry_run boolean DEFAULT false, strict boolean DEFAULT false, since timestamptz DEFAULT NULL, row_mode boolean DEFAULT false)
    RETURNS TABLE (message_id text, tenant text, conversation text, occurred_at timestamptz, kind text, excluded text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'attach_wrapper';
REVOKE ALL ON FUNCTION talkmeter.attach(regclass, text, jsonb, text, boolean, boolean, timestamptz, boolean) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.attach(regclass, text, jsonb, text, boolean, boolean, timestamptz, boolean) IS
    'Meters a message table from now on. With dry_run: changes nothing, returns its first 20 rows with the events each would give. With strict: a row that cannot be metered raises an error. With since: rows that are there already, of that time or later, wait for the backfill that a notice names. With row_mode: fires per row, also while logical replication applies it. Needs ownership of the table';

CREATE FUNCTION talkmeter.adopt_partitions(source regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'adopt_partitions_wrapper';
REVOKE ALL ON FUNCTION talkmeter.adopt_partitions(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.adopt_partitions(regclass) IS
    'Gives the partitions of an attached table the triggers that they lack, as the sweep does';

CREATE FUNCTION talkmeter.remap(source regclass, mapping jsonb, policy text DEFAULT NULL, default_plan text DEFAULT NULL,
        strict boolean DEFAULT NULL, since timestamptz DEFAULT NULL, dry_run boolean DEFAULT false)
    RETURNS TABLE (before text, after text, rows bigint, conversations bigint, parts bigint, charges bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'remap_wrapper';
REVOKE ALL ON FUNCTION talkmeter.remap(regclass, jsonb, text, text, boolean, timestamptz, boolean) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.remap(regclass, jsonb, text, text, boolean, timestamptz, boolean) IS
    'Maps an attached message table anew, for rows of since or later; by default since the oldest row that waits in quarantine for a rule or a column, else from now on. Meters again what is read otherwise, and what waited. With dry_run: changes nothing, returns how rows are read before and after, and how many parts and charges would change. Needs ownership of the table';

CREATE FUNCTION talkmeter.detach(source regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'detach_wrapper';
REVOKE ALL ON FUNCTION talkmeter.detach(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.detach(regclass) IS
    'Stops metering a table; what was metered stays. Needs ownership of the table';

CREATE FUNCTION talkmeter.attach_status(source regclass, mapping jsonb)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'attach_status_wrapper';
REVOKE ALL ON FUNCTION talkmeter.attach_status(regclass, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.attach_status(regclass, jsonb) IS
    'From now on marks a conversation when its status column changes. Mapping: "status" (an object from value to kind), "column" (that of the status), "tenant", "conversation", "occurred_at". Needs ownership of the table';

CREATE FUNCTION talkmeter.mark(tenant text, conversation text, kind text, at timestamptz DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mark_wrapper';
REVOKE ALL ON FUNCTION talkmeter.mark(text, text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.mark(text, text, text, timestamptz) IS
    'Records an event for which the application has no row: any kind but customer_message, ai_reply and staff_reply. It counts when the transaction commits; without "at" it is of this moment';

CREATE FUNCTION talkmeter.retry_quarantine() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_quarantine_wrapper';
REVOKE ALL ON FUNCTION talkmeter.retry_quarantine() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.retry_quarantine() IS
    'Meters the rows of quarantine that can now be metered, and returns how many left it';

CREATE FUNCTION talkmeter.flush() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'flush_wrapper';
REVOKE ALL ON FUNCTION talkmeter.flush() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.flush() IS
    'Folds and charges this transaction''s rows now instead of at commit; holds their conversations and tenants until the transaction ends';

CREATE FUNCTION talkmeter.sweep(as_of timestamptz DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sweep_wrapper';
REVOKE ALL ON FUNCTION talkmeter.sweep(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.sweep(timestamptz) IS
    'Ends every part that time has ended by as_of, or by now, stamped with its logical end, and returns how many';

CREATE PROCEDURE talkmeter.sweep_batches(as_of timestamptz DEFAULT NULL,
        batch integer DEFAULT 1000)
    LANGUAGE c AS 'MODULE_PATHNAME', 'sweep_batches';
REVOKE ALL ON PROCEDURE talkmeter.sweep_batches(timestamptz, integer) FROM PUBLIC;
COMMENT ON PROCEDURE talkmeter.sweep_batches(timestamptz, integer) IS
    'Does what sweep does and commits after so many conversations: to catch up when much is due. Not within a transaction';

CREATE FUNCTION talkmeter.start_worker() RETURNS TABLE (started boolean, pid integer)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'start_worker_wrapper';
REVOKE ALL ON FUNCTION talkmeter.start_worker() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.start_worker() IS
    'Starts a worker that sweeps and reconciles this database until the server restarts, unless one does; returns whether it was started, and the process that runs';

CREATE FUNCTION talkmeter.define_policy(definition jsonb) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'define_policy_wrapper';
REVOKE ALL ON FUNCTION talkmeter.define_policy(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.define_policy(jsonb) IS
    'Adds a policy, or the next version of one, and returns its version. Keys: the columns of talkmeter.policies but policy_version';

CREATE FUNCTION talkmeter.define_plan(definition jsonb) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'define_plan_wrapper';
REVOKE ALL ON FUNCTION talkmeter.define_plan(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.define_plan(jsonb) IS
    'Adds a plan. Keys: name, included (units per period), overage_rate (per unit), rates (per unit, by outcome, may be left out), price (per period, may be left out), currency';

CREATE FUNCTION talkmeter.define_pack(definition jsonb) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'define_pack_wrapper';
REVOKE ALL ON FUNCTION talkmeter.define_pack(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.define_pack(jsonb) IS
    'Adds a pack on offer. Keys: name, size (units), price, currency, valid_for (an interval of days or less; period: to the end of the billing month of the purchase; never)';

CREATE FUNCTION talkmeter.subscribe(tenant text, plan text, since timestamptz DEFAULT NULL,
        timezone text DEFAULT 'UTC', anchor_day integer DEFAULT NULL, policy text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'subscribe_wrapper';
REVOKE ALL ON FUNCTION talkmeter.subscribe(text, text, timestamptz, text, integer, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.subscribe(text, text, timestamptz, text, integer, text) IS
    'Puts a tenant on a plan from since on, posts the units that waited for it, and returns the subscription_id';

CREATE FUNCTION talkmeter.buy_pack(tenant text, pack text, purchase_key text DEFAULT NULL,
        purchased_at timestamptz DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'buy_pack_wrapper';
REVOKE ALL ON FUNCTION talkmeter.buy_pack(text, text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.buy_pack(text, text, text, timestamptz) IS
    'Records the purchase of a pack and returns its pack_id; the same purchase_key twice is one purchase';

CREATE FUNCTION talkmeter.refund_pack(tenant text, pack_id bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'refund_pack_wrapper';
REVOKE ALL ON FUNCTION talkmeter.refund_pack(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.refund_pack(text, bigint) IS
    'Takes back a pack of which no unit was used: it pays no more, and its price is on no statement';

CREATE FUNCTION talkmeter.change_plan(tenant text, plan text, at timestamptz DEFAULT NULL)
    RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'change_plan_wrapper';
REVOKE ALL ON FUNCTION talkmeter.change_plan(text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.change_plan(text, text, timestamptz) IS
    'Puts a tenant on another plan and returns from when on: an upgrade (more included units, or as many at lower rates, in the same currency) at once, anything else from the next period on. The last change wins';

CREATE FUNCTION talkmeter.cancel(tenant text, at timestamptz DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cancel_wrapper';
REVOKE ALL ON FUNCTION talkmeter.cancel(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.cancel(text, timestamptz) IS
    'Takes a tenant off its plan from an instant on: its units wait in talkmeter.unplanned, its packs stay';

CREATE FUNCTION talkmeter.set_alert_channel(tenant text, channel text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'set_alert_channel_wrapper';
REVOKE ALL ON FUNCTION talkmeter.set_alert_channel(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.set_alert_channel(text, text) IS
    'Sets what the notifications of a tenant carry as its channel; null: nothing';

CREATE FUNCTION talkmeter.period_at(tenant text, at timestamptz)
    RETURNS TABLE (period_start timestamptz, period_end timestamptz)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'period_at_wrapper';
REVOKE ALL ON FUNCTION talkmeter.period_at(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.period_at(text, timestamptz) IS
    'The billing month of a tenant that holds an instant; no row if it had no subscription by then';

CREATE FUNCTION talkmeter.local_day(tenant text, at timestamptz, charge_id bigint DEFAULT NULL) RETURNS date
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'local_day_wrapper';
REVOKE ALL ON FUNCTION talkmeter.local_day(text, timestamptz, bigint) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.local_day(text, timestamptz, bigint) IS
    'The day of a tenant that holds an instant, by the subscriptions that were made before an entry of its ledger; null: by all';

CREATE FUNCTION talkmeter.period_name(tenant text, period_start timestamptz, period_end timestamptz) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'period_name_wrapper';
REVOKE ALL ON FUNCTION talkmeter.period_name(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.period_name(text, timestamptz, timestamptz) IS
    'What a billing month of a tenant is called: the year and month of its first local day, as 2026-03';

CREATE FUNCTION talkmeter.currency_digits(currency text) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'currency_digits_wrapper';
REVOKE ALL ON FUNCTION talkmeter.currency_digits(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.currency_digits(text) IS 'Digits after the point of a currency, by its ISO 4217 code';

CREATE FUNCTION talkmeter.conversation_key(VARIADIC parts text[]) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'conversation_key_wrapper';
REVOKE ALL ON FUNCTION talkmeter.conversation_key(text[]) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.conversation_key(text[]) IS
    'The conversation, or the message id, that several columns make: what they hold, joined by /, with %25 for % and %2F for / in it; null if one is null';

CREATE FUNCTION talkmeter.credit(tenant text, charge_id bigint, note text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'credit_wrapper';
REVOKE ALL ON FUNCTION talkmeter.credit(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.credit(text, bigint, text) IS
    'Takes back a charge by hand and returns the charge_id of the entry that does: the unit goes back to its tier and pack, and its part is never charged again';

CREATE FUNCTION talkmeter.dispute(tenant text, charge_id bigint, reason text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'dispute_wrapper';
REVOKE ALL ON FUNCTION talkmeter.dispute(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.dispute(text, bigint, text) IS
    'Files a dispute about a charge and returns its dispute_id; due at the end of the 10th business day in the tenant''s zone';

CREATE FUNCTION talkmeter.dispute(tenant text, conversation text, part integer, reason text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'dispute_part_wrapper';
REVOKE ALL ON FUNCTION talkmeter.dispute(text, text, integer, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.dispute(text, text, integer, text) IS
    'Files a dispute about the standing charge of a part and returns its dispute_id';

CREATE FUNCTION talkmeter.resolve_dispute(tenant text, dispute_id bigint, resolution text, note text DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'resolve_dispute_wrapper';
REVOKE ALL ON FUNCTION talkmeter.resolve_dispute(text, bigint, text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.resolve_dispute(text, bigint, text, text) IS
    'Ends a dispute: credited takes the charge back, rejected lets it stand';

CREATE FUNCTION talkmeter.finalize(tenant text, period_start timestamptz) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'finalize_wrapper';
REVOKE ALL ON FUNCTION talkmeter.finalize(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.finalize(text, timestamptz) IS
    'Sweeps the tenant, then freezes the statement of a period that is over; what is posted for it later is listed by the period that is open then';

CREATE FUNCTION talkmeter.reconcile(day date) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reconcile_wrapper';
REVOKE ALL ON FUNCTION talkmeter.reconcile(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.reconcile(date) IS
    'Sweeps, compares for each tenant what was charged on a local day with a recount of the messages and with report_external, records it in reconciliations, and returns how many are flagged';

CREATE FUNCTION talkmeter.report_external(tenant text, day date, units bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'report_external_wrapper';
REVOKE ALL ON FUNCTION talkmeter.report_external(text, date, bigint) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.report_external(text, date, bigint) IS
    'Notes what somebody else has counted on a tenant''s local day; a later report replaces an earlier one';

CREATE FUNCTION talkmeter.review(tenant text, day date) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'review_wrapper';
REVOKE ALL ON FUNCTION talkmeter.review(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.review(text, date) IS 'Notes that somebody has looked at a tenant''s reconciled day';

CREATE FUNCTION talkmeter.reset_for_tests() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reset_for_tests_wrapper';
REVOKE ALL ON FUNCTION talkmeter.reset_for_tests() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.reset_for_tests() IS
    'For a database of tests: removes all that was metered, bought and charged; definitions, attached tables and the journal stay. By a superuser, and not where a statement is frozen';
