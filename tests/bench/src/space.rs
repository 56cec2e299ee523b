//! A namespace of our own on the server that is measured.

use anyhow::{Result, bail};
use bytes::Bytes;
use coracle_clock::Clock;
use http::{Method, StatusCode};
use serde_json::json;

use crate::access::Access;
use crate::client::{Connection, Protocol};
use crate::load::{Clients, Run, Until};

/// How many clients fill a collection.
const CLIENTS: usize = 16;

/// A namespace that nobody else knows.
pub(crate) struct Space {
    name: String,
    access: Access,
}

impl Space {
    /// Makes one in which pods can be created.
    pub(crate) async fn make(access: &Access, clock: &Clock) -> Result<Self> {
        let name = format!("bench-{}", clock.name_suffix(5));
        let mut connection = Connection::open(access, Protocol::Http1).await?;
        let namespace = json!({"metadata": {"name": name}});
        connection.create("/api/v1/namespaces", &namespace).await?;
        let space = Self {
            name,
            access: access.clone(),
        };
        // Usually a controller does this; a server alone has none.
        let account = json!({"metadata": {"name": "default"}}).to_string();
        let (status, answer) = connection
            .exchange(
                Method::POST,
                &space.collection("serviceaccounts"),
                Bytes::from(account),
            )
            .await?;
        if !status.is_success() && status != StatusCode::CONFLICT {
            bail!(
                "the service account was answered {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(space)
    }

    /// The path of a collection of the core group in it.
    pub(crate) fn collection(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.name)
    }

    /// Asks for its deletion, which goes on after the answer.
    pub(crate) async fn delete(self) -> Result<()> {
        let mut connection = Connection::open(&self.access, Protocol::Http1).await?;
        connection
            .delete(&format!("/api/v1/namespaces/{}", self.name))
            .await
    }
}

/// Creates `count` objects in `collection`; `object` makes each from its name, `object-` and a number of six digits.
pub(crate) async fn fill(
    clients: &Clients,
    collection: &str,
    count: usize,
    object: fn(&str) -> serde_json::Value,
) -> Result<Run> {
    let path = collection.to_owned();
    let ask = move |number| {
        let object = object(&format!("object-{number:06}")).to_string();
        (Method::POST, path.clone(), Bytes::from(object))
    };
    clients.run(CLIENTS, Until::Asked(count), ask).await
}
