-- stock-service: listings whose newest version the engine has not answered for.
CREATE TABLE untold (symbol TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;
