//! `/statusz`: what this server is and since when it runs, as text for people or as an object for programs.
//!
//! Follows upstream's `k8s.io/apiserver/pkg/server/statusz`, which 1.36 serves without being asked to.

use http::StatusCode;
use http::request::Parts;
use serde_json::json;

use super::{KUBERNETES_VERSION, version};
use crate::answer::Answer;
use crate::negotiate::{self, Format};
use crate::request_info::RequestInfo;
use crate::server::Server;

const NAME: &str = "kube-apiserver";

/// Where else to look for a fault.
const PATHS: &[&str] = &[
    "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version",
];

/// Answers in the form that the client accepts.
pub(crate) fn answer(server: &Server, parts: &Parts, info: &RequestInfo) -> Answer {
    let output = match negotiate::statusz(&parts.headers, info.query.get("pretty")) {
        Ok(output) => output,
        Err(error) => return Answer::from(error),
    };
    let started = server.started;
    let up = server
        .clock()
        .now()
        .duration_since(started)
        .as_secs()
        .max(0);
    let binary = KUBERNETES_VERSION.trim_start_matches('v');
    let emulated = binary.rsplit_once('.').map_or(binary, |(minor, _)| minor);
    let built_with = version()["goVersion"].clone();
    let Some(output) = output else {
        let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
        let text = format!(
            "\n{NAME} statusz\nWarning: for people who look for a fault; its form may change at any time.\n\n\
             Started: {}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nGo version: {}\n\
             Binary version: {binary}\nEmulation version: {emulated}\nPaths: {}\n",
            started.strftime("%a %b %e %H:%M:%S UTC %Y"),
            built_with.as_str().unwrap_or_default(),
            PATHS.join(" "),
        );
        return Answer::text(StatusCode::OK, text);
    };
    let status = json!({
        "kind": "Statusz",
        "apiVersion": "config.k8s.io/v1beta1",
        "metadata": {"name": NAME},
        "startTime": crate::metadata::seconds(started),
        "uptimeSeconds": up,
        "goVersion": built_with,
        "binaryVersion": binary,
        "emulationVersion": emulated,
        "paths": PATHS,
    });
    let mut answer = Answer::value(StatusCode::OK, output, &status);
    answer.content_type = match output.format {
        Format::Yaml => "application/yaml;g=config.k8s.io;v=v1beta1;as=Statusz",
        _ => "application/json;g=config.k8s.io;v=v1beta1;as=Statusz",
    };
    answer
}
