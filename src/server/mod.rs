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
//! | `kept` | statements that are the same each time, their plans kept |
//! | `prepared` | statements that run many times with other values |
//! | `statements` | what a sweep says to the server, for one table |
//! | `sandbox` | acting as a table's owner, and no further |
//! | `timeouts` | the two strikes that end a statement |
//! | `extension` | where the extension lives in this database |
//! | `policies` | what is watched |
//! | `meaning` | what the words of a policy stand for |
//! | `filter` | the filter of a policy, analysed |
//! | `watchlist` | the policies as they were read last, for as long as they hold |
//! | `changes` | whether the catalogue may have changed |
//! | `target` | one table to sweep, and what is due in it |
//! | `coming` | when the next row of a table is due |
//! | `indexed` | which index leads to the rows that are due |
//! | `relation` | a table under lock, as it is now |
//! | `pass` | one policy's part of a sweep, the same for worker and function |
//! | `blocks` | the same, where no index leads to what is due |
//! | `memory` | what passes remember |
//! | `quarantine` | the quarantine as it is written down |
//! | `reaper` | reading and reaping the rows of one table, as its owner |
//! | `batch` | a batch under way: how it deletes, and what it means when it fails |
//! | `range` | a batch that is a range of the index |
//! | `delete` | a `DELETE` of ours, which can end after so many rows |
//! | `gate` | what stands between the two nodes of its plan |
//! | `tally` | counting what was reaped |
//! | `orphans` | logging what was reaped |
//! | `lease_row`, `lease_lock` | the two kinds of leadership |
//! | `lease_table` | the table of the first: our own, or another's |
//! | `moves` | the moves on the lease row, each in a transaction |
//! | `leadership` | acquire, renew, step down |
//! | `complaints` | what is said of a lease that nobody can have |
//! | `held` | what must be given back when the process ends |
//! | `fenced` | the worker as the host of a pass: each batch behind the fence |
//! | `rounds` | the worker's sweep: which policies are due |
//! | `troubles` | those whose sweeps fail: when they are tried again, and what is said of them |
//! | `board` | the shared memory |
//! | `status` | what each worker tells, there |
//! | `brake` | what holds all passes of the server, there |
//! | `roster` | which databases the launcher has sent workers to, there |
//! | `launcher` | the background worker that keeps one in each database with the extension |
//! | `catalog` | what it reads of the databases |
//! | `starter` | starting a worker, and telling it to leave |
//! | `announcement` | telling the launcher at commit that the extension was created |
//! | `worker` | the background worker of one database, and its cycle |
//! | `identity` | what a worker is called |
//! | `process` | session and memory of both, and how they wait |
//! | `signals` | the signals that they go by |
//! | `exit` | the worker's way out |
//! | `title` | what an operator sees of a process |
//! | `encoding` | text in the encoding of the database |
//! | `say` | lines of the log |
//! | `dawdle` | waits that bring races to light, in a build for tests |

pub mod announcement;
mod batch;
pub mod blocks;
pub mod board;
pub mod brake;
pub mod catalog;
mod changes;
pub mod clock;
pub mod coming;
mod complaints;
mod dawdle;
mod delete;
pub mod encoding;
mod errcode;
mod exit;
pub mod extension;
pub mod failure;
mod fenced;
pub mod filter;
mod gate;
mod held;
mod identity;
pub mod indexed;
mod kept;
pub mod launcher;
mod leadership;
pub mod lease_lock;
mod lease_row;
mod lease_table;
pub mod meaning;
pub mod memory;
mod moves;
mod orphans;
pub mod pass;
pub mod policies;
mod prepared;
mod process;
pub mod quarantine;
mod range;
mod reaper;
pub mod relation;
pub mod roster;
mod rounds;
pub mod sandbox;
pub mod say;
pub mod settings;
mod signals;
pub mod sql;
pub mod starter;
mod statements;
pub mod status;
mod tally;
pub mod target;
mod timeouts;
mod title;
pub mod transaction;
mod troubles;
mod watchlist;
pub mod worker;
