//! The access log's file.

use std::sync::Arc;

use anyhow::{Context, Result};
pub(super) use coracle_services::AccessLog;

use crate::cli::UpArgs;
use crate::line_log::{LineLog, LogConfig};

/// Opens the file, if the flags name one.
pub(super) fn open(args: &UpArgs) -> Result<Option<Arc<LineLog>>> {
    let Some(path) = &args.access_log else {
        return Ok(None);
    };
    let log = LineLog::open(LogConfig::new(path.clone()));
    let log = log.with_context(|| format!("failed to open the access log {}", path.display()))?;
    Ok(Some(Arc::new(log)))
}

/// What did not fit, in Prometheus' text format.
pub(super) fn metrics(log: &LineLog) -> String {
    let name = "coracle_access_log_lost_total";
    format!(
        "# HELP {name} Lines of the access log that were lost because the disk did not follow.\n\
         # TYPE {name} counter\n{name} {}\n",
        log.lost()
    )
}
