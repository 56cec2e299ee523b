//! Tokens of service accounts: issued, believed, and refused once they say what is no longer true.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_clock::Clock;
use coracle_server::authn::{ServiceAccountTokens, SigningKey, TokenKeys};
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, request};

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Long enough for a remembered success to be forgotten.
const FORGOTTEN: Duration = Duration::from_secs(11);

struct Issuer {
    server: TestServer,
    clock: Clock,
    tokens: Arc<ServiceAccountTokens>,
}

impl Issuer {
    async fn start() -> Self {
        let keys = TokenKeys::generate().expect("a key");
        let tokens = Arc::new(ServiceAccountTokens::new(keys));
        let mut clock = None;
        let server = TestServer::start_with(|config| {
            clock = Some(config.clock.clone());
            config.authentication.service_accounts = Some(Arc::clone(&tokens));
        })
        .await;
        let clock = clock.expect("the server has a clock");
        Self {
            server,
            clock,
            tokens,
        }
    }

    async fn token(&self, spec: Value) -> String {
        let answer = self.server.post(TOKEN, json!({"spec": spec})).await.ok();
        text(&answer["status"]["token"])
    }

    async fn as_bearer(&self, token: &str) -> Answer {
        let mut request = request("GET", "/healthz", "", None);
        let header = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", header);
        self.server.send_as_is(request).await
    }

    async fn review(&self, token: &str, audiences: &[&str]) -> Value {
        let spec = json!({"token": token, "audiences": audiences});
        let answer = self.server.post(REVIEWS, json!({"spec": spec})).await.ok();
        answer["status"].clone()
    }

    /// Why the token is refused, at both places where it can be shown.
    async fn refused(&self, token: &str) -> String {
        self.clock.sleep(FORGOTTEN).await;
        assert_eq!(self.as_bearer(token).await.failure().0, 401);
        text(&self.review(token, &[]).await["error"])
    }

    async fn believed(&self, token: &str) {
        self.clock.sleep(FORGOTTEN).await;
        let answer = self.as_bearer(token).await;
        assert_eq!(answer.status, 200, "{token}");
    }

