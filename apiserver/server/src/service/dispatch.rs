//! Which part answers a verb on a resource or a subresource of it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body as HttpBody;

use crate::answer::Answer;
use crate::body::{self, BoxError};
use crate::call::Call;
use crate::detached::Detached;
use crate::flowcontrol::Place;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::subresources::{binding, connect, eviction, log, scale, token};
use crate::verbs::{create, delete, get, list, patch, update, watch};
use crate::{components, reviews, usage};

/// Carries out a request that is allowed and has its seats. The body is taken by whoever reads it whole.
pub(super) async fn dispatch<B>(
    server: &Arc<Server>,
    call: Call,
    body: &mut Option<Pin<Box<B>>>,
    place: Option<Place>,
) -> Result<Answer>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let name = call.subresource.map_or("", |subresource| subresource.name);
    match (name, call.info.verb) {
        ("", "get") if call.resource.group == usage::GROUP => usage::get(server, &call).await,
        ("", "list") if call.resource.group == usage::GROUP => usage::list(server, &call).await,
        ("", "get") if call.info.resource == components::PLURAL => components::get(server, &call),
        ("", "list") if call.info.resource == components::PLURAL => components::list(server, &call),
        ("", "get") => get::get(server, &call).await,
        ("", "list") => list::list(server, &call).await,
        ("", "watch") => watch::watch(server, call).await,
        ("status" | "approval" | "ephemeralcontainers" | "resize", "get") => {
            get::get(server, &call).await
        }
        ("scale", "get") => scale::get(server, &call).await,
        ("log", "get") => log::get(server, &call).await,
        (name, _) if connect::is_connect(name) => {
            let body = body.take().map_or_else(body::empty, body::streamed);
            connect::connect(server, &call, body).await
        }
        _ => {
            let body = match (body, &place) {
                (Some(body), Some(place)) => place.aside(body::read(body.as_mut())).await?,
                (Some(body), None) => body::read(body.as_mut()).await?,
                (None, _) => Bytes::new(),
            };
            if let Some(trail) = &call.trail {
                trail.body(&body, &call.headers);
            }
            // A client that goes away, or whose time is up, must not stop a write half-way: what was allocated
            // for an object would be given back although the object is there.
            let server = Arc::clone(server);
            let work = async move {
                let _place = place;
                write(&server, call, body).await
            };
            Detached::new(work).await
        }
    }
}

/// The requests that change something.
async fn write(server: &Arc<Server>, call: Call, body: Bytes) -> Result<Answer> {
    let name = call.subresource.map_or("", |subresource| subresource.name);
    let is_bindings = call.info.resource == "bindings";
    server.flow.breathe().await;
    match (name, call.info.verb) {
        ("", "create") if is_bindings => binding::create(server, &call, body).await,
        ("binding", "create") => binding::create(server, &call, body).await,
        ("eviction", "create") => eviction::create(server, &call, body).await,
        ("token", "create") => token::create(server, &call, body).await,
        ("", "create") if call.resource.storage == coracle_api::kinds::Storage::None => {
            reviews::create(server, &call, body).await
        }
        ("", "create") => create::create(server, &call, body).await,
        ("", "delete") => delete::delete(server, &call, body).await,
        ("", "deletecollection") => delete::delete_collection(server, &call, body).await,
        ("" | "status" | "approval" | "finalize" | "ephemeralcontainers" | "resize", "update") => {
            update::update(server, &call, body).await
        }
        ("" | "status" | "approval" | "ephemeralcontainers" | "resize", "patch") => {
            patch::patch(server, &call, body).await
        }
        ("scale", "update") => scale::put(server, &call, body).await,
        ("scale", "patch") => scale::patch(server, &call, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
