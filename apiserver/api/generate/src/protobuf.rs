//! Reads messages out of prost's generated sources.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};

/// Messages by their full names.
#[derive(Default)]
pub(crate) struct Messages(HashMap<String, Message>);

impl Messages {
    /// The message of a definition. Rust writes `HttpGetAction` where Go has `HTTPGetAction`, so case doesn't count.
    pub(crate) fn get(&self, name: &str) -> Option<&Message> {
        self.0.get(&name.to_ascii_lowercase())
    }
}

/// A message with its fields in the order of the Go struct.
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) fields: Vec<MessageField>,
}

/// A field of a message.
pub(crate) struct MessageField {
    /// The name, see [`plain`].
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) repeated: bool,
    /// The full name of the message that it holds.
    pub(crate) message: Option<String>,
}

/// A name in the form in which JSON's and protobuf's names are alike: `podIPs` and `pod_i_ps`.
pub(crate) fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

pub(crate) fn read(root: &Path) -> Result<Messages> {
    let mut messages = Messages::default();
    read_folder(root, "io.k8s", &mut messages)?;
    Ok(messages)
}

fn read_folder(folder: &Path, package: &str, messages: &mut Messages) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            read_folder(
                &entry.path(),
                &format!("{package}.{}", name.replace('_', "-")),
                messages,
            )?;
        } else if name == "mod.rs" {
            read_messages(&fs::read_to_string(entry.path())?, package, messages)
                .with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

fn read_messages(source: &str, package: &str, messages: &mut Messages) -> Result<()> {
    let mut open: Option<Message> = None;
    let mut attribute = None;
    for line in source.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            open = Some(Message {
                name,
                fields: Vec::new(),
            });
            if line.ends_with("{}") {
                close(&mut open, package, messages);
            }
        } else if line == "}" {
            close(&mut open, package, messages);
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            attribute = Some(rest.to_owned());
        } else if let (Some(rest), Some(message)) = (line.strip_prefix("pub "), open.as_mut())
            && let Some(attribute) = attribute.take()
        {
            let (name, kind) = rest.split_once(':').context("a field has a type")?;
            let number = attribute
                .split("tag = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            message.fields.push(MessageField {
                name: plain(name.strip_prefix("r#").unwrap_or(name)),
                number: number.context("a field has a tag")?.parse()?,
                repeated: attribute.contains("repeated") || attribute.contains("map"),
                message: attribute
                    .starts_with("message")
                    .then(|| resolve(kind, package)),
            });
        }
    }
    Ok(())
}

fn close(open: &mut Option<Message>, package: &str, messages: &mut Messages) {
    if let Some(message) = open.take() {
        messages.0.insert(
            format!("{package}.{}", message.name).to_ascii_lowercase(),
            message,
        );
    }
}

/// The full name of the innermost type in something like `Option<super::super::core::v1::Volume>,`.
fn resolve(kind: &str, package: &str) -> String {
    let inner = kind
        .trim()
        .trim_end_matches(',')
        .rsplit('<')
        .next()
        .unwrap_or_default()
        .trim_end_matches('>');
    let mut parts: Vec<&str> = package.split('.').collect();
    let mut path = inner.split("::").filter(|part| !part.is_empty()).peekable();
    if path.peek() == Some(&"crate") {
        path.next();
        parts = vec!["io", "k8s"];
    }
    for part in path {
        match part {
            "super" => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    let name = parts.join(".");
    let (package, last) = name.rsplit_once('.').unwrap_or(("", &name));
    format!("{}.{last}", package.replace('_', "-"))
}
