//! Static bearer tokens: `token,user,uid,"group1,group2"` per line, as upstream's `--token-auth-file`.

use std::collections::HashMap;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::Identity;
use super::token::{Authenticated, Rejection, Remarks, TokenAuthenticator, intersection};
use crate::server::Server;

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

    /// Whose the token is.
    fn identity(&self, token: &str) -> Option<Identity> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.identities.get(&digest).cloned()
    }
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Rejection> {
        let trusted = intersection(&server.authentication.api_audiences, audiences);
        let known = trusted.zip(self.identity(token));
        Ok(known.map(|(audiences, identity)| Authenticated {
            identity,
            audiences,
            remarks: Remarks::default(),
        }))
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

    #[test]
    fn tokens_name_user_uid_and_groups() {
        let tokens =
            StaticTokens::parse("# admins\nsecret,jane,u1,\"a,system:masters\"\n\nother,joe,u2\n")
                .expect("legal");
        let jane = tokens.identity("secret").expect("known");
        assert_eq!((jane.user.as_str(), jane.uid.as_str()), ("jane", "u1"));
        assert_eq!(jane.groups, ["a", "system:masters", "system:authenticated"]);
        let joe = tokens.identity("other").map(|joe| joe.user);
        assert_eq!(joe, Some("joe".to_owned()));
        assert_eq!(tokens.identity("wrong"), None);
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
