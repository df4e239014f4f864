-- What is left of a conversation that the books were told to forget?

-- The evidence of a frozen statement names each charge's conversation by a digest. Of one that was forgotten the digest is all that is left.
CREATE TABLE talkmeter.forgotten_subject (
    tenant text COLLATE "C" NOT NULL,
    charge_id bigint NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (tenant, charge_id)
);
REVOKE ALL ON talkmeter.forgotten_subject FROM PUBLIC;
COMMENT ON TABLE talkmeter.forgotten_subject IS
    'Charges of frozen statements whose conversation was forgotten: with the digest of what it was called, their evidence stays what it was';
COMMENT ON COLUMN talkmeter.forgotten_subject.tenant IS 'The merchant who was billed';
COMMENT ON COLUMN talkmeter.forgotten_subject.charge_id IS 'The charge';
COMMENT ON COLUMN talkmeter.forgotten_subject.digest IS 'The SHA-256 of the subject in its evidence';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.forgotten_subject', '');

CREATE TABLE talkmeter.forgetting (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, conversation)
);
REVOKE ALL ON talkmeter.forgetting FROM PUBLIC;
COMMENT ON TABLE talkmeter.forgetting IS
    'Conversations that the transaction which wrote the row forgets when it commits: it removes the row then, so that nobody else ever sees one';
COMMENT ON COLUMN talkmeter.forgetting.tenant IS 'The merchant';
COMMENT ON COLUMN talkmeter.forgetting.conversation IS 'The conversation';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.forgetting', '');

CREATE FUNCTION talkmeter.forget_noted() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget_noted_wrapper';
REVOKE ALL ON FUNCTION talkmeter.forget_noted() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_noted() IS 'Forgets the conversations that this transaction has noted in talkmeter.forgetting';

CREATE FUNCTION talkmeter.forget_at_commit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            PERFORM talkmeter.forget_noted();
            RETURN NULL;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.forget_at_commit() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_at_commit() IS 'Trigger of talkmeter.forgetting: calls forget_noted when the transaction commits';
CREATE CONSTRAINT TRIGGER forget_at_commit AFTER INSERT ON talkmeter.forgetting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION talkmeter.forget_at_commit();
-- No row outlives its transaction, whatever role the session plays in replication.
ALTER TABLE talkmeter.forgetting ENABLE ALWAYS TRIGGER forget_at_commit;

CREATE FUNCTION talkmeter.forget_conversation(tenant text, conversation text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget_conversation_wrapper';
REVOKE ALL ON FUNCTION talkmeter.forget_conversation(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_conversation(text, text) IS
    'Replaces the id of a conversation whose messages are deleted, and the ids of its messages, wherever the books hold them, and returns what stands there now. Charges, statements and evidence stay provable';

CREATE FUNCTION talkmeter.forget_customer(tenant text, customer text) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget_customer_wrapper';
REVOKE ALL ON FUNCTION talkmeter.forget_customer(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_customer(text, text) IS
    'Finds the conversations in which attached tables name a customer, returns them, and has them forgotten when the transaction commits: delete their messages in it';
