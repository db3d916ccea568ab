//! Content of test files: reproducible from a seed, incompressible, unlike in every block.

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{BufReader, Read, Write as _},
    path::Path,
};

/// Bytes that follow from a seed.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    Xoshiro256PlusPlus::seed_from_u64(seed).fill(&mut out[..]);
    out
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Writes a file of `length` bytes piece by piece; returns its SHA-256 in hex. No block repeats.
///
/// # Errors
/// If it can't be written.
pub fn write_file(path: &Path, seed: u64, length: u64) -> Result<String> {
    const PIECE: usize = 4 << 20;
    let mut piece = bytes(seed, PIECE);
    let mut digest = Sha256::new();
    let mut file = File::create(path)?;
    let mut left = length;
    let mut number = 0_u64;
    while left > 0 {
        for (slot, byte) in piece.iter_mut().zip(number.to_le_bytes()) {
            *slot = byte;
        }
        let count = usize::try_from(left.min(PIECE as u64))?;
        let part = piece.get(..count).unwrap_or(&piece);
        digest.update(part);
        file.write_all(part)?;
        left -= count as u64;
        number += 1;
    }
    Ok(hex::encode(digest.finalize()))
}

/// The size and SHA-256 of a file.
///
/// # Errors
/// If it can't be read.
pub fn digest_file(path: &Path) -> Result<(u64, String)> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut digest = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, hex::encode(digest.finalize())));
        }
        digest.update(buffer.get(..count).unwrap_or_default());
        size += count as u64;
    }
}
