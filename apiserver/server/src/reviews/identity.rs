//! Who somebody is.

use async_trait::async_trait;
use coracle_api::Object;
use http::Request;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};

use super::Review;
use crate::authn::{Identity, PRIVATE_AUDIENCE};
use crate::call::Call;
use crate::metadata;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// Who the asker is.
pub(super) struct OfAsker;

#[async_trait]
impl Review for OfAsker {
    async fn answer(&self, server: &Server, call: &Call, question: &mut Object) -> Result<()> {
        let now = metadata::time_stamp(server.clock());
        question.set("metadata", json!({"creationTimestamp": now}));
        question.set("status", json!({"userInfo": user_info(&call.identity)}));
        Ok(())
    }
}

/// Whose a token is.
pub(super) struct OfToken;

#[async_trait]
impl Review for OfToken {
    async fn answer(&self, server: &Server, _call: &Call, question: &mut Object) -> Result<()> {
        let token = question.at("spec.token").str().to_owned();
        if token.is_empty() {
            return Err(ApiError::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let known = match Request::builder()
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(())
        {
            Ok(request) => server
                .authentication
                .token(&request.into_parts().0)
                .await
                .ok(),
            // A token that is no header value is nobody's.
            Err(_) => None,
        };
        let status = match known {
            None => json!({"user": {}, "error": "invalid bearer token"}),
            Some(identity) => {
                let asked = question.at("spec.audiences");
                let audiences = match asked.value().filter(|_| !asked.is_empty()) {
                    Some(asked) => asked.clone(),
                    None => json!([PRIVATE_AUDIENCE]),
                };
                json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences})
            }
        };
        question.set("status", status);
        Ok(())
    }
}

fn user_info(identity: &Identity) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), identity.user.as_str().into());
    if !identity.uid.is_empty() {
        info.insert("uid".to_owned(), identity.uid.as_str().into());
    }
    if !identity.groups.is_empty() {
        info.insert("groups".to_owned(), json!(identity.groups));
    }
    if !identity.extra.is_empty() {
        let extra = identity.extra.iter();
        let extra = extra.map(|(key, values)| (key.clone(), json!(values)));
        info.insert("extra".to_owned(), Value::Object(extra.collect()));
    }
    Value::Object(info)
}
