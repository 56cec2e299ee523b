//! Flags of the node's images, named as the kubelet's are.

use std::time::Duration;

use clap::Args;
use coracle_kubelet::ImageCollection;

/// What pulls take, and what keeps the disk from filling up.
#[derive(Clone, Debug, Args)]
pub struct NodeImagesArgs {
    /// Remove images that no pod uses when so many per cent of the disk are used; 100 for never
    #[arg(long, value_name = "PERCENT", default_value_t = 85,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub image_gc_high_threshold: u8,

    /// Remove them until only so many per cent are used
    #[arg(long, value_name = "PERCENT", default_value_t = 80,
          value_parser = clap::value_parser!(u8).range(0..=99))]
    pub image_gc_low_threshold: u8,

    /// Images younger than this are not removed
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub minimum_image_ttl_duration: Duration,

    /// How often the disk is looked at
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = at_least_a_second)]
    pub image_gc_period: Duration,

    /// Give up an attempt to pull when a registry sends less than 16 KiB in this time
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = at_least_a_second)]
    pub image_pull_progress_deadline: Duration,
}

impl NodeImagesArgs {
    /// The error of marks that leave nothing between them.
    pub fn check(&self) -> Result<(), String> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        if low < high {
            return Ok(());
        }
        Err(format!(
            "--image-gc-low-threshold {low} has to be less than --image-gc-high-threshold {high}"
        ))
    }

    /// When images are removed.
    pub fn collection(&self) -> ImageCollection {
        ImageCollection {
            high_percent: self.image_gc_high_threshold.into(),
            low_percent: self.image_gc_low_threshold.into(),
            min_age: self.minimum_image_ttl_duration,
            period: self.image_gc_period,
        }
    }
}

/// A duration as Go writes it, such as `2m0s`.
fn duration(text: &str) -> Result<Duration, String> {
    let nanos = coracle_api::duration::parse(text)?;
    let nanos = u64::try_from(nanos).map_err(|_| "it is negative".to_owned())?;
    Ok(Duration::from_nanos(nanos))
}

fn at_least_a_second(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    match duration < Duration::from_secs(1) {
        true => Err("it is less than 1s".to_owned()),
        false => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn args(flags: &[&str]) -> Result<NodeImagesArgs, String> {
        let line = ["coracle", "up"].iter().chain(flags);
        let parsed = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        match parsed.command {
            Command::Up(up) => Ok(up.node_images),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_everything_is_as_upstream_has_it() {
        let args = args(&[]).expect("no flags");
        assert_eq!(args.collection(), ImageCollection::default());
        assert_eq!(args.image_pull_progress_deadline, Duration::from_secs(60));
        assert_eq!(args.check(), Ok(()));
    }

    #[test]
    fn marks_have_an_order_and_durations_a_unit() {
        let lower = args(&["--image-gc-high-threshold=50"]).expect("well-formed");
        assert!(lower.check().is_err_and(|error| error.contains("80")));
        let other = args(&["--minimum-image-ttl-duration=0s", "--image-gc-period=1s"]);
        let other = other.expect("well-formed").collection();
        assert_eq!(
            (other.min_age, other.period),
            (Duration::ZERO, Duration::from_secs(1))
        );
        for wrong in [
            "--image-gc-period=10",
            "--image-gc-period=1ms",
            "--minimum-image-ttl-duration=-1s",
            "--image-gc-high-threshold=101",
        ] {
            args(&[wrong]).expect_err(wrong);
        }
    }
}
