-- The symbols that users watch.
CREATE TABLE watchlist (
  user_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  added_us INTEGER NOT NULL,
  PRIMARY KEY (user_id, symbol)
) STRICT;
