//! What is in the store.

use anyhow::Result;
use coracle_image::{Digest, ImageStore, Layout, NotWasm, Origin, Record, Use};
use serde_json::{Value, json};

use super::{familiar, find, open};
use crate::cli::{DataDir, ListFormat};

/// Lists the names of the store.
pub(super) fn list(output: Option<ListFormat>, quiet: bool, data: &DataDir) -> Result<()> {
    let records = open(data)?.records()?;
    if quiet {
        records
            .iter()
            .for_each(|record| println!("{}", familiar(&record.name)));
    } else if output.is_some() {
        let images: Vec<Value> = records.iter().filter_map(as_json).collect();
        println!("{:#}", json!({"images": images}));
    } else {
        print!("{}", table(&records));
    }
    Ok(())
}

fn as_json(record: &Record) -> Option<Value> {
    let image = record.image()?;
    Some(json!({
        "name": record.name,
        "digest": image.digest.to_string(),
        "size": image.size,
        "origin": record.origin,
    }))
}

/// Columns as kubectl prints them.
fn table(records: &[Record]) -> String {
    let head = ["NAME", "DIGEST", "SIZE", "ORIGIN"].map(str::to_owned);
    let rows = records.iter().filter_map(|record| {
        let image = record.image()?;
        let origin = match record.origin {
            Origin::Loaded => "loaded",
            Origin::File => "file",
            Origin::Pulled => "pulled",
        };
        let digest: String = image.digest.hex().chars().take(12).collect();
        let name = familiar(&record.name).to_owned();
        Some([name, digest, bytes(image.size), origin.to_owned()])
    });
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0) + 3
    };
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[3]);
        text.push('\n');
    }
    text
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// Shows one image.
pub(super) fn inspect(name: &str, data: &DataDir) -> Result<()> {
    let store = open(data)?;
    let (reference, image) = find(&store, name)?;
    let names: Vec<String> = store
        .records()?
        .into_iter()
        .filter(|record| {
            record
                .image()
                .is_some_and(|other| other.digest == image.digest)
        })
        .map(|record| record.name)
        .collect();
    let origin = store
        .record(&reference.to_string())?
        .map(|record| record.origin);
    let mut shown = json!({
        "name": reference.to_string(),
        "names": names,
        "digest": image.digest.to_string(),
        "size": image.size,
        "origin": origin,
    });
    let more = match store.describe(&image.digest)? {
        None => json!({"kind": "file"}),
        Some(described) => {
            let layout = described.layout(Use::Files);
            json!({
                "kind": match layout {
                    Ok(Layout::Artifact { .. }) => "artifact",
                    _ => "image",
                },
                "platform": described.config.platform.to_string(),
                "manifest": described.digest.to_string(),
                "config": described.config.config,
                "layers": described.manifest.layers,
                "annotations": described.manifest.annotations,
            })
        }
    };
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
        match runnable(&store, &image.digest) {
            Ok(()) => shown.insert("runnable".to_owned(), Value::Bool(true)),
            Err(why) => shown.insert("notRunnable".to_owned(), Value::String(why)),
        };
    }
    println!("{shown:#}");
    Ok(())
}

/// Why an image cannot be run, as far as its manifest tells.
pub(super) fn runnable(store: &ImageStore, digest: &Digest) -> Result<(), String> {
    match store.describe(digest) {
        Ok(Some(described)) => {
            let layout = described.layout(Use::Run);
            layout.map(|_| ()).map_err(|why: NotWasm| why.to_string())
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_image::StoredImage;

    #[test]
    fn the_table_has_a_line_per_name() {
        let image = StoredImage {
            digest: Digest::of(b"x"),
            size: 1_234_567,
        };
        let records = [
            Record::new("docker.io/library/app:dev", &image, Origin::Loaded),
            Record::new("ghcr.io/team/app:1", &image, Origin::Pulled),
        ];
        assert_eq!(
            table(&records),
            "NAME                 DIGEST         SIZE     ORIGIN\n\
             app:dev              2d711642b726   1.2 MB   loaded\n\
             ghcr.io/team/app:1   2d711642b726   1.2 MB   pulled\n"
        );
    }

    #[test]
    fn sizes_are_short() {
        for (count, text) in [(7, "7 B"), (1500, "1.5 kB"), (2_000_000_000, "2.0 GB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
