"""`jepa compare`: several encoders on the same data, under one protocol, in one table."""
