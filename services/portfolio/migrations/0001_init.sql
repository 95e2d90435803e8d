-- Accounts of users and of the house. Keys are small integers, so that a posting stays small.
CREATE TABLE account (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  user_id TEXT,                 -- null: of the house
  house TEXT UNIQUE,            -- funding, issuer:SYMBOL, fees, fx, rounding
  kind INTEGER NOT NULL,        -- fafnir.v1.AccountType
  currency TEXT NOT NULL,       -- empty: of the house, any
  number TEXT NOT NULL UNIQUE,
  state INTEGER NOT NULL,       -- 0 open, 1 closing, 2 closed
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
) STRICT;
CREATE INDEX account_by_user ON account (user_id, key);
CREATE INDEX account_closing ON account (key) WHERE state = 1;

-- Currencies and symbols.
CREATE TABLE asset (
  key INTEGER PRIMARY KEY,
  code TEXT NOT NULL UNIQUE
) STRICT;

-- What the postings of an account amount to, and what is held of it. Changed only in the transaction of the postings.
CREATE TABLE balance (
  account INTEGER NOT NULL REFERENCES account (key),
  asset INTEGER NOT NULL REFERENCES asset (key),
  client INTEGER NOT NULL,      -- 1: of a user, never below zero
  posted INTEGER NOT NULL,
  held INTEGER NOT NULL,
  cost INTEGER NOT NULL,        -- shares: micros paid for what is there now
  realized INTEGER NOT NULL,    -- shares: micros gained by sales
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  PRIMARY KEY (account, asset),
  CONSTRAINT balance_covered CHECK (held >= 0 AND (client = 0 OR posted >= held))
) STRICT;

-- Ledger transactions. Never changed, never deleted.
CREATE TABLE ledger (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,        -- 1 opening, 2 deposit, 3 transfer, 4 trade, 5 endowment, 6 closing
  time_us INTEGER NOT NULL,
  symbol INTEGER,               -- trade: asset, with exec_seq the exec_id
  exec_seq INTEGER,
  price_e4 INTEGER,
  payer_ref BLOB,               -- the reference that the side that pays sees: trade: its order; transfer: other account
  payee_ref BLOB,
  payer_rate INTEGER,           -- fx_rate of the side, where its account is in another currency
  payee_rate INTEGER
) STRICT;
CREATE UNIQUE INDEX ledger_exec ON ledger (symbol, exec_seq);

-- id = ledger.id * 16 + number of the posting. Per ledger transaction the amounts of each asset sum to zero.
CREATE TABLE posting (
  id INTEGER PRIMARY KEY,
  account INTEGER NOT NULL,
  asset INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  role INTEGER NOT NULL         -- 0 principal, 1 fee, 2 conversion
) STRICT;
CREATE INDEX posting_by_account ON posting (account, id);

CREATE TABLE fx_rate (
  id INTEGER PRIMARY KEY,
  usd_cad_micros INTEGER NOT NULL, -- CAD for one USD
  created_us INTEGER NOT NULL
) STRICT;

-- The hold of an order. A closed one stays a while, so that a late repetition finds it.
CREATE TABLE hold (
  order_id BLOB PRIMARY KEY,
  account INTEGER NOT NULL,
  symbol INTEGER NOT NULL,
  listing INTEGER NOT NULL,     -- currency of the listing
  side INTEGER NOT NULL,
  asked_e4 INTEGER NOT NULL,    -- quantity and price of the first request
  asked_price_e4 INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  open_e4 INTEGER NOT NULL,
  filled_e4 INTEGER NOT NULL,
  maker_notional INTEGER NOT NULL, -- micros of the listing's currency traded so far, by role
  taker_notional INTEGER NOT NULL,
  rate INTEGER,                 -- fx_rate, fixed with the hold
  maker_bp INTEGER NOT NULL,
  taker_bp INTEGER NOT NULL,
  version INTEGER NOT NULL,
  pending_version INTEGER NOT NULL, -- 0: no replace is under way
  pending_total_e4 INTEGER NOT NULL,
  pending_price_e4 INTEGER NOT NULL,
  held INTEGER NOT NULL,        -- micros of the account's currency, or shares of a sale
  created_us INTEGER NOT NULL,
  closed_us INTEGER,
  end_kind INTEGER NOT NULL     -- 0 open, 1 filled, 2 ended by the engine, 3 released
) STRICT;
CREATE INDEX hold_open ON hold (account) WHERE closed_us IS NULL;
CREATE INDEX hold_closed ON hold (closed_us) WHERE closed_us IS NOT NULL;

CREATE TABLE idempotency (
  owner TEXT NOT NULL,
  key TEXT NOT NULL,
  request BLOB NOT NULL,        -- SHA-256
  answer TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  PRIMARY KEY (owner, key)
) STRICT;

CREATE TABLE watchlist (
  user_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  added_us INTEGER NOT NULL,
  PRIMARY KEY (user_id, symbol)
) STRICT;

CREATE TABLE instrument (
  symbol TEXT PRIMARY KEY,
  currency TEXT NOT NULL,
  version INTEGER NOT NULL
) STRICT;

CREATE TABLE private_update (
  user_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (user_id, seq)
) STRICT;

CREATE TABLE counter (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT;

CREATE TABLE inbox (source TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE dead_letter (
  id INTEGER PRIMARY KEY,
  subject TEXT NOT NULL,
  payload BLOB NOT NULL,
  error TEXT NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;

-- The house accounts and currencies that are always there; issuer:SYMBOL comes with the first endowment of a symbol.
INSERT INTO account (key, id, user_id, house, kind, currency, number, state, created_us, updated_us) VALUES
  (1, '686f7573-6500-8000-8000-000000000001', NULL, 'funding', 4, '', 'HOUSE-1', 0, 0, 0),
  (2, '686f7573-6500-8000-8000-000000000002', NULL, 'fees', 4, '', 'HOUSE-2', 0, 0, 0),
  (3, '686f7573-6500-8000-8000-000000000003', NULL, 'fx', 4, '', 'HOUSE-3', 0, 0, 0),
  (4, '686f7573-6500-8000-8000-000000000004', NULL, 'rounding', 4, '', 'HOUSE-4', 0, 0, 0);
INSERT INTO asset (key, code) VALUES (1, 'USD'), (2, 'CAD');
