use std::sync::Arc;

use coracle_clock::Clock;
use coracle_server::authn::StaticTokens;
use coracle_server::{ApiServer, Config, Identity};
use coracle_store::{MemoryStore, Store};
use serde_json::json;

use crate::support::{CONFIG_MAPS, TestServer, request};

async fn with_tokens() -> TestServer {
    let tokens =
        StaticTokens::parse("secret,jane,u1\nroot,admin,u2,system:masters").expect("legal");
    TestServer::start_with(|config| config.authentication.static_tokens = tokens).await
}

fn bearing(token: &str, path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = request("GET", path, "", None);
    request.headers_mut().insert(
        "authorization",
        format!("Bearer {token}").parse().expect("a header"),
    );
    request
}

#[tokio::test(start_paused = true)]
async fn strangers_may_read_health_and_are_refused_elsewhere() {
    let server = TestServer::start().await;
    assert_eq!(
        server
            .send_as_is(request("GET", "/healthz", "", None))
            .await
            .status,
        200
    );
    let (code, _, message) = server
        .send_as_is(request("GET", CONFIG_MAPS, "", None))
        .await
        .failure();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" in the namespace "default""#
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_are_known_or_wrong() {
    let server = with_tokens().await;
    assert_eq!(
        server.send_as_is(bearing("root", CONFIG_MAPS)).await.status,
        200
    );
    assert_eq!(
        server
            .send_as_is(bearing("secret", CONFIG_MAPS))
            .await
            .failure()
            .0,
        403
    );
    let wrong = server.send_as_is(bearing("junk", CONFIG_MAPS)).await;
    assert_eq!(
        wrong.failure(),
        (401, "Unauthorized".to_owned(), "Unauthorized".to_owned())
    );
    // Upstream challenges nobody.
    assert!(!wrong.headers.contains_key("www-authenticate"));
}

#[tokio::test(start_paused = true)]
async fn administrators_act_as_others() {
    let server = with_tokens().await;
    let mut request = bearing("root", CONFIG_MAPS);
    request
        .headers_mut()
        .insert("impersonate-user", "joe".parse().expect("a header"));
    let (code, _, message) = server.send_as_is(request).await.failure();
    assert_eq!(code, 403);
    assert!(message.contains(r#"User "joe""#));
}

#[tokio::test(start_paused = true)]
async fn components_in_the_process_are_known_by_their_identity() {
    let server = TestServer::start().await;
    let mut ours = request("GET", CONFIG_MAPS, "", None);
    ours.extensions_mut()
        .insert(Identity::component("system:kube-controller-manager"));
    assert_eq!(server.send_as_is(ours).await.status, 200);
    // Each has the rights of its role, and no others.
    for name in ["system:kube-scheduler", "system:kube-proxy", "someone"] {
        let mut other = request("GET", CONFIG_MAPS, "", None);
        other.extensions_mut().insert(Identity::component(name));
        assert_eq!(server.send_as_is(other).await.failure().0, 403, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_much_at_once_is_refused_and_says_when_to_come_back() {
    let full = TestServer::start_with(|config| config.max_in_flight = 1).await;
    // A request whose body never ends holds the only place.
    let never = futures::stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
    >();
    let held = http_body_util::StreamBody::new(never);
    let held = http::Request::post(CONFIG_MAPS)
        .extension(Identity::new("admin", ["system:masters"]))
        .body(held);
    let api = full.api.clone();
    let task = tokio::spawn(async move { api.handle(held.expect("a request")).await });
    tokio::task::yield_now().await;
    let answer = full.get(CONFIG_MAPS).await;
    assert_eq!(answer.failure().0, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_restarted_server_knows_what_was_stored() {
    let clock = Clock::fake(1);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
    let start = || async {
        ApiServer::start(Config::new(Arc::clone(&store), clock.clone()))
            .await
            .expect("readable")
    };
    let first = TestServer { api: start().await };
    first.api.bootstrap_namespaces().await.expect("made");
    let services = "/api/v1/namespaces/default/services";
    let body = |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}});
    let made = first.post(services, body("a")).await.ok();
    let second = TestServer { api: start().await };
    assert_eq!(second.get(&format!("{services}/a")).await.ok(), made);
    assert_eq!(second.post(services, body("b")).await.failure().0, 422);
}
