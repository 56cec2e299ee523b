//! The access log: a line for each connection to a Service, after its end.
//!
//! Lines go to a sink as JSON, and to the tracing target `coracle::access` for whoever looks there. Nothing is made while
//! nobody reads, and a Service with the annotation `coracle.dev/access-log: "false"` is left out.

use std::sync::Arc;

use coracle_client::ObjectKey;
use coracle_clock::Clock;
use coracle_network::{FlowLog, FlowOutcome, FlowRecord};
use serde_json::{Value, json};

/// The annotation of a Service, or an Ingress, that wants no lines.
pub const ACCESS_LOG_ANNOTATION: &str = "coracle.dev/access-log";

/// Takes lines of JSON.
pub trait AccessSink: Send + Sync + 'static {
    /// Takes one line, its end included. Must not wait: what there is no room for is lost, and counted by the sink.
    fn append(&self, line: Vec<u8>);
}

/// Where lines go.
#[derive(Clone)]
pub struct AccessLog {
    sink: Option<Arc<dyn AccessSink>>,
    clock: Clock,
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessLog({})", self.sink.is_some())
    }
}

impl AccessLog {
    /// Lines for `sink`, with times of `clock`.
    pub fn new(sink: Option<Arc<dyn AccessSink>>, clock: Clock) -> Self {
        Self { sink, clock }
    }

    /// Whether anybody reads.
    pub fn is_read(&self) -> bool {
        self.sink.is_some() || is_traced()
    }

    /// Writes a line; `rest` is an object, whose fields follow the time and the kind of line.
    pub fn write(&self, kind: &str, rest: Value) {
        let Some(sink) = &self.sink else { return };
        let mut line = json!({"time": self.clock.now().to_string(), "kind": kind});
        if let (Some(line), Value::Object(rest)) = (line.as_object_mut(), rest) {
            line.extend(rest);
        }
        let mut line = line.to_string();
        line.push('\n');
        sink.append(line.into_bytes());
    }

    /// Who tells of one Service's connections; nobody if nobody reads or the Service does not want it.
    pub(crate) fn of_service(
        &self,
        service: &ObjectKey,
        annotation: Option<&str>,
    ) -> Option<Arc<dyn FlowLog>> {
        if annotation == Some("false") || !self.is_read() {
            return None;
        }
        Some(Arc::new(OfService {
            log: self.clone(),
            service: service.clone(),
        }))
    }
}

fn is_traced() -> bool {
    tracing::enabled!(target: "coracle::access", tracing::Level::INFO)
}

struct OfService {
    log: AccessLog,
    service: ObjectKey,
}

impl FlowLog for OfService {
    fn ended(&self, record: FlowRecord) {
        let (outcome, reason) = outcome(record.outcome);
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let endpoint = record.endpoint.map(|endpoint| endpoint.to_string());
        if is_traced() {
            tracing::info!(
                target: "coracle::access",
                service = %self.service,
                address = %record.service,
                client = %record.client,
                pod = text(record.client_pod.clone()),
                endpoint = text(endpoint.clone()),
                received = record.received_bytes,
                sent = record.sent_bytes,
                micros = micros(&record),
                outcome,
                reason = reason.unwrap_or("-"),
                "service"
            );
        }
        self.log.write(
            "connection",
            json!({
                "service": self.service.to_string(),
                "address": record.service.to_string(),
                "client": record.client.to_string(),
                "clientPod": record.client_pod,
                "endpoint": endpoint,
                "receivedBytes": record.received_bytes,
                "sentBytes": record.sent_bytes,
                "durationMicros": micros(&record),
                "outcome": outcome,
                "reason": reason,
            }),
        );
    }
}

fn micros(record: &FlowRecord) -> u64 {
    u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX)
}

/// One word for how it ended, and for a refused one why.
fn outcome(outcome: FlowOutcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        FlowOutcome::Closed => ("closed", None),
        FlowOutcome::ResetByClient => ("reset-by-client", None),
        FlowOutcome::ResetByEndpoint => ("reset-by-endpoint", None),
        FlowOutcome::Refused(reason) => ("refused", Some(reason.name())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coracle_network::RefusedFlow;
    use parking_lot::Mutex;

    use super::*;
    use crate::fixtures::{at, key, vip};

    #[derive(Default)]
    struct Lines(Mutex<Vec<u8>>);

    impl AccessSink for Lines {
        fn append(&self, line: Vec<u8>) {
            self.0.lock().extend(line);
        }
    }

    #[test]
    fn a_connection_is_a_line() {
        let lines = Arc::<Lines>::default();
        let log = AccessLog::new(Some(lines.clone()), Clock::fake(1));
        assert!(log.of_service(&key("web"), Some("false")).is_none());
        let told = log.of_service(&key("web"), None).expect("somebody reads");
        let record = FlowRecord {
            client: at(2, 40000),
            client_pod: Some("default/ask".to_owned()),
            service: vip(5, 80),
            endpoint: Some(at(3, 8080)),
            received_bytes: 8,
            sent_bytes: 9,
            duration: Duration::from_millis(3),
            outcome: FlowOutcome::Closed,
        };
        told.ended(record.clone());
        told.ended(FlowRecord {
            client_pod: None,
            endpoint: None,
            outcome: FlowOutcome::Refused(RefusedFlow::NoEndpoints),
            ..record
        });
        let text = String::from_utf8(lines.0.lock().clone()).expect("text");
        let [first, second] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        let mut first: Value = serde_json::from_str(first).expect("JSON");
        assert!(first["time"].take().is_string());
        assert_eq!(
            first,
            json!({
                "time": null, "kind": "connection", "service": "default/web",
                "address": "10.96.0.5:80", "client": "10.240.0.2:40000",
                "clientPod": "default/ask", "endpoint": "10.240.0.3:8080",
                "receivedBytes": 8, "sentBytes": 9, "durationMicros": 3000,
                "outcome": "closed", "reason": null,
            })
        );
        let second: Value = serde_json::from_str(second).expect("JSON");
        assert_eq!(second["outcome"], "refused");
        assert_eq!(second["reason"], "no-endpoints");
    }

    #[test]
    fn nothing_is_told_while_nobody_reads() {
        let log = AccessLog::new(None, Clock::fake(1));
        assert!(log.of_service(&key("web"), None).is_none());
    }
}
