//! `wasi:sockets/ip-name-lookup` 0.3.

use std::net::IpAddr;

use coracle_network::ResolveError;
use wasmtime::component::Accessor;

use super::bindings::wasi::sockets::ip_name_lookup::{ErrorCode, Host, HostWithStore};
use super::bindings::wasi::sockets::types::IpAddress;
use super::convert::ip_to_wasi;
use super::{Sockets, SocketsView};

impl Host for SocketsView<'_> {}

impl<T: 'static> HostWithStore<T> for Sockets {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, ErrorCode>> {
        let scope = store.with(|mut view| view.get().scope.clone());
        // A question costs like a socket, and is bounded with them.
        let Ok(_permit) = scope.permit() else {
            return Ok(Err(ErrorCode::TemporaryResolverFailure));
        };
        Ok(match scope.lookup(&name).await {
            Ok(mut addresses) => {
                // IPv4 first: guests try addresses in order, and not all pods have IPv6 sockets.
                addresses.sort_by_key(IpAddr::is_ipv6);
                Ok(addresses.into_iter().map(ip_to_wasi).collect())
            }
            Err(error) => Err(error_code(&error)),
        })
    }
}

fn error_code(error: &ResolveError) -> ErrorCode {
    match error {
        ResolveError::NotFound(_) => ErrorCode::NameUnresolvable,
        ResolveError::Again(_) => ErrorCode::TemporaryResolverFailure,
        ResolveError::Failed(_) => ErrorCode::PermanentResolverFailure,
        ResolveError::InvalidName(_) => ErrorCode::InvalidArgument,
    }
}
