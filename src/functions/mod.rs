//! What is called from SQL. `sql/functions.sql` declares it.

mod adopt;
mod status;
mod sweep;
