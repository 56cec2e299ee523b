//! Asynchronous TCP and name lookup on WASI 0.2, small enough to read in one sitting.
//!
//! A WASI 0.2 guest has one thread. To serve many connections it asks the host which of them are ready
//! (`wasi:io/poll`) and goes on with those: [`executor`] does that for futures, [`tcp`] and [`names`] wrap
//! `wasi:sockets` in them, and [`http`] is the client that the seed uses. In a larger program this is the place of a
//! library such as `wstd`.

pub mod executor;
pub mod http;
pub mod names;
pub mod tcp;
