//! A service that decides.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_server::Identity;
use coracle_server::authz::{ConfiguredAuthorization, Mode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::world::World;
use crate::support::{Answer, CONFIG_MAPS, TestServer, send_as};

const KUBECONFIG: &str = "/etc/hook/config";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

fn configuration(fields: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n\
         - type: Webhook\n  name: hook\n  webhook:\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    \
         matchConditionSubjectAccessReviewVersion: v1\n    \
         connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {KUBECONFIG}}}\n{fields}\
         - {{type: Node, name: node}}\n- {{type: RBAC, name: rbac}}\n"
    )
}

fn no_look(_: &Path) -> Option<String> {
    None
}

struct Server {
    server: TestServer,
    clock: Clock,
    configured: Arc<ConfiguredAuthorization>,
}

impl Server {
    async fn start(world: &Arc<World>, fields: &str) -> Self {
        world.kubeconfig(KUBECONFIG);
        let mut made = None;
        let server = TestServer::start_with(|config| {
            let clock = config.clock.clone();
            let text = configuration(fields);
            let configured =
                ConfiguredAuthorization::parse(&text, &no_look, world.outside(), clock.clone());
            let configured = Arc::new(configured.expect("good"));
            config.authorizers = vec![Mode::Configured(Arc::clone(&configured))];
            made = Some((clock, configured));
        })
        .await;
        let (clock, configured) = made.expect("set");
        Self {
            server,
            clock,
            configured,
        }
    }

    async fn list(&self, user: &str) -> Answer {
        let path = format!("{CONFIG_MAPS}?labelSelector=app%3Dweb");
        let user = Identity::new(user, ["devs"]);
        send_as(&self.server, &user, "GET", &path, None).await
    }

    async fn status(&self, user: &str) -> u16 {
        self.list(user).await.status.as_u16()
    }
}

