//! Bytes in which nothing can be seen: encrypted, or compressed without a magic number.

use super::{Sample, verdict};
use dropgate_schemas::content::ContentType;

/// With fewer bytes the figure below says little.
const LEAST: usize = 1024;
/// The sum of squared deviations of 256 equally likely values is 255 on average, with a standard deviation of 22.6. Five of
/// those above it, noise is missed once in some hundred thousand files.
const MOST: usize = 370;

/// The learned model says `unknown` of noise as well, at a thousand times the cost.
pub(super) fn detect(sample: Sample<'_>) -> Option<ContentType> {
    let length = sample.bytes.len();
    if length < LEAST {
        return None;
    }
    let mut counts = [0_usize; 256];
    for &byte in sample.bytes {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    // Σ (count - expected)² / expected, with expected = length / 256, in whole numbers.
    let squares: usize = counts.iter().map(|count| (256 * count).abs_diff(length).pow(2)).sum();
    (squares / (256 * length) <= MOST).then(|| verdict("application/octet-stream", "unknown", "rule:noise"))
}
