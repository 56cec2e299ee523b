//! How a store lies in redb's tables.
//!
//! | table | key | value |
//! |---|---|---|
//! | `versions` | key bytes, revision | a [`Record`]: what the key had from that revision on |
//! | `log` | revision | the key that was written |
//! | `expiries` | milliseconds since 1970, key bytes | – |
//! | `meta` | name | `schema`, `cluster-id`, `compacted`, and of the journal `epoch` and `needed` |
//!
//! The newest revision is the last one in `log`, or else `compacted`. Above `compacted` both tables
//! are complete; at and below it `log` is empty and `versions` holds only what is still live.
//!
//! ```text
//! record   = kind (0 deleted, 1 put) · create revision · previous revision (0: none) · expiry (0: never)
//!            · envelope, for a put
//! envelope = format (1) · encryption key id (0: not encrypted) · value
//! ```
//!
//! Numbers are little-endian; revisions and expiries have 8 bytes, the encryption key id 4.

use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::error::Error;
use crate::types::Revision;

pub(super) const VERSIONS: TableDefinition<(&[u8], u64), &[u8]> = TableDefinition::new("versions");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const EXPIRIES: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("expiries");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

pub(super) const SCHEMA: &str = "schema";
pub(super) const CLUSTER_ID: &str = "cluster-id";
pub(super) const COMPACTED: &str = "compacted";
/// Which of the journal's frames may follow on what the database has; see [`super::journal`].
pub(super) const EPOCH: &str = "epoch";
/// 1 while the store is open or after a crash: without its journal, answered writes may be missing.
pub(super) const NEEDED: &str = "needed";

const DELETED: u8 = 0;
const PUT: u8 = 1;
const HEADER: usize = 1 + 8 + 8 + 8;

const ENVELOPE_PLAIN: u8 = 1;
const NOT_ENCRYPTED: u32 = 0;
const ENVELOPE: usize = 1 + 4;

/// What a key had from one revision on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) create_revision: Revision,
    /// The key's record that this one replaced.
    pub(super) previous: Option<Revision>,
    /// When the key expires, in milliseconds since 1970.
    pub(super) expires_at: Option<u64>,
    /// `None`: the key was deleted.
    pub(super) value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The bytes that [`Record::encode`] fills.
    pub(super) fn encoded_len(&self) -> usize {
        HEADER + self.value.map_or(0, |value| ENVELOPE + value.len())
    }

    /// Writes the record into `out`, which has [`Record::encoded_len`] bytes.
    pub(super) fn encode(&self, out: &mut [u8]) {
        out[0] = if self.value.is_some() { PUT } else { DELETED };
        out[1..9].copy_from_slice(&self.create_revision.0.to_le_bytes());
        out[9..17].copy_from_slice(&self.previous.map_or(0, |previous| previous.0).to_le_bytes());
        out[17..25].copy_from_slice(&self.expires_at.unwrap_or(0).to_le_bytes());
        if let Some(value) = self.value {
            out[HEADER] = ENVELOPE_PLAIN;
            out[HEADER + 1..HEADER + ENVELOPE].copy_from_slice(&NOT_ENCRYPTED.to_le_bytes());
            out[HEADER + ENVELOPE..].copy_from_slice(value);
        }
    }

    /// Reads a record back; `Err` says what is wrong with the bytes.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or("it is cut short")?;
        let value = match header[0] {
            DELETED if rest.is_empty() => None,
            PUT => Some(open_envelope(rest)?),
            _ => return Err("it is of an unknown kind"),
        };
        let number =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self {
            create_revision: Revision(number(1)),
            previous: Some(Revision(number(9))).filter(|previous| previous.0 != 0),
            expires_at: Some(number(17)).filter(|time| *time != 0),
            value,
        })
    }

    /// [`Record::decode`] with an error that names the record.
    pub(super) fn of(key: &[u8], revision: u64, bytes: &'a [u8]) -> Result<Self, Error> {
        Self::decode(bytes).map_err(|reason| damaged(key, revision, reason))
    }
}

fn open_envelope(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (envelope, value) = bytes
        .split_at_checked(ENVELOPE)
        .ok_or("its envelope is cut short")?;
    if envelope[0] != ENVELOPE_PLAIN {
        return Err("its envelope has an unknown format");
    }
    if envelope[1..] != NOT_ENCRYPTED.to_le_bytes() {
        return Err("it is encrypted with an unknown key");
    }
    Ok(value)
}

/// The error for a record that can't be used.
pub(super) fn damaged(key: &[u8], revision: u64, reason: &'static str) -> Error {
    Error::Corrupt {
        key: Bytes::copy_from_slice(key),
        revision: Revision(revision),
        reason,
    }
}

/// Reads a number of `meta`; one that is missing or of another length counts as 0.
pub(super) fn meta_number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<u64, Error> {
    let bytes = meta.get(name)?;
    Ok(bytes
        .and_then(|bytes| bytes.value().try_into().ok())
        .map_or(0, u64::from_le_bytes))
}

