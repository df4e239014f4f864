-- Which table holds data/irc_support.csv.gz? With the index by which a conversation is read again when a row comes late.
CREATE TABLE irc_support (
    id bigint PRIMARY KEY,
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    created_at timestamptz NOT NULL,
    sender text NOT NULL,
    event text NOT NULL,
    author bigint
);
CREATE INDEX ON irc_support (tenant_id, conversation_id, created_at);
