//! Which images go when the disk is full: upstream's rules (`image_gc_manager.go`). Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use coracle_cri::{ImageFs, ImageListing};

/// When images that no pod uses are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCollection {
    /// Usage of the disk, in per cent, from which they are (`imageGCHighThresholdPercent`); 100 for never.
    pub high_percent: u64,
    /// Usage, in per cent, at which that ends (`imageGCLowThresholdPercent`).
    pub low_percent: u64,
    /// Younger images stay (`imageMinimumGCAge`).
    pub min_age: Duration,
    /// Between two looks at the disk (upstream's `ImageGCPeriod`, which cannot be set).
    pub period: Duration,
}

impl Default for ImageCollection {
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::from_secs(120),
            period: Duration::from_secs(300),
        }
    }
}

/// When images were seen, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Sightings(HashMap<String, Sighting>);

#[derive(Clone, Copy, Debug)]
struct Sighting {
    first: Duration,
    last_used: Option<Duration>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Collection {
    /// How full the disk is, in per cent.
    pub(super) usage: u64,
    /// Bytes that should become free; 0 when there is no need.
    pub(super) wanted: u64,
    /// Digests of images to remove, in this order.
    pub(super) images: Vec<String>,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Sightings {
    /// Takes note of what is there and what pods use now.
    pub(super) fn note(&mut self, images: &[ImageListing], used: &HashSet<String>, now: Duration) {
        let there: HashSet<&str> = images.iter().map(|image| image.digest.as_str()).collect();
        self.0.retain(|digest, _| there.contains(digest.as_str()));
        for image in images {
            let fresh = Sighting {
                first: now,
                last_used: None,
            };
            let sighting = self.0.entry(image.digest.clone()).or_insert(fresh);
            if used.contains(&image.digest) {
                sighting.last_used = Some(now);
            }
        }
    }

    /// Decides what goes: nothing below the high mark; otherwise what was unused for longest, until the disk
    /// is down to the low one. Never what a pod uses, what is too young, or what cannot be had again.
    pub(super) fn collect(
        &self,
        when: &ImageCollection,
        fs: ImageFs,
        images: &[ImageListing],
        used: &HashSet<String>,
        now: Duration,
    ) -> Collection {
        let free = u128::from(fs.available) * 100 / u128::from(fs.capacity.max(1));
        let usage = 100u64.saturating_sub(u64::try_from(free).unwrap_or(100));
        let mut collection = Collection {
            usage,
            ..Collection::default()
        };
        if usage < when.high_percent || when.high_percent >= 100 || fs.capacity == 0 {
            return collection;
        }
        let wanted_free = u128::from(100u64.saturating_sub(when.low_percent));
        let wanted_free = u128::from(fs.capacity) * wanted_free / 100;
        let wanted_free = u64::try_from(wanted_free).unwrap_or(u64::MAX);
        collection.wanted = wanted_free.saturating_sub(fs.available);
        let mut eligible: Vec<(Sighting, &ImageListing)> = images
            .iter()
            .filter(|image| !image.pinned && !used.contains(&image.digest))
            .filter_map(|image| Some((*self.0.get(&image.digest)?, image)))
            .filter(|(sighting, _)| now.saturating_sub(sighting.first) >= when.min_age)
            .collect();
        eligible.sort_by_key(|(sighting, image)| {
            (sighting.last_used, sighting.first, image.digest.clone())
        });
        for (_, image) in eligible {
            if collection.bytes >= collection.wanted {
                break;
            }
            collection.images.push(image.digest.clone());
            collection.bytes = collection.bytes.saturating_add(image.size);
        }
        collection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Duration = Duration::from_secs;
    const WHEN: ImageCollection = ImageCollection {
        high_percent: 85,
        low_percent: 80,
        min_age: Duration::from_secs(120),
        period: Duration::from_secs(300),
    };

    fn image(digest: &str, size: u64) -> ImageListing {
        ImageListing {
            digest: digest.to_owned(),
            names: vec![format!("r.io/{digest}:1")],
            size,
            pinned: digest.starts_with("pinned"),
        }
    }

    fn used(digests: &[&str]) -> HashSet<String> {
        digests.iter().map(|digest| (*digest).to_owned()).collect()
    }

    fn disk(available: u64) -> ImageFs {
        ImageFs {
            capacity: 1000,
            available,
        }
    }

    #[test]
    fn what_was_unused_for_longest_goes_until_the_disk_is_down_to_the_low_mark() {
        let images = [
            image("a", 40),
            image("b", 40),
            image("c", 40),
            image("d", 40),
        ];
        let mut sightings = Sightings::default();
        sightings.note(&images, &used(&["a", "b"]), AT(0));
        sightings.note(&images, &used(&["a"]), AT(100));
        // 90 % used: 200 should be free, and 100 are.
        let found = sightings.collect(&WHEN, disk(100), &images, &used(&["d"]), AT(1000));
        assert_eq!((found.usage, found.wanted), (90, 100));
        assert_eq!(found.images, ["c", "b", "a"]);
        assert_eq!(found.bytes, 120);
    }

    #[test]
    fn marks_and_age_can_be_others() {
        let images = [image("a", 40), image("b", 40)];
        let mut sightings = Sightings::default();
        sightings.note(&images, &used(&["b"]), AT(0));
        let when = |high_percent, low_percent, min_age| ImageCollection {
            high_percent,
            low_percent,
            min_age: AT(min_age),
            ..ImageCollection::default()
        };
        for (when, gone) in [
            (when(1, 0, 10), vec!["a"]),
            (when(1, 0, 11), vec![]),
            (when(2, 0, 10), vec![]),
            (when(100, 0, 0), vec![]),
        ] {
            // 1 % used.
            let found = sightings.collect(&when, disk(990), &images, &used(&["b"]), AT(10));
            assert_eq!(found.images, gone, "{when:?}");
        }
        let full = when(100, 0, 0);
        let found = sightings.collect(&full, disk(0), &images, &used(&[]), AT(10));
        assert_eq!(found.wanted, 0, "100 is never");
    }

    #[test]
    fn below_the_high_mark_nothing_goes() {
        let images = [image("a", 40)];
        let mut sightings = Sightings::default();
        sightings.note(&images, &used(&[]), AT(0));
        let found = sightings.collect(&WHEN, disk(160), &images, &used(&[]), AT(1000));
        assert_eq!((found.usage, found.wanted, found.images.len()), (84, 0, 0));
        let found = sightings.collect(&WHEN, disk(150), &images, &used(&[]), AT(1000));
        assert_eq!((found.usage, found.images.len()), (85, 1));
    }

    #[test]
    fn young_used_and_loaded_images_stay() {
        let images = [image("used", 40), image("pinned", 40), image("young", 40)];
        let mut sightings = Sightings::default();
        sightings.note(&images[..2], &used(&["used"]), AT(0));
        sightings.note(&images, &used(&["used"]), AT(900));
        let found = sightings.collect(&WHEN, disk(0), &images, &used(&["used"]), AT(1000));
        assert_eq!(found.wanted, 200);
        assert!(found.images.is_empty(), "{found:?}");
        let found = sightings.collect(&WHEN, disk(0), &images, &used(&["used"]), AT(1020));
        assert_eq!(found.images, ["young"]);
    }

    #[test]
    fn an_image_that_came_again_is_young_again() {
        let images = [image("a", 40)];
        let mut sightings = Sightings::default();
        sightings.note(&images, &used(&[]), AT(0));
        sightings.note(&[], &used(&[]), AT(10));
        sightings.note(&images, &used(&[]), AT(1000));
        let found = sightings.collect(&WHEN, disk(0), &images, &used(&[]), AT(1001));
        assert!(found.images.is_empty());
        let strange = ImageFs {
            capacity: 0,
            available: 0,
        };
        assert_eq!(
            sightings
                .collect(&WHEN, strange, &images, &used(&[]), AT(2000))
                .wanted,
            0
        );
    }
}
