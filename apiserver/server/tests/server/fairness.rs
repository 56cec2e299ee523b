//! Priority and fairness: the default schemas and levels, who waits for whom, and who is refused.

use std::time::Duration;

use bytes::Bytes;
use coracle_server::Identity;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, TestServer, request, send_as};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

async fn started() -> TestServer {
    let server = TestServer::start().await;
    let made = server.api.bootstrap_flow_control().await;
    made.expect("schemas and levels are made");
    server
}

/// Lets the server's own tasks do what is due within `seconds`.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn dangling(schema: &Value) -> (&str, &str) {
    let condition = &schema["status"]["conditions"][0];
    assert_eq!(condition["type"], "Dangling", "{schema}");
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    (text("status"), text("reason"))
}

#[tokio::test(start_paused = true)]
async fn schemas_say_whether_their_level_is_there() {
    let server = started().await;
    pass(1).await;
    let exempt = server.get(&format!("{SCHEMAS}/exempt")).await.ok();
    assert_eq!(dangling(&exempt), ("False", "Found"));
    let mine = json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "x"}}});
    server.post(SCHEMAS, mine).await.ok();
    pass(1).await;
    let path = format!("{SCHEMAS}/mine");
    let mine = server.get(&path).await.ok();
    assert_eq!(dangling(&mine), ("True", "NotFound"));
    let limited = json!({"limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "x"}, "spec": {"type": "Limited", "limited": limited}});
    server.post(LEVELS, level).await.ok();
    pass(1).await;
    let mine = server.get(&path).await.ok();
    assert_eq!(dangling(&mine), ("False", "Found"));
}

#[tokio::test(start_paused = true)]
async fn default_objects_come_back_and_changed_ones_are_put_right() {
    let server = started().await;
    let shares = async || {
        let level = server.get(&format!("{LEVELS}/system")).await.ok();
        level["spec"]["limited"]["nominalConcurrencyShares"].clone()
    };
    let change = |annotations: Value| {
        json!({
            "metadata": {"annotations": annotations},
            "spec": {"limited": {"nominalConcurrencyShares": 7}},
        })
    };
    for path in [
        format!("{SCHEMAS}/exempt"),
        format!("{LEVELS}/workload-low"),
    ] {
        server.delete(&path).await.ok();
    }
    let system = format!("{LEVELS}/system");
    server.merge(&system, change(json!({}))).await.ok();
    assert_eq!(shares().await, 7);
    pass(61).await;
    for path in [
        format!("{SCHEMAS}/exempt"),
        format!("{LEVELS}/workload-low"),
    ] {
        server.get(&path).await.ok();
    }
    assert_eq!(shares().await, 30);
    let mine = change(json!({"apf.kubernetes.io/autoupdate-spec": "false"}));
    server.merge(&system, mine).await.ok();
    pass(121).await;
    assert_eq!(shares().await, 7);
}

const UIDS: [&str; 2] = [
    "x-kubernetes-pf-flowschema-uid",
    "x-kubernetes-pf-prioritylevel-uid",
];

/// A request whose body never comes, so that it holds its seat.
fn stuck(user: &str) -> http::Request<coracle_server::Body> {
    let body = StreamBody::new(futures::stream::pending()).boxed_unsync();
    let (mut parts, _) = request("POST", CONFIG_MAPS, "application/json", None).into_parts();
    parts.extensions.insert(Identity::component(user));
    http::Request::from_parts(parts, body)
}

fn get(user: &str) -> http::Request<Full<Bytes>> {
    let mut request = request("GET", CONFIG_MAPS, "", None);
    request.extensions_mut().insert(Identity::component(user));
    request
}

/// So few seats that `global-default` has one, and one processor.
async fn crowded() -> TestServer {
    with_seats(8).await
}

/// So many seats and one processor; Jane and John may do everything.
async fn with_seats(seats: usize) -> TestServer {
    let server = TestServer::start_with(|config| {
        config.max_in_flight = seats;
        config.processors = 1;
    })
    .await;
    let made = server.api.bootstrap_flow_control().await;
    made.expect("schemas and levels are made");
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let users = ["jane", "john"]
        .map(|name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}));
    let binding = json!({"metadata": {"name": "all"}, "subjects": users, "roleRef": role});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    server.post(bindings, binding).await.ok();
    pass(1).await;
    server
}

type Pending = tokio::task::JoinHandle<http::Response<coracle_server::Body>>;

