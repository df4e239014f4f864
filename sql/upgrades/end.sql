-- What does every upgrade script end with? What tells all sessions to ask for the version of the catalog again
-- (src/pg/version.rs): it changes nothing but what they remember of that table.
ALTER TABLE talkmeter.source ALTER COLUMN source_id SET STATISTICS -1;
