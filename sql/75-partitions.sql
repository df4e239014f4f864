-- How does a partition that is added to an attached table come by its triggers at once?

-- It calls the library only where an attached table is concerned: other sessions need not load it.
CREATE FUNCTION talkmeter.on_table_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        DECLARE
            attached regclass;
        BEGIN
            -- As pg_dump and pg_restore have it: a restore brings the triggers by itself.
            IF NOT current_setting('check_function_bodies')::boolean THEN
                RETURN;
            END IF;
            FOR attached IN
                SELECT DISTINCT s.relation
                FROM pg_event_trigger_ddl_commands() AS d
                CROSS JOIN LATERAL pg_partition_ancestors(d.objid) AS a (relid)
                JOIN talkmeter.source AS s ON s.relation = a.relid
                WHERE d.classid = 'pg_class'::regclass AND s.detached_at IS NULL
            LOOP
                PERFORM talkmeter.adopt_partitions(attached);
            END LOOP;
        EXCEPTION
            -- A lock that is not to be had in time. The sweep tries again.
            WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
                RETURN;
            WHEN OTHERS THEN
                RAISE WARNING 'talkmeter could not see to partitions that were added: %', SQLERRM
                    USING ERRCODE = SQLSTATE, HINT = 'The next sweep tries again; see talkmeter.health().';
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.on_table_ddl() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_table_ddl() IS
    'Event trigger: a partition that is added to an attached table gets its triggers. No error of it fails the statement';

-- The last object of this script: what comes before does not fire it.
CREATE EVENT TRIGGER talkmeter_partitions ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION talkmeter.on_table_ddl();
COMMENT ON EVENT TRIGGER talkmeter_partitions IS
    'Gives a partition that is added to an attached table its triggers; disabled, the next sweep does';
