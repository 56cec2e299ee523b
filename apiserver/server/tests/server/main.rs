//! The API server as its clients see it: requests in, answers out, over a store in memory and a paused clock.

mod access;
mod addresses;
mod applies;
mod audit;
mod bad_input;
mod certificates;
mod connections;
mod connects;
#[path = "../deep/mod.rs"]
mod deep;
mod deletes;
mod depths;
mod discovery;
mod fairness;
mod history;
mod identity;
mod load;
mod nodes;
mod onward;
mod parts;
mod patches;
mod reads;
mod roles;
mod serving;
mod support;
mod tokens;
mod versions;
mod watches;
mod writes;
