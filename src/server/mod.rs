//! The edge: everything that touches PostgreSQL. Decisions are made in [`crate::decide`].
//!
//! | file | holds |
//! |---|---|
//! | `clock` | the server's clock and the local one |
//! | `settings` | the `pg_reaper.*` settings |
//! | `failure` | an error as a value |
//! | `errcode` | the SQLSTATE of an error that PostgreSQL has no name for |
//! | `transaction` | transactions and subtransactions that contain their errors |
//! | `sql` | running SQL with parameters, rows as Rust values |
//! | `sandbox` | acting as a table's owner, and no further |
//! | `timeouts` | the two strikes that end a statement |
//! | `extension` | where the extension lives in this database |
//! | `policies` | what is watched |
//! | `relation` | a table under lock, as it is now |
//! | `pass` | one policy's part of a sweep, the same for worker and function |
//! | `reaper` | reading and reaping the rows of one table, as its owner |
//! | `orphans` | logging what was reaped |
//! | `lease_row`, `lease_lock` | the two kinds of leadership |
//! | `leadership` | acquire, renew, step down |
//! | `held` | what must be given back when the process ends |
//! | `fenced` | the worker as the host of a pass: each batch behind the fence |
//! | `rounds` | the worker's sweep: which policies are due, and what their failures mean |
//! | `status` | what each worker tells, in shared memory |
//! | `worker` | the background worker and its cycle |
//! | `process` | its signals, session, memory, and how it waits |
//! | `exit` | its way out |

mod clock;
mod errcode;
mod exit;
pub mod extension;
pub mod failure;
mod fenced;
mod held;
mod leadership;
mod lease_lock;
mod lease_row;
mod orphans;
pub mod pass;
pub mod policies;
mod process;
mod reaper;
pub mod relation;
mod rounds;
pub mod sandbox;
pub mod settings;
pub mod sql;
pub mod status;
mod timeouts;
pub mod transaction;
pub mod worker;
