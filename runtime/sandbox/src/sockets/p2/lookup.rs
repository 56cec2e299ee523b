//! `wasi:sockets/ip-name-lookup`.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Poll;
use std::vec::IntoIter;

use coracle_network::{ResolveError, SocketPermit};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable};

use super::bindings::wasi::sockets::ip_name_lookup;
use super::bindings::wasi::sockets::network::{ErrorCode, IpAddress};
use super::{Network, SocketResult, SocketsView, failed};
use crate::sockets::without_waiting;

/// The `resolve-address-stream` resource.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Addresses {
    state: State,
    /// A question costs like a socket, and is bounded with them.
    _permit: SocketPermit,
}

type Answer = Result<Vec<IpAddr>, ResolveError>;

enum State {
    Asking(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Answered(Result<IntoIter<IpAddr>, ErrorCode>),
}

impl State {
    /// IPv4 first: guests try addresses in order, and not all pods have IPv6 sockets.
    fn answered(answer: Answer) -> Self {
        let answer = answer
            .map_err(|error| error_code(&error))
            .map(|mut addresses| {
                addresses.sort_by_key(IpAddr::is_ipv6);
                addresses.into_iter()
            });
        Self::Answered(answer)
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

#[async_trait::async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {
        if let State::Asking(question) = &mut self.state {
            let answer = question.await;
            self.state = State::answered(answer);
        }
    }
}

impl ip_name_lookup::Host for SocketsView<'_> {
    fn resolve_addresses(
        &mut self,
        _network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<Addresses>> {
        let permit = self.scope.permit().map_err(failed)?;
        let scope = self.scope.clone();
        let mut question: Pin<Box<dyn Future<Output = Answer> + Send>> =
            Box::pin(async move { scope.lookup(&name).await });
        let state = match question.as_mut().poll(&mut without_waiting()) {
            Poll::Ready(answer) => State::answered(answer),
            Poll::Pending => State::Asking(question),
        };
        if let State::Answered(Err(ErrorCode::InvalidArgument)) = state {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.push(Addresses {
            state,
            _permit: permit,
        })
    }
}

impl ip_name_lookup::HostResolveAddressStream for SocketsView<'_> {
    fn resolve_next_address(
        &mut self,
        this: Resource<Addresses>,
    ) -> SocketResult<Option<IpAddress>> {
        let stream = self.get(&this)?;
        if let State::Asking(question) = &mut stream.state
            && let Poll::Ready(answer) = question.as_mut().poll(&mut without_waiting())
        {
            stream.state = State::answered(answer);
        }
        match &mut stream.state {
            State::Asking(_) => Err(ErrorCode::WouldBlock.into()),
            State::Answered(Ok(addresses)) => Ok(addresses.next().map(to_wasi)),
            State::Answered(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(&mut self, this: Resource<Addresses>) -> wasmtime::Result<Resource<DynPollable>> {
        wasmtime_wasi::p2::subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<Addresses>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

fn to_wasi(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(v4) => IpAddress::Ipv4(v4.octets().into()),
        IpAddr::V6(v6) => IpAddress::Ipv6(v6.segments().into()),
    }
}
