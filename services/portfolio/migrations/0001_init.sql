-- The books: a projection of the engine's facts. What is here follows from them alone, a rebuild gives equal rows.

-- How far they go; moved only by WHERE at = the old one.
CREATE TABLE projection (
  one INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,          -- position of the last fact
  chain BLOB,                   -- hash of the last ledger row; null before the first
  origin BLOB,                  -- hash before the first ledger row: of the snapshot that the books begin with; null: genesis
  origin_at INTEGER NOT NULL,   -- position of that snapshot; 0: genesis
  trades INTEGER NOT NULL       -- settled
) STRICT;

-- Accounts of users and of the house. Keys are small integers, so that a posting stays small.
CREATE TABLE account (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,      -- of the house its name: funding, issuer:SYMBOL, fees, fx, rounding
  user_id TEXT,                 -- null: of the house
  kind INTEGER NOT NULL,        -- fafnir.v1.AccountType
  currency TEXT NOT NULL,       -- empty: of the house, any
  number TEXT NOT NULL,
  closed INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL
) STRICT;
CREATE INDEX account_by_user ON account (user_id, key);

-- Currencies and symbols.
CREATE TABLE asset (
  key INTEGER PRIMARY KEY,
  code TEXT NOT NULL UNIQUE,
  currency TEXT NOT NULL        -- of a symbol the one it is traded in; of a currency itself
) STRICT;

-- Clients' cash and shares as the last fact about them told. What was sold out stays, with what it gained in all.
CREATE TABLE balance (
  account INTEGER NOT NULL,
  asset INTEGER NOT NULL,
  id BLOB,                      -- shares: the public id
  posted INTEGER NOT NULL,
  held INTEGER NOT NULL,
  cost INTEGER NOT NULL,        -- shares: micros paid for what is there now
  realized INTEGER NOT NULL,    -- shares: micros gained by sales since the position was opened
  realized_total INTEGER NOT NULL, -- shares: micros gained by all sales ever
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  PRIMARY KEY (account, asset),
  CONSTRAINT balance_covered CHECK (held >= 0 AND posted >= held)
) STRICT;

CREATE TABLE house (
  account INTEGER NOT NULL,
  asset INTEGER NOT NULL,
  posted BLOB NOT NULL,         -- signed 128 bits, big-endian
  PRIMARY KEY (account, asset)
) STRICT;

-- Ledger transactions, id = position of the fact. Never changed, never deleted.
CREATE TABLE ledger (
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,        -- fafnir.v1.Cause
  time_us INTEGER NOT NULL,
  symbol INTEGER,               -- trade: asset, with exec_seq the exec_id
  exec_seq INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  payer_ref BLOB,               -- the reference that the side that pays sees: trade: its order; transfer: other account
  payee_ref BLOB,
  payer_rate INTEGER NOT NULL,  -- fx_rate and fee_schedule of the side; 0: none
  payee_rate INTEGER NOT NULL,
  payer_fees INTEGER NOT NULL,
  payee_fees INTEGER NOT NULL,
  realized INTEGER NOT NULL,    -- trade: micros of the seller's currency gained, and the cost that went with the shares
  cost INTEGER NOT NULL,
  taker INTEGER NOT NULL,       -- trade: fafnir.v1.Side of who took
  hash BLOB NOT NULL            -- of the row before, of this one and its postings
) STRICT;

-- id = ledger.id * 16 + number of the posting. Per ledger transaction the amounts of each asset sum to zero.
CREATE TABLE posting (
  id INTEGER PRIMARY KEY,
  account INTEGER NOT NULL,
  asset INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  role INTEGER NOT NULL         -- fafnir.v1.PostingRole
) STRICT;
CREATE INDEX posting_by_account ON posting (account, id);

CREATE TABLE fx_rate (
  id INTEGER PRIMARY KEY,
  usd_cad_micros INTEGER NOT NULL -- CAD for one USD
) STRICT;

CREATE TABLE fee_schedule (
  id INTEGER PRIMARY KEY,
  maker_bp INTEGER NOT NULL,
  taker_bp INTEGER NOT NULL
) STRICT;

-- What a client's key stands for, for ever.
CREATE TABLE idempotency (
  owner TEXT NOT NULL,          -- user; empty: the platform
  key TEXT NOT NULL,
  payload BLOB NOT NULL,        -- hash of what was asked for
  object_id TEXT NOT NULL,      -- fafnir.v1.Done
  amount_micros INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (owner, key)
) STRICT;

-- Private updates of the last facts, so that a client can resume.
CREATE TABLE private_update (
  user_id TEXT NOT NULL,
  seq INTEGER NOT NULL,         -- the user's money_seq
  payload BLOB NOT NULL,
  PRIMARY KEY (user_id, seq)
) STRICT;

-- Messages of stream users that cannot be read.
CREATE TABLE dead_letter (
  id INTEGER PRIMARY KEY,
  subject TEXT NOT NULL,
  payload BLOB NOT NULL,
  error TEXT NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;

INSERT INTO projection (one, at, chain, origin_at, trades) VALUES (1, 0, NULL, 0, 0);
INSERT INTO asset (key, code, currency) VALUES (1, 'USD', 'USD'), (2, 'CAD', 'CAD');
