//! Groups that a token does not hold, but names the place of.

use std::sync::Arc;

use coracle_clock::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::issuers::{Issuer, Server, ecdsa};
use super::world::World;

/// What `/groups` of a host answers.
type Kept = Arc<Mutex<(u16, String)>>;

struct Parts {
    world: Arc<World>,
    /// Whose tokens name other places.
    issuer: Issuer,
    /// Who keeps groups.
    keeper: Issuer,
    kept: Kept,
    server: Server,
}

fn kept() -> (Kept, impl Fn(&str) -> Option<(u16, String)>) {
    let kept = Kept::default();
    let shown = Arc::clone(&kept);
    (kept, move |path: &str| {
        (path == "/groups").then(|| shown.lock().clone())
    })
}

impl Parts {
    async fn start() -> Self {
        let world = World::new();
        let issuer = Issuer::open(&world, "a.test", ecdsa());
        let (kept, answers) = kept();
        let keeper = Issuer::open_with(&world, "b.test", ecdsa(), answers);
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n\
             - issuer: {{url: {}, audiences: [kube]}}\n  \
               claimMappings: {{username: {{claim: sub, prefix: ''}}, groups: {{claim: groups, prefix: 'g:'}}}}\n",
            issuer.url
        );
        let server = Server::start(&world, &text).await;
        Self {
            world,
            issuer,
            keeper,
            kept,
            server,
        }
    }

    fn clock(&self) -> &Clock {
        &self.server.clock
    }

    /// A token whose groups are at the endpoint.
    fn token(&self, endpoint: &str) -> String {
        self.issuer.token(self.clock(), |claims| {
            without_groups(claims);
            claims["_claim_names"] = json!({"groups": "src"});
            claims["_claim_sources"] = json!({"src": {"endpoint": endpoint, "access_token": "t"}});
        })
    }

    fn keep(&self, token: impl Into<String>) {
        *self.kept.lock() = (200, token.into());
    }
}

fn without_groups(claims: &mut Value) {
    let claims = claims.as_object_mut().expect("claims are an object");
    claims.remove("groups");
}

const PLACE: &str = "https://b.test/groups";

#[tokio::test(start_paused = true)]
async fn groups_that_are_kept_elsewhere_are_fetched() {
    let parts = Parts::start().await;
    parts.keep(
        parts
            .keeper
            .token(parts.clock(), |claims| claims["groups"] = json!(["far"])),
    );
    let known = parts.server.review(&parts.token(PLACE)).await;
    assert_eq!(
        known["user"]["groups"],
        json!(["g:far", "system:authenticated"]),
        "{known}"
    );
    // One text is one group, and a line's end is none of the token.
    let alone = parts
        .keeper
        .token(parts.clock(), |claims| claims["groups"] = json!("alone"));
    parts.keep(format!("{alone}\n"));
    let known = parts.server.review(&parts.token(PLACE)).await;
    assert_eq!(known["user"]["groups"][0], "g:alone", "{known}");
    // Groups in the token itself are enough, and nobody is asked.
    let asked = parts.keeper.host.asked();
    let both = parts.issuer.token(parts.clock(), |claims| {
        claims["_claim_names"] = json!({"groups": "src"});
        claims["_claim_sources"] = json!({"src": {"endpoint": PLACE}});
    });
    let known = parts.server.review(&both).await;
    assert_eq!(known["user"]["groups"][0], "g:devs", "{known}");
    assert_eq!(parts.keeper.host.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn the_issuer_itself_may_keep_them() {
    let world = World::new();
    let (kept, answers) = kept();
    let issuer = Issuer::open_with(&world, "a.test", ecdsa(), answers);
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n\
         - issuer: {{url: {}, audiences: [kube]}}\n  \
           claimMappings: {{username: {{claim: sub, prefix: ''}}, groups: {{claim: groups, prefix: ''}}}}\n",
        issuer.url
    );
    let server = Server::start(&world, &text).await;
    let own = issuer.token(&server.clock, |claims| claims["groups"] = json!(["own"]));
    *kept.lock() = (200, own);
    let token = issuer.token(&server.clock, |claims| {
        without_groups(claims);
        claims["_claim_names"] = json!({"groups": "src"});
        claims["_claim_sources"] = json!({"src": {"endpoint": "https://a.test/groups"}});
    });
    let known = server.review(&token).await;
    assert_eq!(known["user"]["groups"][0], "own", "{known}");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_elsewhere_must_be_as_good_as_a_token() {
    let parts = Parts::start().await;
    let expected = "oidc: could not expand distributed claims: ";
    let (clock, now) = (parts.clock(), parts.clock().now().as_second());
    let stranger = ecdsa();
    let forged = stranger.sign(&parts.keeper.claims(clock, |_| {}));
    for (kept, why) in [
        (
            parts
                .keeper
                .token(clock, |claims| claims["aud"] = json!("other")),
            "verify distributed claim token: oidc: expected audience \"kube\" got [\"other\"]",
        ),
        (
            parts
                .keeper
                .token(clock, |claims| claims["exp"] = json!(now - 1)),
            "verify distributed claim token: oidc: token is expired",
        ),
        (
            forged.expect("signed"),
            "verify distributed claim token: failed to verify signature",
        ),
        (
            parts.keeper.token(clock, without_groups),
            "jwt returned by distributed claim endpoint \"https://b.test/groups\" did not contain claim: groups",
        ),
        (
            "no token".to_owned(),
            "getting untrusted issuer from endpoint https://b.test/groups failed for claim \"groups\"",
        ),
        (
            parts
                .keeper
                .token(clock, |claims| claims["iss"] = json!("http://b.test")),
            "verifying untrusted issuer http://b.test failed: ",
        ),
        (
            parts
                .keeper
                .token(clock, |claims| claims["iss"] = json!("https://c.test")),
            "verify distributed claim token: failed to verify signature",
        ),
    ] {
        parts.keep(kept);
        let found = parts.server.refused(&parts.token(PLACE)).await;
        assert!(
            found.contains(&format!("{expected}{why}")),
            "{found}: {why}"
        );
    }
    *parts.kept.lock() = (403, String::new());
    let found = parts.server.refused(&parts.token(PLACE)).await;
    let why = "while getting distributed claim \"groups\": error while getting distributed claim JWT: 403 Forbidden";
    assert!(found.contains(why), "{found}");
    for (endpoint, why) in [
        ("http://b.test/groups", "is not https"),
        ("https://nobody.test/", "connection refused"),
    ] {
        let found = parts.server.refused(&parts.token(endpoint)).await;
        assert!(found.contains(why), "{found}: {why}");
    }
    let nowhere = parts.issuer.token(clock, |claims| {
        without_groups(claims);
        claims["_claim_names"] = json!({"groups": "src"});
    });
    let found = parts.server.refused(&nowhere).await;
    assert!(
        found.contains("oidc: verify token: oidc: source does not exist"),
        "{found}"
    );
    assert!(!found.contains("could not expand"), "{found}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_verified_makes_nobody_ask() {
    let parts = Parts::start().await;
    let claims = parts.issuer.claims(parts.clock(), |claims| {
        without_groups(claims);
        claims["_claim_names"] = json!({"groups": "src"});
        claims["_claim_sources"] = json!({"src": {"endpoint": PLACE}});
    });
    let forged = ecdsa().sign(&claims).expect("signed");
    assert!(!parts.server.believed(&forged).await);
    assert_eq!(parts.keeper.host.asked(), 0);
    parts.world.close("b.test");
    let why = parts.server.refused(&parts.token(PLACE)).await;
    assert!(why.contains("while getting distributed claim"), "{why}");
}
