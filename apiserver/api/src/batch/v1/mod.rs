//! Version v1 of the group.

pub mod cron_job;
pub mod job;
