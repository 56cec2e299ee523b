//! What the audit records of requests, stage by stage.

use std::sync::{Arc, Mutex};

use coracle_server::audit::{Audit, Policy, Sink};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{PODS, TestServer, request};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Events in memory.
#[derive(Default)]
struct Lines(Mutex<Vec<Value>>);

impl Sink for Lines {
    fn append(&self, line: Vec<u8>) {
        let event = serde_json::from_slice(&line).expect("an event is a line of JSON");
        self.0.lock().expect("not poisoned").push(event);
    }

    fn lost(&self) -> u64 {
        7
    }
}

impl Lines {
    /// Takes the events so far.
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut self.0.lock().expect("not poisoned"))
    }
}

async fn audited(rules: &str) -> (TestServer, Arc<Lines>) {
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
    let policy = Policy::parse(&policy).expect("a policy");
    let lines = Arc::new(Lines::default());
    let audit = Some(Arc::new(Audit::new(policy, lines.clone())));
    let server = TestServer::start_with(|config| config.audit = audit).await;
    lines.take();
    (server, lines)
}

fn stages(events: &[Value]) -> Vec<&str> {
    let stage = |event: &'_ Value| event["stage"].as_str().map(str::to_owned);
    events
        .iter()
        .map(|event| {
            assert!(stage(event).is_some(), "{event}");
            event["stage"].as_str().unwrap_or_default()
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_recorded_when_it_arrives_and_when_it_is_answered() {
    let (server, lines) = audited("rules: [{level: RequestResponse}]").await;
    let map = json!({"metadata": {"generateName": "a-", "name": "a"}, "data": {"b": "c"}});
    let mut post = request(
        "POST",
        &format!("{CONFIG_MAPS}?dryRun=All"),
        "application/json",
        Some(map),
    );
    for (name, value) in [
        ("user-agent", "kubectl/v1.36"),
        ("audit-id", "mine"),
        ("x-forwarded-for", "10.0.0.1, nonsense"),
        ("impersonate-user", "jane"),
        ("impersonate-group", "system:masters"),
    ] {
        let name = http::HeaderName::from_static(name);
        post.headers_mut()
            .insert(name, value.parse().expect("a header"));
    }
    assert_eq!(server.send(post).await.status, 201);
    let events = lines.take();
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let last = &events[1];
    assert_eq!(
        (&last["kind"], &last["apiVersion"], &last["level"]),
        (
            &json!("Event"),
            &json!("audit.k8s.io/v1"),
            &json!("RequestResponse")
        )
    );
    assert_eq!(
        (&last["auditID"], &last["verb"]),
        (&json!("mine"), &json!("create"))
    );
    assert_eq!(
        last["requestURI"],
        json!(format!("{CONFIG_MAPS}?dryRun=All"))
    );
    assert_eq!(last["user"]["username"], "admin");
    assert_eq!(last["impersonatedUser"]["username"], "jane");
    assert_eq!(last["sourceIPs"], json!(["10.0.0.1"]));
    assert_eq!(last["userAgent"], "kubectl/v1.36");
    let reference =
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"});
    assert_eq!(last["objectRef"], reference);
    assert_eq!(last["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(last["requestObject"]["data"], json!({"b": "c"}));
    assert_eq!(last["responseObject"]["metadata"]["name"], "a");
    assert_eq!(
        last["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert!(events[0].get("requestObject").is_none() && events[0].get("responseStatus").is_none());
}

#[tokio::test(start_paused = true)]
async fn failures_carry_their_status_and_secrets_stay_secret() {
    let (server, lines) = audited(
        "omitStages: [RequestReceived]\nrules: [{level: RequestResponse, omitManagedFields: true}]",
    )
    .await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    server.post(SECRETS, secret).await.ok();
    server.get(SECRETS).await.ok();
    server.get(&format!("{CONFIG_MAPS}/none")).await;
    let pod = server.pod("x", None).await;
    drop(pod);
    let events = lines.take();
    assert_eq!(stages(&events), ["ResponseComplete"; 4]);
    assert!(
        events[..2].iter().all(|event| event["level"] == "Metadata"),
        "{events:?}"
    );
    assert!(
        !serde_json::to_string(&events)
            .expect("text")
            .contains("hunter2")
    );
    assert!(events[0].get("requestObject").is_none());
    let status = &events[2]["responseStatus"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(404), &json!("NotFound"))
    );
    assert_eq!(events[2]["responseObject"]["kind"], "Status");
    assert_eq!(events[3]["objectRef"]["name"], "x");
    assert!(
        events[3]["responseObject"]["metadata"]
            .get("managedFields")
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn watches_start_and_end_and_the_unknown_are_recorded() {
    let (server, lines) = audited("rules: [{level: None, verbs: [get]}, {level: Metadata}]").await;
    let mut watch = request("GET", &format!("{PODS}?watch=true"), "", None);
    let admin = coracle_server::Identity::new("admin", ["system:masters"]);
    watch.extensions_mut().insert(admin);
    let mut response = server.api.handle(watch).await;
    assert_eq!(
        stages(&lines.take()),
        ["RequestReceived", "ResponseStarted"]
    );
    server.pod("x", None).await;
    response
        .body_mut()
        .frame()
        .await
        .expect("a frame")
        .expect("data");
    lines.take();
    drop(response);
    assert_eq!(stages(&lines.take()), ["ResponseComplete"]);
    server.get(&format!("{PODS}/x")).await.ok();
    assert!(lines.take().is_empty());
    let mut stranger = request("GET", PODS, "", None);
    let token = "Bearer wrong".parse().expect("a header");
    stranger.headers_mut().insert("authorization", token);
    assert_eq!(server.send_as_is(stranger).await.status, 401);
    let events = lines.take();
    assert_eq!(stages(&events), ["ResponseStarted"]);
    assert_eq!(events[0]["responseStatus"]["code"], 401);
    let anonymous = request("GET", PODS, "", None);
    assert_eq!(server.send_as_is(anonymous).await.status, 403);
    let events = lines.take();
    assert_eq!(
        events[1]["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    assert_eq!(events[1]["user"]["username"], "system:anonymous");
    let quiet = "rules: [{level: None, resources: [{group: \"\"}]}, {level: Metadata}]";
    let (silent, lines_of_silent) = audited(quiet).await;
    let mut stranger = request("GET", PODS, "", None);
    let token = "Bearer wrong".parse().expect("a header");
    stranger.headers_mut().insert("authorization", token);
    assert_eq!(silent.send_as_is(stranger).await.status, 401);
    assert!(
        lines_of_silent.take().is_empty(),
        "the policy is for strangers too"
    );
    let metrics = server.get("/metrics").await.body;
    let lost = "apiserver_audit_error_total{plugin=\"log\"} 7\n";
    assert!(String::from_utf8_lossy(&metrics).contains(lost));
}
