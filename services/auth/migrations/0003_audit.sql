-- What is on its way to the audit log.
CREATE TABLE audit_outbox (
  id INTEGER PRIMARY KEY,
  entry BLOB NOT NULL -- AuditEntry
) STRICT;
