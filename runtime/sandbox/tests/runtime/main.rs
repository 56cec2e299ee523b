//! The pod runtime with real guests: small ones written as text, and the samples' own.

mod attach;
mod commands;
mod exec;
mod guests;
mod hostile;
mod http;
mod limits;
mod node;
mod toolbox;
