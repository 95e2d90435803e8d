-- Profiles.
CREATE TABLE profiles (
  user_id TEXT PRIMARY KEY,
  email TEXT NOT NULL,
  first_name TEXT NOT NULL,
  last_name TEXT NOT NULL,
  deleted INTEGER NOT NULL, -- 1 once the account is closed; the names are then blank
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
) STRICT;
CREATE TABLE inbox (
  source TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT;
CREATE TABLE dead_letter (
  id INTEGER PRIMARY KEY,
  subject TEXT NOT NULL,
  payload BLOB NOT NULL,
  error TEXT NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;