/// Allows jane, denies joe, has no opinion on others; keeps the last question.
fn service(last: &Arc<Mutex<Value>>) -> impl Fn(&str, Value) -> (u16, String) + use<> {
    let last = Arc::clone(last);
    move |_, question| {
        let status = match question["spec"]["user"].as_str() {
            Some("jane") => json!({"allowed": true}),
            Some("joe") => json!({"allowed": false, "denied": true, "reason": "not joe"}),
            Some("both") => json!({"allowed": true, "denied": true}),
            _ => json!({"allowed": false, "reason": "who?"}),
        };
        *last.lock() = question;
        let answer = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status});
        (200, answer.to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_and_its_answers_are_remembered() {
    let world = World::new();
    let last = Arc::default();
    let hook = world.host("hook.test", service(&last));
    let server = Server::start(&world, "    failurePolicy: Deny\n").await;
    for _ in 0..3 {
        assert_eq!(server.status("jane").await, 200);
    }
    assert_eq!(hook.asked(), 1);
    let resource = json!({
        "namespace": "default", "verb": "list", "version": "v1", "resource": "configmaps",
        "labelSelector": {"requirements": [{"key": "app", "operator": "In", "values": ["web"]}]},
    });
    assert_eq!(last.lock()["spec"]["resourceAttributes"], resource);
    let refused = server.list("joe").await.failure();
    assert!(
        refused.0 == 403 && refused.2.ends_with(": not joe"),
        "{refused:?}"
    );
    let refused = server.list("jim").await.failure();
    assert!(
        refused.0 == 403 && refused.2.ends_with(": who?"),
        "{refused:?}"
    );
    assert_eq!(
        (server.status("joe").await, server.status("jim").await),
        (403, 403)
    );
    assert_eq!(hook.asked(), 3);
    assert_eq!(server.status("both").await, 500);
    // Refusals are forgotten sooner.
    server.clock.sleep(Duration::from_secs(31)).await;
    server.status("jim").await;
    server.status("jane").await;
    assert_eq!(hook.asked(), 5);
    // Administrators are not asked about.
    server.server.get(CONFIG_MAPS).await.ok();
    assert_eq!(hook.asked(), 5);
    let metrics = server.server.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let counted =
        "apiserver_authorization_webhook_evaluations_total{name=\"hook\",result=\"success\"} 5";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_remembered_where_the_file_says_so() {
    let world = World::new();
    let hook = world.host("hook.test", service(&Arc::default()));
    let fields = "    failurePolicy: Deny\n    cacheAuthorizedRequests: false\n    cacheUnauthorizedRequests: false\n";
    let server = Server::start(&world, fields).await;
    for user in ["jane", "jane", "joe", "joe"] {
        server.status(user).await;
    }
    assert_eq!(hook.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_is_a_failure_by_its_policy() {
    let world = World::new();
    for (policy, bound) in [("NoOpinion", 200), ("Deny", 500)] {
        let server = Server::start(&world, &format!("    failurePolicy: {policy}\n")).await;
        let binding = json!({
            "metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        server.server.post(bindings, binding).await.ok();
        assert_eq!(server.status("jane").await, bound, "{policy}");
        let failure = server.list("jim").await.failure();
        assert_eq!(failure.0, 500, "{policy}");
        assert!(
            failure.2.contains("https://hook.test/review") && !failure.2.contains("hook-secret"),
            "{failure:?}"
        );
        let question = json!({"spec": {"user": "jim", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
        let answer = server.server.post(ACCESS, question).await.ok();
        assert_eq!(answer["status"]["allowed"], false);
        assert_eq!(answer["status"]["denied"] == true, policy == "Deny");
        let error = answer["status"]["evaluationError"]
            .as_str()
            .unwrap_or_default();
        assert!(error.contains("connection refused"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_keep_questions_from_it() {
    let world = World::new();
    let hook = world.host("hook.test", service(&Arc::default()));
    let fields = "    failurePolicy: Deny\n    matchConditions:\n    - expression: \"!('system:masters' in request.groups)\"\n    \
                  - expression: has(request.resourceAttributes) && request.resourceAttributes.namespace == 'default'\n    \
                  - expression: \"request.resourceAttributes.?labelSelector.?requirements.orValue([]).exists(r, r.key == 'app')\"\n";
    let server = Server::start(&world, fields).await;
    let jane = Identity::new("jane", ["devs"]);
    let elsewhere = send_as(
        &server.server,
        &jane,
        "GET",
        "/api/v1/namespaces/kube-system/configmaps",
        None,
    )
    .await;
    assert_eq!(elsewhere.status, 403, "roles decide alone");
    let all = send_as(&server.server, &jane, "GET", CONFIG_MAPS, None).await;
    assert_eq!((all.status.as_u16(), hook.asked()), (403, 0));
    assert_eq!((server.status("jane").await, hook.asked()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_fails_follows_the_policy() {
    let world = World::new();
    let hook = world.host("hook.test", service(&Arc::default()));
    for policy in ["NoOpinion", "Deny"] {
        let fields = format!(
            "    failurePolicy: {policy}\n    matchConditions: [{{expression: \"request.extra['team'][0] == 'a'\"}}]\n"
        );
        let server = Server::start(&world, &fields).await;
        let failure = server.list("jane").await.failure();
        assert_eq!(failure.0, 500, "{policy}");
        assert!(
            failure.2.contains("resulted in error: no such key: team"),
            "{failure:?}"
        );
        assert_eq!(hook.asked(), 0);
        // What is false elsewhere counts more than what fails.
        let fields = format!(
            "    failurePolicy: {policy}\n    matchConditions: [{{expression: \"request.extra['team'][0] == 'a'\"}}, {{expression: request.user == 'nobody'}}]\n"
        );
        server
            .configured
            .replace(&configuration(&fields), &no_look)
            .expect("good");
        assert_eq!((server.status("jane").await, hook.asked()), (403, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_replaced_and_a_wrong_one_is_not() {
    let world = World::new();
    let hook = world.host("hook.test", service(&Arc::default()));
    let server = Server::start(&world, "    failurePolicy: Deny\n").await;
    assert_eq!(server.status("jane").await, 200);
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
    let replace = |rest: &str| {
        let replaced = server
            .configured
            .replace(&format!("{head}{rest}"), &no_look);
        replaced.map_err(|error| error.to_string())
    };
    assert_eq!(
        replace("authorizers: [{type: RBAC, name: rbac}]"),
        Err("missing required types: [Node]".to_owned())
    );
    assert!(replace("authorizers: []").is_err());
    assert_eq!((server.status("jane").await, hook.asked()), (200, 1));
    let plain = "authorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]";
    assert_eq!(replace(plain), Ok(()));
    assert_eq!((server.status("jane").await, hook.asked()), (403, 1));
    let all = "authorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}, {type: AlwaysAllow, name: alwaysallow}]";
    assert_eq!(
        replace(all),
        Err(
            "authorizer type AlwaysAllow is not allowed if it was not enabled at initial server startup"
                .to_owned()
        )
    );
    assert_eq!(server.status("jane").await, 403);
}
