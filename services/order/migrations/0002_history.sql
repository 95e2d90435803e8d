-- What happened to an order, of any age. A read model that was made before lacks it.
CREATE TABLE made_without_history (
  at INTEGER NOT NULL,
  CONSTRAINT orders_of_a_former_program_fafnir_rebuild_makes_them_anew CHECK (at = 0)
) STRICT;
INSERT INTO made_without_history (at) SELECT at FROM position;
DROP TABLE made_without_history;
-- The user's order_seq of the order's first and last event; 0: an agent's, it has none.
ALTER TABLE orders ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 0;
-- kind: fafnir.v1.FactKind.
DROP TABLE events;
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  user_id BLOB NOT NULL,
  user_seq INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  order_id BLOB NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_user ON events (user_id, user_seq);