    async fn make_pod(&self, name: &str) {
        let spec = json!({"containers": [{"name": "a", "image": "a"}]});
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        self.server.post(PODS, pod).await.ok();
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("JSON")
}

/// A token with other claims, signed by `key`.
fn forged(key: &SigningKey, token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(token);
    change(&mut claims);
    key.sign(&claims).expect("signed")
}

fn rejected(text: &str) -> String {
    format!("[invalid bearer token, {text}]")
}

#[tokio::test(start_paused = true)]
async fn a_token_is_its_account() {
    let issuer = Issuer::start().await;
    let token = issuer.token(json!({})).await;
    issuer.believed(&token).await;
    let who = issuer.review(&token, &[]).await;
    let user = &who["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    let groups = json!([
        "system:serviceaccounts",
        "system:serviceaccounts:default",
        "system:authenticated"
    ]);
    assert_eq!(user["groups"], groups);
    let id = format!("JTI={}", text(&claims(&token)["jti"]));
    let extra = json!({"authentication.kubernetes.io/credential-id": [id]});
    assert_eq!(user["extra"], extra);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_in_its_time() {
    let issuer = Issuer::start().await;
    let token = issuer.token(json!({"expirationSeconds": 600})).await;
    issuer.clock.sleep(Duration::from_secs(600)).await;
    issuer.believed(&token).await;
    issuer.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(
        issuer.refused(&token).await,
        rejected("service account token has expired")
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_for_others_is_not_for_the_api() {
    let issuer = Issuer::start().await;
    let token = issuer.token(json!({"audiences": ["vault", "other"]})).await;
    assert_eq!(
        issuer.refused(&token).await,
        rejected(
            r#"token audiences ["vault" "other"] is invalid for the target audiences ["https://kubernetes.default.svc.cluster.local"]"#
        )
    );
    let reviewed = issuer.review(&token, &["vault", "third"]).await;
    assert_eq!(reviewed["authenticated"], true);
    assert_eq!(reviewed["audiences"], json!(["vault"]));
}

#[tokio::test(start_paused = true)]
async fn a_token_goes_with_its_pod() {
    let issuer = Issuer::start().await;
    issuer.make_pod("web").await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web"});
    let token = issuer.token(json!({"boundObjectRef": bound})).await;
    let who = issuer.review(&token, &[]).await;
    let extra = &who["user"]["extra"];
    assert_eq!(
        extra["authentication.kubernetes.io/pod-name"],
        json!(["web"])
    );
    let path = format!("{PODS}/web");
    let now = json!({"gracePeriodSeconds": 0});
    issuer.server.delete_with(&path, now.clone()).await.ok();
    let gone = rejected("service account token has been invalidated");
    assert_eq!(issuer.refused(&token).await, gone);
    issuer.make_pod("web").await;
    let why = issuer.refused(&token).await;
    assert!(
        why.contains("does not match service account pod ref claim"),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_goes_with_its_account() {
    let issuer = Issuer::start().await;
    let token = issuer.token(json!({})).await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    issuer.server.delete(account).await.ok();
    assert_eq!(
        issuer.refused(&token).await,
        rejected(r#"serviceaccounts "default" not found"#)
    );
    let again = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    issuer.server.post(accounts, again).await.ok();
    let why = issuer.refused(&token).await;
    assert!(why.contains("does not match claim"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn forged_tokens_are_refused() {
    let issuer = Issuer::start().await;
    let token = issuer.token(json!({})).await;
    issuer.believed(&token).await;
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("{token} has not three parts");
    };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let theirs = SigningKey::generate().expect("a key");
    let another_clusters = forged(&theirs, &token, |_| {});
    // Signed by another key that claims to be ours.
    let (_, signed) = another_clusters.split_once('.').expect("a header");
    let posing = format!("{header}.{signed}");
    let mut admin = claims(&token);
    admin["sub"] = "system:serviceaccount:kube-system:admin".into();
    let primitive = "go-jose/go-jose: error in cryptographic primitive";
    for (bad, expected) in [
        (
            another_clusters,
            rejected("invalid signature, no keys found"),
        ),
        (posing, rejected(primitive)),
        (
            format!("{header}.{}.{signature}", encode(&admin.to_string())),
            rejected(primitive),
        ),
        (
            format!(
                "{header}.{payload}.{}",
                signature.replace(&signature[..2], "AA")
            ),
            rejected(primitive),
        ),
        (
            format!("{}.{payload}.", encode(r#"{"alg":"none"}"#)),
            "invalid bearer token".to_owned(),
        ),
        (
            format!("{}.{payload}.{signature}", encode(r#"{"alg":"HS256"}"#)),
            "invalid bearer token".to_owned(),
        ),
        (
            format!("{header}.{payload}"),
            "invalid bearer token".to_owned(),
        ),
        (
            forged(&theirs, &token, |claims| {
                claims["iss"] = "https://elsewhere".into()
            }),
            "invalid bearer token".to_owned(),
        ),
    ] {
        assert_eq!(issuer.refused(&bad).await, expected, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_rotate() {
    let issuer = Issuer::start().await;
    let old = issuer.token(json!({})).await;
    let key_set = issuer.server.get("/openid/v1/jwks").await.ok();
    let previous = coracle_server::authn::PublicKey::from_jwk(&key_set["keys"][0]);
    let next = TokenKeys::new(
        SigningKey::generate().expect("a key"),
        [previous.expect("a key")],
    );
    issuer.tokens.set_keys(next);
    let new = issuer.token(json!({})).await;
    issuer.believed(&old).await;
    issuer.believed(&new).await;
    let key_set = issuer.server.get("/openid/v1/jwks").await.ok();
    assert_eq!(key_set["keys"].as_array().map(Vec::len), Some(2));
    issuer
        .tokens
        .set_keys(TokenKeys::generate().expect("a key"));
    let unknown = rejected("invalid signature, no keys found");
    assert_eq!(issuer.refused(&old).await, unknown);
    assert_eq!(issuer.refused(&new).await, unknown);
}

#[tokio::test(start_paused = true)]
async fn others_can_verify_tokens() {
    let issuer = Issuer::start().await;
    let document = issuer.server.get("/.well-known/openid-configuration").await;
    assert_eq!(document.headers["cache-control"], "public, max-age=3600");
    let document = document.ok();
    let token = issuer.token(json!({})).await;
    assert_eq!(document["issuer"], claims(&token)["iss"]);
    assert_eq!(
        document["id_token_signing_alg_values_supported"],
        json!(["ES256"])
    );
    let keys = issuer.server.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header"));
    let header: Value = serde_json::from_slice(&header.expect("base64url")).expect("JSON");
    assert_eq!(keys.ok()["keys"][0]["kid"], header["kid"]);
}

#[tokio::test(start_paused = true)]
async fn the_mounted_token_is_reported_before_it_fails() {
    let issuer = Issuer::start().await;
    issuer.make_pod("web").await;
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "web"});
    let mounted = json!({"boundObjectRef": bound, "expirationSeconds": 3607});
    let token = issuer.token(mounted).await;
    let claims = claims(&token);
    let seconds = |name: &str| {
        claims[name].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time")
    };
    assert_eq!(seconds("exp"), 365 * 24 * 3600);
    let warn_after = claims["kubernetes.io"]["warnafter"].as_i64();
    assert_eq!(warn_after, claims["iat"].as_i64().map(|made| made + 3607));
    issuer.clock.sleep(Duration::from_secs(4000)).await;
    issuer.believed(&token).await;
}

#[tokio::test(start_paused = true)]
async fn an_account_of_the_system_may_what_its_roles_say_and_no_more() {
    let issuer = Issuer::start().await;
    let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
    let account = json!({"metadata": {"name": "deployment-controller"}});
    issuer.server.post(accounts, account).await.ok();
    let path = format!("{accounts}/deployment-controller/token");
    let answer = issuer.server.post(&path, json!({})).await.ok();
    let mut request = request("GET", "/api/v1/namespaces/kube-system/secrets", "", None);
    let header = format!("Bearer {}", text(&answer["status"]["token"]));
    let header = header.parse().expect("a header");
    request.headers_mut().insert("authorization", header);
    assert_eq!(issuer.server.send_as_is(request).await.failure().0, 403);
}

#[tokio::test(start_paused = true)]
async fn uses_of_tokens_in_secrets_are_written_down() {
    const SECRET: &str = "/api/v1/namespaces/default/secrets/robot";
    let issuer = Issuer::start().await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let account = issuer.server.get(account).await.ok();
    let account = coracle_api::Object::from_value(account).expect("an object");
    let token = issuer.tokens.issue_legacy(&account, "robot");
    let token = token.expect("signed");
    let secret = json!({
        "metadata": {"name": "robot", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token",
        "stringData": {"token": token},
    });
    let secrets = "/api/v1/namespaces/default/secrets";
    issuer.server.post(secrets, secret).await.ok();
    let last_used = async || {
        let secret = issuer.server.get(SECRET).await.ok();
        let labels = &secret["metadata"]["labels"];
        let day = labels["kubernetes.io/legacy-token-last-used"].as_str();
        day.unwrap_or_default().to_owned()
    };
    let written = async |day: &str| {
        while last_used().await != day {
            issuer.clock.sleep(Duration::from_secs(1)).await;
        }
    };
    let today = || issuer.clock.now().strftime("%Y-%m-%d").to_string();
    let first = today();
    assert_eq!(last_used().await, "");
    issuer.believed(&token).await;
    written(&first).await;
    // Nothing is written twice in a day.
    let version =
        async || text(&issuer.server.get(SECRET).await.ok()["metadata"]["resourceVersion"]);
    let before = version().await;
    issuer.believed(&token).await;
    issuer.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!((today(), version().await), (first.clone(), before));
    // Nobody is warned of a token that somebody made; of one that the account lists, who shows it is.
    assert_eq!(issuer.as_bearer(&token).await.warnings(), [""; 0]);
    let listed = json!({"secrets": [{"name": "robot"}]});
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    issuer.server.merge(path, listed).await.ok();
    issuer.clock.sleep(FORGOTTEN).await;
    for _ in ["asked", "remembered"] {
        let warnings = issuer.as_bearer(&token).await.warnings();
        let expected =
            "Use tokens from the TokenRequest API or manually created secret-based tokens instead";
        assert!(
            warnings.len() == 1 && warnings[0].contains(expected),
            "{warnings:?}"
        );
    }
    // A token that was marked is not believed, and whoever marked it sees that somebody uses it still.
    issuer.clock.sleep(Duration::from_secs(3 * 86_400)).await;
    let marked =
        json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": first}}});
    issuer.server.merge(SECRET, marked).await.ok();
    let why = issuer.refused(&token).await;
    assert!(
        why.contains(
            "secret default/robot for service account default/default has been marked invalid"
        ),
        "{why}"
    );
    assert_ne!(today(), first);
    written(&today()).await;
    let unmarked =
        json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}});
    issuer.server.merge(SECRET, unmarked).await.ok();
    issuer.believed(&token).await;
}
