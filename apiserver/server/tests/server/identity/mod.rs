//! Who is believed and who decides, as files say: issuers and webhooks in the same process, over TLS.

mod distributed_claims;
mod issuers;
mod token_webhook;
mod webhook;
mod world;
