//! Tags, digests, policies, credentials, and everything that goes wrong on the way.

use coracle_cri::PullPolicy;
use coracle_image::Digest;

use crate::server::{Auth, Fault, TestRegistry};
use crate::{Node, secret, wasm};

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let program = wasm(100_000);
    let manifest = registry.artifact("team/app", "1", &program);
    let pulled = node.pull(&registry.image("team/app:1")).await.unwrap();
    assert_eq!(pulled.digest, manifest.digest.to_string());
    assert_eq!(pulled.size, manifest.size + 2 + 100_000);
    assert_eq!(node.program(&pulled, &[]).await.unwrap(), program);
    let pinned = registry.image(&format!("team/app@{}", manifest.digest));
    assert_eq!(node.pull(&pinned).await.unwrap().digest, pulled.digest);
    assert_eq!(registry.asked("/blobs/").len(), 2, "blobs are fetched once");
    assert_eq!(node.blobs(), 3);
}

#[tokio::test]
async fn policies_decide_whether_the_registry_is_asked() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let image = registry.image("app:1");
    let never = node.request(&image, PullPolicy::Never);
    assert!(!node.images.has(&never).await);
    let error = node.images.ensure(&never).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNeverPull");

    registry.artifact("app", "1", &wasm(10));
    let first = node.pull(&image).await.unwrap();
    let asked = registry.asked("").len();
    assert_eq!(node.pull(&image).await.unwrap(), first);
    assert_eq!(node.images.ensure(&never).await.unwrap(), first);
    assert_eq!(registry.asked("").len(), asked);

    let always = node.request(&image, PullPolicy::Always);
    assert!(!node.images.has(&always).await);
    assert_eq!(node.images.ensure(&always).await.unwrap(), first);
    assert_eq!(
        registry.asked("GET").len(),
        3,
        "a HEAD is enough for what is there"
    );
    registry.artifact("app", "1", &wasm(20));
    let second = node.images.ensure(&always).await.unwrap();
    assert_ne!(first.digest, second.digest);
    assert_eq!(node.pull(&image).await.unwrap(), second);
}

#[tokio::test]
async fn pulls_of_one_image_at_once_are_one_pull() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    registry.artifact("app", "1", &wasm(50_000));
    let image = registry.image("app:1");
    let pulls = (0..20).map(|_| node.pull(&image));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(registry.asked("/manifests/").len(), 1);
    assert_eq!(registry.asked("/blobs/").len(), 2);
}

#[tokio::test]
async fn a_broken_blob_is_resumed_where_it_broke() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let program = wasm(700_000);
    registry.artifact("app", "1", &program);
    let blob = Digest::of(&program).to_string();
    registry.fails(&blob, &[Fault::Truncate(300_000), Fault::Truncate(0)]);
    let pulled = node.pull(&registry.image("app:1")).await.unwrap();
    assert_eq!(node.program(&pulled, &[]).await.unwrap(), program);
    let ranges = registry.asked("bytes=");
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges[1].ends_with("bytes=300000-"), "{ranges:?}");
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_from_the_start() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let program = wasm(700_000);
    registry.artifact("app", "1", &program);
    registry.ignores_ranges();
    let blob = Digest::of(&program).to_string();
    registry.fails(&blob, &[Fault::Truncate(300_000)]);
    let pulled = node.pull(&registry.image("app:1")).await.unwrap();
    assert_eq!(node.program(&pulled, &[]).await.unwrap(), program);
}

#[tokio::test]
async fn a_pull_that_was_given_up_goes_on_next_time() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let program = wasm(700_000);
    registry.artifact("app", "1", &program);
    let blob = Digest::of(&program).to_string();
    let broken = Fault::Truncate(0);
    let first = Fault::Truncate(300_000);
    registry.fails(&blob, &[first, broken.clone(), broken.clone(), broken]);
    let image = registry.image("app:1");
    let error = node.error(&image).await;
    assert!(error.contains("failed to pull"), "{error}");
    node.pull(&image).await.unwrap();
    let ranges = registry.asked("bytes=300000-");
    assert_eq!(ranges.len(), 4, "{ranges:?}");
}

#[tokio::test]
async fn what_a_killed_process_has_left_is_used_if_it_is_right() {
    for (right, requests) in [(true, 1), (false, 2)] {
        let (registry, node) = (TestRegistry::start().await, Node::start());
        let mut program = wasm(5000);
        registry.artifact("app", "1", &program);
        let partial = node.folder.path().join("images/partial");
        let left = partial.join(Digest::of(&program).hex());
        if !right {
            program[2000] ^= 1;
        }
        std::fs::write(left, &program).unwrap();
        let pulled = node.pull(&registry.image("app:1")).await.unwrap();
        assert_eq!(node.program(&pulled, &[]).await.unwrap(), wasm(5000));
        assert_eq!(registry.asked("/blobs/").len(), requests);
    }
}

#[tokio::test]
async fn wrong_bytes_never_reach_the_store() {
    for fault in [Fault::Damage, Fault::Longer] {
        let (registry, node) = (TestRegistry::start().await, Node::start());
        let program = wasm(5000);
        registry.artifact("app", "1", &program);
        registry.fails(&Digest::of(&program).to_string(), &[fault]);
        let image = registry.image("app:1");
        let error = node.error(&image).await;
        assert!(
            error.contains("digest") || error.contains("longer"),
            "{error}"
        );
        assert_eq!(node.blobs(), 1, "the configuration alone");
        assert!(node.images.list().await.unwrap().is_empty());
        let pulled = node.pull(&image).await.unwrap();
        assert_eq!(node.program(&pulled, &[]).await.unwrap(), program);
    }
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let manifest = registry.artifact("app", "1", &wasm(10));
    registry.fails("/manifests/sha256", &[Fault::Damage]);
    let image = registry.image(&format!("app@{}", manifest.digest));
    let error = node.error(&image).await;
    assert!(error.contains("has the digest"), "{error}");
    assert_eq!(node.blobs(), 0);
}

