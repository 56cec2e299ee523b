mod bounds;
mod routing;
mod streams;
mod tls;
mod world;