fn send_stuck(server: &TestServer, user: &str, times: usize) -> Vec<Pending> {
    let send = |_| {
        let api = server.api.clone();
        let request = stuck(user);
        tokio::spawn(async move { api.handle(request).await })
    };
    (0..times).map(send).collect()
}

#[tokio::test(start_paused = true)]
async fn answers_name_their_schema_and_level() {
    let server = started().await;
    for (user, schema, level, status) in [
        (
            "system:kube-scheduler",
            "kube-scheduler",
            "workload-high",
            403,
        ),
        ("jane", "global-default", "global-default", 403),
    ] {
        let answer = server.send_as_is(get(user)).await;
        assert_eq!(answer.status, status);
        for (header, path) in [
            (UIDS[0], format!("{SCHEMAS}/{schema}")),
            (UIDS[1], format!("{LEVELS}/{level}")),
        ] {
            let object = server.get(&path).await;
            let uid = answer.headers[header].to_str().expect("text").to_owned();
            assert_eq!(object.ok()["metadata"]["uid"], uid);
        }
    }
    let exempt = server.get(CONFIG_MAPS).await;
    let schema = server.get(&format!("{SCHEMAS}/exempt")).await.ok();
    assert_eq!(
        exempt.headers[UIDS[0]],
        schema["metadata"]["uid"].as_str().expect("text")
    );
    // A watch too, and who is nobody.
    let watch = server
        .get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"))
        .await;
    assert!(watch.headers.contains_key(UIDS[0]));
    let nobody = server
        .send_as_is(request("GET", CONFIG_MAPS, "", None))
        .await;
    let schema = server.get(&format!("{SCHEMAS}/global-default")).await.ok();
    assert_eq!(
        nobody.headers[UIDS[0]],
        schema["metadata"]["uid"].as_str().expect("text")
    );
}

