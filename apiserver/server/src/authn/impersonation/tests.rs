use async_trait::async_trait;

use super::*;
use crate::authz::Decision;
use crate::authz::{Authorizer, Mode};

/// Allows exactly `verb group resource/subresource namespace name`.
struct Only(&'static [&'static str]);

#[async_trait]
impl Authorizer for Only {
    async fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        let Attributes {
            verb,
            group,
            namespace,
            ref name,
            path,
            ..
        } = *asked;
        let asked = match asked.is_resource {
            true => format!(
                "{verb} {group} {} {namespace} {name}",
                asked.resource_path()
            ),
            false => format!("{verb} {path}"),
        };
        match self.0.contains(&asked.as_str()) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    }
}

async fn act(
    as_whom: &[(&'static str, &str)],
    asking: Identity,
    may: &'static [&'static str],
) -> Result<Identity> {
    let mut headers = HeaderMap::new();
    for (name, value) in as_whom {
        headers.append(*name, value.parse().expect("a header"));
    }
    let get = "GET".parse().expect("a method");
    let path = "/api/v1/namespaces/a/pods".parse().expect("a path");
    let info = RequestInfo::parse(&get, &path);
    let modes = vec![Mode::Other(Box::new(Only(may)) as Box<dyn Authorizer>)];
    let authorization = Authorization::of(modes);
    impersonate(&headers, asking, &info, &authorization).await
}

fn joe() -> Identity {
    Identity::new("joe", ["devs"])
}

#[tokio::test]
async fn nobody_acts_as_others_without_a_right() {
    assert_eq!(act(&[], joe(), &[]).await, Ok(joe()));
    let refused = act(&[(USER, "jane")], joe(), &[])
        .await
        .expect_err("refused");
    assert_eq!(
        refused.to_string(),
        r#"pods is forbidden: User "joe" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "a""#
    );
    let halves: [&[&str]; 2] = [
        &["impersonate-on:user-info:list  pods a "],
        &["impersonate:user-info authentication.k8s.io users  jane"],
    ];
    for half in halves {
        assert!(act(&[(USER, "jane")], joe(), half).await.is_err());
    }
}

#[test]
fn headers_are_utf8() {
    let wanted = |name: &'static str, value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.append(USER, "jane".parse().expect("a header"));
        let value = http::HeaderValue::from_bytes(value).expect("a header");
        headers.insert(name, value);
        super::wanted(&headers).map_err(|error| error.to_string())
    };
    let jose = wanted(USER, "jos\u{e9}".as_bytes()).expect("UTF-8");
    assert_eq!(jose.expect("named").user, "jos\u{e9}");
    for name in [USER, UID, GROUP, "impersonate-extra-a"] {
        // Left out, it would make somebody else of them: the one who asks, or one of fewer groups.
        let error = wanted(name, b"jos\xe9");
        assert_eq!(error, Err(format!("the header {name} is not UTF-8")));
    }
}

#[tokio::test]
async fn constrained_and_legacy_rights_let_act() {
    let constrained: &[&str] = &[
        "impersonate-on:user-info:list  pods a ",
        "impersonate:user-info authentication.k8s.io users  jane",
    ];
    let legacy: &[&str] = &["impersonate  users  jane"];
    for may in [constrained, legacy] {
        let jane = act(&[(USER, "jane")], joe(), may).await.expect("allowed");
        assert_eq!(jane, Identity::component("jane"));
    }
}

#[tokio::test]
async fn every_part_of_a_user_needs_its_right() {
    let parts = [
        (USER, "jane"),
        (UID, "u1"),
        (GROUP, "ops"),
        ("impersonate-extra-acme%2fteam", "a"),
    ];
    let all: &[&str] = &[
        "impersonate  users  jane",
        "impersonate authentication.k8s.io uids  u1",
        "impersonate  groups  ops",
        "impersonate authentication.k8s.io userextras/acme/team  a",
    ];
    let jane = act(&parts, joe(), all).await.expect("allowed");
    assert_eq!(jane.groups, ["ops", AUTHENTICATED]);
    assert_eq!(jane.uid, "u1");
    assert_eq!(jane.extra, [("acme/team".to_owned(), vec!["a".to_owned()])]);
    for missing in 0..all.len() {
        let rest = all[..missing].iter().chain(&all[missing + 1..]);
        let rest: &'static [&'static str] = rest.copied().collect::<Vec<_>>().leak();
        assert!(
            act(&parts, joe(), rest).await.is_err(),
            "without {}",
            all[missing]
        );
    }
}

#[tokio::test]
async fn accounts_and_nodes_have_their_groups() {
    let account: &[&str] = &["impersonate  serviceaccounts a b"];
    let acting = act(&[(USER, "system:serviceaccount:a:b")], joe(), account).await;
    assert_eq!(
        acting.expect("allowed").groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:a",
            AUTHENTICATED
        ]
    );
    let own_node: &[&str] = &[
        "impersonate-on:associated-node:list  pods a ",
        "impersonate:associated-node authentication.k8s.io nodes  *",
    ];
    let on = |node: &str| Identity {
        extra: vec![(NODE_NAME.to_owned(), vec![node.to_owned()])],
        ..Identity::component("system:serviceaccount:a:agent")
    };
    let acting = act(&[(USER, "system:node:n1")], on("n1"), own_node).await;
    assert_eq!(acting.expect("allowed").groups, [NODES, AUTHENTICATED]);
    assert!(
        act(&[(USER, "system:node:n1")], on("n2"), own_node)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn administrators_are_no_goal_of_constrained_impersonation() {
    let may: &[&str] = &[
        "impersonate-on:user-info:list  pods a ",
        "impersonate:user-info authentication.k8s.io users  jane",
        "impersonate:user-info authentication.k8s.io groups  system:masters",
    ];
    let as_admin = [(USER, "jane"), (GROUP, MASTERS)];
    let refused = act(&as_admin, joe(), may).await.expect_err("refused");
    assert!(
        refused
            .to_string()
            .ends_with("impersonating the system:masters group is not allowed"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_user_must_be_named() {
    let refused = act(&[(GROUP, "g"), ("impersonate-extra-a", "b")], joe(), &[]).await;
    let refused = refused.expect_err("refused");
    assert_eq!(
        (refused.code().as_u16(), refused.to_string().as_str()),
        (
            400,
            r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string{"a":[]string{"b"}}} without impersonating a user name"#
        )
    );
}
