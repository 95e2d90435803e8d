-- Users, sessions, refresh tokens. Times are microseconds since 1970 UTC.
CREATE TABLE users (
  id TEXT PRIMARY KEY,
  email TEXT NOT NULL UNIQUE, -- folded; 'deleted:<id>' once the account is closed
  email_shown TEXT NOT NULL, -- as the user wrote it
  password_hash TEXT NOT NULL,
  first_name TEXT NOT NULL,
  last_name TEXT NOT NULL,
  state TEXT NOT NULL, -- PENDING, ACTIVE, CLOSING, DELETED
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
) STRICT;
CREATE INDEX users_unfinished ON users (state, updated_us) WHERE state IN ('PENDING', 'CLOSING');
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL,
  revoked_us INTEGER, -- set by sign-out, deletion, a new password, the reuse of a refresh token
  client_ip TEXT NOT NULL,
  user_agent TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_us);
CREATE TABLE refresh_tokens (
  hash TEXT PRIMARY KEY, -- SHA-256 of the token; the token itself is nowhere
  session_id TEXT NOT NULL,
  issued_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL,
  used_us INTEGER -- set when it was exchanged for its successor
) STRICT;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  stream TEXT NOT NULL,
  subject TEXT NOT NULL,
  msg_id TEXT NOT NULL,
  payload BLOB NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;
