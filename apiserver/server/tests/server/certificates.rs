//! Who may approve and sign certificate requests, and whose nobody signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_server::Identity;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::support::{TestServer, send_as};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// A request for a certificate of `group`.
fn csr(name: &str, group: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params
        .distinguished_name
        .push(DnType::OrganizationName, group);
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem();
    let pem = STANDARD.encode(pem.expect("PEM"));
    let spec = json!({"request": pem, "signerName": CLIENT, "usages": ["client auth"]});
    json!({"metadata": {"name": name}, "spec": spec})
}

fn condition(kind: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "x", "message": "y"}]}})
}

async fn allow(server: &TestServer, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    server
        .post(&format!("{RBAC}/clusterroles"), role)
        .await
        .ok();
    let binding = json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    });
    server
        .post(&format!("{RBAC}/clusterrolebindings"), binding)
        .await
        .ok();
}

#[tokio::test(start_paused = true)]
async fn approving_and_signing_take_the_right_for_the_signer() {
    let server = TestServer::start().await;
    let write = json!({
        "apiGroups": ["certificates.k8s.io"], "verbs": ["update", "patch"],
        "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"],
    });
    let signer = |verb: &str, name: &str| {
        json!({
            "apiGroups": ["certificates.k8s.io"], "verbs": [verb],
            "resources": ["signers"], "resourceNames": [name],
        })
    };
    allow(
        &server,
        "clerk",
        json!([write, signer("approve", "example.com/x")]),
    )
    .await;
    allow(
        &server,
        "approver",
        json!([write, signer("approve", CLIENT)]),
    )
    .await;
    allow(
        &server,
        "signer",
        json!([write, signer("sign", "kubernetes.io/*")]),
    )
    .await;
    server.post(REQUESTS, csr("a", "dev")).await.ok();
    let (approval, status) = (
        format!("{REQUESTS}/a/approval"),
        format!("{REQUESTS}/a/status"),
    );
    let patch = async |user: &str, path: &str, body: Value| {
        let user = Identity::new(user, [] as [&str; 0]);
        send_as(&server, &user, "PATCH", path, Some(body)).await
    };
    for user in ["clerk", "signer"] {
        let (code, _, message) = patch(user, &approval, condition("Approved"))
            .await
            .failure();
        let why = format!("user not permitted to approve requests with signerName {CLIENT:?}");
        assert_eq!(code, 403);
        assert!(message.ends_with(&why), "{message}");
    }
    patch("approver", &approval, condition("Approved"))
        .await
        .ok();
    let stored = server.get(&format!("{REQUESTS}/a")).await.ok();
    let mut both = stored["status"].clone();
    let failed = condition("Failed")["status"]["conditions"][0].clone();
    both["conditions"]
        .as_array_mut()
        .expect("a list")
        .push(failed);
    for user in ["clerk", "approver"] {
        let (code, _, message) = patch(user, &status, json!({"status": &both}))
            .await
            .failure();
        let why = format!("user not permitted to sign requests with signerName {CLIENT:?}");
        assert_eq!(code, 403);
        assert!(message.ends_with(&why), "{message}");
    }
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    patch("clerk", &status, labelled).await.ok();
    patch("signer", &status, json!({"status": both})).await.ok();
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_for_a_certificate_of_administrators() {
    let server = TestServer::start().await;
    let (code, _, message) = server
        .post(REQUESTS, csr("a", "system:masters"))
        .await
        .failure();
    let why = format!("use of {CLIENT} signer with system:masters group is not allowed");
    assert_eq!(code, 403);
    assert!(message.ends_with(&why), "{message}");
    server
        .post(REQUESTS, csr("a", "system:masters-of-nothing"))
        .await
        .ok();
}
