//! What the database has been told and has not committed.
//!
//! ```text
//!  group ─▶ rows ─▶ journal, synced ─▶ kept open ─▶ next group … ─▶ checkpoint: committed durably
//!                                          │
//!                                          └─ a reader comes ─▶ committed, in memory
//! ```
//!
//! A commit that is not durable costs as much as some rows, and nobody sees it: reads of the present come from the
//! server's cache, and the journal has every group already. So the transaction stays open over many groups, and is
//! committed for a reader, or at a checkpoint.

use redb::{Durability, WriteTransaction};

use super::Shared;
use crate::error::Error;

/// The transaction that is open. Whoever holds the lock may look at the database without missing anything that was
/// published.
#[derive(Default)]
pub(super) enum Ahead {
    /// None: the database has everything.
    #[default]
    Nothing,
    /// All its groups are durable.
    Open(Box<WriteTransaction>),
    /// It could not be committed, or what it was used for failed.
    Lost,
}

impl Ahead {
    /// The open transaction, or a new one, to be [kept](Self::keep) or committed; if it is dropped instead, what was
    /// in it is lost to the database, which is then to be opened again.
    pub(super) fn take(&mut self, shared: &Shared) -> Result<Box<WriteTransaction>, Error> {
        match std::mem::replace(self, Self::Lost) {
            Self::Open(transaction) => Ok(transaction),
            Self::Nothing => {
                let begun = shared.begin_write();
                if begun.is_err() {
                    *self = Self::Nothing;
                }
                let mut transaction = Box::new(begun?);
                transaction.set_durability(Durability::None)?;
                Ok(transaction)
            }
            Self::Lost => Err(lost()),
        }
    }

    /// Leaves the transaction open.
    pub(super) fn keep(&mut self, transaction: Box<WriteTransaction>) {
        *self = Self::Open(transaction);
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self) {
        *self = Self::Nothing;
    }

    /// Commits what is open, so that readers see it.
    pub(super) fn commit(&mut self) -> Result<(), Error> {
        match std::mem::replace(self, Self::Lost) {
            Self::Open(transaction) => transaction.commit()?,
            Self::Nothing => {}
            Self::Lost => return Err(lost()),
        }
        *self = Self::Nothing;
        Ok(())
    }

    /// Drops what is open: the database is to be closed.
    pub(super) fn give_up(&mut self) {
        *self = Self::Nothing;
    }
}

fn lost() -> Error {
    redb::Error::Corrupted(
        "the writes since the last checkpoint are in the journal alone".to_owned(),
    )
    .into()
}
