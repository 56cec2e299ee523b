//! Who is believed and who decides, as files say: issuers and webhooks in the same process, over TLS.

mod issuers;
mod token_webhook;
mod webhook;
mod world;
