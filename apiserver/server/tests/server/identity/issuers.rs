//! Tokens of issuers elsewhere.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_clock::Clock;
use coracle_server::authn::{ConfiguredAuthentication, SigningKey};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::world::{Host, World};
use crate::support::{Answer, TestServer, request};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const RSA: &str = include_str!("rsa-key.pem");
pub(super) const P521: &str = include_str!("p521-key.pem");

/// An issuer at a host, whose keys can be replaced.
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) keys: Arc<Mutex<Vec<SigningKey>>>,
    pub(super) host: Arc<Host>,
}

impl Issuer {
    pub(super) fn open(world: &World, name: &str, key: SigningKey) -> Self {
        Self::open_with(world, name, key, |_| None)
    }

    /// With answers to paths of its own.
    pub(super) fn open_with(
        world: &World,
        name: &str,
        key: SigningKey,
        more: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("https://{name}");
        let keys = Arc::new(Mutex::new(vec![key]));
        let (published, own) = (Arc::clone(&keys), url.clone());
        let host = world.host(name, move |path, _| match path {
            "/.well-known/openid-configuration" => {
                let document = json!({"issuer": own, "jwks_uri": format!("{own}/keys")});
                (200, document.to_string())
            }
            "/keys" => {
                let keys = published.lock();
                let keys: Vec<Value> = keys.iter().map(|key| key.public().to_jwk()).collect();
                (200, json!({"keys": keys}).to_string())
            }
            other => more(other).unwrap_or((404, String::new())),
        });
        Self { url, keys, host }
    }

    /// A good token, after `change`.
    pub(super) fn token(&self, clock: &Clock, change: impl FnOnce(&mut Value)) -> String {
        self.keys.lock()[0]
            .sign(&self.claims(clock, change))
            .expect("signed")
    }

    pub(super) fn claims(&self, clock: &Clock, change: impl FnOnce(&mut Value)) -> Value {
        let now = clock.now().as_second();
        let mut claims = json!({
            "iss": self.url, "aud": "kube", "sub": "jane", "exp": now + 600, "iat": now, "groups": ["devs"],
        });
        change(&mut claims);
        claims
    }
}

pub(super) struct Server {
    pub(super) server: TestServer,
    pub(super) clock: Clock,
    configured: Arc<ConfiguredAuthentication>,
}

fn configuration(more: &str, urls: &[&str]) -> String {
    let issuers = urls.iter().map(|url| {
        format!(
            "- issuer: {{url: {url}, audiences: [kube]}}\n  \
             claimMappings: {{username: {{claim: sub, prefix: 'o:'}}, groups: {{expression: 'claims.groups'}}}}\n"
        )
    });
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{more}\njwt:\n{}",
        issuers.collect::<String>()
    )
}

impl Server {
    pub(super) async fn start(world: &Arc<World>, text: &str) -> Self {
        let mut made = None;
        let server = TestServer::start_with(|config| {
            let clock = config.clock.clone();
            let configured =
                ConfiguredAuthentication::new(text, Vec::new(), world.outside(), clock.clone());
            let configured = Arc::new(configured.expect("good"));
            config.authentication.configured = Some(Arc::clone(&configured));
            made = Some((clock, configured));
        })
        .await;
        let (clock, configured) = made.expect("set");
        let started = Self {
            server,
            clock,
            configured,
        };
        // The keys are found meanwhile.
        started.clock.sleep(Duration::from_secs(1)).await;
        started
    }

    async fn show(&self, path: &str, token: &str) -> Answer {
        let mut request = request("GET", path, "", None);
        let header = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", header);
        self.server.send_as_is(request).await
    }

    pub(super) async fn review(&self, token: &str) -> Value {
        let answer = self
            .server
            .post(REVIEWS, json!({"spec": {"token": token}}))
            .await;
        answer.ok()["status"].clone()
    }

    pub(super) async fn believed(&self, token: &str) -> bool {
        let shown = self.show("/version", token).await.status.as_u16();
        let reviewed = self.review(token).await["authenticated"] == true;
        assert_eq!(shown == 200, reviewed, "{shown}");
        assert!(matches!(shown, 200 | 401), "{shown}");
        reviewed
    }

