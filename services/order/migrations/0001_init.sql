-- order-service: the read model of orders, fills and private updates, made from the facts of the journal alone.
-- Ids of users and orders are their 16 bytes. Ids of fills and events are 16 x the position of their fact, + 0 or 1.
-- ended_us: 0 while the order is open. first_fill, last_fill: ids, 0 without one. body: the order, encoded.
CREATE TABLE orders (
  user_id BLOB NOT NULL,
  id BLOB NOT NULL,
  symbol TEXT NOT NULL,
  agent INTEGER NOT NULL,
  ended_us INTEGER NOT NULL,
  first_fill INTEGER NOT NULL,
  last_fill INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (user_id, id)
) STRICT;
CREATE INDEX orders_prunable ON orders (ended_us) WHERE agent = 1 AND ended_us > 0;
CREATE TABLE fills (
  id INTEGER PRIMARY KEY,
  user_id BLOB NOT NULL,
  order_id BLOB NOT NULL,
  symbol TEXT NOT NULL,
  exec_seq INTEGER NOT NULL,
  side INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL CHECK (price_e4 > 0),
  quantity_e4 INTEGER NOT NULL CHECK (quantity_e4 > 0),
  maker INTEGER NOT NULL,
  time_us INTEGER NOT NULL
) STRICT;
CREATE INDEX fills_user ON fills (user_id, id);
-- The private updates of people, as they are pushed: what has happened to an order, and how a stream resumes.
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  user_id BLOB NOT NULL,
  user_seq INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_user ON events (user_id, user_seq);
-- The client order ids that made an order, with the hash of what was asked for.
CREATE TABLE client_orders (
  user_id BLOB NOT NULL,
  client_order_id TEXT NOT NULL,
  payload BLOB NOT NULL,
  order_id BLOB NOT NULL,
  PRIMARY KEY (user_id, client_order_id)
) STRICT;
-- One row: the last fact whose effect is here, how many orders are open there, and the position of the snapshot that
-- the rows begin with; 0: genesis.
CREATE TABLE position (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  at INTEGER NOT NULL,
  origin_at INTEGER NOT NULL,
  open_orders INTEGER NOT NULL CHECK (open_orders >= 0)
) STRICT;
INSERT INTO position (id, at, origin_at, open_orders) VALUES (1, 0, 0, 0);
