-- stock-service: what was traded at each price of a day; days before today's go after a while.
CREATE TABLE price_volumes (
  symbol TEXT NOT NULL,
  day INTEGER NOT NULL,
  price_e4 INTEGER NOT NULL,
  volume_e4 INTEGER NOT NULL,
  PRIMARY KEY (symbol, day, price_e4)
) STRICT;
CREATE INDEX price_volumes_day ON price_volumes (day);
