-- What worth, gains and lots of any moment are reckoned from, kept as the facts come. Books that were made before lack it.
CREATE TABLE made_without_figures (
  at INTEGER NOT NULL,
  CONSTRAINT books_of_a_former_program_fafnir_rebuild_makes_them_anew CHECK (at = 0)
) STRICT;
INSERT INTO made_without_figures (at) SELECT at FROM projection;
DROP TABLE made_without_figures;

-- What a client's account has of the asset after the posting; null: of the house.
ALTER TABLE posting ADD COLUMN balance INTEGER;
DROP INDEX posting_by_account;
CREATE INDEX posting_of_client ON posting (account, asset, id) WHERE balance IS NOT NULL;

-- The first ledger row of each minute that has one: moments into positions.
CREATE TABLE minute (
  minute INTEGER PRIMARY KEY,   -- since 1970
  first INTEGER NOT NULL
) STRICT;

-- The last price of each minute in which a symbol traded, and the ledger rows of its first and last trade.
CREATE TABLE price (
  asset INTEGER NOT NULL,
  minute INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (asset, minute)
) STRICT;

-- Currency of a symbol, and its first known price; 0: none before its first trade.
CREATE TABLE listing (
  asset INTEGER PRIMARY KEY,
  currency TEXT NOT NULL,
  first_e4 INTEGER NOT NULL
) STRICT;

ALTER TABLE fx_rate ADD COLUMN since_us INTEGER NOT NULL DEFAULT 0;

-- What came into a client's account or left it without a trade, in micros of its currency, and what the account was worth
-- before; null where a price was not known yet.
CREATE TABLE flow (
  account INTEGER NOT NULL,
  id INTEGER NOT NULL,          -- of the posting
  amount INTEGER,
  before INTEGER,
  PRIMARY KEY (account, id)
) STRICT;

-- What an account traded of a symbol on a day: eleven signed 128-bit numbers, big-endian (domain::gains).
CREATE TABLE traded (
  account INTEGER NOT NULL,
  asset INTEGER NOT NULL,
  day INTEGER NOT NULL,         -- since 1970
  body BLOB NOT NULL,
  PRIMARY KEY (account, asset, day)
) STRICT;