    /// Why a token is refused.
    pub(super) async fn refused(&self, token: &str) -> String {
        assert!(!self.believed(token).await, "{token}");
        let why = self.review(token).await["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(!why.contains(token) && !why.contains("PRIVATE"), "{why}");
        why
    }
}

pub(super) fn ecdsa() -> SigningKey {
    SigningKey::generate().expect("a key")
}

#[tokio::test(start_paused = true)]
async fn tokens_of_issuers_are_believed() {
    let world = World::new();
    let a = Issuer::open(&world, "a.test", ecdsa());
    let b = Issuer::open(&world, "b.test", SigningKey::from_pem(RSA).expect("a key"));
    let c = Issuer::open(&world, "c.test", SigningKey::from_pem(P521).expect("a key"));
    let all = configuration("", &[&a.url, &b.url, &c.url]);
    let server = Server::start(&world, &all).await;
    for issuer in [&a, &b, &c] {
        let known = server.review(&issuer.token(&server.clock, |_| {})).await;
        assert_eq!(known["authenticated"], true, "{known}");
        assert_eq!(known["user"]["username"], "o:jane");
        assert_eq!(
            known["user"]["groups"],
            json!(["devs", "system:authenticated"])
        );
        let several = issuer.token(&server.clock, |claims| claims["aud"] = json!(["x", "kube"]));
        assert!(server.believed(&several).await);
    }
    // Discovery and keys, once each.
    assert_eq!((a.host.asked(), b.host.asked()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn wrong_tokens_are_refused() {
    let world = World::new();
    let issuer = Issuer::open(&world, "a.test", SigningKey::from_pem(RSA).expect("a key"));
    let server = Server::start(&world, &configuration("", &[&issuer.url])).await;
    let (clock, now) = (&server.clock, server.clock.now().as_second());
    assert!(server.believed(&issuer.token(clock, |_| {})).await);
    type Change = fn(&mut Value, i64);
    let changes: [(Change, &str); 6] = [
        (
            |claims, now| claims["exp"] = json!(now - 1),
            "oidc: token is expired",
        ),
        (
            |claims, now| claims["nbf"] = json!(now + 3600),
            "before the nbf (not before) time",
        ),
        (
            |claims, _| claims["aud"] = json!("other"),
            "oidc: expected audience \"kube\" got [\"other\"]",
        ),
        (
            |claims, _| claims["iss"] = json!("https://other.test"),
            "invalid bearer token",
        ),
        (
            |claims, _| claims["sub"] = json!(7),
            "oidc: parse username claims \"sub\": json: cannot unmarshal number",
        ),
        (
            |claims, _| claims["groups"] = json!({}),
            "expression must return a string or a list of strings",
        ),
    ];
    for (change, why) in changes {
        let token = issuer.token(clock, |claims| change(claims, now));
        let found = server.refused(&token).await;
        assert!(found.contains(why), "{found}: {why}");
    }
    // Signed by nobody, by a public key as if it were a secret, and by somebody else under a known name.
    let claims = issuer.claims(clock, |_| {});
    let parts = |header: Value| {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}", encode(&header), encode(&claims))
    };
    let kid = issuer.keys.lock()[0].public().id().to_owned();
    let none = format!("{}.", parts(json!({"alg": "none", "kid": kid})));
    let signed = parts(json!({"alg": "HS256", "kid": kid}));
    let secret = issuer.keys.lock()[0].public().to_pem();
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&secret, signed.as_bytes());
    let symmetric = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    for (token, alg) in [(&none, "none"), (&symmetric, "HS256")] {
        let why = server.refused(token).await;
        assert!(
            why.contains("unsupported algorithm") && why.contains(&format!("got {alg:?}")),
            "{why}"
        );
    }
    let forged = ecdsa().sign(&claims).expect("signed");
    let (_, rest) = forged.split_once('.').expect("three parts");
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": kid}).to_string());
    for token in [forged.clone(), format!("{header}.{rest}")] {
        let why = server.refused(&token).await;
        assert!(why.contains("failed to verify signature"), "{why}");
    }
    for junk in ["a.b.c", "..", "e30.e30.e30", &"x.".repeat(3)] {
        assert!(!server.believed(junk).await, "{junk}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_rotate_and_nobody_makes_us_ask_without_end() {
    let world = World::new();
    let issuer = Issuer::open(&world, "a.test", ecdsa());
    let server = Server::start(&world, &configuration("", &[&issuer.url])).await;
    assert!(server.believed(&issuer.token(&server.clock, |_| {})).await);
    issuer.keys.lock().insert(0, ecdsa());
    assert!(
        server.believed(&issuer.token(&server.clock, |_| {})).await,
        "a new key is asked for"
    );
    assert_eq!(issuer.host.asked(), 3);
    let stranger = ecdsa();
    for _ in 0..50 {
        let claims = issuer.claims(&server.clock, |_| {});
        assert!(
            !server
                .believed(&stranger.sign(&claims).expect("signed"))
                .await
        );
    }
    assert!(issuer.host.asked() <= 8, "{}", issuer.host.asked());
    // A key that the issuer has withdrawn is forgotten within the hour.
    let old = issuer.keys.lock().pop().expect("the first key");
    server.clock.sleep(Duration::from_secs(3700)).await;
    let claims = issuer.claims(&server.clock, |_| {});
    assert!(!server.believed(&old.sign(&claims).expect("signed")).await);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_hurts_only_its_own_tokens() {
    let world = World::new();
    let a = Issuer::open(&world, "a.test", ecdsa());
    let b = Issuer::open(&world, "b.test", ecdsa());
    world.close("b.test");
    let server = Server::start(&world, &configuration("", &[&b.url, &a.url])).await;
    assert!(server.believed(&a.token(&server.clock, |_| {})).await);
    let why = server.refused(&b.token(&server.clock, |_| {})).await;
    assert_eq!(
        why,
        "[invalid bearer token, oidc: authenticator not initialized]"
    );
    let b = Issuer::open(&world, "b.test", ecdsa());
    server.clock.sleep(Duration::from_secs(11)).await;
    assert!(server.believed(&b.token(&server.clock, |_| {})).await);
    // Once known, its keys are good without it.
    world.close("a.test");
    server.clock.sleep(Duration::from_secs(4000)).await;
    assert!(server.believed(&a.token(&server.clock, |_| {})).await);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_someone_else_is_not_believed() {
    let world = World::new();
    let a = Issuer::open(&world, "a.test", ecdsa());
    // b.test says that it is a.test.
    let document = json!({"issuer": "https://a.test", "jwks_uri": "https://a.test/keys"});
    world.host("b.test", move |_, _| (200, document.to_string()));
    let server = Server::start(&world, &configuration("", &["https://b.test"])).await;
    let token = a.token(&server.clock, |claims| {
        claims["iss"] = json!("https://b.test")
    });
    let why = server.refused(&token).await;
    assert!(why.contains("oidc: authenticator not initialized"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_replaced_and_a_wrong_one_is_not() {
    let world = World::new();
    let a = Issuer::open(&world, "a.test", ecdsa());
    let b = Issuer::open(&world, "b.test", ecdsa());
    let server = Server::start(&world, &configuration("", &[&a.url])).await;
    let forgotten = Duration::from_secs(11);
    assert!(server.believed(&a.token(&server.clock, |_| {})).await);
    assert!(!server.believed(&b.token(&server.clock, |_| {})).await);
    let wrong = server
        .configured
        .replace(&configuration("", &["http://a.test"]));
    assert!(
        wrong
            .expect_err("http")
            .to_string()
            .contains("URL scheme must be https")
    );
    server.clock.sleep(forgotten).await;
    assert!(
        server.believed(&a.token(&server.clock, |_| {})).await,
        "the old one stays"
    );
    server
        .configured
        .replace(&configuration("", &[&a.url, &b.url]))
        .expect("good");
    let asked = a.host.asked();
    assert!(
        server.believed(&a.token(&server.clock, |_| {})).await,
        "at once: it keeps its keys"
    );
    assert_eq!(a.host.asked(), asked);
    server.clock.sleep(forgotten).await;
    assert!(server.believed(&b.token(&server.clock, |_| {})).await);
    server
        .configured
        .replace(&configuration("", &[&b.url]))
        .expect("good");
    server.clock.sleep(forgotten).await;
    assert!(!server.believed(&a.token(&server.clock, |_| {})).await);
}

#[tokio::test(start_paused = true)]
async fn strangers_may_go_where_the_file_says() {
    let world = World::new();
    let open = "anonymous: {enabled: true, conditions: [{path: /livez}]}";
    let server = Server::start(&world, &configuration(open, &[])).await;
    let status = async |path: &str| {
        let answer = server
            .server
            .send_as_is(request("GET", path, "", None))
            .await;
        answer.status.as_u16()
    };
    assert_eq!(
        (
            status("/livez").await,
            status("/livez/").await,
            status("/version").await
        ),
        (200, 401, 401)
    );
    server
        .configured
        .replace(&configuration("anonymous: {enabled: false}", &[]))
        .expect("good");
    assert_eq!(
        (status("/livez").await, status("/version").await),
        (401, 401)
    );
    server
        .configured
        .replace(&configuration("", &[]))
        .expect("good");
    assert_eq!(
        (status("/livez").await, status("/version").await),
        (200, 200)
    );
}

#[tokio::test]
async fn strangers_who_are_barred_stay_barred() {
    let begin = |anonymous: &str| {
        let text = configuration(anonymous, &[]);
        let outside = World::new().outside();
        ConfiguredAuthentication::new(&text, Vec::new(), outside, Clock::fake(1)).expect("good")
    };
    let open = "anonymous: {enabled: true, conditions: [{path: /livez}]}";
    assert!(begin(open).bar_strangers().is_err());
    let mut configured = begin("");
    configured.bar_strangers().expect("nothing is open");
    let error = configured.replace(&configuration(open, &[]));
    let error = error.expect_err("it is open").to_string();
    assert!(error.contains("(AlwaysAllow)"), "{error}");
    let closed = configuration("anonymous: {enabled: false}", &[]);
    configured.replace(&closed).expect("it is closed");
}
