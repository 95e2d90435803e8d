-- The audit log, and the permission to run the market. Times are microseconds since 1970 UTC.
CREATE TABLE audit_log (
  seq INTEGER PRIMARY KEY, -- from 1, without a gap
  id TEXT NOT NULL UNIQUE, -- of the entry where it was written
  time_us INTEGER NOT NULL,
  action TEXT NOT NULL,
  outcome TEXT NOT NULL,
  actor TEXT NOT NULL,
  subject TEXT NOT NULL,
  source TEXT NOT NULL, -- the client's address
  trace TEXT NOT NULL,
  detail TEXT NOT NULL,
  key_id TEXT NOT NULL, -- the API key that was used
  hash BLOB NOT NULL -- HMAC-SHA-256 of the hash before it and of this row
) STRICT;
CREATE INDEX audit_log_by_action ON audit_log (action, seq);
CREATE INDEX audit_log_by_subject ON audit_log (subject, seq);
CREATE TABLE audit_head (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  seq INTEGER NOT NULL, -- the newest row of audit_log
  hash BLOB NOT NULL
) STRICT;
CREATE TABLE suspended (
  user_id TEXT PRIMARY KEY, -- may not sign in: holds its roles, and counts for nobody's last administrator
  since_us INTEGER NOT NULL
) STRICT;
INSERT INTO permissions (name) VALUES ('manage_market');
INSERT INTO role_permissions (role, permission) VALUES ('admin', 'manage_market');