/// Writes a number of `meta`.
pub(super) fn set_meta_number(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    name: &str,
    number: u64,
) -> Result<(), Error> {
    meta.insert(name, number.to_le_bytes().as_slice())?;
    Ok(())
}

/// One step of the schema, from the version before it to its own.
pub(super) type Migration = fn(&WriteTransaction) -> Result<(), Error>;

/// All steps there ever were: the first makes the tables, and a file's schema version is the number
/// of steps it has taken. Steps are only ever added.
pub(super) const MIGRATIONS: &[Migration] = &[create_tables, begin_journal, part_journal];

fn create_tables(transaction: &WriteTransaction) -> Result<(), Error> {
    transaction.open_table(VERSIONS)?;
    transaction.open_table(LOG)?;
    transaction.open_table(EXPIRIES)?;
    let mut meta = transaction.open_table(META)?;
    set_meta_number(&mut meta, COMPACTED, Revision::FIRST.0)
}

/// A program that knew no journal would not miss the writes in it: that is why this is a step.
fn begin_journal(transaction: &WriteTransaction) -> Result<(), Error> {
    let mut meta = transaction.open_table(META)?;
    set_meta_number(&mut meta, EPOCH, 1)
}

/// A program that knew the journal without gaps would miss the frames behind the first one.
fn part_journal(_: &WriteTransaction) -> Result<(), Error> {
    Ok(())
}

/// What [`migrate`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// The file is at the newest version now.
    Current,
    /// The file is of a newer version; nothing was touched.
    Newer(u64),
}

/// Takes the steps that the file hasn't taken yet, within `transaction`.
pub(super) fn migrate(
    transaction: &WriteTransaction,
    steps: &[Migration],
) -> Result<Schema, Error> {
    let found = meta_number(&transaction.open_table(META)?, SCHEMA)?;
    let taken = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(missing) = steps.get(taken..) else {
        return Ok(Schema::Newer(found));
    };
    for step in missing {
        step(transaction)?;
    }
    if !missing.is_empty() {
        let mut meta = transaction.open_table(META)?;
        set_meta_number(&mut meta, SCHEMA, steps.len() as u64)?;
    }
    Ok(Schema::Current)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase};

    use super::*;

    fn record(value: Option<&[u8]>) -> Record<'_> {
        Record {
            create_revision: Revision(7),
            previous: Some(Revision(9)),
            expires_at: Some(3),
            value,
        }
    }

    fn encoded(record: Record<'_>) -> Vec<u8> {
        let mut bytes = vec![0; record.encoded_len()];
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn records_survive_encoding() {
        for value in [None, Some(&b""[..]), Some(&b"value"[..])] {
            let plain = Record {
                previous: None,
                expires_at: None,
                ..record(value)
            };
            assert_eq!(Record::decode(&encoded(record(value))), Ok(record(value)));
            assert_eq!(Record::decode(&encoded(plain)), Ok(plain));
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        let good = encoded(record(Some(b"value")));
        assert_eq!(Record::decode(&good[..HEADER - 1]), Err("it is cut short"));
        assert_eq!(
            Record::decode(&good[..HEADER + 2]),
            Err("its envelope is cut short")
        );
        for (at, reason) in [
            (0, "it is of an unknown kind"),
            (HEADER, "its envelope has an unknown format"),
            (HEADER + 1, "it is encrypted with an unknown key"),
        ] {
            let mut bad = good.clone();
            bad[at] = 0xee;
            assert_eq!(Record::decode(&bad), Err(reason));
        }
    }

    fn database() -> Database {
        Builder::new()
            .create_with_backend(InMemoryBackend::new())
            .expect("an empty database")
    }

    fn add_marker(transaction: &WriteTransaction) -> Result<(), Error> {
        transaction
            .open_table(META)?
            .insert("marker", [1].as_slice())?;
        Ok(())
    }

    fn fail(_: &WriteTransaction) -> Result<(), Error> {
        Err(Error::Closed)
    }

    fn run(database: &Database, steps: &[Migration]) -> Result<Schema, Error> {
        let transaction = database.begin_write()?;
        let schema = migrate(&transaction, steps)?;
        transaction.commit()?;
        Ok(schema)
    }

    fn state(database: &Database) -> (u64, bool) {
        let meta = database.begin_read().unwrap().open_table(META).unwrap();
        (
            meta_number(&meta, SCHEMA).unwrap(),
            meta.get("marker").unwrap().is_some(),
        )
    }

    #[test]
    fn an_older_schema_takes_the_missing_steps() {
        let database = database();
        run(&database, &[create_tables]).unwrap();
        assert_eq!(state(&database), (1, false));
        run(&database, &[fail, add_marker]).unwrap();
        assert_eq!(state(&database), (2, true));
    }

    #[test]
    fn a_failed_step_changes_nothing() {
        let database = database();
        run(&database, &[create_tables]).unwrap();
        run(&database, &[create_tables, add_marker, fail]).unwrap_err();
        assert_eq!(state(&database), (1, false));
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let database = database();
        run(&database, &[create_tables, add_marker]).unwrap();
        let newer = run(&database, &[create_tables]).unwrap();
        assert_eq!(newer, Schema::Newer(2));
    }
}
