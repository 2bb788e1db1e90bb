//! pg_reaper reaps rows whose deadline has passed, from inside PostgreSQL.
//!
//! - [`decide`]: every decision, without PostgreSQL
//! - `server`: the edge that acts on them: settings, transactions, the lease, passes, the worker
//! - `functions`: what is called from SQL
//! - `sql/`: the tables and functions of the extension, and the statements that it runs

#![cfg_attr(not(feature = "server"), allow(dead_code, reason = "decisions alone, to be tested"))]

mod decide;

#[cfg(feature = "server")]
#[allow(unsafe_code, reason = "the edge")]
mod functions;
#[cfg(feature = "server")]
#[allow(unsafe_code, reason = "the edge")]
mod server;

#[cfg(feature = "server")]
#[allow(unsafe_code, reason = "the edge")]
mod module {
    use crate::server::{board, launcher, settings};
    use pgrx::prelude::*;

    pgrx::pg_module_magic!(name, version);

    pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
    pgrx::extension_sql_file!("../sql/functions.sql", name = "functions", finalize);

    /// PostgreSQL calls this when it loads the library.
    #[pg_guard]
    pub extern "C-unwind" fn _PG_init() {
        settings::define();
        // SAFETY: reads a variable of this process.
        if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
            board::init();
            launcher::register();
        }
    }
}

#[cfg(feature = "pg_test")]
#[allow(unsafe_code, reason = "tests of the edge")]
mod tests;

/// What `cargo pgrx test` asks for.
#[cfg(all(test, feature = "pg_test"))]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'pg_reaper'"]
    }
}
