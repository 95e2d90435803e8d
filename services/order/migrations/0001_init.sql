-- order-service: the command gate and the read model of orders and fills.
-- state: 1 PENDING_NEW, 2 HELD, 3 NEW, 4 PARTIALLY_FILLED; from 5 on terminal.
-- accepted: 0 until the hold stands and the command row is written.
CREATE TABLE orders (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  account_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  side INTEGER NOT NULL,
  type INTEGER NOT NULL,
  time_in_force INTEGER NOT NULL,
  state INTEGER NOT NULL,
  pending INTEGER NOT NULL,
  quantity_e4 INTEGER NOT NULL CHECK (quantity_e4 >= 0),
  filled_e4 INTEGER NOT NULL CHECK (filled_e4 >= 0 AND filled_e4 <= quantity_e4),
  open_e4 INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  stop_price_e4 INTEGER NOT NULL,
  trail_amount_e4 INTEGER NOT NULL,
  trail_percent_e4 INTEGER NOT NULL,
  display_quantity_e4 INTEGER NOT NULL,
  post_only INTEGER NOT NULL,
  stp INTEGER NOT NULL,
  cap_price_e4 INTEGER NOT NULL,
  filled_notional_micros INTEGER NOT NULL,
  currency TEXT NOT NULL,
  client_order_id TEXT NOT NULL,
  reject_code TEXT NOT NULL,
  reject_reason TEXT NOT NULL,
  version INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL,
  accepted INTEGER NOT NULL,
  agent INTEGER NOT NULL
) STRICT;
CREATE INDEX orders_user ON orders (user_id, id);
CREATE INDEX orders_open ON orders (user_id, symbol) WHERE state <= 4;
CREATE INDEX orders_unaccepted ON orders (created_us) WHERE accepted = 0;
CREATE INDEX orders_prunable ON orders (updated_us) WHERE agent = 1 AND state >= 5;
CREATE TABLE idempotency (
  user_id TEXT NOT NULL,
  client_order_id TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  order_id TEXT NOT NULL,
  PRIMARY KEY (user_id, client_order_id)
) STRICT;
CREATE INDEX idempotency_order ON idempotency (order_id);
CREATE TABLE fills (
  order_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  user_id TEXT NOT NULL,
  symbol TEXT NOT NULL,
  side INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  quantity_e4 INTEGER NOT NULL,
  maker INTEGER NOT NULL,
  time_us INTEGER NOT NULL,
  PRIMARY KEY (order_id, seq)
) STRICT;
CREATE INDEX fills_user ON fills (user_id, time_us);
-- Replaces on their way: remembered before the extra hold is placed.
CREATE TABLE replaces (
  order_id TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  quantity_e4 INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  stop_price_e4 INTEGER NOT NULL,
  cap_price_e4 INTEGER NOT NULL,
  sent INTEGER NOT NULL
) STRICT;
-- Commands for the engine that are not known to be projected.
CREATE TABLE commands (
  cmd_seq INTEGER PRIMARY KEY,
  payload BLOB NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;
-- One row: the last number given to a command, and who sends them.
CREATE TABLE relay (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  last_cmd_seq INTEGER NOT NULL,
  holder TEXT NOT NULL,
  until_us INTEGER NOT NULL
) STRICT;
INSERT INTO relay (id, last_cmd_seq, holder, until_us) VALUES (1, 0, '', 0);
CREATE TABLE users (
  user_id TEXT PRIMARY KEY,
  open_orders INTEGER NOT NULL,
  update_seq INTEGER NOT NULL
) STRICT;
CREATE TABLE updates (
  user_id TEXT NOT NULL,
  user_seq INTEGER NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (user_id, user_seq)
) STRICT;
CREATE TABLE instruments (
  symbol TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE TABLE last_trades (
  symbol TEXT PRIMARY KEY,
  price_e4 INTEGER NOT NULL
) STRICT;
CREATE TABLE inbox (source TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, payload BLOB NOT NULL, error TEXT NOT NULL, created_us INTEGER NOT NULL) STRICT;
