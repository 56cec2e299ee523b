//! Who somebody is.

use async_trait::async_trait;
use coracle_api::Object;
use serde_json::{Map, Value, json};

use super::Review;
use crate::authn::Identity;
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
        let asked = question.at("spec.audiences");
        let audiences: Vec<String> = match asked.is_empty() {
            true => server.authentication.api_audiences.clone(),
            false => asked.items().map(|one| one.str().to_owned()).collect(),
        };
        let reviewed = server.authentication.review(server, &token, &audiences);
        let status = match reviewed.await {
            Err(error) => json!({"user": {}, "error": error}),
            Ok(known) => json!({
                "authenticated": true,
                "user": user_info(&known.identity),
                "audiences": known.audiences,
            }),
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
