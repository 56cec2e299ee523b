//! Rules that many kinds share, with upstream's texts.
//!
//! Rules about one text return what is wrong with it, one message per finding and none when all is well, as
//! upstream's `IsDNS1123Label` and its relatives do. Rules about a place in an object report into
//! [`FieldErrors`](crate::FieldErrors).

pub mod address;
pub mod conditions;
pub mod diff;
pub mod metadata;
pub mod names;
pub mod numbers;
pub mod selectors;
