-- stock-service: one-second bars, of the last hours only. second: seconds since 1970-01-01 UTC.
CREATE TABLE second_bars (
  symbol TEXT NOT NULL,
  second INTEGER NOT NULL,
  open_e4 INTEGER NOT NULL,
  high_e4 INTEGER NOT NULL,
  low_e4 INTEGER NOT NULL,
  close_e4 INTEGER NOT NULL,
  volume_e4 INTEGER NOT NULL,
  PRIMARY KEY (symbol, second)
) STRICT;
CREATE INDEX second_bars_second ON second_bars (second);
