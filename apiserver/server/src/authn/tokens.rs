//! Static bearer tokens: `token,user,uid,"group1,group2"` per line, as upstream's `--token-auth-file`.

use std::collections::HashMap;

use async_trait::async_trait;
use http::request::Parts;
use sha2::{Digest, Sha256};

use super::{Authenticator, Identity, bearer_token};
use crate::status::Result;

/// Tokens read from a file. Only their digests are kept, so that a lookup takes the same time whatever the token.
#[derive(Default)]
pub struct StaticTokens {
    identities: HashMap<[u8; 32], Identity>,
}

/// A token file that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenFileError {
    /// A line has fewer than three fields.
    #[error("line {0} of the token file has fewer than three fields (token,user,uid)")]
    TooFewFields(usize),
    /// A token or user is empty.
    #[error("line {0} of the token file has an empty token or user")]
    Empty(usize),
    /// A quote is never closed.
    #[error("line {0} of the token file has an unclosed quote")]
    Unclosed(usize),
}

impl StaticTokens {
    /// Reads the text of a token file. Empty lines and lines that begin with `#` are skipped.
    pub fn parse(text: &str) -> std::result::Result<Self, TokenFileError> {
        let mut tokens = Self::default();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line).ok_or(TokenFileError::Unclosed(number))?;
            let [token, user, uid, rest @ ..] = fields.as_slice() else {
                return Err(TokenFileError::TooFewFields(number));
            };
            if token.is_empty() || user.is_empty() {
                return Err(TokenFileError::Empty(number));
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups
                .split(',')
                .map(str::trim)
                .filter(|group| !group.is_empty());
            let identity = Identity {
                uid: uid.clone(),
                ..Identity::new(user, groups)
            };
            tokens
                .identities
                .insert(Sha256::digest(token).into(), identity);
        }
        Ok(tokens)
    }
}

#[async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>> {
        let Some(token) = bearer_token(request) else {
            return Ok(None);
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        Ok(self.identities.get(&digest).cloned())
    }
}

/// The fields of one line of CSV; `None` when a quote is never closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.trim_end().chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("one field from the start");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(character),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn identity(tokens: &StaticTokens, header: &str) -> Option<Identity> {
        let request = http::Request::builder()
            .header("authorization", header)
            .body(())
            .expect("a request");
        tokens
            .authenticate(&request.into_parts().0)
            .await
            .expect("no failure")
    }

    #[tokio::test]
    async fn tokens_name_user_uid_and_groups() {
        let tokens =
            StaticTokens::parse("# admins\nsecret,jane,u1,\"a,system:masters\"\n\nother,joe,u2\n")
                .expect("legal");
        let jane = identity(&tokens, "Bearer secret").await.expect("known");
        assert_eq!((jane.user.as_str(), jane.uid.as_str()), ("jane", "u1"));
        assert_eq!(jane.groups, ["a", "system:masters", "system:authenticated"]);
        assert_eq!(
            identity(&tokens, "bearer other").await.map(|joe| joe.user),
            Some("joe".to_owned())
        );
        assert_eq!(identity(&tokens, "Bearer wrong").await, None);
        assert_eq!(identity(&tokens, "Basic secret").await, None);
    }

    #[test]
    fn bad_lines_are_named() {
        assert_eq!(
            StaticTokens::parse("a,b").err(),
            Some(TokenFileError::TooFewFields(1))
        );
        assert_eq!(
            StaticTokens::parse("a,b,c\n,b,c").err(),
            Some(TokenFileError::Empty(2))
        );
        assert_eq!(
            StaticTokens::parse("a,b,c,\"d").err(),
            Some(TokenFileError::Unclosed(1))
        );
    }
}