#[tokio::test(start_paused = true)]
async fn past_its_seats_a_level_lets_requests_wait_and_refuses_them_in_the_end() {
    let server = crowded().await;
    let flood = send_stuck(&server, "jane", 20);
    pass(1).await;
    // Administrators and other levels go on.
    server.get(CONFIG_MAPS).await.ok();
    let other = server.send_as_is(get("system:kube-scheduler")).await;
    assert_eq!(other.status, 403);
    let api = server.api.clone();
    let john = tokio::spawn(async move { api.handle(get("john")).await });
    pass(1).await;
    assert!(!john.is_finished(), "the level has no seat left");
    let tables = "/debug/api_priority_and_fairness/";
    let levels = server.get(&format!("{tables}dump_priority_levels")).await;
    let text = String::from_utf8_lossy(&levels.body).into_owned();
    let cells = |line: &str| -> Vec<String> {
        line.split(',').map(|cell| cell.trim().to_owned()).collect()
    };
    let own = text
        .lines()
        .map(cells)
        .find(|cells| cells[0] == "global-default");
    let own = own.unwrap_or_else(|| panic!("no such level: {text}"));
    assert_eq!(
        (&*own[2], &*own[4], &*own[5]),
        ("false", "20", "1"),
        "{text}"
    );
    let requests = server.get(&format!("{tables}dump_requests")).await;
    let text = String::from_utf8_lossy(&requests.body).into_owned();
    assert_eq!(text.matches("jane,").count(), 19, "{text}");
    assert_eq!(text.matches("john,").count(), 1, "{text}");
    flood[0].abort();
    pass(1).await;
    assert!(
        john.is_finished(),
        "a seat went to the flood's next instead"
    );
    assert_eq!(john.await.expect("an answer").status(), 200);
    // A quarter of the minute that a request has.
    pass(13).await;
    let mut refused = 0;
    for request in flood
        .into_iter()
        .skip(1)
        .filter(|request| request.is_finished())
    {
        let answer = request.await.expect("an answer");
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(
            answer.headers()["content-type"],
            "text/plain; charset=utf-8"
        );
        assert!(UIDS.iter().all(|uid| answer.headers().contains_key(*uid)));
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert_eq!(body, "Too many requests, please try again later.\n");
        refused += 1;
    }
    // One has the seat.
    assert_eq!(refused, 18);
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let labels = "priority_level=\"global-default\",flow_schema=\"global-default\"";
    let line = format!(
        "apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"time-out\"}} {refused}"
    );
    assert!(text.contains(&line), "{text}");
    let line = "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 4";
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_level_that_rejects_does_so_at_once_and_a_change_of_its_schema_is_in_force_when_answered()
{
    let server = crowded().await;
    let limited = json!({"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}});
    let level =
        json!({"metadata": {"name": "strict"}, "spec": {"type": "Limited", "limited": limited}});
    server.post(LEVELS, level).await.ok();
    let all = json!(["*"]);
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "john"}}],
        "resourceRules": [{"verbs": all, "apiGroups": all, "resources": all, "namespaces": all}],
    });
    let schema = json!({
        "metadata": {"name": "strict"},
        "spec": {
            "priorityLevelConfiguration": {"name": "strict"}, "matchingPrecedence": 500,
            "rules": [rule],
        },
    });
    let uid = server.post(SCHEMAS, schema).await.ok()["metadata"]["uid"].clone();
    let held = send_stuck(&server, "john", 1);
    pass(1).await;
    let refused = server.send_as_is(get("john")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers[UIDS[0]], uid.as_str().expect("a uid"));
    assert_eq!(server.send_as_is(get("jane")).await.status, 200);
    // It is about somebody else from now on.
    let other = json!([{"kind": "User", "user": {"name": "jane"}}]);
    let mut rules = json!([rule]);
    rules[0]["subjects"] = other;
    let path = format!("{SCHEMAS}/strict");
    server
        .merge(&path, json!({"spec": {"rules": rules}}))
        .await
        .ok();
    assert_eq!(server.send_as_is(get("john")).await.status, 200);
    assert_eq!(server.send_as_is(get("jane")).await.status, 429);
    server.delete(&path).await.ok();
    assert_eq!(server.send_as_is(get("jane")).await.status, 200);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_queues_hold_is_refused_at_once() {
    let server = crowded().await;
    // One at work; six queues of fifty.
    let flood = send_stuck(&server, "jane", 320);
    pass(1).await;
    let refused = flood.iter().filter(|request| request.is_finished()).count();
    assert!((19..=20).contains(&refused), "{refused}");
    // Another's place is in other queues.
    let api = server.api.clone();
    let john = tokio::spawn(async move { api.handle(get("john")).await });
    flood[0].abort();
    pass(1).await;
    assert_eq!(john.await.expect("an answer").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn without_any_objects_requests_are_served() {
    // Nothing was made: the mandatory schemas and levels are there all the same.
    let server = TestServer::start().await;
    let answer = server.send_as_is(get("jane")).await;
    assert_eq!(answer.status, 403);
    server.get(CONFIG_MAPS).await.ok();
}

#[tokio::test(start_paused = true)]
async fn who_sends_slowly_holds_seats_and_no_turn() {
    let server = with_seats(600).await;
    let slow = send_stuck(&server, "jane", 5);
    pass(1).await;
    let jane = Identity::component("jane");
    for name in ["a", "b"] {
        let body = json!({"metadata": {"name": name}});
        let made = send_as(&server, &jane, "POST", CONFIG_MAPS, Some(body)).await;
        made.ok();
    }
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let seats =
        "apiserver_flowcontrol_current_executing_seats{priority_level=\"global-default\"} 5";
    assert!(text.contains(seats), "{text}");
    for request in slow {
        request.abort();
    }
    pass(1).await;
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let seats =
        "apiserver_flowcontrol_current_executing_seats{priority_level=\"global-default\"} 0";
    assert!(text.contains(seats), "{text}");
}

#[tokio::test(start_paused = true)]
async fn who_wants_many_seats_and_goes_away_lets_others_on() {
    // The level has seven seats, of which one is left, and all ConfigMaps are worth two.
    let server = with_seats(80).await;
    for name in ["a", "b"] {
        let body = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(90_000)}});
        server.post(CONFIG_MAPS, body).await.ok();
    }
    let held = send_stuck(&server, "jane", 6);
    pass(1).await;
    let send = |request| {
        let api = server.api.clone();
        tokio::spawn(async move { api.handle(request).await })
    };
    let wide = send(get("john"));
    pass(1).await;
    let mut one = request("GET", &format!("{CONFIG_MAPS}/a"), "", None);
    one.extensions_mut().insert(Identity::component("jane"));
    let narrow = send(one);
    pass(1).await;
    assert!(!wide.is_finished() && !narrow.is_finished());
    wide.abort();
    pass(1).await;
    assert!(narrow.is_finished(), "nobody was told of the free seat");
    assert_eq!(narrow.await.expect("an answer").status(), 200);
    drop(held);
}