#[tokio::test]
async fn a_stalled_blob_is_given_up_and_says_so() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let program = wasm(50_000);
    registry.artifact("app", "1", &program);
    let blob = Digest::of(&program).to_string();
    registry.fails(&blob, &vec![Fault::Stall(100); 9]);
    let error = node.error(&registry.image("app:1")).await;
    assert!(error.contains("no progress"), "{error}");
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    registry.artifact("app", "1", &wasm(10));
    let busy = Fault::Status(429, Some(("retry-after", "0")), "slow down");
    let broken = Fault::Status(500, None, "");
    registry.fails("/manifests/", &[busy, broken.clone(), broken.clone()]);
    registry.fails("/blobs/", &[broken.clone(), broken]);
    node.pull(&registry.image("app:1")).await.unwrap();
    assert_eq!(registry.asked("/manifests/").len(), 4);
}

#[tokio::test]
async fn a_long_pause_is_left_to_the_next_pull() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    registry.artifact("app", "1", &wasm(10));
    let busy = Fault::Status(
        429,
        Some(("retry-after", "3600")),
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"you have reached your pull rate limit"}]}"#,
    );
    registry.fails("/manifests/", &[busy]);
    let error = node.error(&registry.image("app:1")).await;
    assert!(
        error.contains("429 Too Many Requests: TOOMANYREQUESTS: you have"),
        "{error}"
    );
    assert!(error.contains("pause of 3600s"), "{error}");
}

#[tokio::test]
async fn refusals_are_told_in_the_registrys_words() {
    let (registry, node) = (TestRegistry::start().await, Node::start());
    let error = node.error(&registry.image("none:1")).await;
    let wanted = format!(
        "{}: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown",
        registry.address
    );
    assert!(error.contains(&wanted), "{error}");
    assert_eq!(
        registry.asked("/manifests/").len(),
        1,
        "it is not asked twice"
    );

    registry.auth(Auth::Basic("jane:secret"));
    let error = node.error(&registry.image("none:1")).await;
    assert!(error.contains("401 Unauthorized: UNAUTHORIZED"), "{error}");
    assert!(error.contains("imagePullSecret"), "{error}");
    registry.auth(Auth::Open);
    registry.fails(
        "/manifests/",
        &[Fault::Status(
            403,
            None,
            r#"{"errors":[{"code":"DENIED","message":"access denied"}]}"#,
        )],
    );
    let error = node.error(&registry.image("none:1")).await;
    assert!(
        error.contains("403 Forbidden: DENIED: access denied"),
        "{error}"
    );
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let error = node.error(&format!("{gone}/app:1")).await;
    assert!(error.contains("connect:"), "{error}");
}

#[tokio::test]
async fn credentials_are_tried_until_one_is_good() {
    for auth in [Auth::Basic("jane:secret"), Auth::Token("jane:secret")] {
        let registry = TestRegistry::start().await;
        registry.artifact("app", "1", &wasm(10));
        registry.auth(auth);
        let (place, image) = (registry.address.to_string(), registry.image("app:1"));
        let mut node = Node::start();
        assert_eq!(
            node.pull(&image).await.unwrap_err().reason(),
            "ErrImagePull"
        );
        node.secret(&place, "jane:wrong");
        assert!(node.pull(&image).await.is_err());
        node.secret(&place, "jane:secret");
        node.pull(&image).await.unwrap();

        // What was pulled with a secret is not for pods without it.
        let stranger = Node {
            secrets: Vec::new(),
            images: node.images.clone(),
            folder: tempfile::tempdir().unwrap(),
        };
        assert!(stranger.pull(&image).await.is_err());
        let never = stranger.request(&image, PullPolicy::Never);
        let error = stranger.images.ensure(&never).await.unwrap_err();
        assert!(error.to_string().contains("proper credentials"), "{error}");
        let asked = registry.asked("").len();
        node.pull(&image).await.unwrap();
        assert_eq!(registry.asked("").len(), asked);
    }
}

#[tokio::test]
async fn the_nodes_own_credentials_are_for_every_pod() {
    let registry = TestRegistry::start().await;
    registry.artifact("app", "1", &wasm(10));
    registry.auth(Auth::Token("node:secret"));
    let node = Node::start();
    let config = secret(&registry.address.to_string(), "node:secret").content;
    std::fs::write(node.folder.path().join("config.json"), config).unwrap();
    node.pull(&registry.image("app:1")).await.unwrap();
    let never = node.request(&registry.image("app:1"), PullPolicy::Never);
    node.images.ensure(&never).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_named() {
    let (registry, mut node) = (TestRegistry::start().await, Node::start());
    node.secret("x", "y");
    node.secrets[0].content = b"{".to_vec();
    let error = node.error(&registry.image("app:1")).await;
    assert!(error.contains("secret default/login: not JSON"), "{error}");
}

#[tokio::test]
async fn an_image_that_is_too_large_is_refused_before_it_is_fetched() {
    let (registry, node) = (TestRegistry::start().await, Node::with(1000, None));
    registry.artifact("app", "1", &wasm(2000));
    let error = node.error(&registry.image("app:1")).await;
    assert!(
        error.contains("has 2002 bytes; this node takes at most 1000"),
        "{error}"
    );
    assert!(registry.asked("/blobs/").is_empty());
}
