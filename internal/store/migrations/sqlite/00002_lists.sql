-- +goose Up
-- Lists that were read through every alert there is: a person's, and tests, which are few.
CREATE INDEX alerts_user  ON alerts (user, ts_ns, key);
CREATE INDEX alerts_tests ON alerts (ts_ns, key) WHERE test = 1;
