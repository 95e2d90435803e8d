-- stock-service: listings, daily bars, one-minute bars, the last trade, facts in and out.
CREATE TABLE instruments (
  symbol TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  exchange TEXT NOT NULL,
  exchange_full_name TEXT NOT NULL,
  type INTEGER NOT NULL,
  currency TEXT NOT NULL,
  tick_e4 INTEGER NOT NULL CHECK (tick_e4 > 0),
  lot_e4 INTEGER NOT NULL CHECK (lot_e4 > 0),
  state INTEGER NOT NULL,
  previous_close_e4 INTEGER NOT NULL,
  shares_outstanding INTEGER NOT NULL,
  sector TEXT NOT NULL,
  industry TEXT NOT NULL,
  description TEXT NOT NULL,
  country TEXT NOT NULL,
  website TEXT NOT NULL,
  version INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
) STRICT;
-- day: days since 1970-01-01 UTC. The day of today grows with the trades.
CREATE TABLE daily_bars (
  symbol TEXT NOT NULL,
  day INTEGER NOT NULL,
  open_e4 INTEGER NOT NULL,
  high_e4 INTEGER NOT NULL,
  low_e4 INTEGER NOT NULL,
  close_e4 INTEGER NOT NULL,
  volume_e4 INTEGER NOT NULL,
  PRIMARY KEY (symbol, day)
) STRICT;
-- minute: minutes since 1970-01-01 UTC.
CREATE TABLE minute_bars (
  symbol TEXT NOT NULL,
  minute INTEGER NOT NULL,
  open_e4 INTEGER NOT NULL,
  high_e4 INTEGER NOT NULL,
  low_e4 INTEGER NOT NULL,
  close_e4 INTEGER NOT NULL,
  volume_e4 INTEGER NOT NULL,
  PRIMARY KEY (symbol, minute)
) STRICT;
CREATE INDEX minute_bars_minute ON minute_bars (minute);
CREATE TABLE last_trades (
  symbol TEXT PRIMARY KEY,
  price_e4 INTEGER NOT NULL,
  quantity_e4 INTEGER NOT NULL,
  trade_no INTEGER NOT NULL,
  time_us INTEGER NOT NULL
) STRICT;
CREATE TABLE inbox (source TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, payload BLOB NOT NULL, error TEXT NOT NULL, created_us INTEGER NOT NULL) STRICT;
CREATE TABLE outbox (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, subject TEXT NOT NULL, msg_id TEXT NOT NULL, payload BLOB NOT NULL, created_us INTEGER NOT NULL) STRICT;
