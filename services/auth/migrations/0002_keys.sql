-- API keys. Times are microseconds since 1970 UTC.
CREATE TABLE api_keys (
  id TEXT PRIMARY KEY, -- the public half
  session_id TEXT NOT NULL UNIQUE, -- what its streams and market data live under
  user_id TEXT NOT NULL,
  secret_hash TEXT NOT NULL, -- SHA-256 of the secret half, which itself is nowhere
  label TEXT NOT NULL,
  scope TEXT NOT NULL, -- read, trade
  account_id TEXT NOT NULL, -- the only account that it reaches; empty: every one of its user
  addresses TEXT NOT NULL, -- from where it opens, with commas between them; empty: from anywhere
  created_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL, -- 0: never
  revoked_us INTEGER,
  last_used_us INTEGER NOT NULL -- to the minute; 0: never
) STRICT;
CREATE INDEX api_keys_by_user ON api_keys (user_id);
