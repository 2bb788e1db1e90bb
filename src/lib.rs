//! pg_reaper reaps rows whose deadline has passed, from inside PostgreSQL.
#![cfg_attr(not(feature = "server"), allow(dead_code))]

mod decide;
