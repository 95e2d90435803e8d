-- stock-service: the volatility band of a listing, and whether the engine has paused it.
ALTER TABLE instruments ADD COLUMN volatility_band_bps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instruments ADD COLUMN volatility_pause INTEGER NOT NULL DEFAULT 0;
