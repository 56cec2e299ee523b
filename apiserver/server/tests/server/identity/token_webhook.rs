//! A service that knows tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_server::authn::TokenWebhook;
use coracle_server::outgoing::Webhook;
use serde_json::{Value, json};

use super::world::World;
use crate::support::{TestServer, request};

const KUBECONFIG: &str = "/etc/hook/config";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn start(world: &Arc<World>, life: u64) -> (TestServer, Clock) {
    world.kubeconfig(KUBECONFIG);
    let mut made = None;
    let server = TestServer::start_with(|config| {
        let clock = config.clock.clone();
        let within = Duration::from_secs(5);
        let webhook = Webhook::load(Path::new(KUBECONFIG), within, &world.outside(), &clock);
        let webhook = webhook.expect("good");
        let life = Duration::from_secs(life);
        let webhook = TokenWebhook::new(webhook, "v1", life, clock.clone());
        config.authentication.webhook = Some(webhook);
        made = Some(clock);
    })
    .await;
    (server, made.expect("set"))
}

async fn status(server: &TestServer, token: &str) -> u16 {
    let mut request = request("GET", "/version", "", None);
    let header = format!("Bearer {token}").parse().expect("a header");
    request.headers_mut().insert("authorization", header);
    server.send_as_is(request).await.status.as_u16()
}

fn knows(good: &'static str) -> impl Fn(&str, Value) -> (u16, String) {
    move |path, body| {
        assert_eq!(path, "/review");
        assert_eq!(body["apiVersion"], "authentication.k8s.io/v1");
        let known = body["spec"]["token"] == good;
        let user = json!({"username": "jane", "groups": ["devs"]});
        let status = match known {
            true => json!({"authenticated": true, "user": user}),
            false => json!({"authenticated": false, "error": "never heard of it"}),
        };
        let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
        (200, answer.to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_and_its_answers_are_remembered() {
    let world = World::new();
    let hook = world.host("hook.test", knows("good"));
    let (server, clock) = start(&world, 120).await;
    for _ in 0..3 {
        assert_eq!(status(&server, "good").await, 200);
        // Longer than any success is remembered without the webhook's own memory.
        clock.sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(hook.asked(), 1);
    clock.sleep(Duration::from_secs(120)).await;
    assert_eq!(status(&server, "good").await, 200);
    assert_eq!(hook.asked(), 2);
    assert_eq!(status(&server, "bad").await, 401);
    let review = json!({"spec": {"token": "bad"}});
    let review = server.post(REVIEWS, review).await.ok()["status"].clone();
    assert_eq!(review["error"], "[invalid bearer token, never heard of it]");
    let review = json!({"spec": {"token": "good", "audiences": ["others"]}});
    let review = server.post(REVIEWS, review).await.ok()["status"].clone();
    assert_eq!(
        review["authenticated"],
        Value::Null,
        "it is for the API server's audiences"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_down_or_wrong_is_a_401() {
    let world = World::new();
    let (server, _) = start(&world, 120).await;
    assert_eq!(status(&server, "good").await, 401);
    let review = json!({"spec": {"token": "good"}});
    let review = server.post(REVIEWS, review).await.ok()["status"].clone();
    let why = review["error"].as_str().expect("an error");
    assert!(
        why.contains("https://hook.test/review") && !why.contains("hook-secret"),
        "{why}"
    );
    // Failures are not remembered, and what may pass is tried again.
    let broken = world.host("hook.test", |_, _| (500, String::new()));
    assert_eq!(status(&server, "good").await, 401);
    assert_eq!(broken.asked(), 5);
    let junk = world.host("hook.test", |_, _| (200, "<html>".to_owned()));
    let (other, _) = start(&world, 0).await;
    assert_eq!(status(&other, "good").await, 401);
    assert_eq!(junk.asked(), 1);
    let large = world.host("hook.test", |_, _| (200, " ".repeat(2 << 20)));
    let (other, _) = start(&world, 0).await;
    assert_eq!(status(&other, "good").await, 401);
    assert_eq!(large.asked(), 1);
}
